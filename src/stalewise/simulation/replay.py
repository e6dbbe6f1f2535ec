"""A recorded run again: the order in which gradients arrived, decided and computed anew, bit for bit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.protocol import Deliveries, Drop, Expire, Step, Tally
from stalewise.simulation.loop import RecordedCluster
from stalewise.simulation.network import NetworkRun, advance
from stalewise.study import Study
from stalewise.traces import Trace
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network


class Replayed(NamedTuple):
    """How a recorded run goes.

    Attributes:
        parameters: Where it ends, shape (size,).
        time: Times of record [s], see `NetworkRun`.
        loss: Training loss at those times.
        tally: What became of every gradient.
    """

    parameters: np.ndarray
    time: list[float]
    loss: list[float]
    tally: Tally


def replay(study: Study, trace: Trace, *, seed: int = 0, network: "Network | None" = None) -> Replayed:
    """Run a study with its gradients arriving in the order of a trace of it.

    The server decides as always, so that the trace's versions are not needed; where it has them, they must be what the
    server says. Gradients are computed one by one, bit for bit as a worker does with as many threads.

    Args:
        study: The study whose run wrote the trace.
        trace: One row a gradient, ``end`` being when the server took it in; rows without an end never arrived.
        seed: The run's.
        network: What it trains, if it is loaded already.

    Raises:
        InputError: The trace is not this study's: workers it has not, arrivals from workers that have nothing in
            flight, other versions; or its steps took a trainer's time.

    Limits:
        No gradient may have been lost to a dead worker: the protocol hears of that in a real run alone.
    """
    if network is None:
        network, study = open_network(study)
    arrived = np.flatnonzero(~trace.censored)  # in the order of their ends, equal ends as they stand
    workers = [_number(label, study, trace.source) for label in trace.worker[arrived]]
    if study.rules().trigger == 0:
        _check_versions(study, workers, {name: values[arrived] for name, values in trace.optional.items()})
    times = trace.end[arrived] - trace.start.min()
    run = NetworkRun(study, network, seed, network.start(seed), list(zip(times.tolist(), workers, strict=True)))
    advance([run], float(times[-1]), exactly=True)
    return Replayed(run.parameters, run.time, run.loss, run.server.tally)


def _number(label: str, study: Study, source: str) -> int:
    if not label.isdecimal() or int(label) >= study.active_workers:
        last = study.active_workers - 1
        raise InputError(f"{source}: worker must be 0 to {last}, as the study has them, got {str(label)[:40]!r}")
    return int(label)


def _check_versions(study: Study, workers: Sequence[int], told: dict[str, NDArray[np.float64]]) -> None:
    """Refuse a trace whose versions are not those of the study's server."""
    found = versions(study, workers)
    for name, ours in zip(("pulled_version", "applied_version"), found, strict=True):
        theirs = told.get(name, np.full(len(ours), np.nan))
        if np.isnan(theirs).all():
            continue
        blank = np.isnan(theirs) & (np.isnan(ours) | (name == "pulled_version"))
        wrong = np.flatnonzero(~blank & (theirs != ours))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{name} of arrival {row + 1}, of worker {workers[row]}, must be {ours[row]:g} under the study's "
                f"policy, got {theirs[row]:g}: is this the study's trace, and was no gradient lost?"
            )


def versions(study: Study, workers: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Versions that arriving gradients were pulled at and applied to, NaN where never; each of shape (arrivals,).

    Args:
        study: Its policy decides.
        workers: Whose gradients arrive, one after the other.

    Raises:
        InputError: A worker delivers that has nothing in flight, or the study's steps take a trainer's time.
    """
    server = study.server()
    rows: Deliveries[int] = Deliveries()
    pulled, applied = np.full((2, len(workers)), np.nan)
    cluster = RecordedCluster(server, [(float(row), worker) for row, worker in enumerate(workers)])
    for row, worker in enumerate(workers):
        pulled[row] = server.reading.get(worker, np.nan)
        _, _, instructions = next(cluster)
        rows.add(worker, row)
        for instruction in instructions:
            match instruction:
                case Drop():
                    rows.last(worker)
                case Expire(worker=whose):
                    rows.oldest(whose)
                case Step() as step:
                    applied[rows.used(step)] = step.version - 1
    return pulled, applied
