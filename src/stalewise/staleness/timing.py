"""What a schedule's time course is to the dynamics."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stalewise.errors import InputError
from stalewise.protocol import Weight
from stalewise.simulation.paths import Path
from stalewise.staleness.law import StalenessLaw, memoryless_law

Array = NDArray[np.float64]
UNWEIGHTED = Weight()
MEMORYLESS = 10_000  # workers from twice which on memoryless ones are counted in blocks
BLOCKED = 200  # mean staleness from twice which on ages are counted in blocks


@dataclass(frozen=True, eq=False)
class FirstSteps:
    """P(n steps or more by a time), while few are expected.

    Attributes:
        time: Rising times [s], shape (times,).
        reached: For n = 1, 2, ... up to where there is hardly a chance, shape (times, n).
    """

    time: Array
    reached: Array

    def at(self, time: Array) -> Array:
        """P(0, 1, 2, ... steps) at times up to the last one known, shape (len(time), n + 1); between times linear."""
        place = np.interp(time, self.time, np.arange(len(self.time)))
        low = np.minimum(place.astype(np.int64), len(self.time) - 2)
        share = (place - low)[:, None]
        reached = (1.0 - share) * self.reached[low] + share * self.reached[low + 1]
        ends = np.ones((len(reached), 1)), reached, np.zeros((len(reached), 1))
        return -np.diff(np.concatenate(ends, axis=1), axis=1)

    def moments(self, time: Array) -> tuple[Array, Array]:
        """Mean and variance of the steps by such times."""
        chances = self.at(time)
        n = np.arange(chances.shape[1])
        mean = chances @ n
        return mean, np.maximum(chances @ n**2 - mean**2, 0.0)


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Steps of the server under one schedule.

    Attributes:
        rate: Steps a second in the long run.
        gradients_a_step: Gradients averaged in one step; the mean of their number n where that varies (waiting).
        staleness: Law of the staleness of an applied gradient, each counted with its weight.
        delay_mean, delay_cv: Age of the parameters behind it [s], and its coefficient of variation.
        acceptance: Share of the gradients computed that are applied.
        counts: Mean and variance of the number of steps by given times [s].
        memoryless: Whether every worker's delay is exponential and none is dropped: then the moments close exactly.
        heavy_tailed: Whether the delay's transform does not exist left of the axis.
        block: Updates that are counted as one, see `coarse`.
        weight_mean, weight_square: Mean and mean square of the gradients' weights (`stalewise.protocol.Weight`).
        unweighted: Law of the staleness, each gradient counted once; None if that is ``staleness``.
        weight: What a gradient is multiplied by.
        first_steps: Chances of the first few steps, which no mean and variance tell; None where these have to do.
        path: Runs the schedule in virtual time and says who was applied when, for what depends on how staleness hangs
            together; None where nothing does, or it is not recorded.
        noise_gradients: 1/E[1/n] where n varies: that many gradients a step have the noise of these; None elsewhere.
    """

    rate: float
    gradients_a_step: float
    staleness: StalenessLaw
    delay_mean: float
    delay_cv: float
    acceptance: float
    counts: Callable[[Array], tuple[Array, Array]]
    memoryless: bool
    heavy_tailed: bool
    block: int = 1
    weight_mean: float = 1.0
    weight_square: float = 1.0
    unweighted: StalenessLaw | None = None
    weight: Weight = UNWEIGHTED
    first_steps: "Callable[[], FirstSteps] | None" = None
    path: Callable[[], Path] | None = None
    noise_gradients: float | None = None

    @property
    def averaged(self) -> float:
        """Gradients that a step has the noise of: a step of n has 1/n of the variance of one, so 1/E[1/n]."""
        return self.noise_gradients or self.gradients_a_step

    @property
    def observed(self) -> StalenessLaw:
        """Law of the staleness that a log shows."""
        return self.unweighted or self.staleness

    def weighted(self, weight: Weight) -> "Arrivals":
        r"""The same with gradients of staleness k multiplied by w(k).

        To first order a mode of curvature lambda then sees a learning rate eta E[w] and ages of the law
        :math:`p_k w_k / E[w]`: both are exact for the mean, given that ages are independent of what is learnt.
        """
        if weight == UNWEIGHTED:
            return self
        law = self.staleness
        weights = weight.of(np.arange(len(law.pmf)))
        mean = float(law.pmf @ weights)
        if not mean > 0:
            raise InputError("schedule.staleness_weight: every gradient would have weight 0")
        return replace(
            self,
            staleness=StalenessLaw(law.pmf * weights / mean, f"{law.method}; weighted"),
            unweighted=law,
            weight_mean=mean,
            weight_square=float(law.pmf @ weights**2),
            memoryless=False,
            weight=weight,
        )

    @property
    def dispersion_weight(self) -> float:
        """Share of the delay's jitter that acts as independent noise, c^2/(1 + c^2): see docs/theory, heuristic.

        Over a block it averages out.
        """
        return self.delay_cv**2 / (1.0 + self.delay_cv**2) / self.block

    @functools.cached_property
    def coarse(self) -> "Arrivals":
        """The same, counted in blocks of updates where ages are long; a block of b is one step of b h.

        Ages are then 200 to 400 blocks on average. Limits of h for gamma(4) delays move by 0.2 % at 1,000 workers;
        laws with density at age 0 err low (exponential ages 3 % at 1,000 workers, but there closed forms are used).

        N memoryless workers count as the 10,000 to 20,000 that make blocks of whole updates: to first order only h N
        matters, the rest is within (h N)^2/20,000 of noise and times. Their limit stays that of N.
        """
        workers = self.staleness.mean + 1.0
        block = int(workers // MEMORYLESS if self.memoryless else self.staleness.mean // BLOCKED)
        if block < 2:
            return self

        def counts(time: Array) -> tuple[Array, Array]:
            mean, variance = self.counts(time)
            return mean / block, variance / block**2

        fewer = round(workers / block)
        staleness = memoryless_law(fewer) if self.memoryless else self.staleness.in_blocks(block)
        return replace(self, rate=self.rate / block, staleness=staleness, counts=counts, block=block, first_steps=None)
