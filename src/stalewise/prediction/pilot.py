r"""Networks predicted from a cheap pilot: few workers stand in for many.

With time in mean cycles, asynchronous SGD on any loss is to first order
:math:`dx = -u\,\nabla F(x(t - D))\,dt + \sqrt{u\,\eta\,\Sigma/B}\,dW` with :math:`u = \eta N`: workers enter through
u and through the noise temperature :math:`\eta/B` alone. So N workers at (eta, B) behave like N' workers at
(eta N/N', B N/N'), cycle for cycle, at N/N' times fewer (and larger) gradients. With momentum beta u is
:math:`\eta N/(1 - \beta)`, and the cycles :math:`1/((1 - \beta)N)` over which it averages are kept, as far as one
update of the pilot is not longer. It fails where N' is near its own
stability limit while N is not: limits in u grow with N, most of all for widely spread delays (`fewest_workers` sees
to that).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stalewise.delays import AbstractDelay, Constant, Mixture, Regimes, Replay, Sum
from stalewise.prediction.modes import learning_rate_limit
from stalewise.protocol import Rules, rules_of
from stalewise.simulation import simulate_network
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Schedule, Study
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

Progress = Callable[[float, str], None]
FEWEST = 4
SEEDS = 16
HARMLESS = 0.999  # a threshold that lets this share of the gradients through is left out of the pilot


@dataclass(frozen=True)
class Pilot:
    """A smaller study that stands in for ``study``.

    Attributes:
        study: What is run.
        seconds: Seconds of the predicted study for one second of the pilot.
        updates: Updates of the predicted study for one of the pilot.
    """

    study: Study
    seconds: float
    updates: float


def pilot_workers(workers: int) -> int:
    """Workers of the pilot: an eighth, but four at least."""
    return min(workers, max(FEWEST, round(workers / 8)))


def make_pilot(study: Study, timing: Arrivals, few: int | None = None) -> Pilot:
    """The pilot of a network study: same learning rate x workers, same noise temperature.

    A synchronous step averages N gradients of B samples: one worker with a batch of N B is the same in law, and a
    step takes what the longest of N delays takes on average. An asynchronous pilot of a replayed trace replays every
    N/few-th worker by speed. Where a threshold really drops gradients, which ones depends on the number of workers:
    then nothing smaller than the study itself stands in for it; nor for other policies, unlike workers or a link.
    """
    workers, batch = study.active_workers, study.batch_size
    if study.policy == "sync" and _scales(study):
        alone = study.with_schedule(active_workers=1, batch_size=batch * workers).with_delay(Constant(1.0))
        return Pilot(alone, seconds=1.0 / timing.rate, updates=1.0)
    few = few or pilot_workers(workers)
    if few >= workers or timing.acceptance < HARMLESS or not _scales(study):
        return Pilot(study, seconds=1.0, updates=1.0)
    ratio = workers / few
    shorter = (1.0 - 0.5 / workers) / (1.0 - 0.5 / few)
    renewed = 1.0 - study.schedule.momentum  # of the velocity, with every update
    fewer = min(renewed * ratio * shorter, 1.0)
    smaller = study.with_schedule(
        active_workers=few,
        learning_rate=study.learning_rate * ratio * shorter * fewer / renewed,
        momentum=1.0 - fewer,
        nesterov=study.schedule.nesterov and fewer < 1.0,
        batch_size=max(1, round(batch * ratio * shorter)),
        max_staleness=None,
    ).with_delay(_every_nth(study.delay(), workers, few))
    cycle = shorter * workers / timing.rate
    return Pilot(smaller, seconds=cycle * arrivals(smaller).rate / few, updates=ratio * shorter)


def fewest_workers(study: Study, timing: Arrivals) -> int:
    """The smallest pilot that stands in for an asynchronous study: `pilot_workers`, doubled while it must not.

    It may if its own limit in learning rate x workers is 90 % of the study's or more, or if the learning rate stays
    below half of that limit at the curvature of the start.
    """
    workers, few = study.active_workers, pilot_workers(study.active_workers)
    if not _scales(study):
        return workers
    while few < workers:
        smaller = make_pilot(study, timing, few).study
        own = _drift(smaller, learning_rate_limit(smaller, arrivals(smaller)).mean_square)
        if own >= 0.9 * _drift(study, learning_rate_limit(study, timing).mean_square):
            break
        if _drift(study, study.learning_rate) <= 0.5 * own:
            break
        few = min(2 * few, workers)
    return few


def _drift(study: Study, learning_rate: float) -> float:
    """U: what a mean cycle moves the parameters by at that learning rate, over their gradient."""
    return learning_rate * study.active_workers / (1.0 - study.schedule.momentum)


def _scales(study: Study) -> bool:
    """Whether a smaller fleet is known to behave like this one."""
    schedule, rules = study.schedule, study.rules()
    plain = rules in (rules_of("sync", study.active_workers), Rules(max_staleness=rules.max_staleness))
    alike = study.workers().law is not None and study.cluster.service_law().mean == 0
    return plain and alike and _first_order(schedule)


def _first_order(schedule: Schedule) -> bool:
    """Whether a step is SGD's along a plain gradient: what else it may be does not scale with the workers."""
    plain = schedule.optimizer == "SGD" and not schedule.optimizer_options and schedule.compression == "none"
    return (
        plain
        and schedule.learning_rate_schedule == "constant"
        and schedule.local_steps == 1
        and (schedule.delay_compensation == 0)
    )


