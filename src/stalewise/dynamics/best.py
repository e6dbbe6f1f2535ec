r"""At which gain, and at which delay, the mean of the delay equation decays fastest.

With :math:`s = -x` the equation :math:`s + a\varphi(s) = 0` is :math:`a = x/\varphi(-x)`. :math:`\ln\varphi(-x)` is
convex, so that this has one maximum, where :math:`x\,\mathrm E[De^{xD}]/\mathrm E\,e^{xD} = 1`: a double root. Up to
its gain :math:`a^*` the least such x is the decay rate, and it rises with a: for r between the two real solutions
:math:`a\varphi(-r) < r`, and a root with :math:`\Re s \ge -r` has :math:`|s| \le a\varphi(-r) < r`; in the circle of
radius r there is one root alone (Rouche). Beyond :math:`a^*` the rate is that of a pair, which is looked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant, Gamma
from stalewise.dynamics.roots import gain_limit, rightmost_root, rightmost_roots
from stalewise.dynamics.roots.search import answered, facts_of
from stalewise.errors import InputError

Array = NDArray[np.float64]
FARTHEST, GAINS = 100.0, 200  # how far beyond the double root a faster gain is looked for, and at how many gains
SAME = 1e-9  # of a rate: as fast
HEAVY = "heavy-tailed delay: the mean decays like a power of time at every gain, none is fastest"
NONE_HELPS = "heavy-tailed delay: however short, it makes the mean decay like a power of time; best is none"
PLATEAU = "plateau: every larger gain decays as fast"
EDGE = "no root governs the decay there but the transform's singularity; every larger gain decays as fast"


@dataclass(frozen=True)
class FastestGain:
    """The gain at which the slowest mode decays fastest.

    Attributes:
        gain: Of the stiffest mode [1/s]; None for heavy tails.
        rate: Decay rate of the mean of the slowest mode there [1/s]; None for heavy tails.
        plateau: Whether every larger gain decays as fast.
        note: What to know about it, empty if nothing.
    """

    gain: float | None
    rate: float | None
    plateau: bool = False
    note: str = ""


@dataclass(frozen=True)
class BestStaleness:
    """The delay at which a mode of a given gain decays fastest.

    Attributes:
        delay: Its mean [s]; None for heavy tails.
        scale: That over the mean of the law asked about; None for heavy tails.
        rate: Decay rate of the mean there [1/s].
        speed_up: That over the rate without delay, which is the gain.
        note: What to know about it, empty if nothing.
    """

    delay: float | None
    scale: float | None
    rate: float
    speed_up: float
    note: str = ""


def fastest_gain(delay: AbstractDelay | float, condition: float = 1.0) -> FastestGain:
    r"""Gain at which :math:`\dot x = -a\,\mathrm E\,x(t - D)` decays fastest: its rightmost root lies furthest left.

    One mode: constant delay :math:`a\mu = 1/e`, rate :math:`1/\mu`; gamma(k), k at least 1,
    :math:`a\mu = (k/(k+1))^{k+1}`, rate :math:`k/((k+1)\mu)`; for k = 1 (exponential) every gain from
    :math:`1/(4\mu)` on is as fast. Gamma(k < 1): beyond :math:`a\mu = k\tan^k(k\pi/2)/\cos(k\pi/2)` no root is left
    and the singularity :math:`-k/\mu` governs. Any other law: the double root, or a faster gain beyond it if one of
    200 up to 100 times its own (or the gain limit) is found, then narrowed down.

    Modes of gains a/condition to a: those where the slowest is fastest; where the stiffest is slower than at its own
    best, the softest and the stiffest decay alike.

    Args:
        delay: Law of the delay, or a constant delay above zero [s].
        condition: Largest curvature over the least, at least 1.

    Returns:
        The gain of the stiffest mode, and the rate. A plateau is said; heavy tails have no rate, which is said.

    Raises:
        InputError: An argument is out of range, or the delay is 0 (the rate is then the gain, without end).
        NotConvergedError: The law's roots cannot be resolved.

    Limits:
        1e-9 for one mode. The search beyond the double root is bounded, and its gains are 2 % apart or more. Real
        workers at this gain: the delay equation's rate is up to 78 % too high at 2 workers, 11 % at 64
        (`docs/theory.md`).

    Example:
        >>> best = fastest_gain(1.0)
        >>> f"{best.gain:.4f} {best.rate:.4f}"
        '0.3679 1.0000'
    """
    law = _law(delay)
    condition = checks.finite("condition", condition)
    if condition < 1.0:
        raise InputError(f"condition must be at least 1 (largest curvature over the least), got {condition:g}")
    if law.abscissa == 0.0:
        return FastestGain(None, None, note=HEAVY)
    one = _one_mode(law)
    if condition == 1.0 or one.gain is None or one.rate is None:
        return one
    if one.plateau:
        return FastestGain(condition * one.gain, one.rate, True, one.note)
    return _many_modes(law, one.gain, condition)


def best_staleness(gain: float, delay: AbstractDelay | float = 1.0) -> BestStaleness:
    r"""Delay at which a mode of this gain decays fastest: a small staleness accelerates.

    Only the mean of the delay is looked for, its law keeps its shape. The double root of `fastest_gain` is at
    :math:`a\mu`, which a given gain reaches by its delay: gamma(k) :math:`(1 + 1/k)^k` times as fast as without
    delay, memoryless delays twice, constant ones e times. Thresholds, which act on staleness in updates:
    `best_threshold`.

    Args:
        gain: a = learning rate x curvature x update rate, above zero [1/s].
        delay: A law of the shape meant; a constant delay if it is a number [s].

    Returns:
        The mean delay and the rate. Under heavy tails no delay beats none: every one makes the decay a power of time.

    Raises:
        InputError: An argument is out of range.
        NotConvergedError: The law's roots cannot be resolved.

    Limits:
        As `fastest_gain`.

    Example:
        >>> f"{best_staleness(2.0).speed_up:.4f}"
        '2.7183'
    """
    law, gain = _law(delay), checks.positive("gain", gain, "1/s")
    if law.abscissa == 0.0:
        return BestStaleness(None, None, gain, 1.0, NONE_HELPS)
    turning, rate = _double_root(law)
    if not isinstance(law, Constant | Gamma):
        turning, rate = _searched(law, turning, rate, lambda gains, rates: rates / gains)
    scale = turning / gain
    return BestStaleness(law.mean * scale, scale, rate / scale, rate / turning)


def _law(delay: AbstractDelay | float) -> AbstractDelay:
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.positive("delay", delay, "seconds"))
    if law.mean == 0.0:
        raise InputError("delay must be above zero: without one the rate is the gain, and no gain is fastest")
    return law


def _zero(f: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.root_scalar(f, bracket=(low, high), xtol=1e-15 * high, rtol=1e-14).root)


def _double_root(law: AbstractDelay) -> tuple[float, float]:
    """Gain and rate of the double root."""
    mean = law.mean
    if isinstance(law, Constant):
        return 1.0 / (math.e * mean), 1.0 / mean
    if isinstance(law, Gamma):
        k = law.shape
        return math.exp((k + 1.0) * math.log(k / (k + 1.0))) / mean, k / ((k + 1.0) * mean)
    facts = facts_of(law)

    def transform(x: float) -> tuple[float, float]:
        """E exp(xD) and E D exp(xD)."""
        f, slope = answered(facts, (0.0, 1.0, 0.0, 1.0, 0.0), lambda mode: mode.value(complex(-x, 0.0)))
        return f.real + x, 1.0 - slope.real

    def excess(x: float) -> float:
        value, slope = transform(x)
        return 1.0 if not math.isfinite(slope) else x * slope / value - 1.0

    most = min(1.0 / mean, -law.abscissa * (1.0 - 1e-12))  # tilted delays are longer: x is at most 1/mean
    rate = _zero(excess, 0.0, most) if excess(most) > 0 else most
    return rate / transform(rate)[0], rate


def _one_mode(law: AbstractDelay) -> FastestGain:
    turning, rate = _double_root(law)
    if isinstance(law, Gamma) and law.shape < 1.0:
        angle = 0.5 * math.pi * law.shape
        own = law.shape / law.mean
        return FastestGain(math.tan(angle) ** law.shape / math.cos(angle) * own, own, True, EDGE)
    if isinstance(law, Constant | Gamma):
        plateau = isinstance(law, Gamma) and law.shape == 1.0
        return FastestGain(turning, rate, plateau, PLATEAU if plateau else "")
    gain, rate = _searched(law, turning, rate, lambda _, rates: rates)
    ahead = _rates(law, gain * np.array([1.5, 3.0, 10.0]))
    plateau = bool(np.all(ahead >= rate * (1.0 - SAME)))
    return FastestGain(gain, rate, plateau, PLATEAU if plateau else "")


def _rates(law: AbstractDelay, gains: Array) -> Array:
    return -rightmost_roots(gains, law).real


def _searched(
    law: AbstractDelay, turning: float, rate: float, worth: Callable[[Array, Array], Array]
) -> tuple[float, float]:
    """Gain and rate of the greatest worth from the double root on."""
    last = min(gain_limit(law), FARTHEST * turning)
    gains = np.geomspace(turning, last, GAINS)[1:]
    values = worth(gains, _rates(law, gains))
    place, least = int(np.argmax(values)), float(worth(np.array([turning]), np.array([rate]))[0])
    if not values[place] > least * (1.0 + SAME):
        return turning, rate
    low, high = gains[max(place - 1, 0)], gains[min(place + 1, len(gains) - 1)]

    def loss(gain: float) -> float:
        return -float(worth(np.array([gain]), _rates(law, np.array([gain])))[0])

    found: Any = optimize.minimize_scalar(
        loss, bounds=(float(low), float(high)), method="bounded", options={"xatol": 1e-12}
    )
    gain = float(found.x) if -found.fun > values[place] else float(gains[place])
    return gain, float(_rates(law, np.array([gain]))[0])


def _many_modes(law: AbstractDelay, own: float, condition: float) -> FastestGain:
    """Where the stiffest mode, past its own best, is as fast as the softest, before its own."""

    def rate(gain: float) -> float:
        root = rightmost_root(gain, law).value
        assert root is not None
        return -root.real

    def ahead(gain: float) -> float:
        return rate(gain) - rate(gain / condition)

    most = min(gain_limit(law), condition * own)
    if ahead(most) >= 0.0:
        return FastestGain(most, rate(most / condition))
    gain = _zero(ahead, own, most)
    return FastestGain(gain, rate(gain / condition))
