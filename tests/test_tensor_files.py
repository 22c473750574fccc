"""Equal tensors and words give equal files, which every reader of safetensors reads."""

from __future__ import annotations

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from cgrpo.tensor_files import tensor_bytes, write_tensors

WORDS = {name: name.upper() for name in ("rank", "alpha", "base", "format", "start", "mode", "hash")}
WORDS |= {"note": 'a "b"\\ \n\t\x01\x7f é 漢 😀 \u2028'}
TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3).T,
    "a": torch.ones(3, dtype=torch.bfloat16),
    "ä": torch.tensor(1),
    "n": torch.zeros(0),
}


def test_files_are_equal_whatever_the_order(tmp_path) -> None:
    """Unsorted, two files of 8 words agree once in 40,320."""
    write_tensors(tmp_path / "one", TENSORS, WORDS)
    write_tensors(tmp_path / "two", dict(reversed(TENSORS.items())), dict(reversed(WORDS.items())))
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes() == tensor_bytes(TENSORS, WORDS)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
    with safe_open(tmp_path / "one", "pt") as file:
        assert file.metadata() == WORDS and list(file.metadata()) and set(file.keys()) == TENSORS.keys()
        assert all(torch.equal(file.get_tensor(name), value) for name, value in TENSORS.items())
        assert all(file.get_tensor(name).dtype == value.dtype for name, value in TENSORS.items())
    head = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
    places = [head.index(f'"{name}":"') for name in sorted(WORDS)]
    assert places == sorted(places) and len(head.encode()) % 8 == 0


def test_without_words(tmp_path) -> None:
    write_tensors(tmp_path / "plain", TENSORS)
    with safe_open(tmp_path / "plain", "pt") as file:
        assert not file.metadata()
    assert load(tensor_bytes(TENSORS)).keys() == TENSORS.keys()


def test_tensors_that_share_memory(tmp_path) -> None:
    whole = torch.arange(6.0).reshape(3, 2)
    tensors = {"whole": whole, "again": whole, "first": whole[:1], "rest": whole[1:], "turned": whole.T}
    write_tensors(tmp_path / "file", tensors)
    content = (tmp_path / "file").read_bytes()
    assert content == tensor_bytes(tensors) and len(content) < 600
    assert all(torch.equal(value, tensors[name]) for name, value in load(content).items())


def test_what_fails_leaves_the_old_file(tmp_path) -> None:
    write_tensors(tmp_path / "file", TENSORS)
    before = (tmp_path / "file").read_bytes()
    with pytest.raises((SafetensorError, TypeError, ValueError)):
        write_tensors(tmp_path / "file", TENSORS, {"number": 1})  # type: ignore[dict-item]
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == before
    with pytest.raises((OSError, SafetensorError)):
        write_tensors(tmp_path / "absent" / "file", TENSORS)
