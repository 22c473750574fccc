"""`cgrpo data`: make, check and encode data sets."""

import functools
import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import Parameter

from cgrpo.app.options import (
    File,
    Finite,
    Folder,
    NewFile,
    Positive,
    Recipe,
    Settings,
    Whole,
    command,
    group,
    write_json,
)
from cgrpo.errors import UserError
from cgrpo.files import json_text


def prompts(
    folder: Folder,
    /,
    *,
    subject: Annotated[str, Parameter(metavar="WORD")],
    out: Annotated[File, Parameter(metavar="FILE.json")],
    templates: Annotated[File | None, Parameter(name="--prompts")] = None,
    kind: Literal["live", "object"] | None = None,
    count: Whole = 0,
    held_out: Whole = 8,
    references: Positive = 1,
) -> None:
    """From photos of one subject to a data set, some prompts held out.

    Args:
        folder: the subject's photos
        subject: what it is, as a prompt would say: dog
        out: the data set to write; held-out tasks go into NAME.heldout.json
        templates: one prompt per line, {class} for the subject (default: DreamBench's)
        kind: which of DreamBench's two lists of 25 prompts (default: object, but live for its dog and cat)
        count: tasks to train on; 0 for all
        held_out: prompts never trained on
        references: photos per task
    """
    from cgrpo.data.own_subject import HELD_OUT, Template, photos_in, read_templates, tasks, write_tasks
    from cgrpo.data.parts import set_apart
    from cgrpo.data.suspicion import placeholder
    from cgrpo.evaluation.benchmark.dreambench import is_live
    from cgrpo.evaluation.benchmark.dreambench import templates as official

    subject = re.sub("^(an?|the) +", "", subject.strip(), flags=re.IGNORECASE)
    if not subject or placeholder(subject):
        raise UserError("--subject: say what the photos show in a word or two, such as dog")
    if out.suffix != ".json":
        raise UserError(f"--out {out}: the data set is a .json file; give it that ending")
    photos, masks, notes = photos_in(folder)
    kind = kind or ("live" if is_live(subject) else "object")
    chosen = read_templates(templates) if templates else [Template(text, group) for text, group in official(kind)]
    if unnamed := [one.text for one in chosen if not one.names(subject)]:
        notes.append(f"{len(unnamed)} prompts don't name the subject: {unnamed[0]!r}")
    training, apart = set_apart(chosen, held_out, "prompts")
    shared = {"subject_kind": "" if templates else kind, "references": references}
    rows = tasks(photos, subject, training, out.parent, masks, name="train", count=count, **shared)
    held = tasks(photos, subject, apart, out.parent, masks, name="heldout", **shared)
    write_tasks(out, rows)
    for note in notes:
        print(note)
    print(f"{out}: {len(rows)} tasks, {len(training)} prompts x {len(photos)} photos of a {subject}")
    if held:
        other = out.with_suffix(HELD_OUT)
        write_tasks(other, held)
        print(f"{other}: {len(held)} tasks with {len(apart)} prompts that are never trained on")
        print(f"next: cgrpo data check {out}, and train with --set data.source={out} --set guard.source={other}")


def check(
    path: Annotated[File, Parameter(metavar="PATH")],
    /,
    *,
    settings: Settings = (),
    root: Folder | None = None,
    quick: bool = False,
    json: NewFile | None = None,
) -> int:
    """Find every missing, broken, duplicate or suspicious row of a data set, or all that a recipe lacks.

    Args:
        path: a manifest, a folder, or an archive; or a recipe, with its data, tasks and rewards
        root: where the pictures are, if not next to the manifest
        quick: open no picture: damage and likeness are not looked for
        json: also write the problems as JSON
    """
    from cgrpo.app.datasets import check_data, check_recipe
    from cgrpo.config import recipes

    if path.suffix == ".toml" or (not path.exists() and str(path) in recipes()):
        reports, needs, notes = check_recipe(str(path), settings, quick=quick)
    elif settings:
        raise UserError(f"--set goes with a recipe, and {path} is a data set; give it as data.source of a recipe")
    else:
        reports, needs, notes = [check_data(path, root=root, quick=quick)], [], []
    for report in reports:
        for problem in report.problems:
            print(f"{problem.kind:15s} {problem.id}: {problem.message}")
        counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count) or "no problems"
        print(f"{report.manifest}: {report.rows} rows, {report.pictures} pictures: {counts}")
    remarks = dict.fromkeys((*(note for report in reports for note in report.notes), *notes))
    for kind, lines in {"need": needs, "note": remarks}.items():
        for line in lines:
            print(f"{kind:15s} {line}")
    if json:
        tables = [report.as_dict() for report in reports]
        whole = len(tables) == 1 and not needs
        write_json(json, tables[0] if whole else {"sets": tables, "needs": needs, "notes": notes})
    return 1 if needs or any(report.problems for report in reports) else 0


