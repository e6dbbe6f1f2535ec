r"""The delay equation of one mode: its characteristic roots, certified, and the gain at which it loses stability.

With momentum a mode is :math:`T\ddot x + \dot x = -a\,(1 + T_n\tfrac{d}{dt})(\mathrm E\,x(t - D) + \rho x/\lambda)`:
averaging time :math:`T = \beta/((1-\beta)R)`, and :math:`T_n = \beta/R` for Nesterov's momentum, else 0.
One branch of Lambert's function is then not one root. Characteristic function:

.. math:: f(s) = s(1 + Ts) + a(1 + T_n s)\,(\varphi(s) + \rho/\lambda).
"""

import cmath
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray

from stalewise import checks
from stalewise.delays import AbstractChoice, AbstractDelay, Constant, Gamma, ShiftedExponential, Sum
from stalewise.dynamics.inertia import NO_INERTIA, Inertia
from stalewise.dynamics.roots.kernel import (
    FAR,
    LOST,
    count_in_box,
    count_right,
    counts_of_gains,
    least_gain,
    newton,
    reach_of,
    rightmost,
    rightmost_of_gains,
    value,
)
from stalewise.dynamics.roots.transform import Program, is_closed, program_of, transform
from stalewise.errors import InputError, NotConvergedError

EPSILON = 2.2e-16
REACH, FARTHER = 24.0, 8.0  # of a program, in 1/mean, and how it is made longer
LEFTS = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0)  # how far left it is good, in 1/mean
MOST_ROOTS, CLOSE, SMALLEST_BOX = 2000, 2e-3, 1e-4
FINEST, FASTEST = 0.005, 400.0  # steps, and the end, of a search for crossings, in 1/mean
NEAR_EDGE = 1e-3  # of its distance from 0: nearer to the singularity no root is looked for
NUDGES = (0.0, 1e-10, -3e-10, 1e-8, -3e-8, 1e-6)
SHARES = (0.4871, 0.5273, 0.4412, 0.5719)
MOST_STAGES = 24  # chains of so many exponential stages are solved as polynomials
HEAVY = "heavy-tailed delay: no characteristic root exists left of the axis, the mean decays like a power of time"
AT_EDGE = "no root right of the transform's singularity, which sets the decay"

Equation = tuple[float, float, float, float, float]
Box = tuple[float, float, float, float]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Root:
    """A characteristic root.

    Attributes:
        value: The root [1/s], of a pair the upper one; None where no root exists.
        certified: Whether a count has shown that no root lies further right (`characteristic_roots`: that none is
            missing from the list down to this one).
        note: What to know about it, empty if nothing.
        condition: Times 2e-16 it is the relative error that rounding leaves; of a double root about 1e8. NaN where no
            root exists.
        multiplicity: 2 for a double root, and so on.
    """

    value: complex | None
    certified: bool
    note: str = ""
    condition: float = math.nan
    multiplicity: int = 1


class _Facts(NamedTuple):
    """What is asked of a law again and again."""

    law: AbstractDelay
    mean: float
    square: float
    edge: float
    closed: bool


@functools.lru_cache(maxsize=1024)
def _facts(law: AbstractDelay) -> _Facts:
    variance = law.variance
    square = variance / law.mean**2 if law.mean > 0 and math.isfinite(variance) else 100.0
    return _Facts(law, law.mean, square, law.abscissa, is_closed(law))


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


class _TooFar(Exception):
    """The program is not good far enough from 0."""


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
    facts, equation = _facts(_law(delay)), _equation(gain, inertia, rate)
    if facts.mean == 0.0:
        return _undelayed(equation)[0]
    return _answered(facts, equation, _Mode.rightmost)


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
    facts, equation = _facts(_law(delay)), _equation(gain, inertia, rate)
    count = checks.at_least("count", count, 1)
    if count > MOST_ROOTS:
        raise InputError(f"count must be at most {MOST_ROOTS}, got {count}")
    if facts.mean == 0.0:
        return _undelayed(equation)[:count]
    stages = _stages(facts, equation)
    if stages is not None:
        return stages[:count]
    return _answered(facts, equation, lambda mode: mode.several(count))


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
    facts, equation = _facts(_law(delay)), _equation(gain, inertia, rate)
    if facts.mean == 0.0:
        return True
    return _answered(facts, equation, lambda mode: mode.count(0.0) == 0)


