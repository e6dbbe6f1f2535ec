r"""Families of laws and the one of each that makes measured delays most likely.

Delays that ended contribute their density to the likelihood, those that had not (censored) the probability of lasting
longer than they are known to: :math:`\ell = \sum_i \log f(x_i) + \sum_j \log S(c_j)`. Closed forms are used where there
are any; with censored delays, Newton's method on sufficient statistics. Data enter in units of their mean.

Sources:
    Johnson, Kotz & Balakrishnan (1994), Continuous Univariate Distributions 1; Lawless (2003), Statistical Models and
    Methods for Lifetime Data (censoring); Cheng & Iles (1987) on shifts whose likelihood has no bound.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from stalewise.delays.fitting.maximum import maximise
from stalewise.delays.fitting.sample import Sample
from stalewise.delays.laws import (
    AbstractContinuous,
    AbstractDelay,
    Constant,
    Exponential,
    Gamma,
    Hyperexponential,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    ShiftedExponential,
    Sum,
    Uniform,
    Weibull,
)
from stalewise.delays.laws.heavy import LEAST_SHAPE, MOST_SHAPE

Array = NDArray[np.float64]
IMPOSSIBLE = 1e100  # what a search sees in place of an infinite loss
_WIDEST_LOG = 100.0  # variance of the logarithm beyond which a mean and cv exist on paper only


class Found(NamedTuple):
    """Parameters that maximise a family's likelihood, and the greatest log-likelihood."""

    parameters: tuple[float, ...]
    log_likelihood: float


Search = Callable[[Sample, "tuple[float, ...] | None"], Found | None]


class Family(NamedTuple):
    """A family of laws: its name, how many parameters are fitted, and the fit of a law with rounded parameters.

    ``fit`` takes a sample and returns None where the family adds nothing to a simpler one.
    """

    name: str
    parameters: int
    fit: Callable[[Sample], AbstractDelay | None]


# Families of one and two parameters whose likelihood has a maximum inside.


def exponential(sample: Sample) -> Found:
    """Total time over the number of delays that ended; exact with censoring."""
    d = sample.count
    total = float(sample.weights @ sample.values + sample.censored_weights @ sample.censored)
    return Found((total / d,), -d * (math.log(total / d) + 1.0))


def gamma(sample: Sample, near: tuple[float, ...] | None = None) -> Found:
    r"""Mean and shape; with censoring by a search from ``near``.

    Without, the shape solves :math:`\log k - \psi(k) = \log\bar x - \overline{\log x}`.
    """
    mean, log_mean, d = sample.mean, sample.average(np.log(sample.values)), sample.count
    shape = _gamma_shape(math.log(mean) - log_mean)

    def ended(mean: float, shape: float, x: float) -> float:
        return d * (shape * math.log(shape / mean) - math.lgamma(shape) + (shape - 1.0) * log_mean - shape * x / mean)

    if len(sample.censored) == 0 or shape > 1e7:
        return Found((mean, shape), ended(mean, shape, mean))

    def objective(theta: Array) -> float:
        m, k = mean * math.exp(theta[0]), math.exp(theta[1])
        return ended(m, k, mean) + float(sample.censored_weights @ _log_gamma_survival(k, k / m * sample.censored))

    first = (mean, shape) if near is None else near
    theta, value = maximise(objective, np.array([math.log(first[0] / mean), math.log(first[1])]))
    return Found((mean * math.exp(theta[0]), math.exp(theta[1])), value)


def lognormal(sample: Sample, near: tuple[float, ...] | None = None) -> Found | None:
    """Mean and standard deviation of the logarithm, with censoring from ``near``."""
    logs = np.log(sample.values)
    mean, d = sample.average(logs), sample.count
    variance = sample.average((logs - mean) ** 2)
    if variance > _WIDEST_LOG or variance <= 0:
        return None

    def objective(theta: Array) -> float:
        middle, sigma = theta[0], math.exp(theta[1])
        square = variance + (mean - middle) ** 2
        ended = -d * (theta[1] + 0.5 * math.log(2.0 * math.pi) + mean + 0.5 * square / sigma**2)
        return ended + float(sample.censored_weights @ special.log_ndtr((middle - bounds) / sigma))

    bounds = np.log(sample.censored)
    theta = np.array([mean, 0.5 * math.log(variance)])
    value = objective(theta)
    if len(bounds):
        theta, value = maximise(objective, theta if near is None else np.array([near[0], math.log(near[1])]))
    return Found((float(theta[0]), math.exp(theta[1])), value)


