r"""Roots of one equation :math:`f(s) = p(s) + q(s)\varphi(s)`: seeds and a count, or boxes halved until each holds one.

Where a transform has no closed form it is resolved as far out as a question asks (`programs`).
"""

import cmath
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.polynomial import Polynomial

from stalewise.delays import AbstractDelay, Gamma
from stalewise.dynamics.roots.kernel import (
    FAR,
    LOST,
    count_in_box,
    count_right,
    height_of,
    newton,
    reach_of,
    rightmost,
    value,
)
from stalewise.dynamics.roots.rational import rational
from stalewise.dynamics.roots.transform import Program, is_closed, is_rising, program_of, transform
from stalewise.errors import NotConvergedError

EPSILON = 2.2e-16
MOST_SEEN = 256
SURE = (
    0.5 * math.pi * (1.0 - 1e-9)
)  # gain x mean delay up to which every law is stable (`verdict`), means being rounded
REACH, FARTHER = 24.0, 8.0  # of a program, in 1/mean, and how it is made longer
LEFTS = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0)  # how far left it is good, in 1/mean
LONGER = 4  # more programs where the transform ends at the axis
CLOSE, SMALLEST_BOX = 2e-3, 1e-4  # sizes of boxes: with two roots that are solved as a pair; that are divided at all
NARROW = 0.1  # of 1/mean: two roots in a larger box are no pair, however far out
NEAR_EDGE = 1e-3  # of its distance from 0: nearer to the singularity no root is looked for
NUDGES = (0.0, 1e-10, -3e-10, 1e-8, -3e-8, 1e-6)
SHARES = (0.4871, 0.5273, 0.4412, 0.5719)  # where a box is divided
CERTAIN = 1e-6  # a count so far right of a root leaves no room for another
HEAVY = "heavy-tailed delay: no characteristic root exists left of the axis, the mean decays like a power of time"
AT_EDGE = "no root right of the transform's singularity, which sets the decay"

Equation = tuple[float, float, float, float, float]
"""Coefficients of p (three) and q (two), lowest power first."""
Box = tuple[float, float, float, float]
"""Left, right, low, high [1/s]."""
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


@dataclass(eq=False)
class Facts:
    """What is asked of a law again and again.

    Attributes:
        law: The law.
        mean, square, edge: Its mean [s], squared coefficient of variation (100 where it is infinite) and abscissa.
        closed: Whether its transform is a closed form.
        rising: Whether every root on the axis moves right as the gain grows (`is_rising`).
        stable: Gains up to this have been proven stable [1/s].
        unstable: Gains in this range have been proven unstable [1/s].
    """

    law: AbstractDelay
    mean: float
    square: float
    edge: float
    closed: bool
    rising: bool
    stable: float
    unstable: tuple[float, float] = (math.inf, 0.0)

    @functools.cached_property
    def first(self) -> tuple[Program, float, float]:
        """The first of `programs`."""
        return next(programs(self))


@functools.lru_cache(maxsize=1024)
def _facts(law: AbstractDelay) -> Facts:
    variance = law.variance
    square = variance / law.mean**2 if law.mean > 0 and math.isfinite(variance) else 100.0
    stable = SURE / law.mean if law.mean > 0 else math.inf
    return Facts(law, law.mean, square, law.abscissa, is_closed(law), is_rising(law), stable)


_SEEN: dict[int, tuple[AbstractDelay, Facts]] = {}


def facts_of(law: AbstractDelay) -> Facts:
    """Facts of a law, kept: by the object itself, for to hash a law takes longer than a verdict."""
    seen = _SEEN.get(id(law))
    if seen is None:
        if len(_SEEN) >= MOST_SEEN:
            _SEEN.clear()
        seen = _SEEN[id(law)] = (law, _facts(law))  # held, so that no other object takes its id
    return seen[1]


class TooFar(Exception):
    """The program is not good far enough from 0."""


