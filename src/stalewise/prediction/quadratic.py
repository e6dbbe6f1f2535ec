"""The mathematics of a quadratic study: loss against time, limits, floor and settling time."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise.dynamics import (
    decay_along,
    decay_rate,
    dispersion,
    jitter_weight,
    learning_rate_at,
    memoryless_second_moment,
    stationary_variance,
    step_limit,
    transient,
)
from stalewise.staleness import Arrivals, arrivals, has_formula, poisson_error
from stalewise.study import Study
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory, settling_time

Array = NDArray[np.float64]
POINTS = 800
MOST_UPDATES = 1 << 21  # solved one by one
SOLVED_UPDATES = 1 << 14  # from here on slow modes go on as exponentials
ALONG = 0.25  # of the limit, from where on a mode's second moment is followed along a recorded path
POISSON_NOTED = 256  # workers up to which the note on Poisson arrivals is worth its time, half a second at most
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Modes:
    """Curvature modes of a study, equal curvatures taken together, as seen by one step of its arrivals.

    Attributes:
        curvature: Distinct eigenvalues, shape (modes,).
        step: h = learning rate x curvature x updates counted as one, shape (modes,); of several local steps what they
            send takes the curvature's place. Not positive where local steps diverge by themselves.
        noise: Variance of one step's noise in x, summed over equal curvatures, shape (modes,).
        square: Squared starting distance, summed likewise, shape (modes,).
    """

    curvature: Array
    step: Array
    noise: Array
    square: Array


def modes_of(study: Study, timing: Arrivals) -> Modes:
    """Collect a quadratic's modes; noise is learning rate^2 x variance / (batch x gradients a step) for each update."""
    eigenvalues, variance, start = study.workload.modes()
    curvature, which = np.unique(eigenvalues, return_inverse=True)
    pull, noisier = study.pull(curvature)
    scale = study.learning_rate**2 / (study.batch_size * timing.gradients_a_step) * timing.block * timing.weight_square
    measured = dispersion(timing)
    if measured is not None:
        scale *= measured.noise
    step = study.learning_rate * pull * timing.block * timing.weight_mean
    noise = np.asarray(np.bincount(which, variance) * scale * noisier, np.float64)
    return Modes(curvature, step, noise, np.asarray(np.bincount(which, start**2), np.float64))


def predict_quadratic(study: Study, *, seed: int = 0) -> Trajectory:
    """Predict a quadratic study; see `stalewise.prediction.predict`."""
    fine = arrivals(study, seed=seed)
    timing = fine.coarse
    modes = modes_of(study, timing)
    steps = modes.step
    limit = step_limit(timing)
    contracts = bool(steps.min() > 0)
    mean_stable = contracts and bool(steps.max() < limit.mean)
    square_stable = contracts and bool(steps.max() < limit.mean_square)
    floor = _floor(modes, timing) if square_stable else math.inf
    most = learning_rate_at(limit.mean_square, modes.curvature.max(), timing, study.schedule.local_steps)
    rates = [decay_rate(h, timing) for h in steps] if mean_stable else [None]
    slowest = min((r for r in rates if r is not None), default=None)
    curve = _curve(study, timing, modes, floor, _weights(timing), study.target.time_limit or math.inf)
    reached = _reached(study, curve, floor) if square_stable else TargetTime()
    loss = curve.loss
    finite = np.isfinite(loss).all(axis=0) & (loss[0] < 1e12 * max(loss[0, 0], 1e-300))
    length = int(np.argmin(finite)) if not finite.all() else len(finite)
    end = float(curve.updates[length - 1]) * timing.block
    applied = end * timing.gradients_a_step
    dropped = applied * (1.0 / timing.acceptance - 1.0)
    return Trajectory(
        engine="predict",
        study=study.as_dict(),
        seed=seed,
        time=curve.time[:length].tolist(),
        updates=(curve.updates[:length] * timing.block).tolist(),
        loss=loss[0, :length].tolist(),
        loss_low=loss[1, :length].tolist() if len(loss) > 1 else None,
        loss_high=loss[2, :length].tolist() if len(loss) > 1 else None,
        update_rate=fine.rate,
        staleness=StalenessSummary.from_counts(fine.observed.pmf),
        delay=DelaySummary(mean=timing.delay_mean, cv=timing.delay_cv),
        gradients=Gradients(
            computed=applied + dropped + study.active_workers,
            applied=applied,
            dropped=dropped,
            in_flight=study.active_workers,
        ),
        mean_stable=mean_stable,
        mean_square_stable=square_stable,
        decay_rate=slowest,
        noise_floor=floor if math.isfinite(floor) else None,
        time_to_target=reached,
        status=_status(study, most, floor, reached, float(curve.time[-1])),
        notes=[f"staleness: {timing.staleness.method}", f"limit: {limit.method}", *_poisson_note(study)],
    )


