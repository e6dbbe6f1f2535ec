r"""Convergence conditions of one curvature mode: the largest h = learning rate x curvature.

*Mean* stability lets the average over runs decay while single runs blow up; *mean-square* stability is what training
needs and what `limit` certifies.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from stalewise.dynamics.counted import decay_in_time, dispersion
from stalewise.dynamics.inertia import NO_INERTIA, Inertia
from stalewise.dynamics.memoryless import memoryless_step_limit, memoryless_variance_factor, moment_map
from stalewise.dynamics.recursion import decay_per_update, mean_square_step_limit, mean_step_limit, variance_factor
from stalewise.errors import NotConvergedError
from stalewise.staleness import CONSTANT, Arrivals

ROUNDED = 1e-8  # decay in one step that would be lost in rounding
ALONG = 0.1  # of the limit, from where on a decay is measured along a path
INDEX = "index equation, independent staleness (conservative if nobody waits)"


@dataclass(frozen=True)
class StepLimit:
    """Largest h at which the mean, and the mean square, stay bounded; ``method`` says how it was found."""

    mean: float
    mean_square: float
    method: str


@functools.lru_cache(maxsize=512)
def step_limit(arrivals: Arrivals, inertia: Inertia = NO_INERTIA) -> StepLimit:
    r"""Limits of h for a given staleness, momentum and weight decay.

    Exact for synchronous steps (2), constant delays (:math:`2\sin(\pi/(2(2N-1)))`) and memoryless workers (mean
    :math:`4N-2`; mean square :math:`(1+\sqrt{1+8N})/(2N)`). Otherwise the mean square is followed along a path
    recorded in virtual time (`dispersion`: within 1.5 % for all laws and policies measured), and the mean by the zeros
    of the index equation on the unit circle. Trainers, and mean staleness beyond 20,000, have no path: there every
    staleness is taken as drawn independently, which errs on the safe side for plain async (at most 16 % at 2 workers,
    7 % from 16 on) but not under ``wait``, ``admit`` and ``ssp`` (``method`` says so).
    """
    known = _known_limit(arrivals, inertia)
    if known is not None:
        return known
    coarse = arrivals.coarse
    mean, block = _mean_limit(coarse, inertia), coarse.block / arrivals.block
    how, precision = inertia.filter(coarse.block), 1e-6 if coarse.block == 1 else 1e-4  # blocks' limit is 0.2 % off
    square = mean_square_step_limit(coarse.staleness, mean, how, weight=1.0 / coarse.block, precision=precision)
    return StepLimit(mean / block, square / block, INDEX)


@dataclass(frozen=True)
class Decay:
    """Whether the mean, and the mean square, of a mode decay; ``method`` says how its limits are found."""

    mean: bool
    mean_square: bool
    method: str


def decay_of(step: float, arrivals: Arrivals, inertia: Inertia = NO_INERTIA) -> Decay:
    """Whether a step is below its `step_limit`, where only the index equation knows that without looking for it."""
    known = _known_limit(arrivals, inertia)
    if known is not None:
        return Decay(step < known.mean, step < known.mean_square, known.method)
    coarse = arrivals.coarse
    step *= coarse.block / arrivals.block
    mean = square = 0.0 < step < _mean_limit(coarse, inertia)
    if mean:
        try:
            share = 1.0 / coarse.block
            square = math.isfinite(variance_factor(step, coarse.staleness, share, inertia.filter(coarse.block)))
        except NotConvergedError:
            square = False
    return Decay(mean, square, INDEX)


@functools.lru_cache(maxsize=512)
def _mean_limit(arrivals: Arrivals, inertia: Inertia) -> float:
    return mean_step_limit(arrivals.staleness, inertia.filter(arrivals.block))


@functools.lru_cache(maxsize=512)
def _known_limit(arrivals: Arrivals, inertia: Inertia) -> StepLimit | None:
    """`step_limit` where it is known from more than the index equation of independent staleness."""
    inertia.check_resolved(arrivals.coarse.block)
    law = arrivals.staleness
    if len(law.pmf) == 1:
        limit = 2.0 if inertia == NO_INERTIA else _mean_limit(arrivals, inertia)
        return StepLimit(limit, limit, "exact: nothing is stale")
    if arrivals.memoryless:
        return _memoryless_limit(arrivals, inertia)
    if law.method == CONSTANT:
        limit = _mean_limit(arrivals, inertia)
        if inertia == NO_INERTIA:
            limit = arrivals.block * constant_step_limit(round((law.mean + 0.5) * arrivals.block + 0.5))
        return StepLimit(limit, limit, "exact: constant delays")
    coarse = arrivals.coarse
    found = dispersion(coarse, inertia)
    if found is None:
        return None
    mean, block = _mean_limit(coarse, inertia), coarse.block / arrivals.block
    method = f"growth of the second moment along a run in virtual time, standard error {100 * found.error:.1g} %"
    return StepLimit(max(mean, found.limit) / block, found.limit / block, method)


def _memoryless_limit(arrivals: Arrivals, inertia: Inertia) -> StepLimit:
    """Exact; with momentum, workers counted in blocks are as many as there are blocks."""
    block, method = arrivals.block, "exact: memoryless workers, closed moments"
    workers = round(arrivals.staleness.mean) + 1
    if inertia == NO_INERTIA:
        workers *= block
        return StepLimit(block * (4.0 * workers - 2.0), block * memoryless_step_limit(workers), method)
    how = inertia.filter(block)
    square = memoryless_step_limit(workers, how)
    return StepLimit(max(_mean_limit(arrivals, inertia), square), square, method)


def jitter_weight(step: float, arrivals: Arrivals, inertia: Inertia = NO_INERTIA) -> float:
    r"""Share of the staleness jitter that acts as independent noise on a mode of this h, see `variance_factor`.

    As measured along the path of the arrivals, if they have one; else the heuristic :math:`c^2/(1+c^2)`.
    """
    found = dispersion(arrivals, inertia)
    return arrivals.dispersion_weight if found is None else found.weight(step)


def learning_rate_at(step: float, curvature: float, arrivals: Arrivals, local_steps: int = 1) -> float:
    r"""Learning rate at which a mode's step is ``step``, the least if there are several.

    :math:`h = \eta\lambda` for a gradient, :math:`1 - (1 - \eta\lambda)^H` for H local steps (2/lambda, where these
    diverge by themselves, if H is even and h beyond 1), each times the mean weight and the updates counted as one.
    """
    step /= arrivals.block * arrivals.weight_mean
    if local_steps == 1:
        return step / curvature
    if step <= 1.0:
        return (1.0 - (1.0 - step) ** (1.0 / local_steps)) / curvature
    return (2.0 if local_steps % 2 == 0 else 1.0 + (step - 1.0) ** (1.0 / local_steps)) / curvature


def constant_step_limit(workers: int) -> float:
    r"""Limit of h for N workers in round robin, mean and mean square: :math:`2\sin(\pi/(2(2N-1)))`."""
    return 2.0 * math.sin(math.pi / (2.0 * (2.0 * workers - 1.0)))


def stationary_variance(
    step: float, noise: float, arrivals: Arrivals, inertia: Inertia = NO_INERTIA, *, weight: float | None = None
) -> float:
    r"""Variance of x in the long run, infinite at or past the limit.

    Exact for memoryless workers, :math:`V = \nu (1+\alpha)/(h(2-h(\alpha-1)))` with :math:`\alpha = hN`, and for
    constant staleness. Otherwise the index formula with the weight :math:`c^2/(1+c^2)` (heuristic: within 6 % at 2
    workers, 2 % from 8 on, c the coefficient of variation of the delay).

    Args:
        step: h = learning rate x curvature.
        noise: Variance of one step's noise, learning rate^2 x gradient-noise variance / gradients a step.
        arrivals: Staleness of the schedule.
        inertia: Momentum and weight decay.
        weight: Share of the staleness jitter that acts as independent noise, if not that estimate.
    """
    if not decay_of(step, arrivals, inertia).mean_square:
        return math.inf
    how = inertia.filter(arrivals.block)
    if arrivals.memoryless:
        return noise * memoryless_variance_factor(step, round(arrivals.staleness.mean) + 1, how)
    share = jitter_weight(step, arrivals, inertia) if weight is None else weight
    return noise * variance_factor(step, arrivals.staleness, share, how)


def decay_rate(step: float, arrivals: Arrivals, inertia: Inertia = NO_INERTIA) -> float | None:
    r"""Rate at which the root mean square of a mode decays in wall-clock time [1/s]; None for heavy tails.

    Exact for memoryless workers: a step multiplies their moments by a matrix of spectral radius :math:`\rho`, steps are
    Poisson, so :math:`R(1 - \rho)/2`. Otherwise along a recorded path, from a tenth of the limit on. Below it, or
    without a path, by the zero of the index equation, z, about whose decay the counts scatter: with their variance
    growing I times as fast as their mean (gamma renewals)

    .. math:: \frac{R}{2I}\left(1 - |z|^{2I}\right).

    Args:
        step: h = learning rate x curvature.
        arrivals: Staleness of the schedule.
        inertia: Momentum and weight decay.
    """
    if arrivals.heavy_tailed:
        return None
    inertia.check_resolved(arrivals.block)
    how = inertia.filter(arrivals.block)
    if arrivals.memoryless:
        matrix, _ = moment_map(step, round(arrivals.staleness.mean) + 1, how)
        radius = float(np.abs(np.linalg.eigvals(matrix)).max())
        if abs(1.0 - radius) > ROUNDED:  # else the mean's decay, which is as fast but for one part in 10^5
            lost = 1.0 - radius if arrivals.block == 1 else -math.log(radius)
            return 0.5 * arrivals.rate * lost
    found = dispersion(arrivals, inertia)
    if found is not None and step > ALONG * found.limit:
        return decay_in_time(step, arrivals, inertia)[0]
    rho = decay_per_update(step, arrivals.staleness, how)
    scatter = _dispersion_index(arrivals)
    decay = 2.0 * rho * scatter
    rate = arrivals.rate * (rho if abs(decay) < 1e-9 else -rho * math.expm1(-decay) / decay)
    return rate if math.isfinite(rate) else None


def _dispersion_index(arrivals: Arrivals) -> float:
    """How much faster the variance of the number of steps grows in the long run than its mean."""
    long = 100.0 * (arrivals.staleness.mean + 1.0) / arrivals.rate
    mean, variance = arrivals.counts(np.array([long, 2.0 * long]))
    return max(float((variance[1] - variance[0]) / (mean[1] - mean[0])), 0.0)
