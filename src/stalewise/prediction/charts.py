"""Stability charts of a study: where training is stable, and how fast it converges there."""

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stalewise.delays import Gamma
from stalewise.dynamics import Inertia, learning_rate_at, rightmost_roots, step_limit
from stalewise.dynamics.boundary import decay_curve, gain_boundary, step_boundary
from stalewise.dynamics.recursion import mean_square_step_limit
from stalewise.errors import InputError
from stalewise.prediction.modes import inertia_of, stiffest
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study

Array = NDArray[np.float64]
Kind = Literal["workers", "spread", "threshold"]
KINDS: tuple[Kind, ...] = ("workers", "spread", "threshold")
Progress = Callable[[float, str], None]
ANCHORS = (2, 8, 32, 128)  # workers at which the mean-square limit is measured
MOST_CHARTED = 256
SPREADS = np.geomspace(0.05, 1.0, 41)
GAINS = np.geomspace(0.03, 30.0, 61)
RATES = 36


@dataclass(frozen=True)
class Axis:
    """One axis: what it is, its unit, its values."""

    name: str
    unit: str
    values: list[float]


@dataclass(frozen=True)
class Chart:
    """A stability chart as data.

    Attributes:
        kind: Which of the three.
        x, y: Axes; both are meant to be drawn logarithmically.
        boundaries: Curves by name: a value of y for every x, None where there is no boundary.
        level: What ``levels`` are, with unit.
        levels: For every y and x, None where unstable: shape (len(y), len(x)).
        point: Where the study is, None if it has no such place.
        notes: What to know.
    """

    kind: Kind
    x: Axis
    y: Axis
    boundaries: dict[str, list[float | None]]
    level: str
    levels: list[list[float | None]]
    point: tuple[float, float] | None
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def chart(study: Study, kind: Kind = "workers", *, seed: int = 0, progress: Progress | None = None) -> Chart:
    """Draw up a stability chart of a study.

    ============ ================================================== ====================================================
    kind         axes                                               curves; levels
    ============ ================================================== ====================================================
    workers      active workers, learning rate                      limits of mean and mean square; decay rate
    spread       coefficient of variation of the delay, gain x mean limit of the mean, fastest gain; decay rate
                 delay, for gamma delays
    threshold    active workers, largest staleness (drop)           largest at which the study's rate is stable;
                                                                    largest learning rate
    ============ ================================================== ====================================================

    The limits of the mean are followed from point to point (`stalewise.dynamics.boundary`). That of the mean square is
    measured in virtual time at 1, 2, 8, 32, 128 and the most workers; in between, that of the index equation is scaled
    by the ratio found there (within 2.5 % of measuring at 5, 11 and 23 workers, gamma(4) and exponential delays).
    ``threshold`` is that of the index equation; its curve is followed from one number of workers to the next, and every
    point of it is checked from both sides.

    Args:
        study: Its delays, spectrum, momentum; policy async unless given.
        kind: Which chart.
        seed: Used where staleness is counted in virtual time.
        progress: Called with the fraction done and a message.

    Raises:
        InputError: The chart is not known for such a study.
    """
    if kind not in KINDS:
        raise InputError(f"chart: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    study = study if study.schedule.policy else study.with_schedule(policy="async")
    if kind != "spread" and (study.policy != "async" or study.cluster.group is not None):
        raise InputError(f"chart: {kind} needs policy async and workers that are alike, got policy {study.policy!r}")
    if kind == "workers" and study.schedule.local_steps > 1:
        raise InputError(f"chart: workers needs schedule.local_steps 1, got {study.schedule.local_steps}; try limit")
    draw = {"workers": _by_workers, "spread": _by_spread, "threshold": _by_threshold}[kind]
    return draw(study.with_schedule(trigger=0.0), seed, progress or _silent)


def _silent(share: float, message: str) -> None:
    """Tell nobody."""


def _workers_up_to(most: int) -> list[int]:
    grid = {round(2 ** (k / 4)) for k in range(4 * math.ceil(math.log2(max(most, 2))) + 1)}
    return sorted({n for n in grid if n <= most} | {most})


def _with_workers(study: Study, workers: int) -> Study:
    more = study.with_cluster(workers=max(workers, study.cluster.workers))
    return more.with_schedule(active_workers=workers, learning_rate=study.schedule.learning_rate or 1.0)


def _by_workers(study: Study, seed: int, progress: Progress) -> Chart:
    curvature, notes = stiffest(study)
    softest = float(study.workload.modes().eigenvalues.min()) if study.workload.is_quadratic else curvature
    inertia, local_steps = inertia_of(study, curvature), study.schedule.local_steps
    workers = _workers_up_to(min(max(2 * study.active_workers, 32), MOST_CHARTED))
    timings = []
    for i, n in enumerate(workers):
        progress(0.2 * i / len(workers), f"staleness of {n} workers")
        timings.append(arrivals(_with_workers(study, n), seed=seed))
    mean = step_boundary([timing.staleness for timing in timings], inertia)
    square = _square_boundary(workers, timings, mean, inertia, progress)
    mean_rate, square_rate = (
        np.array([learning_rate_at(h, curvature, t, local_steps) for h, t in zip(one, timings, strict=True)])
        for one in (np.maximum(mean, square), square)
    )
    rates = np.geomspace(0.02 * square_rate.min(), 1.3 * mean_rate.max(), RATES)
    levels: list[list[float | None]] = [[None] * len(workers) for _ in rates]
    for i, timing in enumerate(timings):
        progress(0.7 + 0.3 * i / len(workers), f"decay rates of {workers[i]} workers")
        stable = rates[rates < square_rate[i]] * timing.weight_mean
        curves = [decay_curve(stable * one, timing.staleness, inertia) for one in {softest, curvature}]
        for j, found in enumerate(np.min(curves, axis=0)):
            levels[j][i] = timing.rate * float(found) if math.isfinite(found) else None
    point = study.schedule.learning_rate
    return Chart(
        "workers",
        Axis("active workers", "", [float(n) for n in workers]),
        Axis("learning rate", "", rates.tolist()),
        {"mean-square limit": square_rate.tolist(), "limit of the mean": mean_rate.tolist()},
        "decay rate [1/s]",
        levels,
        (float(study.active_workers), point) if point else None,
        [*notes, f"Levels: decay of the slowest mode's mean, curvatures {softest:.4g} to {curvature:.4g}."],
    )


def _square_boundary(
    workers: list[int], timings: list[Arrivals], mean: Array, inertia: Inertia, progress: Progress
) -> Array:
    """Mean-square limits of h: measured at `ANCHORS`, in between the index equation's times the ratio found there."""
    how = inertia.filter()
    index = np.array([
        mean_square_step_limit(timing.staleness, float(most), how, precision=1e-4)
        for timing, most in zip(timings, mean, strict=True)
    ])  # fmt: skip
    places = sorted({workers.index(n) for n in ANCHORS if n <= workers[-1]} | {0, len(workers) - 1})
    ratios = []
    for i, place in enumerate(places):
        progress(0.2 + 0.5 * i / len(places), f"mean-square limit of {workers[place]} workers")
        ratios.append(step_limit(timings[place], inertia).mean_square / index[place])
    return index * np.interp(np.log(workers), np.log([workers[place] for place in places]), ratios)


def _by_spread(study: Study, seed: int, progress: Progress) -> Chart:  # noqa: ARG001
    laws = [Gamma(1.0, float(spread**-2)) for spread in SPREADS]
    limits = gain_boundary(laws)
    shapes = SPREADS**-2.0
    fastest = (shapes / (shapes + 1.0)) ** (shapes + 1.0)
    levels: list[list[float | None]] = [[None] * len(SPREADS) for _ in GAINS]
    for i, law in enumerate(laws):
        progress(i / len(laws), f"decay rates at a spread of {SPREADS[i]:.2g}")
        stable = limits[i] > GAINS
        for j, root in zip(np.flatnonzero(stable), rightmost_roots(GAINS[stable], law), strict=True):
            levels[j][i] = -float(root.real)
    workers = study.workers()
    point = None
    if study.schedule.learning_rate and workers.law is not None and workers.law.cv > 0:
        gain = study.learning_rate * stiffest(study)[0] * workers.rate / study.rules().group
        point = (workers.law.cv, gain * workers.law.mean)
    return Chart(
        "spread",
        Axis("coefficient of variation of the delay", "", SPREADS.tolist()),
        Axis("gain x mean delay", "", GAINS.tolist()),
        {
            "limit of the mean": [float(one) if math.isfinite(one) else None for one in limits],
            "fastest (a double root)": fastest.tolist(),
        },
        "decay rate x mean delay",
        levels,
        point,
        [
            "gamma delays; the delay equation's mean, without momentum: few workers with widely spread delays lose the "
            "mean square earlier (chart workers)"
        ],
    )


def _by_threshold(study: Study, seed: int, progress: Progress) -> Chart:
    curvature, notes = stiffest(study)
    inertia = inertia_of(study, curvature)
    workers = [n for n in (2, 4, 8, 16, 32, 64, 128) if n <= max(2 * study.active_workers, 16)]
    thresholds = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= 4 * workers[-1]]

    @functools.cache
    def limit_at(n: int, most: int) -> float:
        asked = _with_workers(study, n).with_schedule(max_staleness=most, on_stale="drop")
        timing = replace(arrivals(asked, seed=seed), path=None)
        step = step_limit(timing, inertia).mean_square
        return learning_rate_at(step, curvature, timing, study.schedule.local_steps)

    rate, boundary, last = study.schedule.learning_rate, list[float | None](), thresholds[-1]
    for i, n in enumerate(workers):
        progress(i / len(workers), f"largest staleness under {n} workers")
        if rate:
            found = _last_stable(lambda most, n=n: limit_at(n, most) > rate, max(last, 1), thresholds[-1])
            boundary.append(None if found is None else float(found))
            last = thresholds[-1] if found is None else found
    levels: list[list[float | None]] = [[limit_at(n, most) for n in workers] for most in thresholds]
    bound = study.schedule.max_staleness
    return Chart(
        "threshold",
        Axis("active workers", "", [float(n) for n in workers]),
        Axis("largest staleness", "updates", [float(k) for k in thresholds]),
        {f"learning rate {rate:g} is stable up to": boundary} if rate else {},
        "largest stable learning rate",
        levels,
        (float(study.active_workers), float(bound)) if bound else None,
        [
            *notes,
            "staleness beyond is dropped; index equation with independent staleness, conservative for few workers; "
            "curve: the last stable threshold, the next one is not (0: not even 1 is)",
        ],
    )


def _last_stable(stable: Callable[[int], bool], guess: int, most: int) -> int | None:
    """Largest threshold that is stable while the next is not; None if ``most`` is stable, 0 if 1 is not.

    From a guess, that of the neighbour, by steps that double until both sides are known, then by halves.
    """
    at, stride = min(guess, most), 1
    upward = stable(at)
    while True:
        if at == (most if upward else 1):
            return None if upward else 0
        beyond = min(at + stride, most) if upward else max(at - stride, 1)
        if stable(beyond) != upward:
            break
        at, stride = beyond, 2 * stride
    low, high = min(at, beyond), max(at, beyond)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low
