"""One step of the flow: against published implementations' outputs, and against numbers worked out by hand."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cgrpo.algorithm import Kind, flux_shift, gaussian_logp, predict_x0, sde_transition, shifted_sigmas

GOLDEN = Path(__file__).parents[1] / "data" / "golden_sde"
HALF_LOG_2PI = math.log(2 * math.pi) / 2


@pytest.fixture(scope="module")
def steps():
    return load_file(GOLDEN / "sde_steps.safetensors")


@pytest.fixture(scope="module")
def sd3():
    return load_file(GOLDEN / "flow_grpo_sd3.safetensors")


@pytest.fixture(scope="module")
def tiny():
    return load_file(GOLDEN / "tiny_rollout.safetensors")


def close(found, expected, atol=2e-6):
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-5)


# ---- sigma grids


def test_published_grids(steps, sd3, tiny):
    close(shifted_sigmas(25, 3.0), steps["sigmas"], 1e-6)
    close(shifted_sigmas(6, 3.0), tiny["sigmas"], 1e-6)


@pytest.mark.parametrize("steps", [6, 25, 50])
@pytest.mark.parametrize("name,shift", [("uno_pipeline_512", "uno"), ("seq1024", "flux")])
def test_named_shifts_at_512_pixels(name, shift, steps):
    """1024 tokens; UNO's pipeline counts 16."""
    schedules = load_file(GOLDEN.parent / "golden_uno" / "schedules.safetensors")
    close(shifted_sigmas(steps, shift, 1024, torch.float64), schedules[f"{name}_n{steps}"].double(), 1e-6)
    assert math.isclose(flux_shift(16), math.exp(0.459375)) and math.isclose(flux_shift(1024), math.exp(0.63))


