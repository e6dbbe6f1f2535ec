r"""Staleness under a bound: what is dropped on arrival, or stopped as soon as it is too old."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from stalewise.delays import AbstractDelay
from stalewise.staleness.law import StalenessLaw
from stalewise.staleness.renewal import TAIL, convolution, finest, hat_weights
from stalewise.staleness.sums import moments, sum_laws

Array = NDArray[np.float64]
ROUNDS = 60
TIMES = 500


@dataclass(frozen=True, eq=False)
class Bounded:
    """Fully asynchronous SGD that applies no gradient older than a bound.

    Attributes:
        rate: Updates a second.
        acceptance: Share of the gradients begun that are applied.
        staleness: Of an applied gradient.
        delay_mean, delay_variance: Of an applied gradient's own delay [s], [s^2].
        growth: Variance of the updates a second, feedback left out [1/s].
    """

    rate: float
    acceptance: float
    staleness: StalenessLaw
    delay_mean: float
    delay_variance: float
    growth: float


@dataclass(frozen=True, eq=False)
class _Worker:
    """One worker's cycles on the grid: it goes on working for t with chance ``survival``, and ends them there."""

    survival: Array
    accepted: Array
    rejected: Array
    cycle: float


@functools.lru_cache(maxsize=64)
def bounded(delay: AbstractDelay, workers: int, bound: int, *, cancel: bool = False) -> Bounded:
    r"""Fixed point for bounds kept by ``drop`` or ``cancel``.

    With a(t) the chance that a gradient t old is no more than B updates stale: others' gradients arrive as stationary
    renewal processes whose arrivals count with chance a(own delay), so the updates during t are a sum of N - 1 such
    counts, and a(t) is the chance that this sum is at most B. ``drop``: cycles last D. ``cancel``: they last
    min(D, tau), tau the time of the (B + 1)-th update of others, and end accepted if D comes first. Solved by damped
    iteration, from a step at B mean ages.

    Constant delays are exact: the same min(B + 1, N) gradients are applied in every cycle, all of the same staleness.

    Limits:
        Who is dropped now was overtaken by the others, so they are not dropped: such feedback between workers is left
        out. See `stalewise.staleness.arrivals` for the errors measured.
    """
    if delay.cv < 1e-12:
        used = min(bound + 1, workers)
        pmf = np.zeros(used)
        pmf[-1] = 1.0
        law = StalenessLaw(pmf, "exact: constant delays")
        return Bounded(used / delay.mean, used / workers, law, delay.mean, 0.0, 0.0)
    step = finest(delay)
    reach = 12 * (bound + 1) * delay.mean / max(workers - 1, 1) + 6 * delay.mean
    points = math.ceil(min(float(delay.quantile(1.0 - TAIL)), reach) / step) + 2
    time = np.asarray(np.arange(points) * step, np.float64)
    weights = hat_weights(delay, step, len(time))
    rows = np.unique(np.round(np.linspace(0, len(time) - 1, min(len(time), TIMES))).astype(int))
    fresh = np.where(time > 1.2 * (bound + 1) * delay.mean / max(workers - 1, 1), 0.0, 1.0)
    share, laws = 0.0, np.zeros((len(rows), bound + 1))
    for turn in range(ROUNDS):
        worker = _worker(delay, time, weights, fresh, cancel)
        table = _counts(worker, step)
        laws = (
            sum_laws([(table[rows], workers - 1)], bound + 1)
            if workers > 1
            else np.eye(1, bound + 1) + 0 * rows[:, None]
        )
        said = np.interp(time, time[rows], np.minimum(laws.sum(axis=1), 1.0))
        fresh = said if turn == 0 else 0.5 * (fresh + said)
        before, share = share, float(weights @ fresh)
        if abs(share - before) < 1e-6:
            break
    return _result(_worker(delay, time, weights, fresh, cancel), workers, time, rows, weights, laws)


