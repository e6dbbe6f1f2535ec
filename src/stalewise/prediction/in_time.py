"""From losses after so many steps to the mean loss at given times."""

import numpy as np
from numpy.typing import NDArray

from stalewise.staleness import Arrivals, FirstSteps

Array = NDArray[np.float64]
HUGE = 1e300  # in place of an infinite loss, of which there may be no chance
FEW = 40.0  # expected steps below which their number is not taken as normal
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def in_time(timing: Arrivals, time: Array, index: Array, table: Array) -> Array:
    r"""Mean loss at given times, :math:`\sum_n P(n\ \text{steps by}\ t)\,L_n`, shape (rows, times).

    The loss after n steps holds from the end of the n-th to that of the next.

    Args:
        timing: Says how many steps are taken by then.
        time: Rising times [s], shape (times,).
        index: Rising numbers of steps from 0, all of them up to some 40, shape (steps,); more than the last count as
            the last.
        table: Loss after so many steps, shape (rows, steps); between them linear.
    """
    mean, variance = timing.counts(time)
    loss = _over_counts(mean, variance, index, table)
    if timing.first_steps is not None:
        _over_first_steps(timing.first_steps(), time, index, table, loss)
    return loss


def _over_counts(mean: Array, variance: Array, index: Array, table: Array) -> Array:
    """Loss at times by which so many steps are expected, averaged over their number, shape (rows, times).

    As if it were normal; where few are expected and they scatter like a Poisson process or more, negative binomial.
    """
    nodes = np.clip(mean[:, None] + np.sqrt(variance)[:, None] * _NODES, 0.0, index[-1])
    loss = np.array([np.interp(nodes, index, row) @ _WEIGHTS for row in table])
    few = (mean > 0) & (mean < FEW) & (variance >= 0.99 * mean)
    if few.any():
        expected, wider = mean[few][:, None], np.maximum(variance[few] / mean[few], 1.001)[:, None] - 1.0
        counts = np.arange(12.0 * FEW)
        ratios = np.empty((len(expected), len(counts)))  # of a chance to the one before
        ratios[:, :1] = (1.0 + wider) ** (-expected / wider)
        ratios[:, 1:] = (counts[:-1] + expected / wider) / counts[1:] * (wider / (1.0 + wider))
        chances = np.cumprod(ratios, axis=1)
        loss[:, few] = [chances @ np.minimum(np.interp(counts, index, row), HUGE) for row in table]
    return loss


def _over_first_steps(first: FirstSteps, time: Array, index: Array, table: Array, loss: Array) -> None:
    """Put the loss averaged over the number of steps in its place, at times at which their chances are known."""
    few = time <= first.time[-1]
    chances = first.at(time[few])
    steps = np.arange(chances.shape[1])
    loss[:, few] = [chances @ np.minimum(np.interp(steps, index, row), HUGE) for row in table]
