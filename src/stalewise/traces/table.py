"""Named columns in a file, whatever its format."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.traces.trace import Codes

MOST_LABEL = 100  # characters: ten million rows of them stay within memory

Raw = tuple[dict[str, tuple[Codes, NDArray[np.int32]]], dict[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Labels:
    """A column of text.

    Attributes:
        names: The distinct labels.
        codes: Which of them each row has, shape (n,).
    """

    names: list[str]
    codes: NDArray[np.int32]

    def __getitem__(self, rows: NDArray) -> "Labels":
        return Labels(self.names, self.codes[rows])

    def as_strings(self) -> NDArray[np.str_]:
        """One string a row, shape (n,)."""
        return np.array(self.names, np.str_)[self.codes]


@dataclass(frozen=True)
class Columns:
    """What a table was asked for: text, and numbers with NaN for a blank, by name."""

    texts: dict[str, Labels]
    numbers: dict[str, NDArray[np.float64]]


class AbstractTable(ABC):
    """A file of rows under named columns; opening it reads the names only.

    Attributes:
        path: The file.
        source: Its name, for messages.
        header: Its columns, by its own names.
        renamed: Columns that go by another name in the file: ours to the file's.
        names: Its columns, by ours where they are renamed.
    """

    def __init__(self, path: Path, renamed: dict[str, str]) -> None:
        self.path, self.source, self.renamed = path, path.name, renamed
        self.header = self._open()
        for ours, theirs in renamed.items():
            if theirs not in self.header:
                raise InputError(
                    f"{self.source}: columns: {ours} is to come from {theirs[:40]!r}, which is not there; "
                    f"the file has {listed(self.header)}"
                )
        taken = {*renamed, *renamed.values()}
        self.names = [*renamed, *(name for name in self.header if name not in taken)]

    def read(self, texts: Sequence[str], numbers: Sequence[str], optional: Sequence[str] = ()) -> Columns:
        """Read columns; of ``optional`` numbers those that are there.

        Raises:
            InputError: There is no row; a value is no number; a label is blank or too long; names row and column.
        """
        theirs = {name: self.renamed.get(name, name) for name in (*texts, *numbers, *optional)}
        found_texts, found = self._read(
            [theirs[name] for name in texts], [theirs[name] for name in numbers], [theirs[name] for name in optional]
        )
        if not any(len(values) for values in found.values()):
            raise InputError(f"{self.source}: no gradient in it; a trace needs at least one row")
        return Columns(
            {name: self._labels(name, *found_texts[theirs[name]]) for name in texts},
            {name: found[theirs[name]] for name in (*numbers, *optional) if theirs[name] in found},
        )

    def finite(self, columns: Columns, name: str) -> NDArray[np.float64]:
        """A column of numbers, every one of them finite.

        Raises:
            InputError: One is blank or not finite.
        """
        values = columns.numbers[name]
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            text = self.cell(row, self.renamed.get(name, name))
            raise self.wrong(name, text, row, "a finite number" if text.strip() else "a number")
        return values

    def wrong(self, name: str, text: str, row: int, allowed: str) -> InputError:
        """The error that names a value, where it stands and what is allowed."""
        theirs = self.renamed.get(name, name)
        called = name if theirs == name else f"{name} ({theirs[:40]})"
        shown = text if len(text) <= 40 else text[:40] + "..."
        return InputError(f"{self.source}: {called} must be {allowed}, got {shown!r} in data row {row + 1}")

    @abstractmethod
    def cell(self, row: int, name: str) -> str:
        """One value as it stands in the file, by the file's name of its column."""

    @abstractmethod
    def _open(self) -> list[str]:
        """Names of the columns, as in the file."""

    @abstractmethod
    def _read(self, texts: list[str], numbers: list[str], optional: list[str]) -> Raw:
        """Columns by the file's names: labels with the row's codes, and numbers with NaN for a blank."""

    def called(self, theirs: str) -> str:
        """Our name of one of the file's columns."""
        return next((ours for ours, name in self.renamed.items() if name == theirs), theirs)

    def _labels(self, name: str, codes: Codes, rows: NDArray[np.int32]) -> Labels:
        """Labels without spaces around them; blank and overlong ones are refused."""
        names = [label.strip() for label in codes]
        for code, label in enumerate(names):
            if not label:
                row = int(np.argmax(rows == code))
                raise InputError(f"{self.source}: {name} must be named, got a blank in data row {row + 1}")
            if len(label) > MOST_LABEL:
                raise self.wrong(name, label, int(np.argmax(rows == code)), f"at most {MOST_LABEL} characters long")
        distinct = Codes()
        merged = distinct.encode(names, len(names))
        return Labels(list(distinct), rows if len(distinct) == len(names) else merged[rows])


class Parts:
    """Columns that grow part by part.

    Attributes:
        names: The columns, each once.
        codes: The labels met so far, by column of text.
        rows: Rows so far.
    """

    def __init__(self, texts: Sequence[str], numbers: Sequence[str]) -> None:
        self.names = list(dict.fromkeys((*texts, *numbers)))
        self.codes = {name: Codes() for name in texts}
        self.rows = 0
        self._parts: dict[str, list[NDArray]] = {name: [] for name in self.names}

    def add(self, part: dict[str, NDArray]) -> None:
        """Append some rows of every column."""
        for name, values in part.items():
            self._parts[name].append(values)
        self.rows += len(next(iter(part.values()), ()))

    def joined(self) -> Raw:
        """All rows."""
        whole: dict[str, NDArray] = {
            name: np.concatenate(self._parts.pop(name) or [np.zeros(0)]) for name in list(self._parts)
        }
        return {name: (codes, whole.pop(name)) for name, codes in self.codes.items()}, whole


def listed(names: Sequence[str]) -> str:
    """A few names for a message, as one bounded text."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])[:80]!r}{more}"
