"""SynCD's best objects by subject similarity and beauty: the filter of Customized-GRPO, as we read it.

The paper takes 10,000 samples "by DINOv2 similarity and aesthetic score" and leaves open how the two are combined, so
what follows is ours, stated whole in ``filter_syncd``. A caution: ranking by similarity favours near-copies, so look at
``similarity_deciles`` among the result's parameters.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from cgrpo.data import manifests
from cgrpo.data.archives import Files, read_bytes
from cgrpo.data.parts import set_apart
from cgrpo.data.suspicion import chatter
from cgrpo.data.syncd_files import Pair, SyncdObject, choose_pair, metadata_files, object_of, row_of
from cgrpo.data.syncd_scores import Scorers, score_objects
from cgrpo.data.tasks import Fault
from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text, writing
from cgrpo.fingerprint import of_bytes, of_file, of_settings

NEAR_DUPLICATE = 0.98  # the official loader's: a pair above it shows one picture twice


@dataclass(frozen=True)
class Rules:
    """Which pairs of an object may be taken; None: that rule is off."""

    near_duplicate: float | None = NEAR_DUPLICATE
    min_similarity: float | None = None
    min_aesthetic: float | None = None
    drop_chatter: bool = True

    def pairs(self, item: SyncdObject, similarity: Mapping[Pair, float], aesthetics: Sequence[float]) -> list[Pair]:
        dropped = [self.drop_chatter and chatter(prompt) is not None for prompt in item.prompts]
        return [
            (i, j)
            for i, j in item.pairs
            if not (dropped[i] or dropped[j])
            and (self.near_duplicate is None or similarity[i, j] <= self.near_duplicate)
            and (self.min_similarity is None or similarity[i, j] >= self.min_similarity)
            and (self.min_aesthetic is None or min(aesthetics[i], aesthetics[j]) >= self.min_aesthetic)
        ]


@dataclass(frozen=True)
class Candidate:
    """An object, the pairs of it that stayed, and the means over those pairs and their pictures."""

    item: SyncdObject
    pairs: tuple[Pair, ...]
    similarity: float
    aesthetic: float
    score: float = 0.0


def filter_syncd(
    root: Path,
    *,
    top: int,
    seed: int = 0,
    rules: Rules | None = None,
    shares: Mapping[str, float] | None = None,
    scorers: Scorers | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The ``top`` best objects of SynCD at ``root`` (its folder, or one metadata file), a pair of pictures each.

    1. Pictures whose prompt is a chat model's chatter go (suspicion.py).
    2. Pairs stay with similarity <= 0.98, and where asked for, >= ``min_similarity`` and both pictures' beauty >=
       ``min_aesthetic`` (SynCD's maintainer used 0.7 and 6). The official loader asks these of pictures rather than
       of pairs, and has no cap without a floor.
    3. An object with a pair left is scored: the mean of its two percentile ranks (average ranks for ties) among all
       such objects, by mean similarity over its pairs and by mean beauty over the pictures in them.
    4. Objects are sorted by (-score, -similarity, -beauty, folder number); the first ``top`` are taken, or, with
       ``shares`` (category -> share, sum <= 1; official: rigid 0.86, deformable 0.14), the first of each category.
    5. Of each, the pair that SHA-256 of "seed:folder" names: its first picture is the reference, the other the target.

    Of an object that is listed twice the first counts.

    Scores are the metadata's, or those of ``scorers`` where given, kept in ``cache`` (syncd_scores.py).
    Returns {"parameters", "records"}, a manifest for ``write_manifest``, with SHA-256 of metadata, pictures and list.
    Raises UserError for a row at fault, missing scores or pictures, and if nothing is left.
    """
    _check(top, shares)
    rules = rules or Rules()
    metadata = metadata_files(root)
    if not metadata:
        raise UserError(f"{root}: holds no metadata.json of SynCD's", "give the folder that has it")
    (objects, repeated), files = _load(metadata), Files(root if root.is_dir() else root.parent)
    unreadable: list[str] = []
    if scorers is not None:
        objects, unreadable = score_objects(objects, files, scorers, cache, progress)
    candidates = [one for item in objects if (one := _candidate(item, rules, metadata[0])) is not None]
    if not candidates:
        raise UserError(f"{root}: none of its {len(objects)} objects passes", "lower min_similarity or min_aesthetic")
    chosen = _choose(_ranked(candidates), top, shares)
    records = [_row(candidate, choose_pair(candidate.item, candidate.pairs, seed), files) for candidate in chosen]
    parameters = {
        "top": top,
        "seed": seed,
        **asdict(rules),
        "shares": None if shares is None else dict(shares),
        "scores": "metadata" if scorers is None else scorers.name,
        "metadata_sha256": {path.name: of_file(path) for path in metadata},
        "objects": len(objects),
        "repeated": repeated,
        "chatter_prompts": sum(chatter(prompt) is not None for item in objects for prompt in item.prompts),
        "candidates": len(candidates),
        "chosen": dict(Counter(candidate.item.category for candidate in chosen)),
        "similarity_deciles": _deciles([candidate.similarity for candidate in chosen]),
        "unreadable": unreadable,
        "records_sha256": of_settings(records),
    }
    return {"parameters": parameters, "records": records}