def _answered(facts: _Facts, equation: Equation, ask: "Callable[[_Mode], Answer]") -> Answer:
    """Ask a mode, with programs ever better until one is good far enough."""
    for program, reach, lowest in _programs(facts):
        try:
            return ask(_Mode(program, equation, facts, reach, lowest))
        except _TooFar:
            continue
    raise NotConvergedError(
        f"characteristic roots of gain {equation[3]:g} 1/s under {facts.law}: too far away to resolve"
    )


def _programs(facts: _Facts) -> Iterator[tuple[Program, float, float]]:
    """Programs of ever longer reach, how far that is, and how far left they are good."""
    if facts.closed:
        yield program_of(facts.law, 0.0, 0.0), 1e300, facts.edge
        return
    longest = float(facts.law.tail_quantile(1e-30)) if facts.edge < 0.0 else math.inf
    reach, good = REACH / facts.mean, 0.0
    for left in LEFTS:
        lowest = 0.0 if facts.edge == 0.0 else min(left / facts.mean, 600.0 / longest)
        try:
            program, good = program_of(facts.law, lowest, reach), lowest
        except NotConvergedError:  # so far left it overflows
            program = program_of(facts.law, good, reach)
        yield program, reach, max(-good, facts.edge)
        reach *= FARTHER


def _undelayed(equation: Equation) -> list[Root]:
    """Roots of p + q, from right to left."""
    p0, p1, p2, q0, q1 = equation
    found = np.roots([p2, p1 + q1, p0 + q0]) if p2 > 0 else np.array([-(p0 + q0) / (p1 + q1)])
    return [Root(complex(s), True, condition=1.0) for s in sorted(found, key=lambda s: -s.real) if s.imag >= 0]


