"""Parquet as a table, read with PyArrow (extra `parquet`) row group by row group."""

from collections.abc import Iterator
from typing import Any

from stalewise.errors import InputError
from stalewise.traces.arrow import add, pyarrow
from stalewise.traces.table import AbstractTable, Parts, Raw

_ROWS = 1 << 18


class ParquetTable(AbstractTable):
    """Columns of integers, floats or decimals; labels may be text or integers."""

    def _open(self) -> list[str]:
        self._arrow = pyarrow()
        try:
            schema = pyarrow("pyarrow.parquet").read_schema(self.path)
        except (self._arrow.ArrowException, OSError) as error:
            raise self._broken(error) from None
        self._types = dict(zip(schema.names, schema.types, strict=True))
        if len(self._types) < len(schema.names):
            raise InputError(f"{self.source}: two of its columns have the same name")
        return list(schema.names)

    def cell(self, row: int, name: str) -> str:  # noqa: D102 - as in AbstractTable
        for batch in self._batches([name]):
            if row < len(batch):
                value = batch.column(0)[row].as_py()
                return "" if value is None else str(value)
            row -= len(batch)
        return ""

    def _read(self, texts: list[str], numbers: list[str], optional: list[str]) -> Raw:
        parts = Parts(texts, [*numbers, *(name for name in optional if name in self.header)])
        for name in parts.names:
            self._check_type(name, text=name in parts.codes)
        for batch in self._batches(parts.names):
            add(batch, parts)
        return parts.joined()

    def _batches(self, names: list[str]) -> Iterator[Any]:
        try:
            yield from pyarrow("pyarrow.parquet").ParquetFile(self.path).iter_batches(_ROWS, columns=names)
        except (self._arrow.ArrowException, OSError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> InputError:
        return InputError(f"{self.source}: not a Parquet file that can be read ({' '.join(str(error).split())[:100]})")

    def _check_type(self, name: str, *, text: bool) -> None:
        kinds, kind = self._arrow.types, self._types[name]
        kind = kind.value_type if kinds.is_dictionary(kind) else kind
        good = [kinds.is_integer, kinds.is_null]
        good += [kinds.is_string, kinds.is_large_string] if text else [kinds.is_floating, kinds.is_decimal]
        if not any(is_so(kind) for is_so in good):
            allowed = "text or whole numbers" if text else "numbers"
            raise InputError(
                f"{self.source}: {self.called(name)} must hold {allowed}, got a column of {str(kind)[:40]}"
            )
