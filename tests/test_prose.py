"""Plain English in the README, in docs/ and in --help: short sentences, and the field's words (see CONTRIBUTING.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import pytest

from cgrpo.app.main import commands
from cgrpo.app.options import DEFAULTS

ROOT = Path(__file__).parents[1]
GUIDES = ["README.md", "CONTRIBUTING.md", "docs/README.md"]
GUIDES += sorted(str(path.relative_to(ROOT)) for room in ("start", "guides") for path in ROOT.glob(f"docs/{room}/*.md"))
PAGES = [*GUIDES, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/[nr]*/*.md"))]
MADE = {
    "docs/reference/cli.md",
    "docs/reference/config.md",
    "docs/reference/api.md",
    "docs/notes/results.md",
}  # of docstrings and tables, in src/
LONGEST = 30  # words

# What we write in place of each.
WORDS = {
    r"trainings": "runs",
    r"graphics cards?|(?<!data )(?<!model )(?<!model's )cards?(?! (?:says|has))": "GPU",
    r"photographs?": "photo",
    r"(?:mend|mends|mended|mending)": "fix",
    r"(?:told|tells) of": "names, describes",
    r"(?:fills|filling) of": "credit functions",
    r"goes on|go on|going on|went on": "continues",
    r"beside": "next to, alongside",
}


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page's paragraphs, list items and table cells, with links and code as their words."""
    text = re.sub(r"<!--.*?-->|^ *```.*?^ *```", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`\n]*`", "CODE", text)
    blocks = re.split(r"\n\s*\n|\n(?= *(?:[-*+] |\d+\. |\||#|>))|\|", text)
    for block in blocks:
        words = " ".join(re.sub(r"^[\s>#*+-]*(?:\d+\. )?", "", block).replace("*", "").split())
        yield from filter(None, re.split(r"(?<=[.!?])[\"')]* (?=[A-Z\"'(0-9])|(?<=:) (?=[A-Z])", words))


def length(sentence: str) -> int:
    return sum(any(char.isalpha() for char in word) for word in sentence.split())


@pytest.mark.parametrize("page", GUIDES)
def test_sentences_are_short(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [sentence for sentence in sentences(text) if length(sentence) > LONGEST]


def test_help_is_short_and_in_the_fields_words() -> None:
    texts: list[str] = []
    for _, command in commands():
        texts.append(re.split(r"\n\n(?:Args|Returns|Raises):", cleandoc(command.default_command.__doc__ or ""))[0])
        arguments = command.assemble_argument_collection(default_parameter=DEFAULTS, parse_docstring=True)
        texts += [argument.parameter.help or "" for argument in arguments]
    said = {sentence for text in texts for sentence in sentences(text)}
    assert len(said) > 200 and not [sentence for sentence in said if length(sentence) > LONGEST]
    assert not [sentence for sentence in said if re.search(rf"\b(?:{'|'.join(WORDS)})\b", sentence, re.IGNORECASE)]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in MADE])
def test_words_are_the_fields(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").partition("<!-- Below this line")[0]
    said = "\n".join(sentences(text))
    assert not {word: ours for word, ours in WORDS.items() if re.search(rf"\b(?:{word})\b", said, re.IGNORECASE)}


def test_sentences_are_told_apart() -> None:
    text = "# A head\n\nOne two. Three `a b` [four](x.md) five:\n\n* six seven\n* eight. Nine\n\n| a | b c |\n"
    found = ["A head", "One two.", "Three CODE four five:", "six seven", "eight.", "Nine", "a", "b c"]
    assert [sentence.strip() for sentence in sentences(text)] == found
    assert length("At 80 % power, 3 of 5 pass") == 4
