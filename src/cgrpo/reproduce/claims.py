"""What the paper says, and what the runs here say of it: headlines first, each of a few claims, then every claim."""

from collections import Counter
from collections.abc import Sequence

from cgrpo.evaluation.show.table import DASH, Cell, Table, interval, number
from cgrpo.evaluation.statistics.paired import TwoLevel
from cgrpo.reproduce.cells import JudgedClaim, Scoreboard
from cgrpo.reproduce.definition import FEWEST, HEADLINES, LEVEL

RULE = (
    "Differences as the words say, on judges that are not trained on, with 95 % intervals over seeds and subjects "
    f"together. A verdict needs {FEWEST} seeds, and a p-value below 0.05 after Holm's adjustment for all claims of its "
    f"table in that world. Level: the whole interval lies within {LEVEL:g}. Unclear: neither."
)
TONES = {"holds": "rose", "does not hold": "fell"}
UNTRAINED = "not trained yet"
UNDECIDED = ("level", "unclear", "too few seeds")
SHORT = 2  # claims of which a headline's cell tells each; of more it counts


def headlines(boards: Sequence[Scoreboard]) -> Table:
    """A row a headline, a column a world. One that no board has a claim of is left out."""
    worlds = _worlds(boards)
    rows: list[list[str | Cell]] = []
    for name, says in HEADLINES.items():
        judged = {world: _part(boards, name, world) for world in worlds}
        if any(judged.values()):
            rows.append([says, *(_headline(judged[world]) for world in worlds)])
    note = (
        "A claim holds if every part is confirmed, holds in part if some are and none is contradicted, and does not "
        "hold if any part is contradicted. " + RULE
    )
    return Table("What holds here", note, ["the paper says", *worlds], rows, "l" * (1 + len(worlds)))


def every_claim(boards: Sequence[Scoreboard]) -> Table:
    """Every claim of which something was trained in some world; the note counts the others."""
    worlds = _worlds(boards)
    claims: dict[tuple[str, str], dict[str, JudgedClaim]] = {}
    for board in boards:
        for judged in board.claims:
            claims.setdefault((board.table.title, judged.claim.says), {})[board.world] = judged
    rows, lacking = [], Counter[str]()
    for (title, says), by_world in claims.items():
        if all(judged.difference is None for judged in by_world.values()):
            lacking[title] += 1
            continue
        claim = next(iter(by_world.values())).claim
        cells = (_claim_cell(by_world.get(world)) for world in worlds)
        rows.append([says, title, compared(claim.row, claim.against), *cells])
    note = "Every difference is that of the column beside the claim, in this order."
    if lacking:
        few = (f"{title} ({count} claim{'' if count == 1 else 's'})" for title, count in lacking.items())
        note += f" {UNTRAINED.capitalize()}: {'; '.join(few)}."
    head = ["claim", "in", "difference of", *worlds]
    return Table("Every claim", note, head, rows, "l" * len(head))


def claims_table(board: Scoreboard) -> Table:
    """One board's claims."""
    rows = [
        [
            judged.claim.says,
            judged.claim.axis,
            compared(judged.claim.row, judged.claim.against),
            signed(judged.difference),
            Cell(judged.verdict, TONES.get(judged.verdict, "")) if judged.difference else UNTRAINED,
            str(judged.difference.seeds) if judged.difference else DASH,
        ]
        for judged in board.claims
    ]
    judges = ", ".join(f"{axis}: {name}" for axis, name in board.judges.items()) or "none yet"
    note = (
        f"{'What the paper says' if board.table.columns else 'What is claimed'}, and the difference found here on that "
        f"axis' judge ({judges}). {RULE}"
    )
    head = ["claim", "axis", "difference of", "found", "so it", "seeds"]
    return Table(f"{board.table.source}: what holds here, {board.world}", note, head, rows, "lllrlr")


def compared(row: str, against: str) -> str:
    """The difference in words; from the base it is the change."""
    return f"{row}, change" if against == "base" else f"{row} less {against}"


def signed(change: TwoLevel | None) -> str:
    """With its interval."""
    if change is None:
        return DASH
    return f"{number(change.mean, signed=True)} [{interval(change.low, change.high)}]"


def _worlds(boards: Sequence[Scoreboard]) -> list[str]:
    return list(dict.fromkeys(board.world for board in boards))


def _part(boards: Sequence[Scoreboard], headline: str, world: str) -> list[JudgedClaim]:
    claims = [judged for board in boards if board.world == world for judged in board.claims]
    return [judged for judged in claims if judged.claim.headline == headline]


def _headline(judged: Sequence[JudgedClaim]) -> str | Cell:
    decided = [one for one in judged if one.difference is not None]
    if not judged:
        return DASH
    if not decided:
        return UNTRAINED
    verdict = _joined(decided)
    seeds = sorted({one.difference.seeds for one in decided if one.difference})
    if len(judged) <= SHORT:
        words = [f"{one.claim.axis} {signed(one.difference)}" for one in decided]
    else:
        kinds = {"holds": "as told", "does not hold": "reversed"} | {word: word for word in UNDECIDED}
        counts = Counter(one.verdict for one in decided)
        words = [f"{counts[kind]} {word}" for kind, word in kinds.items() if counts[kind]]
        words[0] = f"of {len(decided)} claims {words[0]}" if len(decided) > 1 else words[0]
    words[-1] += f" ({'-'.join(map(str, seeds))} seed{'' if seeds == [1] else 's'})"
    rest = f"; {len(judged) - len(decided)} {UNTRAINED}" if len(decided) < len(judged) else ""
    return Cell(f"{verdict}: {', '.join(words)}{rest}", TONES.get(verdict, ""))


def _joined(decided: Sequence[JudgedClaim]) -> str:
    verdicts = {one.verdict for one in decided}
    if "does not hold" in verdicts:
        return "does not hold"
    if len(verdicts) == 1:
        return next(iter(verdicts))
    return "in part" if "holds" in verdicts else "unclear"


def _claim_cell(judged: JudgedClaim | None) -> str | Cell:
    if judged is None:
        return DASH
    if judged.difference is None:
        return UNTRAINED
    seeds = f"{judged.difference.seeds} seed{'s' if judged.difference.seeds > 1 else ''}"
    return Cell(f"{judged.verdict}: {signed(judged.difference)}, {seeds}", TONES.get(judged.verdict, ""))
