r"""Published rules as schedules, to compare a plan with.

L is the largest curvature and s^2 the total variance of one stochastic gradient. Rules for an accuracy eps in the
squared norm of the gradient take eps = 2 mu F*, with mu the smallest curvature and F* the target: below that norm the
loss of a quadratic is below the target, whatever the direction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from stalewise.errors import InputError
from stalewise.planning.search import rounded
from stalewise.study import Study


@dataclass(frozen=True)
class Rule:
    """A published rule: its name, its source, and the schedule it says (None where it says none)."""

    name: str
    source: str
    schedule: Callable[["Facts"], dict | None]


@dataclass(frozen=True)
class Facts:
    """What rules go by: all workers N, the best learning rate of one worker, L, mu, s^2 of a batch, the target F*.

    Of a network mu is not known, and so no accuracy.
    """

    workers: int
    alone: float
    stiffest: float
    softest: float | None
    noise: float | None
    target: float

    @property
    def accuracy(self) -> float | None:
        """eps, in the squared norm of the gradient; None where it is not known."""
        return None if self.softest is None else 2.0 * self.softest * self.target

    @property
    def stale(self) -> int:
        """Mean staleness under full asynchrony, 1 at least."""
        return max(self.workers - 1, 1)


def _ringmaster(facts: Facts) -> dict | None:
    if facts.accuracy is None or facts.noise is None:
        return None
    bound = max(1, math.ceil(facts.noise / facts.accuracy))
    noisy = facts.accuracy / (4 * facts.stiffest * facts.noise) if facts.noise > 0 else math.inf
    rate = min(1.0 / (2 * bound * facts.stiffest), noisy)
    return {"policy": "ringmaster", "max_staleness": bound - 1, "on_stale": "cancel", "learning_rate": rate}


def _rennala(facts: Facts) -> dict | None:
    if facts.accuracy is None or facts.noise is None:
        return None
    group = max(1, math.ceil(facts.noise / facts.accuracy))
    noisy = facts.accuracy * group / (2 * facts.stiffest * facts.noise) if facts.noise > 0 else math.inf
    return {"policy": "rennala", "group": group, "learning_rate": min(1.0 / facts.stiffest, noisy)}


RULES = (
    Rule(
        "no rule: all workers, one worker's learning rate", "the usual default",
        lambda f: {"policy": "async", "learning_rate": f.alone},
    ),
    Rule(
        "linear scaling, synchronous", "Goyal et al., arXiv:1706.02677",
        lambda f: {"policy": "sync", "learning_rate": f.alone * f.workers},
    ),
    Rule(
        "synchronous with backup workers (5 %), linear scaling", "Chen et al., arXiv:1604.00981",
        lambda f: {"policy": "k-sync", "group": (k := math.ceil(0.95 * f.workers)), "learning_rate": f.alone * k},
    ),
    Rule(
        "learning rate over staleness", "Zhang et al., arXiv:1511.05950",
        lambda f: {"policy": "async", "staleness_weight": "inverse", "learning_rate": f.alone},
    ),
    Rule(
        "constant delay: critical damping of the stiffest mode", "1/(e L tau), tau = N - 1/2",
        lambda f: {"policy": "async", "learning_rate": 1.0 / (math.e * f.stiffest * (f.workers - 0.5))},
    ),
    Rule(
        "delay-adaptive steps, min(1/2L, 1/4L tau)", "Mishchenko et al., 2206.07638; Koloskova et al., 2206.08307",
        lambda f: {
            "policy": "async", "staleness_weight": "delay-adaptive(0.5)", "learning_rate": 0.5 / f.stiffest,
        },
    ),
    Rule("Ringmaster's threshold", "Maranjyan et al., arXiv:2501.16168", _ringmaster),
    Rule("Rennala's batch", "Tyurin, Richtarik, arXiv:2305.12387", _rennala),
)  # fmt: skip


def facts_of(study: Study, alone: float) -> Facts:
    """Of a quadratic study; ``alone`` is the best learning rate of one worker."""
    spectrum = study.workload.modes()
    return Facts(
        workers=study.cluster.workers,
        alone=alone,
        stiffest=float(spectrum.eigenvalues.max()),
        softest=float(spectrum.eigenvalues.min()),
        noise=float(spectrum.noise.sum()) / study.batch_size,
        target=study.target.loss,
    )


def under_rule(study: Study, rule: Rule, facts: Facts) -> Study | None:
    """The study under what the rule says of it; None where that has no meaning."""
    said = rule.schedule(facts)
    if said is None:
        return None
    said["learning_rate"] = rounded(said["learning_rate"])
    clear = dict.fromkeys(("max_staleness", "on_stale", "group", "staleness_weight", "momentum", "nesterov"))
    try:
        return study.with_schedule(**(clear | {"active_workers": facts.workers} | said))
    except InputError:
        return None
