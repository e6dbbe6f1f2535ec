"""Traces into files, row by row."""

import csv
from pathlib import Path
from typing import IO

from stalewise.errors import InputError
from stalewise.traces.trace import COLUMNS


class TraceWriter:
    """Writes a trace row by row into ``path.partial``, flushed as it grows; `finish` gives it its name.

    A run that is killed leaves the partial file, which reads like a whole one, and what stood at ``path`` before.

    Raises:
        InputError: The file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.partial = self._path.with_name(self._path.name + ".partial")
        try:
            if self._path.is_dir():
                raise IsADirectoryError(0, "it is a folder")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = self.partial.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise InputError(f"trace file: cannot write {str(path)!r}: {error.strerror}") from None
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self._file.flush()

    def write(self, **values: float | str) -> None:
        """Append one gradient; columns left out stay blank."""
        self._writer.writerow([_text(values.get(name, "")) for name in COLUMNS])
        self._file.flush()

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
