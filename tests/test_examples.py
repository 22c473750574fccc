"""The examples, run as they stand; the two that train, with fewer iterations and tasks."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from cgrpo.rewards import FunctionReward, scored
from cgrpo.rewards.base import to_tensor
from cgrpo.types import Batch

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = [
    *("training.iterations=3", "training.prompts_per_iteration=2", "training.group_size=4", "sampling.steps=4"),
    *("evaluation.subjects=2", "evaluation.prompts_per_subject=2", "guard.every=0", "logging.tracker=none"),
]


def test_minimal_loop() -> None:
    """In a fresh interpreter, where libraries would warn on import."""
    done = subprocess.run([sys.executable, EXAMPLES / "minimal_loop.py"], capture_output=True, text=True, timeout=300)
    assert "iteration 3" in done.stdout and done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if re.search("torchao|_pytree", line)], done.stderr


def test_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", *SHORT])
    runpy.run_path(str(EXAMPLES / "quickstart.py"), run_name="__main__")
    assert "identity_readback: 0." in capsys.readouterr().out
    assert len(list(Path("outputs/quickstart/images").glob("*.png"))) == 5
    assert "library_name: diffusers" in Path("outputs/quickstart/adapter/README.md").read_text()


def test_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    settings = next(cell for cell in notebook.cells if cell.source.startswith("settings = "))
    settings.source = f"settings = {SHORT}"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert any("identity_readback" in output.get("text", "") for output in outputs)


def test_custom_reward() -> None:
    function = runpy.run_path(str(EXAMPLES / "custom_reward.py"))["saturation"]
    images = to_tensor([Image.new("RGB", (8, 8), "black"), Image.new("RGB", (8, 8), "red")])
    batch = Batch(("a", "b"), ("", ""), ((), ()), ("", ""))
    assert scored("saturation", FunctionReward(function, "prompt"), images, batch).tolist() == [0.0, 1.0]
