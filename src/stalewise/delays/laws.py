r"""Laws of one delay: how long a gradient takes [s].

Every law knows its mean, variance, distribution function, quantiles, Laplace
transform :math:`\varphi(s) = \mathrm E\,e^{-sD}` and how to sample. SciPy is
used for what SciPy has; transforms are closed forms where there is one.
"""

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from stalewise import checks
from stalewise.delays.compiled import Component, Kind
from stalewise.errors import InputError

Array = NDArray[np.float64]
_LEGENDRE_NODES, _LEGENDRE_WEIGHTS = np.polynomial.legendre.leggauss(32)


class AbstractDelay(ABC):
    """The law of one delay [s]. Frozen; ``str(law)`` is the text `parse_delay` reads."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """Expected delay [s]."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Variance of the delay [s^2]."""

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
    def closed_transform(self) -> bool:
        """Whether `laplace` costs a formula and not a sum over samples."""
        return True

    @abstractmethod
    def cdf(self, t: ArrayLike) -> Array:
        """P(D <= t), element by element."""

    @abstractmethod
    def quantile(self, p: ArrayLike) -> Array:
        """Smallest t with P(D <= t) >= p."""

    @abstractmethod
    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        r"""Transform :math:`\mathrm E\,e^{-sD}` at complex ``s`` [1/s], element by element."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """``n`` independent delays [s]."""

    @abstractmethod
    def components(self) -> tuple[Component, ...]:
        """The law as the compiled event kernel reads it: one entry a summand."""

    def survival(self, t: ArrayLike) -> Array:
        """P(D > t), element by element."""
        return 1.0 - self.cdf(t)

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


@dataclass(frozen=True)
class Constant(AbstractDelay):
    """Every delay equals ``value`` [s]; zero is allowed (a link that costs nothing)."""

    value: float

    def __post_init__(self) -> None:
        checks.non_negative("constant: value", self.value, "seconds")

    def __str__(self) -> str:
        return f"constant({self.value:.12g})"

    @property
    def mean(self) -> float:
        return float(self.value)

    @property
    def variance(self) -> float:
        return 0.0

    def cdf(self, t: ArrayLike) -> Array:
        return (np.asarray(t, float) >= self.value).astype(float)

    def quantile(self, p: ArrayLike) -> Array:
        return np.full_like(np.asarray(p, float), self.value)

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        return np.exp(-np.asarray(s, complex) * self.value)

    def sample(self, n: int, rng: np.random.Generator) -> Array:  # noqa: ARG002
        return np.full(n, float(self.value))

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.CONSTANT, self.value),)


class AbstractContinuous(AbstractDelay):
    """A law that SciPy has: everything but the transform comes from the frozen distribution."""

    @functools.cached_property
    @abstractmethod
    def frozen(self) -> "stats.distributions.rv_frozen":
        """The SciPy distribution."""

    @property
    def mean(self) -> float:
        return float(self.frozen.mean())

    @property
    def variance(self) -> float:
        return float(self.frozen.var())

    def cdf(self, t: ArrayLike) -> Array:
        return np.asarray(self.frozen.cdf(t), float)

    def survival(self, t: ArrayLike) -> Array:
        return np.asarray(self.frozen.sf(t), float)

    def quantile(self, p: ArrayLike) -> Array:
        return np.asarray(self.frozen.ppf(p), float)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return np.asarray(self.frozen.rvs(n, random_state=rng), float)


@dataclass(frozen=True)
class ShiftedExponential(AbstractContinuous):
    """A fixed ``shift`` [s] plus an exponential part of the given ``mean`` [s]."""

    shift: float
    exponential_mean: float

    def __post_init__(self) -> None:
        checks.non_negative("shifted_exponential: shift", self.shift, "seconds")
        checks.positive("shifted_exponential: mean", self.exponential_mean, "seconds")

    def __str__(self) -> str:
        if self.shift == 0:
            return f"exponential(mean={self.exponential_mean:.12g})"
        return f"shifted_exponential(shift={self.shift:.12g}, mean={self.exponential_mean:.12g})"

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return stats.expon(self.shift, self.exponential_mean)

    @property
    def abscissa(self) -> float:
        return -1.0 / self.exponential_mean

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        s = np.asarray(s, complex)
        return np.asarray(np.exp(-s * self.shift) / (1.0 + s * self.exponential_mean), complex)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.SHIFTED_EXPONENTIAL, self.shift, self.exponential_mean),)


def Exponential(mean: float) -> ShiftedExponential:
    """Memoryless delay of the given ``mean`` [s]."""
    checks.positive("exponential: mean", mean, "seconds")
    return ShiftedExponential(0.0, mean)


@dataclass(frozen=True)
class Gamma(AbstractContinuous):
    """Gamma law by ``gamma_mean`` [s] and ``shape`` (CV = 1/sqrt(shape)); Erlang for whole shapes."""

    gamma_mean: float
    shape: float

    def __post_init__(self) -> None:
        checks.positive("gamma: mean", self.gamma_mean, "seconds")
        checks.positive("gamma: shape", self.shape)

    def __str__(self) -> str:
        return f"gamma(mean={self.gamma_mean:.12g}, shape={self.shape:.12g})"

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return stats.gamma(self.shape, scale=self.gamma_mean / self.shape)

    @property
    def abscissa(self) -> float:
        return -self.shape / self.gamma_mean

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        s = np.asarray(s, complex)
        return np.exp(-self.shape * np.log1p(s * (self.gamma_mean / self.shape)))

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.GAMMA, self.shape, self.gamma_mean / self.shape),)


@dataclass(frozen=True)
class Lognormal(AbstractContinuous):
    """Lognormal law by ``lognormal_mean`` [s] and coefficient of variation."""

    lognormal_mean: float
    lognormal_cv: float

    def __post_init__(self) -> None:
        checks.positive("lognormal: mean", self.lognormal_mean, "seconds")
        checks.positive("lognormal: cv", self.lognormal_cv)

    def __str__(self) -> str:
        return f"lognormal(mean={self.lognormal_mean:.12g}, cv={self.lognormal_cv:.12g})"

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return math.sqrt(math.log1p(self.lognormal_cv**2))

    @property
    def median(self) -> float:
        """Median delay [s]."""
        return self.lognormal_mean / math.sqrt(1.0 + self.lognormal_cv**2)

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return stats.lognorm(self.sigma, scale=self.median)

    @property
    def abscissa(self) -> float:
        return 0.0

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        r"""Trapezoid rule on a horizontal line near the saddle point; absolute error 1e-11 for Re s >= 0.

        With :math:`D = m e^{\sigma Z}` the integrand :math:`\exp(-s m e^{\sigma z} - z^2/2)` is entire, so the line of
        integration may be moved. Its saddle is :math:`z_0 = -w/\sigma` with :math:`w = W(s m \sigma^2)`, the principal
        Lambert branch (Asmussen, Jensen & Rojas-Nandayapa, 2016). At :math:`z = z_0 + y` the exponent is
        :math:`-w(2 + w)/(2\sigma^2) - y^2/2 + (w/\sigma^2)(1 + \sigma y - e^{\sigma y})`: for real y its bracket is
        never positive and Re w >= 0, so nothing cancels. Where the double exponential would still oscillate (small s,
        wide law) the line moves on by at most 1, which costs a factor :math:`e^{1/2}` and turns its argument towards
        :math:`\arg(s)/2`. For Re s < 0 the transform does not exist and the answer is NaN.
        """
        s = np.asarray(s, complex)
        flat = s.ravel()
        exists = np.real(flat) >= 0
        w = special.lambertw(np.where(exists, flat, 0.0) * (self.median * self.sigma**2))
        half = 0.5 * np.angle(flat)
        turn = np.sign(half) * np.clip(np.abs(half) - np.abs(np.imag(w)), 0.0, self.sigma)
        x = np.linspace(-9.5, 9.5, 401)
        y = x - 1j * turn[:, None] / self.sigma
        bend = self.sigma * y - np.expm1(self.sigma * y)
        exponent = (bend - 0.5 * w[:, None] - 1.0) * (w[:, None] / self.sigma**2) - 0.5 * y * y
        value = np.exp(exponent).sum(axis=1) * ((x[1] - x[0]) / math.sqrt(2.0 * math.pi))
        return np.where(exists, value, np.nan).reshape(s.shape)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.LOGNORMAL, math.log(self.median), self.sigma),)


@dataclass(frozen=True)
class Uniform(AbstractContinuous):
    """Uniform between ``low`` and ``high`` [s]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        checks.non_negative("uniform: low", self.low, "seconds")
        checks.positive("uniform: high", self.high, "seconds")
        if self.high <= self.low:
            raise InputError(f"uniform: high must exceed low, got low={self.low!r}, high={self.high!r} (seconds)")

    def __str__(self) -> str:
        return f"uniform(low={self.low:.12g}, high={self.high:.12g})"

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return stats.uniform(self.low, self.high - self.low)

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        s = np.asarray(s, complex)
        width = s * (self.high - self.low)
        safe = np.where(width == 0, 1.0, width)
        return np.exp(-s * self.low) * np.where(width == 0, 1.0, -np.expm1(-safe) / safe)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.UNIFORM, self.low, self.high),)


