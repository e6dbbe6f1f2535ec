r"""Stability boundaries and decay rates followed from one point to the next, and counted at every one.

A crossing of the axis is predicted by the last, and corrected by Newton's method. Of the delay equation the unknowns
are gain and frequency, :math:`i\omega + a\varphi(i\omega) = 0`; of the index equation step and angle,
:math:`c(e^{-i\theta}) = 0`. Whether a crossing found so is the first one is counted (argument principle a hair below);
where it is not, it is looked for anew.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stalewise.delays import AbstractDelay
from stalewise.dynamics.inertia import NO_INERTIA, Inertia
from stalewise.dynamics.recursion import characteristic_coefficients, decay_per_update, mean_step_limit
from stalewise.dynamics.roots import gain_limit, is_stable
from stalewise.dynamics.roots.discrete import count_inside, least_zero, newton
from stalewise.dynamics.roots.kernel import value
from stalewise.dynamics.roots.transform import is_closed, program_of
from stalewise.errors import NotConvergedError
from stalewise.staleness import StalenessLaw

Array = NDArray[np.float64]
STEPS, PRECISION = 12, 1e-13
ALMOST = 1.0 - 1e-4  # of a zero's modulus, inside which there must be none
BELOW = 0.999  # of a boundary, where it is counted that all is stable
REACH = 200.0  # of a transform, in 1/mean


def gain_boundary(laws: Sequence[AbstractDelay]) -> Array:
    """`gain_limit` of laws that follow one another closely, shape (laws,) [1/s]; infinite where there is none.

    Args:
        laws: In an order in which the boundary moves little from one to the next.
    """
    boundary = np.full(len(laws), math.inf)
    last: tuple[float, float] | None = None
    for i, law in enumerate(laws):
        found = None if last is None else _corrected(law, *last)
        if found is None or not is_stable(BELOW * found[0], law):
            gain = gain_limit(law)
            found = (gain, _frequency(law, gain)) if math.isfinite(gain) else None
        last = found
        if found is not None:
            boundary[i] = found[0]
    return boundary


def _corrected(law: AbstractDelay, gain: float, omega: float) -> tuple[float, float] | None:
    """Gain and frequency of the crossing near these, by Newton's method; None if it does not converge."""
    program = program_of(law, 0.0, 0.0 if is_closed(law) else REACH / law.mean)
    stack = np.empty((len(program.rows), 2), complex)
    for _ in range(STEPS):
        s = complex(0.0, omega)
        f, slope = value(program, stack, (0.0, 1.0, 0.0, gain, 0.0), s)
        phi, turn = (f - s) / gain, 1j * slope
        change = np.linalg.solve([[phi.real, turn.real], [phi.imag, turn.imag]], [-f.real, -f.imag])
        gain, omega = gain + float(change[0]), omega + float(change[1])
        if not (gain > 0 and omega > 0 and math.isfinite(gain + omega)):
            return None
        if abs(change[0]) <= PRECISION * gain and abs(change[1]) <= PRECISION * omega:
            return gain, omega
    return None


def _frequency(law: AbstractDelay, gain: float) -> float:
    """The frequency of the crossing at a gain limit: where f is least on the axis."""
    omega = np.linspace(1e-6, 1.0, 4001) * gain
    phi = law.laplace(1j * omega)
    return float(omega[np.argmin(np.abs(1j * omega + gain * phi))])


def step_boundary(laws: Sequence[StalenessLaw], inertia: Inertia = NO_INERTIA) -> Array:
    """`mean_step_limit` of staleness laws that follow one another closely, shape (laws,).

    Args:
        laws: In an order in which the boundary, times the mean staleness, moves little from one to the next.
        inertia: Momentum and weight decay.
    """
    how = inertia.filter()
    boundary = np.empty(len(laws))
    last: tuple[float, float] | None = None
    for i, law in enumerate(laws):
        age = law.mean + 1.0 + how.lag
        found = None if last is None else _corrected_step(law, inertia, last[0] / age, last[1] / age)
        if found is not None:
            coefficients = characteristic_coefficients(BELOW * found[0], law.pmf, how)
            found = found if count_inside(coefficients, 1.0)[0] == 0 else None
        if found is None:
            step = mean_step_limit(law, how)
            theta = _angle(characteristic_coefficients(step, law.pmf, how))
            found = _corrected_step(law, inertia, step, theta) or (step, theta)
        last = (found[0] * age, found[1] * age)
        boundary[i] = found[0]
    return boundary


def _corrected_step(law: StalenessLaw, inertia: Inertia, step: float, theta: float) -> tuple[float, float] | None:
    """Step and angle of the crossing near these, by Newton's method; None if it does not converge."""
    how = inertia.filter()
    own = characteristic_coefficients(0.0, law.pmf, how)
    pulled = characteristic_coefficients(1.0, law.pmf, how) - own
    powers = np.arange(len(own))
    for _ in range(STEPS):
        w = np.exp(-1j * theta * powers)
        f, by_step = complex((own + step * pulled) @ w), complex(pulled @ w)
        by_angle = complex((own + step * pulled) @ (-1j * powers * w))
        try:
            change = np.linalg.solve([[by_step.real, by_angle.real], [by_step.imag, by_angle.imag]], [-f.real, -f.imag])
        except np.linalg.LinAlgError:
            return None
        step, theta = step + float(change[0]), theta + float(change[1])
        if not (step > 0 and 0 < theta <= math.pi and math.isfinite(step)):
            return None
        if abs(change[0]) <= PRECISION * step and abs(change[1]) <= PRECISION:
            return step, theta
    return None


def _angle(coefficients: Array) -> float:
    """Where on the upper half of the unit circle the polynomial is least."""
    length = 1 << math.ceil(math.log2(32 * len(coefficients) + 256))
    place = int(np.argmin(np.abs(np.fft.rfft(coefficients, length))[1:])) + 1
    if place > length // 2:
        raise NotConvergedError("index equation: no crossing of the unit circle found")
    return 2.0 * math.pi * place / length


def _is_zero(coefficients: Array, w: complex) -> bool:
    """Whether the polynomial is 0 there, to rounding."""
    powers = w ** np.arange(len(coefficients))
    return bool(abs(coefficients @ powers) < 1e-10 * (np.abs(coefficients) @ np.abs(powers)))


def decay_curve(steps: Array, law: StalenessLaw, inertia: Inertia = NO_INERTIA) -> Array:
    """`decay_per_update` for ascending steps, shape (steps,): the leading zero is followed, and counted to be leading.

    Args:
        steps: h, ascending.
        law: Staleness of an applied gradient.
        inertia: Momentum and weight decay.
    """
    how = inertia.filter()
    decays, w = np.empty(len(steps)), None
    for i, step in enumerate(steps):
        coefficients = characteristic_coefficients(float(step), law.pmf, how)
        w = None if w is None else newton(coefficients, w)
        if w is None or not _is_zero(coefficients, w) or count_inside(coefficients, abs(w) * ALMOST)[0] > 0:
            decay = decay_per_update(float(step), law, how)
            w = least_zero(coefficients, decay) if math.isfinite(decay) else None
            decays[i] = decay
        else:
            decays[i] = math.log(abs(w))
    return decays
