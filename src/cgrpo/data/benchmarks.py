"""Benchmarks with several references, as published: their rows in the fields of tasks.py, and how many there are.

``meta`` of a row names the benchmark, the kind of its prompt, and what each reference shows: ``phrases`` has a word or
phrase, "" for a subject that the benchmark does not name, None for what is no subject (a style, a background).
The layouts are those of these files of public repositories; no whole benchmark was at hand:

DreamBench++   yuangpeng/dreambench_plus: dreambench_plus/dreambench_plus_dataset.py
XVerseBench    zsxkib/cog-XVerse (a copy of bytedance/XVerse): eval/tools/XVerseBench_single.json and _multi.json
PSRBench       wang-shulei/PSR: README.md, eval/suject-consistency/eval-3-subject-sc.py
OmniRef-Bench  Weistrass/DyRef: benchmark/metadata/benchmark.json
OmniContext    VectorSpaceLab/OmniGen2: omnicontext/inference.py
MultiBanana    matsuolab/multibanana: README.md, qwenvl_judge.py; captions.py reads it
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cgrpo.data.archives import Files
from cgrpo.data.tasks import Entry, Fault
from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.text import read_text
from cgrpo.types import Task

ROWS: dict[str, int | None] = {  # as the benchmarks' papers or pages state them; None where none was at hand
    "DreamBench++": 1350, "XVerseBench": 300, "PSRBench": 350, "OmniRef-Bench": 395, "OmniContext": None,
    "MultiBanana": 3769,
}  # fmt: skip
FOLDERS = {  # the lists of those that come as several, in their folder
    "PSRBench": (
        "Attribute.json", "Action.json", "Background.json", "Position.json", "Complex.json", "Three.json", "Four.json",
    ),
    "XVerseBench": ("eval/tools/XVerseBench_single.json", "eval/tools/XVerseBench_multi.json"),
}  # fmt: skip
CATEGORIES = ("animal", "human", "object", "style")  # DreamBench++'s folders
OMNICONTEXT = ("key", "task_type")  # its columns beside the usual ones
Shown = list[tuple[Any, str | None]]  # each reference's file, and what it shows


class Rows(NamedTuple):
    """The rows of one benchmark.

    fields  what they all have
    shown   their references, and what these show
    kind    the field that says of which kind their prompt is
    folder  where the names of pictures lead from, given the list; None: from the list's folder
    """

    fields: frozenset[str]
    shown: Callable[[dict[str, Any]], Shown]
    kind: str
    folder: Callable[[Path], Path] | None = None


def _xversebench(row: dict[str, Any]) -> Shown:
    return [(one["image_path"], one["caption"]) for one in row["modulation"][0]["src_inputs"]]


def _psrbench(row: dict[str, Any]) -> Shown:
    files = row.get("input_paths") or row["input_path"]  # the README's name, and the scripts'
    return [(file, row[f"category{number}"]) for number, file in enumerate(files, 1)]


def _omnirefbench(row: dict[str, Any]) -> Shown:
    files = [row["edit_image"]] if isinstance(row["edit_image"], str) else row["edit_image"]
    paths = [PurePosixPath(file) for file in files]
    return [(str(path), path.stem if path.parent.name == "transfer_subjects" else None) for path in paths]


def _omnicontext(row: dict[str, Any]) -> Shown:
    return [(file, "") for file in row["input_images"]]


def xverse_folder(file: Path) -> Path:
    """Where the pictures' names in one of XVerseBench's lists lead from: the repository that has assets/."""
    return next((folder for folder in file.parents if (folder / "assets").is_dir()), file.parent)


BENCHMARKS = {
    "XVerseBench": Rows(frozenset({"modulation", "prompt"}), _xversebench, "subset", xverse_folder),
    "PSRBench": Rows(frozenset({"instruction", "category1"}), _psrbench, "subset"),
    "OmniRef-Bench": Rows(frozenset({"edit_image", "category", "index"}), _omnirefbench, "category"),
    "OmniContext": Rows(frozenset({"task_type", "instruction", "input_images"}), _omnicontext, "task_type"),
}


def translator(name: str) -> Callable[[Entry], dict[str, Any]]:
    """The translation of a benchmark's rows into the fields of tasks.py, which raises UserError."""
    rows = BENCHMARKS[name]

    def translate(entry: Entry) -> dict[str, Any]:
        row = entry.fields
        try:
            shown = rows.shown(row)
        except (LookupError, TypeError) as error:
            raise UserError(f"{entry.where}: no row of {name} ({type(error).__name__}: {error})") from None
        return {
            "id": row.get("key"),
            "prompt": row.get("prompt", row.get("instruction")),
            "references": [file for file, _ in shown],
            "target": row.get("image") if name == "OmniRef-Bench" else None,
            "meta": described(name, str(row.get(rows.kind, "")), [phrase for _, phrase in shown]),
        }

    return translate


def described(name: str, kind: str, phrases: list[str | None], **more: str) -> dict[str, Any]:
    """``meta`` of a benchmark's row."""
    return {"benchmark": name, "prompt_kind": kind, "phrases": phrases, **more}


def lists(folder: Path) -> list[Path]:
    """The lists of a benchmark that come in a folder; none if it is no such."""
    return [folder / name for names in FOLDERS.values() for name in names if (folder / name).is_file()]


def with_subset(entry: Entry | Fault, file: Path) -> Entry | Fault:
    """The entry with the name of its list, such as "three" or "multi"."""
    subset = file.stem.rpartition("_")[2].lower()
    if isinstance(entry, Fault) or not isinstance(entry.fields, dict):
        return entry
    return replace(entry, fields=entry.fields | {"subset": subset}, id=f"{subset}/{entry.id}")


def captions_of(folder: Path) -> list[Path]:
    """The captions of DreamBench++ in ``folder``/captions, beside ``folder``/images; none if it is no such."""
    texts = sorted((folder / "captions").glob("**/[!.]*.txt")) if (folder / "images").is_dir() else []
    return texts if all(text.parent.name in CATEGORIES for text in texts) else []


def read_dreambench_plus(folder: Path, root: Path | None = None) -> Iterator[Entry | Fault]:
    """A row for each prompt: a caption's first line is the subject, each further one a prompt for the picture.

    ``subject_id`` is the name that the benchmark gives to a picture, such as "live_subject_animal_00_kitten", and a
    row's id is that of its published ratings, such as "live_subject_animal_00_kitten-0".
    """
    for text in captions_of(folder):
        picture = (root or folder) / "images" / text.relative_to(folder / "captions").with_suffix(".jpg")
        category = text.parent.name
        try:
            with reading(text):
                subject, *prompts = read_text(text).strip().splitlines() or [""]
        except UserError as error:
            yield Fault(text.stem, str(error))
            continue
        place = f"live_subject_{category}" if category in ("animal", "human") else category
        name = "_".join((place, text.stem, subject.strip().lower().replace(" ", "_")))
        if not prompts:
            yield Fault(name, f"{text}: must hold a subject, and prompts below it")
        for number, prompt in enumerate(prompts):
            fields = {"prompt": prompt.strip(), "references": [str(picture)], "subject": subject.strip()}
            fields["meta"] = described("DreamBench++", "", [], subject_id=name, subject_kind=category)
            yield Entry(fields, f"{text}, line {number + 2}", f"{name}-{number}", Files(None))


def benchmark_of(tasks: Iterable[Task]) -> str:
    """The benchmark that all ``tasks`` are of; "" if they are of none, or of several."""
    names = {task.meta.get("benchmark") for task in tasks}
    return next((name for name in ROWS if names == {name}), "")
