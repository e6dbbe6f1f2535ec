r"""What theory says of a network's structures, to choose the few that are raced.

A schedule whose steps add up to a drift of :math:`v = \eta\,\mathrm{steps/s}/(1 - \beta)` a second, with gradients of s
samples applied a second, diffuses by :math:`v^2/s` a second. So two things are wanted of a structure: the largest drift
that is stable, and s; both for a unit of what is to be saved (a second, a worker-second, a byte). What another one
beats in both cannot be the best, as far as curvatures stay and noise adds up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stalewise.dynamics import step_limits
from stalewise.planning.objectives import Goal, spent
from stalewise.planning.search import is_fresh
from stalewise.planning.shortlist import ROUGH
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study

MOST = 5  # structures that are raced
HARDLY_LESS, QUARTER_MORE = 0.8, 1.25


@dataclass(frozen=True)
class Pace:
    """A structure without learning rate.

    Attributes:
        study: Under it.
        timing: Its arrivals.
        limit: Mean-square limit of the learning rate times the curvature, without momentum; roughly.
        price: Of one second, in what is to be saved.
    """

    study: Study
    timing: Arrivals
    limit: float
    price: float

    @property
    def drift(self) -> float:
        """Largest stable drift, over the curvature, for a unit of what is to be saved."""
        return self.limit * self.timing.rate * self.study.schedule.local_steps / self.price

    @property
    def samples(self) -> float:
        """Samples behind the noise of the steps for a unit of what is to be saved."""
        return self.timing.rate * self.timing.averaged * self.study.batch_size / self.price


def pace(study: Study, goal: Goal, size: int, seed: int) -> Pace:
    """Of one structure of a network with ``size`` parameters."""
    rated = study if study.schedule.learning_rate else study.with_schedule(learning_rate=1.0)
    timing = arrivals(rated, seed=seed, share=ROUGH)
    coarse = timing.coarse
    limit = float(step_limits([coarse])[0]) / (coarse.weight_mean * coarse.block)
    price = getattr(spent(timing, study.active_workers, size, 1.0, goal.price), goal.objective)
    return Pace(study, timing, limit, price)


def raced(paces: Sequence[Pace], held: str | None) -> list[Pace]:
    """The few that are worth a race, fastest drift first.

    Left out is what another one beats in drift and in samples both, or by a quarter in samples at hardly less drift;
    of what remains, as many as are raced evenly over the samples. The fastest one with fresh gradients alone
    is among them, and the fastest one with stale ones or of the policy that is given.
    """
    order = sorted(paces, key=lambda one: (-one.drift, -one.samples))
    best = [one for i, one in enumerate(order) if not any(_beats(other, one, j < i) for j, other in enumerate(order))]
    own = (lambda policy: policy == held) if held else (lambda policy: not is_fresh(policy))
    needed = []
    for wanted in (is_fresh, own):
        if not any(wanted(one.study.policy) for one in best):
            needed += _best_drift([one for one in order if wanted(one.study.policy)])
    best = _spread(best, MOST - len(needed))
    for wanted in (is_fresh, own):
        if not any(wanted(one.study.policy) for one in [*best, *needed]):
            needed += _best_drift([one for one in order if wanted(one.study.policy)])
    return [*best, *needed]


def _beats(other: Pace, one: Pace, first: bool) -> bool:
    """Whether the other one makes this one superfluous; of two alike the first does."""
    if other is one:
        return False
    drift, samples = other.drift / one.drift, other.samples / one.samples
    if drift == samples == 1.0:
        return first
    return (drift >= 1.0 and samples >= 1.0) or (drift >= HARDLY_LESS and samples >= QUARTER_MORE)


def _best_drift(some: Sequence[Pace]) -> list[Pace]:
    """The one with most samples among those of hardly less than the fastest drift; none of none."""
    near = [one for one in some if one.drift >= HARDLY_LESS * some[0].drift]
    return [max(near, key=lambda one: one.samples)] if near else []


def _spread(some: Sequence[Pace], most: int) -> list[Pace]:
    """At most so many, evenly over the logarithm of the samples, both ends among them."""
    if len(some) <= most:
        return list(some)
    places = np.log([one.samples for one in some])
    wanted = np.linspace(places.min(), places.max(), most)
    chosen = {int(np.abs(places - place).argmin()) for place in wanted}
    return [some[i] for i in sorted(chosen)]