class AbstractSampled(AbstractDelay):
    """A law known by samples: every one has the same weight."""

    @functools.cached_property
    @abstractmethod
    def values(self) -> Array:
        """Sorted sample, shape (n,) [s]."""

    @functools.cached_property
    def _identity(self) -> tuple[str, bytes]:
        """The text form, and a digest of the samples in their order."""
        digest = hashlib.blake2b()
        for component in self.components():
            for sequence in component.sequences:
                digest.update(len(sequence).to_bytes(8, "little") + np.ascontiguousarray(sequence).tobytes())
        return str(self), digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AbstractSampled) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def variance(self) -> float:
        return float(self.values.var())

    @property
    def closed_transform(self) -> bool:
        return False

    def cdf(self, t: ArrayLike) -> Array:
        return np.searchsorted(self.values, np.asarray(t, float), side="right") / len(self.values)

    def quantile(self, p: ArrayLike) -> Array:
        return np.quantile(self.values, np.asarray(p, float), method="inverted_cdf")

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        s = np.asarray(s, complex)
        values, weights = self._compressed
        return (np.exp(-s[..., None] * values) * weights).sum(axis=-1)

    @functools.cached_property
    def _compressed(self) -> tuple[Array, Array]:
        """At most 2,000 groups of neighbours, half cut by count and half by width, each by two points.

        The two keep the group's mean and variance. Cuts by width keep the tail, where equal counts are far apart.
        """
        values = self.values
        if len(values) <= 4000:
            found, counts = np.unique(values, return_counts=True)
            return found, counts / len(values)
        cuts = np.concatenate([values[:: -(-len(values) // 1000)], np.linspace(values[0], values[-1], 1000)])
        _, group = np.unique(np.searchsorted(np.unique(cuts), values, side="right"), return_inverse=True)
        counts = np.bincount(group)
        middle = np.bincount(group, values) / counts
        spread = np.sqrt(np.bincount(group, (values - middle[group]) ** 2) / counts)
        return np.concatenate([middle - spread, middle + spread]), np.tile(counts / (2.0 * len(values)), 2)


@dataclass(frozen=True, eq=False)
class Empirical(AbstractSampled):
    """Independent draws from measured delays, pooled over workers. ``source`` is what the text form names."""

    sample_values: Array = field(repr=False)
    source: str = "sample"

    def __post_init__(self) -> None:
        _check_sample("empirical", self.sample_values)

    def __str__(self) -> str:
        return f'empirical("{self.source}")'

    @functools.cached_property
    def values(self) -> Array:
        return np.sort(np.asarray(self.sample_values, float))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return rng.choice(self.values, n)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.EMPIRICAL, sequences=(self.values,)),)


@dataclass(frozen=True, eq=False)
class Replay(AbstractSampled):
    """Measured delays replayed in order, per worker: keeps autocorrelation and differences between workers.

    Worker ``i`` replays sequence ``i mod len(sequences)`` from a random place, and starts over at its end. As a law
    (mean, cdf, transform) it is what one gradient picked at random from the record looks like: a worker that logged
    more gradients counts for more.
    """

    sequences: tuple[Array, ...] = field(repr=False)
    source: str = "trace"

    def __post_init__(self) -> None:
        if not self.sequences:
            raise InputError("trace: no worker in it, at least one is needed")
        for sequence in self.sequences:
            _check_sample("trace", sequence)

    def __str__(self) -> str:
        return f'trace("{self.source}")'

    @functools.cached_property
    def values(self) -> Array:
        return np.sort(np.concatenate(self.sequences))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return rng.choice(self.values, n)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.REPLAY, sequences=self.sequences),)