def _every_nth(delay: AbstractDelay, workers: int, few: int) -> AbstractDelay:
    """The law of a smaller fleet: of a replayed trace, the workers at ``few`` even places in the order of speed."""
    if isinstance(delay, Sum):
        return Sum(tuple(_every_nth(part, workers, few) for part in delay.parts))
    if isinstance(delay, Mixture | Regimes):
        return replace(delay, laws=tuple(_every_nth(law, workers, few) for law in delay.laws))
    if not isinstance(delay, Replay):
        return delay
    fleet = [delay.sequences[i % len(delay.sequences)] for i in range(workers)]
    fleet.sort(key=lambda durations: float(np.mean(durations)))
    places = ((np.arange(few) + 0.5) * workers / few).astype(int)
    return Replay(tuple(fleet[i] for i in places), f"{delay.source}, {few} of {workers} workers")


def predict_network(
    study: Study, *, network: "Network | None" = None, seeds: int = SEEDS, seed: int = 0,
    most_cycles: float = 2000.0, progress: Progress | None = None,
) -> Trajectory:  # fmt: skip
    """Predict a network study from its pilot; see `stalewise.prediction.predict`.

    A small fleet is nearer to its own limit of stability than a large one. A pilot that diverges or stalls is
    therefore run again with twice the workers, up to the study's own number.
    """
    if network is None:
        network, study = open_network(study)
    timing = arrivals(study, seed=seed)
    few = 1 if study.policy == "sync" and _scales(study) else fewest_workers(study, timing)
    failed, spent = [], 0.0
    while True:
        pilot = make_pilot(study, timing, few)
        run = simulate_network(
            pilot.study, network, seeds=seeds, seed=seed, most_cycles=most_cycles, progress=progress,
            horizon=study.target.time_limit and study.target.time_limit / pilot.seconds,
        )  # fmt: skip
        spent += run.gradients.computed * pilot.study.batch_size
        size = pilot.study.active_workers
        if study.policy == "sync" or size >= study.active_workers or not _failed(run):
            break
        failed.append(size)
        few = min(2 * size, study.active_workers)
    time = [t * pilot.seconds for t in run.time]
    updates = [k * pilot.updates for k in run.updates]
    reached = TargetTime(**{k: v and v * pilot.seconds for k, v in run.time_to_target.model_dump().items()})
    applied = updates[-1] * timing.gradients_a_step
    dropped = applied * (1.0 / timing.acceptance - 1.0)
    notes = [_cost(study, pilot, spent, applied, seeds), f"staleness: {timing.staleness.method}"]
    if failed:
        sizes = ", ".join(map(str, failed))
        notes.append(f"pilots of {sizes} workers diverged or stalled, being nearer to their own limit; this one did not"
                     if not _failed(run) else f"pilots of {sizes} workers diverged or stalled as well")  # fmt: skip
    return Trajectory(
        engine="predict",
        study=study.as_dict(),
        seed=seed,
        time=time,
        updates=updates,
        loss=run.loss,
        loss_low=run.loss_low,
        loss_high=run.loss_high,
        update_rate=timing.rate,
        staleness=StalenessSummary.from_counts(timing.observed.pmf),
        delay=DelaySummary(mean=timing.delay_mean, cv=timing.delay_cv),
        gradients=Gradients(
            computed=applied + dropped + study.active_workers,
            applied=applied,
            dropped=dropped,
            in_flight=study.active_workers,
        ),
        mean_square_stable=run.mean_square_stable,
        time_to_target=reached,
        status=_status(study, run, reached, time[-1]),
        notes=notes,
    )


def _failed(run: Trajectory) -> bool:
    """Whether a pilot diverged, or ended above the target without its loss still falling by 2 % a quarter."""
    if run.diverges or run.time_to_target.mean is not None:
        return run.diverges
    quarter = max(len(run.loss) // 4, 1)
    return bool(np.mean(run.loss[-quarter:]) > 0.98 * np.mean(run.loss[-2 * quarter : -quarter] or run.loss))


def _status(study: Study, run: Trajectory, reached: TargetTime, end: float) -> str:
    if run.diverges:
        return f"diverges: the pilot's loss grew without bound at learning rate {study.learning_rate:g}"
    if reached.mean is not None:
        return f"reaches loss {study.target.loss:g} after {reached.mean:.4g} s and stays below"
    return f"has not settled below {study.target.loss:g} within {end:.4g} s; the loss is {run.loss[-1]:.4g} there"


def _cost(study: Study, pilot: Pilot, spent: float, applied: float, seeds: int) -> str:
    if pilot.study is study and study.policy == "async" and study.active_workers > FEWEST:
        return (
            f"no smaller fleet stands in for this one: the prediction is the study itself in virtual time; {seeds} "
            f"seeds cost {spent:.0f} samples"
        )
    schedule = pilot.study.schedule
    return (
        f"pilot in virtual time: {pilot.study.active_workers} worker(s), learning rate {schedule.learning_rate:.4g}, "
        f"batch {pilot.study.batch_size}; {seeds} seeds cost {spent:.0f} samples (one run of what it predicts: "
        f"{applied * study.batch_size:.0f})"
    )
