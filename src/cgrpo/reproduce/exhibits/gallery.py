"""Pictures side by side, as in Figures 2 and 9 to 11: base, SFT, naive and the full method on the same held-out tasks
and from the same noise. The tasks are each subject's first: a rule that knows no scores."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from cgrpo.build import make_policy
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.sampling import ALONE, sample_tasks
from cgrpo.evaluation.show.sheets import row_sheet
from cgrpo.files import save_picture
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown

ROWS = {"SFT": "SFT", "naive GRPO 1:1": "naive", "Customized-GRPO": "full"}
TASKS = 24


def draw(made: Made, path: Path) -> Shown:
    runs = {words: made.run("table2", row) for row, words in ROWS.items()}
    job, _ = runs["full"]
    _, tasks = heldout_tasks(job.config)
    first = range(0, len(tasks.batch), job.config.evaluation.prompts_per_subject)
    batch, pictures = tasks.batch.select(first[: made.count or TASKS]), dict[str, Tensor]()
    for words, (job, folder) in runs.items():
        policy = make_policy(job.config, adapter=folder / "adapter")
        sigmas = policy.sigmas(job.config.sampling.steps, job.config.sampling.shift)
        if "base" not in pictures:
            with policy.reference():
                pictures["base"] = sample_tasks(policy, sigmas, batch, job.config.evaluation.batch, ALONE)
        pictures[words] = sample_tasks(policy, sigmas, batch, job.config.evaluation.batch, ALONE)
    file = path.with_suffix(".png")
    save_picture(row_sheet(batch, {"Each subject's first task": range(len(batch))}, pictures), file)
    return Shown(pictures=[file])


EXHIBIT = Exhibit("Pictures side by side", "Figures 2 and 9 to 11", draw, {"table2": list(ROWS)})
