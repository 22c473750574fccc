"""docs/troubleshooting.md and the lines that the program ends with: each line says its cure, or has a row on the page.

Both ways: a new line without a cure and without a row fails, and so does a row that quotes a line nobody prints.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "cgrpo"
PAGE = ROOT / "docs" / "troubleshooting.md"
HOLE = "{}"  # where a line quotes the input

# What tells a cure: an imperative behind the first clause, a rule that the input has to keep, or the choices.
VERBS = (
    "add|ask|call|check|choose|convert|copy|crop|delete|draw|encode|export|fetch|fill|give|go on|group|install|join|"
    "leave|load|look|lower|make|mend|merge|move|name|pack|pip install|put|raise|remove|rename|restart|restore|resume|"
    "run|save|say|scale|score|see|send|serve|set|start|stop|try|type|use|wait|write"
)
TELLS_A_CURE = re.compile(
    rf"(?:[;:,(]|\bor|\band|^) ?`?(?:{VERBS})\b"
    r"|\bmust (?:be|have|hold|name)\b|\b(?:must|needs) --"
    r"|\b(?:it has|there (?:is|are)|known are|it knows|only .* is read|are read) "
)
FOREIGN = {"cgrpo: command not found", "CUDA out of memory", "Killed"}  # what others print
SHORT = 10  # letters; a quotation of fewer has to be the whole line


def template(node: ast.expr) -> str:
    """The constant words of a text, with a hole for each value."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(template(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case _:
            return HOLE


def lines_of(tree: ast.AST) -> Iterator[str]:
    """The template of every UserError that is made there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("UserError", "BrokenPicture") and node.args:
            yield template(node.args[0])


@cache
def trees() -> dict[str, ast.AST]:
    files = sorted(SOURCES.rglob("*.py"))
    return {file.relative_to(SOURCES).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def all_lines() -> Iterator[tuple[str, str]]:
    for module, tree in trees().items():
        for line in lines_of(tree):
            if re.search(r"[a-z]{3}", line):  # else it hands on a text that is made elsewhere
                yield module, line


def rows(page: str) -> list[list[str]]:
    """The cells of every table's rows, heads and rules left out."""
    found = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in found if row[0].strip() != "symptom" and "---" not in row[0]]


def quoted() -> list[str]:
    """What the page's symptoms quote, with dots for what a line quotes itself."""
    return [span for row in rows(PAGE.read_text(encoding="utf-8")) for span in re.findall(r"`([^`]+)`", row[0])]


def says(lines: str, quotation: str) -> bool:
    """Whether one of ``lines`` holds the quotation, its pieces one behind the other."""
    if len(re.findall(r"[a-z]", quotation)) < SHORT:
        return quotation in re.sub(r"(?:\{\})+", "...", lines).split("\n")
    pieces = [piece.strip() for piece in quotation.split("...")]
    return re.search(".*".join(map(re.escape, pieces)), lines) is not None


def test_every_line_says_its_cure_or_has_a_row() -> None:
    known = quoted()
    helpless = [
        f"{module}: {line}"
        for module, line in all_lines()
        if not TELLS_A_CURE.search(line) and not any(says(line, quotation) for quotation in known)
    ]
    assert not helpless, "\n".join(helpless)


def test_every_quoted_line_is_printed() -> None:
    texts = {
        template(node)
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
    }
    whole = "\n".join(texts)
    assert not [quotation for quotation in quoted() if quotation not in FOREIGN and not says(whole, quotation)]


def test_every_row_says_what_to_do() -> None:
    for row in rows(PAGE.read_text(encoding="utf-8")):
        assert len(row) == 4 and all(row), row


def test_a_helpless_line_is_found() -> None:
    (line,) = lines_of(ast.parse("raise UserError(f'{a}: the thing here ' f'is {b} no good')"))
    assert line == "{}: the thing here is {} no good" and not TELLS_A_CURE.search(line)
    assert says(line, "the thing here ... no good") and not says(line, "no good ... the thing here")
    assert says("a\ntable {}: {}{}", "table ...: ...") and not says("a table: b", "table ...: ...")
    assert TELLS_A_CURE.search(line + "; give another")
    assert sum(1 for _ in all_lines()) > 300
