"""A scoreboard as tables, plots and a page."""

import base64
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from cgrpo.evaluation.show.page import Block, Page, Plots, Section, Text
from cgrpo.evaluation.show.plots import IDENTITY, MUTED, Spot, canvas, draw_plane, svg
from cgrpo.evaluation.show.table import DASH, Table, number
from cgrpo.reproduce.cells import RowResult, Scoreboard
from cgrpo.reproduce.claims import UNTRAINED, claims_table, every_claim, headlines, signed
from cgrpo.reproduce.exhibits.base import Drawing


def board_tables(board: Scoreboard) -> list[Table]:
    """The claims, and the rows beside the paper's numbers."""
    return [claims_table(board), _rows(board)] if board.claims else [_rows(board)]


def board_page(
    boards: Sequence[Scoreboard], shown: Mapping[str, Drawing] | None = None, lacking: Mapping[str, str] | None = None
) -> Page:
    """All scoreboards on one page, a section each, then exhibits by name, and why some are lacking."""
    sections = [
        Section(
            f"{board.table.name}-{board.world}",
            f"{board.table.title} ({board.table.source}), {board.world}",
            [*_noted(board), Plots([_plane(board)])],
        )
        for board in boards
    ]
    sections += [
        Section(name, name.replace("-", ", "), _exhibited(name, drawing)) for name, drawing in (shown or {}).items()
    ]
    sections += [
        Section(name, name.replace("-", ", "), [Text(why, "caution")]) for name, why in (lacking or {}).items()
    ]
    lead: list[Block] = [
        Text(
            "Held-out judges, never trained on: each row's change from the base, with the 95 % interval over training "
            "seeds and held-out subjects together. The paper's numbers are of other models, data and metrics; what can "
            "be compared is the order of rows.",
            "muted",
        )
    ]
    if any(board.claims for board in boards):
        blocks = [block for table in (headlines(boards), every_claim(boards)) for block in table.noted()]
        sections.insert(0, Section("what-holds", "What holds here", blocks))
    return Page("The paper's tables", lead, sections, wide=True, links=[(s.id, s.title) for s in sections])


def _exhibited(name: str, drawing: Drawing) -> list[Block]:
    blocks: list[Block] = [block for table in drawing.tables for block in table.noted()]
    for file in drawing.pictures:
        code = base64.b64encode(file.read_bytes()).decode("ascii")
        picture = '<img src="data:image/png;base64,{}" alt="{}" style="max-width: 100%; height: auto">'
        blocks.append(Markup(picture).format(code, name))
    return blocks


def _noted(board: Scoreboard) -> list[Block]:
    return [block for table in board_tables(board) for block in table.noted()]


def _rows(board: Scoreboard) -> Table:
    metrics = list(dict.fromkeys(name for line in board.lines for name in line.change))
    shown = [*board.judges.values(), *(name for name in metrics if name not in board.judges.values())]
    head = ["", *board.table.columns, *shown, "seeds", "s"]
    rows = [
        [
            line.row.name + ("*" if line.older else ""),
            *(number(value, 2 if value and value > 1 else 3) for value in _paper(board, line)),
            *(signed(line.change.get(name)) for name in shown),
            _counted(line),
            number(line.seconds, 0),
        ]
        for line in board.lines
        if not line.untrained and (line.row.paper or line.change or line.lacking)  # a base without the paper's numbers
    ]
    columns = ", ".join(board.table.columns)
    notes = [f"Left, the paper's numbers ({columns}); then the change from the base here."] if columns else []
    notes += [] if columns else ["The change from the base."]
    if pictures := sorted({line.pictures for line in board.lines if line.pictures}):
        notes.append(f"Images generated while training, per seed: {', '.join(f'{n:,}' for n in pictures)}.")
    if drawn := sorted({line.drawn for line in board.lines if line.drawn > 1}):
        many = ", ".join(map(str, drawn))
        notes.append(
            f"Best of n trains nothing: of n = {many} pictures per task it keeps the one with the greatest sum of both "
            "rewards, each in units of its spread within tasks; so every picture costs n."
        )
    if devices := sorted({name for line in board.lines for name in line.devices}):
        notes.append(f"Trained on: {', '.join(devices)}; seconds are of training, alongside other runs.")
    if any(line.older for line in board.lines):
        notes.append("* made by another version of the package.")
    if any(line.lacking and line.change and not line.failed for line in board.lines):
        notes.append("2/3: two of three seeds are trained.")
    if lacking := [line.row.name for line in board.lines if line.untrained]:
        notes.append(f"{UNTRAINED.capitalize()}: {', '.join(lacking)}.")
    if board.table.note:
        notes.append(board.table.note)
    align = "l" + "r" * (len(head) - 1)
    return Table(f"{board.table.title} ({board.table.source}), {board.world}", " ".join(notes), head, rows, align)


def _paper(board: Scoreboard, line: RowResult) -> Sequence[float | None]:
    return line.row.paper or [None] * len(board.table.columns)


def _counted(line: RowResult) -> str:
    if line.lacking:
        return line.lacking
    return str(next(iter(line.change.values())).seeds) if line.change else DASH


def _plane(board: Scoreboard) -> str:
    """Where each row lies; the base is the origin."""
    changes = [(line, [line.change[name] for name in board.judges.values()]) for line in board.lines if line.change]
    if len(board.judges) < 2 or not changes:
        return ""
    spots = [Spot((0.0, 0.0), MUTED, "s", note="base")]
    spots += [Spot((across.mean, up.mean), IDENTITY, note=line.row.name) for line, (across, up) in changes]
    name = f"{board.table.name}-{board.world}"
    drawn, axes = canvas("Change from the base, means over seeds", (7.5, 5))
    draw_plane(axes, spots, "identity judge", "prompt judge")
    return svg(drawn, name, f"{board.table.title}: each row in the plane of identity and prompt following")
