"""Plain English in the README and in docs/: short sentences, and the field's words (see CONTRIBUTING.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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
