"""Checkpoints: whole or not at all, and what is damaged is not believed."""

import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stalewise.errors import InputError
from stalewise.training import checkpoint
from stalewise.training.checkpoint import NAME, PREVIOUS, load_checkpoint, save_checkpoint

STATE = {"version": 7, "streams": {"delays": {"state": 2**100}}, "loss": [1.0, None]}
TENSORS = {"parameters": np.arange(5, dtype=np.float32), "cursors": np.array([[1, 2]], np.int64)}


def test_what_is_written_is_read(tmp_path):
    """Plain values, numbers of 100 bits among them, and arrays with their types."""
    save_checkpoint(tmp_path, STATE, TENSORS)
    state, tensors, warning = load_checkpoint(tmp_path)
    assert warning is None
    assert {k: v for k, v in state.items() if k != "format"} == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)


@pytest.mark.parametrize("place", [4, 40, -1])
def test_a_changed_bit_is_found(tmp_path, place):
    """In the header, in the plain values or in a tensor; the one before is taken and it is said so."""
    save_checkpoint(tmp_path, {**STATE, "version": 6}, TENSORS)
    save_checkpoint(tmp_path, STATE, TENSORS)
    content = bytearray((tmp_path / NAME).read_bytes())
    content[place] ^= 4
    (tmp_path / NAME).write_bytes(bytes(content))
    state, _, warning = load_checkpoint(tmp_path)
    assert state["version"] == 6
    assert warning is not None and f"{NAME} is damaged" in warning and PREVIOUS in warning
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(InputError, match=rf"--resume: {NAME} is damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_at_any_step_of_a_save_leaves_a_checkpoint(tmp_path, monkeypatch, links):
    """Stopped at each renaming in turn, one after the other: the last whole save is read, and nothing piles up."""

    class Killed(BaseException):
        pass

    def no_links(*_):
        raise OSError(1, "Operation not permitted")

    replace = checkpoint.os.replace
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", no_links)
    for version in range(1, 7):
        save_checkpoint(tmp_path, {**STATE, "version": 10 * version}, TENSORS)
        left = version % 3

        def killed(*names):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            replace(*names)

        monkeypatch.setattr(checkpoint.os, "replace", killed)
        with contextlib.suppress(Killed):
            save_checkpoint(tmp_path, {**STATE, "version": 10 * version + 1}, TENSORS)
        monkeypatch.setattr(checkpoint.os, "replace", replace)
        assert (tmp_path / NAME).exists() or not links
        assert load_checkpoint(tmp_path)[0]["version"] == 10 * version + (version % 3 == 2)
    assert len(list(tmp_path.iterdir())) <= 3


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    """Writing fails half way: the last checkpoint stands, nothing else is left behind."""
    save_checkpoint(tmp_path, STATE, TENSORS)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, {**STATE, "version": 8}, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert load_checkpoint(tmp_path)[0]["version"] == 7


def test_another_format_and_no_checkpoint(tmp_path, monkeypatch):
    """Each is refused in one line."""
    with pytest.raises(InputError, match="there is no checkpoint in"):
        load_checkpoint(tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    save_checkpoint(tmp_path, STATE, TENSORS)
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(InputError, match="has format 99, this version reads format 1"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"tensors": {"a": torch.ones(3, dtype=torch.bfloat16)}},
        {"tensors": {"a": torch.ones(3, dtype=torch.float8_e4m3fn)}},
        {"tensors": {"a": torch.ones(3)}},
        {"tensors": {}, "metadata": {"state": "", "sha256": checkpoint._digest("", {})}},
        {"tensors": {}, "metadata": {"state": "[1]", "sha256": checkpoint._digest("[1]", {})}},
        {"tensors": {}, "metadata": {"state": "[" * 10**5, "sha256": checkpoint._digest("[" * 10**5, {})}},
    ],
    ids=["bfloat16", "float8", "a model", "nothing", "a list", "a deep list"],
)
def test_another_safetensors_file_is_refused(content, tmp_path):
    """A model, types that NumPy has not, a state that is none: one line each."""
    save_file(filename=tmp_path / NAME, **content)
    with pytest.raises(InputError, match=f"--resume: {NAME} is (damaged|no checkpoint)"):
        load_checkpoint(tmp_path)


def test_a_foreign_file_runs_no_code(tmp_path):
    """A pickle under the name of a checkpoint is not read as one."""
    (tmp_path / NAME).write_bytes(b"\x80\x04\x95cos\nsystem\n." + json.dumps(STATE).encode())
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path)