@pytest.mark.parametrize("shift", [0.5, 1.0, 1.58, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_by_hand(shift, dtype):
    sigmas = shifted_sigmas(4, shift, dtype=dtype)
    expected = [1, shift * 0.75 / (1 + (shift - 1) * 0.75), shift / (1 + shift), shift / (3 + shift), 0]
    torch.testing.assert_close(sigmas, torch.tensor(expected, dtype=dtype))
    assert sigmas[0] == 1 and sigmas[-1] == 0 and (shifted_sigmas(50, shift, dtype=dtype).diff() < 0).all()


# ---- golden vectors: constant g (this paper's code, DanceGRPO, MixGRPO) and Flow-GRPO's g

NORMALISED = {"dance", "mix_flow"}  # the others leave the normaliser out
KINDS: dict[str, Kind] = {
    "customized": "constant",
    "customized_vlm": "constant",
    "dance": "constant",
    "mix_dance": "constant",
    "mix_flow": "flow-grpo",
}


@pytest.mark.parametrize("variant", sorted(KINDS))
def test_sde_step_of_each_published_variant(steps, variant):
    x, v, v_new = steps["latents"], steps["model_output"], steps["model_output_new"]
    for row, i in enumerate(steps["indices"].tolist()):
        golden = {key: steps[f"{variant}.sde.{key}"] for key in ("mean", "std", "log_prob", "log_prob_new", "eta")}
        level, (sigma, sigma_next) = golden["eta"].item(), steps["sigmas"][i : i + 2]
        mean, std = sde_transition(x, v, sigma, sigma_next, KINDS[variant], level)
        close(mean, golden["mean"][row])
        close(std.flatten(), golden["std"][row].flatten())
        after = mean + std * steps["customized.sde.noise"][row]
        if f"{variant}.sde.prev" in steps:
            close(after, steps[f"{variant}.sde.prev"][row])
        normaliser = 0 if variant in NORMALISED else std.log() + HALF_LOG_2PI
        close(gaussian_logp(after, mean, std) + normaliser, golden["log_prob"][row], 1e-5)
        mean_new, _ = sde_transition(x, v_new, sigma, sigma_next, KINDS[variant], level)
        close(gaussian_logp(after, mean_new, std) + normaliser, golden["log_prob_new"][row], 1e-5)
        if f"{variant}.sde.x0" in steps:
            close(predict_x0(x, v, sigma), steps[f"{variant}.sde.x0"][row])


def test_ratio_of_two_policies_does_not_depend_on_the_normaliser(steps):
    x, v, v_new = steps["latents"], steps["model_output"], steps["model_output_new"]
    for row, i in enumerate(steps["indices"].tolist()):
        sigma, sigma_next = steps["sigmas"][i : i + 2]
        after = steps["customized.sde.prev"][row]
        old, new = (gaussian_logp(after, *sde_transition(x, w, sigma, sigma_next)) for w in (v, v_new))
        golden = steps["customized.sde.log_prob_new"][row] - steps["customized.sde.log_prob"][row]
        close(new - old, golden, 2e-6)


def test_per_sample_sigmas_give_the_same_as_one_by_one(steps):
    rows, i = [0, 2, 4], steps["indices"].long()[[0, 2, 4]]
    x, v = steps["latents"][:1].repeat(3, 1, 1), steps["model_output"][:1].repeat(3, 1, 1)
    mean, std = sde_transition(x, v, steps["sigmas"][i], steps["sigmas"][i + 1])
    close(mean, steps["customized.sde.mean"][rows, 0])
    assert std.shape == (3, 1, 1)
    close(std.flatten(), steps["customized.sde.std"][rows])


def test_flow_grpo_on_pictures(sd3):
    for row, i in enumerate(sd3["indices"].tolist()):
        sigma, sigma_next = sd3["sigmas"][i : i + 2]
        level = sd3["noise_level"].item()
        mean, std = sde_transition(sd3["sample"], sd3["model_output"], sigma, sigma_next, "flow-grpo", level)
        close(mean, sd3["mean"][row], 1e-5)
        g = std / (sigma - sigma_next).sqrt()
        close(g.expand(2), sd3["std_dev_t"][row].flatten(), 1e-5)
        after = mean + std * sd3["noise"][row]
        close(after, sd3["prev"][row], 1e-5)
        close(gaussian_logp(after, mean, std), sd3["log_prob"][row], 1e-5)


@pytest.mark.parametrize("run", ["sde", "window"])
def test_recorded_rollout_step_by_step(tiny, run):
    # The velocity behind each recorded step follows from it; stochastic steps must then agree in both directions.
    sigmas, latents, noise = tiny["sigmas"], tiny[f"{run}.latents"][0], tiny[f"{run}.noise"][0]
    for k in range(6):
        x, after, s, d = latents[k : k + 1], latents[k + 1 : k + 2], sigmas[k], sigmas[k + 1] - sigmas[k]
        if noise[k].any():
            std = 0.4 * (-d).sqrt()
            mean = after - std * noise[k]
            v = (mean - x * (1 + 0.16 * d / (2 * s))) / ((1 + 0.16 * (1 - s) / (2 * s)) * d)
            found, found_std = sde_transition(x, v, s, sigmas[k + 1])
            close(found, mean, 1e-5)
            logp = gaussian_logp(after, found, found_std) + found_std.log() + HALF_LOG_2PI
            close(logp, tiny[f"{run}.log_probs"][:, k], 1e-4)
        else:
            v = (after - x) / d
            found, found_std = sde_transition(x, v, s, sigmas[k + 1], "ode")
            close(found, after, 1e-5)
            assert found_std == 0 and tiny[f"{run}.log_probs"][0, k] == 0
        if k == 5:
            close(predict_x0(x, v, s), tiny[f"{run}.final_x0"], 1e-4)


# ---- by hand


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def test_steps_by_hand():
    # x = 2, v = 1, from 0.5 to 0.25, noise level 0.4 (ode, constant, flow-grpo) or 2/3 (cps)
    x, v = torch.full((1, 1, 1), 2.0, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    s, s_next = scalar(0.5), scalar(0.25)
    # score = -(2 + 0.5) / 0.5 = -5
    expected = {
        "ode": (2 - 0.25, 0.0),
        "constant": (2 + (1 + 0.08 * 5) * -0.25, 0.4 * 0.5),
        "flow-grpo": (2 + (1 + 0.08 * 5) * -0.25, 0.4 * 0.5),  # at sigma = 1/2 the square root is 1
    }
    for kind, (mean, std) in expected.items():
        found, found_std = sde_transition(x, v, s, s_next, kind, 0.4)  # type: ignore[arg-type]
        assert (found.item(), found_std.item()) == (pytest.approx(mean), pytest.approx(std)), kind
    # x0 = 1.5, x1 = 2.5; sin 60 = 0.866025, cos 60 = 1/2: std 0.25 * 0.866025, mean 0.75 * 1.5 + 0.25 * 0.5 * 2.5
    found, found_std = sde_transition(x, v, s, s_next, "cps", 2 / 3)
    assert (found.item(), found_std.item()) == (pytest.approx(1.4375), pytest.approx(0.2165064))
    assert found_std.item() ** 2 + (0.25 * 0.5) ** 2 == pytest.approx(0.25**2)  # the noise adds up to sigma_next


def test_flow_grpo_at_pure_noise_takes_the_next_sigma():
    x = torch.zeros(2, 3, dtype=torch.float64)
    sigma, sigma_next = torch.tensor([1.0, 0.75]).double(), torch.tensor([0.9, 0.5]).double()
    _, std = sde_transition(x, x, sigma, sigma_next, "flow-grpo", 0.7)
    expected = [0.7 * math.sqrt(1 / 0.1) * math.sqrt(0.1), 0.7 * math.sqrt(0.75 / 0.25) * math.sqrt(0.25)]
    assert std.flatten().tolist() == pytest.approx(expected)


def test_gaussian_logp_by_hand():
    # std 2, deviations 0 and 4: -(0 + 2) / 2 - ln 2 - ln sqrt(2 pi); the mean, whatever the number of entries
    x, mean = torch.tensor([[0.0, 4.0]]), torch.zeros(1, 2)
    expected = -1 - math.log(2) - HALF_LOG_2PI
    assert gaussian_logp(x, mean, torch.tensor(2.0)).tolist() == pytest.approx([expected])
    assert gaussian_logp(x.repeat(3, 50), mean.repeat(3, 50), torch.tensor(2.0)).tolist() == pytest.approx(
        [expected] * 3
    )


def test_predicted_image_by_hand():
    x, v = torch.ones(2, 1, 1), torch.full((2, 1, 1), 4.0)
    assert predict_x0(x, v, torch.tensor([0.5, 0.25])).flatten().tolist() == [-1.0, 0.0]


def test_arithmetic_is_float32_at_least():
    x, v = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for kind in ("ode", "constant", "flow-grpo", "cps"):
        low = sde_transition(x, v, torch.tensor(0.5), torch.tensor(0.3), kind)
        full = sde_transition(x.float(), v.float(), torch.tensor(0.5), torch.tensor(0.3), kind)
        assert low[0].dtype == low[1].dtype == torch.float32 and low[0].equal(full[0]) and low[1].equal(full[1])
        assert sde_transition(x.double(), v, torch.tensor(0.5), torch.tensor(0.3), kind)[0].dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, s: sde_transition(x, x[:1], s(0.5), s(0.4)), "one shape"),
        (lambda x, s: sde_transition(x, x, s(0.4), s(0.5)), "sigma_next"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(0.5)), "sigma_next"),
        (lambda x, s: sde_transition(x, x, s(1.5), s(0.5)), "sigma_next"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(-0.1)), "sigma_next"),
        (lambda x, s: sde_transition(x, x, s(0.5).expand(3), s(0.4)), "0-dim"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(0.4), noise_level=0.0), "noise_level"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(0.4), noise_level=math.inf), "noise_level"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(0.4), noise_level=math.nan), "noise_level"),
        (lambda x, s: sde_transition(x, x, s(math.nan), s(0.4)), "sigma_next"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(0.4), "cps", 1.1), "noise_level"),
        (lambda x, s: sde_transition(x, x, s(0.5), s(0.4), "euler"), "unknown kind"),  # type: ignore[arg-type]
        (lambda x, s: gaussian_logp(x, x, s(0.0)), "deterministic"),
        (lambda x, s: gaussian_logp(x, x[:1], s(1.0)), "one shape"),
        (lambda x, s: predict_x0(x, x[:1], s(1.0)), "one shape"),
        (lambda x, s: shifted_sigmas(0), "num_steps"),
        (lambda x, s: shifted_sigmas(4, shift=0.0), "shift"),
        (lambda x, s: shifted_sigmas(4, shift=math.inf), "shift"),
        (lambda x, s: shifted_sigmas(4, shift=math.nan), "shift"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3), torch.tensor)