def weibull(sample: Sample) -> Found | None:
    r"""Scale and shape; the shape solves one equation with censoring as without.

    :math:`1/k = \sum_{all} t^k \log t/\sum_{all} t^k - \overline{\log x}`, the last mean over those that ended.
    """
    top = max(float(sample.values[-1]), float(sample.censored[-1]) if len(sample.censored) else 0.0)
    all_logs = np.log(np.concatenate([sample.values, sample.censored]) / top)
    weights = np.concatenate([sample.weights, sample.censored_weights])
    log_mean, d = sample.average(np.log(sample.values / top)), sample.count

    def equation(shape: float) -> float:
        powers = weights * np.exp(shape * all_logs)
        return 1.0 / shape - float(powers @ all_logs) / float(powers.sum()) + log_mean

    low = high = 1.2 / max(sample.average((np.log(sample.values / top) - log_mean) ** 2) ** 0.5, 1e-9)
    while equation(low) < 0 and low > 1e-3:
        low *= 0.5
    while equation(high) > 0 and high < 1e9:
        high *= 2.0
    if not equation(low) >= 0 >= equation(high):
        return None
    shape = low if low == high else float(optimize.brentq(equation, low, high, xtol=1e-12, rtol=1e-10))  # type: ignore[arg-type]
    total = float(weights @ np.exp(shape * all_logs))
    scale = (total / d) ** (1.0 / shape)
    value = d * (math.log(shape) - shape * math.log(scale) - 1.0 + (shape - 1.0) * log_mean - math.log(top))
    return Found((scale * top, shape), value)


def truncated_normal(sample: Sample) -> Found | None:
    """Mean and standard deviation of the normal law before it is cut off at 0; None where its mean is not positive."""
    mean, spread, d = sample.mean, sample.spread, sample.count
    if spread <= 0:
        return None

    def objective(theta: Array) -> float:
        middle, sigma = mean * theta[0], math.exp(theta[1])
        square = spread**2 + (mean - middle) ** 2
        total = d + float(sample.censored_weights.sum())
        ended = -d * (theta[1] + 0.5 * math.log(2.0 * math.pi) + 0.5 * square / sigma**2)
        lasting = float(sample.censored_weights @ special.log_ndtr((middle - sample.censored) / sigma))
        return ended + lasting - total * float(special.log_ndtr(middle / sigma))

    theta = np.array([1.0, math.log(spread)])
    value = objective(theta)
    if len(sample.censored) or mean < 9.0 * spread:
        theta, value = maximise(objective, theta)
    return Found((mean * float(theta[0]), math.exp(theta[1])), value) if theta[0] > 0.01 else None


def hyperexponential(sample: Sample) -> Found | None:
    """Two exponential phases: means and the weight of the first; None where one exponential does as well.

    Ten steps of expectation and maximisation from three starts, the best of them finished by Newton's method.
    """
    mean = exponential(sample).parameters[0]
    if len(sample.censored) == 0 and sample.spread <= mean:
        return None
    x, w, c, v = sample.values / mean, sample.weights, sample.censored / mean, sample.censored_weights

    def objective(theta: Array) -> float:
        first, second = math.exp(-theta[0]), math.exp(-theta[1])
        share = np.array([-np.logaddexp(0.0, -theta[2]), -np.logaddexp(0.0, theta[2])])
        ended = np.logaddexp(share[0] - theta[0] - first * x, share[1] - theta[1] - second * x)
        lasting = np.logaddexp(share[0] - first * c, share[1] - second * c)
        return float(w @ ended + v @ lasting)

    starts = [_phases(x, w, c, v, split) for split in (0.5, 0.9, 0.99)]
    start = max(starts, key=objective)
    theta, value = maximise(objective, start)
    share = float(special.expit(theta[2]))
    if not 1e-6 < share < 1.0 - 1e-6 or abs(theta[0] - theta[1]) < 1e-3 or np.abs(theta).max() > 25:
        return None
    return Found((mean * math.exp(theta[0]), mean * math.exp(theta[1]), share), value - sample.count * math.log(mean))


