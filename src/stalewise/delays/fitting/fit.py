"""`fit_delay`: laws, tests and warnings for a trace or a plain sample."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.delays.fitting.changes import Change, find_changes, segments
from stalewise.delays.fitting.dependence import autocorrelation, dependence
from stalewise.delays.fitting.families import FAMILIES, Family, shape_of
from stalewise.delays.fitting.goodness import Goodness, goodness_of_fit
from stalewise.delays.fitting.heterogeneity import heterogeneity
from stalewise.delays.fitting.outliers import find_outliers
from stalewise.delays.fitting.ranking import FOLDS, Candidate, Fold, rank_held_out, rank_laws
from stalewise.delays.fitting.result import DelayFit, WorkerFit
from stalewise.delays.laws import Constant
from stalewise.errors import InputError
from stalewise.traces import Trace

Array = NDArray[np.float64]

LEAST = 8
"""Fewer delays than this are not fitted."""
TESTED_WORKERS = 64
"""Laws of further workers are ranked by AIC alone and not tested: a worker takes 0.1 to 0.5 s."""
NOTHING = np.zeros(0)


class _Log(NamedTuple):
    """Delays of one worker in their order [s], when they began [s], and bounds of those that had not ended."""

    values: Array
    starts: Array
    censored: Array
    censored_starts: Array


class _Data(NamedTuple):
    name: str
    file: str | None
    logs: dict[str, _Log]
    silent: _Log
    staleness: NDArray[np.int64] | None
    notes: tuple[str, ...]


def fit_delay(source: Trace | ArrayLike, *, censored: ArrayLike = (), seed: int = 0) -> DelayFit:
    r"""Fit delay laws to a trace or to a plain sample, pooled and for each worker.

    Gradients still in flight when the log ended are right-censored: they enter the likelihood by the probability of
    lasting longer. Laws are ranked by the log-likelihood of held-out stretches of time, ties of 2 by AIC; only the
    constant is fitted where the coefficient of variation is below 1e-5 (its log-likelihood is then given as 0).

    The likelihood of a shifted gamma or lognormal has no bound as the shift nears the smallest delay, so the shift is
    held at or below :math:`\min x - (\bar x - \min x)/n`. That is the gap one expects between the end of a law with
    positive density there and the least of n draws; a sample cannot tell a shift nearer than that.

    Args:
        source: A trace (fitted pooled and per worker) or delays [s] in the order in which one worker took them.
        censored: With a plain sample: bounds [s] that further delays are known to exceed. A trace has its own.
        seed: Of the bootstrap behind the p-values and of the permutations that compare workers.

    Raises:
        InputError: Fewer than `LEAST` delays that ended, or one that is not positive and finite.

    Limits:
        The p-value takes delays to be independent. Bounds are taken to be set without regard to how long the gradient
        would have taken: true of a log's end, not of gradients cancelled because they were slow. Samples of more than
        5,000 delays are thinned for fitting (see `Sample.of`) and 1,000 of them are tested.

    Example:
        >>> import numpy as np
        >>> fit = fit_delay(np.random.default_rng(1).gamma(4.0, 0.25, 2000))
        >>> fit.law.mean, fit.goodness.p_value > 0.01
        (0.998424, True)
    """
    checks.at_least("seed", seed, 0)
    data = _read(source, censored)
    rng = np.random.default_rng(seed)
    logs = data.logs
    candidates = rank_held_out(_folds([*logs.values(), data.silent]))
    delays = np.sort(np.concatenate([log.values for log in logs.values()]))
    bounds = np.sort(np.concatenate([log.censored for log in (*logs.values(), data.silent)]))
    goodness = goodness_of_fit(candidates[0], delays, bounds, rng)
    changes = {label: find_changes(label, log.values, log.starts, workers=len(logs)) for label, log in logs.items()}
    alone = (candidates, goodness) if len(logs) == 1 and len(data.silent.censored) == 0 else None
    families = (*FAMILIES, shape_of(candidates[0].law))
    workers = {
        label: _worker(
            log, tuple(changes[label]), *(alone or _law(log, families, rng if place < TESTED_WORKERS else None))
        )
        for place, (label, log) in enumerate(logs.items())
    }
    sequences = [log.values for log in logs.values()]
    depend = dependence(sequences, [segments(logs[label].values, changes[label]) for label in logs])
    return DelayFit(
        source=data.name,
        candidates=candidates,
        goodness=goodness,
        mean=float(delays.mean()),
        cv=float(delays.std(ddof=1) / delays.mean()),
        count=len(delays),
        censored=len(bounds),
        workers=workers,
        dependence=depend,
        heterogeneity=heterogeneity(sequences, depend.memory, rng),
        changes=tuple(change for found in changes.values() for change in found),
        outliers=find_outliers(
            {label: log.values for label, log in logs.items()}, {label: log.starts for label, log in logs.items()}
        ),
        staleness=_staleness(data.staleness),
        file=data.file,
        notes=data.notes + _left_out(len(logs)),
        delays=delays,
    )


def _left_out(workers: int) -> tuple[str, ...]:
    if workers <= TESTED_WORKERS:
        return ()
    return (f"laws of workers after the first {TESTED_WORKERS} of {workers} are ranked by AIC alone and not tested",)


def _read(source: Trace | ArrayLike, censored: ArrayLike) -> _Data:
    if isinstance(source, Trace):
        if np.size(censored):
            raise InputError(
                "fit: censored goes with a plain sample; a trace says itself which gradients had not ended"
            )
        data = _Data(source.source, source.source, *_logs(source), source.staleness, source.notes)
    else:
        values, bounds = _numbers(source, "takes a trace or delays"), _numbers(censored, "censored takes bounds")
        log = _Log(values, np.cumsum(values) - values, bounds, np.full(len(bounds), np.inf))
        data = _Data("sample", None, {"all": log}, _Log(*[NOTHING] * 4), None, ())
    _check(data)
    return data


def _numbers(values: ArrayLike, what: str) -> Array:
    try:
        numbers = np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"fit: {what} in seconds, got {type(values).__name__}") from None
    if numbers.ndim != 1:
        raise InputError(f"fit: delays must be one sequence of numbers, got shape {numbers.shape}")
    return numbers


def _check(data: _Data) -> None:
    count = sum(len(log.values) for log in data.logs.values())
    if count < LEAST:
        raise InputError(f"fit: {data.name}: needs at least {LEAST} delays, got {count}")
    for log in data.logs.values():
        bad = ~(np.isfinite(log.values) & (log.values > 0))
        if bad.any():
            raise InputError(
                f"fit: {data.name}: every delay must be positive and finite, got {log.values[np.argmax(bad)]} seconds"
            )
        bad = ~(np.isfinite(log.censored) & (log.censored >= 0))
        if bad.any():
            raise InputError(
                f"fit: {data.name}: every bound must be finite, 0 or more, got {log.censored[np.argmax(bad)]} seconds"
            )


def _logs(trace: Trace) -> tuple[dict[str, _Log], _Log]:
    """Each worker's log, and one of the workers none of whose gradients ended."""
    lasting = np.flatnonzero(trace.censored)
    bounds, begun, labels = trace.end[lasting] - trace.start[lasting], trace.start[lasting], trace.worker[lasting]
    logs = {}
    for label, rows in trace.rows_by_worker().items():
        mine = labels == label
        logs[label] = _Log(trace.end[rows] - trace.start[rows], trace.start[rows], bounds[mine], begun[mine])
    silent = ~np.isin(labels, list(logs))
    return logs, _Log(NOTHING, NOTHING, bounds[silent], begun[silent])


