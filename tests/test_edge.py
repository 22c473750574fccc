"""What comes from a person is converted or refused in one line, before anything is loaded."""

from __future__ import annotations

import pytest

from cgrpo.cli import main
from cgrpo.config import load_config
from cgrpo.errors import UserError

HUGE = "99999999999999999999"


def refused(capfd, *arguments: object) -> str:
    """The one line on stderr; argparse's usage before it doesn't count."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse's own way
        code = stopped.code
    assert code == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN"])
@pytest.mark.parametrize(
    "before",
    [
        ("plan", "--tflops"), ("plan", "--memory"), ("plan", "--utilisation"),
        ("data", "syncd", "x", "--top", "1", "--out", "y", "--max-similarity"),
    ],
)  # fmt: skip
def test_numbers_are_finite(capfd, before, value):
    *words, name = before
    assert f"{name}: must be a finite number, got {value}" in refused(capfd, *words, f"{name}={value}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_settings_are_finite(capfd, value):
    prompt = ("--prompt", "a toy", "--out", "never")
    assert "policy.guidance" in refused(capfd, "sample", f"--guidance={value}", *prompt)
    for key in ("policy.guidance", "training.learning_rate", "shaping.alpha", "sampling.noise_level"):
        with pytest.raises(UserError, match=f"{key}.*finite|{key}.*(greater|less)"):
            load_config("toybox", [f"{key}={value}"])


@pytest.mark.parametrize("value", [HUGE, "-1"])
@pytest.mark.parametrize(
    "before",
    [
        ("sample", "--prompt", "a toy", "--out", "never", "--seed"),
        ("evaluate", "toybox", "--out", "never", "--first-seed"),
        ("toybox", "build", "--out", "never", "--seed"),
        ("rewards", "serve", "--port"),
        ("plan", "--references"),
    ],
)
def test_whole_numbers_are_ones_that_libraries_take(capfd, before, value):
    *words, name = before
    assert f"{name}: must be " in refused(capfd, *words, f"{name}={value}")


@pytest.mark.parametrize("value", [HUGE, "-1"])
def test_a_seed_of_the_settings(capfd, value):
    assert "training.seed" in refused(capfd, "train", "--set", f"training.seed={value}", "--out", "never")
