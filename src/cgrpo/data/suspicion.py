"""What makes a row suspicious without being wrong: chatter or placeholders as its prompt, pictures that look the same.

Of 6,924 published SynCD prompts, 99 are chatter ("let me know if you need any further assistance!"): the whole reply
was kept of a model that was asked for prompts. The phrases are ours, chosen so that no ordinary caption is taken for
one, so some chatter may stay. Placeholders are what other programs replace before a model reads the prompt; here they
would be read as words.

Likeness is told without a model. A 64-bit difference hash finds candidates, a thumbnail of 8 x 8 mean colours confirms
them: re-encoded, resized or slightly retouched copies pass, the same shape in another colour or a small different thing
on an equal ground doesn't. Mirrored, rotated or cropped copies are not found.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_WANTED = "(prompts?|captions?|descriptions?)"
_ANYWHERE = (
    r"let me know (if|when|what|whether|how)\b",
    r"\b(further|additional|any other|more|any) (assistance|help|questions|revisions|modifications|changes)\b",
    r"\bfeel free to\b",
    r"\b(hope|hoping) (this|these|that|it|they) (help|meet|work|satisf|suit|fit|match)",
    r"\bas an? (ai|artificial intelligence|(large )?language model)\b",
    r"\bis there anything else\b",
    r"\b(happy|glad|here) to (help|assist)\b",
    r"\byou('d| would) like (me to|more|any|some|additional|further)\b",
    rf"\b(these|those|above|following|given|provided) (\w+ )?{_WANTED}\b",
    rf"\b{_WANTED} (for|based on|that|describing|featuring) (the|your|each|an?)\b",
    r"\b(the|your) (request|instructions?|guidelines|requirements|criteria)\b",
    r"\b(sorry|apologi[sz]e),? (but|for|i)\b",
    r"\bi (can't|cannot|can not|won't|(a|')m (unable|not able)) ",
    r"\bplease (provide|specify|clarify|note that|find below)\b",
)
_OPENINGS = (
    r"(sure|certainly|absolutely|of course|great|okay|ok|no problem|you're welcome|thanks|thank you)\s*([!,.:]|$)",
    rf"here (are|is) (\w+ )*({_WANTED}|examples?|scenes?|backgrounds?|sentences?|options?)\b",
    rf"here's (your|my|an? (example|list|{_WANTED}))\b",
    r"i('m| am) (sorry|unable|glad|happy|here|an ai)\b",
    r"i('ll| will) (provide|generate|create|help|give|try|make|write)\b",
    r"i('ve| have) (provided|generated|created|included|listed|tried|written|made)\b",
    r"i (hope|apologi[sz]e|understand)\b",
    r"note\s*:",
    r"(if|do|would|could|can) you (like|want|need|have|would|prefer|please)\b",
    r"(user|assistant|system|human)\s*:",
    r"$",
)
_CHATTER = re.compile("|".join(_ANYWHERE) + r"|^\W*(?:" + "|".join(_OPENINGS) + ")", re.IGNORECASE)

_PLACEHOLDER = re.compile(
    r"""\[\w[\w -]*\] | \{[^{}]*\}+ | <\|?[a-z][\w:. /*|-]*>    # [trigger], {red|blue}, <lora:toy:1>
    | (?<![\d%])%[a-z]+%? | \$\{?[a-z_]\w* | __[\w/*-]+__    # %s, $class, __colour__
    | (?<!\S)--[a-z][\w-]*(\ [\w:.]+)?                       # --ar 16:9, --w 768
    | \([^()]+:\ ?\d*\.?\d+\)                               # (word:1.2)
    | (?-i:\b(BREAK|TOK|V\*|S\*|sks|ohwx)(?!\w))""",
    re.IGNORECASE | re.VERBOSE,
)

HASH_BITS = 10  # of 64 may differ
COLOUR_LEVELS = 24  # of 255: the largest difference of any thumbnail pixel and channel
_BLOCK = 256


def chatter(prompt: str) -> str | None:
    """The words that give a prompt away as chatter, or None for an ordinary one. "" is a prompt without words."""
    match = _CHATTER.search(prompt.replace("\u2019", "'"))
    return match.group().strip() if match else None


def placeholder(prompt: str) -> str | None:
    """The first of a prompt's placeholders, flags, weights and rare tokens, or None."""
    match = _PLACEHOLDER.search(prompt)
    return match.group() if match else None


@dataclass(frozen=True)
class Thumbnail:
    """``bits``: does each of 8 x 8 grey cells outshine its right neighbour; ``colours`` int16 [8 * 8 * 3]."""

    bits: int
    colours: np.ndarray


def thumbnail(picture: Image.Image) -> Thumbnail:
    """What is compared of a picture; its shape plays no part."""
    small = picture.convert("RGB").resize((72, 64), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")
    colours = np.asarray(small.resize((8, 8), Image.Resampling.BOX), dtype=np.int16)
    return Thumbnail(bits, colours.reshape(-1))


def alike(thumbnails: Sequence[Thumbnail]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of positions that look the same. Quadratic, at about 5 ns a pair."""
    bits = np.array([one.bits for one in thumbnails], dtype=np.uint64)
    colours = np.stack([one.colours for one in thumbnails]) if thumbnails else np.empty((0, 192), np.int16)
    for start in range(0, len(bits), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(bits)))
        distance = np.bitwise_count(bits[rows, None] ^ bits[None, : rows.stop])
        for later, earlier in np.argwhere(distance <= HASH_BITS):
            if earlier < later + start:
                difference = np.abs(colours[later + start] - colours[earlier]).max()
                if difference <= COLOUR_LEVELS:
                    yield int(later + start), int(earlier)
