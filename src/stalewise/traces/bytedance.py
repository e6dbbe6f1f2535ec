"""Steps of a synchronous job: the public ByteDance traces of operations, and tables of seconds a step and worker."""

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.traces.repair import counted, repeats
from stalewise.traces.sequences import back_to_back
from stalewise.traces.table import AbstractTable, Labels
from stalewise.traces.trace import Trace
from stalewise.traces.units import UNITS

REQUIRED = ("dp_rank", "stage", "step", "optype", "start_ts", "duration")
_MORE = ("rank", "seq_id", "mc", "mb_id", "gmc")
_NOTE = (
    "ByteDance operations: a gradient is one step of one data-parallel rank, its delay the compute time of the busiest "
    "pipeline stage; communication, optimiser and waiting are left out; one after the other for each worker, since the "
    "file's clock starts anew with every step"
)


def read_bytedance(table: AbstractTable, unit: str | None) -> Trace:
    r"""Operations of a data- and pipeline-parallel job; the data-parallel ranks are the workers.

    The delay of a rank's step is :math:`\max_{stage} \sum duration` over its forward- and backward-compute operations:
    what it would take without waiting for others. Times are seconds unless ``unit`` is given.

    Raises:
        InputError: A value is no number, a duration is negative, or no compute operation is in it.

    Source:
        github.com/ByteDance-Seed/StragglerAnalysis, data; Lin et al., "Understanding Stragglers in Large Model Training
        Using What-if Analysis", OSDI 2025.
    """
    columns = table.read(("dp_rank", "optype"), ("stage", "step", "start_ts", "duration"), _MORE)
    for name in ("stage", "step", "start_ts", "duration"):
        table.finite(columns, name)
    if (columns.numbers["duration"] < 0).any():
        row = int(np.argmax(columns.numbers["duration"] < 0))
        shown = table.cell(row, table.renamed.get("duration", "duration"))
        raise table.wrong("duration", shown, row, "zero or more")
    optype, notes = columns.texts["optype"], [_NOTE]
    compute = np.array([name.endswith("-compute") for name in optype.names])[optype.codes]
    if not compute.any():
        raise InputError(f"{table.source}: no optype ends in -compute, as forward-compute and backward-compute do")
    rows = np.flatnonzero(compute)
    rank, values = columns.texts["dp_rank"][rows], {name: v[rows] for name, v in columns.numbers.items()}
    keep = _first_of_equals((rank.codes, optype.codes[rows], *values.values()))
    if len(keep) < len(rows):
        notes.append(f"{counted(len(rows) - len(keep), 'compute row')} the same as another in every column: removed")
    rank, values = rank[keep], {name: v[keep] for name, v in values.items()}
    by_stage = _summed((values["step"], rank.codes, values["stage"]), values["duration"])
    (step, code, _), seconds = by_stage
    order = np.lexsort((seconds, step, code))
    last = np.append((np.diff(code[order]) != 0) | (np.diff(step[order]) != 0), True)
    chosen = order[last]
    return _steps(table, Labels(rank.names, code[chosen].astype(np.int32)), seconds[chosen], notes, unit)


def read_steps(table: AbstractTable, unit: str | None) -> Trace:
    """A table of times: `step`, then one column a worker. A blank is a step in which that worker had no part."""
    workers = [name for name in table.names if name != "step"]
    numbers = table.read((), workers).numbers
    seconds = np.stack([numbers[name] for name in workers], axis=1)
    bad = ~(np.isnan(seconds) | (np.isfinite(seconds) & (seconds > 0)))
    if bad.any():
        row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
        raise table.wrong(workers[column], table.cell(int(row), workers[column]), int(row), "positive and finite")
    codes = np.broadcast_to(np.arange(len(workers), dtype=np.int32), seconds.shape)[~np.isnan(seconds)]
    notes = ["a table of times a step and worker: one after the other for each worker"]
    return _steps(table, Labels(workers, codes), seconds[~np.isnan(seconds)], notes, unit)


def _steps(
    table: AbstractTable, worker: Labels, times: NDArray[np.float64], notes: list[str], unit: str | None
) -> Trace:
    idle = times <= 0
    if idle.any():
        notes.append(f"{counted(int(idle.sum()), 'step')} without compute time: left out")
        worker, times = worker[~idle], times[~idle]
    counts = np.bincount(worker.codes, minlength=len(worker.names))
    if len(counts) and counts.min() < counts.max():
        notes.append(f"workers have between {counts.min()} and {counts.max()} steps: some are missing")
    return back_to_back(table.source, worker, times * UNITS[unit or "s"], tuple(notes), unit_given=unit is not None)


def _first_of_equals(keys: tuple[NDArray, ...]) -> NDArray[np.intp]:
    order = np.lexsort(keys)
    same = np.logical_and.reduce([repeats(key[order]) for key in keys])
    return np.sort(order[~same])


def _summed(keys: tuple[NDArray, ...], values: NDArray) -> tuple[list[NDArray], NDArray]:
    """Sums of ``values`` over rows with equal keys, and those keys."""
    order = np.lexsort(keys)
    new = ~np.logical_and.reduce([repeats(key[order]) for key in keys])
    firsts = np.flatnonzero(new)
    return [key[order][firsts] for key in keys], np.add.reduceat(values[order], firsts)