def _folds(logs: list[_Log]) -> list[Fold]:
    """Blocks of time that hold equally many gradients of all workers."""
    starts = np.concatenate([log.starts for log in logs])
    values = np.concatenate([log.values for log in logs])
    bounds, begun = (
        np.concatenate([log.censored for log in logs]),
        np.concatenate([log.censored_starts for log in logs]),
    )
    edges = np.quantile(starts, np.arange(1, FOLDS) / FOLDS)
    block, censored_block = np.searchsorted(edges, starts, "right"), np.searchsorted(edges, begun, "right")
    return [Fold(values[block == k], bounds[censored_block == k]) for k in range(FOLDS)]


def _law(
    log: _Log, families: Sequence[Family], rng: np.random.Generator | None
) -> tuple[tuple[Candidate, ...], Goodness | None]:
    """One worker's laws, and the test of the best."""
    if len(log.values) < LEAST:
        return (), None
    if rng is None:
        return rank_laws(log.values, log.censored, families=families), None
    candidates = rank_held_out(_folds([log]), families=families)
    return candidates, goodness_of_fit(candidates[0], log.values, log.censored, rng)


def _worker(
    log: _Log, changes: tuple[Change, ...], candidates: tuple[Candidate, ...], goodness: Goodness | None
) -> WorkerFit:
    values, count = log.values, len(log.values)
    varies = bool(candidates) and not isinstance(candidates[0].law, Constant)
    mean = float(values.mean())
    return WorkerFit(
        candidates=candidates,
        goodness=goodness,
        mean=mean,
        cv=float(values.std(ddof=1)) / mean if count > 1 else None,
        count=count,
        censored=len(log.censored),
        autocorrelation=autocorrelation(values) if varies else None,
        changes=changes,
    )


def _staleness(values: NDArray[np.int64] | None) -> dict[str, float] | None:
    if values is None:
        return None
    return {
        "mean": float(values.mean()),
        "variance": float(values.var()),
        "p99": float(np.quantile(values, 0.99, method="inverted_cdf")),
        "max": float(values.max()),
        "count": len(values),
    }
