"""The first time at which something monotone has happened, by bisection, element by element."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
HALVINGS = 120


def first_reaching(reached: Callable[[Array], NDArray[np.bool_]], low: Array, high: Array) -> Array:
    """Smallest t in [low, high] with ``reached(t)``, to the last digit; ``high`` if none.

    Args:
        reached: Monotone: False, then True; takes and returns arrays of the shape of ``low``.
        low: Where to begin, shape as wanted.
        high: Where it is reached at the latest, same shape.
    """
    low, high = np.array(low, float), np.array(high, float)
    already = reached(low)
    high = np.where(already, low, high)
    for _ in range(HALVINGS):
        middle = low + 0.5 * (high - low)
        yes = reached(middle)
        low, high = np.where(yes, low, middle), np.where(yes, middle, high)
        if np.all((middle <= low) | (middle >= high)) and np.all(np.nextafter(low, np.inf) >= high):
            break
    return high
