r"""The loss of many modes: its mean, its law, when it is at a target, by formula and by sample paths."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammainc

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant
from stalewise.dynamics.recursion import reciprocal_series
from stalewise.dynamics.roots import rightmost_root
from stalewise.dynamics.sdde.ensemble import HittingTimes, SamplePaths, hitting_times, sample_paths
from stalewise.dynamics.sdde.fundamental import Fundamental, response_energies, unstable
from stalewise.dynamics.sdde.grid import Grid, grid_of, hat_weights, times_of
from stalewise.dynamics.sdde.kernel import FALL, NO_LEVEL, RISE
from stalewise.dynamics.sdde.modes import ModePlan, mode_room, run_modes
from stalewise.dynamics.sdde.normals import streams
from stalewise.errors import InputError

Array = NDArray[np.floating]
_POINTS = 4096  # of a curve that is searched for a target
_MOST = 2e4  # mean delays that a curve is followed for
_CHUNK = 32  # steps that one mode takes before the next one does


@dataclass(frozen=True)
class LossTimes:
    """When the loss is at a target, by formula.

    Attributes:
        target: Of the loss.
        floor: Mean loss in the long run; infinite if unstable.
        settling: Last time at which the mean loss comes down through the target [s]; infinite if it never stays below.
        first: First time at which the mean loss is at the target [s]; infinite if never.
        spread: Standard deviation of these times from the number of arrivals alone [s]; None if workers are not given.
        time: [s], shape (m,).
        reached: At least so many paths have hit the target by then, shape (m,); NaN where noise grows with the loss.
        warnings: Where these numbers mislead, as sentences.
    """

    target: float
    floor: float
    settling: float
    first: float
    spread: float | None
    time: Array
    reached: Array
    warnings: tuple[str, ...]

    @property
    def median_bound(self) -> float:
        """Half of the paths have hit the target by this time, or earlier [s]; infinite if unknown."""
        there = np.flatnonzero(self.reached >= 0.5)
        return float(self.time[there[0]]) if len(there) else math.inf


@dataclass(frozen=True)
class ModeLoss:
    r"""Loss :math:`F = \frac12\sum_i\lambda_ix_i^2` of modes that share a delay, each with its own gain and noise.

    .. math:: dx_i = -a_i\,\mathrm E_D[x_i(t-D)]\,dt + \sqrt{s_i^2 + \kappa_i\,\mathrm E_D[F(t-D)]}\,dW_i

    Noise that grows with the loss couples the modes, but only through F.

    Args:
        gains: a_i, above zero, shape (d,) [1/s].
        curvatures: lambda_i, above zero, shape (d,).
        delay: Law of the delay, or a constant delay [s].
        diffusions: s_i, a number or shape (d,) [units of x/s^0.5].
        starts: x_i for t <= 0, a number or shape (d,).
        noise_growths: kappa_i, a number or shape (d,) [squared units of x per unit of loss and second].

    Raises:
        InputError: A number is out of range, or shapes do not agree.

    Limits:
        Formulas take some 15 ms for each gain that is different. What arrivals one by one add (`ArrivalEquation`) is
        not in it: `LossTimes.spread` is what their number adds, and real delays are shorter by half the time between
        updates (0.3 to 0.6 % of the time at 8 workers).

    Example:
        >>> loss = ModeLoss(gains=[0.4, 0.04], curvatures=[1.0, 0.1], delay=1.0, diffusions=0.01)
        >>> f"{loss.settling_time(0.01).settling:.2f}"
        '19.60'
    """

    gains: ArrayLike
    curvatures: ArrayLike
    delay: AbstractDelay | float
    diffusions: ArrayLike = 0.0
    starts: ArrayLike = 1.0
    noise_growths: ArrayLike = 0.0

    def __post_init__(self) -> None:
        gains = _numbers("gains", self.gains, None)
        for name in ("curvatures", "diffusions", "starts", "noise_growths"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), len(gains)))
        object.__setattr__(self, "gains", gains)
        if not isinstance(self.delay, AbstractDelay):
            checks.non_negative("delay", self.delay, "seconds")
        for name, least in (("gains", False), ("curvatures", False), ("diffusions", True), ("noise_growths", True)):
            check = checks.non_negative if least else checks.positive
            for value in getattr(self, name):
                check(name, float(value))

    @classmethod
    def of_workers(
        cls,
        curvatures: ArrayLike,
        learning_rate: float,
        workers: int,
        delay: AbstractDelay | float,
        gradient_noise: ArrayLike = 0.0,
        starts: ArrayLike = 1.0,
        noise_growth: ArrayLike = 0.0,
    ) -> Self:
        r"""Modes of asynchronous SGD: update rate R = workers/mean delay, :math:`a_i = \eta\lambda_iR`.

        Args:
            curvatures: Shape (d,).
            learning_rate: :math:`\eta`, above zero.
            workers: Always busy.
            delay: Law of one gradient's delay, its mean above zero [s].
            gradient_noise: Variance of one gradient along each eigenvector, a number or shape (d,);
                :math:`s_i^2 = \eta^2R` times it.
            starts: As of the class.
            noise_growth: Growth of that variance per unit of loss, a number or shape (d,).
        """
        learning_rate = checks.positive("learning_rate", learning_rate)
        mean = delay.mean if isinstance(delay, AbstractDelay) else checks.positive("delay", delay, "seconds")
        rate = checks.at_least("workers", workers, 1) / checks.positive("mean delay", mean, "seconds")
        curvatures = _numbers("curvatures", curvatures, None)
        noise = learning_rate**2 * rate
        return cls(
            learning_rate * rate * curvatures,
            curvatures,
            delay,
            np.sqrt(noise * np.asarray(gradient_noise, float)),
            starts,
            noise * np.asarray(noise_growth, float),
        )

    @functools.cached_property
    def law(self) -> AbstractDelay:
        """The delay as a law."""
        return self.delay if isinstance(self.delay, AbstractDelay) else Constant(float(self.delay))

    @functools.cached_property
    def loop(self) -> float:
        r"""What a unit of loss brings back as noise, :math:`\Gamma = \frac12\sum_i\lambda_i\kappa_iG_i`.

        G_i is the integral of the squared response of mode i [s]. The mean square is bounded if and only if every mean
        is stable and :math:`\Gamma < 1`, the spectral radius of the matrix :math:`G_i\kappa_i\lambda_j/2` of rank 1.
        """
        grows = self._growths > 0.0
        return float(np.sum((self._halves * self._growths)[grows] * self._energies[grows]))

    def stationary_variances(self) -> Array:
        r"""Variance of each mode in the long run, :math:`G_i(s_i^2 + \kappa_iF)`, shape (d,); infinite if unstable."""
        if not np.isfinite(self._energies).all() or self.loop >= 1.0:
            bounded = np.isfinite(self._energies) & (self._growths == 0.0)
            return np.where(bounded, self._noises * np.where(bounded, self._energies, 0.0), math.inf)
        return self._energies * (self._noises + self._growths * self.floor)

    @functools.cached_property
    def floor(self) -> float:
        r"""Mean loss in the long run, :math:`\frac12\sum_i\lambda_is_i^2G_i/(1 - \Gamma)`; infinite if unstable."""
        if not np.isfinite(self._energies).all() or self.loop >= 1.0:
            return math.inf
        return float(np.sum(self._halves * self._noises * self._energies) / (1.0 - self.loop))

    def mean(self, t: ArrayLike) -> Array:
        r"""Mean loss at times t >= 0 [s], element by element.

        :math:`\bar F = \frac12\sum_i\lambda_i(m_i^2 + V_i)` with m_i and V_i as of `SDDE`. With noise that grows it
        solves the renewal equation :math:`\bar F = \bar F_0 + k * \mathrm E_D\bar F(\cdot - D)`, :math:`\bar F_0`
        without the growth and :math:`k = \frac12\sum_i\lambda_i\kappa_iX_i^2`.

        Limits:
            1e-8 of the start; with noise that grows 1e-4, on 4,096 steps.
        """
        times = times_of(t)
        return self._mean_curve(float(times.max()))(times.ravel()).reshape(times.shape)

    def variance(self, t: ArrayLike) -> Array:
        r"""Variance of the loss at times t >= 0 [s], :math:`\frac12\sum_i\lambda_i^2(V_i^2 + 2m_i^2V_i)`: x is normal.

        Raises:
            InputError: Noise grows with the loss: x is then not normal.
        """
        self._need_normal()
        times = times_of(t)
        squares, spreads = self._moments(times.ravel())
        return _variance(self._curvatures, squares, spreads).reshape(times.shape)

    def reached(self, target: float, t: ArrayLike) -> Array:
        r"""P(F(t) <= target), by the gamma law that has the mean and the variance of F, element by element.

        A lower bound of the share of paths that have been at the target by then, as far as the gamma law is good.

        Limits:
            Distance to the exact law of a weighted sum of squares (Imhof's integral), measured: 0.04 for one mode,
            0.022 for two, 0.006 for ten unequal ones.

        Source:
            Welch, Satterthwaite: the gamma law of equal mean and variance. Imhof (1961): the exact law.
        """
        self._need_normal()
        target = checks.positive("target", target)
        times = times_of(t)
        squares, spreads = self._moments(times.ravel())
        mean = self._halves @ (squares + spreads)
        spread = _variance(self._curvatures, squares, spreads)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            smooth = gammainc(mean**2 / spread, target * mean / spread)
        sharp = spread <= 1e-12 * mean**2
        return np.where(sharp, (mean <= target).astype(float), smooth).reshape(times.shape)

    def settling_time(self, target: float, workers: int | None = None) -> LossTimes:
        r"""When the mean loss is at ``target`` for the last time (and the first), and what paths do by formula.

        Args:
            target: Of the loss, above zero and below the loss at the start.
            workers: How many make the arrivals. Their number in a time T varies by :math:`\sqrt{c^2T/(\mu N)}` arrivals
                of each worker, so that times have at least the standard deviation :math:`\sqrt{c^2T\mu/N}`, c the
                coefficient of variation of the delay and :math:`\mu` its mean.

        Raises:
            InputError: ``target`` is not below the loss at the start.

        Limits:
            See the warnings of the answer. A loss that has not settled after 20,000 mean delays is said not to.
        """
        target = self._checked(target)
        curve, horizon = self._until_settled(target)
        grid = np.linspace(0.0, horizon, _POINTS + 1)
        values = curve(grid)
        above = np.flatnonzero(values > target)
        first = (
            self._crossing(curve, grid, int(np.argmax(values <= target)), target) if (values <= target).any() else None
        )
        settles = self.floor < target and above[-1] < len(grid) - 1
        last = self._crossing(curve, grid, int(above[-1]) + 1, target) if settles else math.inf
        spread = None
        if workers is not None:
            share = self.law.variance / (self.law.mean * checks.at_least("workers", workers, 1))
            spread = math.sqrt(share * last)
        normal = not self._growths.any()
        reached = np.maximum.accumulate(self.reached(target, grid)) if normal else np.full(len(grid), math.nan)
        warnings = (*self._warnings(target), *self._late(settles, target, horizon))
        return LossTimes(
            target, self.floor, last, math.inf if first is None else first, spread, grid, reached, warnings
        )

    def sample_paths(
        self,
        horizon: float,
        step: float,
        paths: int,
        rng: np.random.Generator,
        saved: int = 201,
        keep: int = 0,
        threads: int | None = None,
    ) -> SamplePaths:
        """Loss along sample paths of all modes; arguments and answer as of `SDDE.sample_paths`, for F instead of x.

        The drift is averaged over a step: weak order 2, or 1 where noise grows with the loss.

        Limits:
            A mode-step costs a normal and the lags of the kernel; memory is modes x longest lag x 512 bytes a thread.
        """
        grid = grid_of(self.law, horizon, step)
        plan = self._plan(grid, saved)
        return sample_paths(plan.saved * grid.step, grid.step, paths, rng, keep, threads, _walker(plan))

    def hitting_time(
        self,
        target: float,
        horizon: float,
        step: float,
        paths: int,
        rng: np.random.Generator,
        settling: bool = True,
        saved: int = 1001,
        threads: int | None = None,
    ) -> HittingTimes:
        r"""Law of the time at which paths come below ``target`` to stay (or, ``settling=False``, first touch it).

        Between grid points :math:`\sqrt{2F}` is taken for a Brownian bridge with the variance
        :math:`h\sum_i\lambda_i^2x_i^2(s_i^2 + \kappa_iF_D)/2F`, the mean of both ends: the surface F = target is then
        flat for one step, and exact for one mode.

        Args:
            target: Of the loss, above zero and below the loss at the start.
            horizon: Paths are followed so far [s].
            step: As of `SDDE.sample_paths` [s].
            paths: How many, at least 2.
            rng: Source of randomness.
            settling: Ask for the last time above the target instead of the first time at it.
            saved: At most so many times are kept; times in between are not resolved.
            threads: All cores if not given.

        Raises:
            InputError: As `sample_paths`; ``target`` is not below the loss at the start.

        Limits:
            Error of order h, from the curvature of the surface: measured 0.010 of 0.66 for two unequal modes and 0.003
            of 0.38 for ten, steps of half a delay; a fifth of that with steps of an eighth. With noise every path
            leaves the target again if one waits long enough, so that settling is said of the ``horizon``.
        """
        target = self._checked(target)
        grid = grid_of(self.law, horizon, step)
        plan = self._plan(grid, saved)._replace(watch=RISE if settling else FALL, level=math.sqrt(2.0 * target))
        band = target if settling else 0.0
        return hitting_times(
            plan.saved * grid.step,
            grid.step,
            paths,
            rng,
            threads,
            band,
            _walker(plan),
            self._warnings(target, settling),
        )

    # numbers of the modes, shape (d,)

    @property
    def _gains(self) -> Array:
        return np.asarray(self.gains)

    @property
    def _curvatures(self) -> Array:
        return np.asarray(self.curvatures)

    @property
    def _halves(self) -> Array:
        return 0.5 * self._curvatures

    @property
    def _noises(self) -> Array:
        return np.asarray(self.diffusions) ** 2

    @property
    def _starts(self) -> Array:
        return np.asarray(self.starts)

    @property
    def _growths(self) -> Array:
        return np.asarray(self.noise_growths)

    @functools.cached_property
    def _distinct(self) -> tuple[Array, NDArray[np.intp]]:
        """Gains that are different, and which of them each mode has."""
        return np.unique(self._gains, return_inverse=True)

    @functools.cached_property
    def _energies(self) -> Array:
        gains, which = self._distinct
        return np.array([response_energies(float(gain), self.law)[0] for gain in gains])[which]

    @property
    def _start(self) -> float:
        """Loss at the start."""
        return float(self._halves @ self._starts**2)

    def _checked(self, target: float) -> float:
        target = checks.positive("target", target)
        if target >= self._start:
            raise InputError(f"target must be below the loss at the start, {self._start:g}, got {target!r}")
        return target

    def _need_normal(self) -> None:
        if self._growths.any():
            raise InputError(
                "noise_growths must be 0 for the law of the loss by formula; use sample_paths, hitting_time"
            )

    def _responses(self, t: Array, of: Callable[[Fundamental, Array], Array], end: float | Array = 0.0) -> Array:
        """``of`` each mode's response at times t, shape (d, times); ``end`` once it has decayed to 1e-17."""
        gains, which = self._distinct
        ends = np.broadcast_to(end, self._gains.shape)
        found, horizon = np.empty((len(gains), len(t))), float(t.max())
        for row, gain in enumerate(gains):
            halvings = math.floor(math.log2(max(horizon / self._reaches[row], 1.0)))
            reach = horizon * 0.5**halvings  # of a few lengths: transforms are shared
            known = t <= reach
            if known.any():
                found[row, known] = of(self._fundamental(float(gain), reach), t[known])
            found[row, ~known] = ends[np.argmax(which == row)]
        return found[which]

    def _means(self, t: Array) -> Array:
        """Mean of each mode, shape (d, times)."""
        return self._starts[:, None] * self._responses(t, lambda response, t: response.mean(1.0, t))

    def _integrals(self, t: Array) -> Array:
        """Integral of each mode's squared response, shape (d, times)."""
        return self._responses(t, Fundamental.squared, self._energies)

    @functools.cached_property
    def _reaches(self) -> Array:
        """Time by which a mode of each distinct gain is 1e-17 of its start [s]; infinite if no exponential says so."""

        def reach(gain: float) -> float:
            if self.law.mean == 0.0:
                return 40.0 / gain
            root = None if unstable(gain, self.law) else rightmost_root(gain, self.law).value
            return math.inf if root is None else 40.0 / -root.real + 40.0 * self.law.mean

        return np.array([reach(float(gain)) for gain in self._distinct[0]])

    def _fundamental(self, gain: float, horizon: float) -> Fundamental:
        """The response up to ``horizon``, kept for the next question."""
        known = self.__dict__.setdefault("_known", {})
        if gain not in known or known[gain].horizon < horizon:
            known[gain] = Fundamental(gain, self.law, horizon)
        return known[gain]

    def _moments(self, t: Array) -> tuple[Array, Array]:
        """Squared mean and variance of each mode at times t, shape (d, times), noise that does not grow."""
        return self._means(t) ** 2, self._noises[:, None] * self._integrals(t)

    def _mean_curve(self, horizon: float) -> Callable[[Array], Array]:
        """Mean loss as a function of times up to ``horizon``."""
        if self._growths.any():
            grid, values = self._renewed(horizon)
            return lambda t: np.interp(t, grid, values)

        def curve(t: Array) -> Array:
            squares, spreads = self._moments(np.atleast_1d(t))
            return self._halves @ (squares + spreads)

        return curve

    def _renewed(self, horizon: float) -> tuple[Array, Array]:
        """Mean loss on a grid, by the trapezoid rule; a constant delay is a whole number of steps."""
        grid, lags = self._renewal_grid(horizon)
        squares, spreads = self._moments(grid)
        free = self._halves @ (squares + spreads)
        kernel = (self._halves * self._growths) @ self._responses(grid, Fundamental.__call__) ** 2
        spacing, start = float(grid[1]), self._start
        before = start * np.maximum(1.0 - np.cumsum(lags), 0.0)  # of the delayed loss, what is history
        halved = spacing * np.concatenate([[0.5 * kernel[0]], kernel[1:]])
        free += _product(halved, before) - 0.5 * spacing * kernel * start
        loop = -_product(halved, lags)
        loop[0] += 1.0
        loss = _product(reciprocal_series(loop / loop[0], len(loop)), free) / loop[0]
        return grid, loss

    def _renewal_grid(self, horizon: float) -> tuple[Array, Array]:
        """Times, and the delay as weights of lags on them."""
        spacing = horizon / _POINTS
        lags = np.zeros(_POINTS + 1)
        if isinstance(self.law, Constant):
            lag = 0
            if self.law.value > 0.0:
                lag = max(round(self.law.value / spacing), 16)
                spacing = self.law.value / lag
            grid = spacing * np.arange(math.ceil(horizon / spacing) + 2)
            lags = np.zeros(len(grid))
            lags[lag : lag + 1] = 1.0
            return grid, lags
        found = hat_weights(self.law, spacing, _POINTS + 1)[: _POINTS + 1]
        lags[: len(found)] = found
        return spacing * np.arange(_POINTS + 1), lags

    def _until_settled(self, target: float) -> tuple[Callable[[Array], Array], float]:
        """The mean loss, and a time in whose last half it is nearer to its floor than to the target."""
        slowest = 8.0 * max(1.0 / float(self._gains.min()), self.law.mean)
        if not self.floor < target:
            return self._mean_curve(slowest), slowest
        fall = math.log(self._start / (0.25 * (target - self.floor)))
        most = _MOST * self.law.mean if self.law.mean > 0.0 else math.inf
        horizon = min(max(slowest, fall / float(self._gains.min())), most)
        while True:
            curve = self._mean_curve(horizon)
            late = curve(np.linspace(0.5 * horizon, horizon, 513))
            if late.max() < 0.5 * (target + self.floor) or horizon >= most:
                return curve, horizon
            horizon = min(2.0 * horizon, most)

    def _crossing(self, curve: Callable[[Array], Array], grid: Array, after: int, target: float) -> float:
        """Time between grid points ``after - 1`` and ``after`` at which the curve is at the target [s]."""
        low, high = float(grid[after - 1]), float(grid[after])
        time = brentq(lambda t: float(curve(np.array([t]))[0]) - target, low, high, xtol=1e-12 + 1e-10 * high)
        return float(time)  # pyright: ignore[reportArgumentType]

    def _warnings(self, target: float, settling: bool = True) -> tuple[str, ...]:
        """What is known to mislead (`docs/dynamics.md`)."""
        said = []
        if not math.isfinite(self.floor):
            said.append("The mean square grows without bound: no time to settle exists.")
        elif self.floor >= target:
            said.append(
                f"The noise floor, {self.floor:.3g}, is not below the target: the mean loss never settles, "
                "though paths hit the target by chance."
            )
        elif self.floor > 0.5 * target:
            said.append(
                f"The noise floor is {self.floor / target:.2f} of the target: paths first hit it earlier than the "
                "mean loss does, by 8 to 40 % with few modes."
            )
        if len(self._gains) == 1 and not settling:
            said.append(
                "One mode: the first hitting time is that of the first crossing of zero, as early for a path that "
                "diverges; ask for settling."
            )
        return tuple(said)

    def _late(self, settles: bool, target: float, horizon: float) -> tuple[str, ...]:
        if settles or not self.floor < target:
            return ()
        return (f"The mean loss has not settled by {horizon:.3g} s, the last time looked at.",)

    def _plan(self, grid: Grid, saved: int) -> ModePlan:
        """Numbers of the trapezoid scheme."""
        dense = np.zeros(int(grid.offsets[-1]) + 2)  # lags -1, 0, ...
        np.add.at(dense, grid.offsets + 1, 0.5 * grid.step * grid.weights)
        np.add.at(dense, grid.offsets, 0.5 * grid.step * grid.weights)
        lags = np.flatnonzero(dense[1:])
        grows = bool(self._growths.any())
        bridge = isinstance(self.law, Constant) and self.law.value > 0.0
        noises = grid.step * self._noises * (1.0 + ((self._gains * grid.step) ** 2 / 12.0 if bridge else 0.0))
        return ModePlan(
            grid.steps,
            min(_CHUNK, max(int(grid.offsets[0]), 1)) if grows else _CHUNK,
            grid.saved(checks.at_least("saved", saved, 2)),
            lags,
            dense[1:][lags],
            self._gains,
            1.0 / (1.0 + self._gains * dense[0]),
            np.sqrt(noises),
            grid.step * self._growths,
            self._halves,
            self._starts,
            grid.offsets if grows else np.zeros(0, np.int64),
            grid.weights if grows else np.zeros(0),
            NO_LEVEL,
            0.0,
        )


def _walker(plan: ModePlan):
    """What makes a function that walks 64 copies for each group."""

    def prepare(seed: np.random.SeedSequence):
        room = mode_room(plan, streams(seed))

        def run() -> tuple[Array, Array]:
            run_modes(plan, room)
            return room.values, room.stay

        return run

    return prepare


def _product(a: Array, b: Array) -> Array:
    """Product of two power series, as many terms as they have."""
    length = 2 * len(a)
    return np.fft.irfft(np.fft.rfft(a, length) * np.fft.rfft(b, length), length)[: len(a)]


def _variance(curvatures: Array, squares: Array, spreads: Array) -> Array:
    """Variance of half the weighted sum of squares of independent normals with these squared means and variances."""
    return 0.5 * curvatures**2 @ (spreads**2 + 2.0 * squares * spreads)


def _numbers(name: str, values: ArrayLike, count: int | None) -> Array:
    """One number a mode."""
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number or one for each mode, got {values!r}") from None
    if count is not None and array.ndim == 0:
        array = np.full(count, float(array))
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1 or len(array) == 0 or (count is not None and len(array) != count):
        wanted = "one or more numbers" if count is None else f"a number or {count} numbers, one for each gain"
        raise InputError(f"{name} must be {wanted}, got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array
