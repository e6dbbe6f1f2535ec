r"""A grid of times, and the delay's law as weights on it.

The path is joined by straight lines between grid points, and the delay enters exactly from there on: the weight of
:math:`x(t - jh)` in :math:`\mathrm E\,x(t - D)` is

.. math:: w_j = \mathrm E\,\Lambda(D/h - j) = \frac{e((j-1)h) - 2e(jh) + e((j+1)h)}{h},\quad e(t) = \mathrm E(D-t)^+,

with :math:`\Lambda` the hat function (and :math:`w_0 = 1 - (e(0) - e(h))/h`), so that the mean delay is kept exactly.
A constant delay is a whole number of steps and has one weight.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant
from stalewise.dynamics.sdde.kernel import BAND, FALL, RISE
from stalewise.errors import InputError, NotConvergedError

Array = NDArray[np.floating]
History = Callable[[Array], Array]
SCHEMES = ("euler", "milstein", "trapezoid")
_TAIL = 1e-14  # of the mean delay: what is cut off its law at most
FEWEST, MOST = 2048, 32_768  # points of a renewal equation
FINE, COARSE = 1 / 48, 1 / 4  # of the delay or of 1/gain, their distance: of a constant delay, of any other
MOST_STEPS, MOST_LAGS = 10**10, 4 * 10**6  # ten minutes for 64 paths, and 2 GB a thread


@dataclass(frozen=True)
class Grid:
    """Times 0, h, ..., steps h.

    Attributes:
        step: h [s].
        steps: How many.
        offsets: Lags in steps of the past values that a delayed value is made of, ascending, shape (n,).
        weights: Their weights, sum 1 but for the cut tail, shape (n,).
    """

    step: float
    steps: int
    offsets: NDArray[np.int64]
    weights: Array

    def saved(self, count: int) -> NDArray[np.int64]:
        """At most ``count`` steps, evenly spread, the first and the last among them."""
        return np.unique(np.rint(np.linspace(0, self.steps, min(count, self.steps + 1))).astype(np.int64))

    def past(self, start: float | History, longest: int) -> Array:
        """Values at 0, -h, ..., -longest h, shape (longest + 1,)."""
        return history_values(start, np.asarray(-self.step * np.arange(longest + 1), float))


def history_values(start: float | History, times: Array) -> Array:
    """The history at times <= 0 [s], element by element."""
    if not callable(start):
        return np.full(len(times), float(start))
    values = np.broadcast_to(np.asarray(start(times), float), times.shape).copy()
    if not np.isfinite(values).all():
        raise InputError(f"start must be finite for all t <= 0, got {values[~np.isfinite(values)][0]} as one value")
    return values


def grid_of(delay: AbstractDelay, horizon: float, step: float, start: float | History = 0.0) -> Grid:
    """The grid whose step is ``step`` [s], or a little less.

    A whole number of steps makes a constant delay (the last grid point may then lie beyond the horizon), or the
    horizon for any other law. Delays longer than the horizon see the history only: a constant one is met exactly, of
    a function ``start`` four horizons are looked at.

    Raises:
        InputError: ``horizon`` or ``step`` is not positive and finite, or a step is longer than the (mean) delay.
    """
    checks.positive("horizon", horizon, "seconds")
    checks.positive("step", step, "seconds")
    if step > horizon:
        raise InputError(f"step must be at most the horizon, {horizon:g} s, got {step:g} s")
    if delay.mean > 0 and step > delay.mean:
        raise InputError(
            f"step must be at most the mean delay, {delay.mean:g} s, got {step:g} s: within a longer one the path "
            f"depends on itself; try {delay.mean / 100.0:g}"
        )
    if isinstance(delay, Constant):
        lag = math.ceil(delay.value / step * (1.0 - 1e-12))
        step = delay.value / lag if lag else horizon / math.ceil(horizon / step * (1.0 - 1e-12))
        _affordable(horizon, step, lag)
        return Grid(step, math.ceil(horizon / step * (1.0 - 1e-12)), np.array([lag]), np.ones(1))
    _affordable(horizon, step, 0)
    steps = math.ceil(horizon / step * (1.0 - 1e-12))
    step = horizon / steps
    weights = hat_weights(delay, step, 4 * steps + 64 if callable(start) else steps)
    offsets = np.flatnonzero(weights > 0)
    return Grid(step, steps, offsets, weights[offsets])


def _affordable(horizon: float, step: float, lag: int) -> None:
    if horizon / step > MOST_STEPS:
        raise InputError(
            f"step must be at least {horizon / MOST_STEPS:.3g} s for {MOST_STEPS:.0e} steps, got {step:g} s"
        )
    if lag > MOST_LAGS:
        raise InputError(
            f"step must be at least {lag * step / MOST_LAGS:.3g} s: {lag} steps in a delay are kept in memory"
        )


def renewal_grid(delay: AbstractDelay, gain: float, horizon: float) -> Array:
    """Times of a renewal equation solved by the trapezoid rule, a whole number of them in a constant delay [s].

    Raises:
        NotConvergedError: The horizon takes more points than can be afforded (their square is the cost).
    """
    horizon = max(horizon, 1e-9 / gain)
    constant = isinstance(delay, Constant) and delay.value > 0.0
    scale = (FINE if constant else COARSE) * (min(delay.mean, 1.0 / gain) if delay.mean > 0 else 1.0 / gain)
    spacing = min(horizon / FEWEST, scale)
    if constant:
        spacing = delay.mean / math.ceil(delay.mean / spacing)
    count = math.ceil(horizon / spacing * (1.0 - 1e-12))
    if count > MOST:
        raise NotConvergedError(
            f"variance up to {horizon:.4g} s, with noise that grows: too long to resolve; ask for at most "
            f"{MOST * spacing:.3g} s, or for stationary_variance"
        )
    return spacing * np.arange(count + 2)


def hat_weights(delay: AbstractDelay, step: float, most: int) -> Array:
    """Weights of lags 0, 1, ..., as far as the law reaches but not beyond ``most``, which takes the rest."""
    count = min(64, most)
    while delay.excess(count * step) > _TAIL * delay.mean and count < most:
        count = min(2 * count, most)
    excess = np.asarray(delay.excess(step * np.arange(count + 1)), float)
    falls = (excess[:-1] - excess[1:]) / step
    weights = np.concatenate([[1.0 - falls[0]], falls[:-1] - falls[1:], [falls[-1]]])
    return np.maximum(weights, 0.0)


def times_of(t: ArrayLike) -> Array:
    """Times of a question [s], none of them before 0."""
    times = np.asarray(t, float)
    if times.size == 0 or not (np.isfinite(times).all() and (times >= 0).all()):
        raise InputError(f"t must be zero or more, finite and not empty [seconds], got {t!r}")
    return times


def watch_of(level: float, value: float, settling: bool) -> int:
    """Which way a path that is at ``value`` first crosses ``level``, or that it leaves a band."""
    if settling:
        checks.positive("level", level)
        return BAND
    if not math.isfinite(level) or level == value:
        raise InputError(f"level must be finite and not the value at 0, {value:g}, got {level!r}")
    return FALL if value > level else RISE