def encode(recipe: Recipe = "toybox", /, *, settings: Settings = (), out: Folder) -> None:
    """Encode all prompts and references once, so that training needs no T5.

    Args:
        out: the cache; use it as data.cache
    """
    from cgrpo.app.datasets import encode_tasks
    from cgrpo.config import load_config

    cfg = load_config(recipe, settings)
    encoded = encode_tasks(cfg, out)
    print(f"prompts: {encoded.texts_made} encoded, {encoded.texts_kept} already there")
    print(f"references: {encoded.references_made} encoded, {encoded.references_kept} already there")
    if cfg.data.cache != str(out):  # else the recipe, or the script that calls this, uses it already
        print(f"train with --set data.cache={out}")


def syncd(
    root: Folder,
    /,
    *,
    top: Positive = 10000,
    out: File,
    held_out: Whole = 0,
    seed: Whole = 0,
    max_similarity: Finite = 0.98,
    min_similarity: Finite | None = None,
    min_aesthetic: Finite | None = None,
    shares: Annotated[Sequence[str], Parameter(name="--share", metavar="CATEGORY=SHARE")] = (),
    dino: Annotated[str, Parameter(metavar="FOLDER")] = "",
    clip: Annotated[str, Parameter(metavar="FOLDER")] = "",
    head: File | None = None,
) -> None:
    """Choose SynCD's best pairs (the paper's training set).

    Scores come from the metadata, or from --dino, --clip and --head; then they are kept next to --out.

    Args:
        root: SynCD's folder, unpacked or with its zips
        top: objects to keep
        out: the manifest to write (.json)
        held_out: so many objects more, never trained on, into NAME.heldout.json
        seed: seed of the pair taken from each object
        max_similarity: near-duplicates are above this similarity
        min_similarity: floor of a pair's similarity (upstream: 0.7)
        min_aesthetic: floor of both pictures' score (upstream: 6)
        shares: share of a category; repeatable
        dino: compute similarities with this DINOv2
        clip: compute aesthetics with this CLIP ViT-L/14
        head: and this converted LAION head
    """
    from tqdm import tqdm

    from cgrpo.app.datasets import advance, syncd_scorers
    from cgrpo.data import Rules, filter_syncd, hold_out, write_manifest

    if any((dino, clip, head)) and not all((dino, clip, head)):
        raise UserError("--dino, --clip and --head go together: the scores are computed with all three")
    scorers = syncd_scorers(dino, clip, head) if head is not None else None
    with tqdm(desc="syncd", unit=" objects") as bar:
        manifest = filter_syncd(
            root,
            top=top + held_out,
            seed=seed,
            rules=Rules(max_similarity, min_similarity, min_aesthetic),
            shares=dict(map(_category_share, shares)) or None,
            scorers=scorers,
            cache=out.with_suffix(".scores.jsonl") if scorers else None,
            progress=functools.partial(advance, bar),
        )
    held_out_setting = ""
    if held_out:
        from cgrpo.data.own_subject import HELD_OUT

        other = out.with_suffix(HELD_OUT)
        manifest, held = hold_out(manifest, held_out)
        write_manifest(other, root, held)
        held_out_setting = f" --set guard.source={other}"
    write_manifest(out, root, manifest)
    print(json_text(manifest["parameters"], indent=2))
    print(f"train with --set data.source={out}{held_out_setting}")


def _category_share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        value = float(share)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise UserError(f"--share {text}: write it as CATEGORY=SHARE, such as rigid=0.86") from None
    return name, value


PROMPTS_EXAMPLES = """\
cgrpo data prompts photos --subject dog --out dog.json
cgrpo data prompts photos --subject "ceramic mug" --prompts mine.txt \\
    --count 60 --out mug.json"""
CHECK_EXAMPLES = """\
cgrpo data check train.json --json problems.json
cgrpo data check uno-24gb --set data.source=dog.json \\
    --set guard.source=dog.heldout.json"""
ENCODE_EXAMPLES = "cgrpo data encode uno-dinoseg-hpsv3 --set data.source=train.json --out encoded"
SYNCD_EXAMPLES = """\
cgrpo data syncd syncd/ --top 10000 --held-out 50 --out train.json
cgrpo data syncd syncd/ --min-similarity 0.7 --min-aesthetic 6 \\
    --share rigid=0.86 \\
    --out train.json"""

app = group(
    "data",
    "Make, check and encode data sets.",
    command("prompts", prompts, PROMPTS_EXAMPLES),
    command("check", check, CHECK_EXAMPLES),
    command("encode", encode, ENCODE_EXAMPLES),
    command("syncd", syncd, SYNCD_EXAMPLES),
)
