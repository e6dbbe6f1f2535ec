r"""The delayed recursion: one curvature mode, counted in updates.

.. math:: x_{k+1} = x_k - h\,x_{k-K_k} - \eta\,\xi_k, \qquad h = \eta\lambda,

with staleness K of generating function P. With :math:`w = 1/z` the mean's characteristic function is
:math:`c(w) = 1 - w + h\,w\,P(w)`: the mean is stable if no zero lies in the closed unit disc, and it decays by the
modulus of the smallest zero every update. Momentum and weight decay change c (`stalewise.dynamics.inertia`); what a
gradient moves x by in this and later updates is then :math:`X = B/c`, without them :math:`1/c`.
"""

import cmath
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft, optimize, signal

from stalewise.dynamics.inertia import NO_FILTER, StepFilter
from stalewise.errors import NotConvergedError
from stalewise.staleness import StalenessLaw

Array = NDArray[np.float64]
LONGEST_TRANSFORM = 1 << 22
KEPT_TRANSFORM = 1 << 17  # up to which the law on the unit circle is kept for the next step
RECURSED, LONGEST_RECURSED = 2 * 10**6, 10**9  # coefficients x updates that are worked off one by one
BEGUN = 512  # of them that Newton's iteration begins with
LARGEST = 1e3  # up to which they are, in between, where responses grow
STARTS = 8  # from which the leading zero is polished
NOTHING, SAME = 1e-5, 1e-9  # of what noise makes, that need not be followed; of a variance, to which it is found
SHARPEST = math.tan(1.2)  # of the angles by which a function may turn between neighbours where its zeros are counted
SLOW = 0.1  # below this h gain (E K + 1 + lag), the response has one sharp peak, at zero frequency
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})


def characteristic_coefficients(step: float, pmf: Array, how: StepFilter = NO_FILTER) -> Array:
    """Coefficients of c(w), lowest power first, shape (len(pmf) + 1,), with momentum (at least len(pmf) + 2,)."""
    pulled = step * _pulled(pmf, how)
    own = np.array([1.0, -1.0 - how.pole, how.pole] if how.pole > 0.0 else [1.0, -1.0])
    coefficients = np.zeros(max(len(pulled), len(own)))
    coefficients[: len(pulled)] = pulled
    coefficients[: len(own)] += own
    return coefficients


def _pulled(pmf: Array, how: StepFilter) -> Array:
    """Coefficients of w B(w) (P(w) + decay)."""
    pulled = np.concatenate([[0.0], pmf])
    pulled[1] += how.decay
    if how.later == 0.0:
        return how.now * pulled
    return np.convolve(pulled, [how.now, how.later])


@dataclass(frozen=True)
class NoiseGain:
    r"""How the recursion amplifies noise.

    Attributes:
        additive: :math:`g_0 = \frac1\pi\int_0^\pi |B/c|^2 d\theta`: variance of x for unit white noise.
        read: :math:`g_1`, the same with :math:`|P|^2` in the numerator: variance of the mean read.
    """

    additive: float
    read: float


