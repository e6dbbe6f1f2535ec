r"""Laws whose tail may be heavier than every exponential: lognormal, Pareto, Weibull.

Their transforms have no closed form. Each is one integral whose path is moved, s by s, to where the integrand neither
oscillates nor cancels, and then summed by the trapezoid rule, which converges exponentially for such integrands.
"""

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

_BLOCK = 1 << 20  # integrand values held at once
_PARETO_POINTS = 401
RAY_POINTS = 500  # divided by shapes below 1
BEND_STEP = 0.07  # of the width of the integrand's peak in log x
BENT, MOST_POINTS = 2.0, 40_000
LEAST_SHAPE, MOST_SHAPE = 0.02, 200.0
TINY = 1e-300  # of |s| x scale: quotients by what is smaller overflow


def _by_blocks(integral, s: Complex, points: int) -> Complex:
    """A quadrature applied to a flat array of s, some at a time."""
    rows = max(_BLOCK // points, 1)
    return np.concatenate([integral(s[i : i + rows]) for i in range(0, max(len(s), 1), rows)])


def _right_of_axis(integral, s: ArrayLike, points: int) -> Complex:
    """The quadrature where Re s >= 0, one at 0, NaN where Re s < 0."""
    s = np.asarray(s, np.complex128)
    flat = s.ravel()
    exists = np.real(flat) >= 0
    value = np.full(flat.shape, np.nan, complex)
    value[flat == 0] = 1.0
    used = exists & (flat != 0)
    value[used] = _by_blocks(integral, flat[used], points)
    return value.reshape(s.shape)


@dataclass(frozen=True)
class Lognormal(AbstractContinuous):
    """Lognormal law by ``lognormal_mean`` [s] and coefficient of variation."""

    lognormal_mean: float
    lognormal_cv: float

    def __post_init__(self) -> None:
        checks.positive("lognormal: mean", self.lognormal_mean, "seconds")
        checks.positive("lognormal: cv", self.lognormal_cv)

    def __str__(self) -> str:
        return f"lognormal(mean={number(self.lognormal_mean)}, cv={number(self.lognormal_cv)})"

    @property
    def mean(self) -> float:
        return float(self.lognormal_mean)

    @property
    def variance(self) -> float:
        return (self.lognormal_mean * self.lognormal_cv) ** 2

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
        return freeze("lognorm", self.sigma, scale=self.median)

    @property
    def abscissa(self) -> float:
        return 0.0

    def excess(self, t: ArrayLike) -> Array:
        z = (np.log(np.maximum(np.asarray(t, float), 1e-300)) - math.log(self.median)) / self.sigma
        beyond = self.lognormal_mean * special.ndtr(self.sigma - z) - np.asarray(t, float) * special.ndtr(-z)
        return np.maximum(beyond, 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        r"""Trapezoid rule on a horizontal line near the saddle point.

        With :math:`D = m e^{\sigma Z}` the integrand :math:`\exp(-s m e^{\sigma z} - z^2/2)` is entire, so the line of
        integration may be moved. Its saddle is :math:`z_0 = -w/\sigma` with :math:`w = W(s m \sigma^2)`, the principal
        Lambert branch (Asmussen, Jensen & Rojas-Nandayapa, 2016). At :math:`z = z_0 + y` the exponent is
        :math:`-w(2 + w)/(2\sigma^2) - y^2/2 + (w/\sigma^2)(1 + \sigma y - e^{\sigma y})`: for real y its bracket is
        never positive and Re w >= 0, so nothing cancels. Where the double exponential would still oscillate (small s,
        wide law) the line moves on by at most 1, which costs a factor :math:`e^{1/2}` and turns its argument towards
        :math:`\arg(s)/2`. For Re s < 0 the transform does not exist and the answer is NaN.
        """
        return _right_of_axis(self._integral, s, 401)

    def _integral(self, s: Complex) -> Complex:
        w = special.lambertw(s * (self.median * self.sigma**2))
        half = 0.5 * np.angle(s)
        turn = np.sign(half) * np.clip(np.abs(half) - np.abs(np.imag(w)), 0.0, self.sigma)
        x = np.linspace(-9.5, 9.5, 401)
        y = x - 1j * turn[:, None] / self.sigma
        bend = self.sigma * y - np.expm1(self.sigma * y)
        exponent = (bend - 0.5 * w[:, None] - 1.0) * (w[:, None] / self.sigma**2) - 0.5 * y * y
        return np.exp(exponent).sum(axis=1) * ((x[1] - x[0]) / math.sqrt(2.0 * math.pi))

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return self.median * np.exp(self.sigma * (rng.standard_normal(n) + self.sigma))

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.LOGNORMAL, math.log(self.median), self.sigma),)