def _laws(table: Array, others: int, bound: int) -> Array:
    """P(sum of the others' counts = k) for k up to the bound, at times where it may be as low."""
    mean, deviation = moments([(table, others)])
    low = int(np.searchsorted(mean - 9.0 * deviation - 9.0, bound))
    laws = np.zeros((len(table), bound + 1))
    laws[:low] = sum_laws([(table[:low], others)], bound + 1)
    return laws


def _result(
    worker: _Worker, workers: int, time: Array, rows: NDArray[np.int64], weights: Array, laws: Array
) -> Bounded:
    place = np.interp(time, time[rows], np.arange(len(rows)))
    low = np.minimum(place.astype(np.int64), len(rows) - 2)
    shared = np.bincount(low, weights * (low + 1 - place), len(rows)) + np.bincount(
        low + 1, weights * (place - low), len(rows)
    )
    pmf = shared @ laws
    kept, lost = worker.accepted, worker.rejected
    share = float(kept.sum())
    age = float(kept @ time) / share
    rate = share / worker.cycle
    spread = float(kept @ (1.0 - rate * time) ** 2 + lost @ (rate * time) ** 2) / worker.cycle
    return Bounded(
        rate=workers * rate,
        acceptance=share,
        staleness=StalenessLaw(pmf / pmf.sum(), "renewal counts, fixed point of the share applied"),
        delay_mean=age,
        delay_variance=float(kept @ (time - age) ** 2) / share,
        growth=workers * spread,
    )


def _worker(delay: AbstractDelay, time: Array, weights: Array, fresh: Array, cancel: bool) -> _Worker:
    survival = 1.0 - np.asarray(delay.cdf(time))
    if not cancel:
        return _Worker(survival, weights * fresh, weights * (1.0 - fresh), delay.mean)
    at_work = 0.5 * (survival + np.append(survival[1:], 0.0))
    stopped = np.maximum(-np.diff(fresh, append=0.0), 0.0) * at_work
    rejected = 0.5 * (stopped + np.concatenate([[0.0], stopped[:-1]]))
    total = float((weights * fresh).sum() + rejected.sum())
    accepted, rejected = weights * fresh / total, rejected / total
    return _Worker(survival * fresh, accepted, rejected, float((accepted + rejected) @ time))


def _counts(worker: _Worker, step: float) -> Array:
    """P(n gradients accepted within t, from a random moment), shape (times, counts)."""
    accepted, rejected = worker.accepted, worker.rejected
    points = len(accepted)
    impulse = np.eye(1, points)[0]
    resolvent = np.asarray(signal.lfilter([1.0], np.concatenate([[1.0 - rejected[0]], -rejected[1:]]), impulse))

    resolved, then = convolution(resolvent), convolution(accepted)
    fresh = [np.clip(resolved(worker.survival - 0.5 * rejected), 0.0, 1.0)]
    fresh[0][0] = 1.0
    while fresh[-1].max() > 1e-8 and len(fresh) < 4096:
        half = 0.5 * fresh[-1][0] * accepted  # where the chance jumps at 0, the last weight counts half
        fresh.append(np.clip(resolved(then(fresh[-1]) - half), 0.0, 1.0))
        fresh[-1][0] = 0.0

    def until(weights: Array, beyond: float) -> Array:
        """Density x step of the time to the end of the cycle under way."""
        return (np.cumsum(weights[::-1])[::-1] - 0.5 * weights + beyond) * (step / worker.cycle)

    def from_now(density: Array, chances: Array) -> Array:
        return convolution(density)(chances) - 0.5 * density[0] * chances - 0.5 * density * chances[:, :1]

    good, bad = until(accepted, 0.0), until(rejected, max(1.0 - float((accepted + rejected).sum()), 0.0))
    both = good + bad
    still = 1.0 - np.concatenate([[0.0], np.cumsum(0.5 * (both[1:] + both[:-1]))])
    counted = np.array(fresh)
    columns = from_now(bad, counted)
    columns[0] += still
    columns[1:] += from_now(good, counted[:-1])
    table = np.clip(columns.T, 0.0, 1.0)
    return table / table.sum(axis=1, keepdims=True)
