r"""The delay equation of a fleet, every delay shorter by half the time between updates.

Counted in updates the mean obeys :math:`z - 1 + hP(1/z) = 0`; with :math:`z = e^{s/R}`,
:math:`z - 1 = 2z^{1/2}\sinh(s/2R) \approx z^{1/2}s/R`, so that to first order in s/R it is the delay equation of
D - 1/(2R):

.. math:: s + a\,e^{s/2R}\,\varphi(s) = 0.

Where every delay is at least 1/(2R), D - 1/(2R) is a law, and everything asked of laws can be asked of it
(`shortened`). Where some are shorter the equation looks ahead of itself: it has roots without end far to the right,
which mean nothing. The one that does is followed from the root without correction.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from stalewise import checks
from stalewise.delays import AbstractDelay, Constant, ShiftedExponential, Sum, Uniform
from stalewise.dynamics.roots import Root, gain_limit, rightmost_root
from stalewise.dynamics.roots.search import answered, facts_of
from stalewise.errors import InputError, NotConvergedError

PARTS, NEWTON = 32, 60  # of the correction, put on one after the other; steps of Newton's method for each
FARTHEST, POINTS = 60.0, 60_000  # in 1/mean: frequencies on the axis, 0.001 apart
FOLLOWED = "followed from the root without correction; some delays are shorter than half a step, so nothing is counted"


def shortened(delay: AbstractDelay | float, by: float) -> AbstractDelay | None:
    """The law of D - ``by`` where every delay is at least that; None where some are shorter, or none can be written.

    Args:
        delay: Law of the delay, or a constant delay [s]: constant, uniform, shifted exponential, sums with such a part.
        by: [s], 1/(2R) for a fleet of R updates a second.

    Example:
        >>> print(shortened(1.0, 0.125))
        constant(0.875)
    """
    by = checks.non_negative("by", by, "seconds")
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.non_negative("delay", delay, "seconds"))
    found: AbstractDelay | None = law if by == 0.0 else None
    match law:
        case Constant(value=value) if value >= by:
            found = Constant(value - by)
        case Uniform(low=low, high=high) if low >= by:
            found = Uniform(low - by, high - by)
        case ShiftedExponential(shift=shift) if shift >= by:
            found = replace(law, shift=shift - by)
        case Sum(parts=parts):
            each = ((i, shortened(part, by)) for i, part in enumerate(parts))
            found = next((Sum((*parts[:i], left, *parts[i + 1 :])) for i, left in each if left is not None), None)
    return found


def _halved(delay: AbstractDelay | float, rate: float) -> tuple[float, AbstractDelay, AbstractDelay | None]:
    """Half a step [s], the law of the delay, and the law that much shorter, where there is one."""
    half = 0.5 / checks.positive("rate", rate, "1/s")
    law = delay if isinstance(delay, AbstractDelay) else Constant(checks.positive("delay", delay, "seconds"))
    return half, law, shortened(law, half)


def fleet_root(gain: float, delay: AbstractDelay | float, rate: float) -> Root:
    r"""Root that governs the mean of a fleet, delays shorter by half the time between updates.

    Args:
        gain: a = learning rate x curvature x ``rate`` [1/s].
        delay: Law of one worker's cycle, or a constant one [s].
        rate: Updates a second R; N/mean of N workers under plain async [1/s].

    Returns:
        As `rightmost_root`, certified, where every delay is at least 1/(2R). Else followed from the root without
        correction and not certified, which ``note`` says; heavy tails have none when stable.

    Raises:
        InputError: An argument is out of range.
        NotConvergedError: The root is lost on the way (few workers near the limit).

    Limits:
        First order in s/R: `docs/theory.md` has what that leaves.

    Example:
        >>> f"{fleet_root(0.2, 1.0, 4.0).value.real:.4f}"
        '-0.2486'
    """
    half, law, shorter = _halved(delay, rate)
    if shorter is not None:
        return rightmost_root(gain, shorter)
    plain = rightmost_root(gain, law)
    if plain.value is None:
        return plain
    advanced = _Advanced(gain, law, half)
    found = advanced.least(advanced.followed(complex(plain.value)))
    return Root(complex(found.real, abs(found.imag)), False, FOLLOWED)


@dataclass(frozen=True)
class _Advanced:
    """The equation whose delays are shorter by ``half``, some of them below 0."""

    gain: float
    law: AbstractDelay
    half: float

    def at(self, s: complex, ahead: float) -> tuple[complex, complex]:
        """Value and slope with so much taken off the delays."""
        plain, slope = answered(
            facts_of(self.law), (0.0, 1.0, 0.0, self.gain, 0.0), lambda mode: mode.value(complex(s))
        )
        phi, turn, lead = (plain - s) / self.gain, (slope - 1.0) / self.gain, np.exp(ahead * s)
        return complex(s + self.gain * lead * phi), complex(1.0 + self.gain * lead * (turn + ahead * phi))

    def followed(self, s: complex) -> complex:
        """The root as the correction grows; where a pair becomes real, one of the two."""
        change: complex = math.inf
        for part in range(1, PARTS + 1):
            for _ in range(NEWTON):
                f, slope = self.at(s, self.half * part / PARTS)
                change = f / slope
                s -= change
                if abs(change) <= 1e-13 * abs(s):
                    break
            if not abs(change) <= 1e-4 * abs(s):
                raise NotConvergedError(
                    f"root lost: gain {self.gain:g} 1/s under {self.law}, half a step {self.half:g} s"
                )
        if not abs(change) <= 1e-7 * abs(s):
            raise NotConvergedError(f"root lost: gain {self.gain:g} 1/s under {self.law}, half a step {self.half:g} s")
        return s

    def least(self, s: complex) -> complex:
        """Of two real roots the one nearer to 0, which decays slower."""
        if abs(s.imag) > 1e-9 * abs(s):
            return s
        first = s.real * (1.0 - 1e-6)
        if not self._real(first) < 0.0:  # the value falls from the gain at 0 through the first root
            return complex(s.real, 0.0)
        return complex(optimize.root_scalar(self._real, bracket=(first, 0.0), xtol=1e-15 * abs(first)).root, 0.0)

    def _real(self, s: float) -> float:
        return self.at(complex(s, 0.0), self.half)[0].real


def fleet_gain_limit(delay: AbstractDelay | float, rate: float) -> float:
    r"""Smallest gain at which the mean of a fleet loses stability, delays half a step shorter [1/s].

    The first frequency at which :math:`e^{i\omega/2R}\varphi(i\omega)` has turned by a quarter; there
    :math:`a = \omega/|\varphi|`. Exists under heavy tails too.

    Args:
        delay: Law of one worker's cycle, or a constant one [s].
        rate: Updates a second R [1/s].

    Returns:
        The gain; infinite where no crossing is found up to 60 mean rates.

    Raises:
        InputError: An argument is out of range.

    Limits:
        As `fleet_root`. Of the mean: the mean-square limit is lower, much so where delays vary a lot (`step_limit`).

    Example:
        >>> f"{fleet_gain_limit(1.0, 4.0):.4f}"
        '1.7952'
    """
    half, law, shorter = _halved(delay, rate)
    if shorter is not None:
        return gain_limit(shorter)
    if law.mean == 0.0:
        raise InputError("delay must be above zero")

    def turned(omega: NDArray[np.floating] | float) -> NDArray[np.complexfloating]:
        return np.exp(1j * half * np.asarray(omega)) * law.laplace(1j * np.asarray(omega, float))

    for begin in range(1, POINTS, POINTS // 30):
        omega = np.arange(begin, begin + POINTS // 30 + 1) * (FARTHEST / POINTS / law.mean)
        values = turned(omega)
        across = np.flatnonzero((values.real[:-1] * values.real[1:] <= 0) & (values.imag[:-1] < 0))
        if len(across):
            low, high = omega[across[0]], omega[across[0] + 1]
            place = float(
                optimize.root_scalar(lambda at: float(turned(at).real), bracket=(low, high), xtol=1e-15 / law.mean).root
            )
            return place / abs(complex(turned(place)))
    return math.inf
