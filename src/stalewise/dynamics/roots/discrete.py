r"""The index equation of one mode: :math:`z - 1 + h\,P_K(1/z) = 0`, counted in updates.

With :math:`w = 1/z` its roots are the zeros of the polynomial c(w) (`stalewise.dynamics.inertia`): the largest z is the
zero nearest to 0. Zeros inside a circle are counted by the turns of c along it, at points so dense that between two of
them c, whose derivative is bounded by :math:`\sum k|c_k|r^{k-1}`, turns by less than 120 degrees.
"""

import math

import numpy as np
from numpy.polynomial import polynomial as power
from numpy.typing import NDArray

from stalewise import checks
from stalewise.dynamics.inertia import NO_INERTIA, Inertia
from stalewise.dynamics.recursion import characteristic_coefficients, decay_per_update
from stalewise.dynamics.roots.search import Root
from stalewise.errors import InputError
from stalewise.staleness import StalenessLaw

Array = NDArray[np.float64]
CLEAR = 0.6  # |c| over the bound of its change from one point to the next, or more
MARGIN = 1e-4  # by which a root may be larger than the one that is called largest
MOST_POINTS = 1 << 19
LONGEST = 600


def count_inside(coefficients: Array, radius: float) -> tuple[int, bool]:
    """Zeros of a real polynomial (lowest power first) inside a circle, and whether the count is beyond doubt."""
    scaled = coefficients * radius ** np.arange(len(coefficients))
    steepest = float(np.abs(scaled) @ np.arange(len(scaled)))
    length = 1 << math.ceil(math.log2(8 * len(coefficients) + 64))
    while True:
        values = np.fft.rfft(scaled, length)
        turns = np.angle(values[1:] / values[:-1])
        sure = bool(np.abs(values).min() > CLEAR * steepest * 2.0 * math.pi / length)
        if sure or 2 * length > MOST_POINTS:
            return round(float(-turns.sum() / math.pi)), sure
        length *= 2


def index_root(step: float, staleness: StalenessLaw, inertia: Inertia = NO_INERTIA) -> Root:
    r"""The root of largest modulus of :math:`z - 1 + h P_K(1/z) = 0`.

    Args:
        step: h = learning rate x curvature, above zero.
        staleness: Law of the staleness of an applied gradient.
        inertia: Momentum and weight decay.

    Returns:
        z, by which the mean is multiplied with every update in the long run (of a pair the upper one), with a
        certificate that none is larger (by more than 1 part in 10,000, where roots crowd). The mean is stable if its
        modulus is below 1; 0 if it is at its end after finitely many updates.

    Raises:
        InputError: ``step`` is not positive and finite.

    Limits:
        1e-12 of its size; a double root about 1e-8 (`Root.condition`). Staleness of a heavy tail is cut off where its
        law ends: such a root of large modulus is the cut's, not the law's (`decay_rate` returns None there).
    """
    checks.positive("step", step)
    how = inertia.filter()
    coefficients = _characteristic(step, staleness, inertia)
    if len(coefficients) == 1:
        return Root(0j, True, "at its end after finitely many updates", condition=0.0)
    w = least_zero(coefficients, decay_per_update(step, staleness, how))
    return _described(coefficients, w, certified=_isleast_zero(coefficients, w, staleness.mean + 1.0))


def index_roots(step: float, staleness: StalenessLaw, inertia: Inertia = NO_INERTIA) -> list[Root]:
    """All roots but 0 of the index equation, by modulus in descending order, of each complex pair the upper one.

    Args:
        step: h = learning rate x curvature, above zero.
        staleness: Law of the staleness of an applied gradient, at most 600 updates long.
        inertia: Momentum and weight decay.

    Raises:
        InputError: An argument is out of range.
    """
    checks.positive("step", step)
    if len(staleness.pmf) > LONGEST:
        raise InputError(f"staleness must be at most {LONGEST} updates long, got {len(staleness.pmf)}; try index_root")
    coefficients = _characteristic(step, staleness, inertia)
    found = [newton(coefficients, complex(w)) for w in power.polyroots(coefficients) if w.imag >= 0]
    return [_described(coefficients, w, certified=True) for w in sorted(found, key=abs)]


def _characteristic(step: float, staleness: StalenessLaw, inertia: Inertia) -> Array:
    return np.trim_zeros(characteristic_coefficients(step, staleness.pmf, inertia.filter()), "b")


def _isleast_zero(coefficients: Array, w: complex, age: float) -> bool:
    """Whether it (and its conjugate) is alone inside a circle somewhat larger, or none is inside one a hair smaller."""
    own = 2 if w.imag > 0 else 1
    gaps = (0.3 / age, 0.1 / age, 0.03 / age, 0.01 / age)
    return any(count_inside(coefficients, abs(w) * math.exp(gap)) == (own, True) for gap in gaps) or (
        count_inside(coefficients, abs(w) * (1.0 - MARGIN)) == (0, True)
    )


def least_zero(coefficients: Array, decay: float) -> complex:
    """The zero of modulus e^decay, the upper one of a pair: Newton's method from where c is least on that circle."""
    length = 1 << math.ceil(math.log2(16 * len(coefficients) + 64))
    radius = math.exp(decay)
    size = np.abs(np.fft.rfft(coefficients * radius ** np.arange(len(coefficients)), length))
    return newton(coefficients, radius * np.exp(2j * math.pi * int(np.argmin(size)) / length))


def newton(coefficients: Array, w: complex) -> complex:
    """A zero by Newton's method, the upper one of a pair."""
    slope = power.polyder(coefficients)
    for _ in range(60):
        below = complex(power.polyval(w, slope))
        change = complex(power.polyval(w, coefficients)) / below if below != 0 else 0j
        if not abs(change) < 0.5 * abs(w):
            break
        w -= change
        if abs(change) < 1e-15 * abs(w):
            break
    return complex(w.real, abs(w.imag) if abs(w.imag) > 1e-12 * abs(w) else 0.0)


def _described(coefficients: Array, w: complex, *, certified: bool) -> Root:
    terms = float(np.abs(coefficients) @ abs(w) ** np.arange(len(coefficients)))
    steep = abs(complex(power.polyval(w, power.polyder(coefficients)))) * abs(w)
    z = 1.0 / w
    return Root(complex(z.real, abs(z.imag)), certified, condition=terms / steep if steep > 0 else math.inf)
