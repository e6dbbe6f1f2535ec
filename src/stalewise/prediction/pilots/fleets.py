r"""Smaller fleets that stand in for large ones.

With time in mean cycles, asynchronous SGD on any loss is to first order
:math:`dx = -u\,\nabla F(x(t - D))\,dt + \sqrt{u\,\theta\,\Sigma}\,dW` with :math:`u = \eta N` and the temperature
:math:`\theta = \eta/B`: workers enter through these two alone. So N workers at (eta, B) behave like N' workers at
(eta N/N', B N/N'), cycle for cycle. N is taken as the mean staleness + 1/2 (half a step: `dynamics.half_step`), which
also holds for groups and thresholds. With momentum beta u is :math:`\eta N/(1 - \beta)`, and the cycles
:math:`1/((1 - \beta)N)` over which it averages are kept, as far as one update of the smaller fleet is not longer.
It fails where N' is near its own stability limit while N is not: limits in u grow with N, most of all for widely spread
delays.
"""

from dataclasses import dataclass, replace

import numpy as np

from stalewise.delays import AbstractDelay, Constant, Mixture, Regimes, Replay, Sum
from stalewise.prediction.modes import learning_rate_limit
from stalewise.protocol import Rules
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Schedule, Study

FEWEST = 4
SAME_SHARE = 0.02  # that a smaller fleet may accept more or less of its gradients
NEARER = 0.9  # of the study's limit in u: what a smaller fleet's own must be
HARMLESS = 0.5  # of its own limit: what a study's u may be at the curvature of the start


@dataclass(frozen=True)
class Fleet:
    """A study whose loss goes the way of another's.

    Attributes:
        study: What stands in.
        seconds: Seconds of the study it stands in for, for one of its own.
        updates: Updates of that study for one of its own.
        batch: Samples a gradient at which its noise temperature is that study's.
        steps: Arrivals of that study's steps, which this one takes one by one, one a second; None where both take them
            at like times.
    """

    study: Study
    seconds: float
    updates: float
    batch: float
    steps: Arrivals | None = None


def own_fleet(study: Study, timing: Arrivals) -> Fleet:
    """The study itself; where no gradient is ever stale, one worker with the batch of a whole step."""
    rules = study.rules()
    fresh = rules.flushes or (rules.max_staleness == 0 and rules.on_stale == "drop")
    if not fresh or study.schedule.local_steps > 1 or rules.trains:
        return Fleet(study, 1.0, 1.0, float(study.batch_size))
    batch = study.batch_size * rules.group
    alone = study.with_schedule(
        policy="async", active_workers=1, batch_size=batch, group=None, max_staleness=None, on_stale=None,
        staleness_weight=None,
    )  # fmt: skip
    plain = alone.with_cluster(service=None, group=None, workers=1, compute="constant(1)", start="together")
    return Fleet(plain.with_delay(Constant(1.0)), 1.0 / timing.rate, 1.0, float(batch), timing)


def smaller_fleet(study: Study, timing: Arrivals, few: int) -> Fleet | None:
    """A fleet of ``few`` workers that stands in for the study's; None where none that small is known to.

    Groups, thresholds and the numbers of workers that are unlike are scaled with the workers; of a replayed trace every
    N/few-th worker by speed is kept. Nothing smaller is known for a shared link.
    """
    workers, rules = study.active_workers, study.rules()
    uneven = rules.group > 1 and rules.group * few % workers > 0
    if not 1 <= few < workers or uneven or not _scales(study, rules):
        return None
    ratio = workers / few
    small = study.with_schedule(
        active_workers=few,
        group=None if rules.group == 1 else rules.group * few // workers,
        max_staleness=_scaled(rules.max_staleness, ratio),
    )
    fleet = _fewer_workers(small, study, few)
    if fleet is None:
        return None
    theirs = arrivals(fleet)
    if abs(theirs.acceptance - timing.acceptance) > SAME_SHARE:
        return None
    stretch = (timing.staleness.mean + 0.5) / (theirs.staleness.mean + 0.5)
    renewed = 1.0 - study.schedule.momentum  # of the velocity, with every update
    fewer = min(renewed * stretch, 1.0)
    fleet = fleet.with_schedule(
        learning_rate=study.learning_rate * stretch * fewer / renewed,
        momentum=1.0 - fewer,
        nesterov=study.schedule.nesterov and fewer < 1.0,
    )
    batch = study.batch_size * stretch * timing.averaged / theirs.averaged
    return Fleet(fleet, stretch * theirs.rate / timing.rate, stretch, batch)


