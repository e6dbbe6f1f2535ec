r"""Transforms of delays in compiled code: :math:`\varphi(s) = \mathrm E\,e^{-sD}` and its derivative.

A law becomes a program for a machine with a stack: an instruction pushes the transform of one part, or multiplies (sums
of delays), or weighs and adds (mixtures) what is there. Every entry is a transform and its derivative.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stalewise.delays import (
    AbstractChoice,
    AbstractDelay,
    Constant,
    Gamma,
    Lognormal,
    Normal,
    Pareto,
    ShiftedExponential,
    Sum,
    Uniform,
    Weibull,
)
from stalewise.delays.laws import AbstractSampled
from stalewise.dynamics.roots import nodes
from stalewise.errors import InputError
from stalewise.jit import as_bits, as_double

SHIFT, POWER, FLAT, REAL, TURNED, TIMES, WEIGH, PLUS = range(8)
_ONE, _B52, _B1, _B2, _B63 = (np.uint64(bits) for bits in (0x3FF0000000000000, 52, 1, 2, 63))
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to whole numbers
_part: Any = njit(cache=True, nogil=True, error_model="numpy", forceinline=True, fastmath={"contract"})
_loop: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


class Program(NamedTuple):
    r"""Instructions and nodes, in two arrays, for handing an array to compiled code costs a tenth of a microsecond.

    Attributes:
        rows: One instruction each: code, two numbers (of nodes: of a normal law its mean and spread before it is cut,
            of a sample infinite and 0), first node and the one behind the last, shape (n, 5).
        rules: Nodes and weights, real and imaginary parts: shape (4, m).
    """

    rows: NDArray[np.float64]
    rules: NDArray[np.float64]


class _Writer:
    """What has been written so far."""

    def __init__(self, left: float, reach: float) -> None:
        self.left, self.reach = left, reach
        self.rows: list[tuple[float, ...]] = []
        self.rules: list[nodes.Rule] = []
        self.length = 0

    def push(self, code: int, first: float = 0.0, second: float = 0.0) -> None:
        self.rows.append((code, first, second, 0, 0))

    def push_rule(self, rule: nodes.Rule, center: float = math.inf, spread: float = 0.0) -> None:
        end = self.length + len(rule[0])
        code = TURNED if np.imag(rule[0]).any() or np.imag(rule[1]).any() else REAL
        self.rows.append((code, center, spread, self.length, end))
        self.rules.append(rule)
        self.length = end

    def law(self, law: AbstractDelay) -> None:
        """Push the transform of a law."""
        match law:
            case Sum(parts=parts):
                for i, part in enumerate(parts):
                    self.law(part)
                    if i:
                        self.push(TIMES)
            case AbstractChoice():
                for i, (share, part) in enumerate(zip(law.probabilities, law.laws, strict=True)):
                    self.law(part)
                    self.push(WEIGH, float(share))
                    if i:
                        self.push(PLUS)
            case _:
                self.part(law)

    def part(self, law: AbstractDelay) -> None:
        """Push a law that is not made of others."""
        match law:
            case Constant(value=value):
                self.push(SHIFT, value)
            case ShiftedExponential(shift=shift, exponential_mean=mean):
                self.push(POWER, mean, 1.0)
                if shift > 0:
                    self.push(SHIFT, shift)
                    self.push(TIMES)
            case Gamma(gamma_mean=mean, shape=shape):
                self.push(POWER, mean / shape, shape)
            case Uniform(low=low, high=high):
                self.push(FLAT, low, high)
            case Normal(center=center, spread=spread):
                self.push_rule(nodes.normal(center, spread, self.left, self.reach), center, spread)
            case Lognormal(median=median, sigma=sigma):
                self.push_rule(nodes.lognormal(float(np.log(median)), sigma, self.reach))
            case Weibull(scale=scale, shape=shape):
                self.push_rule(nodes.weibull(scale, shape, self.left, self.reach))
            case Pareto(scale=scale, shape=shape):
                self.push_rule(nodes.pareto(scale, shape))
                self.push(SHIFT, scale)
                self.push(TIMES)
            case AbstractSampled() if len(law.values) == 1:
                self.push(SHIFT, float(law.values[0]))
            case AbstractSampled():
                self.push_rule(nodes.sampled(law.values, self.reach))
            case _:
                raise InputError(f"delay: the transform of {law} is not known to the root finder")


@functools.lru_cache(maxsize=512)
def program_of(law: AbstractDelay, left: float, reach: float) -> Program:
    """The program of a law, good for Re s >= -left within ``reach`` of 0 [1/s]; closed forms are good everywhere."""
    writer = _Writer(left, reach)
    writer.law(law)
    node = np.concatenate([np.zeros(0, np.complex128), *(rule[0] for rule in writer.rules)])
    weight = np.concatenate([np.zeros(0, np.complex128), *(rule[1] for rule in writer.rules)])
    return Program(np.array(writer.rows, float), np.stack([node.real, node.imag, weight.real, weight.imag]))


def is_closed(law: AbstractDelay) -> bool:
    """Whether a law's transform is a closed form, good everywhere."""
    match law:
        case Sum(parts=parts):
            return all(is_closed(part) for part in parts)
        case AbstractChoice():
            return all(is_closed(part) for part in law.laws)
        case AbstractSampled():
            return len(law.values) == 1
        case _:
            return isinstance(law, Constant | Gamma | ShiftedExponential | Uniform)


