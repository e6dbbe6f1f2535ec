"""Maximum of a smooth function of two or three variables, by Newton's method with measured derivatives."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_STEP = 1e-4
_STEPS = 60


def maximise(objective: Callable[[Array], float], start: Array) -> tuple[Array, float]:
    """Climb from ``start``; returns the point of the maximum and its value.

    Steps are Newton's where the function is concave, else along its steepest ascent, at most 1 long and halved until
    they gain. It ends where a step gains less than 1e-8. The variables should be of order one: logarithms of scales.
    """
    here, value = np.asarray(start, float), objective(start)
    for _ in range(_STEPS):
        gradient, curvature = _derivatives(objective, here, value)
        sizes, directions = np.linalg.eigh(curvature)
        step = directions @ ((directions.T @ gradient) / np.maximum(np.abs(sizes), 1e-8))
        step *= min(1.0, 1.0 / max(float(np.linalg.norm(step)), 1e-300))
        before = value
        for _ in range(30):
            there = objective(here + step)
            if there > value:
                here, value = here + step, there
                break
            step = 0.5 * step
        if value - before < 1e-8:
            break
    return here, value


def _derivatives(objective: Callable[[Array], float], at: Array, value: float) -> tuple[Array, Array]:
    size = len(at)
    moves = _STEP * np.eye(size)
    up = np.array([objective(at + move) for move in moves])
    down = np.array([objective(at - move) for move in moves])
    curvature = np.diag((up - 2.0 * value + down) / _STEP**2)
    for i in range(size):
        for j in range(i):
            both = objective(at + moves[i] + moves[j]) - up[i] - up[j] + value
            curvature[i, j] = curvature[j, i] = both / _STEP**2
    curvature = np.where(np.isfinite(curvature), curvature, 0.0)
    gradient = (up - down) / (2.0 * _STEP)
    return np.where(np.isfinite(gradient), gradient, 0.0), curvature
