"""A quadratic's modes under one schedule: their steps, their noise, and whether they hold together."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stalewise.dynamics import (
    Inertia,
    StepLimit,
    decay_of,
    dispersion,
    learning_rate_at,
    stationary_variance,
    step_limit,
)
from stalewise.landscape import curvature_of
from stalewise.staleness import Arrivals
from stalewise.study import Study

Array = NDArray[np.float64]
BISECTIONS = 14


@dataclass(frozen=True)
class Modes:
    """Curvature modes of a study, equal curvatures taken together, as seen by one step of its arrivals.

    Attributes:
        curvature: Distinct eigenvalues, ascending, shape (modes,).
        step: h = learning rate x curvature x updates counted as one, shape (modes,); of several local steps what they
            send takes the curvature's place. Not positive where local steps diverge by themselves.
        noise: Variance of one step's noise in x, summed over equal curvatures, shape (modes,).
        growth: What a unit of loss, where its gradients were computed, adds to that, shape (modes,).
        square: Squared starting distance, summed likewise, shape (modes,).
        inertia: Momentum and weight decay, (modes,) of them.
    """

    curvature: Array
    step: Array
    noise: Array
    growth: Array
    square: Array
    inertia: tuple[Inertia, ...]

    @property
    def damping(self) -> Array:
        """What a step takes off each mode in the long run, shape (modes,)."""
        return self.step * np.array([(1.0 + one.decay) / (1.0 - one.momentum) for one in self.inertia])


def modes_of(study: Study, timing: Arrivals) -> Modes:
    """Collect a quadratic's modes; noise is learning rate^2 x variance / (batch x gradients averaged) an update."""
    spectrum, rate = study.workload.modes(), study.learning_rate
    curvature, which = np.unique(spectrum.eigenvalues, return_inverse=True)
    pull, noisier = study.pull(curvature)
    scale = rate**2 / (study.batch_size * timing.averaged) * timing.block * timing.weight_square
    inertia = tuple(inertia_of(study, one * timing.weight_mean) for one in pull)
    measured = dispersion(timing, replace(inertia[-1], decay=0.0))
    if measured is not None:
        scale *= measured.noise
    noise, growth, square = (
        np.asarray(np.bincount(which, one), np.float64)
        for one in (spectrum.noise, spectrum.noise_growth, spectrum.start**2)
    )
    step = rate * pull * timing.block * timing.weight_mean
    return Modes(curvature, step, noise * scale * noisier, growth * scale * noisier, square, inertia)


def inertia_of(study: Study, pull: float) -> Inertia:
    """Momentum and weight decay of a mode whose gradient is that much of x."""
    schedule = study.schedule
    return Inertia(schedule.momentum, schedule.nesterov, schedule.weight_decay / pull if pull > 0 else 0.0)


@dataclass(frozen=True)
class Stability:
    """Whether the mean and the mean square of all modes decay, and the loss that noise holds, infinite if they do not.

    ``loop``: what a unit of loss brings back as noise; from 1 on the mean square grows. ``method``: of the limits.
    """

    mean: bool
    mean_square: bool
    floor: float
    loop: float
    method: str


def stability_of(modes: Modes, timing: Arrivals) -> Stability:
    r"""Convergence conditions of a whole spectrum, and its noise floor.

    Noise that grows with the loss couples the modes: in the long run :math:`F = F_0 + \Gamma F`,
    :math:`\Gamma = \sum_i \tfrac12\lambda_i V_i`, with V_i the variance for the noise that a unit of loss adds. Of one
    curvature the stiffest mode is the first to diverge, with weight decay it and the softest are looked at.
    """
    ends = {(float(modes.step[i]), modes.inertia[i]) for i in (0, -1)}
    decays = [decay_of(step, timing, inertia) for step, inertia in ends]
    contracts, method = bool(modes.step.min() > 0), decays[-1].method
    mean = contracts and all(one.mean for one in decays)
    if not contracts or not all(one.mean_square for one in decays):
        return Stability(mean, False, math.inf, math.inf, method)
    factors = np.zeros(len(modes.step))
    for i in np.flatnonzero((modes.noise > 0) | (modes.growth > 0)):
        factors[i] = stationary_variance(modes.step[i], 1.0, timing, modes.inertia[i])
    held = 0.5 * modes.curvature * factors
    loop = float(held @ modes.growth)
    floor = float(held @ modes.noise) / (1.0 - loop) if loop < 1.0 else math.inf
    return Stability(mean, loop < 1.0, floor, loop, method)


def stiffest(study: Study) -> tuple[float, list[str]]:
    """Largest curvature of a study, and what to know about it."""
    if study.workload.is_quadratic:
        return float(study.workload.modes().eigenvalues.max()), []
    curvature, where = curvature_of(study.workload)
    note = (
        f"curvature {curvature:.3g} is that of {study.workload.kind} {where}; it moves while training, towards "
        "the edge the delay allows, so for networks this limit is a cautious guide and not a cliff"
    )
    return curvature, [note]


def learning_rate_limit(study: Study, timing: Arrivals) -> StepLimit:
    """Largest learning rates for a study's whole spectrum, of the mean and of the mean square.

    Noise that grows with the loss lowers that of the mean square, found by bisection to 1 part in 10,000.
    """
    local_steps = study.schedule.local_steps
    curvatures = {stiffest(study)[0]}
    if study.workload.is_quadratic and study.schedule.weight_decay > 0:
        curvatures.add(float(study.workload.modes().eigenvalues.min()))
    found = []
    for curvature in sorted(curvatures):
        limit = step_limit(timing, inertia_of(study, local_steps * curvature * timing.weight_mean))
        mean, square = (learning_rate_at(h, curvature, timing, local_steps) for h in (limit.mean, limit.mean_square))
        found.append(StepLimit(mean, square, limit.method))
    least = StepLimit(min(one.mean for one in found), min(one.mean_square for one in found), found[-1].method)
    if not study.workload.is_quadratic or not study.workload.modes().noise_growth.any():
        return least
    low, high = 0.0, least.mean_square
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        modes = modes_of(study.with_schedule(learning_rate=middle), timing)
        low, high = (middle, high) if stability_of(modes, timing).mean_square else (low, middle)
    return replace(least, mean_square=low, method=f"{least.method}; gradient noise grows with the loss")
