"""The mathematics of a quadratic study: loss against time, limits, floor and settling time."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from stalewise.dynamics import (
    Inertia,
    decay_along,
    decay_rate,
    dispersion,
    jitter_weight,
    memoryless_second_moment,
    noise_response,
    reciprocal_series,
    stationary_variance,
    transient,
)
from stalewise.prediction.in_time import in_time
from stalewise.prediction.modes import Modes, Stability, learning_rate_limit, modes_of, stability_of
from stalewise.staleness import Arrivals, arrivals, has_formula, poisson_error
from stalewise.study import Study
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory, settling_time

Array = NDArray[np.float64]
POINTS = 800
MOST_UPDATES = 1 << 21  # solved one by one
SOLVED_UPDATES = 1 << 14  # from here on slow modes go on as exponentials, or sooner where they surely are some
ALIKE, SURELY_ALIKE = 1e-3, 1e-4  # of a rate, to which that of the quarter before is the same
FIRST_SOLVED, RARE = 256, 1e-4  # updates, and 8 times the age that so few exceed: how many are solved at first
ALONG = 0.25  # of the limit, from where on a mode's second moment is followed along a recorded path
POISSON_NOTED = 256  # workers up to which the note on Poisson arrivals is worth its time, half a second at most


def predict_quadratic(study: Study, *, seed: int = 0) -> Trajectory:
    """Predict a quadratic study; see `stalewise.prediction.predict`."""
    fine = arrivals(study, seed=seed)
    timing = fine.coarse
    modes = modes_of(study, timing)
    stable = stability_of(modes, timing)
    floor = stable.floor
    slowest = _slowest(modes, timing) if stable.mean_square else None
    curve = _curve(study, timing, modes, stable, _weights(timing, modes), study.target.time_limit or math.inf)
    reached = _reached(study, curve, floor) if stable.mean_square else TargetTime()
    loss = curve.loss
    if not np.isfinite(loss[:, 0]).all():  # it explodes within the average about the first moment
        loss[:, 0] = 0.5 * modes.curvature @ modes.square
    finite = np.isfinite(loss).all(axis=0) & (loss[0] < 1e12 * max(loss[0, 0], 1e-300))
    length = int(np.argmin(finite)) if not finite.all() else len(finite)
    end = float(curve.updates[length - 1]) * timing.block
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
        gradients=Gradients.expected(end * timing.gradients_a_step, timing.acceptance, study.active_workers),
        mean_stable=stable.mean,
        mean_square_stable=stable.mean_square,
        decay_rate=slowest,
        noise_floor=floor if math.isfinite(floor) else None,
        time_to_target=reached,
        status=_status(study, timing, floor, reached, float(curve.time[-1])),
        notes=[f"staleness: {timing.staleness.method}", f"limit: {stable.method}", *_poisson_note(study)],
    )


def _slowest(modes: Modes, timing: Arrivals) -> float | None:
    """Decay rate of the slowest mode [1/s]: the softest or, near its limit, the stiffest."""
    ends = {(float(modes.step[i]), modes.inertia[i]) for i in (0, -1)}
    rates = [decay_rate(step, timing, inertia) for step, inertia in ends]
    return min((rate for rate in rates if rate is not None), default=None)


def _poisson_note(study: Study) -> list[str]:
    """Whether Poisson arrivals would have done, where every gradient is applied as it comes."""
    delay, workers = study.workers().law, study.active_workers
    plain = study.policy == "async" and study.schedule.max_staleness is None and study.cluster.service_law().mean == 0
    if not plain or delay is None or not has_formula(delay) or not 2 <= workers <= POISSON_NOTED:
        return []
    return [poisson_error(delay, workers).sentence]


def settling(study: Study, timing: Arrivals, *, longest: float = math.inf, along: bool = True) -> tuple[float, float]:
    """Settling time [s] and noise floor alone, for a search; infinite where unstable or out of reach.

    Args:
        study: A quadratic study with a learning rate.
        timing: Its arrivals, which do not depend on the learning rate.
        longest: Times beyond this need not be resolved [s].
        along: Whether modes near their limit are followed along the arrivals' path, or by the index equation.
    """
    timing = timing.coarse
    modes = modes_of(study, timing)
    stable = stability_of(modes, timing)
    if stable.floor >= study.target.loss:
        return math.inf, stable.floor
    curve = _curve(study, timing, modes, stable, _weights(timing, modes)[:1], longest, along=along)
    time = settling_time(curve.time, curve.loss[0], study.target.loss)
    return (math.inf if time is None else time), stable.floor


def noise_floor(study: Study, timing: Arrivals) -> float:
    """Mean loss of a quadratic study in the long run; infinite where it is not mean-square stable."""
    return stability_of(modes_of(study, timing.coarse), timing.coarse).floor


@dataclass(frozen=True)
class _Curve:
    """Time, expected updates, and loss: the estimate, and beside it without and with full staleness noise."""

    time: Array
    updates: Array
    loss: Array


def _curve(
    study: Study, timing: Arrivals, modes: Modes, stable: Stability, weights: list[float | None], longest: float,
    *, along: bool = True,
) -> _Curve:  # fmt: skip
    target, floor = study.target.loss, stable.floor
    reachable = floor < target
    memory = len(timing.staleness.pmf)
    damping = abs(modes.damping.min()) * max(abs(1.0 - stable.loop), 1e-3)
    slow = (6.0 if modes.noise.max() > 0 or not reachable else 2.0) / damping
    enough = int(min(max(1000.0 * (timing.staleness.mean + 1.0), 4 * memory, SOLVED_UPDATES), MOST_UPDATES))
    updates = int(min(max(8 * memory, slow, 64), enough))
    if not math.isfinite(floor):
        updates = int(min(max(40 * (timing.staleness.mean + 1), 64), MOST_UPDATES))
    elif reachable:
        updates = min(max(8 * timing.staleness.quantile(1.0 - RARE), FIRST_SOLVED), updates)
    while True:
        alike = ALIKE if updates >= enough else SURELY_ALIKE
        solved = [_solve(modes, timing, weight, updates, floor, alike, along) for weight in weights]
        index, table = np.arange(updates + 1.0), np.array([loss for loss, _ in solved])
        last = np.flatnonzero(~(table[0] <= target))
        resolved = len(last) == 0 or last[-1] < 0.6 * updates
        if resolved or not reachable or updates >= MOST_UPDATES or _time_of(timing, updates) >= longest:
            break
        tails = solved[0][1]
        if all(tail.exponential(1e-4 * (target - floor)) for tail in tails):
            if not any(math.isfinite(tail.rate) for tail in tails):
                break
            index, table = _continue(index, table, [each for _, each in solved], longest * timing.rate)
            break
        updates = min(2 * updates, enough if updates < enough else MOST_UPDATES)
    end = min(_time_of(timing, float(index[-1])), longest)
    last = np.flatnonzero(~(table[0] <= target))
    if reachable and len(last) and index[last[-1]] < 0.6 * index[-1]:
        end = min(end, _time_of(timing, float(index[last[-1] + 1])) * 1.6)
    farthest = min(longest, 4.0 * _time_of(timing, float(index[-1])))
    while True:
        time = np.linspace(0.0, end, POINTS)
        mean, _ = timing.counts(time)
        loss = in_time(timing, time, index, table)
        if not reachable or loss[0, -1] <= target or end >= farthest:
            break
        end = min(1.6 * end, farthest)  # late are those runs of which few updates were made
    return _Curve(time, np.minimum(mean, index[-1]), loss)


def _weights(timing: Arrivals, modes: Modes) -> list[float | None]:
    """Estimate (None), then none and all of the staleness jitter as noise; one entry where it is exact or measured."""
    exact = timing.memoryless or timing.delay_cv < 1e-9 or len(timing.staleness.pmf) == 1
    return [None] if exact or dispersion(timing, modes.inertia[-1]) is not None else [None, 0.0, 1.0 / timing.block]


@dataclass(frozen=True)
class _Tail:
    """How a mode's loss goes on: level + excess x exp(-rate x further updates); rate NaN if it is not like that.

    ``most``: largest excess in the last quarter.
    """

    level: float
    excess: float
    rate: float
    most: float

    @classmethod
    def of(cls, loss: Array, level: float, alike: float) -> "_Tail":
        """From the last half: an exponential has the same rate in both its quarters, up to that share of it.

        A loss that changes by less than 1e-9 in a quarter is lost in rounding.
        """
        quarter = len(loss) // 4
        third, fourth, last = loss[-1 - 2 * quarter] - level, loss[-1 - quarter] - level, loss[-1] - level
        with np.errstate(all="ignore"):
            early, late = np.log(third / fourth) / quarter, np.log(fourth / last) / quarter
        good = early * quarter > 1e-9 and abs(late - early) <= alike * early
        most = float(np.abs(loss[-1 - quarter :] - level).max())
        return cls(level, float(last), float(late) if good else math.nan, most)

    def exponential(self, negligible: float) -> bool:
        """Whether it goes on as an exponential, or has less than ``negligible`` left."""
        return math.isfinite(self.rate) or self.most < negligible

    def at(self, further: Array) -> Array:
        """Loss of the mode so many updates on."""
        return self.level + self.excess * np.exp(-(self.rate if math.isfinite(self.rate) else 0.0) * further)


def _solve(
    modes: Modes, timing: Arrivals, weight: float | None, updates: int, floor: float, alike: float,
    along: bool,
) -> tuple[Array, list[_Tail]]:  # fmt: skip
    """Mean loss after 0, 1, ..., ``updates`` updates, and how each mode, or where noise couples them all, goes on."""
    total, back, tails = np.zeros(updates + 1), np.zeros(updates + 1), []
    for i, (h, inertia) in enumerate(zip(modes.step, modes.inertia, strict=True)):
        half, noise = 0.5 * modes.curvature[i], modes.noise[i]
        loss = half * _second_moment(h, noise, modes.square[i], timing, weight, updates, inertia, along)
        level = half * stationary_variance(h, noise, timing, inertia, weight=weight) if noise > 0 else 0.0
        tails.append(_Tail.of(loss, level, alike))
        total += loss
        if modes.growth[i] > 0:
            back += half * modes.growth[i] * _noise_response(h, timing, weight, updates, inertia)
    if not back.any():
        return total, tails
    total = _coupled(total, back, timing.staleness.pmf)
    return total, [_Tail.of(total, floor, alike)]


def _coupled(free: Array, back: Array, pmf: Array) -> Array:
    """Loss where a unit of it, at the parameters that gradients read, comes back as ``back`` in later updates.

    F = free + back * (P * F + F_0 tail), solved as a power series.
    """
    count = len(free)
    tail = np.zeros(count)
    survival = np.maximum(1.0 - np.cumsum(pmf), 0.0)[:count]
    tail[: len(survival)] = survival
    known = free + free[0] * signal.fftconvolve(back, tail)[:count]
    loop = -signal.fftconvolve(back, pmf)[:count]
    loop[0] = 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        return signal.fftconvolve(known, reciprocal_series(loop, count))[:count]


def _second_moment(
    h: float, noise: float, square: float, timing: Arrivals, weight: float | None, updates: int, inertia: Inertia,
    along: bool,
) -> Array:  # fmt: skip
    """Of one mode, along the path of the arrivals where it is measured and much depends on it."""
    start, how = math.sqrt(square), inertia.filter(timing.block)
    if timing.memoryless:
        return memoryless_second_moment(h, noise, start, round(timing.staleness.mean) + 1, updates, how)
    if len(timing.staleness.pmf) == 1 and inertia == Inertia():
        return _fresh(h, noise, square, updates)
    measured = dispersion(timing, inertia) if weight is None else None
    share = jitter_weight(h, timing, inertia) if weight is None else weight
    if not along or measured is None or h < ALONG * measured.limit or h >= measured.limit:
        return transient(h, noise, start, timing.staleness, share, updates, how).second
    held = transient(h, noise, 0.0, timing.staleness, share, updates, how).second
    return held + square * decay_along(h, timing, updates, inertia)


def _fresh(h: float, noise: float, square: float, updates: int) -> Array:
    """Second moment of a mode whose gradients are never stale."""
    ratio = (1.0 - h) ** 2
    with np.errstate(over="ignore"):
        left = ratio ** np.arange(updates + 1.0)
    held = noise * (1.0 - left) / (1.0 - ratio) if noise > 0.0 and ratio != 1.0 else noise * np.arange(updates + 1.0)
    return square * left + held


def _noise_response(h: float, timing: Arrivals, weight: float | None, updates: int, inertia: Inertia) -> Array:
    """Variance of one mode for unit noise in the first step."""
    how = inertia.filter(timing.block)
    if timing.memoryless:
        held = memoryless_second_moment(h, 1.0, 0.0, round(timing.staleness.mean) + 1, updates, how)
        return np.diff(held, prepend=0.0)
    share = jitter_weight(h, timing, inertia) if weight is None else weight
    return noise_response(h, timing.staleness, share, updates, how)


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


def _status(study: Study, timing: Arrivals, floor: float, reached: TargetTime, end: float) -> str:
    rate, target = study.learning_rate, study.target.loss
    if not math.isfinite(floor):
        most = learning_rate_limit(study, timing).mean_square
        return f"diverges: learning rate {rate:g} is past the mean-square limit {most:.4g}"
    if reached.mean is not None:
        return f"reaches loss {target:g} after {reached.mean:.4g} s and stays below"
    if floor >= target:
        return f"never settles below {target:g}: gradient noise holds the mean loss at {floor:.4g}"
    return f"has not settled below {target:g} within {end:.4g} s; given longer it will, its floor is {floor:.4g}"
