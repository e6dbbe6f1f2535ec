"""`simulate`: a study in virtual time, run until the mean loss has settled, diverged, stalled or run out of time."""

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from stalewise import checks
from stalewise.protocol import Tally
from stalewise.simulation.network import SPACING, NetworkRun, advance
from stalewise.simulation.quadratic import Ensemble, run_ensemble
from stalewise.study import Study
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory, settling_time
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

Progress = Callable[[float, str], None]
POINTS = 800
BUDGET = 4e8  # mode updates a quadratic study may cost, summed over seeds; about 10 s on one core
STALL_CYCLES = 80  # and not before, when the best loss no longer falls
MOST_CYCLES = 2000  # a network study stops here


def simulate(
    study: Study,
    *,
    seeds: int | None = None,
    seed: int = 0,
    horizon: float | None = None,
    starts: int = 1,
    progress: Progress | None = None,
) -> Trajectory:
    """Run a study in virtual time: the same server as a real run, delays from their law, no cluster needed.

    Args:
        study: What to run; its schedule needs a policy and a learning rate.
        seeds: Independent repetitions; 64 for a quadratic, 16 for a network unless given.
        seed: Root of all random numbers.
        horizon: Run exactly this long [s]; otherwise until the mean loss has settled below the target (then 40 % on),
            diverged, or stalled above it.
        starts: First parameters of a network that repetitions take in turn, those of ``seed``, ``seed`` + 1, ...;
            with 1 all begin alike, and intervals are over delays and batches alone.
        progress: Called with the fraction done and a message.

    Returns:
        Trajectory with engine "simulate": ``loss`` is the mean over seeds, ``loss_low`` and ``loss_high`` its 95 %
        interval, ``time_to_target`` the settling time of the mean with a bootstrap 95 % interval.
    """
    checks.at_least("seed", seed, 0)
    checks.at_least("starts", starts, 1)
    if horizon is not None:
        checks.positive("horizon", horizon, "seconds")
    if study.workload.is_quadratic:
        return _simulate_quadratic(study, checks.at_least("seeds", seeds or 64, 1), seed, horizon, progress)
    network, study = open_network(study)
    seeds = checks.at_least("seeds", seeds or 16, 1)
    return simulate_network(study, network, seeds=seeds, seed=seed, horizon=horizon, starts=starts, progress=progress)