@dataclass(frozen=True)
class Pareto(AbstractContinuous):
    """Pareto law of type I by ``pareto_mean`` [s] and ``shape`` a > 1: P(D > t) = (scale/t)^a for t >= scale.

    Its variance is infinite for shapes up to 2, its mean for shapes up to 1, which are refused.
    """

    pareto_mean: float
    shape: float

    def __post_init__(self) -> None:
        checks.positive("pareto: mean", self.pareto_mean, "seconds")
        checks.positive("pareto: shape", self.shape)
        if self.shape <= 1:
            raise InputError(
                f"pareto: shape must be above 1, got {self.shape!r}; at 1 or below the mean delay is infinite"
            )

    def __str__(self) -> str:
        return f"pareto(mean={number(self.pareto_mean)}, shape={number(self.shape)})"

    @property
    def scale(self) -> float:
        """Smallest delay [s]."""
        return self.pareto_mean * (self.shape - 1.0) / self.shape

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return freeze("pareto", self.shape, scale=self.scale)

    @property
    def mean(self) -> float:
        return float(self.pareto_mean)

    @property
    def variance(self) -> float:
        return self.pareto_mean**2 / (self.shape * (self.shape - 2.0)) if self.shape > 2 else math.inf

    @property
    def abscissa(self) -> float:
        return 0.0

    def survival(self, t: ArrayLike) -> Array:
        return (self.scale / np.maximum(np.asarray(t, float), self.scale)) ** self.shape

    def excess(self, t: ArrayLike) -> Array:
        t = np.asarray(t, float)
        beyond = np.maximum(t, self.scale)
        return self.survival(t) * beyond / (self.shape - 1.0) + np.maximum(self.scale - t, 0.0)

    def laplace(self, s: ArrayLike) -> Complex:
        r"""Integral along a ray on which nothing oscillates, by the doubly exponential rule.

        :math:`\varphi = a e^{-z}\int_0^\infty (1 + r e^{-i\theta})^{-a-1} e^{-z r e^{-i\theta} - i\theta}\,dr` with
        z = s scale; :math:`\theta` is arg z for large z, half of it for small z, and r proportional to
        :math:`e^{v - e^{-v}}`. For Re s < 0 the transform does not exist and the answer is NaN.

        Source:
            Takahasi & Mori (1974), Double exponential formulas for numerical integration.
        """
        return _right_of_axis(self._integral, s, _PARETO_POINTS)

    def _integral(self, s: Complex) -> Complex:
        z = (s * self.scale)[:, None]
        size = np.maximum(np.abs(z), TINY)
        theta = np.angle(z) * (0.5 + 0.5 * size / (size + self.shape))
        unit = 1.0 / (size + self.shape)
        reach = np.log(np.minimum(60.0 / size, math.exp(40.0 / self.shape)) / unit) + 1.0
        low = -4.2
        step = (reach - low) / (_PARETO_POINTS - 1)
        v = low + step * np.arange(_PARETO_POINTS)
        x = unit * np.exp(v - np.exp(-v) - 1j * theta)
        value = np.exp(-(self.shape + 1.0) * np.log1p(x) - z * x) * x * (1.0 + np.exp(-v))
        return self.shape * np.exp(-z[:, 0]) * value.sum(axis=1) * step[:, 0]

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return self.scale * np.exp(rng.standard_exponential(n) / (self.shape - 1.0))

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.PARETO, self.scale, 1.0 / self.shape),)


