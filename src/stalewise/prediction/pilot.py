r"""Networks predicted from a cheap pilot: few workers stand in for many.

With time in mean cycles, asynchronous SGD on any loss is to first order
:math:`dx = -u\,\nabla F(x(t - D))\,dt + \sqrt{u\,\eta\,\Sigma/B}\,dW` with :math:`u = \eta N`: workers enter through
u and through the noise temperature :math:`\eta/B` alone. So N workers at (eta, B) behave like N' workers at
(eta N/N', B N/N'), cycle for cycle, at N/N' times fewer (and larger) gradients. It fails where N' is near its own
stability limit while N is not: limits in u grow with N, most of all for widely spread delays.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stalewise.simulation import simulate_network
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory
from stalewise.workloads import AbstractNetwork, load_network

Progress = Callable[[float, str], None]
FEWEST = 4
SEEDS = 4


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


def make_pilot(study: Study, timing: Arrivals) -> Pilot:
    """The pilot of a network study: same learning rate x workers, same noise temperature.

    A synchronous step averages N gradients of B samples: one worker with a batch of N B is the same in law.
    """
    workers, batch = study.active_workers, study.batch_size
    if study.policy == "sync":
        alone = study.with_schedule(active_workers=1, batch_size=batch * workers)
        return Pilot(alone, seconds=1.0 / timing.rate / alone.cluster.delay().mean, updates=1.0)
    few = pilot_workers(workers)
    ratio = workers / few
    shorter = (1.0 - 0.5 / workers) / (1.0 - 0.5 / few)
    smaller = study.with_schedule(
        active_workers=few,
        learning_rate=study.learning_rate * ratio * shorter,
        batch_size=max(1, round(batch * ratio * shorter)),
        max_staleness=None,
    )
    cycle = shorter * workers / timing.rate
    return Pilot(smaller, seconds=cycle * arrivals(smaller).rate / few, updates=ratio * shorter)


def predict_network(
    study: Study, *, network: AbstractNetwork | None = None, seeds: int = SEEDS, seed: int = 0,
    most_cycles: float = 2000.0, progress: Progress | None = None,
) -> Trajectory:  # fmt: skip
    """Predict a network study from its pilot; see `stalewise.prediction.predict`."""
    network = network or load_network(study.workload.kind)
    timing = arrivals(study, seed=seed)
    pilot = make_pilot(study, timing)
    run = simulate_network(
        pilot.study, network, seeds=seeds, seed=seed, most_cycles=most_cycles, progress=progress,
        horizon=study.target.time_limit and study.target.time_limit / pilot.seconds,
    )  # fmt: skip
    time = [t * pilot.seconds for t in run.time]
    updates = [k * pilot.updates for k in run.updates]
    reached = TargetTime(**{k: v and v * pilot.seconds for k, v in run.time_to_target.model_dump().items()})
    applied = updates[-1] * timing.gradients_a_step
    dropped = applied * (1.0 / timing.acceptance - 1.0) if timing.acceptance > 0 else 0.0
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
        staleness=StalenessSummary.from_counts(timing.staleness.pmf),
        delay=DelaySummary(mean=timing.delay_mean, cv=timing.delay_cv),
        gradients=Gradients(
            computed=applied + dropped + study.active_workers,
            applied=applied,
            dropped=dropped,
            in_flight=study.active_workers,
        ),
        mean_square_stable=run.mean_square_stable,
        time_to_target=reached,
        status=_status(study, run, reached),
        notes=[_cost(study, pilot, run, applied, seeds), f"staleness: {timing.staleness.method}"],
    )


def _status(study: Study, run: Trajectory, reached: TargetTime) -> str:
    if run.diverges:
        return f"diverges: the pilot's loss grew without bound at learning rate {study.learning_rate:g}"
    if reached.mean is not None:
        return f"reaches loss {study.target.loss:g} after {reached.mean:.4g} s and stays below"
    return f"has not settled below {study.target.loss:g} when the pilot ended; the loss is {run.loss[-1]:.4g} there"


def _cost(study: Study, pilot: Pilot, run: Trajectory, applied: float, seeds: int) -> str:
    schedule = pilot.study.schedule
    return (
        f"pilot in virtual time: {schedule.active_workers} worker(s), learning rate {schedule.learning_rate:.4g}, "
        f"batch {pilot.study.batch_size}; {seeds} seeds cost {run.gradients.computed:.0f} gradients, "
        f"{run.gradients.computed * pilot.study.batch_size:.0f} samples (the run it predicts: {applied:.0f} gradients, "
        f"{applied * study.batch_size:.0f} samples)"
    )
