"""Traces from and to files: this project's CSV, and the public Alibaba PAI mini-batch times."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stalewise import checks
from stalewise.errors import InputError
from stalewise.traces.trace import COLUMNS, Trace

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0}
_PAI = ("worker", "gpu", "time", "batch_time_norm")


def read_trace(path: str | Path, *, unit: str | None = None) -> Trace:
    """Read a log of delays.

    Args:
        path: This project's CSV (`worker,start,end` and optional `COLUMNS`), or a mini-batch-time file of the Alibaba
            PAI trace (`worker,gpu,time,batch_time_norm`; Weng et al., "MLaaS in the Wild", NSDI 2022).
        unit: Unit of the file's times: s, ms, us, ns or min. Default: s; for PAI ms, since its times are normalised
            (0 to 1000 per job) and have no absolute unit.

    Returns:
        The trace; `Trace.notes` tells what was assumed.

    Raises:
        InputError: The file is missing, empty, of an unknown format, or holds a wrong value; names row and column.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _parse(csv.reader(file), path.name, unit)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"trace file: {str(path)!r} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"trace file: {str(path)!r} is a folder, not a file") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"trace file: {str(path)!r} is not a CSV text file ({error})") from None
    except OSError as error:
        raise InputError(f"trace file: cannot read {str(path)!r}: {error.strerror}") from None


def _parse(rows: Iterable[list[str]], source: str, unit: str | None) -> Trace:
    rows = iter(rows)
    header = [name.strip() for name in next(rows, [])]
    if not header:
        raise InputError(f"{source}: the file is empty; a trace starts with a header such as worker,start,end")
    if unit is not None:
        checks.one_of("unit", unit, UNITS)
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{source}: column {twice[:40]!r} stands twice in the header")
    body = [row for row in rows if row]
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise InputError(f"{source}: data row {number} has {len(row)} values, the header has {len(header)}")
    if not body:
        raise InputError(f"{source}: no gradient in it; a trace needs at least one row")
    columns: dict[str, list[str]] = {name: [row[i] for row in body] for i, name in enumerate(header)}
    reader = _reader(header, source)
    return reader(columns, source, unit)


def _reader(header: list[str], source: str) -> Callable[[dict[str, list[str]], str, str | None], Trace]:
    if {"worker", "start", "end"} <= set(header):
        return _own
    if set(_PAI) <= set(header):
        return _pai
    raise InputError(
        f"{source}: unknown columns {', '.join(header[:8])[:80]!r}; known: worker,start,end (stalewise) and "
        "worker,gpu,time,batch_time_norm (Alibaba PAI)"
    )


def _own(columns: dict[str, list[str]], source: str, unit: str | None) -> Trace:
    scale = UNITS[unit or "s"]
    optional = {name: _numbers(columns, name, source, blank=True) for name in COLUMNS[3:] if name in columns}
    for name in ("compute", "download", "upload"):
        if name in optional:
            optional[name] = optional[name] * scale
    start = _numbers(columns, "start", source) * scale
    end = _numbers(columns, "end", source) * scale
    trace = Trace(_labels(columns, source), start, end, optional, (), source)
    order = np.argsort(end, kind="stable")
    ordered = {name: values[order] for name, values in optional.items()}
    return replace(trace, worker=trace.worker[order], start=start[order], end=end[order], optional=ordered)


def _pai(columns: dict[str, list[str]], source: str, unit: str | None) -> Trace:
    scale = UNITS[unit or "ms"]
    worker = _labels(columns, source)
    seen = _numbers(columns, "time", source)
    duration = _numbers(columns, "batch_time_norm", source) * scale
    bad = duration <= 0
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{source}: batch_time_norm must be positive, got {duration[row] / scale:g} in data row {row + 1}"
        )
    start = np.zeros(len(worker))
    for label in np.unique(worker):
        rows = np.flatnonzero(worker == label)
        rows = rows[np.argsort(seen[rows], kind="stable")]
        start[rows] = np.cumsum(duration[rows]) - duration[rows]
    note = (
        f"PAI mini-batch times are normalised per job: read as {unit or 'ms'}, one after the other for each worker "
        "(the file samples them about every tenth time unit)"
    )
    order = np.argsort(start + duration, kind="stable")
    return Trace(worker[order], start[order], (start + duration)[order], {}, (note,), source)


def _labels(columns: dict[str, list[str]], source: str) -> NDArray[np.str_]:
    labels = [label.strip() for label in columns["worker"]]
    if "" in labels:
        raise InputError(f"{source}: worker must be named, got a blank in data row {labels.index('') + 1}")
    return np.array(labels, np.str_)


def _numbers(columns: dict[str, list[str]], name: str, source: str, *, blank: bool = False) -> np.ndarray:
    values = np.empty(len(columns[name]))
    for row, text in enumerate(columns[name]):
        try:
            values[row] = np.nan if blank and not text.strip() else float(text)
        except ValueError:
            raise InputError(f"{source}: {name} must be a number, got {text!r} in data row {row + 1}") from None
        if not blank and not np.isfinite(values[row]):
            raise InputError(f"{source}: {name} must be a finite number, got {text!r} in data row {row + 1}")
    return values


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