def is_rising(law: AbstractDelay) -> bool:
    r"""Whether every root on the axis moves right as the gain a grows, so that what is unstable remains so.

    From :math:`s = -a\varphi(s)`, :math:`ds/da = a^{-1}/(1/s - \varphi'/\varphi)`; at :math:`s = i\omega` 1/s has no
    real part, so that the root moves right where :math:`-\Re\varphi'/\varphi > 0`. That is D for a constant, of gamma
    stages :math:`\Re\,k\theta/(1 + i\omega\theta) > 0`, of a law that is symmetric about its mean this mean; of a sum
    of delays the sum.
    """
    match law:
        case Sum(parts=parts):
            return all(is_rising(part) for part in parts)
        case AbstractSampled():
            return len(law.values) == 1
        case _:
            return isinstance(law, Constant | Gamma | ShiftedExponential | Uniform)


@_part
def _exp(x):  # pragma: no cover
    """e^x to 1e-15 for x from -700 to 700, where it is held."""
    x = min(max(x, -700.0), 700.0)
    shifted = x * 1.4426950408889634 + _ROUND
    k = shifted - _ROUND
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    tail = 1.0 / 5040.0 + r * (
        1.0 / 40320.0 + r * (1.0 / 362880.0 + r * (1.0 / 3628800.0 + r * (1.0 / 39916800.0 + r * (1.0 / 479001600.0))))
    )
    value = 1.0 + r * (
        1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * tail)))))
    )
    return value * as_double(_ONE + (as_bits(shifted) << _B52))


@_part
def _cos_sin(y):  # pragma: no cover
    """Cosine and sine, to 1e-15 for angles up to a million. Coefficients: fdlibm (Sun Microsystems, 1993)."""
    shifted = y * 0.6366197723675814 + _ROUND
    k = shifted - _ROUND
    x = (y - k * 1.57079632673412561417) - k * 6.07710050650619224932e-11
    w = x * x
    sine = -2.50507602534068634195e-08 + w * 1.58969099521155010221e-10
    sine = 8.33333333332248946124e-03 + w * (-1.98412698298579493134e-04 + w * (2.75573137070700676789e-06 + w * sine))
    sine = x + x * w * (-1.66666666666666324348e-01 + w * sine)
    cosine = 2.08757232129817482790e-09 + w * -1.13596475577881948265e-11
    cosine = -1.38888888888741095749e-03 + w * (
        2.48015872894767294178e-05 + w * (-2.75573143513906633035e-07 + w * cosine)
    )
    cosine = 1.0 - 0.5 * w + w * w * (4.16666666666666019037e-02 + w * cosine)
    turns = as_bits(shifted)
    odd = (turns & _B1) != np.uint64(0)
    c, s = (sine if odd else cosine), (cosine if odd else sine)
    s = as_double(as_bits(s) ^ ((turns & _B2) << np.uint64(62)))
    c = as_double(as_bits(c) ^ (((turns + _B1) & _B2) << np.uint64(62)))
    return c, s


@_loop
def _summed(rules, begin, end, x, y):  # pragma: no cover
    """Sum of W e^-sT and of -T W e^-sT over real nodes, in real parts, s = x + iy."""
    a = b = c = d = 0.0
    for i in range(begin, end):
        size = rules[2, i] * _exp(-x * rules[0, i])
        cosine, sine = _cos_sin(y * rules[0, i])
        re, im = size * cosine, -size * sine
        a += re
        b += im
        c -= rules[0, i] * re
        d -= rules[0, i] * im
    return a, b, c, d


