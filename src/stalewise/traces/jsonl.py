"""JSON Lines as a table: one object a line."""

import contextlib
import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.traces.table import AbstractTable, Parts, Raw

_LINES = 1 << 14
_LONGEST = 1 << 24  # bytes of one line


class JsonTable(AbstractTable):
    """Objects with numbers, text and null; a key that a line lacks is blank there, nested ones are `outer/inner`.

    Its columns are the keys of the first 16,384 lines.
    """

    def _open(self) -> list[str]:
        first, _ = next(self._blocks(), ([], ""))
        if not first:
            raise InputError(
                f"{self.source}: the file is empty; JSON Lines have one object a line, with worker, start and end"
            )
        return list(dict.fromkeys(key for row in first for key in row))

    def cell(self, row: int, name: str) -> str:  # noqa: D102 - as in AbstractTable
        for rows, _ in self._blocks():
            if row < len(rows):
                value = rows[row].get(name)
                return "" if value is None else str(value)
            row -= len(rows)
        return ""

    def _read(self, texts: list[str], numbers: list[str], optional: list[str]) -> Raw:
        parts, present = Parts(texts, [*numbers, *optional]), {*texts, *numbers}
        for rows, text in self._blocks():
            part = {}
            for name in parts.names:
                if name not in present and name.rpartition("/")[2] not in text and "\\u" not in text:
                    part[name] = np.full(len(rows), np.nan)
                    continue
                values = [row.get(name) for row in rows]
                codes = parts.codes.get(name)
                part[name] = self._floats(name, values, parts) if codes is None else self._texts(name, values, parts)
                if name not in present and any(name in row for row in rows):
                    present.add(name)
            parts.add(part)
        texts_found, found = parts.joined()
        return texts_found, {name: values for name, values in found.items() if name in present}

    def _texts(self, name: str, values: list[Any], parts: Parts) -> NDArray[np.int32]:
        if not set(map(type, values)) <= {str}:
            values = [self._label(name, value, parts.rows + row) for row, value in enumerate(values)]
        return parts.codes[name].encode(values, len(values))

    def _label(self, name: str, value: Any, row: int) -> str:
        if value is None or type(value) in (str, int):
            return "" if value is None else str(value)
        raise self.wrong(self.called(name), _shown(value), row, "text or a whole number")

    def _floats(self, name: str, values: list[Any], parts: Parts) -> NDArray[np.float64]:
        with contextlib.suppress(OverflowError):
            if set(map(type, values)) <= {int, float, type(None)}:
                return np.array(values, float)
        row = next(row for row, value in enumerate(values) if not _is_number(value))
        raise self.wrong(self.called(name), _shown(values[row]), parts.rows + row, "a number")

    def _blocks(self) -> Iterator[tuple[list[dict[str, Any]], str]]:
        """Some rows, and the text they were written as."""
        seen = 0
        with self.path.open(newline="\n", encoding="utf-8-sig") as file:
            while lines := self._lines(file):
                rows, text = self._objects(lines, seen)
                seen += len(rows)
                if rows:
                    yield rows, text

    def _lines(self, file: IO[str]) -> list[str]:
        lines: list[str] = []
        try:
            while len(lines) < _LINES and (line := file.readline(_LONGEST)):
                lines.append(line)
                if len(line) == _LONGEST:
                    raise InputError(
                        f"{self.source}: a line is longer than {_LONGEST} characters; an object is one line"
                    )
        except UnicodeDecodeError as error:
            raise InputError(f"{self.source}: not a JSON Lines text file ({error.reason})") from None
        return lines

    def _objects(self, lines: list[str], seen: int) -> tuple[list[dict[str, Any]], str]:
        """Parse all lines at once, which is several times as fast; one by one where that fails."""
        text = ",".join(lines)
        try:
            rows = json.loads(f"[{text}]")
        except (ValueError, RecursionError):
            rows = []
        if len(rows) != len(lines) or not set(map(type, rows)) <= {dict}:
            filled = (line for line in lines if not line.isspace())
            rows = [self._object(line, seen + number) for number, line in enumerate(filled)]
        return [_flat(row) for row in rows] if text.count("{") > len(rows) else rows, text

    def _object(self, line: str, row: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if type(value) is dict:
            return value
        raise InputError(f"{self.source}: data row {row + 1} is not a JSON object: {line.strip()[:40]!r}")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the keys of nested objects as `outer/inner`."""
    while any(type(value) is dict for value in row.values()):
        parts = [(key, value if type(value) is dict else {"": value}) for key, value in row.items()]
        row = {f"{key}/{name}" if name else key: value for key, part in parts for name, value in part.items()}
    return row


def _is_number(value: Any) -> bool:
    return value is None or type(value) is float or (type(value) is int and abs(value) < 2**1023)


def _shown(value: Any) -> str:
    return json.dumps(value)[:50] if not isinstance(value, str) else value[:50]
