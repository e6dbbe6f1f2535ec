r"""What theory says of a network's structures, to choose the few that are raced.

A schedule whose steps add up to a drift of :math:`v = \eta\,\mathrm{steps/s}/(1 - \beta)` a second, with g gradients of
B samples applied a second, diffuses by :math:`v^2/(B g)` a second. So two things are wanted of a structure: the largest
drift that is stable, and g; both for a unit of what is to be saved (a second, a worker-second, a byte). What another
one beats in both cannot be the best, as far as curvatures stay and noise adds up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stalewise.dynamics import step_limits
from stalewise.planning.objectives import Goal, spent
from stalewise.planning.search import is_fresh
from stalewise.planning.shortlist import ROUGH
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study

MOST = 5  # structures that are raced
LEAST = 0.3  # of the best drift: slower ones are not raced


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
    def gradients(self) -> float:
        """Gradients applied for a unit of what is to be saved."""
        return self.timing.rate * self.timing.gradients_a_step / self.price

    @property
    def computed(self) -> float:
        """Gradients computed a second."""
        return self.timing.rate * self.timing.gradients_a_step / self.timing.acceptance


def pace(study: Study, goal: Goal, size: int, seed: int) -> Pace:
    """Of one structure of a network with ``size`` parameters."""
    rated = study if study.schedule.learning_rate else study.with_schedule(learning_rate=1.0)
    timing = arrivals(rated, seed=seed, share=ROUGH)
    coarse = timing.coarse
    limit = float(step_limits([coarse])[0]) / (coarse.weight_mean * coarse.block)
    price = getattr(spent(timing, study.active_workers, size, 1.0, goal.price), goal.objective)
    return Pace(study, timing, limit, price)


def raced(paces: Sequence[Pace], held: str | None) -> list[Pace]:
    """The few that are worth a race, fastest drift first: none that another one beats in drift and gradients both.

    The fastest one with fresh gradients alone is among them, and the fastest one with stale ones or of the policy that
    is given.
    """
    order = sorted(paces, key=lambda one: (-one.drift, -one.gradients))
    best, most = [], 0.0
    for one in order:
        if one.gradients > 1.01 * most and one.drift >= LEAST * order[0].drift:
            best.append(one)
            most = one.gradients
    fresh = next((one for one in order if is_fresh(one.study.policy)), None)
    own = (lambda policy: policy == held) if held else (lambda policy: not is_fresh(policy))
    stale = next((one for one in order if own(one.study.policy)), None)
    needed = [one for one in (fresh, stale) if one is not None and one not in best[:MOST]]
    return [*best[: MOST - len(needed)], *needed]
