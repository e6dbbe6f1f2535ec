"""Traces into files, row by row."""

import contextlib
import csv
import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from stalewise.errors import InputError
from stalewise.traces.trace import COLUMNS

FLUSHED_EVERY = 0.5  # seconds
END = 4096  # bytes by whose digest a trace is known again


class Secured(NamedTuple):
    """How much of a trace is on disk [bytes], and a SHA-256 of the last `END` bytes of that."""

    length: int
    digest: str


class TraceWriter:
    """Writes a trace row by row into ``path.partial``, on disk within half a second; `finish` gives it its name.

    A run that is killed leaves the partial file, which reads like a whole one, and what stood at ``path`` before. While
    the disk is full, rows wait in memory.

    Args:
        path: The file.
        keep: Go on with the trace of which so much was secured, here or at ``path``; None begins a new one.

    Raises:
        InputError: The file cannot be written, or is not the one of which something is to be kept.
    """

    def __init__(self, path: str | Path, keep: Secured | None = None) -> None:
        self._path = Path(path)
        self.partial = self._path.with_name(self._path.name + ".partial")
        try:
            if self._path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if keep is not None:
                self._cut(keep)
            self._file = self.partial.open("wb" if keep is None else "ab", buffering=0)
            self._waiting = _Waiting()
            self._writer = csv.writer(self._waiting)
            self._flushed = 0.0
            if keep is None:
                self._writer.writerow(COLUMNS)
            self._flush()
        except OSError as error:
            raise InputError(f"trace file: cannot write {str(path)!r}: {error.strerror}") from None

    def _cut(self, keep: Secured) -> None:
        """Take out what was written after a checkpoint: those gradients are computed again."""
        if not _is(self.partial, keep) and _is(self._path, keep):
            self._path.replace(self.partial)
        if not _is(self.partial, keep):
            raise InputError(f"trace file: {str(self.partial)!r} is not the one that the checkpoint goes on from")
        os.truncate(self.partial, keep.length)

    def write(self, **values: float | str) -> None:
        """Append one gradient; columns left out stay blank."""
        self._writer.writerow([_text(values.get(name, "")) for name in COLUMNS])
        now = time.monotonic()
        if now - self._flushed > FLUSHED_EVERY:
            self._flushed = now
            with contextlib.suppress(OSError):  # rows wait; who needs them on disk is told by `secure` and `finish`
                self._flush()

    def _flush(self) -> None:
        rows = self._waiting.rows
        while rows:
            del rows[: self._file.write(rows)]

    def secure(self) -> Secured:
        """Have all of it on disk.

        Raises:
            OSError: It cannot be.
        """
        self._flush()
        os.fsync(self._file.fileno())
        length = self.partial.stat().st_size
        return Secured(length, _digest(self.partial, length))

    def finish(self) -> None:
        """Close the file and put it in place, whole.

        Raises:
            InputError: Not all of it can be written.
        """
        try:
            self._flush()
        except OSError as error:
            raise InputError(f"trace file: cannot write {str(self._path)!r}: {error.strerror}") from None
        finally:
            self._file.close()
        self.partial.replace(self._path)

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
            return
        with contextlib.suppress(OSError):
            self._flush()
        self._file.close()


class _Waiting:
    """Rows that are not on disk yet, as a file to the csv module."""

    def __init__(self) -> None:
        self.rows = bytearray()

    def write(self, text: str) -> None:
        """One more row."""
        self.rows += text.encode()


def _is(path: Path, kept: Secured) -> bool:
    return path.exists() and path.stat().st_size >= kept.length and _digest(path, kept.length) == kept.digest


def _digest(path: Path, length: int) -> str:
    with path.open("rb") as file:
        file.seek(max(0, length - END))
        return hashlib.sha256(file.read(min(END, length))).hexdigest()


def _text(value: float | str) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)
