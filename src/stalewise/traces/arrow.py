"""PyArrow, where it is installed: what it reads as this project's columns."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import MissingExtraError
from stalewise.traces.table import Parts
from stalewise.traces.trace import Codes

_BLOCK = 1 << 24  # bytes


def pyarrow(module: str = "pyarrow") -> Any:
    """A module of PyArrow.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError("PyArrow", "parquet") from None


def read_csv(path: Path, header: list[str], texts: list[str], numbers: list[str]) -> Parts | None:
    """Columns of a CSV file; None where PyArrow is missing or refuses, and Python shall read or say what is wrong."""
    try:
        arrow, csv = pyarrow(), pyarrow("pyarrow.csv")
    except MissingExtraError:
        return None
    parts = Parts(texts, numbers)
    kinds = {name: arrow.string() if name in parts.codes else arrow.float64() for name in parts.names}
    try:
        with csv.open_csv(
            path,
            csv.ReadOptions(block_size=_BLOCK, skip_rows=1, column_names=header),
            csv.ParseOptions(newlines_in_values=False),
            csv.ConvertOptions(column_types=kinds, include_columns=parts.names, null_values=[""]),
        ) as batches:
            for batch in batches:
                add(batch, parts)
    except (arrow.ArrowException, ValueError, OSError):
        return None
    return parts


def add(batch: Any, parts: Parts) -> None:
    """Append a record batch; a column of text, or one of numbers with NaN for null."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    parts.add({n: _codes(v, parts.codes[n]) if n in parts.codes else _floats(v) for n, v in columns})


def _codes(values: Any, codes: Codes) -> NDArray[np.int32]:
    coded = values if pyarrow().types.is_dictionary(values.type) else values.dictionary_encode()
    labels = ["" if label is None else str(label) for label in coded.dictionary.to_pylist()]
    numbers = codes.encode(labels, len(labels))
    if coded.indices.null_count:
        numbers = np.append(numbers, np.int32(codes[""]))
    return numbers[coded.indices.fill_null(len(labels)).to_numpy(zero_copy_only=False)]


def _floats(values: Any) -> NDArray[np.float64]:
    arrow = pyarrow()
    values = values.dictionary_decode() if arrow.types.is_dictionary(values.type) else values
    values = values.cast(arrow.float64(), safe=False)
    return values.to_numpy(zero_copy_only=False).copy()
