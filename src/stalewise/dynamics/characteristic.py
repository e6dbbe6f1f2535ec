r"""The delay equation of one mode: roots of :math:`s + a\,\varphi(s) = 0`, :math:`\varphi` the delay's transform.

Because :math:`|\varphi(s)| \le \varphi(\Re s)`, every root with :math:`\Re s \ge \sigma` lies within
:math:`|s| \le a\varphi(\sigma)`, and :math:`|f'| \le 1 + a\,\mathrm E[D e^{-\sigma D}]` there: a march up the line
:math:`\Re s = \sigma` whose steps turn f by less than 60 degrees counts the roots to its right without ambiguity.
"""

import cmath
import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant
from stalewise.errors import NotConvergedError

FEW_STEPS, MOST_STEPS = 20_000, 400_000


@dataclass(frozen=True)
class Root:
    """A characteristic root.

    Attributes:
        value: The root [1/s], of a pair the upper one; None where no root exists.
        certified: Whether a count has shown that no root lies further right.
        note: What to know about it, empty if nothing.
    """

    value: complex | None
    certified: bool
    note: str = ""


def rightmost_root(gain: float, delay: AbstractDelay | float) -> Root:
    r"""Rightmost characteristic root of :math:`\dot x(t) = -a\,\mathrm E\,x(t - D)`.

    Args:
        gain: a = learning rate x curvature x update rate, above zero [1/s].
        delay: Law of the delay D, or a constant delay [s].

    Returns:
        The root, with a certificate that none lies further right (argument principle). Heavy tails whose mean is
        stable have no root: the mean then decays like a power, and ``value`` is None.

    Raises:
        InputError: ``gain`` or ``delay`` is not positive and finite.

    Limits:
        A double root is good to about 1e-8. When the root would lie left of the transform's singularity (gamma of
        shape below 1), the singularity governs the decay; it is returned with a note.

    Source:
        Constant delay: Corless et al. (1996), On the Lambert W function. Count: argument principle.

    Example:
        >>> f"{rightmost_root(1.0, 1.0).value:.3f}"
        '-0.318+1.337j'
    """
    checks.positive("gain", gain, "1/s")
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.positive("delay", delay, "seconds"))
    equation = _Equation(gain, law)
    if isinstance(law, Constant):
        value = _constant_root(gain, law.value)
        return Root(value, bool(equation.is_rightmost(value)))
    left = law.abscissa
    if left == 0.0 and equation.count_right_of(1e-9 * gain) == 0:
        note = (
            "heavy-tailed delay: no characteristic root exists left of the axis, the mean decays like a power of time"
        )
        return Root(None, True, note)
    bracket = equation.bracket(left)
    if bracket is None:
        return Root(complex(left), False, "no root right of the transform's singularity, which sets the decay")
    return equation.polish(*bracket)


