"""Traces from files: what is in a file is seen from its content, unless the caller says."""

import contextlib
import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stalewise import checks
from stalewise.errors import InputError
from stalewise.traces import bytedance, gradients, pai
from stalewise.traces.csv import CsvTable
from stalewise.traces.jsonl import JsonTable
from stalewise.traces.parquet import ParquetTable
from stalewise.traces.table import AbstractTable, listed
from stalewise.traces.trace import COLUMNS, Trace
from stalewise.traces.units import UNITS

_FILES: dict[str, Callable[[Path, dict[str, str]], AbstractTable]] = {
    "csv": CsvTable,
    "jsonl": JsonTable,
    "parquet": ParquetTable,
}


@dataclass(frozen=True)
class _Layout:
    """What columns mean: which it needs, and who reads them."""

    required: tuple[str, ...]
    read: Callable[[AbstractTable, str | None], Trace]
    called: str


_LAYOUTS = {
    "gradients": _Layout(gradients.REQUIRED, gradients.read_gradients, "stalewise"),
    "pai": _Layout(pai.REQUIRED, pai.read_pai, "Alibaba PAI"),
    "bytedance": _Layout(bytedance.REQUIRED, bytedance.read_bytedance, "ByteDance"),
}
FORMATS = (*_FILES, *_LAYOUTS, "steps")
_RENAMED = dict.fromkeys((*COLUMNS, *(name for layout in _LAYOUTS.values() for name in layout.required)))


def read_trace(
    path: str | Path,
    *,
    unit: str | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
) -> Trace:
    """Read a log of delays.

    Args:
        path: CSV, JSON Lines or Parquet, with this project's columns (`worker,start,end` and optional `COLUMNS`), with
            those of the Alibaba PAI or ByteDance traces, or with `step` and a column of times for each worker.
        unit: Unit of the file's times: s, ms, us, ns or min. Default: s; for PAI ms, since its times are normalised
            (0 to 1000 per job) and have no absolute unit.
        columns: Columns that go by another name in the file, ours to the file's: ``{"start": "begin_ts"}``.
        format: How the file is written (csv, jsonl, parquet) or what its columns mean (gradients, pai, bytedance,
            steps). Default: both are seen from its content.

    Returns:
        The trace, sorted by end; `Trace.notes` tells what was assumed and what was repaired. A gradient without an
        end is censored.

    Raises:
        InputError: The file is missing, empty, of an unknown format, or holds a wrong value; names row and column.
        MissingExtraError: Parquet needs the extra `parquet`.
    """
    path = Path(path)
    if unit is not None:
        checks.one_of("unit", unit, UNITS)
    if format is not None:
        checks.one_of("format", format, FORMATS)
    for name in columns or ():
        checks.one_of("columns", name, _RENAMED)
    with readable(path, "trace file"):
        table = open_table(path, dict(columns or {}), format if format in _FILES else None)
        return _reader(table, format)(table, unit)


def open_table(path: Path, columns: dict[str, str], kind: str | None = None) -> AbstractTable:
    """A CSV, JSON Lines or Parquet file as a table; which of them is seen from its first bytes unless given."""
    with path.open("rb") as file:
        head = file.read(4096)
    found = "jsonl" if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" else "csv"
    return _FILES[kind or ("parquet" if head.startswith(b"PAR1") else found)](path, columns)


@contextlib.contextmanager
def readable(path: Path, called: str) -> Iterator[None]:
    """Whatever goes wrong in reading a file, as one line."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{called}: {str(path)!r} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{called}: {str(path)!r} is a folder, not a file") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{called}: {str(path)!r} is not a CSV text file ({str(error)[:200]})") from None
    except OSError as error:
        raise InputError(f"{called}: cannot read {str(path)!r}: {error.strerror}") from None


def parse_columns(text: str) -> dict[str, str]:
    """Columns from ``start=begin_ts,end=done_ts``: ours to the file's.

    Raises:
        InputError: A part is not name=name, or a name stands twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not (ours and equals and theirs) or ours in found:
            raise InputError(f"columns must be like start=begin_ts,end=done_ts, each name once, got {text[:80]!r}")
        found[ours] = theirs
    return found


def _reader(table: AbstractTable, format: str | None) -> Callable[[AbstractTable, str | None], Trace]:
    if format in _LAYOUTS:
        missing = [name for name in _LAYOUTS[format].required if name not in table.names]
        if missing:
            raise InputError(
                f"{table.source}: format {format} needs {','.join(_LAYOUTS[format].required)}; "
                f"{missing[0]} is not among its columns, {listed(table.names)}"
            )
        return _LAYOUTS[format].read
    found = next((layout for layout in _LAYOUTS.values() if set(layout.required) <= set(table.names)), None)
    if found and format != "steps":
        return found.read
    workers = [name for name in table.names if name != "step"]
    if "step" in table.names and workers and (format == "steps" or all(name.isdecimal() for name in workers)):
        return bytedance.read_steps
    known = " and ".join(f"{','.join(layout.required)} ({layout.called})" for layout in _LAYOUTS.values())
    raise InputError(f"{table.source}: unknown columns {listed(table.names)}; known: {known}")
