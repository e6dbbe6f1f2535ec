r"""The equation without noise: its fundamental solution X, its mean, and integrals of X squared.

:math:`\dot X(t) = -a\,\mathrm E\,X(t - D)`, X(0) = 1, X = 0 before. A constant delay is solved piece by piece, each
delay long, in Chebyshev series: integrating the series of one piece gives the next. Any other law is inverted from
:math:`\hat X(s) = 1/(s + a\varphi(s))` on a line right of every root and of the axis (heavy tails have no transform
left of it), after :math:`1 - a\,\mathrm E(t - D)^+` is taken off, which is known: what is left falls like
:math:`\varphi^2/s^3`. Beyond some delays, once they agree, the mode of the rightmost root goes on (`tail`).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from stalewise.delays import AbstractDelay, Constant
from stalewise.dynamics.roots import gain_limit, is_stable, rightmost_root
from stalewise.dynamics.sdde.grid import History, history_values
from stalewise.dynamics.sdde.tail import Tail, tail_of
from stalewise.errors import NotConvergedError

Array = NDArray[np.floating]
DEGREE = 48
POINTS = 2**18  # of the line; an eighth of the period is used
NEARS = (32.0, 128.0, 512.0)  # mean delays after which the rightmost root's mode may go on alone
AGREE, AGREE_CONSTANT = 1e-9, 1e-13  # of the largest value, what it may differ by before
BRIEF = 1e-12  # gain x mean delay below which a delay is none
COARSEST = 0.03  # spacing x gain of an inversion, where its error is 1e-5
MOST_PIECES = 20_000
_CHUNK = 4096
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


@dataclass(frozen=True)
class Pieces:
    """A function on [0, count * length): Chebyshev series of the pieces, shape (count, DEGREE + 1)."""

    length: float
    series: Array

    def __call__(self, t: Array) -> Array:
        """Values at t >= 0 [s]."""
        which = np.minimum((t / self.length).astype(int), len(self.series) - 1)
        x = 2.0 * (t / self.length - which) - 1.0
        return chebyshev.chebval(x, self.series[which].T, tensor=False)

    def integral(self, of: Callable[[Array], Array], t: Array) -> Array:
        """Integral from 0 to t of a smooth function of the value, by 32 Gauss points a piece."""
        whole = np.minimum((t / self.length).astype(int), len(self.series) - 1)
        points = self.length * (np.arange(len(self.series))[:, None] + 0.5 * (_NODES + 1.0))
        full = 0.5 * self.length * (of(self(points.ravel())).reshape(points.shape) @ _WEIGHTS)
        before = np.concatenate([[0.0], np.cumsum(full)])[whole]
        rest = t - whole * self.length
        inside = (whole * self.length)[:, None] + 0.5 * rest[:, None] * (_NODES + 1.0)
        values = np.array([self._in_piece(w, points) for w, points in zip(whole, inside, strict=True)])
        return before + 0.5 * rest * (of(values) @ _WEIGHTS)

    def _in_piece(self, which: int, t: Array) -> Array:
        return chebyshev.chebval(2.0 * (t / self.length - which) - 1.0, self.series[which])


def _interpolated(f: Callable[[Array], Array]) -> Array:
    """Chebyshev series of f on [-1, 1]."""
    return np.asarray(chebyshev.chebinterpolate(f, DEGREE), float)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _by_steps(gain: float, delay: float, before: Array, value: float, count: int) -> Pieces:
    """Method of steps from the series ``before`` on [-delay, 0] and the value at 0."""
    series = np.zeros((count, DEGREE + 1))
    for i in range(count):
        grown = chebyshev.chebint(before, lbnd=-1)[: DEGREE + 1] * (-0.5 * gain * delay)
        series[i, : len(grown)] = grown
        series[i, 0] += value
        before, value = series[i], float(series[i].sum())
    return Pieces(delay, series)


def _on_line(line: float, period: float) -> NDArray[np.complexfloating]:
    """Where transforms are inverted."""
    return line + 2j * math.pi / period * np.arange(POINTS // 2 + 1)


@functools.lru_cache(maxsize=8)
def _transform(delay: AbstractDelay, line: float, period: float) -> NDArray[np.complexfloating]:
    """The law's transform there: the same for all stable modes that share a delay."""
    s = _on_line(line, period)
    return np.concatenate([delay.laplace(s[i : i + _CHUNK]) for i in range(0, len(s), _CHUNK)])