@dataclass(frozen=True)
class _Equation:
    gain: float
    law: AbstractDelay

    def value(self, s: complex) -> complex:
        return s + self.gain * complex(np.ravel(self.law.laplace(np.array([s])))[0])

    def bounds(self, sigma: float) -> tuple[float, float]:
        """Bound on roots right of the line, and on the slope there."""
        nudge = 1e-7 / self.law.mean
        phi = complex(np.ravel(self.law.laplace(np.array([complex(sigma, nudge)])))[0])
        return self.gain * phi.real, 1.0 + self.gain * max(-phi.imag / nudge, 0.0)

    def count_right_of(self, sigma: float, most: int = MOST_STEPS) -> int:
        """Roots with real part above ``sigma``; a line through a root raises NotConvergedError."""
        reach, slope = self.bounds(sigma)
        top = 1.05 * reach + 1e-3 / self.law.mean
        at, before, turned = 0.0, self.value(complex(sigma)), 0.0
        for _ in range(most):
            step = 0.85 * abs(before) / slope
            if step < 1e-13 * (top + abs(sigma)):
                raise NotConvergedError(f"a root lies on the line Re s = {sigma:g}")
            at = min(at + step, top)
            after = self.value(complex(sigma, at))
            turned += cmath.phase(after / before)
            before = after
            if at >= top:
                s = complex(sigma, at)
                closing = cmath.phase(s) + cmath.phase(before / s)
                return round((closing - turned) / math.pi)
        raise NotConvergedError(f"counting roots right of Re s = {sigma:g} took more than {most} steps")

    def bracket(self, left: float) -> tuple[float, float] | None:
        """Lines between which the rightmost root lies: (some root right of it, none right of it)."""
        high = max(self.gain, 1e-300) * 1.0001
        low = 0.0 if left < 0 else 1e-9 * self.gain
        width = 0.25 / self.law.mean
        while self._count(low) == 0:
            high = low
            low = low - width if math.isinf(left) else max(low - width, left + 0.5 * (low - left))
            width *= 1.5
            if low - left < 1e-4 * abs(left):
                return None
            if not math.isfinite(low) or abs(low) * self.law.mean > 600.0:
                return None
        return low, high

    def polish(self, low: float, high: float) -> Root:
        scale = 1.0 / self.law.mean
        for _ in range(200):
            for seed in self._seeds(low, high):
                root = self._newton(seed)
                if root is None or not low - 1e-6 * scale <= root.real <= high + 1e-6 * scale:
                    continue
                if self.is_rightmost(root):
                    return Root(complex(root.real, abs(root.imag)), True)
                if self.is_rightmost(root) is None and self._sampled_count(self._right_of(root, 1e-5)) == 0:
                    return Root(complex(root.real, abs(root.imag)), False, "roots counted on a refined grid, no proof")
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._count(middle) > 0 else (low, middle)
            if high - low < 1e-12 * (abs(high) + scale):
                return Root(complex(0.5 * (low + high)), False, "bracketed by root counts, not polished")
        raise NotConvergedError(f"rightmost root of gain {self.gain:g} not found between {low:g} and {high:g}")

    def is_rightmost(self, root: complex) -> bool | None:
        """Whether no root lies further right than 1e-7 of the root's size (1e-3 beside a double root).

        None if the proof would take too many steps, as it does beside the transform's singularity.
        """
        for distance, most in ((1e-7, FEW_STEPS), (1e-5, FEW_STEPS), (1e-3, MOST_STEPS // 8)):
            try:
                return self.count_right_of(self._right_of(root, distance), most) == 0
            except NotConvergedError:
                continue
        return None

    def _right_of(self, root: complex, distance: float) -> float:
        return root.real + distance * (abs(root) + 1.0 / self.law.mean)

    def _count(self, sigma: float) -> int:
        """Count, moved by a hair when the line runs through a root; on a grid where the proof takes too long."""
        for nudge in (0.0, 1e-9, -3e-9):
            try:
                return self.count_right_of(sigma + nudge / self.law.mean, FEW_STEPS)
            except NotConvergedError:
                continue
        return self._sampled_count(sigma)

    def _sampled_count(self, sigma: float) -> int:
        """Roots right of the line by the turns of f along it, on a grid refined until neighbours turn by < 0.3."""
        top = 1.05 * self.bounds(sigma)[0] + 1e-3 / self.law.mean
        height = np.concatenate([[0.0], np.geomspace(1e-9 * top, top, 4097)])
        for _ in range(40):
            line = sigma + 1j * height
            value = line + self.gain * self.law.laplace(line)
            turns = np.angle(value[1:] / value[:-1])
            coarse = np.flatnonzero(np.abs(turns) > 0.3)
            if len(coarse) == 0:
                end = complex(line[-1])
                closing = cmath.phase(end) + cmath.phase(complex(value[-1]) / end)
                return round((closing - float(turns.sum())) / math.pi)
            height = np.sort(np.concatenate([height, 0.5 * (height[coarse] + height[coarse + 1])]))
        raise NotConvergedError(f"cannot count the roots right of Re s = {sigma:g}: one lies on the line")

    def _seeds(self, low: float, high: float) -> list[complex]:
        reach = self.bounds(low)[0]
        height = np.linspace(0.0, reach, 257)
        seeds = []
        for sigma in (low, 0.5 * (low + high), high):
            line = sigma + 1j * height
            size = np.abs(line + self.gain * self.law.laplace(line))
            seeds += [complex(line[i]) for i in np.argsort(size)[:2]]
        return seeds

    def _newton(self, s: complex) -> complex | None:
        nudge = 1e-6 / self.law.mean
        for _ in range(80):
            f = self.value(s)
            slope = (self.value(s + nudge) - self.value(s - nudge)) / (2.0 * nudge)
            if slope == 0 or not cmath.isfinite(f):
                return None
            change = f / slope
            s -= change
            if not cmath.isfinite(s):
                return None
            if abs(change) < 1e-14 * (abs(s) + nudge):
                break
        return s if abs(self.value(s)) < 1e-8 * (abs(s) + 1e-3 / self.law.mean) else None


def _constant_root(gain: float, delay: float) -> complex:
    """Lambert W_0(-gain delay)/delay, with the series at the branch point, where SciPy returns NaN."""
    if delay == 0:
        return complex(-gain)
    product = gain * delay
    excess = 2.0 * (1.0 - math.e * product)
    if abs(excess) < 1e-5:
        p = cmath.sqrt(excess)
        w = -1.0 + p - p * p / 3.0 + 11.0 * p**3 / 72.0
    else:
        w = complex(special.lambertw(-product))
    return complex(w.real, abs(w.imag)) / delay


def gain_limit(delay: AbstractDelay | float) -> float:
    r"""Smallest gain a at which the mean of :math:`\dot x = -a\,\mathrm E\,x(t - D)` loses stability [1/s].

    The least :math:`\omega/|\varphi(i\omega)|` over :math:`\Re\varphi(i\omega) = 0 > \Im\varphi(i\omega)`. Since
    :math:`|\varphi| \le 1` no crossing above the least found so far can beat it, which ends the search. Infinite
    where none is found up to 400 mean rates (exponential delays, gamma of shape up to 1).

    Args:
        delay: Law of the delay, or a constant delay [s].
    """
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.positive("delay", delay, "seconds"))
    scale = law.mean + 3.0 * min(math.sqrt(law.variance), float(law.quantile(0.99)))
    best, start, width = math.inf, 1e-9 / law.mean, 0.02 / scale
    while start < min(best, 400.0 / law.mean):
        omega = start + width * np.arange(2049)
        phi = law.laplace(1j * omega)
        for i in np.flatnonzero((phi.real[:-1] > 0) != (phi.real[1:] > 0)):
            crossing = _crossing(law, omega[i], omega[i + 1])
            phi_there = _at(law, crossing)
            if phi_there.imag < 0:
                best = min(best, crossing / abs(phi_there))
        start = float(omega[-1])
    return best


def _crossing(law: AbstractDelay, low: float, high: float) -> float:
    return float(optimize.root_scalar(lambda w: _at(law, w).real, bracket=(low, high), xtol=1e-15).root)


def _at(law: AbstractDelay, omega: float) -> complex:
    return complex(np.ravel(law.laplace(np.array([1j * omega])))[0])
