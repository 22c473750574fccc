"""When structure and detail come to be: Fourier energy of the predicted clean picture as denoising goes on. Figure 4.

At every step of the ODE the velocity points to a picture. Its energy is taken in a low band (structure) and a high one
(detail) of the grey picture's spectrum, without the mean. Two numbers a band:

energy   over that of the final picture: how much there is
settled  1 - |F_k - F|^2 / |F|^2, with the final picture's spectrum F: how much of it is already what it will be;
         below 0 where there is more of something else
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from cgrpo.algorithm import integrate, predict_x0
from cgrpo.analysis.inputs import AnalysisInputs, Estimate, Result, draw_estimates, estimate
from cgrpo.evaluation.sampling import task_noise
from cgrpo.evaluation.show.plots import INK, MUTED, PROMPT, THIRD, dress, legend
from cgrpo.evaluation.show.table import Table, number
from cgrpo.policies.base import Policy
from cgrpo.types import Condition

BANDS = {"low": PROMPT, "high": THIRD}  # and their colours
CUTOFF = 0.25
SHOWN = 12  # pictures in the strip, at most


@dataclass(frozen=True)
class Spectrum(Result):
    """By band, over steps: energy and settled share, with 95 % intervals over tasks; ``strip_KHWC`` shows one task."""

    tasks: int
    cutoff: float
    sigmas: tuple[float, ...]
    energy: dict[str, list[Estimate]]
    settled: dict[str, list[Estimate]]
    strip_KHWC: Tensor

    def tables(self) -> list[Table]:
        head = ["step", "sigma", *(f"{band}: energy" for band in BANDS), *(f"{band}: settled" for band in BANDS)]
        rows = [
            [
                str(k),
                number(sigma),
                *(str(self.energy[band][k]) for band in BANDS),
                *(str(self.settled[band][k]) for band in BANDS),
            ]
            for k, sigma in enumerate(self.sigmas)
        ]
        note = (
            f"The predicted clean picture at each step against the final one, {self.tasks} tasks; low is below "
            f"{self.cutoff:g} of the highest frequency along an axis."
        )
        return [Table("Energy of the predicted picture by band", note, head, rows, "r" * len(head))]

    def draw(self, name: str) -> Figure:
        figure = Figure(figsize=(9.2, 4.6), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=(1, 3))
        above, below = figure.add_subfigure(rows[0, 0]), figure.add_subfigure(rows[1, 0])
        count = len(self.strip_KHWC)
        for place, k in enumerate(sorted({round(n * (count - 1) / (SHOWN - 1)) for n in range(SHOWN)})):
            axes = above.add_subplot(1, min(SHOWN, count), place + 1)
            axes.imshow(self.strip_KHWC[k].numpy(), interpolation="nearest")
            axes.set_title(f"step {k}", color=MUTED, fontsize=8)
            axes.set_axis_off()
        plots = [below.add_subplot(1, 2, place + 1) for place in range(2)]
        titles = (f"Energy by the final's: {name}", "Settled share")
        for axes, title, by_band in zip(plots, titles, (self.energy, self.settled), strict=True):
            axes.set_title(title, loc="left", color=INK, fontsize=11, pad=8, parse_math=False)
            dress(axes)
            for band, colour in BANDS.items():
                draw_estimates(axes, by_band[band], colour, f"{band} band")
            axes.axhline(1, color=MUTED, linewidth=0.8)
            axes.set_xlabel("step, from noise to picture")
            legend(axes)
        return figure


def measure_spectrum(inputs: AnalysisInputs, tasks: int = 96, cutoff: float = CUTOFF) -> Spectrum:
    """Of ``tasks`` pictures, sampled as in evaluation, whatever the method. 0 < cutoff < 1."""
    policy, batch = inputs.policy, inputs.tasks(tasks)
    sigmas = policy.sigmas(inputs.cfg.sampling.steps, inputs.cfg.sampling.shift)
    rows: dict[int, Tensor] = {}
    first_KHWC = torch.zeros(0)
    for numbers in policy.alike(batch, inputs.cfg.evaluation.batch):
        part = batch.select(numbers)
        noise_NLC = task_noise(policy, part.ids, inputs.seed).to(policy.device, policy.dtype)
        pictures_KNHWC = _predicted(policy, policy.encode_parts(part, [range(len(part))])[0], noise_NLC, sigmas)
        if 0 in numbers:
            first_KHWC = pictures_KNHWC[:, numbers.index(0)]
        bands_NKB2 = band_numbers(pictures_KNHWC, cutoff)
        rows |= zip(numbers, bands_NKB2, strict=True)
        inputs.tick(len(numbers))
    bands_NKB2 = torch.stack([rows[number] for number in range(tasks)])
    energy, settled = (
        {band: [estimate(bands_NKB2[:, k, b, what]) for k in range(len(sigmas) - 1)] for b, band in enumerate(BANDS)}
        for what in (0, 1)
    )
    return Spectrum(tasks, cutoff, tuple(sigmas.tolist()[:-1]), energy, settled, first_KHWC)


def band_numbers(pictures_KNHWC: Tensor, cutoff: float = CUTOFF) -> Tensor:
    """Energy and settled share of predicted pictures against the last one: [N, K, 2 bands, 2], low band first.

    pictures_KNHWC uint8. ``cutoff`` parts the bands, as a share of the highest frequency along an axis (a wave of two
    pixels). NaN where the last picture has nothing in a band.
    """
    grey_KNHW = pictures_KNHWC.double().mean(-1) / 255
    spectrum_KNHW = torch.fft.fft2(grey_KNHW)
    along = [torch.fft.fftfreq(size, dtype=torch.float64) * 2 for size in grey_KNHW.shape[-2:]]
    radius_HW = (along[0][:, None].square() + along[1].square()).sqrt()
    bands = ((radius_HW > 0) & (radius_HW < cutoff), radius_HW >= cutoff)
    numbers = []
    for band_HW in bands:
        here_KNF = spectrum_KNHW[..., band_HW]
        last_N = here_KNF[-1].abs().square().sum(-1)
        last_N = torch.where(last_N > 0, last_N, torch.nan)
        energy_KN = here_KNF.abs().square().sum(-1) / last_N
        gap_KN = (here_KNF - here_KNF[-1:]).abs().square().sum(-1) / last_N
        numbers.append(torch.stack([energy_KN, 1 - gap_KN], -1))
    return torch.stack(numbers, -2).transpose(0, 1)


def _predicted(policy: Policy, cond: Condition, noise_NLC: Tensor, sigmas: Tensor) -> Tensor:
    """The picture each step's velocity points to: uint8 [K, N, H, W, 3]; the last is the final one."""
    clean: list[Tensor] = []

    def velocity(x_NLC: Tensor, sigma_N: Tensor) -> Tensor:
        v_NLC = policy.velocity(x_NLC, sigma_N, cond).to(x_NLC.dtype)
        clean.append(predict_x0(x_NLC, v_NLC, sigma_N))
        return v_NLC

    integrate(velocity, noise_NLC, sigmas)
    return torch.stack([policy.decode(x_NLC) for x_NLC in clean])
