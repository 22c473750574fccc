"""The fields of a row: their names, what those tell of pictures, and what a value names."""

import ast
import functools
import os
import re
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, Literal

from cgrpo.data.archives import Files, is_file
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS

PROMPTS = ("prompt", "text", "caption", "instruction", "edit_prompt", "summarized_text")
_PLAIN = ("references", "reference", "image_paths", "reference_images", "reference_image")
REFERENCES = (
    *_PLAIN,
    "edit_image", "kontext_images",  # DiffSynth's and DyRef's
    "control_path",  # musubi-tuner's and ai-toolkit's
    "input_paths", "input_images",  # PSRBench's, OmniContext's
    "input_image", "source_image", "original_image",  # of sets after InstructPix2Pix
    "source_img", "local_input_image",  # MagicBrush's, Pico-Banana's
)  # fmt: skip
IMAGES = ("images", "image", "file_names", "file_name", "image_path")
ONE_IMAGE = ("image", "file_name", "image_path")  # the target next to references
TARGETS = ("target", "target_image", "target_img", "image_tgt_path", "output_image", "edited_image")
MASKS = ("masks", "mask")
PICTURES = (*REFERENCES, *IMAGES, *TARGETS, *MASKS)
VALUES = (*PROMPTS, "id", "subject", "item", "mask_threshold", "meta")
NEVER_REFERENCES = (*MASKS, "winner", "loser")
MOST_BYTES = 4095  # of a path
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
NUMBERED = re.compile(r"(.+?)_?(\d{1,4})")

# Words of fields that hold what an image was made from. Those that mean other things as well, as "source" may be a web
# site's name, count next to a word for pictures, or where the value could be a picture.
_CONDITION = {
    "before", "cond", "conditional", "conditioning", "conditions", "control", "controlnet", "controls", "hint",
    "kontext", "ref", "refs", "reference", "references", "src", "unedited",
}  # fmt: skip
_PERHAPS = {
    "canny", "condition", "context", "depth", "edges", "edit", "edits", "face", "first", "garment", "init", "initial",
    "input", "inputs", "lineart", "object", "orig", "original", "originals", "person", "pose", "raw", "scribble",
    "sketch", "source", "sources", "start", "style", "subject",
}  # fmt: skip
_PICTURE_WORDS = {
    "file", "filename", "filenames", "files", "image", "images", "img", "imgs", "name", "names", "path", "paths",
    "photo", "photos", "pic", "pics", "picture", "pictures",
}  # fmt: skip
_MASK_WORDS = {"mask", "masks", "segmentation", "segmentations"}
_FURTHER = {"another", "b", "c", "other", "second", "third"}


def plain(key: str) -> str:
    """A field's name without Hugging Face's _file_name, if it names pictures."""
    for suffix in ("_file_name", "_file_names"):
        if key.endswith(suffix) and key.removesuffix(suffix) in PICTURES:
            return key.removesuffix(suffix)
    return key


def common_name(key: str) -> str:
    """The name in PICTURES of a field of pictures: without Hugging Face's ending, or a number. Else its own."""
    match = NUMBERED.fullmatch(key)
    return match[1] if match and match[1] in REFERENCES else plain(key)


def listed(value: Any, files: Files) -> list[Any]:
    """What a field of pictures names: one, a list, or a list as a text. {"path": name} is a name, too.

    A text that is itself a file's name, such as "a.png,b.png", is that name.
    """
    if isinstance(value, str):
        if value.lstrip().startswith(("[", "{")):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = ast.literal_eval(value.strip())
        else:
            parts = [part.strip() for part in re.split("[,;|]", value)]
            if len(parts) > 1 and all(map(has_picture_ending, parts)):
                value = value if names_file(value) and is_file(files.path(value)) else parts
    items = value if isinstance(value, list) else [value]
    return [
        item["path"] if isinstance(item, dict) and item.get("bytes") is None and "path" in item else item
        for item in items
    ]


def has_picture_ending(name: str) -> bool:
    """Whether it ends as pictures' files do; an address may have a query."""
    return PurePosixPath(name.partition("?")[0]).suffix.lower() in ENDINGS


@functools.lru_cache(1024)
def condition_name(field: str) -> Literal["sure", "perhaps", ""]:
    """Whether a field by its name holds what an image next to it was made from, as in editing data sets.

    sourceImage2 and source_image have the same two words.
    """
    words = _words(field)
    role = words - _PICTURE_WORDS
    if not role or not role <= _CONDITION | _PERHAPS or field in VALUES or plain(field) in _PLAIN:
        return ""
    return "sure" if role & _CONDITION or role < words else "perhaps"


def is_further_picture(field: str) -> bool:
    """Whether a field by its name holds a second picture, or a mask: image_2, second_image, subject_mask."""
    words = _words(field)
    others = words - _FURTHER
    return bool(words & _MASK_WORDS) or (
        bool(others) and others <= _PICTURE_WORDS and (words != others or any(map(str.isdecimal, field)))
    )


def _words(field: str) -> set[str]:
    return set(re.findall("[a-z]+", re.sub("(?<=[a-z0-9])(?=[A-Z])", " ", field).lower()))


def picture_files(value: Any, files: Files) -> list[str]:
    """The files of pictures, by their endings, that a field of unknown use names."""
    named = [item for item in listed(value, files) if names_file(item) and not _ADDRESS.match(item)]
    return [item for item in named if has_picture_ending(item) and len(item) <= MOST_BYTES]


def is_address(item: str) -> bool:
    """Whether it names something on the net, or is the picture itself, rather than a file."""
    return _ADDRESS.match(item) is not None


def refuse_address(item: str, where: str) -> None:
    """Raise UserError for an address or a picture's own data in the place of a file's name."""
    if is_address(item):
        raise UserError(f"{where}: {item[:80]} is an address", "fetch it, and give the file's name")
    if len(item.encode(errors="surrogateescape")) > MOST_BYTES:
        problem = f"{item[:30]}... ({len(item)} characters) is no file's name"
        raise UserError(f"{where}: {problem}", "if it is the picture itself, save it to a file")


def names_file(item: Any) -> bool:
    """Whether it could name a file: no file system takes the null byte, or half of a surrogate pair."""
    try:
        return isinstance(item, str) and bool(os.fsencode(item)) and "\0" not in item
    except UnicodeEncodeError:
        return False


def is_unicode(text: str) -> bool:
    """Whether all that takes text takes it; JSON can hold half of a surrogate pair."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
