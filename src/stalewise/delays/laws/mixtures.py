"""Delays that follow now one law, now another: chosen anew each time, or in regimes that last."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.delays.compiled import Component, Kind
from stalewise.delays.laws.base import AbstractDelay, Array, Complex, chosen_sample, number
from stalewise.delays.laws.inversion import first_reaching
from stalewise.delays.laws.light import ShiftedExponential
from stalewise.errors import InputError


class AbstractChoice(AbstractDelay):
    """One delay follows law i with probability ``probabilities[i]``; from delay to delay i is a Markov chain."""

    laws: tuple[AbstractDelay, ...]

    @property
    @abstractmethod
    def probabilities(self) -> Array:
        """P(law i) of one delay, shape (laws,), sums to 1."""

    @property
    @abstractmethod
    def transitions(self) -> Array:
        """P(law j next | law i now), shape (laws, laws)."""

    def _averaged(self, values: Sequence) -> Array:
        return np.tensordot(self.probabilities, np.array(values), axes=1)

    @functools.cached_property
    def mean(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        return float(self._averaged([law.mean for law in self.laws]))

    @functools.cached_property
    def variance(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        return float(self._averaged([law.variance + (law.mean - self.mean) ** 2 for law in self.laws]))

    @property
    def abscissa(self) -> float:
        return max(law.abscissa for law in self.laws)

    def autocovariance(self, lag: int) -> float:
        r"""Covariance of the laws' means along the chain, and what each law remembers of its own last use [s^2].

        :math:`\sum_{ij} \pi_i (P^k)_{ij} (m_i - m)(m_j - m) + \sum_i \pi_i \sum_j P(i \text{ again, for the } j
        \text{-th time}) c_i(j)`.
        """
        chain = self.transitions
        off = np.array([law.mean for law in self.laws]) - self.mean
        between = float((self.probabilities * off) @ np.linalg.matrix_power(chain, lag) @ off)
        own = [
            float(self.probabilities[i] * (self._returns(i, lag) @ [law.autocovariance(j) for j in range(1, lag + 1)]))
            for i, law in enumerate(self.laws)
            if not law.independent
        ]
        return between + sum(own)

    def _returns(self, i: int, lag: int) -> Array:
        """P(law i again after ``lag`` delays, used j times on the way, this one counted), j = 1..lag."""
        state = np.zeros((len(self.laws), lag + 1))
        state[i, 0] = 1.0
        for _ in range(lag):
            state = self.transitions.T @ state
            state[i] = np.roll(state[i], 1)
        return state[i, 1:]

    def survival(self, t: ArrayLike) -> Array:
        return self._averaged([law.survival(t) for law in self.laws])

    def cdf(self, t: ArrayLike) -> Array:
        return self._averaged([law.cdf(t) for law in self.laws])

    def density(self, t: ArrayLike) -> Array:
        return self._averaged([law.density(t) for law in self.laws])

    def continuous_survival(self, t: ArrayLike) -> Array:
        return self._averaged([law.continuous_survival(t) for law in self.laws])

    @property
    def atoms(self) -> tuple[Array, Array]:
        found = [law.atoms for law in self.laws]
        values = np.concatenate([value for value, _ in found])
        weights = np.concatenate([p * weight for p, (_, weight) in zip(self.probabilities, found, strict=True)])
        distinct, which = np.unique(values, return_inverse=True)
        return distinct, np.asarray(np.bincount(which, weights, minlength=len(distinct)), np.float64)

    def panels(self) -> Array:
        return np.unique(np.concatenate([law.panels() for law in self.laws]))

    def quantile(self, p: ArrayLike) -> Array:
        """By bisection between the least and the greatest quantile of the laws."""
        p = np.asarray(p, float)
        ends = [law.quantile(p) for law in self.laws]
        return self._between(lambda t: self.cdf(t) >= p, np.array(ends))

    def tail_quantile(self, q: ArrayLike) -> Array:
        q = np.asarray(q, float)
        ends = [law.tail_quantile(q) for law in self.laws]
        return self._between(lambda t: self.survival(t) <= q, np.array(ends))

    def _between(self, reached: Callable[[Array], NDArray[np.bool_]], ends: Array) -> Array:
        """Bisection between the least and the greatest of the laws' own answers; infinite where one of these is."""
        infinite = np.isinf(ends).any(axis=0)
        low, high = np.where(infinite, 0.0, ends.min(axis=0)), np.where(infinite, 0.0, ends.max(axis=0))
        return np.where(infinite, np.inf, first_reaching(reached, low, high))

    def excess(self, t: ArrayLike) -> Array:
        return self._averaged([law.excess(t) for law in self.laws])

    def laplace(self, s: ArrayLike) -> Complex:
        return np.asarray(self._averaged([law.laplace(s) for law in self.laws]), np.complex128)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return chosen_sample(self.laws, self.probabilities, n, rng, "sample")

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        shares = self.probabilities * [law.mean for law in self.laws] / self.mean
        return chosen_sample(self.laws, shares / shares.sum(), n, rng, "sample_length_biased")


