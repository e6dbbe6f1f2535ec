"""Checkpoints: one file of tensors and plain values, written whole or not at all, checked when it is read.

The file is in the safetensors format, whose reading runs no code. Its header holds the plain values as JSON, and a
SHA-256 over them and all tensors. The checkpoint before the last is kept beside it.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError

FORMAT = 2
NAME, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
Tensors = dict[str, NDArray[Any]]


def save_checkpoint(folder: Path, state: dict[str, Any], tensors: Tensors) -> None:
    """Write a checkpoint; the one that was there becomes the previous one.

    Args:
        folder: Where; it exists.
        state: Plain values.
        tensors: Arrays by name.

    Raises:
        OSError: It cannot be written; what was there stands.
    """
    from safetensors.numpy import save  # noqa: PLC0415  (an extra)

    text = json.dumps({"format": FORMAT, **state}, allow_nan=False)
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    content = save(whole, metadata={"state": text, "sha256": _digest(text, whole)})
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".checkpoint.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if (folder / NAME).exists():
            _keep(folder)
        os.replace(temporary, folder / NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _keep(folder: Path) -> None:
    """Make the checkpoint the previous one as well: at any moment there is one under its name."""
    second = folder / f".{PREVIOUS}"
    second.unlink(missing_ok=True)
    try:
        os.link(folder / NAME, second)
    except OSError:  # a file system without hard links: for a moment there is the previous one alone
        os.replace(folder / NAME, folder / PREVIOUS)
        return
    os.replace(second, folder / PREVIOUS)
    second.unlink(missing_ok=True)  # it stays where both were one file already, after a kill at this place


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], Tensors, str | None]:
    """Read the last checkpoint, or the one before if that is damaged.

    Returns:
        Plain values, tensors, and a warning where it is the one before.

    Raises:
        InputError: There is none, or none that is whole.
    """
    names = [name for name in (NAME, PREVIOUS) if (folder / name).exists()]
    if not names:
        raise InputError(f"--resume: there is no checkpoint in {str(folder)!r}; begin without --resume")
    warning = None
    for name in names:
        try:
            state, tensors = _read(folder / name)
        except InputError as error:
            warning = warning or str(error)
            continue
        return state, tensors, warning and f"{warning}; going on from {name}"
    raise InputError(f"--resume: {warning}")


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:  # the last: types NumPy has not
        raise InputError(f"{path.name} is damaged: {' '.join(str(error).split())}") from None
    text = metadata.get("state", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise InputError(f"{path.name} is damaged: its checksum is not that of what it holds")
    try:
        state = json.loads(text)
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise InputError(f"{path.name} is no checkpoint: it has no state")
    if state.get("format") != FORMAT:
        raise InputError(f"{path.name} has format {state.get('format')}, this version reads format {FORMAT}")
    return state, tensors


def _digest(text: str, tensors: Tensors) -> str:
    sum_ = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        sum_.update(f"{name} {value.dtype.str} {value.shape}".encode())
        sum_.update(np.ascontiguousarray(value).data)
    return sum_.hexdigest()
