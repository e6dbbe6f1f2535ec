r"""One mode of asynchronous SGD as a stochastic delay differential equation."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant
from stalewise.dynamics.sdde.ensemble import HittingTimes, SamplePaths, hitting_times, planned, sample_paths
from stalewise.dynamics.sdde.fundamental import Fundamental, response_energies
from stalewise.dynamics.sdde.grid import (
    SCHEMES,
    Grid,
    History,
    grid_of,
    history_values,
    renewal_grid,
    times_of,
    watch_of,
)
from stalewise.dynamics.sdde.kernel import NO_LEVEL, Plan
from stalewise.errors import InputError

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Jumps:
    """Jumps of independent normal size at the times of a Poisson process.

    Args:
        rate: Above zero [1/s].
        mean, spread: Of the size, and its standard deviation, in units of x.
    """

    rate: float
    mean: float
    spread: float

    def __post_init__(self) -> None:
        checks.positive("jumps: rate", self.rate, "1/s")
        checks.finite("jumps: mean", self.mean)
        checks.non_negative("jumps: spread", self.spread)


@dataclass(frozen=True)
class SDDE:
    r"""Linear equation of one mode, whose noise may grow with the path.

    .. math:: dx = -a\,\mathrm E_D[x(t-D)]\,dt + s\,dW_0 + b\,x(t)\,dW_1 + c\,\mathrm E_D[x(t-D)]\,dW_2 + dJ

    with independent Brownian motions, in the sense of Ito, and jumps. The delay's law is a
    kernel: nothing is drawn from it.

    Args:
        gain: a = learning rate x curvature x update rate, above zero [1/s].
        delay: Law of the delay, or a constant delay [s].
        diffusion: s, noise whatever the path does [units of x/s^0.5].
        present_noise: b, noise per present value [1/s^0.5].
        delayed_noise: c, noise per delayed value [1/s^0.5].
        jumps: What J is made of; none if not given.

    Raises:
        InputError: ``gain`` is not positive, a noise is negative, or one is not finite.

    Limits:
        Several modes: one equation each. Delays drawn anew for every gradient: `ArrivalEquation`.

    Example:
        >>> equation = SDDE(gain=1.0, delay=1.0, diffusion=1.0)
        >>> f"{equation.stationary_variance():.4f}"
        '1.7041'
    """

    gain: float
    delay: AbstractDelay | float
    diffusion: float = 0.0
    present_noise: float = 0.0
    delayed_noise: float = 0.0
    jumps: Jumps | None = None

    def __post_init__(self) -> None:
        checks.positive("gain", self.gain, "1/s")
        if not isinstance(self.delay, AbstractDelay):
            checks.non_negative("delay", self.delay, "seconds")
        checks.non_negative("diffusion", self.diffusion)
        checks.non_negative("present_noise", self.present_noise)
        checks.non_negative("delayed_noise", self.delayed_noise)

    @functools.cached_property
    def law(self) -> AbstractDelay:
        """The delay as a law."""
        return self.delay if isinstance(self.delay, AbstractDelay) else Constant(float(self.delay))

    @property
    def additive(self) -> bool:
        """Whether the noise is the same wherever the path is."""
        return self.present_noise == 0.0 and self.delayed_noise == 0.0

    def mean(self, t: ArrayLike, start: float | History = 1.0) -> Array:
        """Mean of x at times t >= 0, element by element; of the noise only the jumps' mean matters.

        Args:
            t: [s].
            start: History for t <= 0: its constant value, or a function of an array of times [s].

        Limits:
            Constant delays: 1e-13 of the largest value, histories smooth. Other laws: about 1e-9, and 1e-5 where the
            history is a function.
        """
        times = times_of(t)
        response = self._fundamental(float(times.max()))
        return self._mean(response, start, times.ravel()).reshape(times.shape)

    def variance(self, t: ArrayLike, start: float | History = 1.0) -> Array:
        r"""Variance of x at times t >= 0, the history being given, element by element.

        Additive noise: :math:`s^2\int_0^t X^2`; jumps add rate x E size^2 to :math:`s^2`.
        Otherwise the mean squared noise q solves a renewal equation,
        :math:`q = s^2 + b^2m^2 + c^2\bar m^2 + (b^2X^2 + c^2\bar X^2) * q`, with m the mean, X the response to a
        kick and bars for :math:`\mathrm E_D` of the delayed value; the variance is :math:`X^2 * q`.

        Args:
            t: [s].
            start: As for `mean`; additive noise does not need it.

        Limits:
            As `mean`; with noise that grows with the path 1e-4 of the variance.
        """
        times = times_of(t)
        if self.additive:
            squares = self._fundamental(float(times.max())).squared(times.ravel())
            return self._free_noise * squares.reshape(times.shape)
        return self._renewed_variance(times.ravel(), start).reshape(times.shape)

    def stationary_variance(self) -> float:
        r"""Variance in the long run; infinite if the mean or the mean square is unstable.

        :math:`s^2G/(1 - b^2G - c^2\bar G)` with G and :math:`\bar G` the integrals of :math:`X^2` and
        :math:`(\mathrm E_D X(t-D))^2`. Constant delay: closed form. Any other law: 1e-10 of its size.
        """
        energy, delayed_energy = response_energies(float(self.gain), self.law)
        if math.isinf(energy):
            return math.inf
        left = 1.0 - self.present_noise**2 * energy - self.delayed_noise**2 * delayed_energy
        drift = 0.0 if self.jumps is None else self.jumps.rate * self.jumps.mean / self.gain  # E x in the long run
        noise = self._free_noise + (self.present_noise**2 + self.delayed_noise**2) * drift**2
        return noise * energy / left if left > 0.0 else math.inf

    def sample_paths(
        self,
        horizon: float,
        step: float,
        paths: int,
        rng: np.random.Generator,
        start: float | History = 1.0,
        scheme: str | None = None,
        saved: int = 201,
        keep: int = 0,
        terms: int | None = None,
        threads: int | None = None,
    ) -> SamplePaths:
        r"""Sample paths, and their mean and variance at saved times.

        Schemes (strong order: of single paths; weak order: of means and variances):

        Jumps take effect at the end of the step they fall in, which has order 1 in both senses.

        * ``euler``: Euler and Maruyama's; strong order 1 if noise is additive, else 1/2; weak order 1.
        * ``milstein``: adds the double integrals of present and delayed noise; strong order 1, weak order 1. For
          kernels with a density the delayed value is differentiable and no integral of it is needed.
        * ``trapezoid``: the drift is averaged over a step; additive noise only, strong order 1, weak order 2.

        Args:
            horizon: Last time, or up to a step less [s].
            step: h, at most the mean delay; shortened so that a constant delay, or the horizon, is whole steps [s].
            paths: How many, at least 2.
            rng: Source of randomness.
            start: History for t <= 0: its constant value, or a function of an array of times [s].
            scheme: See above; ``trapezoid`` if noise is additive, else ``euler``.
            saved: At most so many times are kept.
            keep: So many paths are returned whole (at the saved times).
            terms: Legendre terms of Milstein's double integrals; half the steps in a delay if not given, which is what
                order 1 takes. Each costs a normal a step and source of noise.
            threads: All cores if not given; the result does not depend on it.

        Raises:
            InputError: An argument is out of range; the step is longer than the delay; the scheme does not exist or
                does not fit the noise.

        Source:
            Hu, Mohammed, Yan (2004), Annals of Probability 32, 265-314, for the delayed double integrals and their
            order; Kuznetsov (2018), arXiv 1807.00409, for their Legendre series.
        """
        grid = grid_of(self.law, horizon, step, start)
        plan = self._plan(grid, scheme, saved, terms)
        walker = planned(plan, grid.past(start, int(plan.offsets[-1])))
        return sample_paths(plan.saved * grid.step, grid.step, paths, rng, keep, threads, walker)

    def hitting_time(
        self,
        level: float,
        horizon: float,
        step: float,
        paths: int,
        rng: np.random.Generator,
        start: float | History = 1.0,
        settling: bool = False,
        scheme: str | None = None,
        saved: int = 1001,
        threads: int | None = None,
    ) -> HittingTimes:
        r"""Law of the first time at which x reaches ``level``, from above or below, by sample paths.

        Between grid points a path is a Brownian bridge: it crosses with probability
        :math:`\exp(-2(x_n - L)(x_{n+1} - L)/v)`, v the variance of the step. Each path carries the product of the
        probabilities not to have crossed; nothing is drawn for it.

        Args:
            level: L; anything but the value at 0.
            horizon: Paths are followed so far [s].
            step: h, as in `sample_paths` [s].
            paths: How many, at least 2.
            rng: Source of randomness.
            start: As in `sample_paths`.
            settling: Instead, the last time at which \|x\| is ``level``, above zero; paths outside at the horizon have
                not settled. In one dimension this is what training time resembles: the first crossing comes as soon
                for a path that diverges.
            scheme: As in `sample_paths`.
            saved: At most so many times are kept; times in between are not resolved.
            threads: All cores if not given.

        Raises:
            InputError: As `sample_paths`; ``level`` is the start, or not above zero where it bounds a band.
        """
        grid = grid_of(self.law, horizon, step, start)
        value = float(history_values(start, np.zeros(1))[0])
        plan = self._plan(grid, scheme, saved, None)._replace(
            watch=watch_of(level, value, settling), level=float(level)
        )
        walker = planned(plan, grid.past(start, int(plan.offsets[-1])))
        return hitting_times(plan.saved * grid.step, grid.step, paths, rng, threads, level if settling else 0.0, walker)

    @property
    def _free_noise(self) -> float:
        """Squared noise a second that does not depend on the path."""
        jumps = 0.0 if self.jumps is None else self.jumps.rate * (self.jumps.mean**2 + self.jumps.spread**2)
        return float(self.diffusion**2 + jumps)

    def _mean(self, response: Fundamental, start: float | History, t: Array) -> Array:
        """Mean at times t; a push of 1 a second has moved it by the integral of X, (1 - mean from 1)/a."""
        mean = response.mean(start, t)
        if self.jumps is None or self.jumps.mean == 0.0:
            return mean
        return mean + self.jumps.rate * self.jumps.mean * (1.0 - response.mean(1.0, t)) / self.gain

    def _fundamental(self, horizon: float) -> Fundamental:
        """The response up to ``horizon``, kept for the next question."""
        known = self.__dict__.get("_response")
        if known is None or known.horizon < horizon:
            known = self.__dict__["_response"] = Fundamental(float(self.gain), self.law, horizon)
        return known

    def _plan(self, grid: Grid, scheme: str | None, saved: int, terms: int | None) -> Plan:
        scheme = checks.one_of("scheme", scheme or ("trapezoid" if self.additive else "euler"), SCHEMES)
        if scheme == "trapezoid" and not self.additive:
            raise InputError("scheme trapezoid is for additive noise; try milstein or euler")
        undelayed = isinstance(self.law, Constant) and self.law.value == 0.0
        if self.delayed_noise > 0 and undelayed:
            raise InputError("delayed_noise needs a delay above zero; without one it is present_noise")
        offsets, weights, scale = self._lags(grid, scheme)
        return Plan(
            grid.steps,
            grid.saved(checks.at_least("saved", saved, 2)),
            offsets,
            weights,
            scale,
            math.sqrt(grid.step),
            self._amplitude(grid, scheme),
            float(self.present_noise),
            float(self.delayed_noise),
            1.0 / (self.gain * grid.step),
            self._terms(grid, scheme, terms),
            NO_LEVEL,
            0.0,
            *self._jump_numbers(grid),
        )

    def _jump_numbers(self, grid: Grid) -> tuple[float, float, float]:
        if self.jumps is None:
            return 0.0, 0.0, 0.0
        return 1.0 / (self.jumps.rate * grid.step), float(self.jumps.mean), float(self.jumps.spread)

    def _lags(self, grid: Grid, scheme: str) -> tuple[NDArray[np.int64], Array, float]:
        """Lags, what they take off, and the factor of an implicit step."""
        taken = self.gain * grid.step * grid.weights
        if scheme != "trapezoid":
            return grid.offsets, taken, 1.0
        dense = np.zeros(int(grid.offsets[-1]) + 2)  # lags -1, 0, ...
        np.add.at(dense, grid.offsets + 1, 0.5 * taken)
        np.add.at(dense, grid.offsets, 0.5 * taken)
        lags = np.flatnonzero(dense[1:])
        return lags, dense[1:][lags], 1.0 / (1.0 + dense[0])

    def _amplitude(self, grid: Grid, scheme: str) -> float:
        """Diffusion, and for the trapezoid the area under the Brownian bridge a constant delay ago."""
        if scheme == "trapezoid" and isinstance(self.law, Constant) and self.law.value > 0.0:
            return float(self.diffusion * math.sqrt(1.0 + (self.gain * grid.step) ** 2 / 12.0))
        return float(self.diffusion)

    def _terms(self, grid: Grid, scheme: str, terms: int | None) -> int:
        if scheme != "milstein" or self.additive:
            return -1
        if self.delayed_noise > 0 and not isinstance(self.law, Constant) and len(self.law.atoms[0]):
            raise InputError(f"scheme milstein needs a constant delay or one without atoms, got {self.law}; try euler")
        if terms is not None:
            return checks.at_least("terms", terms, 0)
        if self.diffusion == 0.0 and self.delayed_noise == 0.0:
            return 0  # the double integral of one source is known from its increment
        return math.ceil(0.5 * self.law.mean / grid.step) if self.law.mean > 0 else math.ceil(0.5 / grid.step)

    def _renewed_variance(self, t: Array, start: float | History) -> Array:
        """Trapezoid rule."""
        grid = renewal_grid(self.law, self.gain, float(t.max()))
        spacing = float(grid[1])
        response = self._fundamental(float(grid[-1]))
        x, m = response(grid), self._mean(response, start, grid)
        lags = round(self.law.mean / spacing) + 1
        x_delayed = _delayed(self.law, self.gain, x, spacing, np.zeros(lags), 0.0)
        past = history_values(start, -spacing * np.arange(lags))
        push = 0.0 if self.jumps is None else self.jumps.rate * self.jumps.mean
        m_delayed = _delayed(self.law, self.gain, m, spacing, past, push)
        if isinstance(self.law, Constant) and lags - 1 < len(x):
            x_delayed[lags - 1] = math.sqrt(
                0.5
            )  # its square jumps there from 0 to 1: the trapezoid rule takes the middle
        kernel = self.present_noise**2 * x**2 + self.delayed_noise**2 * x_delayed**2
        q = self._free_noise + self.present_noise**2 * m**2 + self.delayed_noise**2 * m_delayed**2
        for i in range(len(q)):
            if i:
                q[i] += spacing * (0.5 * kernel[i] * q[0] + kernel[1:i] @ q[i - 1 : 0 : -1])
                q[i] /= 1.0 - 0.5 * spacing * kernel[0]
        squares = x**2
        total = np.convolve(squares, q)[: len(q)] - 0.5 * (squares[0] * q + squares * q[0])
        total[0] = 0.0
        return np.interp(t, grid, spacing * total)


def _delayed(law: AbstractDelay, gain: float, values: Array, spacing: float, past: Array, push: float) -> Array:
    """E of the value a delay ago: on a grid moved by a constant delay, else (push - derivative)/gain."""
    if not isinstance(law, Constant):
        grid = spacing * np.arange(len(values))
        return (CubicSpline(grid, values).derivative()(grid) - push) / -gain
    lag = round(law.value / spacing)
    return np.concatenate([past[lag:0:-1], values])[: len(values)]