@dataclass(frozen=True)
class _Near:
    """X, its integrals, and the mean of a path, for times up to ``horizon`` [s], all of it resolved."""

    gain: float
    delay: AbstractDelay
    horizon: float

    def __call__(self, t: Array) -> Array:
        """X at times >= 0 [s]."""
        if self._without_delay:
            return np.exp(-self.gain * t)
        return self._pieces(t) if isinstance(self.delay, Constant) else self._spline(t)

    def squared(self, t: Array) -> Array:
        """Integral of X squared from 0 to t [s]."""
        if self._without_delay:
            return -np.expm1(-2.0 * self.gain * t) / (2.0 * self.gain)
        if isinstance(self.delay, Constant):
            return self._pieces.integral(np.square, t)
        return self._squares(t)

    def mean(self, start: float | History, t: Array) -> Array:
        """The path without noise, at t >= 0 [s]."""
        if self._without_delay:
            return float(history_values(start, np.zeros(1))[0]) * np.exp(-self.gain * t)
        if isinstance(self.delay, Constant):
            return (
                self._from_history(start)(t) if callable(start) else float(start) * self._pieces(t + self.delay.value)
            )
        if not callable(start):
            return float(start) * (1.0 - self.gain * self._integral(t))
        return self._driven(start, t)

    def becomes(self, tail: Tail, tolerance: float) -> bool:
        """Whether X is this tail over the second half, to ``tolerance`` x its largest value there or 1."""
        t = np.linspace(0.5 * self.horizon, self.horizon, 513)
        values = self(t)
        return bool(np.abs(values - tail(t)).max() <= tolerance * max(1.0, np.abs(values).max()))

    def share(self, start: float | History, root: complex) -> complex:
        """The mode's part in a path over its part in X: start(0) - a int e^(-su) E[start(u - D); D > u] du."""
        if not callable(start):
            return -self.gain * float(start) / root
        value = float(history_values(start, np.zeros(1))[0])
        if isinstance(self.delay, Constant):
            half = 0.5 * self.delay.value
            u = half * (_NODES + 1.0)
            return value - self.gain * half * complex(
                (np.exp(-root * u) * history_values(start, u - self.delay.value)) @ _WEIGHTS
            )
        pushed = np.exp(-root * self._grid) * self._remembered(start)
        return value - self.gain * complex(np.trapezoid(pushed, self._grid))

    @property
    def _without_delay(self) -> bool:
        return isinstance(self.delay, Constant) and self.delay.value == 0.0

    @property
    def _count(self) -> int:
        return math.floor(self.horizon / self.delay.mean) + 2

    @functools.cached_property
    def _pieces(self) -> Pieces:
        return _by_steps(self.gain, self.delay.mean, np.zeros(1), 1.0, self._count)

    def _from_history(self, start: History) -> Pieces:
        tau = self.delay.mean
        before = _interpolated(lambda x: history_values(start, 0.5 * tau * (x - 1.0)))
        value = float(history_values(start, np.zeros(1))[0])
        return _by_steps(self.gain, tau, before, value, self._count)

    @functools.cached_property
    def _grid(self) -> Array:
        return np.linspace(0.0, max(self.horizon, 1e-9 / self.gain), POINTS // 8 + 1)

    @functools.cached_property
    def _spline(self) -> CubicSpline:
        """X through its values on a grid."""
        period = self._grid[1] * POINTS
        root = rightmost_root(self.gain, self.delay).value
        line = max(0.0 if root is None else root.real, 0.0) + 30.0 / period
        s = _on_line(line, float(period))
        phi = _transform(self.delay, line, float(period))
        rest = (self.gain * phi / s) ** 2 / (s + self.gain * phi)
        t = self._grid
        smooth = np.exp(line * t) * np.fft.irfft(rest, POINTS)[: len(t)] * (POINTS / period)
        early = t - self.delay.mean + np.asarray(self.delay.excess(t), float)
        return CubicSpline(t, 1.0 - self.gain * early + smooth)

    @functools.cached_property
    def _integral(self):
        return self._spline.antiderivative()

    @functools.cached_property
    def _squares(self):
        return CubicSpline(self._grid, self._spline(self._grid) ** 2).antiderivative()

    def _driven(self, start: History, t: Array) -> Array:
        """start(0) X(t) - a int_0^t X(t - u) E[start(u - D); D > u] du by the trapezoid rule."""
        x = self._spline(self._grid)
        push = -self.gain * self._remembered(start)
        spacing = self._grid[1]
        length = 2 * len(x)
        both = np.fft.irfft(np.fft.rfft(x, length) * np.fft.rfft(push, length), length)[: len(x)]
        both -= 0.5 * (x[0] * push + push[0] * x)
        both[0] = 0.0
        value = float(history_values(start, np.zeros(1))[0])
        return CubicSpline(self._grid, value * x + spacing * both)(t)

    def _remembered(self, start: History) -> Array:
        """E[start(u - D); D > u] on the grid, by 4,096 equally probable delays."""
        delays = np.asarray(self.delay.quantile((np.arange(4096) + 0.5) / 4096), float)
        delays, counts = np.unique(delays, return_counts=True)
        total, spacing = np.zeros(len(self._grid)), self._grid[1]
        for delay, count in zip(delays, counts, strict=True):
            last = min(int(delay / spacing), len(total) - 1)
            seen = history_values(start, np.minimum(self._grid[: last + 1] - delay, 0.0))
            if last < len(total) - 1:
                seen[-1] *= 0.5 + delay / spacing - last  # half a point, and what is left of the cell behind it
            total[: last + 1] += count / 4096 * seen
        return total


@dataclass(frozen=True)
class Fundamental:
    """X, its integrals, and the mean of a path, for times up to ``horizon`` [s].

    Raises:
        NotConvergedError: The horizon is too long to be resolved, and no root's mode takes over (heavy tails).
    """

    gain: float
    delay: AbstractDelay
    horizon: float

    def __call__(self, t: Array) -> Array:
        """X at times >= 0 [s]."""
        near, tail = self._parts
        return _joined(t, near.horizon, near, tail)

    def squared(self, t: Array) -> Array:
        """Integral of X squared from 0 to t [s]."""
        near, tail = self._parts
        if tail is None:
            return near.squared(t)
        end = near.horizon
        whole = float(near.squared(np.array([end]))[0])
        return _joined(t, end, near.squared, lambda late: whole + tail.squared(end, late))

    def mean(self, start: float | History, t: Array) -> Array:
        """The path without noise, at t >= 0 [s]."""
        near, tail = self._parts
        if tail is not None and np.any(t > near.horizon):
            tail = tail.times(near.share(start, tail.root))
        return _joined(t, near.horizon, lambda early: near.mean(start, early), tail)

    @functools.cached_property
    def _parts(self) -> tuple[_Near, Tail | None]:
        """What is resolved, and what goes on after it."""
        delay = Constant(0.0) if self.gain * self.delay.mean < BRIEF else self.delay
        whole = _Near(self.gain, delay, self.horizon)
        mean, constant = delay.mean, isinstance(delay, Constant)
        if mean == 0.0 or self.horizon <= NEARS[0] * mean:
            return whole, None
        tail = tail_of(self.gain, self.delay)
        for end in (delays * mean for delays in NEARS):
            if end >= self.horizon:
                return whole, None
            near = _Near(self.gain, self.delay, end)
            if tail is not None and near.becomes(tail, AGREE_CONSTANT if constant else AGREE):
                return near, tail
            if tail is not None and near.becomes(tail.times(0.0), 1e-16):
                return near, tail.times(0.0)
        most = MOST_PIECES * mean if constant else COARSEST * (POINTS // 8) / self.gain
        if self.horizon > most:
            raise NotConvergedError(
                f"times up to {self.horizon:.4g} s of gain {self.gain:g} 1/s under {self.delay}: too long to resolve; "
                f"ask for at most {most:.3g} s"
            )
        return whole, None


def _joined(t: Array, end: float, early: Callable[[Array], Array], late: Callable[[Array], Array] | None) -> Array:
    """One function up to ``end``, another after it."""
    if late is None:
        return early(t)
    after = t > end
    values = np.empty(np.shape(t))
    if not after.all():
        values[~after] = early(t[~after])
    values[after] = late(t[after])
    return values


def unstable(gain: float, delay: AbstractDelay) -> bool:
    """Whether the mean does not decay; also where no gain limit is known."""
    try:
        return gain >= gain_limit(delay)
    except NotConvergedError:
        return not is_stable(gain, delay)


def response_energies(gain: float, delay: AbstractDelay) -> tuple[float, float]:
    r"""Integrals over all time of X squared, and of :math:`\mathrm E\,X(t - D)` squared [s]; infinite if unstable.

    Constant: :math:`(1 + \sin a\tau)/(2a\cos a\tau)`, twice: for noise 1 the autocovariance solves
    :math:`K'(t) = -aK(\tau - t)` on :math:`0 \le t \le \tau` with :math:`K'(0) = -1/2`, a cosine and a sine.
    Else :math:`\frac1\pi\int_0^\infty |i\omega + a\varphi|^{-2}d\omega` (the second with :math:`|\varphi|^2` above),
    panels of Gauss points halved until they agree to 1e-11, and 1/W for frequencies beyond W.
    """
    if gain * delay.mean < BRIEF:  # to first order, which is all there is
        energy = 0.5 * (1.0 + gain * delay.mean) / gain
        return energy, energy
    if unstable(gain, delay):
        return math.inf, math.inf
    if isinstance(delay, Constant):
        angle = gain * delay.value
        energy = (1.0 + math.sin(angle)) / (2.0 * gain * math.cos(angle))
        return energy, energy
    scale = max(1.0 / delay.mean, gain)
    top = 1e5 * scale
    edges = np.concatenate([np.linspace(0.0, 20.0, 81), np.geomspace(20.0, 1e5, 81)[1:]]) * scale

    def integrand(omega: Array) -> Array:
        phi = delay.laplace(1j * omega)
        below = np.abs(1j * omega + gain * phi) ** 2
        return np.stack([1.0 / below, np.abs(phi) ** 2 / below])

    first, second = _adaptive(integrand, edges, 1e-11 / gain)
    return (first + 1.0 / top) / math.pi, second / math.pi


def _adaptive(f: Callable[[Array], Array], edges: Array, tolerance: float) -> Array:
    """Integrals of the rows of f; panels whose 16 Gauss points disagree with their halves' are halved."""
    nodes, weights = np.polynomial.legendre.leggauss(16)

    def panels(low: Array, high: Array) -> Array:
        points = 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * nodes
        values = f(points.ravel()).reshape(-1, len(low), len(nodes))
        return 0.5 * (high - low) * (values @ weights)

    low, high = edges[:-1], edges[1:]
    whole = panels(low, high)
    total = np.zeros(len(whole))
    for _ in range(40):
        middle = 0.5 * (low + high)
        halves = panels(low, middle), panels(middle, high)
        both = halves[0] + halves[1]
        good = np.abs(both - whole).max(axis=0) < tolerance
        total += both[:, good].sum(axis=1)
        if good.all():
            return total
        bad = ~good
        low, high = np.concatenate([low[bad], middle[bad]]), np.concatenate([middle[bad], high[bad]])
        whole = np.concatenate([halves[0][:, bad], halves[1][:, bad]], axis=1)
    return total + whole.sum(axis=1)