def _simulate_quadratic(
    study: Study, seeds: int, seed: int, horizon: float | None, progress: Progress | None
) -> Trajectory:
    modes, descent = study.workload.modes(), study.descent()
    eigenvalues = modes.eigenvalues
    workers = study.workers()
    pull = max(study.pull(eigenvalues)[0].min(), 1e-3 * eigenvalues.min())
    pull = (pull + descent.weight_decay) / (1.0 - descent.momentum)
    damping = descent.learning_rate * pull * workers.rate / study.rules().group
    per_second = seeds * len(eigenvalues) * workers.rate
    longest = min(study.target.time_limit or math.inf, BUDGET / per_second)
    length = horizon or min(max(32 * workers.mean_cycle, 2.0 / damping), longest)
    while True:
        if progress:
            progress(min(length / longest, 1.0), f"{seeds} seeds to {length:.4g} s of virtual time")
        run = run_ensemble(study, np.linspace(0.0, length, POINTS), seeds=seeds, seed=seed)
        mean = run.loss.mean(axis=0)
        settled = settling_time(run.time, mean, study.target.loss)
        trend = _trend(run.loss) if not run.blew_up and length * damping >= 6 else "unknown"
        stalled = trend == "level" and modes.noisy
        enough = run.blew_up or (settled is not None and settled < 0.7 * length) or (settled is None and stalled)
        if horizon or enough or length >= longest:
            break
        length = min(2 * length, longest)
    if progress:
        progress(1.0, "done")
    floor = float(mean[POINTS // 2 :].mean()) if stalled else None
    limited = length >= longest and not horizon
    return _trajectory(study, run, seed, floor=floor, stalled=stalled, growing=trend == "rises", limited=limited)


def _trend(loss: np.ndarray) -> Literal["falls", "level", "rises", "unknown"]:
    """How the last quarter compares with the one before, over seeds; three standard errors are a change.

    It falls if the mean does, by 1 % or more; it rises if the mean does or the mean of its logarithm does (when it
    diverges, few seeds carry the mean), by 20 % or more. A loss that is level is called something else in at most
    0.4 % of runs. Unknown if few seeds carry a level mean.
    """
    points = loss.shape[1]
    earlier = np.maximum(loss[:, points // 2 : 3 * points // 4].mean(axis=1), 1e-300)
    later = np.maximum(loss[:, 3 * points // 4 :].mean(axis=1), 1e-300)
    change, error = _with_error((later - earlier) / earlier.mean())
    growth, growth_error = _with_error(np.log(later / earlier))
    if change > max(3.0 * error, 0.2) or growth > max(3.0 * growth_error, 0.2):
        return "rises"
    if change < -max(3.0 * error, 0.01):
        return "falls"
    level, level_error = _with_error(later)
    return "level" if level_error < 0.2 * level or len(loss) == 1 else "unknown"


def _with_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over seeds and its standard error; of a single seed a tenth is taken as the error of a ratio."""
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.1


def simulate_network(
    study: Study,
    network: "Network",
    *,
    seeds: int = 4,
    seed: int = 0,
    horizon: float | None = None,
    most_cycles: float = MOST_CYCLES,
    starts: int = 1,
    spacing: float = SPACING,
    progress: Progress | None = None,
) -> Trajectory:
    """`simulate` for a network that is loaded already; losses are told after each ``spacing`` of the time passed."""
    cycle = study.workers().mean_cycle
    longest = horizon or min(study.target.time_limit or math.inf, most_cycles * cycle)
    first = [network.start(seed + i) for i in range(min(starts, seeds))]
    runs = [NetworkRun(study, network, seed + i, first[i % starts], spacing=spacing) for i in range(seeds)]
    reach = min(horizon or 16 * cycle, longest)
    while True:
        advance(runs, reach)
        points = min(len(run.time) for run in runs)
        loss = np.array([run.loss[:points] for run in runs])
        time = np.array(runs[0].time[:points])
        settled = settling_time(time, loss.mean(axis=0), study.target.loss)
        blew_up = any(run.blew_up for run in runs)
        if progress:
            progress(min(reach / longest, 1.0), f"{time[-1] / cycle:.0f} cycles, loss {loss.mean(axis=0)[-1]:.4g}")
        stalled = not horizon and time[-1] >= STALL_CYCLES * cycle and _no_progress(time, loss.mean(axis=0))
        done = settled is not None and time[-1] >= 1.4 * settled + 5 * cycle
        if blew_up or stalled or done or time[-1] >= longest:
            break
        reach = min(reach + 8 * cycle, longest)
    if progress:
        progress(1.0, "done")
    tally = sum_tallies([run.server.tally for run in runs])
    counted = sum((run.counts for run in runs), Counter())
    moments = np.sum([run.age_moments for run in runs], axis=0)
    counts = np.zeros(max(counted, default=0) + 1)
    counts[list(counted)] = list(counted.values())
    ensemble = Ensemble(
        time=time,
        loss=loss,
        updates=np.array([run.updates[:points] for run in runs], float),
        counts=counts,
        largest=len(counts) - 1,
        tally=tally,
        ages=float(moments[1]),
        ages_squared=float(moments[2]),
    )
    limited = settled is None and not horizon
    return _trajectory(study, ensemble, seed, floor=None, stalled=stalled and not blew_up, limited=limited)


def _no_progress(time: np.ndarray, loss: np.ndarray) -> bool:
    """Whether the best loss of the second half is no better than that of the first."""
    late = time > 0.5 * time[-1]
    return bool(loss[late].min() >= 0.999 * loss[~late].min())


def sum_tallies(tallies: list[Tally]) -> Tally:
    """Add tallies up, field by field."""
    return Tally(**{name: sum(getattr(t, name) for t in tallies) for name in Tally.__dataclass_fields__})


def _trajectory(
    study: Study, run: Ensemble, seed: int, *, floor: float | None, stalled: bool, limited: bool, growing: bool = False
) -> Trajectory:
    seeds = len(run.loss)
    keep = np.isfinite(run.loss).all(axis=0)
    loss, time = run.loss[:, keep], run.time[keep]
    mean = loss.mean(axis=0)
    error = 1.96 * loss.std(axis=0, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.zeros_like(mean)
    reached = TargetTime() if run.blew_up or growing else _bootstrap(time, loss, study.target.loss, seed)
    counts = run.counts.copy()
    staleness = StalenessSummary.from_counts(counts)
    if staleness.max is not None and staleness.max < run.largest:
        staleness = staleness.model_copy(update={"max": run.largest})
    span = time[-1] - time[0]
    updates = run.updates[:, keep].mean(axis=0)
    return Trajectory(
        engine="simulate",
        study=study.as_dict(),
        seed=seed,
        time=time.tolist(),
        updates=updates.tolist(),
        loss=mean.tolist(),
        loss_low=np.where(mean > 0.0, np.maximum(mean - error, 0.0), mean - error).tolist(),
        loss_high=(mean + error).tolist(),
        update_rate=float(updates[-1] / span) if span > 0 else None,
        staleness=staleness,
        delay=DelaySummary.from_moments(run.tally.applied, run.ages, run.ages_squared),
        gradients=Gradients.from_tally(run.tally),
        mean_square_stable=False if run.blew_up or growing else None,
        noise_floor=floor,
        time_to_target=reached,
        status=_status(study, run, reached, stalled=stalled, limited=limited, growing=growing, mean=mean),
        notes=[f"mean of {seeds} seed{'s' if seeds > 1 else ''}; gradients are counted over all of them"],
    )


def _bootstrap(time: np.ndarray, loss: np.ndarray, target: float, seed: int) -> TargetTime:
    """Settling time of the mean over seeds, and its 95 % interval from 200 resamples of the seeds."""
    settled = settling_time(time, loss.mean(axis=0), target)
    if settled is None or len(loss) < 4:
        return TargetTime(mean=settled)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(loss), np.full(len(loss), 1.0 / len(loss)), size=200) / len(loss)
    times = [settling_time(time, curve, target) for curve in weights @ loss]
    kept = np.array([math.inf if t is None else t for t in times])
    low, high = np.quantile(kept, [0.025, 0.975], method="nearest")
    return TargetTime(mean=settled, low=float(low), high=float(high) if math.isfinite(high) else None)


def _status(
    study: Study, run: Ensemble, reached: TargetTime, *, stalled: bool, limited: bool, growing: bool, mean: np.ndarray
) -> str:
    if run.blew_up:
        grown = int((~np.isfinite(run.loss[:, -1])).sum())
        first = run.time[np.argmax(~np.isfinite(run.loss).all(axis=0))]
        return f"diverges: the loss of {grown} of {len(run.loss)} seeds grew without bound, the first by {first:.4g} s"
    if growing:
        return f"diverges: the mean loss is {mean[-1]:.4g} after {run.time[-1]:.4g} s and still grows"
    if reached.mean is not None:
        return f"reaches loss {study.target.loss:g} after {reached.mean:.4g} s and stays below"
    if stalled:
        level = mean[-len(mean) // 4 :].mean()
        held = "gradient noise holds" if study.workload.is_quadratic else "training stalls, with"
        return f"never settles below {study.target.loss:g}: {held} the mean loss at {level:.4g}"
    limited = limited and run.time[-1] >= (study.target.time_limit or math.inf)
    ended = "the time limit" if limited else "the end of the run"
    end, last = run.time[-1], mean[-1]
    return f"has not settled below {study.target.loss:g} by {ended}, {end:.4g} s; the loss is {last:.4g} there"