def answered(facts: Facts, equation: Equation, ask: "Callable[[Mode], Answer]") -> Answer:
    """Ask a mode, with programs ever better until one is good far enough."""
    for program, reach, lowest in itertools.chain([facts.first], itertools.islice(programs(facts), 1, None)):
        try:
            return ask(Mode(program, equation, facts, reach, lowest))
        except TooFar:
            continue
    raise NotConvergedError(
        f"characteristic roots of gain {equation[3]:g} 1/s under {facts.law}: too far away to resolve"
    )


def programs(facts: Facts) -> Iterator[tuple[Program, float, float]]:
    """Programs of ever longer reach, how far that is, and how far left they are good."""
    if facts.closed:
        yield program_of(facts.law, 0.0, 0.0), 1e300, facts.edge
        return
    longest = float(facts.law.tail_quantile(1e-30)) if facts.edge < 0.0 else math.inf
    reach, good = REACH / facts.mean, 0.0
    for left in LEFTS if facts.edge < 0.0 else LEFTS + LONGER * LEFTS[-1:]:
        lowest = 0.0 if facts.edge == 0.0 else min(left / facts.mean, 600.0 / longest)
        try:
            program, good = program_of(facts.law, lowest, reach), lowest
        except NotConvergedError:  # so far left it overflows
            program = program_of(facts.law, good, reach)
        yield program, reach, max(-good, facts.edge)
        reach *= FARTHER


@dataclass(frozen=True)
class Mode:
    """One equation, with a program that is good within ``reach`` of 0 and right of ``lowest`` [1/s]."""

    program: Program
    equation: Equation
    facts: Facts
    reach: float
    lowest: float

    @property
    def size(self) -> float:
        """Of a typical root [1/s]."""
        return 1.0 / self.facts.mean

    def value(self, s: complex) -> tuple[complex, complex]:
        """The function f and its derivative."""
        return value(self.program, np.empty((len(self.program.rows), 2), complex), self.equation, complex(s))

    def count(self, sigma: float) -> int:
        """Roots right of a line, which is moved by a hair if it runs through one."""
        for nudge in NUDGES:
            line = sigma + nudge * (abs(sigma) + self.size)
            if line < self.lowest:
                continue
            found = count_right(self.program, self.equation, line, self.reach)
            if found == FAR:
                raise TooFar
            if found != LOST:
                return int(found)
        raise NotConvergedError(
            f"characteristic roots cannot be counted right of Re s = {sigma:g} 1/s under {self.facts.law}"
        )

    def decays(self) -> bool:
        """Whether no root lies right of the axis: by the rightmost if that is well right of it, else by a count."""
        try:
            root = self.rightmost()
        except NotConvergedError:
            root = None
        if root is not None and root.certified and root.value is not None and root.value.real > CERTAIN * self.size:
            return False
        return self.count(0.0) == 0

    def rightmost(self) -> Root:
        """By a few seeds; where these fail, by boxes."""
        facts = self.facts
        if settled_by_singularity(facts, self.equation):
            return Root(complex(facts.edge), True, AT_EDGE)
        root, found, further, line = rightmost(
            self.program, self.equation, facts.mean, facts.square, self.lowest, self.reach
        )
        if found and further == 0:
            if line <= root.real + CERTAIN * (abs(root) + self.size):
                return self.described(root)
            if (pair := self.pair(root)) is not None:  # too close to another to be counted apart
                return max(pair, key=real_of)
        if found and further == FAR:
            raise TooFar
        if (stages := staged(facts, self.equation)) is not None:
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
                    raise TooFar
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
        """The transform at a real point; where the program is not good, that at its end, which is more."""
        room = np.empty((len(self.program.rows), 2), complex)
        return float(transform(self.program, room, complex(min(sigma, 0.98 * self.reach)))[0].real)

    def right_of(self, line: float) -> list[Root]:
        """All roots right of a line, from right to left, by halving boxes."""
        right = 1.05 * self.farthest_right() + 1e-6 * self.size
        top = 1.05 * reach_of(self.equation, self.phi(line)) + 1e-6 * self.size
        stack = np.empty((len(self.program.rows), 2), complex)
        top = height_of(self.program, stack, self.equation, line, top, self.reach)
        if math.hypot(top, max(right, -line)) > self.reach:
            raise TooFar
        total = self.count(line)
        boxes, found = [(line, right, -0.0137 * (top - line) - 1e-3 * self.size, top)], list[Root]()
        while boxes:
            box = boxes.pop()
            held = self.held(box)
            roots = self.roots_in(box, held) if held > 0 else []
            if roots is None:
                boxes += self.halves(box)
            else:
                found += [root for root in roots if not any(self.same(root, other) for other in found)]
        seen = sum(root.multiplicity * (2 if value_of(root).imag > 0 else 1) for root in found)
        ordered = sorted(found, key=lambda root: -real_of(root))
        return [replace(root, certified=seen == total) for root in ordered]

    def same(self, root: Root, other: Root) -> bool:
        """Whether two are one, found in a box above and in one below the axis."""
        apart = abs(value_of(root) - value_of(other)) / (abs(value_of(root)) + self.size)
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
        if held == 2 and wide < CLOSE and max(right - left, high - low) < NARROW * self.size:
            return self.pair(middle)
        if wide > SMALLEST_BOX:
            return None
        condition = EPSILON ** (1.0 / held - 1.0)
        return [Root(self.upper(middle), True, "a multiple root", condition=condition, multiplicity=held)]

    def newton(self, start: complex) -> tuple[complex, bool]:
        """A root by Newton's method, and whether it converged."""
        stack = np.empty((len(self.program.rows), 2), complex)
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


