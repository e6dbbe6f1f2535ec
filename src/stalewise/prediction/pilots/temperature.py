r"""From two temperatures to a third: the mean loss at a given time is close to linear in the noise temperature.

With losses :math:`c` and :math:`h` of a colder and a hotter pilot at :math:`\theta_c < \theta_h`, in units of the
run's own temperature,

.. math:: \bar F = c - w(h - c), \qquad w = \frac{\theta_c^p - 1}{\theta_h^p - \theta_c^p}.

p = 1 is the first order of a perturbation, and exact for a quadratic. Real networks bend a little below the line, for
more noise drives them to flatter places: p = 0.85 is what was measured (docs/networks.md).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]
EXPONENT = 0.85  # p
TINY = 1e-300
WINDOW = 0.1  # of the time passed, to both sides, over which losses are averaged


def drawn_back(
    cold: ArrayLike, hot: ArrayLike, temperatures: tuple[float, float], exponent: float = EXPONENT
) -> tuple[Array, Array, Array]:
    """Mean loss at temperature 1, and a 95 % band for it.

    Args:
        cold: Losses of the colder pilot, shape (seeds, points).
        hot: Those of the hotter, at the same times from the same starts, shape (seeds, points); losses that are not
            finite leave the colder pilot's.
        temperatures: Of the two, above 1, ascending.
        exponent: p.

    Returns:
        Mean, lower and upper end, each (points,). The band holds the error of the mean over seeds (Student's t) and how
        far the line is from one through the logarithms: what is not known of it where the pilots lie far apart. Where
        less than half of the colder pilot's loss would be left, the line bends into an exponential.
    """
    cold, hot = np.asarray(cold, float), np.asarray(hot, float)
    low, high = (temperature**exponent for temperature in temperatures)
    weight = (low - 1.0) / (high - low)
    seeds = len(cold)
    hot = np.where(np.isfinite(hot), hot, cold)
    middle, above = cold.mean(axis=0), hot.mean(axis=0)
    line, size = middle - weight * (above - middle), np.maximum(middle, TINY)
    share = 1.0 - line / size
    mean = np.where(
        (share < 0.5) | (middle <= 0.0), line, 0.5 * middle * np.exp(1.0 - 2.0 * np.clip(share, 0.0, 300.0))
    )
    by_logarithm = np.where(middle > 0.0, middle * (np.maximum(above, TINY) / size) ** -weight, mean)
    each = cold - weight * (hot - cold)
    error = stats.t.ppf(0.975, seeds - 1) * each.std(axis=0, ddof=1) / np.sqrt(seeds) if seeds > 1 else 0.0 * mean
    spread = np.hypot(error, by_logarithm - mean)
    return mean, np.where(mean > 0.0, np.maximum(mean - spread, 0.0), mean - spread), mean + spread


def smoothed(time: ArrayLike, losses: ArrayLike) -> Array:
    """Losses averaged over a tenth of the time passed to both sides, shape as given.

    Args:
        time: Rising times from 0 [s], shape (points,).
        losses: Shape (..., points).
    """
    time, losses = np.asarray(time, float), np.asarray(losses, float)
    begin = np.searchsorted(time, time * (1.0 - WINDOW) - 1e-12)
    end = np.searchsorted(time, time * (1.0 + WINDOW) + 1e-12, side="right")
    begin = np.maximum(begin, np.arange(len(time)) - (end - 1 - np.arange(len(time))))  # as far back as ahead
    end = np.minimum(end, 2 * np.arange(len(time)) + 1 - begin)
    summed = np.concatenate([np.zeros((*losses.shape[:-1], 1)), np.cumsum(losses, axis=-1)], axis=-1)
    return (summed[..., end] - summed[..., begin]) / (end - begin)