@dataclass(frozen=True)
class Sum(AbstractDelay):
    """Sum of independent delays."""

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
    def closed_transform(self) -> bool:
        return all(part.closed_transform for part in self.parts)

    def cdf(self, t: ArrayLike) -> Array:
        """Distribution function: shift for a constant part, else the convolution on a grid of 65,536 points.

        The grid runs to the 1e-7 tail; the error is at most the mass within a few of its steps.
        """
        t = np.asarray(t, float)
        fixed = sum(part.value for part in self.parts if isinstance(part, Constant))
        moving = [part for part in self.parts if not isinstance(part, Constant)]
        if len(moving) == 1:
            return moving[0].cdf(t - fixed)
        grid, values = self._tabulated
        return np.interp(t - fixed, grid, values, left=0.0, right=1.0)

    @functools.cached_property
    def _tabulated(self) -> tuple[Array, Array]:
        moving = [part for part in self.parts if not isinstance(part, Constant)]
        end = sum(float(part.quantile(1.0 - 1e-7)) for part in moving)
        grid = np.linspace(0.0, end, 2**16)
        step = grid[1]
        mass = np.array([1.0])
        for part in moving:
            edges = np.concatenate([[0.0], grid + 0.5 * step])
            piece = np.diff(part.cdf(edges))
            mass = np.fft.irfft(np.fft.rfft(mass, 2**17) * np.fft.rfft(piece, 2**17), 2**17)[: 2**16]
        total = np.cumsum(np.maximum(mass, 0.0))
        return np.concatenate([[0.0], grid + 0.5 * step]), np.concatenate([[0.0], np.minimum(total, 1.0)])

    def quantile(self, p: ArrayLike) -> Array:
        fixed = sum(part.value for part in self.parts if isinstance(part, Constant))
        moving = [part for part in self.parts if not isinstance(part, Constant)]
        if len(moving) == 1:
            return moving[0].quantile(p) + fixed
        grid, values = self._tabulated
        return np.interp(np.asarray(p, float), values, grid) + fixed

    def laplace(self, s: ArrayLike) -> NDArray[np.complex128]:
        return np.prod([part.laplace(s) for part in self.parts], axis=0)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return np.sum([part.sample(n, rng) for part in self.parts], axis=0)

    def components(self) -> tuple[Component, ...]:
        return tuple(component for part in self.parts for component in part.components())


def _check_sample(name: str, values: Array | Sequence[float]) -> None:
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) == 0:
        raise InputError(f"{name}: needs at least one delay, got shape {values.shape}")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{name}: every delay must be positive and finite, got {values[at]!r} seconds at position {at}"
        )
