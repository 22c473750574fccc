"""What surrounds a command: its streams, folder, environment and memory, other processes, files half written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from cgrpo import hub
from cgrpo.app import plan
from cgrpo.app.main import main
from cgrpo.app.options import write_json
from cgrpo.errors import UserError
from cgrpo.evaluation.sampling import check_pictures
from cgrpo.files import alone, save_picture, write_text
from cgrpo.rewards.vlm import VlmSettings
from cgrpo.rewards.vlm.cache import Judgement, JudgementCache
from cgrpo.rewards.vlm.judge import VlmJudge
from cgrpo.scores import read_description
from cgrpo.training.record import RunRecord


def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """cgrpo ... >&- 2>&-"""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["cite"]) == 0 and main(["plan", "nothing"]) == 2
    sys.stdout.close()
    sys.stderr.close()


def test_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert main(["data", "check", "x.json"]) == 2
    assert capsys.readouterr().err == "cgrpo: the working directory is gone; start cgrpo in a folder that is there\n"


def test_a_notebooks_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Jupyter hands on to the commands it runs; matplotlib alone refuses to load with it."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    main(["cite"])
    assert "MPLBACKEND" not in os.environ


def test_a_locale_without_utf8(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """LC_ALL=C PYTHONUTF8=0, or LC_ALL=de_DE.ISO-8859-1: what ails is the locale, not the name."""

    def run() -> None:
        "caf\xe9/\u732b.png".encode("latin-1")

    monkeypatch.setattr(plan.cite_app, "default_command", run)
    with pytest.raises(UnicodeEncodeError):
        main(["cite"])
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    for words in (["cite"], ["plan", "\udce7.toml"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "export LC_ALL=C.UTF-8" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nOf"), "the GPU's memory is used up (CU"),
        (MemoryError(), "the memory is used up; ask for less"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you"), "the memory is used up ([enforce"),
    ],
)
def test_memory_that_is_used_up(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise error

    monkeypatch.setattr(plan.cite_app, "default_command", run)
    assert main(["cite"]) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1


def test_another_error_is_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(plan.cite_app, "default_command", run)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["cite"])


def test_a_home_that_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="~nobody-here/x: no such folder"):
        hub.locate("~nobody-here/x", "folder")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # a container whose user is a number alone
    with pytest.raises(UserError, match="no such home folder is known here"):
        VlmJudge(VlmSettings(task="prompt", model="m", key_variable=""))


def test_two_trainings_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    with alone(run) as first, alone(run) as second:
        assert first and not second
        assert main(["train", "--out", str(run)]) == 2
        assert "another process is training this run" in capsys.readouterr().err
        assert list(run.iterdir()) == []
    with alone(run) as again:
        assert again
    (tmp_path / "file").touch()
    with alone(tmp_path / "file" / "run") as unknown:
        assert unknown


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def save(self, file: Path, format: str, **_: object) -> None:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "x.json").write_text("old")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="space"):
        write_text(tmp_path / "x.json", "new")
    with pytest.raises(OSError, match="space"):
        save_picture(Full(), tmp_path / "x.png")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="No space"):
        JudgementCache(tmp_path / "cache").put("abc", Judgement(1.0), {})
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == "old"


def test_what_can_not_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for words in (["rewards", "score", "x.png", "--prompt", "a"], ["data", "check", "x.json"], ["plan"]):
        for place in (tmp_path, tmp_path / "nowhere" / "x.json"):
            assert main([*words, "--json", str(place)]) == 2
            assert "--json. Give a file in an existing folder" in capsys.readouterr().err
    monkeypatch.setattr("cgrpo.build.make_subject", lambda *_, **__: pytest.fail("worked"))
    assert main(["analyze", "conflict", "--out", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'}: can't be written" in capsys.readouterr().err.splitlines()[-1]


def test_json_goes_through_a_link(tmp_path: Path) -> None:
    """As /dev/stdout is one: replaced, what is written would be lost."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("old")
    for name in ("link", "plain"):
        write_json(tmp_path / name, {"a": float("nan")})
    assert (tmp_path / "file").read_text() == (tmp_path / "plain").read_text() == '{\n  "a": null\n}\n'
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("content", ["", "[]", "null", '"x"', '{"methods": [], "format": 1}', "\0\0"])
def test_files_of_ours_that_were_spoilt(content: str, tmp_path: Path) -> None:
    for name in ("materials.json", "benchmark.json", "generation.json"):
        (tmp_path / name).write_text(content)
    if "methods" not in content:
        with pytest.raises(UserError, match="materials.json: can't be read"):
            RunRecord(tmp_path).beginning()
        with pytest.raises(UserError, match="generation.json: can't be read"):
            check_pictures(tmp_path, {"policy": "x"}, write=True)
    with pytest.raises(UserError, match="benchmark.json: "):
        read_description(tmp_path)


@pytest.mark.parametrize(
    "words",
    [("sample", "--prompt", "a toy", "--seeds"), ("study", "create", "x", "--raters"), ("reproduce", "--seeds")],
)
def test_more_than_a_machine_can_list(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "1000000000000", "--out", "never"]) == 2
    assert f"{words[-1]}. Must be <= 100000" in capsys.readouterr().err
