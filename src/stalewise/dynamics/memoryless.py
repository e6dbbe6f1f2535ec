r"""Memoryless workers: second moments that close, exact with momentum and weight decay too.

Of N exponential workers each is the next to finish with probability 1/N, whatever happened before. With x the
parameters, V the velocity (in units of x) and y_i what worker i has read, a step of worker i is

.. math:: u = h(y_i + \rho/\lambda\,x) + \text{noise}, \qquad x \leftarrow x - b_0 u - (b_1 + b_0\beta)V, \qquad
          V \leftarrow \beta V + u, \qquad y_i \leftarrow x,

linear, so that the seven moments :math:`E x^2, E xV, E V^2, E xy_i, E Vy_i, E y_i^2, E y_iy_j` close.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stalewise.dynamics.inertia import NO_FILTER, StepFilter

Array = NDArray[np.float64]
PRECISION = 1e-12


def moment_map(step: float, workers: int, how: StepFilter = NO_FILTER) -> tuple[Array, Array]:
    """One step of the seven moments: the matrix, shape (7, 7), and what unit noise adds, shape (7,)."""
    n = 1.0 / workers
    pull = step * how.decay
    a, q, r = 1.0 - how.now * pull, -how.carried, -how.now * step  # x after a step, of x, V and y
    matrix = np.zeros((7, 7))
    x2, xv, v2, xy, vy, y2, yy = range(7)
    matrix[x2, :6] = a * a, 2 * a * q, q * q, 2 * a * r, 2 * q * r, r * r
    matrix[v2, :6] = pull * pull, 2 * pull * how.pole, how.pole**2, 2 * pull * step, 2 * how.pole * step, step * step
    matrix[xv, :6] = (
        a * pull, a * how.pole + q * pull, q * how.pole, a * step + r * pull, q * step + r * how.pole, r * step,
    )  # fmt: skip
    noise = np.zeros(7)
    noise[[x2, xv, v2]] = how.now**2, -how.now, 1.0
    others = np.zeros(7)  # E x y_i of a worker that did not finish
    others[[xy, vy, yy]] = a, q, r
    matrix[xy] = n * matrix[x2] + (1 - n) * others
    matrix[vy] = n * matrix[xv]
    matrix[vy, [xy, vy, yy]] += (1 - n) * np.array([pull, how.pole, step])
    matrix[y2] = n * matrix[x2]
    matrix[y2, y2] += 1 - n
    noise[[xy, vy, y2]] = n * noise[[x2, xv, x2]]
    if workers > 1:
        matrix[yy] = 2 * n * others
        matrix[yy, yy] += 1 - 2 * n
    return matrix, noise


def memoryless_step_limit(workers: int, how: StepFilter = NO_FILTER) -> float:
    r"""Mean-square limit of h for N exponential workers: :math:`h N < (1+\sqrt{1+8N})/2` without momentum.

    With it, the least h at which the moments' matrix has an eigenvalue of modulus 1, by bisection.
    """
    plain = (1.0 + math.sqrt(1.0 + 8.0 * workers)) / (2.0 * workers)
    if how == NO_FILTER:
        return plain

    def stable(step: float) -> bool:
        return bool(np.abs(np.linalg.eigvals(moment_map(step, workers, how)[0])).max() < 1.0)

    low, high = 0.0, plain / how.gain
    while stable(high):
        low, high = high, 2.0 * high
    while low == 0.0 and high > 1e-300:  # stable for small steps, unless weight decay alone is too much
        low, high = (0.5 * high, high) if stable(0.5 * high) else (0.0, 0.5 * high)
    while high - low > PRECISION * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if stable(middle) else (low, middle)
    return low


def memoryless_variance_factor(step: float, workers: int, how: StepFilter = NO_FILTER) -> float:
    r"""Variance of x in the long run for unit noise a step; h below the limit.

    Without momentum :math:`(1+\alpha)/(h(2-h(\alpha-1)))`, :math:`\alpha = hN`.
    """
    if how == NO_FILTER:
        alpha = step * workers
        return (1.0 + alpha) / (step * (2.0 - step * (alpha - 1.0)))
    matrix, noise = moment_map(step, workers, how)
    return float(np.linalg.solve(np.eye(7) - matrix, noise)[0])


def memoryless_second_moment(
    step: float, noise: float, start: float, workers: int, updates: int, how: StepFilter = NO_FILTER
) -> Array:
    """Exact E x_k^2 from a standing start without velocity, shape (updates + 1,).

    Args:
        step: h = learning rate x curvature.
        noise: Variance of one step's noise, learning rate^2 x gradient-noise variance.
        start: x before the first update.
        workers: N.
        updates: How many updates to compute.
        how: Momentum and weight decay.
    """
    matrix, added = moment_map(step, workers, how)
    first = start**2 * np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    return _iterate(matrix, noise * added, first, updates)


@njit(cache=True)
def _iterate(matrix, added, moments, updates):  # pragma: no cover
    """First of the moments after 0, 1, ... steps."""
    out = np.empty(updates + 1)
    new = moments.copy()
    out[0] = moments[0]
    for k in range(updates):
        for i in range(7):
            total = added[i]
            for j in range(7):
                total += matrix[i, j] * moments[j]
            new[i] = total
        moments[:] = new
        out[k + 1] = new[0]
    return out
