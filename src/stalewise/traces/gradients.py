"""This project's own columns: one row a gradient, with its start and its end."""

import numpy as np

from stalewise.traces.repair import Log, repaired
from stalewise.traces.table import AbstractTable
from stalewise.traces.trace import COLUMNS, Trace, check_rows
from stalewise.traces.units import UNITS

REQUIRED = ("worker", "start", "end")
OPTIONAL = COLUMNS[3:]
_TIMES = ("compute", "download", "upload")


def read_gradients(table: AbstractTable, unit: str | None) -> Trace:
    """`worker,start,end` and what else of `COLUMNS` there is; a blank or NaN ``end`` had not ended."""
    scale = UNITS[unit or "s"]
    columns = table.read(("worker",), ("start", "end"), OPTIONAL)
    optional = {name: columns.numbers[name] for name in OPTIONAL if name in columns.numbers}
    optional = {name: values * scale if name in _TIMES else values for name, values in optional.items()}
    start, end = table.finite(columns, "start") * scale, columns.numbers["end"]
    if np.isinf(end).any():
        row = int(np.argmax(np.isinf(end)))
        raise table.wrong("end", table.cell(row, table.renamed.get("end", "end")), row, "a finite number")
    end = end * scale
    missing = np.isnan(end)
    check_rows(table.source, len(start), start, np.where(missing, start, end), optional, missing)
    return repaired(Log(table.source, columns.texts["worker"], start, end, optional), unit_given=unit is not None)
