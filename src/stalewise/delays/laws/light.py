"""Laws whose tail falls at least exponentially: exponential, gamma, uniform, truncated normal."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from stalewise import checks
from stalewise.delays.compiled import Component, Kind
from stalewise.delays.laws.base import AbstractContinuous, Array, Complex, freeze, number
from stalewise.errors import InputError


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
            return f"exponential(mean={number(self.exponential_mean)})"
        return f"shifted_exponential(shift={number(self.shift)}, mean={number(self.exponential_mean)})"

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return freeze("expon", self.shift, self.exponential_mean)

    @property
    def abscissa(self) -> float:
        return -1.0 / self.exponential_mean

    def excess(self, t: ArrayLike) -> Array:
        t = np.asarray(t, float)
        return self.exponential_mean * self.survival(t) + np.maximum(self.shift - t, 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        s = np.asarray(s, complex)
        return np.asarray(np.exp(-s * self.shift) / (1.0 + s * self.exponential_mean), complex)

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        twice = rng.random(n) * self.mean > self.shift
        return self.shift + self.exponential_mean * rng.standard_gamma(np.where(twice, 2.0, 1.0))

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
        return f"gamma(mean={number(self.gamma_mean)}, shape={number(self.shape)})"

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return freeze("gamma", self.shape, scale=self.gamma_mean / self.shape)

    @property
    def abscissa(self) -> float:
        return -self.shape / self.gamma_mean

    def excess(self, t: ArrayLike) -> Array:
        """Mean beyond t: mean Q(k + 1, x) - t Q(k, x) = mean (Q(k, x) (1 - x/k) + x^k e^-x/Gamma(k + 1))."""
        x = np.asarray(t, float) * (self.shape / self.gamma_mean)
        step = np.exp(special.xlogy(self.shape, x) - x - special.gammaln(self.shape + 1.0))
        return self.gamma_mean * np.maximum(special.gammaincc(self.shape, x) * (1.0 - x / self.shape) + step, 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        s = np.asarray(s, complex)
        return np.exp(-self.shape * special.log1p(s * (self.gamma_mean / self.shape)))

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return self.gamma_mean / self.shape * rng.standard_gamma(self.shape + 1.0, n)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.GAMMA, self.shape, self.gamma_mean / self.shape),)


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
        return f"uniform(low={number(self.low)}, high={number(self.high)})"

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return freeze("uniform", self.low, self.high - self.low)

    def excess(self, t: ArrayLike) -> Array:
        t = np.asarray(t, float)
        inside = np.maximum(self.high - np.maximum(t, self.low), 0.0)
        return 0.5 * inside**2 / (self.high - self.low) + np.maximum(self.low - t, 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        s = np.asarray(s, complex)
        width = s * (self.high - self.low)
        tiny = np.abs(width) < 1e-200  # a quotient of such numbers overflows on the way
        safe = np.where(tiny, 1.0, width)
        return np.exp(-s * self.low) * np.where(tiny, 1.0, -np.expm1(-safe) / safe)

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return np.sqrt(self.low**2 + rng.random(n) * (self.high**2 - self.low**2))

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.UNIFORM, self.low, self.high),)


@dataclass(frozen=True)
class Normal(AbstractContinuous):
    r"""Normal law cut off at 0: that of X given X > 0, X normal with mean ``center`` [s] and deviation ``spread`` [s].

    The text form is ``normal(mean, std)`` with the parameters of X; `mean` and `variance` are those of the delay, after
    the cut: with :math:`\alpha` = center/spread and :math:`\lambda = \phi(\alpha)/\Phi(\alpha)` the mean is
    center + spread :math:`\lambda`, larger than center by 1e-7 of it at :math:`\alpha = 5` and by 29 % at 1.
    """

    center: float
    spread: float

    def __post_init__(self) -> None:
        checks.positive("normal: mean", self.center, "seconds")
        checks.positive("normal: std", self.spread, "seconds")

    def __str__(self) -> str:
        return f"normal(mean={number(self.center)}, std={number(self.spread)})"

    @property
    def _alpha(self) -> float:
        return self.center / self.spread

    @property
    def _hazard(self) -> float:
        alpha = self._alpha
        return math.exp(-0.5 * alpha * alpha) / (math.sqrt(2.0 * math.pi) * float(special.ndtr(alpha)))

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return freeze("truncnorm", -self._alpha, math.inf, self.center, self.spread)

    @property
    def mean(self) -> float:
        return self.center + self.spread * self._hazard

    @property
    def variance(self) -> float:
        return self.spread**2 * (1.0 - self._hazard * (self._alpha + self._hazard))

    def survival(self, t: ArrayLike) -> Array:
        z = (np.maximum(np.asarray(t, float), 0.0) - self.center) / self.spread
        return special.ndtr(-z) / special.ndtr(self._alpha)

    def cdf(self, t: ArrayLike) -> Array:
        z = (np.maximum(np.asarray(t, float), 0.0) - self.center) / self.spread
        return (special.ndtr(z) - special.ndtr(-self._alpha)) / special.ndtr(self._alpha)

    def density(self, t: ArrayLike) -> Array:
        t = np.asarray(t, float)
        z = (t - self.center) / self.spread
        height = self.spread * math.sqrt(2.0 * math.pi) * special.ndtr(self._alpha)
        return np.where(t < 0, 0.0, np.exp(-0.5 * z * z) / height)

    def quantile(self, p: ArrayLike) -> Array:
        rest, p = special.ndtr(-self._alpha), np.asarray(p, float)
        return np.maximum(self.center + self.spread * special.ndtri(rest + p * special.ndtr(self._alpha)), 0.0)

    def tail_quantile(self, q: ArrayLike) -> Array:
        tail = np.asarray(q, float) * special.ndtr(self._alpha)
        return np.maximum(self.center - self.spread * special.ndtri(tail), 0.0)

    def excess(self, t: ArrayLike) -> Array:
        r"""Mean beyond t: spread phi(z) (1 - z M(z))/Phi(alpha), M the Mills ratio."""
        z = (np.asarray(t, float) - self.center) / self.spread
        mills = math.sqrt(0.5 * math.pi) * special.erfcx(np.maximum(z, 0.0) / math.sqrt(2.0))
        height = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        beyond = np.where(z > 0, height * (1.0 - z * mills), height - z * special.ndtr(-z))
        return self.spread * np.maximum(beyond, 0.0) / special.ndtr(self._alpha)

    def laplace(self, s: ArrayLike) -> Complex:
        r"""Faddeeva function: :math:`e^{-\alpha^2/2}\,w(iz)/(2\Phi(\alpha))`, :math:`z = (s\sigma - \alpha)/\sqrt 2`.

        For Re z < 0, where w(iz) is large, by :math:`w(iz) = 2e^{z^2} - w(-iz)`, the first term completed to the
        transform of the normal law itself.
        """
        s, alpha = np.asarray(s, complex), self._alpha
        z = (s * self.spread - alpha) / math.sqrt(2.0)
        left = np.real(z) < 0
        cut = math.exp(-0.5 * alpha * alpha) * special.wofz(1j * np.where(left, -z, z))
        exponent = np.where(left, s * (0.5 * s * self.spread**2 - self.center), 0.0)
        return np.where(left, 2.0 * np.exp(exponent) - cut, cut) / (2.0 * special.ndtr(alpha))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        values = self.center + self.spread * rng.standard_normal(n)
        while (bad := values <= 0).any():
            values[bad] = self.center + self.spread * rng.standard_normal(int(bad.sum()))
        return values

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        r"""Rejection: density in z is :math:`(\alpha + z)\phi(z)`, under alpha phi(z) plus a Rayleigh density."""
        rayleigh = 1.0 / math.sqrt(2.0 * math.pi) / (self._alpha + 1.0 / math.sqrt(2.0 * math.pi))
        values, missing = np.empty(n), np.ones(n, bool)
        while count := int(missing.sum()):
            z = np.where(
                rng.random(count) < rayleigh, np.sqrt(2.0 * rng.standard_exponential(count)), rng.standard_normal(count)
            )
            good = rng.random(count) * self._alpha < self._alpha + np.minimum(z, 0.0)
            places = np.flatnonzero(missing)[good]
            values[places] = self.center + self.spread * z[good]
            missing[places] = False
        return values

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.NORMAL, self.center, self.spread),)