@dataclass(frozen=True)
class Weibull(AbstractContinuous):
    """Weibull law by ``weibull_mean`` [s] and ``shape`` k: P(D > t) = exp(-(t/scale)^k), heavy-tailed for k < 1."""

    weibull_mean: float
    shape: float

    def __post_init__(self) -> None:
        checks.positive("weibull: mean", self.weibull_mean, "seconds")
        checks.positive("weibull: shape", self.shape)
        if not LEAST_SHAPE <= self.shape <= MOST_SHAPE:
            raise InputError(
                f"weibull: shape must be from {LEAST_SHAPE:g} to {MOST_SHAPE:g}, got {self.shape!r}; "
                "a delay that hardly varies is constant(value), one that varies wildly lognormal(mean, cv)"
            )

    def __str__(self) -> str:
        return f"weibull(mean={number(self.weibull_mean)}, shape={number(self.shape)})"

    @functools.cached_property
    def scale(self) -> float:
        """Delay that 37 % exceed [s]: mean/Gamma(1 + 1/k)."""
        return float(self.weibull_mean * np.exp(-special.gammaln(1.0 + 1.0 / self.shape)))

    @functools.cached_property
    def frozen(self) -> "stats.distributions.rv_frozen":
        return freeze("weibull_min", self.shape, scale=self.scale)

    @property
    def mean(self) -> float:
        return float(self.weibull_mean)

    @property
    def variance(self) -> float:
        squares = special.gammaln(1.0 + 2.0 / self.shape) - 2.0 * special.gammaln(1.0 + 1.0 / self.shape)
        return float(self.weibull_mean**2 * np.expm1(squares))

    @property
    def abscissa(self) -> float:
        if self.shape == 1:
            return -1.0 / self.weibull_mean
        return 0.0 if self.shape < 1 else -math.inf

    def excess(self, t: ArrayLike) -> Array:
        y = (np.maximum(np.asarray(t, float), 0.0) / self.scale) ** self.shape
        return self.weibull_mean * special.gammaincc(1.0 / self.shape, y)

    def laplace(self, s: ArrayLike) -> Complex:
        r"""Integral of :math:`k x^{k-1}\exp(-x^k - zx)`, z = s scale, along a path from 0 that depends on z.

        Shapes up to 2: a ray, by the trapezoid rule in :math:`\log x`. Above, :math:`x^k` forbids to turn the whole
        path: it leaves 0 in the direction in which :math:`e^{-zx}` falls and bends into a parallel of the real axis
        through the saddle :math:`k = kx^k + zx`, so that neither the end at 0 nor the saddle is drowned by the other.
        For shapes below 1 and Re s < 0 the transform does not exist and the answer is NaN.
        """
        z = np.asarray(np.asarray(s, np.complex128) * self.scale, np.complex128)
        if self.shape == 1:
            return np.asarray(1.0 / (1.0 + z), np.complex128)
        if self.shape < 1:
            return _right_of_axis(self._along_ray, z, math.ceil(RAY_POINTS / self.shape))
        flat: Complex = z.ravel()
        value = np.ones(flat.shape, np.complex128)
        bent = (flat.real < 0) | (self.shape > BENT)
        for used, path in ((~bent & (flat != 0), self._along_ray), (bent & (flat != 0), self._along_bend)):
            value[used] = _by_blocks(path, flat[used], RAY_POINTS)
        return value.reshape(z.shape)

    def _along_ray(self, z: Complex) -> Complex:
        """By y = x^k = e^v on a ray; z of shape (n,)."""
        k, size = self.shape, np.maximum(np.abs(z), TINY)[:, None]
        z = z[:, None]
        theta = np.clip(np.angle(z), -0.5 * math.pi, 0.5 * math.pi)
        turn = theta * (0.5 + 0.5 * size / (1.0 + size))
        if k > 1:
            turn *= 0.9 / k
        low = np.minimum(0.0, -k * np.log(size)) - 40.0
        high = np.full_like(size, math.log(80.0 / math.cos(k * 0.45 * math.pi) if k < 1 else 500.0))
        if k < 1:
            high = np.minimum(high, k * np.log(80.0 / size) + 1.0)
        points = math.ceil(RAY_POINTS / min(k, 1.0))
        step = (high - low) / (points - 1)
        v = low + step * np.arange(points)
        y = np.exp(v - 1j * k * turn)
        return (np.exp(-y - z * np.exp(v / k - 1j * turn)) * y).sum(axis=1) * step[:, 0]

    def _along_bend(self, z: Complex) -> Complex:
        """From 0 in direction -theta, then parallel to the real axis through the saddle; z of shape (n,)."""
        k, size = self.shape, np.maximum(np.abs(z), TINY)[:, None]
        pull = np.maximum(-z.real, 0.0)
        peak = self._peak(pull)
        saddle = self._saddle(z, pull, peak)[:, None]
        z = z[:, None]
        theta = np.clip(np.angle(z), -0.5 * math.pi, 0.5 * math.pi)
        sine = np.abs(np.sin(theta))
        widest = min(0.5 * math.pi / (k - 1.0), 1.0) * np.maximum((size / k) ** (1.0 / (k - 1.0)), 1.0)
        enough = (60.0 + k * np.log1p(size)) / np.maximum(size * sine, 1e-300)  # e^-zx has vanished on the parallel
        at_end = (np.abs(saddle) < 0.5) & (np.abs(saddle) < 2.0 * k / size)  # not the saddle of x^k
        depth = np.where(at_end, widest, np.where(np.isfinite(saddle), np.abs(np.imag(saddle)), 0.0))
        depth = np.clip(depth, 1e-8, np.where(z.real < 0, widest, np.minimum(widest, np.maximum(enough, 1e-8))))
        bend = np.minimum(np.nan_to_num(np.abs(saddle)), 3.0 ** (1.0 / k) * (1.0 + depth))[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = 1.0 / np.sqrt(np.maximum(k * k * peak**k - pull * peak, k * k * bend**k))
            fits = np.isfinite(peak) & (k * np.log(peak) - peak**k + pull * peak < 700.0)
        corner = np.where(sine == 0, 1.0, depth / np.where(sine == 0, 1.0, sine))
        low = np.log(np.minimum(1.0, k / size)) - 42.0 / k - 1.0
        high = np.maximum(math.log(240.0) / k, np.log(depth * k))
        high = np.where(z.real < 0, np.maximum(high, np.log(4.0 * pull[:, None] + 4.0) / (k - 1.0)), high)
        finest = np.minimum(narrow[fits], 1.0 / max(k, 2.0)) * BEND_STEP
        points = math.ceil(min(np.max((high - low)[fits, 0] / finest, initial=100.0), MOST_POINTS))
        value = np.full(len(z), complex(math.inf))
        for row in np.flatnonzero(fits):
            r = np.exp(np.linspace(low[row, 0], high[row, 0], points))
            share, start = 1.0 / np.sqrt(1.0 + (r / corner[row]) ** 2), np.exp(-1j * theta[row])
            x = r * (share * start + (1.0 - share))
            slope = share**3 * start + (1.0 - share**3)
            power = np.exp(k * np.log(x))
            total = (k * power / x * slope * r * np.exp(-power - z[row] * x)).sum()
            value[row] = total * (high[row, 0] - low[row, 0]) / (points - 1)
        return value

    def _saddle(self, z: Complex, pull: Array, peak: Array) -> Complex:
        """Where k = k x^k + z x, followed by Newton from the peak at z = -pull; only a good place for the path."""
        k, x = self.shape, peak + 0j
        with np.errstate(all="ignore"):
            for share in np.geomspace(1e-3, 1.0, 20):
                here = share * (z + pull) - pull
                for _ in range(2):
                    power = x ** (k - 1.0)
                    x = x - (k * power * x + here * x - k) / (k * k * power + here)
        return np.asarray(x, np.complex128)

    def _peak(self, pull: Array) -> Array:
        """Real saddle for z = -pull <= 0, by Newton from the right, where the equation is convex."""
        k = self.shape
        x = np.exp(np.minimum(np.log1p(pull / k) / (k - 1.0), 700.0))
        with np.errstate(all="ignore"):
            for _ in range(60 if pull.any() else 0):
                x = x - (k * x**k - pull * x - k) / (k * k * x ** (k - 1.0) - pull)
        return np.where(np.isfinite(x), x, np.inf)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        return self.scale * rng.standard_exponential(n) ** (1.0 / self.shape)

    def sample_length_biased(self, n: int, rng: np.random.Generator) -> Array:
        return self.scale * rng.standard_gamma(1.0 + 1.0 / self.shape, n) ** (1.0 / self.shape)

    def components(self) -> tuple[Component, ...]:
        return (Component(Kind.WEIBULL, self.scale, 1.0 / self.shape),)
