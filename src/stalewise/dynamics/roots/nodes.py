r"""Laws as nodes and weights: :math:`\varphi(s) = \sum_j W_j e^{-sT_j}` where a transform has no closed form.

Samples are gathered in panels, each replaced by its own Gauss rule. Densities are integrated by Gauss' rule on panels,
or by the trapezoid rule in the logarithm of the delay, along a ray that is turned so that for
:math:`0 \le \arg s \le \pi/2` nothing oscillates (T is then complex). Rules hold within ``reach`` of 0 and for
:math:`\Re s \ge` ``-left``.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from stalewise.errors import NotConvergedError

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Rule = tuple[Complex, Complex]

GAUSS, TURN = 12, 4.0  # points a panel of samples, and |s| times half its width: then e^-st errs by 1e-16
ROUGH, WIDE = 16, 6.0  # the same for panels of a density
LOST = 37.0  # e^-37 is rounding
MOST_EXPONENT = 300.0
MOST_NODES = 200_000


def sampled(values: Array, reach: float) -> Rule:
    """A sample, each value with the same weight; exact up to 12 distinct values in a panel, else to 1e-15."""
    distinct, counts = np.unique(values, return_counts=True)
    weights = counts / len(values)
    panel = np.floor((distinct - distinct[0]) / (2.0 * TURN / reach))
    starts = np.flatnonzero(np.diff(panel, prepend=-1.0))
    if len(starts) * GAUSS > MOST_NODES:
        raise _too_fine(reach)
    rules = [_gauss(distinct[i:j], weights[i:j]) for i, j in zip(starts, [*starts[1:], len(distinct)], strict=True)]
    nodes, weights = (np.concatenate(part) for part in zip(*rules, strict=True))
    return nodes.astype(complex), weights.astype(complex)


def _gauss(points: Array, weights: Array) -> tuple[Array, Array]:
    """Gauss' rule of a discrete measure, by Lanczos with full reorthogonalisation."""
    if len(points) <= GAUSS:
        return points, weights
    middle, half = 0.5 * (points[0] + points[-1]), 0.5 * (points[-1] - points[0])
    x, total = (points - middle) / half, float(weights.sum())
    basis = np.zeros((GAUSS, len(x)))
    basis[0] = np.sqrt(weights / total)
    diagonal, off = np.zeros(GAUSS), np.zeros(GAUSS - 1)
    for k in range(GAUSS):
        residual = x * basis[k]
        diagonal[k] = residual @ basis[k]
        for _ in range(2):
            residual -= basis[: k + 1].T @ (basis[: k + 1] @ residual)
        if k < GAUSS - 1:
            off[k] = np.linalg.norm(residual)
            basis[k + 1] = residual / off[k]
    roots, vectors = linalg.eigh_tridiagonal(diagonal, off)
    return middle + half * roots, total * vectors[0] ** 2


def normal(center: float, spread: float, left: float, reach: float) -> Rule:
    """A normal law cut at 0."""
    low = max(0.0, center - spread * (9.0 + reach * spread))
    high = center + spread * (9.0 + left * spread)
    panels = math.ceil((high - low) / min(1.5 * spread, 2.0 * WIDE / reach))
    if panels * ROUGH > MOST_NODES:
        raise _too_fine(reach)
    x, w = np.polynomial.legendre.leggauss(ROUGH)
    half = 0.5 * (high - low) / panels
    t = (low + half * (2.0 * np.arange(panels)[:, None] + 1.0 + x)).ravel()
    z = (t - center) / spread
    height = spread * math.sqrt(2.0 * math.pi) * float(special.ndtr(center / spread))
    return t.astype(complex), (np.tile(w * half, panels) * np.exp(-0.5 * z * z) / height).astype(complex)