@functools.lru_cache(maxsize=1024)
def noise_gain(step: float, law: StalenessLaw, how: StepFilter = NO_FILTER, *, tolerance: float = 1e-8) -> NoiseGain:
    r"""Integrals of the frequency response, to ``tolerance``.

    Where the response is broad, the trapezoid rule on the unit circle, refined until it agrees with itself. A slow
    mode (:math:`h(E K + 1)` below 0.1) has a peak of width h at zero frequency, made by the one zero
    :math:`w_0 = e^\delta`, :math:`\delta \approx h`, just outside the circle: there the integral is taken on a
    larger circle that encloses :math:`w_0` and no other zero, and its residue,
    :math:`-B(w_0)B(1/w_0)/(w_0 c'(w_0) c(1/w_0))`, is added.

    Args:
        step: h = learning rate x curvature; the mean must be stable.
        law: Staleness of an applied gradient.
        how: Momentum and weight decay.
        tolerance: Relative, of the additive gain.

    Raises:
        NotConvergedError: The mode is at its stability limit.
    """
    if _is_slow(step, law, how):
        slow = _slow_noise_gain(step, law, how)
        if slow is not None:
            return slow
    length = 1 << math.ceil(math.log2(8 * len(law.pmf) + 64 / (1.0 - how.pole)))
    previous = np.inf
    while length <= LONGEST_TRANSFORM:
        around = (_around if length <= KEPT_TRANSFORM else _around.__wrapped__)(law, length)
        additive, read = _unit_circle_integrals(*around, step, how.now, how.later, how.pole, how.decay)
        if abs(additive - previous) <= tolerance * additive:
            return NoiseGain(additive, read)
        previous = additive
        length *= 2
    raise NotConvergedError(f"frequency response of step {step:g} is too sharp: the mode is at its stability limit")


def _is_slow(step: float, law: StalenessLaw, how: StepFilter) -> bool:
    return step * how.gain * (1.0 + how.decay) * (law.mean + 1.0 + how.lag) < SLOW