def _phases(x: Array, w: Array, c: Array, v: Array, split: float) -> Array:
    """Logarithms of two means and the log odds of the first, after ten steps from a split at a quantile."""
    place = min(max(int(np.searchsorted(np.cumsum(w), split * w.sum())), 1), len(x) - 1)
    short, long = w[:place] @ x[:place] / w[:place].sum(), w[place:] @ x[place:] / w[place:].sum()
    time, weight, lasting = np.concatenate([x, c]), np.concatenate([w, v]), np.arange(len(x) + len(c)) >= len(x)
    odds = math.log(w[:place].sum() / w[place:].sum())
    for _ in range(10):
        lead = odds + np.where(lasting, 0.0, math.log(long / short))
        mine = weight * special.expit(lead - time * (1.0 / short - 1.0 / long))
        other = weight - mine
        first, second = max(float(mine.sum()), 1e-9), max(float(other.sum()), 1e-9)
        odds = math.log(first / second)
        short = max(float(mine @ time + short * (mine @ lasting)) / first, 1e-9)
        long = max(float(other @ time + long * (other @ lasting)) / second, 1e-9)
        if short > long:
            short, long, odds = long, short, -odds
    return np.array([math.log(short), math.log(long), odds])


# Families with an end: the likelihood grows towards it.


def _exponential(sample: Sample) -> AbstractDelay:
    return Exponential(rounded(exponential(sample).parameters[0]))


def _shifted_exponential(sample: Sample) -> AbstractDelay:
    shift = rounded(sample.values[0], -1)
    rest = sample.less(shift)
    return ShiftedExponential(shift, rounded(exponential(rest).parameters[0]))


def _uniform(sample: Sample) -> AbstractDelay:
    low, high = float(sample.values[0]), float(sample.values[-1])
    bounds, weights = sample.censored, sample.censored_weights
    bounds, weights = bounds[bounds > low], weights[bounds > low]
    if len(bounds):
        least = max(high, float(bounds[-1]) * (1.0 + 1e-9))
        total = sample.count + float(weights.sum())

        def loss(log_width: float) -> float:
            end = least + math.exp(log_width)
            return total * math.log(end - low) - float(weights @ np.log(end - bounds))

        found = optimize.minimize_scalar(
            loss, bounds=(math.log(1e-9 * least), math.log(1e3 * least)), method="bounded", options={"xatol": 1e-6}
        )
        high = least + math.exp(found.x)
    return Uniform(rounded(low, -1), rounded(high, +1))


def _gamma(sample: Sample) -> AbstractDelay:
    mean, shape = gamma(sample).parameters
    return Gamma(rounded(mean), rounded(shape))


def _lognormal(sample: Sample) -> AbstractDelay | None:
    found = lognormal(sample)
    if found is None:
        return None
    middle, sigma = found.parameters
    if sigma**2 > _WIDEST_LOG:
        return None
    return Lognormal(rounded(math.exp(middle + 0.5 * sigma**2)), rounded(math.sqrt(math.expm1(sigma**2))))


def _weibull(sample: Sample) -> AbstractDelay | None:
    found = weibull(sample)
    if found is None or not LEAST_SHAPE < found.parameters[1] < MOST_SHAPE:
        return None
    scale, shape = found.parameters
    return Weibull(rounded(scale * math.exp(math.lgamma(1.0 + 1.0 / shape))), rounded(shape))


def _pareto(sample: Sample) -> AbstractDelay | None:
    """The smallest delay, and the shape by its closed form; None where the mean is infinite."""
    low = float(sample.values[0])
    lasting = np.log(np.maximum(sample.censored / low, 1.0))
    total = float(sample.weights @ np.log(sample.values / low) + sample.censored_weights @ lasting)
    shape = rounded(sample.count / total)
    if shape <= 1.0:
        return None
    law = Pareto(rounded(low * shape / (shape - 1.0), -1), shape)
    return law if law.scale <= low else Pareto(rounded(law.pareto_mean * (1.0 - 1e-6), -1), shape)


