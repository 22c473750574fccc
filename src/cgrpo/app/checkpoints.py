"""What `cgrpo evaluate adapters` does: adapters drawn, scored and ranked, at once or as a trainer writes them."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from cgrpo.app.benchmark import OFFICIAL, make_metrics
from cgrpo.app.requests import AdapterRequest, BestAdapter
from cgrpo.app.sample import configuration
from cgrpo.build import make_policy
from cgrpo.config import TOYBOX, Config, load_config
from cgrpo.errors import UserError
from cgrpo.evaluation.adapters.pictures import PLAIN, Drawer, series_measures, series_suite
from cgrpo.evaluation.adapters.ranking import Ranking, rank_adapters
from cgrpo.evaluation.adapters.series import BASE, Index, adapter_files, copy_best, in_order, is_whole, missing_layers
from cgrpo.evaluation.benchmark.candidates import Candidate, method_candidates
from cgrpo.evaluation.benchmark.score import score_candidates
from cgrpo.evaluation.benchmark.suite import Suite, describe, manifest_suite
from cgrpo.evaluation.benchmark.toybox import toybox_suite
from cgrpo.evaluation.metrics import Scorer
from cgrpo.evaluation.pages.adapters import line_of, sentence_of, write_page
from cgrpo.files import json_text, write_text
from cgrpo.policies.adapters.attached import Fit
from cgrpo.policies.adapters.files import adapter_file, adapter_fingerprint, write_adapter
from cgrpo.policies.adapters.keys import State, adapter_to_stock
from cgrpo.policies.adapters.known import read_keys
from cgrpo.policies.lora import LoraPolicy
from cgrpo.rewards.measures import copy_measures
from cgrpo.scores import Key, ScoreRow, collect_rows, read_scores, write_description, write_scores
from cgrpo.toybox.judges import make_judges
from cgrpo.training.checkpoint import STATE, checkpoints
from cgrpo.training.runtime import Runtime

PROMPTS = 1  # per subject of the toy world: each is an observation of its own
TASKS = 24  # of the toy world, where no limit is given
POLL = 5.0  # seconds between two looks at a watched folder
DECLINES = 3  # checkpoints in a row that are surely behind the best one before them
STRENGTHS = (0.6, 0.8, 1.2)
RESULT = "best.json"


def find_best(request: AdapterRequest) -> BestAdapter:
    """Draw, score and rank; pictures, scores, page and the best adapter go into ``request.out``.

    The same call again continues where it ended. Raises UserError.
    """
    if request.seeds < 2:
        raise UserError("--seeds 1: give 2 or more, since diversity is the difference between seeds")
    if request.watch is None:
        adapters_of(request)  # a wrong path shows before models are loaded
    runtime = Runtime()
    alone = request.paths[0] if len(request.paths) == 1 else None  # a run directory brings its own settings
    cfg, _ = configuration(alone, load_config(request.recipe), request.settings)
    series = _Series(request, cfg, runtime)
    if request.watch is None:
        series.add_all()
    else:
        with suppress(KeyboardInterrupt):  # what is scored by then is ranked
            series.watch(request.watch * 60)
    result = series.conclude()
    runtime.close()
    return result


def adapters_of(request: AdapterRequest) -> list[tuple[str, Path]]:
    """(label, file) of the adapters that are there now, in the order of the series. Raises UserError."""
    runs = [path for path in request.paths if (path / "config.json").is_file()]
    others = [path for path in request.paths if path not in runs]
    found = [one for run in runs for one in _of_run(run, request.out / "adapters")]
    return found + (adapter_files(others) if others or not runs else [])


class _Series:
    """The base, the held-out tasks and the scorers of a series, and what is known of its adapters."""

    def __init__(self, request: AdapterRequest, cfg: Config, runtime: Runtime):
        self.request, self.cfg, self.runtime, self.out = request, cfg, runtime, request.out
        toys = request.data == TOYBOX
        suite = _toys(request, cfg, runtime) if toys else manifest_suite(Path(request.data))
        self.suite = series_suite(suite, request.skip, request.limit, references=request.references)
        self.toy_judges = tuple(make_judges()) if toys else ()
        own = (*cfg.rewards, *self.toy_judges) if toys else tuple(OFFICIAL)
        self.metrics = make_metrics(cfg, request.metrics or own)
        measures = {**copy_measures(), **series_measures(self.out)}
        self.metrics |= {name: Scorer("guard", measure) for name, measure in measures.items()}
        policy = make_policy(cfg, runtime.device)
        if not isinstance(policy, LoraPolicy):
            raise UserError(f"policy.path = {cfg.policy.path}: adapters can't be laid over this family's base")
        self.policy = policy
        sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
        self.drawer = Drawer(policy, sigmas, self.suite, self.out, request.seeds, cfg.policy.reference_alpha)
        self.index = Index(self.out)
        self.fits: dict[str, Fit] = {}
        self.unread: dict[str, str] = {}
        for scorer in self.metrics.values():
            scorer.score.to(runtime.device)

    def add_all(self) -> None:
        """Draw, then score, all adapters that are there. Raises UserError where none can be read."""
        self.draw(BASE)
        names = [self.add(label, file) for label, file in adapters_of(self.request)]
        if not any(names):
            raise UserError(f"none of {len(names)} adapters was read", "the lines above say why")
        for name in dict.fromkeys([BASE, *filter(None, names)]):
            self.score(name)

    def add(self, label: str, file: Path) -> str | None:
        """Draw an adapter, unless it was drawn. Returns its name; None where it can't be read, which is printed."""
        try:
            adapter, fit = self.policy.read_adapter(file, base_differs=self.cfg.policy.base_differs)
            if not fit.layers:
                raise UserError(f"{file}: no layer of it fits this base, such as {fit.misfits[0]}")
        except UserError as error:
            self.unread[label] = str(error)
            self._say(f"not read: {error}")
            return None
        checkpoint = self.index.add(label, file, adapter_fingerprint(adapter))
        if self.runtime.is_main:
            self.index.write()
        self.fits[checkpoint.name] = fit
        self.draw(checkpoint.name, adapter, checkpoint.fingerprint)
        return checkpoint.name

    def draw(self, name: str, adapter: State | None = None, fingerprint: str = "", strength: float = 1.0) -> None:
        quiet = not self.runtime.is_main
        with tqdm(total=self.drawer.count, desc=name, unit=" pictures", disable=quiet, leave=False) as bar:
            self.drawer(name, adapter, fingerprint, strength, self.runtime, bar.update)
        self.runtime.wait()

    def score(self, name: str) -> None:
        """Score the pictures of an adapter, or the base, as far as they are not scored."""
        every = method_candidates(name, self.drawer.folder(name), self.suite, self.request.seeds)
        plain = [one for one in every if one.prompt_kind == PLAIN]
        tasks = [one for one in every if one.prompt_kind != PLAIN]
        # The toy world's judges know no answer for prompts without a subject.
        of_plain = {key: scorer for key, scorer in self.metrics.items() if key not in self.toy_judges}
        folder = self.out / "scores" / name
        folder.mkdir(parents=True, exist_ok=True)
        order = self._scored(self.metrics, tasks, folder) + self._scored(of_plain, plain, folder)
        self.runtime.wait()
        if self.runtime.is_main:
            collect_rows(folder, order)
        self.runtime.wait()

    def _scored(self, metrics: Mapping[str, Scorer], items: Sequence[Candidate], folder: Path) -> list[Key]:
        seeds, runtime = self.request.seeds, self.runtime
        chunk = max(1, 32 // seeds) * seeds  # a task's seeds are measured together
        return score_candidates(
            metrics,
            items,
            self.suite.root,
            folder,
            masks=self.suite.masks,
            chunk=chunk,
            rank=runtime.rank,
            world=runtime.world,
        )

    def ranking(self, names: Sequence[str] = ()) -> Ranking:
        """The ranking of ``names``, by default of all adapters that have scores."""
        names = names or in_order([name for name in self.index.known if (self.out / "scores" / name).is_dir()])
        if not names:
            raise UserError(f"{self.out}: no adapter has scores yet")
        roles = {name: scorer.role for name, scorer in self.metrics.items()}
        return rank_adapters(self.rows(names), names, roles, missing_layers(self.fits))

    def rows(self, names: Sequence[str]) -> list[ScoreRow]:
        return [row for name in (BASE, *names) for row in read_scores(self.out / "scores" / name)]

    def watch(self, patience: float) -> None:
        """Draw and score each adapter as it appears, until none has for ``patience`` seconds, or all get worse."""
        seen: set[Path] = set()
        self.draw(BASE)
        self.score(BASE)
        declines, last = 0, time.monotonic()
        while declines < DECLINES and time.monotonic() - last < patience:
            new = next((found for found in self._there() if found[1] not in seen and is_whole(found[1])), None)
            if new is None:
                time.sleep(min(POLL, patience))
                continue
            seen.add(new[1])
            name = self.add(*new)
            last = time.monotonic()
            if name is None:
                continue
            self.score(name)
            ranking, last = self.ranking(), time.monotonic()
            declines = declines + 1 if is_decline(ranking, name) else 0
            if self.runtime.is_main:
                print(line_of(ranking[name], ranking), flush=True)
        if declines == DECLINES and self.runtime.is_main:
            print(f"stopped: {DECLINES} checkpoints in a row are surely behind an earlier one")

    def _there(self) -> list[tuple[str, Path]]:
        """As ``adapters_of``, also before there is any."""
        try:
            return adapters_of(self.request)
        except UserError:
            return []

    def try_strengths(self, best: str) -> Ranking:
        """The best adapter at other strengths, ranked with itself."""
        adapter, _ = self.policy.read_adapter(self.index.known[best].file, base_differs=self.cfg.policy.base_differs)
        names = [f"{best}@{strength:g}" for strength in STRENGTHS]
        for name, strength in zip(names, STRENGTHS, strict=True):
            self.draw(name, adapter, self.index.known[best].fingerprint, strength)
            self.score(name)
        return self.ranking([best, *names])

    def recall(self) -> set[str]:
        """Learn the layers of adapters that earlier calls drew. Returns those whose files are gone or overwritten."""
        gone = set()
        for name, known in self.index.known.items():
            if not known.file.is_file():
                gone.add(name)
            elif name not in self.fits:
                adapter, fit = self.policy.read_adapter(known.file, base_differs=True)
                if adapter_fingerprint(adapter) == known.fingerprint:
                    self.fits[name] = fit
                else:
                    gone.add(name)
        return gone

    def conclude(self) -> BestAdapter:
        """Write what was found, and copy the best adapter."""
        gone = self.recall()
        ranking = self.ranking()
        kept = self.index.known[ranking.best].file if ranking.best and ranking.best not in gone else None
        strengths = self.try_strengths(ranking.best) if self.request.strengths and ranking.best and kept else None
        names = [one.name for one in ranking.adapters]
        others = [one.name for one in strengths.adapters[1:]] if strengths else []
        file = None
        if self.runtime.is_main:
            folders = {name: self.drawer.folder(name) for name in (BASE, *names, *others)}
            table = describe(self.suite, self.out, folders, self.metrics)
            table["references"] = {name: list(photos[:1]) for name, photos in self.suite.photos.items()}
            write_description(self.out, table)
            rows = self.rows([*names, *others])
            write_scores(self.out, rows)
            file = copy_best(kept, self.out / "best")
            table = ranking.as_dict() | {"sentence": sentence_of(ranking), "unread": self.unread}
            table |= {"file": file and str(file), "strengths": strengths and strengths.as_dict()}
            write_text(self.out / RESULT, json_text(table, indent=1, ensure_ascii=False) + "\n")
            write_page(self.out, ranking, strengths, self.unread, rows)
        return BestAdapter(ranking, strengths, file, self.out / "index.html", self.unread, self.runtime.is_main)

    def _say(self, text: str) -> None:
        if self.runtime.is_main:
            tqdm.write(f"cgrpo: {text}", file=sys.stderr)


def _toys(request: AdapterRequest, cfg: Config, runtime: Runtime) -> Suite:
    """The toy world's first held-out tasks, drawn into ``request.out``/data."""
    subjects = -(-(request.skip + (request.limit or TASKS)) // PROMPTS)
    draw = (request.out / "data", cfg.evaluation.split, cfg.data.dial, subjects, PROMPTS)
    if runtime.is_main:
        toybox_suite(*draw)
    runtime.wait()
    return toybox_suite(*draw, draw=False)


def _of_run(run: Path, folder: Path) -> list[tuple[str, Path]]:
    """The adapters of a run directory: of its checkpoints, averaged where it averages, then best/ and adapter/.

    Those of checkpoints, which hold a whole state, are written into ``folder`` as files of their own.
    """
    found = []
    for state in checkpoints(run / "checkpoints"):
        file = folder / f"{run.resolve().name}-{state.name}.safetensors"
        if not file.exists():
            tensors = load_file(state / STATE)
            weights = _part(tensors, "state.average.") or _part(tensors, "adapter.")
            write_adapter(file, adapter_to_stock(read_keys(weights, None).split), {})
        found.append((state.name, file))
    found += [(place, adapter_file(run / place)) for place in ("best", "adapter") if (run / place).is_dir()]
    if not found:
        raise UserError(f"{run}: a run without a checkpoint or an adapter yet")
    return found


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def is_decline(ranking: Ranking, name: str) -> bool:
    """Whether an adapter is surely behind the best of the others, or no longer fit while another is."""
    one = ranking[name]
    return one.behind is not None and (one.behind.below() or not one.fit)
