r"""What every law of one delay knows, and the laws everything else is built with: constants and sums.

Times are seconds. Transforms are :math:`\varphi(s) = \mathrm E\,e^{-sD}` with complex s [1/s].
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stalewise import checks
from stalewise.delays.compiled import Component, Kind
from stalewise.delays.laws.convolution import ConvolvedTail
from stalewise.delays.laws.inversion import first_reaching

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
LEVELS = np.concatenate([np.geomspace(1e-12, 0.25, 18), np.linspace(0.25, 0.75, 7)[1:-1]])
TAIL_LEVELS = np.geomspace(0.25, 1e-30, 43)


def number(value: float) -> str:
    """A number as text that reads back as the same number: 12 digits where they do, else as many as it takes."""
    short = f"{value:.12g}"
    return short if float(short) == value else repr(float(value))


@functools.lru_cache(maxsize=512)
def freeze(name: str, *arguments: float, **scale: float) -> "stats.distributions.rv_frozen":
    """SciPy's distribution of this name; kept, for it takes 5 ms to make one."""
    return getattr(stats, name)(*arguments, **scale)


class AbstractDelay(ABC):
    """The law of one delay [s]. Frozen; ``str(law)`` is the text `parse_delay` reads."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """Expected delay [s]."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Variance of the delay [s^2]; infinite for tails too heavy to have one."""

    @property
    def cv(self) -> float:
        """Coefficient of variation: standard deviation over mean."""
        return math.sqrt(self.variance) / self.mean if self.mean > 0 else 0.0

    @property
    def abscissa(self) -> float:
        r"""Left end of the half plane where the transform exists [1/s].

        Zero for a heavy tail: then no mean decays exponentially.
        """
        return -math.inf

    @property
    def transform_domain(self) -> str:
        """Where `laplace` is the expectation, in words."""
        if self.abscissa == 0.0:
            return "Re s >= 0 only: the tail is heavier than every exponential, left of the axis the answer is NaN"
        if math.isinf(self.abscissa):
            return "every s"
        return f"Re s > {self.abscissa:.6g} 1/s; left of that the formula's continuation, which is no expectation"

    @property
    def independent(self) -> bool:
        """Whether a worker's successive delays are independent."""
        return True

    def autocorrelation(self, lag: int) -> float:
        """Correlation of a worker's delays ``lag`` gradients apart; NaN where the variance is infinite."""
        lag = checks.at_least("autocorrelation: lag", lag, 0)
        if lag == 0 or self.variance == 0.0:
            return 1.0 if lag == 0 else 0.0
        if self.independent:
            return 0.0
        return self.autocovariance(lag) / self.variance if math.isfinite(self.variance) else math.nan

    def autocovariance(self, lag: int) -> float:  # noqa: ARG002
        """Covariance of delays ``lag`` >= 1 gradients apart [s^2]."""
        return 0.0

    @abstractmethod
    def survival(self, t: ArrayLike) -> Array:
        """P(D > t), element by element; small values keep their digits."""

    def cdf(self, t: ArrayLike) -> Array:
        """P(D <= t), element by element."""
        return 1.0 - self.survival(t)

    @abstractmethod
    def density(self, t: ArrayLike) -> Array:
        """Density of the continuous part [1/s], element by element; see `atoms` for the rest."""

    @property
    def atoms(self) -> tuple[Array, Array]:
        """Values that have a probability of their own [s], ascending, and these probabilities, each of shape (n,)."""
        return np.zeros(0), np.zeros(0)

    def continuous_survival(self, t: ArrayLike) -> Array:
        """P(D > t, and D is no atom)."""
        return self.survival(t)

    @abstractmethod
    def quantile(self, p: ArrayLike) -> Array:
        """Smallest t with P(D <= t) >= p."""

    @abstractmethod
    def tail_quantile(self, q: ArrayLike) -> Array:
        """Smallest t with P(D > t) <= q: the quantile of 1 - q for q that 1 - q would lose."""

    @abstractmethod
    def excess(self, t: ArrayLike) -> Array:
        r"""Mean part of a delay beyond t >= 0, :math:`\mathrm E(D - t)^+ = \int_t^\infty P(D > u)\,du` [s]."""

    @abstractmethod
    def laplace(self, s: ArrayLike) -> Complex:
        r"""Transform :math:`\mathrm E\,e^{-sD}` at complex ``s`` [1/s], element by element; see `transform_domain`."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """``n`` independent delays [s]."""

    @abstractmethod
    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        r"""``n`` independent delays drawn in proportion to their length, law :math:`t\,dF(t)/\mu` [s]."""

    @abstractmethod
    def components(self) -> tuple[Component, ...]:
        """The law as the compiled event kernel reads it: one entry a summand."""

    def equilibrium(self) -> "Equilibrium":
        """Law of the time that is left of a delay seen at a random moment."""
        return Equilibrium(self)

    def panels(self) -> Array:
        """Times [s] between which the density is smooth on the scale of their distance; none for a law of atoms.

        Quantiles from 1e-12 to the 1e-30 tail, and more so that distances from the least delay at most quadruple.
        """
        found = np.concatenate([[self.quantile(0.0)], self.quantile(LEVELS), self.tail_quantile(TAIL_LEVELS)])
        found = np.unique(found[np.isfinite(found)])
        steps = np.log(found[1:] - found[0])
        count = math.ceil((steps[-1] - steps[0]) / math.log(4.0)) + 1
        return np.unique(np.concatenate([found, found[0] + np.exp(np.linspace(steps[0], steps[-1], count))]))

    def __add__(self, other: "AbstractDelay") -> "AbstractDelay":
        """Law of the sum of two independent delays."""
        if not isinstance(other, AbstractDelay):
            return NotImplemented
        parts = [part for law in (self, other) for part in (law.parts if isinstance(law, Sum) else (law,))]
        fixed = sum(part.value for part in parts if isinstance(part, Constant))
        moving = [part for part in parts if not isinstance(part, Constant)]
        if not moving:
            return Constant(fixed)
        if fixed > 0:
            moving.append(Constant(fixed))
        return moving[0] if len(moving) == 1 else Sum(tuple(moving))


class AbstractContinuous(AbstractDelay):
    """A law that SciPy has: what SciPy knows comes from the frozen distribution."""

    @functools.cached_property
    @abstractmethod
    def frozen(self) -> "stats.distributions.rv_frozen":
        """The SciPy distribution."""

    @functools.cached_property
    def _mean(self) -> float:
        return float(self.frozen.mean())

    @functools.cached_property
    def _variance(self) -> float:
        return float(self.frozen.var())

    @property
    def mean(self) -> float:
        return self._mean

    @property
    def variance(self) -> float:
        return self._variance

    def cdf(self, t: ArrayLike) -> Array:
        return np.asarray(self.frozen.cdf(t), float)

    def survival(self, t: ArrayLike) -> Array:
        return np.asarray(self.frozen.sf(t), float)

    def density(self, t: ArrayLike) -> Array:
        return np.asarray(self.frozen.pdf(t), float)  # pyright: ignore[reportAttributeAccessIssue]

    def quantile(self, p: ArrayLike) -> Array:
        return np.asarray(self.frozen.ppf(p), float)

    def tail_quantile(self, q: ArrayLike) -> Array:
        return np.asarray(self.frozen.isf(q), float)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return np.asarray(self.frozen.rvs(n, random_state=rng), float)


@dataclass(frozen=True)
class Constant(AbstractDelay):
    """Every delay equals ``value`` [s]; zero is allowed (a link that costs nothing)."""

    value: float

    def __post_init__(self) -> None:
        checks.non_negative("constant: value", self.value, "seconds")

    def __str__(self) -> str:
        return f"constant({number(self.value)})"

    @property
    def mean(self) -> float:
        return float(self.value)

    @property
    def variance(self) -> float:
        return 0.0

    @property
    def atoms(self) -> tuple[Array, Array]:
        return np.array([float(self.value)]), np.ones(1)

    def survival(self, t: ArrayLike) -> Array:
        return (np.asarray(t, float) < self.value).astype(float)

    def continuous_survival(self, t: ArrayLike) -> Array:
        return np.zeros_like(np.asarray(t, float))

    def panels(self) -> Array:
        return np.zeros(0)

    def density(self, t: ArrayLike) -> Array:
        return np.zeros_like(np.asarray(t, float))

    def quantile(self, p: ArrayLike) -> Array:
        return np.full_like(np.asarray(p, float), self.value)

    def tail_quantile(self, q: ArrayLike) -> Array:
        return self.quantile(q)

    def excess(self, t: ArrayLike) -> Array:
        return np.maximum(self.value - np.asarray(t, float), 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        return np.exp(-np.asarray(s, complex) * self.value)

    def sample(self, n: int, rng: np.random.Generator) -> Array:  # noqa: ARG002
        return np.full(n, float(self.value))

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return self.sample(n, rng)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.CONSTANT, self.value),)


@dataclass(frozen=True)
class Sum(AbstractDelay):
    """Sum of independent delays; made by ``+``, which puts the constant last."""

    parts: tuple[AbstractDelay, ...]

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self.parts)

    @property
    def mean(self) -> float:
        return sum(part.mean for part in self.parts)

    @property
    def variance(self) -> float:
        return sum(part.variance for part in self.parts)

    @property
    def abscissa(self) -> float:
        return max(part.abscissa for part in self.parts)

    @property
    def independent(self) -> bool:
        return all(part.independent for part in self.parts)

    def autocovariance(self, lag: int) -> float:
        return sum(part.autocovariance(lag) for part in self.parts)

    @functools.cached_property
    def _fixed(self) -> float:
        return float(sum(part.value for part in self.parts if isinstance(part, Constant)))

    @functools.cached_property
    def _moving(self) -> "AbstractDelay | ConvolvedTail":
        """What is left without the constant: the one other part, or the tabulated convolution."""
        moving = [part for part in self.parts if not isinstance(part, Constant)]
        return moving[0] if len(moving) == 1 else ConvolvedTail.of(moving)

    def survival(self, t: ArrayLike) -> Array:
        """P(D > t): shift for a constant, else convolution by Gauss-Legendre panels, tabulated (see `convolution`)."""
        return self._moving.survival(np.asarray(t, float) - self._fixed)

    def density(self, t: ArrayLike) -> Array:
        return self._moving.density(np.asarray(t, float) - self._fixed)

    def continuous_survival(self, t: ArrayLike) -> Array:
        return self._moving.continuous_survival(np.asarray(t, float) - self._fixed)

    def panels(self) -> Array:
        return self._moving.panels() + self._fixed

    @property
    def atoms(self) -> tuple[Array, Array]:
        values, weights = self._moving.atoms
        return values + self._fixed, weights

    def quantile(self, p: ArrayLike) -> Array:
        return self._moving.quantile(p) + self._fixed

    def tail_quantile(self, q: ArrayLike) -> Array:
        return self._moving.tail_quantile(q) + self._fixed

    def excess(self, t: ArrayLike) -> Array:
        beyond = np.asarray(t, float) - self._fixed
        return self._moving.excess(np.maximum(beyond, 0.0)) + np.maximum(-beyond, 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        return np.prod([part.laplace(s) for part in self.parts], axis=0)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return np.sum([part.sample(n, rng) for part in self.parts], axis=0)

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        """One part, chosen in proportion to its mean, is length-biased; the others are as they are."""
        chosen = rng.choice(len(self.parts), n, p=[part.mean / self.mean for part in self.parts])
        total = np.zeros(n)
        for place, part in enumerate(self.parts):
            total += np.where(chosen == place, part.sample_length_biased(n, rng), part.sample(n, rng))
        return total

    def components(self) -> tuple[Component, ...]:
        return tuple(component for part in self.parts for component in part.components())


@dataclass(frozen=True)
class Equilibrium:
    r"""Time left of a delay seen at a random moment: density :math:`P(D > t)/\mu` (the residual law).

    Its mean is :math:`\mathrm E D^2/(2\mu)`, infinite if the variance of D is. Not a law of a delay itself: it
    describes the first gradient of a worker that began long ago.

    Source:
        Cox (1962), Renewal Theory, chapter 5. A delay in which the moment falls is length-biased, and the moment is
        uniform in it, which is how it is sampled.
    """

    delay: AbstractDelay

    def __post_init__(self) -> None:
        checks.positive("equilibrium: mean of the delay", self.delay.mean, "seconds")

    @property
    def mean(self) -> float:
        """Expected time left [s]."""
        return 0.5 * self.delay.mean * (1.0 + self.delay.variance / self.delay.mean**2)

    def density(self, t: ArrayLike) -> Array:
        """Density at t >= 0 [1/s]."""
        t = np.asarray(t, float)
        return np.where(t < 0, 0.0, self.delay.survival(t) / self.delay.mean)

    def survival(self, t: ArrayLike) -> Array:
        """P(time left > t); small values keep their digits."""
        return np.minimum(self.delay.excess(np.maximum(np.asarray(t, float), 0.0)) / self.delay.mean, 1.0)

    def cdf(self, t: ArrayLike) -> Array:
        """P(time left <= t)."""
        return 1.0 - self.survival(t)

    def quantile(self, p: ArrayLike) -> Array:
        """Smallest t with P(time left <= t) >= p, for p below 1."""
        p = np.asarray(p, float)
        high = np.full_like(p, 2.0 * self.delay.mean)
        while (short := self.cdf(high) < np.minimum(p, 1.0 - 1e-15)).any():
            high = np.where(short, 4.0 * high, high)
        return first_reaching(lambda t: self.cdf(t) >= p, np.zeros_like(p), high)

    def laplace(self, s: ArrayLike) -> Complex:
        r"""Transform :math:`(1 - \varphi(s))/(s\mu)`, one at 0; loses as many digits as s mean is small."""
        s = np.asarray(s, complex)
        safe = np.where(s == 0, 1.0, s)
        return np.where(s == 0, 1.0, (1.0 - self.delay.laplace(safe)) / (safe * self.delay.mean))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """``n`` independent draws [s]."""
        return rng.random(n) * self.delay.sample_length_biased(n, rng)


def chosen_sample(
    laws: Sequence[AbstractDelay], weights: Array, n: int, rng: np.random.Generator, method: str
) -> Array:
    """``n`` draws [s], each by ``method`` of a law chosen by its weight."""
    which = rng.choice(len(laws), n, p=weights)
    values = np.empty(n)
    for place, law in enumerate(laws):
        here = which == place
        values[here] = getattr(law, method)(int(here.sum()), rng)
    return values
