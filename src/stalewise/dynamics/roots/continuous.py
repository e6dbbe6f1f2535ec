r"""The delay equation of one mode: its characteristic roots, certified, and the gain at which it loses stability.

With momentum a mode is :math:`T\ddot x + \dot x = -a\,(1 + T_n\tfrac{d}{dt})(\mathrm E\,x(t - D) + \rho x/\lambda)`:
averaging time :math:`T = \beta/((1-\beta)R)`, and :math:`T_n = \beta/R` for Nesterov's momentum, else 0.
One branch of Lambert's function is then not one root. Characteristic function:

.. math:: f(s) = s(1 + Ts) + a(1 + T_n s)\,(\varphi(s) + \rho/\lambda).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.delays import AbstractChoice, AbstractDelay, Constant, Gamma, ShiftedExponential, Weibull
from stalewise.dynamics.inertia import NO_INERTIA, Inertia
from stalewise.dynamics.roots.kernel import count_right, counts_of_gains, least_gain, rightmost_of_gains
from stalewise.dynamics.roots.search import Equation, Facts, Mode, Root, answered, facts_of, programs, staged
from stalewise.dynamics.roots.verdict import counted, proven
from stalewise.errors import InputError, NotConvergedError

MOST_ROOTS = 2000
FINEST, FASTEST, FARTHEST = (
    0.005,
    400.0,
    (1e9, 1e5),
)  # steps, and the ends, of a search for crossings near and far, in 1/mean
BELOW = 1.0 - 1e-6  # of a gain limit, where it is counted that all is stable


def rightmost_root(
    gain: float, delay: AbstractDelay | float, inertia: Inertia = NO_INERTIA, rate: float | None = None
) -> Root:
    r"""Rightmost characteristic root of :math:`\dot x(t) = -a\,\mathrm E\,x(t - D)`.

    Args:
        gain: a = learning rate x curvature x update rate, with momentum over :math:`1 - \beta`; above zero [1/s].
        delay: Law of the delay D, or a constant delay [s].
        inertia: Momentum and weight decay.
        rate: Update rate, which momentum needs [1/s].

    Returns:
        The root, with a certificate that none lies further right (argument principle on a march whose steps turn f by
        less than 60 degrees). Heavy tails whose mean is stable have no root: the mean then decays like a power, and
        ``value`` is None.

    Raises:
        InputError: ``gain`` or ``delay`` is not positive and finite.
        NotConvergedError: The gain is too large for the delay's transform to be resolved.

    Limits:
        1e-12 of the root's size for simple roots; a double root is good to about 1e-8 of it (`Root.condition`). When
        the root would lie left of the transform's singularity (gamma of shape below 1), the singularity governs the
        decay; it is returned with a note.

    Source:
        Constant delay: Corless et al. (1996), On the Lambert W function. Count: argument principle.

    Example:
        >>> f"{rightmost_root(1.0, 1.0).value:.3f}"
        '-0.318+1.337j'
    """
    facts, equation = facts_of(_law(delay)), _equation(gain, inertia, rate)
    if facts.mean == 0.0:
        return undelayed(equation)[0]
    return answered(facts, equation, Mode.rightmost)


def characteristic_roots(
    gain: float, delay: AbstractDelay | float, count: int, inertia: Inertia = NO_INERTIA, rate: float | None = None
) -> list[Root]:
    """The rightmost characteristic roots, from right to left, of each complex pair the upper one.

    Boxes are halved, and the roots in them counted, until each holds one or is too small to tell several apart (then
    that many are one multiple root).

    Args:
        gain: As for `rightmost_root` [1/s].
        delay: Law of the delay D, or a constant delay [s].
        count: How many to list, at most 2,000.
        inertia: Momentum and weight decay.
        rate: Update rate, which momentum needs [1/s].

    Returns:
        ``count`` of them, or as many as there are: an Erlang delay of k stages has k + 1; of other laws only roots
        right of the transform's singularity are roots of the equation, and beside it none can be counted; heavy tails
        have none left of the axis.

    Raises:
        InputError: An argument is out of range.
        NotConvergedError: The transform cannot be resolved that far to the left, or out there.
    """
    facts, equation = facts_of(_law(delay)), _equation(gain, inertia, rate)
    count = checks.at_least("count", count, 1)
    if count > MOST_ROOTS:
        raise InputError(f"count must be at most {MOST_ROOTS}, got {count}")
    if facts.mean == 0.0:
        return undelayed(equation)[:count]
    stages = staged(facts, equation)
    if stages is not None:
        return stages[:count]
    return answered(facts, equation, lambda mode: mode.several(count))


def is_stable(
    gain: float, delay: AbstractDelay | float, inertia: Inertia = NO_INERTIA, rate: float | None = None
) -> bool:
    """Whether the mean decays: no characteristic root right of the axis, or on it to rounding.

    Args:
        gain: As for `rightmost_root` [1/s].
        delay: Law of the delay D, or a constant delay [s].
        inertia: Momentum and weight decay.
        rate: Update rate, which momentum needs [1/s].

    Raises:
        InputError: An argument is out of range.
        NotConvergedError: The transform cannot be resolved out to the roots.
    """
    facts = facts_of(_law(delay))
    if inertia is NO_INERTIA:
        stable = proven(facts, checks.positive("gain", gain, "1/s"))
        if stable is not None:
            return stable
    equation = _equation(gain, inertia, rate)
    if facts.mean == 0.0:
        return True
    if equation == (0.0, 1.0, 0.0, equation[3], 0.0):
        stable = counted(facts, equation[3])
    else:
        program, reach, _ = facts.first
        count = count_right(program, equation, 0.0, reach)
        stable = None if count < 0 else count == 0
    return answered(facts, equation, Mode.decays) if stable is None else stable


def _checked(gains: ArrayLike) -> NDArray[np.float64]:
    flat = np.ravel(np.asarray(gains, float))
    bad = flat[~((flat > 0) & np.isfinite(flat))]
    if len(bad):
        raise InputError(f"gains must be positive and finite, got {float(bad[0])} (1/s)")
    return flat


def are_stable(gains: ArrayLike, delay: AbstractDelay | float) -> NDArray[np.bool_]:
    """`is_stable` for many gains of one law, element by element, in one compiled loop.

    Args:
        gains: Above zero [1/s], any shape.
        delay: Law of the delay, or a constant delay [s].

    Raises:
        InputError: A gain is not positive and finite.
        NotConvergedError: As `is_stable`.
    """
    facts, flat = facts_of(_law(delay)), _checked(gains)
    stable = flat <= facts.stable
    asked = np.flatnonzero(~stable & ((flat < facts.unstable[0]) | (flat > facts.unstable[1])))
    if len(asked):
        program, reach, _ = facts.first
        counts = np.empty(len(asked), np.int64)
        counts_of_gains(program, flat[asked], reach, counts)
        stable[asked] = counts == 0
        for i in asked[counts < 0]:
            stable[i] = is_stable(float(flat[i]), delay)
    return stable.reshape(np.shape(gains))


def rightmost_roots(gains: ArrayLike, delay: AbstractDelay | float) -> NDArray[np.complex128]:
    """`rightmost_root` for many gains of one law, element by element, in one compiled loop.

    Args:
        gains: Above zero [1/s], any shape.
        delay: Law of the delay, or a constant delay [s].

    Returns:
        Roots [1/s], of the shape of ``gains``; NaN where none exists.

    Raises:
        InputError: A gain is not positive and finite.
        NotConvergedError: As `rightmost_root`.
    """
    facts, flat = facts_of(_law(delay)), _checked(gains)
    roots, certified = np.empty(len(flat), complex), np.zeros(len(flat), bool)
    if facts.mean > 0.0:
        program, reach, lowest = facts.first
        rightmost_of_gains(program, flat, facts.mean, facts.square, lowest, reach, roots, certified)
    for i in np.flatnonzero(~certified):
        found = rightmost_root(flat[i], delay).value
        roots[i] = complex(math.nan, math.nan) if found is None else found
    return roots.reshape(np.shape(gains))


def gain_limit(delay: AbstractDelay | float, inertia: Inertia = NO_INERTIA, rate: float | None = None) -> float:
    r"""Smallest gain a at which the mean of :math:`\dot x = -a\,\mathrm E\,x(t - D)` loses stability [1/s].

    The least :math:`\omega/|\varphi(i\omega)|` over :math:`\Re\varphi(i\omega) = 0 > \Im\varphi(i\omega)`; with
    momentum the least real positive :math:`-s(1 + Ts)/((1 + T_n s)(\varphi(s) + \rho/\lambda))` over
    :math:`s = i\omega`. Since :math:`|\varphi| \le 1` no crossing above the least found so far can beat it, which ends
    the search.

    Args:
        delay: Law of the delay, or a constant delay [s].
        inertia: Momentum and weight decay.
        rate: Update rate, which momentum needs [1/s].

    Returns:
        The gain; infinite for mixtures of exponentials (gamma and Weibull laws of shape up to 1 are such), the real
        part of whose transform never vanishes, and where no crossing is found up to 1e9 mean rates (1e5 where
        delays have atoms).

    Raises:
        InputError: ``delay`` is negative or not finite; momentum without a rate.
        NotConvergedError: The transform cannot be resolved as far out as the first crossing; or just below the
            limit found a root is counted right of the axis.

    Limits:
        A relative 1e-12. Crossings are looked for in steps that turn the phase by a seventh of a radian, and not below
        0.005/(mean + 3 standard deviations): two that lie closer together are missed, which the count just below the
        limit tells unless both lie farther below. Beyond 400 mean rates nothing is counted.
    """
    facts = facts_of(_law(delay))
    _, _, time, _, lead = _equation(1.0, inertia, rate)
    if facts.mean == 0.0:
        return math.inf
    spread = min(math.sqrt(facts.square), float(facts.law.quantile(0.99)) / facts.mean)
    finest = FINEST / (facts.mean * (1.0 + 3.0 * spread))
    momentum = (time, lead, inertia.decay)
    found = _least(facts, momentum, finest, FASTEST / facts.mean)
    if math.isfinite(found):
        if not is_stable(BELOW * found, facts.law, inertia, rate):
            raise NotConvergedError(f"gain limit under {facts.law}: crossings too close together below {found:g} 1/s")
        return found
    if inertia == NO_INERTIA and _exponentials(facts.law):
        return math.inf
    farthest = FARTHEST[len(facts.law.atoms[0]) > 0]  # the phase of atoms turns for ever, and steps stay small
    return _least(facts, momentum, finest, farthest / facts.mean)


def _least(facts: Facts, inertia: tuple[float, float, float], finest: float, last: float) -> float:
    """The least gain with a root on the axis below ``last``."""
    for program, reach, _ in programs(facts):
        found = float(least_gain(program, inertia, 1e-9 / facts.mean, finest, last, reach))
        if found >= 0.0:
            return found
    raise NotConvergedError(f"gain limit under {facts.law}: the transform cannot be resolved that far out")


def _exponentials(law: AbstractDelay) -> bool:
    """Whether a law is known to be a mixture of exponentials."""
    if isinstance(law, AbstractChoice):
        return all(_exponentials(one) for one in law.laws)
    if isinstance(law, (Gamma, Weibull)):
        return law.shape <= 1.0
    return isinstance(law, ShiftedExponential) and law.shift == 0.0


def _equation(gain: float, inertia: Inertia, rate: float | None) -> Equation:
    checks.positive("gain", gain, "1/s")
    if inertia == NO_INERTIA:
        return (0.0, 1.0, 0.0, float(gain), 0.0)
    if inertia.momentum > 0.0 and rate is None:
        raise InputError("rate is missing: momentum needs the update rate [1/s]")
    update = math.inf if rate is None else checks.positive("rate", rate, "1/s")
    time = inertia.momentum / ((1.0 - inertia.momentum) * update)
    lead = inertia.momentum / update if inertia.nesterov else 0.0
    return (gain * inertia.decay, 1.0 + gain * inertia.decay * lead, time, float(gain), gain * lead)


def _law(delay: AbstractDelay | float) -> AbstractDelay:
    return delay if isinstance(delay, AbstractDelay) else Constant(checks.non_negative("delay", delay, "seconds"))


def undelayed(equation: Equation) -> list[Root]:
    """Roots of p + q, from right to left."""
    p0, p1, p2, q0, q1 = equation
    found = np.roots([p2, p1 + q1, p0 + q0]) if p2 > 0 else np.array([-(p0 + q0) / (p1 + q1)])
    return [Root(complex(s), True, condition=1.0) for s in sorted(found, key=lambda s: -s.real) if s.imag >= 0]