@_loop
def _summed_turned(rules, begin, end, x, y):  # pragma: no cover
    """The same over complex nodes and weights."""
    a = b = c = d = 0.0
    for i in range(begin, end):
        size = _exp(y * rules[1, i] - x * rules[0, i])
        cosine, sine = _cos_sin(x * rules[1, i] + y * rules[0, i])
        re = size * (rules[2, i] * cosine + rules[3, i] * sine)
        im = size * (rules[3, i] * cosine - rules[2, i] * sine)
        a += re
        b += im
        c -= rules[0, i] * re - rules[1, i] * im
        d -= rules[0, i] * im + rules[1, i] * re
    return a, b, c, d


@_loop
def _sizes(rules, begin, end, x, y):  # pragma: no cover
    """Sum of |W e^-sT| and of |T W e^-sT|."""
    a = b = 0.0
    for i in range(begin, end):
        size = _exp(y * rules[1, i] - x * rules[0, i])
        size *= np.sqrt(rules[2, i] * rules[2, i] + rules[3, i] * rules[3, i])
        a += size
        b += size * np.sqrt(rules[0, i] * rules[0, i] + rules[1, i] * rules[1, i])
    return a, b


@njit(cache=True, nogil=True, error_model="numpy")
def _push(program, at, s):  # pragma: no cover
    """Transform and derivative of one part, Im s >= 0."""
    code, first, second = int(program.rows[at, 0]), program.rows[at, 1], program.rows[at, 2]
    if code == 0:
        value = np.exp(-s * first)
        return value, -first * value
    if code == 1:
        z = s * first
        if z == -1.0:  # the pole
            return complex(np.inf, 0.0), complex(np.inf, 0.0)
        log = complex(
            0.5 * np.log1p(2.0 * z.real + z.real * z.real + z.imag * z.imag), np.arctan2(z.imag, 1.0 + z.real)
        )
        value = np.exp(-second * log)
        return value, -(first * second) * value / (1.0 + z)
    if code == 2:
        half, middle = 0.5 * (second - first), 0.5 * (first + second)
        z = s * half
        if abs(z) < 0.5:
            w, ratio, slope = z * z, complex(1.0, 0.0), complex(1.0, 0.0)
            for k in range(6, 0, -1):  # sinh z/z, and 3/z of its derivative
                ratio = 1.0 + w * ratio / (2.0 * k * (2.0 * k + 1.0))
                slope = 1.0 + w * slope / (2.0 * k * (2.0 * k + 3.0))
            slope *= z / 3.0
            value = np.exp(-s * middle)
            return value * ratio, value * (half * slope - middle * ratio)
        early, late = np.exp(-s * first), np.exp(-s * second)
        value = (early - late) / (s * (second - first))
        return value, (late * second - early * first) / (s * (second - first)) - value / s
    begin, end = int(program.rows[at, 3]), int(program.rows[at, 4])
    if code == 3:
        a, b, c, d = _summed(program.rules, begin, end, s.real, s.imag)
    else:
        a, b, c, d = _summed_turned(program.rules, begin, end, s.real, s.imag)
    return complex(a, b), complex(c, d)


@_loop
def _normal_bounds(rules, begin, end, sigma, size, center, spread):  # pragma: no cover
    r"""Bounds of transform and derivative of a normal law cut at 0 where Re s >= sigma and \|s\| >= size.

    Twice by parts, with the density g and :math:`h(t) = t\,g(t)`, h(0) = 0, h'(0) = g(0):

    .. math:: \varphi = \frac{g(0)}{s} + \frac{g'(0) + \int_0^\infty e^{-st}g''\,dt}{s^2}, \qquad
       -\varphi' = \frac{g(0) + \int_0^\infty e^{-st}h''\,dt}{s^2}.

    With z = (t - center)/spread: :math:`|g'(0)| = |z_0|g(0)/\mathrm{spread}`,
    :math:`|g''| \le (z^2 + 1)g/\mathrm{spread}^2` and
    :math:`|h''| \le 2|g'| + t|g''| \le (z^2 + 1)(1/\mathrm{spread} + t/\mathrm{spread}^2)g`, for
    :math:`2|z| \le z^2 + 1`; integrals against :math:`e^{-\sigma t} \ge |e^{-st}|` by the rule.
    """
    a = b = 0.0
    for i in range(begin, end):
        t = rules[0, i]
        z = (t - center) / spread
        g = rules[2, i] * _exp(-sigma * t) * (z * z + 1.0) / (spread * spread)
        a += g
        b += g * (spread + t)
    z = center / spread
    start = np.exp(-0.5 * z * z) / (spread * 2.5066282746310002 * 0.5 * math.erfc(-z * 0.7071067811865476))
    return (start + (abs(z) / spread * start + a) / size) / size, (start + b) / (size * size)