def lognormal(log_median: float, sigma: float, reach: float) -> Rule:
    """Right of the axis only. The line of z, D = exp(log_median + sigma z), is moved down by up to 1.5."""
    median = math.exp(log_median)
    depth = min(0.25 * math.pi / sigma, 1.5)
    strip = min(0.25 * math.pi / sigma, 6.0)
    step = 2.0 * math.pi * strip / (LOST + 0.5 * strip**2 + depth * strip)
    if depth * sigma < 0.24 * math.pi:
        step = min(step, 2.0 * math.pi / (1.5 * reach * median * sigma + 18.0))
    low = -9.5 - float(special.lambertw(reach * median * sigma**2).real) / sigma
    count = math.ceil((9.5 - low) / step)
    if count > MOST_NODES:
        raise _too_fine(reach)
    z = low + step * np.arange(count + 1) - 1j * depth
    weight = step / math.sqrt(2.0 * math.pi) * np.exp(-0.5 * z * z)
    return np.asarray(median * np.exp(sigma * z), np.complex128), np.asarray(weight, np.complex128)


def weibull(scale: float, shape: float, left: float, reach: float) -> Rule:
    """By v = log(D/scale) along a ray turned by pi/4, or by pi/(4 shape) where the tail is lighter than exponential."""
    turn = 0.25 * math.pi / max(shape, 1.0)
    step = 2.0 * math.pi * turn / LOST
    if shape > 1.0:
        step = max(_weibull_step(shape, left * scale, turn, share * turn) for share in (0.95, 0.8, 0.6, 0.4, 0.2, 0.1))
    fast = reach * scale
    low = min(-LOST, -LOST - shape * math.log(fast) + float(special.gammaln(shape + 1.0))) / shape
    if shape > 1.0:
        fall, slope = math.cos(shape * turn), left * scale
        x = (LOST / fall) ** (1.0 / shape)
        while fall * x**shape - slope * x < LOST + 3.0:
            x *= 1.1
        high = math.log(x)
    else:
        high = math.log(LOST / math.cos(shape * turn)) / shape
    count = math.ceil((high - low) / step)
    if count > MOST_NODES:
        raise _too_fine(reach)
    v = low + step * np.arange(count + 1) - 1j * turn
    power = np.exp(shape * v)
    return np.asarray(scale * np.exp(v), np.complex128), np.asarray(
        step * shape * power * np.exp(-power), np.complex128
    )


def _weibull_step(shape: float, pull: float, turn: float, strip: float) -> float:
    """Step of the trapezoid rule for e^(pull x - x^shape) on a strip around the ray: what it grows by there counts."""

    def peak(angle: float) -> float:
        fall, rise = math.cos(shape * angle), pull * math.cos(angle)
        return (shape - 1.0) * (rise / shape) ** (shape / (shape - 1.0)) * fall ** (-1.0 / (shape - 1.0))

    if peak(0.0) > MOST_EXPONENT:
        raise NotConvergedError(f"characteristic roots: the transform of this delay overflows at s = {-pull:.3g}/scale")
    return 2.0 * math.pi * strip / (LOST + peak(turn + strip) - peak(0.0))


def pareto(scale: float, shape: float) -> Rule:
    """Right of the axis only, of the part beyond ``scale``; a doubly exponential rule along a ray turned by pi/4."""
    step, low = 0.08, -4.2
    size = math.log(shape + 1.0)
    high = (LOST + 3.0) / shape + 1.0
    v = low + step * np.arange(math.ceil((high - low) / step) + 1)
    y = np.exp(v - np.exp(-v) - size - 0.25j * math.pi)
    weight = shape * np.exp(-(shape + 1.0) * np.log1p(y)) * y * (1.0 + np.exp(-v)) * step
    return np.asarray(scale * y, np.complex128), np.asarray(weight, np.complex128)


def _too_fine(reach: float) -> NotConvergedError:
    return NotConvergedError(
        f"characteristic roots: this delay's transform cannot be resolved up to |s| = {reach:.3g} 1/s; "
        "the gain is too large for it"
    )
