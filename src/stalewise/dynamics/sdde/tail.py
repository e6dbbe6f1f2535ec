r"""What the equation without noise does in the long run: the mode of the rightmost root alone.

Near a simple root s of :math:`f = s + a\varphi` the transform 1/f of the fundamental solution is
:math:`1/(f'(s)(p - s))`, so that
:math:`X(t) \to \mathrm{Re}\,C e^{st}` with :math:`C = 1/f'(s)`, twice that for a pair.
"""

import cmath
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stalewise.delays import AbstractDelay
from stalewise.dynamics.roots import rightmost_root
from stalewise.dynamics.roots.search import answered, facts_of
from stalewise.errors import NotConvergedError

Array = NDArray[np.floating]
SIMPLE = 1e6  # condition of a root up to which its mode stands alone


@dataclass(frozen=True)
class Tail:
    """Re C exp(s t): ``size`` is C, in the units of what it describes, ``root`` is s [1/s]."""

    root: complex
    size: complex

    def __call__(self, t: Array) -> Array:
        """Values at t [s]."""
        with np.errstate(over="ignore", under="ignore"):
            grown = np.exp(self.root.real * t)
            return abs(self.size) * grown * np.cos(self.root.imag * t + cmath.phase(self.size))

    def squared(self, begin: float, t: Array) -> Array:
        """Integral of the square from ``begin`` to t [s]."""
        with np.errstate(over="ignore", under="ignore"):
            steady = abs(self.size) ** 2 * _integral(complex(2.0 * self.root.real), begin, t).real
            turning = (self.size**2 * _integral(2.0 * self.root, begin, t)).real
        return 0.5 * (steady + turning)

    def times(self, factor: complex) -> "Tail":
        """With another size."""
        return Tail(self.root, self.size * factor)


def _integral(z: complex, begin: float, t: Array) -> NDArray[np.complexfloating]:
    """Of exp(z t) from ``begin`` to t."""
    past = np.asarray(t - begin, complex)
    return np.exp(z * begin) * (past if z == 0 else np.expm1(z * past) / z)


def tail_of(gain: float, delay: AbstractDelay) -> Tail | None:
    """The long run of X; None where no simple root is certified (heavy tails, a gamma law of broken shape)."""
    try:
        root = rightmost_root(gain, delay)
    except NotConvergedError:
        return None
    if root.value is None or not root.certified or not root.condition < SIMPLE:
        return None
    place = complex(root.value)
    slope = answered(facts_of(delay), (0.0, 1.0, 0.0, float(gain), 0.0), lambda mode: mode.value(place)[1])
    return Tail(place, (2.0 if place.imag > 0 else 1.0) / slope)
