r"""How far the arrivals of N workers are from a Poisson process."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import integrate

from stalewise import checks
from stalewise.delays import AbstractDelay
from stalewise.staleness.law import mixed_poisson, staleness_law
from stalewise.staleness.renewal import MOST_STEPS, STEPS_PER_MEAN, TAIL, equilibrium_counts, finest, hat_weights

Array = NDArray[np.float64]
CLOSE = 0.05  # distance between laws up to which they are called the same
STEADY = 0.2  # difference of the dispersion from 1 up to which noise is called Poisson
GRID = 200_001


@dataclass(frozen=True)
class PoissonError:
    """Error of taking the arrivals of independent, equal workers as Poisson.

    Attributes:
        interarrival: Largest difference of the distribution functions of the time between arrivals.
        dispersion: Variance over mean of the arrivals in one mean delay; 1 for Poisson, and the same for every N.
        staleness: Total variation between the staleness law and the mixed Poisson law.
    """

    interarrival: float
    dispersion: float
    staleness: float

    @property
    def good_enough(self) -> bool:
        """Whether update times, staleness and noise may all be taken from a Poisson process."""
        return max(self.interarrival, self.staleness) <= CLOSE and abs(self.dispersion - 1.0) <= STEADY

    @property
    def sentence(self) -> str:
        """What this means, for the user."""
        parts = {
            f"times between updates (distance {self.interarrival:.2g})": self.interarrival <= CLOSE,
            f"staleness (total variation {self.staleness:.2g})": self.staleness <= CLOSE,
            f"noise over a delay (dispersion {self.dispersion:.2g})": abs(self.dispersion - 1.0) <= STEADY,
        }
        good = ", ".join(part for part, close in parts.items() if close)
        bad = ", ".join(part for part, close in parts.items() if not close)
        if not bad:
            return f"Poisson arrivals would be good enough for all: {good}"
        return f"Poisson arrivals would be wrong for {bad}" + (f"; good enough for {good}" if good else "")


@functools.lru_cache(maxsize=256)
def poisson_error(delay: AbstractDelay, workers: int) -> PoissonError:
    """Error of the Poisson approximation: the three numbers of `PoissonError`, good enough up to 0.05, 0.2, 0.05."""
    checks.at_least("workers", workers, 1)
    exact, poisson = staleness_law(delay, workers).pmf, mixed_poisson(delay, workers).pmf
    length = max(len(exact), len(poisson))
    gap = np.abs(np.pad(exact, (0, length - len(exact))) - np.pad(poisson, (0, length - len(poisson))))
    return PoissonError(interarrival_distance(delay, workers), dispersion(delay, delay.mean), float(gap.sum()) / 2)


def interarrival_distance(delay: AbstractDelay, workers: int) -> float:
    r"""Kolmogorov distance between the time between arrivals of N workers and the exponential law of its mean.

    :math:`P(T > t) = (1 - F(t))(1 - F_e(t))^{N-1}` with the residual law :math:`F_e`; about 0.25/N for c = 0.5.
    """
    end = min(float(delay.quantile(1.0 - TAIL)), 40.0 * delay.mean)
    time = np.concatenate([[0.0], np.geomspace(end * 1e-9, end, GRID)])
    survival = np.asarray(delay.survival(time))
    residual = integrate.cumulative_trapezoid(survival, time, initial=0.0) / delay.mean
    above = survival * np.maximum(1.0 - residual, 0.0) ** (workers - 1)
    return float(np.abs(above - np.exp(-workers * time / delay.mean)).max())


def dispersion(delay: AbstractDelay, window: float) -> float:
    """Variance over mean of the arrivals in ``window`` [s]; variances add, so it does not depend on the workers."""
    checks.positive("window", window, "seconds")
    if delay.cv < 1e-9:
        part = math.modf(window / delay.mean)[0]
        return part * (1.0 - part) / (window / delay.mean)
    most = max(MOST_STEPS, math.ceil(STEPS_PER_MEAN * window / delay.mean))  # coarser than that it is 1e-4 off
    points = max(min(math.ceil(window / finest(delay)), most), 400)
    step = window / points
    counts = equilibrium_counts(step, hat_weights(delay, step, points + 1), delay.mean)[-1]
    n = np.arange(len(counts))
    mean = float(counts @ n)
    return (float(counts @ n**2) - mean**2) / mean