def _normal(sample: Sample) -> AbstractDelay | None:
    found = truncated_normal(sample)
    return None if found is None else Normal(*map(rounded, found.parameters))


def _hyperexponential(sample: Sample) -> AbstractDelay | None:
    found = hyperexponential(sample)
    if found is None:
        return None
    first, second, share = map(rounded, found.parameters)
    return Hyperexponential((first, second), (share, rounded(1.0 - share)))


def _shifted(search: Search, fit: Callable[[Sample], AbstractDelay | None]) -> Callable[[Sample], AbstractDelay | None]:
    r"""A family with a constant before it: search the log of the room between the constant and the smallest delay.

    The likelihood has no bound as the room nears 0, so it is held at :math:`(\bar x - \min x)/n` or more, the gap one
    expects between the end of a law with positive density there and the least of n draws. With censored delays the
    search begins around the best room without them: they say little about the smallest delay.
    """

    def fitted(sample: Sample) -> AbstractDelay | None:
        first = float(sample.values[0])
        least = (sample.mean - first) / sample.count
        if not 0 < least < first:
            return None
        rooms = np.linspace(math.log(least), math.log(first), 25)
        room = _best_room(search, sample.ended, rooms, first)
        if len(sample.censored):
            room = _best_room(search, sample, np.clip(room + np.linspace(-1.0, 1.0, 5), rooms[0], rooms[-1]), first)
        shift = rounded(max(first - math.exp(room), 0.0), -1)
        moving = fit(sample.less(shift)) if shift > 1e-9 * first else None
        return None if moving is None else moving + Constant(shift)

    return fitted


def _best_room(search: Search, sample: Sample, rooms: Array, first: float) -> float:
    """The logarithm of the room with the greatest likelihood, near the best of ``rooms``."""
    near: list[tuple[float, ...] | None] = [None]

    def loss(log_room: float) -> float:
        found = search(sample.less(first - math.exp(log_room)), near[-1])
        if found is None:
            return IMPOSSIBLE
        near.append(found.parameters)
        return -found.log_likelihood

    losses = [loss(room) for room in rooms]
    best = int(np.argmin(losses))
    around = (rooms[max(best - 1, 0)], rooms[min(best + 1, len(rooms) - 1)])
    found = optimize.minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
    return min((float(found.x), float(rooms[best])), key=loss)  # pyright: ignore[reportAttributeAccessIssue]


def shape_of(law: AbstractDelay) -> Family:
    """The family of one parameter that has the shape of ``law``: a worker's own pace, everything else shared."""

    def fit(sample: Sample) -> AbstractDelay | None:
        if len(sample.censored) == 0:
            return scaled(law, sample.mean / law.mean)
        middle = math.log(exponential(sample).parameters[0] / law.mean)

        def loss(log_factor: float) -> float:
            one = scaled(law, math.exp(log_factor))
            ended = sample.weights @ log_density(one, sample.values)
            value = float(ended + sample.censored_weights @ log_survival(one, sample.censored))
            return min(-value, IMPOSSIBLE)

        found = optimize.minimize_scalar(
            loss, bounds=(middle - 1.0, middle + 1.0), method="bounded", options={"xatol": 1e-6}
        )
        return scaled(law, math.exp(found.x))  # pyright: ignore[reportAttributeAccessIssue]

    return Family("shape_of_all", 1, fit)


def scaled(law: AbstractDelay, factor: float) -> AbstractDelay:
    """The law of ``factor`` times the delay, of a law that a family fits."""
    if isinstance(law, Sum):
        moving, fixed = law.parts
        return scaled(moving, factor) + scaled(fixed, factor)
    if isinstance(law, Mixture):
        return Mixture(tuple(scaled(part, factor) for part in law.laws), law.weights)
    names = _TIMES[type(law)]
    return replace(law, **{name: rounded(getattr(law, name) * factor) for name in names})  # pyright: ignore[reportArgumentType]


