"""Delays without a clock: each worker's set one after the other."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stalewise.traces.repair import Log, check_units
from stalewise.traces.table import Labels
from stalewise.traces.trace import Trace, grouped


def back_to_back(
    source: str, worker: Labels, duration: NDArray[np.float64], notes: tuple[str, ...], *, unit_given: bool
) -> Trace:
    """A trace in which every worker starts at 0 and computes without a pause, in the order of its rows.

    Raises:
        InputError: Delays of one worker come in two units (see `repair.check_units`).
    """
    by_worker = grouped(worker.codes)
    ends = np.searchsorted(worker.codes[by_worker], np.arange(len(worker.names) + 1))
    start = np.empty(len(duration))
    for first, last in pairwise(ends):
        rows = by_worker[first:last]
        start[rows] = np.cumsum(duration[rows]) - duration[rows]
    log = check_units(Log(source, worker, start, start + duration, {}, notes), unit_given=unit_given)
    log = log.rows(np.argsort(log.end, kind="stable"))
    return Trace(log.worker.as_strings(), log.start, log.end, {}, log.notes, source)