def fewest_workers(study: Study, timing: Arrivals) -> int:
    """The smallest fleet that may stand in for the study, by doubling from an eighth of its workers.

    It may if its own limit in learning rate x workers is 90 % of the study's or more, or if the learning rate stays
    below half of that limit at the curvature of the start.
    """
    workers = study.active_workers
    few = min(workers, max(FEWEST, round(workers / 8)))
    while few < workers:
        fleet = smaller_fleet(study, timing, few)
        if fleet is not None:
            small = fleet.study
            own = _drift(small, learning_rate_limit(small, arrivals(small)).mean_square)
            if own >= NEARER * _drift(study, learning_rate_limit(study, timing).mean_square):
                break
            if _drift(study, study.learning_rate) <= HARMLESS * own:
                break
        few = min(2 * few, workers)
    return few


def _drift(study: Study, learning_rate: float) -> float:
    """U: what a mean cycle moves the parameters by at that learning rate, over their gradient."""
    return learning_rate * study.active_workers / (1.0 - study.schedule.momentum)


def _scales(study: Study, rules: Rules) -> bool:
    """Whether a smaller fleet is known to behave like this one."""
    schedule = study.schedule
    plain = rules == Rules(rules.group, max_staleness=rules.max_staleness, on_stale=rules.on_stale)
    constant = schedule.learning_rate_schedule == "constant" and schedule.local_steps == 1
    return plain and constant and noise_is_additive(schedule) and schedule.delay_compensation == 0


def noise_is_additive(schedule: Schedule) -> bool:
    """Whether a step is linear in the gradient: only then does its noise add to a plain step."""
    plain = schedule.optimizer == "SGD" and not schedule.optimizer_options and schedule.compression == "none"
    return plain and schedule.trigger == 0


def _scaled(bound: int | None, ratio: float) -> int | None:
    return None if bound is None else max(round((bound + 0.5) / ratio - 0.5), 0)


def _fewer_workers(small: Study, study: Study, few: int) -> Study | None:
    """The cluster with a share of its workers, each group with the same; None where a group would be left with none."""
    workers, law = study.active_workers, study.workers().law
    if study.cluster.service_law().mean > 0:
        return None
    if law is not None:
        return small.with_delay(every_nth(law, workers, few))
    counts = [count * few / workers for count, _ in study.workers().groups]
    if any(abs(count - round(count)) > 1e-9 or count < 1 for count in counts):
        return None
    groups = [
        {**group.model_dump(exclude_none=True), "count": round(count)}
        for group, count in zip(study.cluster.group or (), counts, strict=False)
    ]
    return small.with_cluster(workers=few, group=groups)


def every_nth(delay: AbstractDelay, workers: int, few: int) -> AbstractDelay:
    """The law of a smaller fleet: of a replayed trace, the workers at ``few`` even places in the order of speed."""
    if isinstance(delay, Sum):
        return Sum(tuple(every_nth(part, workers, few) for part in delay.parts))
    if isinstance(delay, Mixture | Regimes):
        return replace(delay, laws=tuple(every_nth(law, workers, few) for law in delay.laws))
    if not isinstance(delay, Replay):
        return delay
    fleet = [delay.sequences[i % len(delay.sequences)] for i in range(workers)]
    fleet.sort(key=lambda durations: float(np.mean(durations)))
    places = ((np.arange(few) + 0.5) * workers / few).astype(int)
    return Replay(tuple(fleet[i] for i in places), f"{delay.source}, {few} of {workers} workers")
