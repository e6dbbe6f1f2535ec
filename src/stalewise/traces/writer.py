"""Traces into files, row by row."""

import csv
import os
import time
from pathlib import Path
from typing import IO

from stalewise.errors import InputError
from stalewise.traces.trace import COLUMNS

FLUSHED_EVERY = 0.5  # seconds


class TraceWriter:
    """Writes a trace row by row into ``path.partial``, on disk within half a second; `finish` gives it its name.

    A run that is killed leaves the partial file, which reads like a whole one, and what stood at ``path`` before.

    Args:
        path: The file.
        keep: Go on with the partial file, of which so many bytes are kept; None begins a new one.

    Raises:
        InputError: The file cannot be written, or is shorter than what is to be kept of it.
    """

    def __init__(self, path: str | Path, keep: int | None = None) -> None:
        self._path = Path(path)
        self.partial = self._path.with_name(self._path.name + ".partial")
        try:
            if self._path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if keep is not None:
                self._cut(keep)
            self._file: IO[str] = self.partial.open("w" if keep is None else "a", newline="", encoding="utf-8")
        except OSError as error:
            raise InputError(f"trace file: cannot write {str(path)!r}: {error.strerror}") from None
        self._writer = csv.writer(self._file)
        self._flushed = 0.0
        if keep is None:
            self._writer.writerow(COLUMNS)
        self._file.flush()

    def _cut(self, keep: int) -> None:
        """Take out what was written after a checkpoint: those gradients are computed again."""
        if not self.partial.exists() and self._path.exists():
            self._path.replace(self.partial)
        if not self.partial.exists() or self.partial.stat().st_size < keep:
            raise InputError(f"trace file: {str(self.partial)!r} is not the one that the checkpoint goes on from")
        os.truncate(self.partial, keep)

    def write(self, **values: float | str) -> None:
        """Append one gradient; columns left out stay blank."""
        self._writer.writerow([_text(values.get(name, "")) for name in COLUMNS])
        now = time.monotonic()
        if now - self._flushed > FLUSHED_EVERY:
            self._flushed = now
            self._file.flush()

    def secure(self) -> int:
        """Have all of it on disk; its length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.partial.stat().st_size

    def finish(self) -> None:
        """Close the file and put it in place, whole."""
        self._file.close()
        self.partial.replace(self._path)

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._file.close()


def _text(value: float | str) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)
