"""Does a worker's next delay depend on its last?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
SHORTEST = 8
LIMIT = 1.959963984540054


class Dependence(NamedTuple):
    """Lag-1 autocorrelation of a worker's successive delays, mean over workers.

    ``lag1`` is None if no worker has eight delays that vary. Independent delays stay within ``limit`` of
    :math:`-1/n` in 95 % of logs; ``p_value`` says how often they go as far. ``within_regimes`` is what remains once
    each worker's level between its changes of regime is taken out, None where none changes.
    """

    lag1: float | None = None
    standard_error: float = 0.0
    limit: float | None = None
    p_value: float | None = None
    within_regimes: float | None = None

    @property
    def memory(self) -> float:
        """How many successive delays count as one independent delay for a mean: (1 + r)/(1 - r), 1 or more."""
        r = min(max(self.lag1 or 0.0, 0.0), 0.99)
        return (1.0 + r) / (1.0 - r)


def dependence(sequences: Sequence[Array], segments: Sequence[Sequence[Array]]) -> Dependence:
    r"""Autocorrelation over workers.

    Independent draws give a worker of n delays a mean of about :math:`-1/n` and a variance of about :math:`1/n`.

    Args:
        sequences: Delays of each worker in their order.
        segments: The same, cut where the worker changed regime.

    Source:
        Kendall & Stuart (1966), The Advanced Theory of Statistics 3, 48.
    """
    known = [(autocorrelation(s), len(s), p) for s, p in zip(sequences, segments, strict=True) if _varies(s)]
    if not known:
        return Dependence()
    values, counts = np.array([v for v, _, _ in known]), np.array([n for _, n, _ in known])
    error = math.sqrt((1.0 / counts).sum()) / len(counts)
    z = float((values + 1.0 / counts).mean()) / error
    cut = [np.concatenate([part - part.mean() for part in parts]) for _, _, parts in known if len(parts) > 1]
    within = None
    if cut:
        rest = [autocorrelation(np.concatenate([part - part.mean() for part in parts])) for _, _, parts in known]
        within = float(np.mean(rest))
    return Dependence(float(values.mean()), error, LIMIT * error, float(2.0 * special.ndtr(-abs(z))), within)


def autocorrelation(values: Array) -> float:
    """Lag-1 autocorrelation of one sequence; 0 where it does not vary."""
    centred = values - values.mean()
    total = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / total if total > 0 else 0.0


def _varies(values: Array) -> bool:
    return len(values) >= SHORTEST and bool(values.std() > 1e-5 * values.mean())
