"""CSV as a table: NumPy reads the plain blocks of a file, Python's csv module those with quotes or faults."""

import csv
import io
import itertools
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.traces.arrow import read_csv
from stalewise.traces.table import AbstractTable, Parts, Raw

_BLOCK = 1 << 24  # bytes
_ROWS = 1 << 14
_BLANK = "-nAn"  # stands for an empty cell: NumPy reads it as NaN; a block that has it already goes the slow way


class CsvTable(AbstractTable):
    """Comma-separated text in UTF-8 under one line of names, quoted as in RFC 4180."""

    def _open(self) -> list[str]:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
        if not names:
            raise InputError(f"{self.source}: the file is empty; a trace starts with a header such as worker,start,end")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{self.source}: column {twice[:40]!r} stands twice in the header")
        return names

    def cell(self, row: int, name: str) -> str:  # noqa: D102 - as in AbstractTable
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            next(rows)
            return next(itertools.islice((cells for cells in rows if cells), row, None))[self.header.index(name)]

    def _read(self, texts: list[str], numbers: list[str], optional: list[str]) -> Raw:
        numbers = [*numbers, *(name for name in optional if name in self.header)]
        return (read_csv(self.path, self.header, texts, numbers) or self._parts(texts, numbers)).joined()

    def _parts(self, texts: list[str], numbers: list[str]) -> Parts:
        parts = Parts(texts, numbers)
        with self.path.open("rb") as file:
            header = file.readline(_BLOCK)
            if b'"' in header or b"\r" in header.rstrip(b"\r\n"):
                file.seek(0)
                with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
                    rows = csv.reader(text)
                    next(rows)
                    self._slow(rows, parts)
                return parts
            while block := self._block(file):
                if b'"' in block:
                    file.seek(-len(block), io.SEEK_CUR)
                    with io.TextIOWrapper(file, "utf-8", newline="") as text:
                        self._slow(csv.reader(text), parts)
                    return parts
                lines = block.decode("utf-8").replace("\r\n", "\n")
                if not self._fast(lines, parts):
                    self._slow(csv.reader(io.StringIO(lines, newline="")), parts)
        return parts

    def _block(self, file: IO[bytes]) -> bytes:
        block = file.read(_BLOCK)
        rest = file.readline(_BLOCK)
        if len(rest) == _BLOCK:
            raise InputError(f"{self.source}: a line is longer than {_BLOCK} bytes; a trace has one gradient a line")
        return block + rest

    def _fast(self, text: str, parts: Parts) -> bool:
        """Let NumPy read the block; False if it cannot."""
        if _BLANK in text:
            return False
        text = _with_blanks(text.strip("\n"))
        if not text:
            return True
        kinds = {name: object if name in parts.codes else float for name in parts.names}
        layout = [(str(i), kinds.get(name, "U1")) for i, name in enumerate(self.header)]
        try:
            rows = np.loadtxt(text.split("\n"), layout, delimiter=",", comments=None, ndmin=1)
            part = {name: rows[str(self.header.index(name))] for name in parts.names}
            for name, codes in parts.codes.items():
                part[name] = codes.encode(part[name].tolist(), len(rows))
        except ValueError:
            return False
        if any(_BLANK in codes for codes in parts.codes.values()):
            return False
        parts.add({name: values.copy() for name, values in part.items()})
        return True

    def _slow(self, rows: Iterator[list[str]], parts: Parts) -> None:
        while chunk := list(itertools.islice(rows, _ROWS)):
            filled = [row for row in chunk if row]
            for number, row in enumerate(filled, start=parts.rows + 1):
                if len(row) != len(self.header):
                    raise InputError(
                        f"{self.source}: data row {number} has {len(row)} values, the header has {len(self.header)}"
                    )
            part = {}
            for name in parts.names if filled else ():
                place = self.header.index(name)
                cells = [row[place] for row in filled]
                codes = parts.codes.get(name)
                part[name] = codes.encode(cells, len(cells)) if codes is not None else self._floats(name, cells, parts)
            parts.add(part)

    def _floats(self, name: str, cells: list[str], parts: Parts) -> NDArray[np.float64]:
        values = np.full(len(cells), np.nan)
        for row, cell in enumerate(cells):
            if cell.strip():
                try:
                    values[row] = float(cell)
                except ValueError:
                    raise self.wrong(self.called(name), cell, parts.rows + row, "a number") from None
        return values


def _with_blanks(text: str) -> str:
    """The text with every empty cell filled in."""
    text = text.replace(",,", f",{_BLANK},").replace(",,", f",{_BLANK},")
    text = text.replace(",\n", f",{_BLANK}\n").replace("\n,", f"\n{_BLANK},")
    start, end = (_BLANK if text.startswith(",") else ""), (_BLANK if text.endswith(",") else "")
    return f"{start}{text}{end}"