@dataclass(frozen=True)
class Mixture(AbstractChoice):
    """Each delay follows one of ``laws``, chosen independently in proportion to ``weights``."""

    laws: tuple[AbstractDelay, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "laws", _laws("mixture", self.laws))
        object.__setattr__(self, "weights", _numbers("mixture: weights", self.weights, len(self.laws), "laws"))

    def __str__(self) -> str:
        weights = _listed(self.weights)
        if all(isinstance(law, ShiftedExponential) and law.shift == 0 for law in self.laws):
            return f"hyperexponential(means={_listed([law.mean for law in self.laws])}, weights={weights})"
        return f"mixture(laws=[{', '.join(map(str, self.laws))}], weights={weights})"

    @functools.cached_property
    def probabilities(self) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return np.array(self.weights) / sum(self.weights)

    @property
    def transitions(self) -> Array:
        return np.tile(self.probabilities, (len(self.laws), 1))

    @property
    def independent(self) -> bool:
        return all(law.independent for law in self.laws)

    def components(self) -> tuple[Component, ...]:
        branches = tuple(law.components() for law in self.laws)
        chances = tuple((float(p), 0.0, law.mean) for p, law in zip(self.probabilities, self.laws, strict=True))
        return (Component(Kind.MIXTURE, branches=branches, chances=chances),)


def Hyperexponential(means: Sequence[float], weights: Sequence[float]) -> Mixture:
    """Exponential delays whose mean [s] is one of ``means``, in proportion to ``weights``."""
    means = _numbers("hyperexponential: means", means)
    weights = _numbers("hyperexponential: weights", weights, len(means), "means")
    return Mixture(tuple(ShiftedExponential(0.0, mean) for mean in means), weights)


@dataclass(frozen=True)
class Regimes(AbstractChoice):
    r"""Every worker goes through regimes that last; within one its delays are independent draws of that regime's law.

    The regime of a delay is that at its start. After each delay of mean :math:`m_i` the worker leaves regime i with
    probability :math:`m_i/\text{dwell}_i`, for any other regime with equal chance. So a visit to regime i is a
    geometric number of delays, and lasts ``dwell[i]`` seconds of the worker's busy time on average, exactly (Wald).
    Hence of all time the share :math:`\text{dwell}_i/\sum_j \text{dwell}_j` is spent in regime i, and of all delays
    the share :math:`\pi_i \propto \text{dwell}_i/m_i` is of law i: mean, variance, cdf, transform are those of this
    mixture. What distinguishes the two is `autocorrelation`.

    ``dwell``: mean time in each regime [s], one for all or one each; at least the regime's mean delay.

    Source:
        Fischer & Meier-Hellstern (1993), The Markov-modulated Poisson process cookbook (the process in continuous
        time; here the chain moves at the ends of delays, which keeps the marginal law in closed form).
    """

    laws: tuple[AbstractDelay, ...]
    dwell: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "laws", _laws("regimes", self.laws))
        if len(self.laws) < 2:
            raise InputError("regimes: laws must be two or more, got 1; write the law alone")
        dwell = [self.dwell] * len(self.laws) if not isinstance(self.dwell, Sequence | np.ndarray) else self.dwell
        object.__setattr__(self, "dwell", _numbers("regimes: dwell", dwell, len(self.laws), "laws"))
        for law, time in zip(self.laws, self.dwell, strict=True):
            checks.positive(f"regimes: mean of {law}", law.mean, "seconds")
            if time < law.mean:
                raise InputError(
                    f"regimes: dwell must be at least the mean delay of its law, got {time!r} seconds for {law} with "
                    f"mean {law.mean:.6g}; for laws chosen anew each time write mixture(laws, weights)"
                )

    def __str__(self) -> str:
        dwell = number(self.dwell[0]) if len(set(self.dwell)) == 1 else _listed(self.dwell)
        return f"regimes(laws=[{', '.join(map(str, self.laws))}], dwell={dwell})"

    @functools.cached_property
    def _leaving(self) -> Array:
        """P(leave regime i after a delay), shape (laws,)."""
        return np.array([law.mean for law in self.laws]) / self.dwell

    @functools.cached_property
    def probabilities(self) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        visits = 1.0 / self._leaving
        return visits / visits.sum()

    @property
    def transitions(self) -> Array:
        chain = np.outer(self._leaving, np.ones(len(self.laws))) / (len(self.laws) - 1)
        np.fill_diagonal(chain, 1.0 - self._leaving)
        return chain

    @property
    def independent(self) -> bool:
        return False

    def components(self) -> tuple[Component, ...]:
        chances = zip(self.probabilities, self._leaving, (law.mean for law in self.laws), strict=True)
        branches = tuple(law.components() for law in self.laws)
        return (
            Component(Kind.REGIMES, branches=branches, chances=tuple((float(p), float(q), m) for p, q, m in chances)),
        )


def _laws(name: str, laws: Sequence[AbstractDelay]) -> tuple[AbstractDelay, ...]:
    if not isinstance(laws, Sequence) or not laws or not all(isinstance(law, AbstractDelay) for law in laws):
        raise InputError(f"{name}: laws must be a list of one or more delay laws, got {laws!r}")
    return tuple(laws)


def _numbers(name: str, values: Sequence[float], count: int | None = None, of: str = "") -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
        raise InputError(f"{name} must be a list of one or more numbers, got {values!r}")
    if count is not None and len(values) != count:
        raise InputError(f"{name} must have one value for each of {count} {of}, got {len(values)} value(s)")
    return tuple(checks.positive(f"{name}[{i}]", value) for i, value in enumerate(values))


def _listed(values: Sequence[float]) -> str:
    return f"[{', '.join(map(number, values))}]"
