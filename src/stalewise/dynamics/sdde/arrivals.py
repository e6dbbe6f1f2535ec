r"""One mode whose gradients arrive one by one, each with a delay of its own: exact, event by event."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant
from stalewise.delays.compiled import draw, encode, new_cursors
from stalewise.dynamics.sdde.ensemble import HittingTimes, SamplePaths, hitting_times, sample_paths
from stalewise.dynamics.sdde.fundamental import Fundamental, response_energies
from stalewise.dynamics.sdde.grid import History, hat_weights, history_values, renewal_grid, times_of, watch_of
from stalewise.dynamics.sdde.kernel import BAND, FALL, NO_LEVEL, RISE
from stalewise.dynamics.sdde.normals import LANES
from stalewise.errors import InputError
from stalewise.jit import compiled

Array = NDArray[np.floating]
_HISTORY = 4096


@dataclass(frozen=True)
class ArrivalEquation:
    r"""Gradients that arrive at random, each computed from the path a fresh, independent delay ago.

    .. math:: dx = -\eta\,(\lambda\,x(t - D) + \xi)\,dN,\qquad \mathrm{Var}\,\xi = \sigma^2

    N counts arrivals. The mean is that of `SDDE` with gain :math:`\eta\lambda R`; the second moment is not, for delays
    and arrival times are noise too.

    Args:
        learning_rate: :math:`\eta`, above zero.
        curvature: :math:`\lambda`, above zero.
        rate: Arrivals R, above zero [1/s].
        delay: Law of the delay, or a constant delay [s].
        gradient_noise: :math:`\sigma^2`, variance of one gradient.
        regular: Arrivals every 1/R instead of a Poisson process: a fresh delay each step.

    Raises:
        InputError: A number is out of range; the law's delays depend on each other.

    Limits:
        An open model: real workers read what they have just written, and their arrivals are more even than Poisson's.
        Its mean-square limit is 25 % too small at 4 workers, 9 to 16 % at 16 (`docs/theory.md`).

    Source:
        Derived: a jump's variance is :math:`\eta^2(\sigma^2 + \lambda^2\mathrm E\,x(t-D)^2)`, and kicks add up as
        :math:`X(t - s)`.

    Example:
        >>> equation = ArrivalEquation(learning_rate=0.1, curvature=1.0, rate=10.0, delay=1.0, gradient_noise=1.0)
        >>> f"{equation.stationary_variance():.4f}"
        '0.2054'
    """

    learning_rate: float
    curvature: float
    rate: float
    delay: AbstractDelay | float
    gradient_noise: float = 0.0
    regular: bool = False

    def __post_init__(self) -> None:
        checks.positive("learning_rate", self.learning_rate)
        checks.positive("curvature", self.curvature)
        checks.positive("rate", self.rate, "1/s")
        checks.non_negative("gradient_noise", self.gradient_noise)
        if not isinstance(self.delay, AbstractDelay):
            checks.non_negative("delay", self.delay, "seconds")
        if not self.law.independent:
            raise InputError(f"delay must be drawn independently for each gradient, got {self.law}")

    @functools.cached_property
    def law(self) -> AbstractDelay:
        """The delay as a law."""
        return self.delay if isinstance(self.delay, AbstractDelay) else Constant(float(self.delay))

    @property
    def step(self) -> float:
        """Learning rate x curvature, h."""
        return float(self.learning_rate * self.curvature)

    @property
    def gain(self) -> float:
        """Learning rate x curvature x rate, a [1/s]."""
        return self.step * float(self.rate)

    def mean(self, t: ArrayLike, start: float | History = 1.0) -> Array:
        """Mean of x at times t >= 0 [s], element by element, Poisson arrivals; as `SDDE.mean`."""
        self._need_poisson()
        times = times_of(t)
        response = Fundamental(self.gain, self.law, float(times.max()))
        return response.mean(start, times.ravel()).reshape(times.shape)

    def variance(self, t: ArrayLike, start: float = 1.0) -> Array:
        r"""Variance of x at times t >= 0 [s], element by element, Poisson arrivals, a constant history.

        :math:`V = X^2 * \eta^2R(\sigma^2 + \lambda^2\mathrm E_D[m^2 + V])` by the trapezoid rule, good to 1e-4.

        Raises:
            NotConvergedError: The times are too long to resolve.
        """
        self._need_poisson()
        times = times_of(t)
        grid = renewal_grid(self.law, self.gain, float(times.max()))
        response = Fundamental(self.gain, self.law, float(grid[-1]))
        squares = response(grid) ** 2
        second = response.mean(float(start), grid) ** 2
        weights = self._weights(grid)
        gains = np.array([weights[: i + 1] @ second[i::-1] for i in range(len(grid))])
        gains += float(start) ** 2 * np.maximum(1.0 - np.cumsum(weights), 0.0)
        spread, push = np.zeros(len(grid)), np.zeros(len(grid))
        noise = self.learning_rate**2 * self.rate
        for i in range(len(grid)):
            known = grid[1] * (squares[i:0:-1] @ push[:i] - 0.5 * squares[i] * push[0]) if i else 0.0
            fixed = noise * (
                self.gradient_noise + self.curvature**2 * (gains[i] + weights[1 : i + 1] @ spread[i - 1 :: -1][:i])
            )
            share = 0.5 * grid[1] * squares[0] if i else 0.0
            spread[i] = (known + share * fixed) / (1.0 - share * noise * self.curvature**2 * weights[0])
            push[i] = fixed + noise * self.curvature**2 * weights[0] * spread[i]
        return np.interp(times, grid, spread)

    def stationary_variance(self) -> float:
        r"""Variance in the long run, :math:`G\eta^2R\sigma^2/(1 - h^2RG)`.

        Infinite if :math:`h^2RG \ge 1` or the mean is unstable. G is the integral of the
        squared response; Poisson arrivals.
        """
        self._need_poisson()
        energy = response_energies(self.gain, self.law)[0]
        left = 1.0 - self.step**2 * self.rate * energy
        return self.learning_rate**2 * self.rate * self.gradient_noise * energy / left if left > 0.0 else math.inf

    def sample_paths(
        self,
        horizon: float,
        paths: int,
        rng: np.random.Generator,
        start: float | History = 1.0,
        saved: int = 201,
        keep: int = 0,
        threads: int | None = None,
    ) -> SamplePaths:
        """Sample paths without any error of discretisation; arguments as `SDDE.sample_paths`.

        Limits:
            A history that is a function is joined by straight lines between 4,096 points.
        """
        times = self._saved(horizon, saved)
        return sample_paths(times, 0.0, paths, rng, keep, threads, self._walker(times, start, NO_LEVEL, 0.0))

    def hitting_time(
        self,
        level: float,
        horizon: float,
        paths: int,
        rng: np.random.Generator,
        start: float | History = 1.0,
        settling: bool = False,
        saved: int = 1001,
        threads: int | None = None,
    ) -> HittingTimes:
        """Law of the time of the first arrival that brings x to ``level`` or beyond; see `SDDE.hitting_time`."""
        times = self._saved(horizon, saved)
        watch = watch_of(level, float(history_values(start, np.zeros(1))[0]), settling)
        walker = self._walker(times, start, watch, float(level))
        return hitting_times(times, 0.0, paths, rng, threads, level if settling else 0.0, walker)

    def _saved(self, horizon: float, saved: int) -> Array:
        return np.linspace(0.0, checks.positive("horizon", horizon, "seconds"), checks.at_least("saved", saved, 2))

    def _walker(self, times: Array, start: float | History, watch: int, level: float):
        """What makes a function that walks 64 paths for each group."""
        encoded = encode(self.law.components(), self.law.mean)
        numbers = np.array([self.step, self.learning_rate * math.sqrt(self.gradient_noise), 1.0 / self.rate, level])
        reach = float(np.ravel(self.law.tail_quantile(1e-9))[0]) if callable(start) else 1.0
        past = history_values(start, np.linspace(0.0, -max(reach, 1e-9), _HISTORY + 1))
        expected = self.rate * times[-1]

        def prepare(seed: np.random.SeedSequence):
            rng = np.random.Generator(np.random.SFC64(seed))
            cursors = new_cursors(encoded, 1, rng)
            values, stay = np.empty((len(times), LANES)), np.empty((len(times), LANES))
            room = [np.empty((2, math.ceil(expected + 10.0 * math.sqrt(expected) + 64.0)))]

            def run() -> tuple[Array, Array]:
                lane = 0
                while lane < LANES:
                    if _walk(
                        encoded,
                        cursors,
                        rng,
                        numbers,
                        self.regular,
                        past,
                        reach,
                        times,
                        watch,
                        room[0],
                        lane,
                        values,
                        stay,
                    ):
                        lane += 1
                    else:
                        room[0] = np.empty((2, 2 * room[0].shape[1]))
                return values, stay

            return run

        return prepare

    def _weights(self, grid: Array) -> Array:
        """The delay on the grid, as many lags as it has points."""
        weights = np.zeros(len(grid))
        if isinstance(self.law, Constant):
            lag = round(self.law.value / grid[1])
            weights[lag : lag + 1] = 1.0
            return weights
        found = hat_weights(self.law, float(grid[1]), len(grid))[: len(grid)]
        weights[: len(found)] = found
        return weights

    def _need_poisson(self) -> None:
        if self.regular:
            raise InputError("regular arrivals have sample paths only: the formulas hold for Poisson arrivals")


@compiled
def _walk(law, cursors, rng, numbers, regular, past, reach, times, watch, room, lane, values, stay):  # pragma: no cover
    """One path; false if ``room``, shape (2, arrivals), is too small for it."""
    step, noise, gap, level = numbers[0], numbers[1], numbers[2], numbers[3]
    when, what = room[0], room[1]
    count, row, t, x = 0, 0, 0.0, past[0]
    stay[0, lane] = 1.0
    last = len(times) - 1
    while True:
        t += gap if regular else gap * rng.standard_exponential()
        while row <= last and times[row] < t:
            values[row, lane] = x
            row += 1
            if row <= last:
                stay[row, lane] = 1.0
                if watch == BAND and abs(x) >= level:
                    stay[row, lane] = 0.0
        if row > last:
            return True
        if count == len(when):
            return False
        seen = t - draw(law, cursors, 0, rng)
        if seen < 0.0:
            place = min(-seen / reach * (len(past) - 1), len(past) - 1.0)
            at = min(int(place), len(past) - 2)
            y = past[at] + (place - at) * (past[at + 1] - past[at])
        else:
            low, high = 0, count  # how many arrivals there were by then
            while low < high:
                middle = (low + high) // 2
                if when[middle] <= seen:
                    low = middle + 1
                else:
                    high = middle
            y = what[low - 1] if low > 0 else past[0]
        x -= step * y
        if noise > 0.0:
            x -= noise * rng.standard_normal()
        when[count], what[count] = t, x
        count += 1
        out = (watch == FALL and x <= level) or (watch == RISE and x >= level) or (watch == BAND and abs(x) >= level)
        if out:
            stay[row, lane] = 0.0