def _check(top: int, shares: Mapping[str, float] | None) -> None:
    if top < 1:
        raise UserError(f"top must be 1 or more, got {top}")
    if shares is not None and (min(shares.values(), default=-1) < 0 or not 0 < sum(shares.values()) <= 1 + 1e-9):
        raise UserError(f"shares must be 0 or more and sum to at most 1, got {dict(shares)}")


def _candidate(item: SyncdObject, rules: Rules, metadata: Path) -> Candidate | None:
    similarity, aesthetics = _scores(item, metadata)
    pairs = rules.pairs(item, similarity, aesthetics)
    if not pairs:
        return None
    kept = sorted({k for pair in pairs for k in pair})
    means = fmean(similarity[pair] for pair in pairs), fmean(aesthetics[k] for k in kept)
    return Candidate(item, tuple(pairs), *(round(mean, 9) for mean in means))  # so that equal means are equal


def hold_out(manifest: Mapping[str, Any], count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """``manifest`` without ``count`` of its objects, spread evenly over the ranking, and a second one of these.

    Raises UserError where nothing would be left.
    """
    parts = set_apart(manifest["records"], count, "objects that pass")
    parameters = {**manifest["parameters"], "held_out": count}
    training, held = (
        {"parameters": parameters | {"records_sha256": of_settings(rows)}, "records": rows} for rows in parts
    )
    return training, held


def write_manifest(path: Path, root: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest whose pictures lie under ``root`` (or next to it, if a file). Raises UserError."""
    folder = root if root.is_dir() else root.parent
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(folder.resolve(), path.parent.resolve())
        write_text(path, json_text({"root": Path(relative).as_posix(), **manifest}, indent=1) + "\n")


def _load(metadata: Sequence[Path]) -> tuple[list[SyncdObject], int]:
    """The objects, and how many rows list one anew."""
    objects: dict[str, SyncdObject] = {}
    entries = [entry for path in metadata for entry in manifests.read(path)]
    for entry in entries:
        if isinstance(entry, Fault):
            raise UserError(entry.message)
        item = object_of(entry.fields, entry.where)
        objects.setdefault(item.folder, item)
    return list(objects.values()), len(entries) - len(objects)


def _scores(item: SyncdObject, metadata: Path) -> tuple[dict[Pair, float], tuple[float, ...]]:
    if item.similarity is None or item.aesthetics is None:
        lacking = "dino_scores" if item.similarity is None else "aesthetics_scores"
        cure = "fetch metadata_with_scores.json, or score the pictures here"
        raise UserError(f"{metadata}, folder {item.folder}: has no {lacking}", cure)
    return item.similarity, item.aesthetics


def _ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    similarity = percentile_ranks([candidate.similarity for candidate in candidates])
    aesthetic = percentile_ranks([candidate.aesthetic for candidate in candidates])
    scored = [replace(one, score=(s + a) / 2) for one, s, a in zip(candidates, similarity, aesthetic, strict=True)]
    return sorted(scored, key=lambda one: (-one.score, -one.similarity, -one.aesthetic, one.item.order))


def percentile_ranks(values: Sequence[float]) -> list[float]:
    """Rank / count, in (0, 1]; the least has the lowest; equal values share the mean of their ranks."""
    from scipy.stats import rankdata  # half a second

    return (rankdata(values) / len(values)).tolist()


def _choose(ranked: Sequence[Candidate], top: int, shares: Mapping[str, float] | None) -> list[Candidate]:
    """The first ``top``; with shares round(top * share) of each category, fewer where it has fewer."""
    if shares is None:
        return list(ranked[:top])
    categories = {candidate.item.category for candidate in ranked}
    for category in shares:
        if category not in categories:
            raise UserError(
                f"shares: no object that passes is of category {category!r}; there are {sorted(categories)}"
            )
    left = {category: round(top * share) for category, share in shares.items()}
    chosen = []
    for candidate in ranked:
        if left.get(candidate.item.category, 0):
            left[candidate.item.category] -= 1
            chosen.append(candidate)
    return chosen[:top]


def _row(candidate: Candidate, pair: Pair, files: Files) -> dict[str, Any]:
    row = row_of(candidate.item, pair, files)
    scores = {
        "score": candidate.score,
        "similarity": candidate.similarity,
        "aesthetic": candidate.aesthetic,
        "pair_similarity": candidate.item.similarity and candidate.item.similarity[pair],
        "sha256": {name: _fingerprint(files.path(name)) for name in (*row["references"], row["target"])},
    }
    return row | {"meta": row["meta"] | scores}


def _fingerprint(picture: Path) -> str:
    content = read_bytes(picture)
    if not content:
        raise UserError(f"{picture}: is empty", "fetch it anew")
    return of_bytes(content)


def _deciles(values: Sequence[float]) -> list[float]:
    """Least, the nine deciles, and greatest."""
    inner = quantiles(values, n=10, method="inclusive") if len(values) > 1 else list(values) * 9
    return [round(value, 6) for value in (min(values), *inner, max(values))]