def _poisson_note(study: Study) -> list[str]:
    """Whether Poisson arrivals would have done, where every gradient is applied as it comes."""
    delay, workers = study.workers().law, study.active_workers
    plain = study.policy == "async" and study.schedule.max_staleness is None and study.cluster.service_law().mean == 0
    if not plain or delay is None or not has_formula(delay) or not 2 <= workers <= POISSON_NOTED:
        return []
    return [poisson_error(delay, workers).sentence]


def settling(study: Study, timing: Arrivals, *, longest: float = math.inf) -> tuple[float, float]:
    """Settling time [s] and noise floor alone, for a search; infinite where unstable or out of reach.

    Args:
        study: A quadratic study with a learning rate.
        timing: Its arrivals, which do not depend on the learning rate.
        longest: Times beyond this need not be resolved [s].
    """
    timing = timing.coarse
    modes = modes_of(study, timing)
    steps = modes.step
    if steps.max() >= step_limit(timing).mean_square or steps.min() <= 0:
        return math.inf, math.inf
    floor = _floor(modes, timing)
    if floor >= study.target.loss:
        return math.inf, floor
    curve = _curve(study, timing, modes, floor, _weights(timing)[:1], longest)
    time = settling_time(curve.time, curve.loss[0], study.target.loss)
    return (math.inf if time is None else time), floor


def noise_floor(study: Study, timing: Arrivals) -> float:
    """Mean loss of a quadratic study in the long run; infinite where it is not mean-square stable."""
    return _floor(modes_of(study, timing.coarse), timing.coarse)


def _floor(modes: Modes, timing: Arrivals) -> float:
    """Mean loss in the long run."""
    variance = [stationary_variance(h, v, timing) for h, v in zip(modes.step, modes.noise, strict=True)]
    return float(0.5 * modes.curvature @ np.array(variance))


@dataclass(frozen=True)
class _Curve:
    """Time, expected updates, and loss: the estimate, and beside it without and with full staleness noise."""

    time: Array
    updates: Array
    loss: Array


def _curve(
    study: Study, timing: Arrivals, modes: Modes, floor: float, weights: list[float | None], longest: float
) -> _Curve:
    target = study.target.loss
    reachable = floor < target
    memory = len(timing.staleness.pmf)
    slow = (6.0 if modes.noise.max() > 0 or not reachable else 2.0) / modes.step.min()
    enough = int(min(max(1000.0 * (timing.staleness.mean + 1.0), 4 * memory, SOLVED_UPDATES), MOST_UPDATES))
    updates = int(min(max(8 * memory, slow, 64), enough))
    if not math.isfinite(floor):
        updates = int(min(max(40 * (timing.staleness.mean + 1), 64), MOST_UPDATES))
    while True:
        solved = [_solve(modes, timing, weight, updates) for weight in weights]
        index, table = np.arange(updates + 1.0), np.array([loss for loss, _ in solved])
        last = np.flatnonzero(~(table[0] <= target))
        resolved = len(last) == 0 or last[-1] < 0.6 * updates
        if resolved or not reachable or updates >= MOST_UPDATES or _time_of(timing, updates) >= longest:
            break
        if updates >= enough and all(tail.exponential(1e-4 * (target - floor)) for tail in solved[0][1]):
            index, table = _continue(index, table, [tails for _, tails in solved], longest * timing.rate)
            break
        updates = min(2 * updates, enough if updates < enough else MOST_UPDATES)
    end = min(_time_of(timing, float(index[-1])), longest)
    last = np.flatnonzero(~(table[0] <= target))
    if reachable and len(last) and index[last[-1]] < 0.6 * index[-1]:
        end = min(end, _time_of(timing, float(index[last[-1] + 1])) * 1.6)
    time = np.linspace(0.0, end, POINTS)
    mean, variance = timing.counts(time)
    nodes = np.clip(mean[:, None] + np.sqrt(variance)[:, None] * _NODES, 0.0, index[-1])
    loss = np.array([np.interp(nodes, index, row) @ _WEIGHTS for row in table])
    return _Curve(time, np.minimum(mean, index[-1]), loss)


def _weights(timing: Arrivals) -> list[float | None]:
    """Estimate (None), then none and all of the staleness jitter as noise; one entry where it is exact or measured."""
    exact = timing.memoryless or timing.delay_cv < 1e-9 or len(timing.staleness.pmf) == 1
    return [None] if exact or dispersion(timing) is not None else [None, 0.0, 1.0 / timing.block]