@dataclass(frozen=True)
class _Mode:
    """One equation, with a program that is good within ``reach`` of 0 and right of ``lowest`` [1/s]."""

    program: Program
    equation: Equation
    facts: _Facts
    reach: float
    lowest: float

    @property
    def size(self) -> float:
        return 1.0 / self.facts.mean

    def value(self, s: complex) -> tuple[complex, complex]:
        """The function f and its derivative."""
        return value(self.program, np.empty((len(self.program.codes), 2), complex), self.equation, complex(s))

    def count(self, sigma: float) -> int:
        """Roots right of a line, which is moved by a hair if it runs through one."""
        for nudge in NUDGES:
            line = sigma + nudge * (abs(sigma) + self.size)
            if line < self.lowest:
                continue
            found = count_right(self.program, self.equation, line, self.reach)
            if found == FAR:
                raise _TooFar
            if found != LOST:
                return int(found)
        raise NotConvergedError(
            f"characteristic roots cannot be counted right of Re s = {sigma:g} 1/s under {self.facts.law}"
        )

    def rightmost(self) -> Root:
        """By a few seeds; where these fail, by boxes."""
        facts = self.facts
        root, found, further, _ = rightmost(
            self.program, self.equation, facts.mean, facts.square, self.lowest, self.reach
        )
        if found and further == 0:
            return self.described(root)
        if found and further == FAR:
            raise _TooFar
        if (stages := _stages(facts, self.equation)) is not None:
            return stages[0]
        line, held = self.line_with(1)
        if held == 0:
            return Root(None, True, HEAVY) if facts.edge == 0.0 else Root(complex(facts.edge), False, AT_EDGE)
        return self.right_of(line)[0]

    def several(self, count: int) -> list[Root]:
        """The rightmost so many; fewer if there are."""
        wanted = count
        while True:
            line, held = self.line_with(wanted)
            roots = self.right_of(line) if held else []
            if len(roots) >= count or held < wanted:
                return roots[:count]
            wanted += count  # of a pair only one is listed

    def line_with(self, wanted: int) -> tuple[float, int]:
        """A line with so many roots right of it, and how many; with fewer if it lies beside the singularity.

        Lines are tried from the right, where counting is cheap, to the left.
        """
        line, held = self.farthest_right(), 0
        while line > 0.05 * self.size and held < wanted:
            line *= 0.75
            held = self.count(line)
        if held >= wanted:
            return line, held
        if self.facts.edge == 0.0:
            line = 1e-9 * min(self.size, self.equation[3])
            return line, self.count(line)
        line, held, width = 0.0, self.count(0.0), 0.1 * self.size
        while held < wanted:
            if line - self.lowest < NEAR_EDGE * abs(self.lowest):
                if self.lowest > self.facts.edge:
                    raise _TooFar
                break
            further = line - width
            if math.isfinite(self.lowest):
                further = max(further, self.lowest + 0.25 * (line - self.lowest))
            try:
                held = self.count(further)
            except NotConvergedError:
                if self.lowest > self.facts.edge or further > 0.5 * self.lowest:
                    raise
                break
            line, width = further, 1.3 * width
            if -line > 1e4 * wanted * self.size:
                raise NotConvergedError(f"characteristic roots under {self.facts.law}: fewer than {wanted} found")
        return line, held

    def farthest_right(self) -> float:
        """A line right of which there is no root: where p outgrows q phi on the real axis."""
        low, high = 0.0, reach_of(self.equation, 1.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            phi = self.phi(middle)
            low, high = (middle, high) if reach_of(self.equation, phi) > middle else (low, middle)
        return high

    def phi(self, sigma: float) -> float:
        """The transform at a real point; 1, which it is at most, where the program is not good."""
        if sigma > self.reach:
            return 1.0
        room = np.empty((len(self.program.codes), 2), complex)
        return float(transform(self.program, room, complex(sigma))[0].real)

    def right_of(self, line: float) -> list[Root]:
        """All roots right of a line, from right to left, by halving boxes."""
        top = 1.05 * reach_of(self.equation, self.phi(line)) + 1e-6 * self.size
        if math.hypot(top, line) > self.reach:
            raise _TooFar
        total = self.count(line)
        boxes, found = [(line, top, -0.0137 * (top - line) - 1e-3 * self.size, top)], list[Root]()
        while boxes:
            box = boxes.pop()
            held = self.held(box)
            roots = self.roots_in(box, held) if held > 0 else []
            if roots is None:
                boxes += self.halves(box)
            else:
                found += [root for root in roots if not any(self.same(root, other) for other in found)]
        seen = sum(root.multiplicity * (2 if _value(root).imag > 0 else 1) for root in found)
        ordered = sorted(found, key=lambda root: -_real(root))
        return [replace(root, certified=seen == total) for root in ordered]

    def same(self, root: Root, other: Root) -> bool:
        """Whether two are one, found in a box above and in one below the axis."""
        apart = abs(_value(root) - _value(other)) / (abs(_value(root)) + self.size)
        return apart < 1e-9 or apart < 1e-14 * min(root.condition, other.condition)

    def held(self, box: Box) -> int:
        """Roots in a box."""
        found = int(count_in_box(self.program, self.equation, *box))
        if found < 0:
            raise NotConvergedError(
                f"characteristic roots under {self.facts.law}: one lies on the edge of every box tried"
            )
        return found

    def halves(self, box: Box) -> list[Box]:
        """Two halves, divided where no root lies."""
        left, right, low, high = box
        for share in SHARES:
            if right - left > high - low:
                middle = left + share * (right - left)
                parts = [(left, middle, low, high), (middle, right, low, high)]
            else:
                middle = low + share * (high - low)
                parts = [(left, right, low, middle), (left, right, middle, high)]
            if all(count_in_box(self.program, self.equation, *part) >= 0 for part in parts):
                return parts
        raise NotConvergedError(f"characteristic roots under {self.facts.law}: boxes cannot be divided")

    def roots_in(self, box: Box, held: int) -> list[Root] | None:
        """The roots of a box with one, with two that are close, or too small to tell more apart; else None."""
        left, right, low, high = box
        middle = complex(0.5 * (left + right), 0.5 * (low + high))
        wide = max(right - left, high - low) / (abs(middle) + self.size)
        if held == 1:
            s, good = self.newton(middle)
            slack = 1e-12 * (abs(middle) + self.size)
            inside = left - slack <= s.real <= right + slack and low - slack <= s.imag <= high + slack
            if good and inside:
                return [self.described(s)]
            return [self.described(middle)] if wide < 1e-12 else None
        if held == 2 and wide < CLOSE:
            return self.pair(middle)
        if wide > SMALLEST_BOX:
            return None
        condition = EPSILON ** (1.0 / held - 1.0)
        return [Root(self.upper(middle), True, "a multiple root", condition=condition, multiplicity=held)]

    def newton(self, start: complex) -> tuple[complex, bool]:
        """A root by Newton's method, and whether it converged."""
        stack = np.empty((len(self.program.codes), 2), complex)
        return newton(self.program, stack, self.equation, complex(start), self.size)

    def pair(self, near: complex) -> list[Root] | None:
        """Two roots that lie close together: about the place where f' is 0 f is a parabola."""
        double = self.double(near)
        if double is not None:
            return [double]
        bottom, bend = self.bottom(near)
        if bend == 0:
            return None
        apart = cmath.sqrt(-2.0 * self.value(bottom)[0] / bend)
        (one, good), (other, fine) = self.newton(bottom + apart), self.newton(bottom - apart)
        if not (good and fine) or abs(one - other) < 0.5 * abs(apart):
            return None
        return [self.described(one), self.described(other)]

    def upper(self, s: complex) -> complex:
        """Of a pair the upper one; real where the imaginary part is rounding."""
        return complex(s.real, abs(s.imag) if abs(s.imag) > 1e-13 * abs(s) else 0.0)

    def described(self, s: complex) -> Root:
        """A root with its condition; the double root beside it if there is one to rounding."""
        _, slope = self.value(s)
        p0, p1, p2, *_ = self.equation
        terms = abs(p0) + abs(p1 * s) + abs(p2 * s * s)
        condition = 2.0 * terms / (abs(slope) * abs(s)) if slope != 0 else math.inf
        if condition > 1e5 and (double := self.double(s)) is not None:
            return double
        return Root(self.upper(s), True, condition=condition)

    def bottom(self, near: complex) -> tuple[complex, complex]:
        """Where f' is 0 beside ``near``, by Newton's method, and f'' there; f'' is 0 if it is nowhere near."""
        size = abs(near) + self.size
        s, bend, step = complex(near), 0j, 1e-4 * size
        for _ in range(30):
            bend = (self.value(s + step)[1] - self.value(s - step)[1]) / (2.0 * step)
            change = self.value(s)[1] / bend if bend != 0 else 0j
            s -= change
            if abs(change) < 1e-15 * abs(s) or not abs(s - near) < CLOSE * size:
                break
        return s, bend if abs(s - near) < CLOSE * size else 0j

    def double(self, near: complex) -> Root | None:
        """A double root beside ``near``: where f' is 0, if f is 0 there to rounding."""
        s, bend = self.bottom(near)
        p0, p1, p2, *_ = self.equation
        terms = abs(p0) + abs(p1 * s) + abs(p2 * s * s)
        if bend == 0 or abs(self.value(s)[0]) > 32.0 * EPSILON * terms:
            return None
        condition = math.sqrt(4.0 * terms / (abs(bend) * EPSILON)) / abs(s)
        return Root(self.upper(s), True, "a double root, to rounding", condition=condition, multiplicity=2)


def _rational(law: AbstractDelay) -> tuple[Polynomial, Polynomial] | None:
    """Numerator and denominator of a transform that is rational: chains of exponential stages, and choices of them."""
    match law:
        case ShiftedExponential(shift=0.0, exponential_mean=mean):
            return Polynomial([1.0]), Polynomial([1.0, mean])
        case Gamma(gamma_mean=mean, shape=shape) if shape == round(shape) and shape <= MOST_STAGES:
            return Polynomial([1.0]), Polynomial([1.0, mean / shape]) ** round(shape)
        case Sum(parts=parts):
            above, below = Polynomial([1.0]), Polynomial([1.0])
            for part in parts:
                if (found := _rational(part)) is None:
                    return None
                above, below = above * found[0], below * found[1]
        case AbstractChoice():
            above, below = Polynomial([0.0]), Polynomial([1.0])
            for share, part in zip(law.probabilities, law.laws, strict=True):
                if (found := _rational(part)) is None:
                    return None
                above, below = above * found[1] + share * found[0] * below, below * found[1]
        case _:
            return None
    return (above, below) if below.degree() <= MOST_STAGES else None


def _stages(facts: _Facts, equation: Equation) -> list[Root] | None:
    """All roots where the transform is rational: those of a polynomial, polished, from right to left."""
    found = _rational(facts.law)
    if found is None:
        return None
    p0, p1, p2, q0, q1 = equation
    polynomial = Polynomial([p0, p1, p2]) * found[1] + Polynomial([q0, q1]) * found[0]
    mode = _Mode(program_of(facts.law, 0.0, 0.0), equation, facts, math.inf, -math.inf)
    roots = []
    for start in polynomial.trim().roots():
        s = complex(start)
        for _ in range(8):
            f, slope = mode.value(s)
            change = f / slope if slope != 0 else 0.0
            if not abs(change) < 1e-3 * (abs(s) + mode.size):
                break
            s -= change
        if s.imag >= -1e-9 * abs(s):
            roots.append(mode.described(s))
    distinct: list[Root] = []
    for root in sorted(roots, key=lambda root: -_real(root)):
        if all(abs(_value(root) - _value(other)) > 1e-7 * abs(_value(root)) for other in distinct):
            distinct.append(root)
    return distinct


def _value(root: Root) -> complex:
    assert root.value is not None
    return root.value


def _real(root: Root) -> float:
    return _value(root).real


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
    facts, flat = _facts(_law(delay)), _checked(gains)
    counts = np.full(len(flat), FAR if facts.mean > 0.0 else 0)
    if facts.mean > 0.0:
        program, reach, _ = next(_programs(facts))
        counts_of_gains(program, flat, reach, counts)
    stable = counts == 0
    for i in np.flatnonzero(counts < 0):
        stable[i] = is_stable(flat[i], delay)
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
    facts, flat = _facts(_law(delay)), _checked(gains)
    roots, certified = np.empty(len(flat), complex), np.zeros(len(flat), bool)
    if facts.mean > 0.0:
        program, reach, lowest = next(_programs(facts))
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
        The gain; infinite where no crossing is found up to 400 mean rates (exponential delays, gamma of shape up to 1).

    Limits:
        A relative 1e-12. Crossings are looked for in steps that turn the phase by a seventh of a radian, and not below
        0.005/(mean + 3 standard deviations): two that lie closer together are missed.
    """
    facts = _facts(_law(delay))
    _, _, time, _, lead = _equation(1.0, inertia, rate)
    if facts.mean == 0.0:
        return math.inf
    spread = min(math.sqrt(facts.square), float(facts.law.quantile(0.99)) / facts.mean)
    finest = FINEST / (facts.mean * (1.0 + 3.0 * spread))
    for program, reach, _ in _programs(facts):
        found = least_gain(program, (time, lead, inertia.decay), 1e-9 / facts.mean, finest, FASTEST / facts.mean, reach)
        if found >= 0.0:
            return float(found)
    raise NotConvergedError(f"gain limit under {facts.law}: the transform cannot be resolved that far out")