_TIMES: dict[type[AbstractDelay], tuple[str, ...]] = {
    Constant: ("value",),
    ShiftedExponential: ("shift", "exponential_mean"),
    Gamma: ("gamma_mean",),
    Lognormal: ("lognormal_mean",),
    Uniform: ("low", "high"),
    Weibull: ("weibull_mean",),
    Pareto: ("pareto_mean",),
    Normal: ("center", "spread"),
}
"""The parameters of a law that are times."""


def log_density(law: AbstractDelay, t: Array) -> Array:
    """Logarithm of the density [1/s] of a law that a family fits, element by element."""
    if isinstance(law, Sum):
        moving, fixed = law.parts
        return log_density(moving, t - fixed.mean)
    if isinstance(law, Mixture):
        return _logarithm_of_average(law, [log_density(part, t) for part in law.laws])
    assert isinstance(law, AbstractContinuous)
    return np.asarray(law.frozen.logpdf(t), float)  # pyright: ignore[reportAttributeAccessIssue]


def log_survival(law: AbstractDelay, t: Array) -> Array:
    """Logarithm of the probability of lasting longer, element by element."""
    if isinstance(law, Sum):
        moving, fixed = law.parts
        return log_survival(moving, t - fixed.mean)
    if isinstance(law, Mixture):
        return _logarithm_of_average(law, [log_survival(part, t) for part in law.laws])
    assert isinstance(law, AbstractContinuous)
    return np.asarray(law.frozen.logsf(t), float)  # pyright: ignore[reportAttributeAccessIssue]


def _logarithm_of_average(law: Mixture, logarithms: list[Array]) -> Array:
    return np.asarray(special.logsumexp(np.array(logarithms), axis=0, b=law.probabilities[:, None]), float)


CONSTANT = Family("constant", 1, lambda sample: Constant(rounded(sample.mean)))

FAMILIES = (
    Family("exponential", 1, _exponential),
    Family("shifted_exponential", 2, _shifted_exponential),
    Family("gamma", 2, _gamma),
    Family("lognormal", 2, _lognormal),
    Family("uniform", 2, _uniform),
    Family("weibull", 2, _weibull),
    Family("pareto", 2, _pareto),
    Family("normal", 2, _normal),
    Family("hyperexponential", 3, _hyperexponential),
    Family("shifted_gamma", 3, _shifted(gamma, _gamma)),
    Family("shifted_lognormal", 3, _shifted(lognormal, _lognormal)),
)


def _gamma_shape(gap: float) -> float:
    """Solve log k - digamma(k) = gap > 0; Minka's start is right to 1.5 %, Newton in 1/k does the rest."""
    gap = max(gap, 1e-15)
    shape = (3.0 - gap + math.sqrt((gap - 3.0) ** 2 + 24.0 * gap)) / (12.0 * gap)
    if shape > 1e4:
        return shape
    for _ in range(4):
        slope = shape - shape * shape * float(special.polygamma(1, shape))
        shape = 1.0 / (1.0 / shape + (math.log(shape) - float(special.digamma(shape)) - gap) / slope)
    return shape


def _log_gamma_survival(shape: float, t: Array) -> Array:
    """Logarithm of Q(k, t); where it underflows, the first terms of its expansion for large t."""
    survival = special.gammaincc(shape, t)
    small = survival < 1e-290
    far = np.where(small, np.maximum(t, shape + 1.0), shape + 1.0)
    tail = (shape - 1.0) * np.log(far) - far - math.lgamma(shape) - np.log1p(np.minimum(-(shape - 1.0) / far, 0.0))
    return np.where(small, np.where(small, tail, 0.0), np.log(np.where(small, 1.0, survival)))


def rounded(value: float, direction: int = 0) -> float:
    """``value`` to six significant digits; not above it for ``direction`` -1, not below it for +1."""
    value = float(value)
    near = float(f"{value:.6g}")
    if value > 0 and (near - value) * direction < 0:
        near = float(f"{near + direction * 10.0 ** (math.floor(math.log10(value)) - 5):.6g}")
    return near