@njit(cache=True, nogil=True, error_model="numpy")
def _bounds_of(program, at, sigma, omega):  # pragma: no cover
    """`bounds` of one part."""
    code, first, second = int(program.rows[at, 0]), program.rows[at, 1], program.rows[at, 2]
    if code == 0:
        value = np.exp(-sigma * first)
        return value, first * value
    if code == 1:
        far = np.hypot(1.0 + sigma * first, omega * first)
        value = far**-second
        return value, first * second * value / far
    phi, slope = _push(program, at, complex(sigma, 0.0))
    value, steep = phi.real, max(-slope.real, 0.0)
    if omega == 0.0:
        return value, steep
    size = np.hypot(max(sigma, 0.0), omega)
    if code == 2:
        early, late = np.exp(-sigma * first), np.exp(-sigma * second)
        value = min(value, (early + late) / (size * (second - first)))
        return value, min(steep, ((first * early + second * late) / (second - first) + value) / size)
    begin, end = int(program.rows[at, 3]), int(program.rows[at, 4])
    if code == 3:
        if first == np.inf:
            return value, steep
        a, b = _normal_bounds(program.rules, begin, end, sigma, size, first, second)
    else:
        a, b = _sizes(program.rules, begin, end, sigma, omega)
    return min(value, a), min(steep, b)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _combined(program, stack, at, code, top):  # pragma: no cover
    """Weigh what is on the stack, or multiply or add the last two; the new top."""
    if code == 6:
        stack[top, 0] *= program.rows[at, 1]
        stack[top, 1] *= program.rows[at, 1]
        return top
    a, da, b, db = stack[top - 1, 0], stack[top - 1, 1], stack[top, 0], stack[top, 1]
    if code == 5:
        stack[top - 1, 0], stack[top - 1, 1] = a * b, a * db + da * b
    else:
        stack[top - 1, 0], stack[top - 1, 1] = a + b, da + db
    return top - 1


@njit(cache=True, nogil=True, error_model="numpy")
def bounds(program, stack, sigma, omega):  # pragma: no cover
    r"""What transform and derivative do not exceed in size where Re s >= sigma and \|Im s\| >= omega >= 0.

    At omega = 0: :math:`\varphi(\sigma)` and :math:`-\varphi'(\sigma)`, the means of :math:`e^{-\sigma D}` and
    :math:`D e^{-\sigma D}`. Beyond it, the less of these and, with :math:`r = |\max(\sigma, 0) + i\omega| \le |s|`,

    * gamma stages :math:`(1 + s\theta)^{-k}`: sizes of value and derivative themselves, which fall with |1 + s theta|;
    * uniform on (l, h): :math:`\varphi = (e^{-sl} - e^{-sh})/(s(h-l))` and
      :math:`\varphi' = (h e^{-sh} - l e^{-sl})/(s(h-l)) - \varphi/s`, term by term, :math:`|s| \ge r`;
    * a normal law cut at 0: twice by parts, `_normal_bounds`;
    * rules on a ray turned by an angle below 90 degrees, Re T > 0 > Im T: sums of the sizes of their terms,
      :math:`|e^{-sT}| = e^{-\Re s \Re T + \Im s \Im T}`, each of which falls with Re s and Im s.

    Constants and samples fall nowhere. Sums of delays by the product rule, choices by their shares: both keep bounds.
    """
    if len(program.rows) == 1:
        return _bounds_of(program, 0, sigma, omega)
    top = -1
    for at in range(len(program.rows)):
        code = int(program.rows[at, 0])
        if code < 5:
            top += 1
            value, slope = _bounds_of(program, at, sigma, omega)
            stack[top, 0], stack[top, 1] = complex(value, 0.0), complex(slope, 0.0)
        else:
            top = _combined(program, stack, at, code, top)
    return stack[0, 0].real, stack[0, 1].real


@njit(cache=True, nogil=True, error_model="numpy")
def transform(program, stack, s):  # pragma: no cover
    """Transform and derivative at s; ``stack`` is room of shape (instructions, 2)."""
    below = s.imag < 0.0
    if below:
        s = s.conjugate()
    if len(program.rows) == 1:
        value, slope = _push(program, 0, s)
    else:
        top = -1
        for at in range(len(program.rows)):
            code = int(program.rows[at, 0])
            if code < 5:
                top += 1
                stack[top, 0], stack[top, 1] = _push(program, at, s)
            else:
                top = _combined(program, stack, at, code, top)
        value, slope = stack[0, 0], stack[0, 1]
    if below:
        return value.conjugate(), slope.conjugate()
    return value, slope