def settled_by_singularity(facts: Facts, equation: Equation) -> bool:
    r"""Whether it is proven that no root lies right of the singularity: gamma delays of shape k below 1, large gains.

    With :math:`z = 1 + s\theta` roots solve :math:`(z - 1)z^k = -a\theta`. On :math:`z = iy`, y > 0, the left side has
    the angle :math:`\pi - \arctan y + k\pi/2`, which is :math:`\pi` at :math:`y = \tan(k\pi/2)` alone, where its
    size is :math:`c = \tan^k(k\pi/2)/\cos(k\pi/2)`; at 0 it is 0. So for :math:`a\theta > c` the number of roots with
    Re z > 0 does not depend on the gain. For large gains
    :math:`z \approx (a\theta)^{1/(k+1)}e^{\pm i\pi/(k+1)}`, whose real part is below 0: the number is 0.
    """
    law = facts.law
    if not isinstance(law, Gamma) or not law.shape < 1.0 or equation[:3] != (0.0, 1.0, 0.0) or equation[4] != 0.0:
        return False
    quarter = 0.5 * math.pi * law.shape
    least = math.tan(quarter) ** law.shape / math.cos(quarter)
    return equation[3] * law.gamma_mean / law.shape > least * (1.0 + 1e-9)


def staged(facts: Facts, equation: Equation) -> list[Root] | None:
    """All roots where the transform is rational: those of a polynomial, polished, from right to left."""
    found = rational(facts.law)
    if found is None:
        return None
    p0, p1, p2, q0, q1 = equation
    polynomial = Polynomial([p0, p1, p2]) * found[1] + Polynomial([q0, q1]) * found[0]
    mode = Mode(program_of(facts.law, 0.0, 0.0), equation, facts, math.inf, -math.inf)
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
    for root in sorted(roots, key=lambda root: -real_of(root)):
        if all(abs(value_of(root) - value_of(other)) > 1e-7 * abs(value_of(root)) for other in distinct):
            distinct.append(root)
    return distinct


def value_of(root: Root) -> complex:
    """Its value, which it must have [1/s]."""
    assert root.value is not None
    return root.value


def real_of(root: Root) -> float:
    """Real part of its value [1/s]."""
    return value_of(root).real
