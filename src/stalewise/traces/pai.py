"""Mini-batch times of the public Alibaba PAI trace."""

import numpy as np

from stalewise.errors import InputError
from stalewise.traces.repair import counted, repeats
from stalewise.traces.sequences import back_to_back
from stalewise.traces.table import AbstractTable
from stalewise.traces.trace import Trace
from stalewise.traces.units import UNITS

REQUIRED = ("worker", "gpu", "time", "batch_time_norm")


def read_pai(table: AbstractTable, unit: str | None) -> Trace:
    """`worker,gpu,time,batch_time_norm`: times normalised to 0 to 1000 a job, read as ms unless ``unit`` is given.

    Source:
        github.com/alibaba/clusterdata, cluster-trace-gpu-v2020; Weng et al., "MLaaS in the Wild", NSDI 2022.
    """
    scale = UNITS[unit or "ms"]
    columns = table.read(("worker",), ("time", "batch_time_norm"))
    worker, seen = columns.texts["worker"], table.finite(columns, "time")
    duration = table.finite(columns, "batch_time_norm") * scale
    bad = duration <= 0
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{table.source}: batch_time_norm must be positive, got {duration[row] / scale:g} in data row {row + 1}"
        )
    notes = [
        f"PAI mini-batch times are normalised per job: read as {unit or 'ms'}, one after the other for each worker "
        "(the file samples them about every tenth time unit)"
    ]
    order = np.lexsort((seen, worker.codes))
    keys = (worker.codes[order], seen[order], duration[order])
    copies = np.logical_and.reduce([repeats(key) for key in keys])
    if copies.any():
        notes.append(f"{counted(int(copies.sum()))} the same as another in worker, time and batch_time_norm: removed")
        order = order[~copies]
    return back_to_back(table.source, worker[order], duration[order], tuple(notes), unit_given=unit is not None)
