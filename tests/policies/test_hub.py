"""Names of the model hub, against a cache made by hand; nothing here touches a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from cgrpo.errors import UserError
from cgrpo.hub import locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with owner/pipeline (revisions main and v2) and owner/encoder."""
    folder = tmp_path / "hub"
    for name, files in {
        "pipeline": ["model_index.json", "transformer/config.json", "loras/dit_lora.safetensors"],
        "encoder": ["config.json", "model.safetensors"],
    }.items():
        model = folder / f"models--owner--{name}"
        (model / "refs").mkdir(parents=True)
        for ref in ("main", "v2"):
            (model / "refs" / ref).write_text(COMMIT)
        for file in files:
            (model / "snapshots" / COMMIT / file).parent.mkdir(parents=True, exist_ok=True)
            (model / "snapshots" / COMMIT / file).write_text("{}")
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def test_a_path_wins(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(str(tmp_path), "folder") == tmp_path
    (tmp_path / "owner" / "pipeline").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("owner/pipeline", "folder") == Path("owner/pipeline")


def test_cached(cache: Path) -> None:
    pipeline = cache / "models--owner--pipeline" / "snapshots" / COMMIT
    for name in ("owner/pipeline", "owner/pipeline@v2", f"owner/pipeline@{COMMIT}"):
        assert locate(name, "folder") == pipeline
    assert locate("owner/encoder", "folder") == cache / "models--owner--encoder" / "snapshots" / COMMIT
    lora = pipeline / "loras" / "dit_lora.safetensors"
    assert locate("owner/pipeline/loras/dit_lora.safetensors", "file") == lora
    assert locate("owner/pipeline@v2/loras/dit_lora.safetensors", "file") == lora


@pytest.mark.parametrize("told,offline", [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_is_read_at_the_call(monkeypatch: pytest.MonkeyPatch, told: str, offline: bool) -> None:
    """The hub's library reads it only when it is imported."""
    asked: list[bool] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _, **s: asked.append(s["local_files_only"]) or "")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **s: asked.append(s["local_files_only"]) or "")
    monkeypatch.setenv("HF_HUB_OFFLINE", told)
    locate("owner/name", "folder")
    locate("owner/name/file.safetensors", "file")
    assert len(asked) >= 3 and set(asked) == {offline}


def test_home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(cache.parent))
    assert locate("owner/encoder", "folder").parents[2] == cache


@pytest.mark.parametrize(
    "text,wanted",
    [("owner/none", "folder"), ("owner/pipeline@v9", "folder"), ("owner/pipeline/none.safetensors", "file")],
)
def test_not_cached(cache: Path, text: str, wanted: Any) -> None:
    with pytest.raises(UserError, match="the hub can't be reached") as caught:
        locate(text, wanted)
    assert str(caught.value).startswith(f"{text}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text,wanted",
    [
        ("none", "folder"), ("/none/at/all", "folder"), ("./none", "folder"), ("../a/b", "folder"),
        ("owner/name/part", "folder"), ("owner/name/file.safetensors", "folder"), ("owner/name", "file"),
        ("owner/name/file.bin", "file"), ("a b/c", "folder"), ("", "file"),
    ],
)  # fmt: skip
def test_what_is_no_name_is_never_looked_up(
    text: str, wanted: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub, name, lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=f"no such {wanted}; give a path"):
        locate(text, wanted)


def test_only_the_parts_of_a_pipeline_are_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that model_index.json names; not flux1-dev.safetensors beside them: the same 24 GB again."""
    index = {
        "_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"],
        "tokenizer_2": ["transformers", "T5Tokenizer"], "image_encoder": [None, None], "is_distilled": False,
        "text_encoder_select_layers": [2, 5],
    }  # fmt: skip
    snapshot = cache / "models--owner--pipeline" / "snapshots" / COMMIT
    (snapshot / "model_index.json").write_text(json.dumps(index))
    asked: list[list[str]] = []
    real = huggingface_hub.snapshot_download

    def spy(repo: str, **settings: Any) -> str:
        asked.append(settings["allow_patterns"])
        return real(repo, **settings)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", spy)
    locate("owner/pipeline", "folder")
    assert "transformer/*.safetensors" in asked[-1] and "tokenizer_2/*.model" in asked[-1]
    assert {pattern.partition("/")[0] for pattern in asked[-1]} == {"model_index.json", "transformer", "tokenizer_2"}
    locate("owner/encoder", "folder")
    assert asked[-1] == ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


class NetworkError(Exception):
    """As network libraries have them: of no family that we know."""


def refused(kind: type[Exception]) -> Exception:
    """Made without the web answer that its constructor wants."""
    return kind.__new__(kind)


@pytest.mark.parametrize(
    "error,cure",
    [
        (lambda: refused(errors.GatedRepoError), "accept the licence.*hf auth login"),
        (lambda: refused(errors.RepositoryNotFoundError), "neither on disk nor on the hub"),
        (lambda: refused(errors.RevisionNotFoundError), "no such revision"),
        (lambda: OSError("disk\nfull"), "can't be fetched from the hub \\(disk full\\)"),
        (lambda: NetworkError("proxy"), "can't be fetched from the hub \\(proxy\\)"),
    ],
)
def test_errors_tell_the_cure(monkeypatch: pytest.MonkeyPatch, error: Any, cure: str) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=f"owner/name: .*{cure}") as caught:
        locate("owner/name", "folder")
    assert "\n" not in str(caught.value)