@functools.lru_cache(maxsize=16)
def _around(law: StalenessLaw, length: int) -> tuple[Array, Array, Array, Array]:
    """Real and imaginary parts of w and of P(w) at so many roots of unity, the half of them that says all."""
    angle = 2.0 * np.pi / length * np.arange(length // 2 + 1)
    delayed = np.fft.rfft(law.pmf, length)
    return np.cos(angle), -np.sin(angle), delayed.real.copy(), delayed.imag.copy()


@_compiled
def _unit_circle_integrals(real, imag, delayed_real, delayed_imag, step, now, later, pole, decay):  # pragma: no cover
    """`_circle_integrals` on the unit circle itself, where the integrands are |B/c|^2 and |P B/c|^2."""
    additive = read = 0.0
    last = len(real) - 1
    for i in range(last + 1):
        a, b, p, q = real[i], imag[i], delayed_real[i], delayed_imag[i]
        n, m = now + later * a, later * b  # B
        u, v = a * n - b * m, a * m + b * n  # w B
        c = (1.0 - a) * (1.0 - pole * a) - pole * b * b + step * (u * (p + decay) - v * q)
        d = -b * (1.0 - pole * a) - pole * b * (1.0 - a) + step * (u * q + v * (p + decay))
        power = (n * n + m * m) / (c * c + d * d)
        if i in (0, last):
            power *= 0.5
        additive += power
        read += power * (p * p + q * q)
    return additive / last, read / last


def _circle_integrals(
    step: float, pmf: Array, how: StepFilter, log_radius: float, length: int
) -> tuple[NoiseGain, NoiseGain, int | None]:
    r"""Means of :math:`B(w)B(1/w)/(c(w)c(1/w))`, and of that times :math:`P(w)P(1/w)`, over a circle.

    The same by every other point, and the zeros of c inside the circle, None where the points are too few to say.
    """
    powers = np.arange(len(pmf)) * log_radius
    outside, inside = np.fft.rfft(pmf * np.exp([powers, -powers]), length)
    roots = (_roots if length <= KEPT_TRANSFORM else _roots.__wrapped__)(length)
    radius, filtered = math.exp(log_radius), (how.now, how.later, how.pole, how.decay)
    values = np.empty(len(roots), complex)
    fine, coarse = _circle_sums(roots, outside, inside, radius, step, *filtered, values)
    turns, sure = _half_turns(values)
    return NoiseGain(*fine), NoiseGain(*coarse), -turns if sure else None


@functools.lru_cache(maxsize=16)
def _roots(length: int) -> NDArray[np.complex128]:
    """So many roots of unity, the half of them that says all, clockwise."""
    return np.exp(-2j * np.pi / length * np.arange(length // 2 + 1))


@_compiled
def _circle_sums(roots, outside, inside, radius, step, now, later, pole, decay, values):  # pragma: no cover
    """The means of `_circle_integrals`; writes c on the circle to ``values``."""
    last = len(roots) - 1
    additive = read = additive_even = read_even = 0.0
    for i in range(last + 1):
        w, v = radius * roots[i], np.conj(roots[i]) / radius
        p, q = outside[i], np.conj(inside[i])
        up, down = now + later * w, now + later * v
        c = (1.0 - w) * (1.0 - pole * w) + step * w * up * (p + decay)
        values[i] = c
        power = up * down / (c * ((1.0 - v) * (1.0 - pole * v) + step * v * down * (q + decay)))
        if i in (0, last):
            power *= 0.5
        reading = (power * p * q).real
        additive += power.real
        read += reading
        if i % 2 == 0:
            additive_even += power.real
            read_even += reading
    return (additive / last, read / last), (2.0 * additive_even / last, 2.0 * read_even / last)


@_compiled
def _half_turns(values):  # pragma: no cover
    """Half turns about 0 that values take, real at both ends; and whether each turns by less than 1.2."""
    count, sure = 0, True
    for k in range(len(values) - 1):
        a, b = values[k], values[k + 1]
        a, b = a / max(abs(a.real), abs(a.imag)), b / max(abs(b.real), abs(b.imag))
        along, across = a.real * b.real + a.imag * b.imag, a.real * b.imag - a.imag * b.real
        sure = sure and abs(across) < SHARPEST * along
        if (a.real < 0.0) != (b.real < 0.0):
            count += 1 if across > 0.0 else -1
    return count, sure


def _at_real(delta: float, step: float, law: StalenessLaw, how: StepFilter) -> tuple[float, float]:
    r"""C and :math:`c' w` at the real point :math:`w = e^\delta`, without cancellation near 1."""
    pulled = _pulled(law.pmf, how)[1:]
    powers = np.arange(1.0, len(pulled) + 1.0)
    with np.errstate(over="ignore"):
        terms = pulled * np.exp(delta * powers)
    w, below = math.exp(delta), -math.expm1(delta)
    kept = 1.0 - how.pole * w
    return step * float(terms.sum()) + below * kept, step * float(terms @ powers) - w * kept - below * how.pole * w


def _slow_zero(step: float, law: StalenessLaw, how: StepFilter) -> float | None:
    """Logarithm of the real zero of c nearest to the unit circle, from outside, by Newton's method; None if none is."""
    delta, change = 0.0, math.inf
    most = 2.0 * step * how.gain * (1.0 + how.decay)
    for _ in range(50):
        value, slope = _at_real(delta, step, law, how)
        if not (math.isfinite(value) and math.isfinite(slope) and slope != 0.0):
            return None
        change = value / slope
        delta -= change
        if abs(delta) > 10.0 * most:  # thrown far off by a slope next to 0: there is no zero near
            return None
        if not abs(change) > 1e-15 * delta:
            break
    return delta if 0 < delta < most and abs(change) <= 1e-12 * delta else None


def _gaps_beyond(delta: float, law: StalenessLaw, how: StepFilter) -> Iterator[float]:
    r"""Gaps g, widest first, such that the circle of radius :math:`e^{\delta+g}` may enclose one zero of c alone."""
    ages, mean = len(law.pmf) + 1, law.mean + 1.0 + how.lag
    for gap in (0.3 / mean, 0.05 / mean, 5.0 / ages, 1.0 / ages):
        if (delta + gap) * ages < 600.0:
            yield gap


def _slow_noise_gain(step: float, law: StalenessLaw, how: StepFilter) -> NoiseGain | None:
    """`noise_gain` of a slow mode; None where no circle separates its zero from the others (heavy tails)."""
    ages = np.arange(len(law.pmf))
    delta = _slow_zero(step, law, how)
    if delta is None:
        return None
    _, slope = _at_real(delta, step, law, how)
    left, _ = _at_real(-delta, step, law, how)
    outside, inside = float(law.pmf @ np.exp(delta * ages)), float(law.pmf @ np.exp(-delta * ages))
    w = math.exp(delta)
    residue = -(how.now + how.later * w) * (how.now + how.later / w) / (slope * left)
    for gap in _gaps_beyond(delta, law, how):
        first = 1 << math.ceil(math.log2(max(8 * len(ages), 40.0 / gap) + 64))
        for length in (first, 2 * first):
            if length > LONGEST_TRANSFORM:
                break
            fine, coarse, zeros = _circle_integrals(step, law.pmf, how, delta + gap, length)
            if zeros not in (None, 1):
                break
            gain = NoiseGain(fine.additive + residue, fine.read + residue * outside * inside)
            error, differ = abs(coarse.read - fine.read), abs(gain.additive - gain.read)  # which makes the limit
            agree = abs(coarse.additive - fine.additive) <= 1e-9 * gain.additive
            if zeros == 1 and agree and error <= max(1e-7 * differ, 1e-12 * gain.additive):
                return gain
    return None


def variance_factor(step: float, law: StalenessLaw, weight: float, how: StepFilter = NO_FILTER) -> float:
    r"""Stationary variance of x for unit noise a step: :math:`g_0/(1 - w h^2 (g_0 - g_1))`, infinite past its pole.

    Args:
        step: h = learning rate x curvature.
        law: Staleness of an applied gradient.
        weight: Share w of the staleness jitter that acts as independent noise: 0 for constant delays, 1 for
            independent staleness (an upper bound).
        how: Momentum and weight decay.
    """
    gain = noise_gain(step, law, how)
    left = 1.0 - weight * step**2 * (gain.additive - gain.read)
    return gain.additive / left if left > 0 else math.inf


def mean_step_limit(law: StalenessLaw, how: StepFilter = NO_FILTER) -> float:
    r"""Smallest h at which the mean loses stability: least real :math:`(w - 1)/(w P(w)) > 0` on :math:`|w| = 1`.

    With momentum, the least real :math:`-(1 - w)(1 - \beta w)/(w B(w)(P(w) + \rho/\lambda))`.
    Crossings of the real axis are bracketed on a grid by the sign of :math:`\Im\{(w-1)\overline{wP(w)}\}` and
    polished. Where P is below 1e-9 the crossing would lie beyond h = 1e9 times :math:`|w - 1|`: none is looked for.
    """
    length = 1 << math.ceil(math.log2(32 * len(law.pmf) + 256 / (1.0 - how.pole)))
    angle = 2.0 * np.pi * np.arange(1, length // 2 + 1) / length
    w = np.exp(-1j * angle)
    delayed = _undamped(w, np.fft.rfft(law.pmf, length)[1:], how)
    turned = (w - 1.0) * np.conj(delayed)
    size = np.maximum(np.abs(delayed), 1e-300) ** 2
    best = math.inf
    if delayed[-1].real < 0:
        best = float(-2.0 / delayed[-1].real)
    imaginary = turned.imag
    imaginary[-1] = 0.0
    crossings = np.flatnonzero((imaginary[:-1] * imaginary[1:] < 0) & (size[:-1] > 1e-18))
    values = turned.real[crossings] / size[crossings]

    turn = -1j * np.arange(len(law.pmf))

    def pulled(theta: float) -> complex:
        return complex(_undamped(cmath.exp(-1j * theta), law.pmf @ np.exp(theta * turn), how))

    def at(theta: float) -> complex:
        return (cmath.exp(-1j * theta) - 1.0) * pulled(theta).conjugate()

    for i in crossings[np.argsort(values)]:
        if turned.real[i] <= 0 and turned.real[i + 1] <= 0:
            continue
        low, high = float(angle[i]), float(angle[i + 1])
        share = imaginary[i] / (imaginary[i] - imaginary[i + 1])
        theta = float(low + share * (high - low))
        if at(low).imag * at(high).imag < 0:
            theta = float(optimize.root_scalar(lambda t: at(t).imag, bracket=(low, high), xtol=1e-15).root)
        value = at(theta).real / abs(pulled(theta)) ** 2
        if 0 < value < best:
            best = value
        elif value > 4 * best:
            break
    return best


def _undamped(w: Any, delayed: Any, how: StepFilter) -> Any:
    """What h is multiplied by in c, over 1 - beta w, at points w where P is ``delayed``."""
    return w * (how.now + how.later * w) * (delayed + how.decay) / (1.0 - how.pole * w)


def mean_square_step_limit(
    law: StalenessLaw,
    mean_limit: float | None = None,
    how: StepFilter = NO_FILTER,
    *,
    weight: float = 1.0,
    precision: float = 1e-6,
) -> float:
    r"""Largest h with :math:`w h^2 (g_0 - g_1) < 1`: mean-square stable, for w = 1 with independent staleness.

    Exact for constant staleness (there it is the mean limit). In closed systems conservative: up to 16 % at 2
    workers, 7 % from 16 workers on. ``precision`` is relative.
    """
    upper = mean_step_limit(law, how) if mean_limit is None else mean_limit
    if law.variance < 1e-12:
        return upper
    upper = min(upper, 1e6)

    def excess(step: float) -> float:
        try:
            gain = noise_gain(step, law, how, tolerance=10.0 * precision)
        except NotConvergedError:
            return math.inf
        return weight * step**2 * (gain.additive - gain.read) - 1.0

    low, high = 0.0, 1.0
    while high > 1e-9 and (high >= 1.0 or excess(high * upper) > 0):
        high *= 0.5
    low = high
    high = min(2.0 * low, 1.0)
    while high - low > precision * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if excess(middle * upper) > 0 else (middle, high)
    return low * upper


def decay_per_update(step: float, law: StalenessLaw, how: StepFilter = NO_FILTER) -> float:
    r"""Decay exponent of the mean per update: log of the modulus of the smallest zero of c(w); below 0 if it grows.

    A slow mode's zero is real and found by Newton's method, and counted to be alone. Otherwise the zero is bracketed
    by counting zeros inside circles (argument principle on an equally spaced, refined grid) and polished by Newton's
    method.
    """
    scale = law.mean + 1.0 + how.lag
    if _is_slow(step, law, how):
        slow = _slow_zero(step, law, how)
        if slow is not None and _is_alone(slow, step, law, how):
            return slow
    coefficients = characteristic_coefficients(step, law.pmf, how)
    low, high = -0.5, 0.0
    if zeros_inside(coefficients, 1.0):
        low, high = -2.0, 0.0
    else:
        high = 0.25 / scale
        while not zeros_inside(coefficients, math.exp(high)):
            low, high = high, 2.0 * high
            if high > 50.0:
                return math.inf
        low = max(low, 0.0)
    for _ in range(30):
        middle = 0.5 * (low + high)
        if zeros_inside(coefficients, math.exp(middle)):
            high = middle
        else:
            low = middle
        if high - low < 1e-3 * max(abs(high), 1e-6):
            break
    slack = 1e-3 * max(abs(low), abs(high)) + 1e-12
    for zero in _polished(coefficients, math.exp(high)):
        if zero != 0 and low - slack <= math.log(abs(zero)) <= high + slack:
            return math.log(abs(zero))
    return 0.5 * (low + high)


def _is_alone(delta: float, step: float, law: StalenessLaw, how: StepFilter) -> bool:
    """Whether a circle about a slow mode's zero is found that encloses no other."""
    coefficients = characteristic_coefficients(step, law.pmf, how)
    return any(zeros_inside(coefficients, math.exp(delta + gap)) == 1 for gap in _gaps_beyond(delta, law, how))


def zeros_inside(coefficients: Array, radius: float) -> int:
    """Zeros of a real polynomial (lowest power first) inside a circle, by the turns of its value along it."""
    scaled = coefficients * radius ** np.arange(len(coefficients))
    length = 1 << math.ceil(math.log2(8 * len(coefficients) + 64))
    turns, sure = 0, False
    while not sure and length <= LONGEST_TRANSFORM:
        turns, sure = _half_turns(np.fft.rfft(scaled, length))
        length *= 2
    return -turns


def _polished(coefficients: Array, radius: float) -> Iterator[complex]:
    """Zeros by Newton's method from where the polynomial is least along a circle, the least first."""
    length = 1 << math.ceil(math.log2(16 * len(coefficients) + 64))
    size = np.abs(np.fft.rfft(coefficients * radius ** np.arange(len(coefficients)), length))
    least = np.flatnonzero((size <= np.roll(size, 1)) & (size <= np.roll(size, -1)))
    slope = np.polynomial.polynomial.polyder(coefficients)
    for place in least[np.argsort(size[least])][:STARTS]:
        w = radius * np.exp(-2j * np.pi * int(place) / length)
        for _ in range(60):
            change = np.polynomial.polynomial.polyval(w, coefficients) / np.polynomial.polynomial.polyval(w, slope)
            if not abs(change) < 0.5 * abs(w):
                break
            w -= change
            if abs(change) < 1e-14 * abs(w):
                yield complex(w)
                break


@dataclass(frozen=True)
class Moments:
    """Mean of x, and its second moment, after 0, 1, 2, ... updates; each of shape (updates + 1,)."""

    mean: Array
    second: Array


def transient(
    step: float, noise: float, start: float, law: StalenessLaw, weight: float, updates: int,
    how: StepFilter = NO_FILTER,
) -> Moments:  # fmt: skip
    r"""Moments of the recursion from a standing start, every first gradient computed at the start.

    The mean loses :math:`h(1 + \rho/\lambda)` times each coefficient of the response to a unit. The variance is the
    square of that response convolved with the noise of each step: :math:`\eta^2\sigma^2` plus the share w of the
    variance that a random choice of the past adds,
    :math:`h^2\{E\,m^2 - (E\,m)^2 + (1 - g_1/g_0)\,E\,V\}` over the staleness law.

    Args:
        step: h = learning rate x curvature.
        noise: Variance of one update's noise, learning rate^2 x gradient-noise variance.
        start: x before the first update.
        law: Staleness of an applied gradient.
        weight: Share w, see `variance_factor`.
        updates: How many updates to compute.
        how: Momentum and weight decay.
    """
    count = updates + 1
    with np.errstate(over="ignore", invalid="ignore"):
        kick = _filtered(reciprocal_series(characteristic_coefficients(step, law.pmf, how), count), how)
        mean = start * np.append(1.0, 1.0 - step * (1.0 + how.decay) * np.cumsum(kick[:-1]))
        variance = np.zeros(count)
        if noise > 0 or weight > 0:
            variance = _variance(step, noise, mean, start, law, weight, kick, how)
        return Moments(mean, mean**2 + variance)


def noise_response(step: float, law: StalenessLaw, weight: float, updates: int, how: StepFilter = NO_FILTER) -> Array:
    """Variance of x after 0, 1, ..., ``updates`` updates for unit noise in the first of them; see `transient`."""
    with np.errstate(over="ignore", invalid="ignore"):
        kick = _filtered(reciprocal_series(characteristic_coefficients(step, law.pmf, how), updates + 1), how)
        impulse = np.zeros(updates + 1)
        impulse[0] = 1.0
        square = kick**2
        return _amplified(_accumulate(square, impulse), square, _feedback(step, law, weight, how)[0], law)


def _filtered(series: Array, how: StepFilter) -> Array:
    """Coefficients of B(w) times a series, as many."""
    filtered = how.now * series
    filtered[1:] += how.later * series[:-1]
    return filtered


def reciprocal_series(coefficients: Array, length: int) -> Array:
    """First ``length`` coefficients of 1/c(w): the response of the recursion to one unit.

    By the recursion itself, or where that is long (many coefficients x many updates) by Newton's iteration
    b <- b (2 - c b), which doubles the coefficients known and is right to rounding of the largest; where that is large,
    by the recursion again, unless it is very long.

    Args:
        coefficients: Of c, lowest power first, c(0) = 1, shape (any,).
        length: How many to return.
    """
    coefficients = coefficients[:length]
    if len(coefficients) * length >= RECURSED:
        with np.errstate(over="ignore", invalid="ignore"):
            known = _recursed(coefficients, min(length, BEGUN))
            while len(known) < length:
                count = min(2 * len(known), length)
                error = -signal.fftconvolve(coefficients[:count], known)[:count]
                error[0] += 2.0
                known = signal.fftconvolve(known, error)[:count]
        if np.abs(known).max() < LARGEST or len(coefficients) * length >= LONGEST_RECURSED:
            return known
    return _recursed(coefficients, length)


def _recursed(coefficients: Array, length: int) -> Array:
    impulse = np.zeros(length)
    impulse[0] = 1.0
    return np.asarray(signal.lfilter([1.0], coefficients[:length], impulse))


def _variance(
    step: float, noise: float, mean: Array, start: float, law: StalenessLaw, weight: float, kick: Array, how: StepFilter
) -> Array:
    r"""Variance of x that noise makes and the choice of the past; what comes back of both is, for slow modes, nothing.

    Over k updates the choice of the past adds some :math:`w h^4\mathrm{Var}(K)\,k` of a slow mode's square.
    """
    count, square = len(mean), kick**2
    made = noise * np.append(0.0, np.cumsum(square[:-1]))
    feedback, loop = _feedback(step, law, weight, how)
    if feedback <= 0.0 or (loop < NOTHING and _is_slow(step, law, how)):
        return made / (1.0 - loop)
    size, pmf = fft.next_fast_len(2 * count, real=True), law.pmf[:count]
    tail = np.zeros(count)
    tail[: len(pmf)] = np.maximum(1.0 - np.cumsum(pmf), 0.0)
    both = np.array([mean**2, mean])
    read = np.fft.irfft(np.fft.rfft(both, size) * np.fft.rfft(pmf, size), size)[:, :count] + tail * [
        [start**2],
        [start],
    ]
    made += _accumulate(square, weight * step**2 * np.maximum(read[0] - read[1] ** 2, 0.0))
    return _amplified(made, square, feedback, law)


def _feedback(step: float, law: StalenessLaw, weight: float, how: StepFilter) -> tuple[float, float]:
    """What of the variance of x comes back as noise by the choice of the past; and of noise, in the long run."""
    if weight <= 0 or law.variance <= 0:
        return 0.0, 0.0
    try:
        gain = noise_gain(step, law, how)
        feedback = weight * step**2 * (1.0 - gain.read / gain.additive)
        return feedback, feedback * gain.additive
    except NotConvergedError:
        return weight * step**2, math.inf


def _amplified(made: Array, square: Array, feedback: float, law: StalenessLaw) -> Array:
    """Variance made by a source of noise, and by what comes back of it."""
    variance = made
    if feedback <= 0:
        return made
    count = len(made)
    size = fft.next_fast_len(2 * count, real=True)
    ages = np.zeros(count)
    ages[: len(law.pmf)] = law.pmf[:count]
    back = np.fft.rfft(feedback * _accumulate(square, ages), size)
    for _ in range(200):
        better = made + np.maximum(np.fft.irfft(back * np.fft.rfft(variance, size), size)[:count], 0.0)
        change = np.abs(better - variance).max()
        variance = better
        if not change > SAME * variance.max():
            break
    return variance


def _accumulate(square: Array, source: Array) -> Array:
    """V_k = sum over i < k of square[k - 1 - i] source[i]."""
    return np.concatenate([[0.0], np.maximum(signal.fftconvolve(square, source)[: len(source) - 1], 0.0)])
