"""`cgrpo demo`: a page on which to try a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cgrpo.app.options import BaseRecipe, Port, Run, Settings, command

if TYPE_CHECKING:
    from PIL.Image import Image

    from cgrpo.config import Config
    from cgrpo.serving.demo import Example

EXAMPLES_SHOWN = 4


def demo(
    run: Run = None,
    /,
    *,
    recipe: BaseRecipe = "toybox",
    host: str = "127.0.0.1",
    port: Port = 8422,
    settings: Settings = (),
) -> None:
    """Serve a page that draws the base's and the trained policy's pictures side by side, until interrupted.

    Args:
        host: address to listen at, by default for this machine alone
        port: port; 0 for any free one
    """
    from cgrpo import serving

    serving.check_installed("cgrpo demo")
    from cgrpo.app.sample import open_policy
    from cgrpo.config import load_config
    from cgrpo.evaluation.sampling import follow, seed_noise
    from cgrpo.rewards.base import to_pictures
    from cgrpo.serving.demo import create_demo
    from cgrpo.types import Batch

    bound = serving.listen(host, port)
    cfg, policy = open_policy(run, load_config(recipe), settings)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)

    def draw(prompt: str, references: Sequence[Image], seeds: Sequence[int]) -> Mapping[str, Sequence[Image]]:
        batch = Batch(("demo",), (prompt,), (tuple(references),), ("",)).repeat(len(seeds))
        noise_NLC = seed_noise(policy, seeds)
        with policy.reference():
            rows = {"base": to_pictures(follow(policy, batch, noise_NLC, sigmas, cfg.evaluation.batch))}
        if run is not None:
            rows["trained"] = to_pictures(follow(policy, batch, noise_NLC, sigmas, cfg.evaluation.batch))
        return rows

    name = recipe if run is None else run.resolve().name
    serving.run(create_demo(f"cgrpo demo: {name}", draw, _examples(cfg)), bound, host, "the demo")


def _examples(cfg: Config) -> list[Example]:
    """Held-out tasks of different subjects, where the run has any."""
    from cgrpo.app.needs import make_final_tasks
    from cgrpo.serving.demo import Example

    tasks = make_final_tasks(cfg)
    if tasks is None:
        return []
    by_subject: dict[str, list[int]] = {}
    for number, row in enumerate(tasks.rows):
        by_subject.setdefault(row.subject, []).append(number)
    several = list(by_subject.values())[:EXAMPLES_SHOWN]
    chosen = [numbers[place % len(numbers)] for place, numbers in enumerate(several)]  # other prompts, too
    return [Example(tasks.batch.prompts[n], tasks.batch.references[n]) for n in chosen]


EXAMPLES = """\
cgrpo demo outputs/naive-1
cgrpo demo --recipe uno-24gb --port 8000"""

app = command("demo", demo, EXAMPLES)