@dataclass(frozen=True)
class _Tail:
    """How a mode's loss goes on: level + excess x exp(-rate x further updates); rate NaN if it is not like that."""

    level: float
    excess: float
    rate: float

    @classmethod
    def of(cls, loss: Array, level: float) -> "_Tail":
        """From the last half: an exponential has the same rate in both its quarters, to one in a thousand.

        A loss that changes by less than 1e-9 in a quarter is lost in rounding.
        """
        quarter = len(loss) // 4
        third, fourth, last = loss[-1 - 2 * quarter] - level, loss[-1 - quarter] - level, loss[-1] - level
        with np.errstate(all="ignore"):
            early, late = np.log(third / fourth) / quarter, np.log(fourth / last) / quarter
        good = early * quarter > 1e-9 and abs(late - early) <= 1e-3 * early
        return cls(level, float(last), float(late) if good else math.nan)

    def exponential(self, negligible: float) -> bool:
        """Whether it goes on as an exponential, or has less than ``negligible`` left."""
        return math.isfinite(self.rate) or abs(self.excess) < negligible

    def at(self, further: Array) -> Array:
        """Loss of the mode so many updates on."""
        return self.level + self.excess * np.exp(-(self.rate if math.isfinite(self.rate) else 0.0) * further)


def _solve(modes: Modes, timing: Arrivals, weight: float | None, updates: int) -> tuple[Array, list[_Tail]]:
    """Mean loss after 0, 1, ..., ``updates`` updates, and how each mode goes on from there."""
    total, tails = np.zeros(updates + 1), []
    workers = round(timing.staleness.mean) + 1
    for curvature, h, noise, square in zip(modes.curvature, modes.step, modes.noise, modes.square, strict=True):
        if timing.memoryless:
            second = memoryless_second_moment(h, noise, math.sqrt(square), workers, updates)
        else:
            second = _second_moment(h, noise, square, timing, weight, updates)
        loss = 0.5 * curvature * second
        level = 0.5 * curvature * stationary_variance(h, noise, timing, weight=weight) if noise > 0 else 0.0
        tails.append(_Tail.of(loss, level))
        total += loss
    return total, tails


def _second_moment(
    h: float, noise: float, square: float, timing: Arrivals, weight: float | None, updates: int
) -> Array:
    """Of one mode, along the path of the arrivals where it is measured and much depends on it."""
    measured = dispersion(timing) if weight is None else None
    share = jitter_weight(h, timing) if weight is None else weight
    start = math.sqrt(square)
    if measured is None or h < ALONG * measured.limit or h >= measured.limit:
        return transient(h, noise, start, timing.staleness, share, updates).second
    return transient(h, noise, 0.0, timing.staleness, share, updates).second + square * decay_along(h, timing, updates)


def _continue(index: Array, table: Array, tails: list[list[_Tail]], longest: float) -> tuple[Array, Array]:
    """Go on by exponentials, at indices each 0.2 % above the one before, until nothing is left of them."""
    rates = [tail.rate for tail in tails[0] if math.isfinite(tail.rate)]
    end = min(index[-1] + 80.0 / min(rates), max(longest, 2.0 * index[-1]))
    further = np.geomspace(index[-1], end, 2 + int(500 * math.log(end / index[-1])))[1:]
    rows = [sum(tail.at(further - index[-1]) for tail in row) for row in tails]
    return np.concatenate([index, further]), np.concatenate([table, np.array(rows)], axis=1)


def _time_of(timing: Arrivals, updates: float) -> float:
    """Time by which that many updates are expected [s]."""
    time = updates / timing.rate
    mean, _ = timing.counts(np.array([time]))
    return time + max(updates - float(mean[0]), 0.0) / timing.rate


def _reached(study: Study, curve: _Curve, floor: float) -> TargetTime:
    if floor >= study.target.loss:
        return TargetTime()
    times = [settling_time(curve.time, row, study.target.loss) for row in curve.loss]
    if times[0] is None or len(times) == 1:
        return TargetTime(mean=times[0])
    known = [t for t in times if t is not None]
    return TargetTime(mean=times[0], low=min(known), high=max(known) if len(known) == len(times) else None)


def _status(study: Study, most: float, floor: float, reached: TargetTime, end: float) -> str:
    rate, target = study.learning_rate, study.target.loss
    if not math.isfinite(floor):
        return f"diverges: learning rate {rate:g} is past the mean-square limit {most:.4g}"
    if reached.mean is not None:
        return f"reaches loss {target:g} after {reached.mean:.4g} s and stays below"
    if floor >= target:
        return f"never settles below {target:g}: gradient noise holds the mean loss at {floor:.4g}"
    return f"has not settled below {target:g} within {end:.4g} s; given longer it will, its floor is {floor:.4g}"
