"""`cgrpo toybox`: can the toy world's rewards be trusted, and its checkpoints made again from a seed."""

from typing import Literal

from cgrpo.app.options import Finite, Folder, Settings, Whole, command, group

Table = dict[str, dict[str, float]]


def check(*, world: Literal["toybox", "pair"] = "toybox", settings: Settings = ()) -> tuple[Table, dict[str, float]]:
    """How well rewards and judges rank known corruptions; the segmenter's IoU.

    Args:
        world: toybox, or pair, with two subjects to a picture

    Returns:
        AUC of rewards and judges against known corruptions, by corruption; and the segmenter's mean IoU.
    """
    from cgrpo.app.sample import open_policy
    from cgrpo.config import load_config
    from cgrpo.evaluation.heldout import heldout_tasks
    from cgrpo.evaluation.metrics import make_scorers
    from cgrpo.evaluation.pair_check import pair_ranking
    from cgrpo.evaluation.toybox_check import ranking, segmenter_iou
    from cgrpo.hub import asset
    from cgrpo.rewards import make_rewards
    from cgrpo.rewards.segmenters import load_segmenter
    from cgrpo.rewards.several import per_subject
    from cgrpo.section import TOYBOX_PAIR
    from cgrpo.toybox.judges import make_judges

    cfg, policy = open_policy(None, load_config(world), settings)
    source, tasks = heldout_tasks(cfg)
    if cfg.data.source == TOYBOX_PAIR:
        rewards = per_subject(make_rewards(cfg.rewards), "identity", 2)
        return pair_ranking(source, len(tasks), make_scorers(rewards, make_judges(tasks.batch.spec)), policy), {}
    table = ranking(source, len(tasks), make_scorers(make_rewards(cfg.rewards), make_judges()), policy)
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
    return table, segmenter_iou(source, len(tasks), load_segmenter(asset("segmenter")), policy, sigmas)


def show_check(result: tuple[Table, dict[str, float]]) -> None:
    """Print a row per corruption, and the IoU."""
    table, iou = result
    for name, row in table.items():
        print(f"{name:18s}" + "".join(f"  {scorer} {value:.3f}" for scorer, value in row.items()))
    if iou:
        print("segmenter IoU     " + "".join(f"  {name} {value:.3f}" for name, value in iou.items()))


def build(
    *,
    out: Folder,
    world: Literal["toybox", "copy", "copy-majority", "pair"] = "toybox",
    seed: Whole = 0,
    share: Finite = 1.0,
) -> None:
    """Make the toy world's checkpoints again from a seed.

    Args:
        out: folder for the checkpoints
        world: toybox: every checkpoint; copy, copy-majority: a policy that copies its reference into a sixth or most of
            pictures; pair: the policy, segmenter and CLIP of two subjects
        seed: seed of all data and weights
        share: share of the full training steps, for a quick try
    """
    from cgrpo.toybox.build import build_toybox
    from cgrpo.toybox.build.copying import build_copying
    from cgrpo.toybox.build.pair import build_pair

    if world == "toybox":
        build_toybox(out, seed, share, say=print)
    elif world == "pair":
        print(build_pair(out, seed, share, print))
    else:
        print(build_copying(world, out, seed, share, print))


BUILD_EXAMPLES = """\
cgrpo toybox build --out my-toybox --share 0.01
cgrpo toybox build --world copy --out my-copying
cgrpo toybox build --world pair --out my-pair --share 0.01"""


app = group(
    "toybox",
    "Check the toy world's rewards; make its checkpoints again.",
    command("check", check, "cgrpo toybox check\ncgrpo toybox check --world pair", show_check),
    command("build", build, BUILD_EXAMPLES),
)
