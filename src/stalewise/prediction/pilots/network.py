"""`predict` for a network: pilots run side by side in virtual time until what they say has settled."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from stalewise.prediction.pilots.design import Pilot, pilots_of
from stalewise.prediction.pilots.runs import Forecast, Pilots
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study
from stalewise.trajectory import DelaySummary, Gradients, StalenessSummary, TargetTime, Trajectory, settling_time
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

Progress = Callable[[float, str], None]
BUDGET = 0.2  # samples of the pilots over those of the run they predict, to begin with
RICHER = 2.5  # times the budget, where pilots diverge
SEEDS = 8
FIRST, ROUND = 16, 8  # cycles before the first look, and between looks
MOST_CYCLES = 2000.0  # after which it ends


def predict_network(
    study: Study, *, network: "Network | None" = None, seeds: int = SEEDS, seed: int = 0, budget: float | None = None,
    starts: int = 1, progress: Progress | None = None,
) -> Trajectory:  # fmt: skip
    """Predict a network study from pilots; see `stalewise.prediction.predict`.

    Args:
        study: What to predict.
        network: What it trains, if it is loaded already.
        seeds: Of every pilot.
        seed: The first.
        budget: Samples of the pilots over those of the run they predict, seed for seed (`pilots_of`). Pilots that
            diverge are run again with 2.5 times as much, up to 1, which is the study itself in virtual time. Unless
            given it is a fifth, and 1 where noise decides: where the colder pilot's own time to the target is above
            1.5 times the predicted one, the hotter one diverges, or the predicted loss stops falling above the target.
        starts: First parameters that the seeds take in turn.
        progress: Called with the fraction done and a message.
    """
    if network is None:
        network, study = open_network(study)
    timing = arrivals(study, seed=seed)
    spent, failed, noisy = 0, [], []
    given, budget = budget is not None, budget or BUDGET
    itself = pilots_of(study, timing, 1.0)
    while True:
        chosen = pilots_of(study, timing, budget, any_batch=network.any_batch)
        pilots = Pilots(chosen, network, seeds, seed, study.workers().mean_cycle, starts=starts)
        _run(pilots, study, progress)
        spent += pilots.samples
        if chosen == itself:
            break
        if pilots.diverged[0]:
            failed.append(chosen[0])
            budget = min(RICHER * budget, 1.0)
        elif not given and pilots.noise_decides(study.target.loss):
            noisy.append(chosen[0])
            budget = 1.0
        else:
            break
    if progress:
        progress(1.0, "done")
    answer = _trajectory(study, timing, pilots, spent, seeds, seed)
    for pilot, what in ((failed, "diverged"), (noisy, "showed little but noise")):
        answer = answer.with_note(_left_out(pilot, what))
    return answer


def _run(pilots: Pilots, study: Study, progress: Progress | None) -> None:
    """Until the predicted loss has settled, no longer falls, or time is up."""
    cycle = study.workers().mean_cycle
    longest = min(study.target.time_limit or math.inf, MOST_CYCLES * cycle)
    reach = min(FIRST * cycle, longest)
    while True:
        pilots.advance(reach)
        said = pilots.forecast()
        time, loss = said.time, said.loss
        settled = settling_time(time, loss, study.target.loss)
        if progress:
            progress(min(reach / longest, 1.0), f"{time[-1] / cycle:.0f} cycles, loss {loss[-1]:.4g}")
        done = settled is not None and time[-1] >= 1.4 * settled + 5 * cycle
        if pilots.diverged[0] or done or pilots.stalled() or reach >= longest:
            return
        reach = min(reach + ROUND * cycle, longest)


def _trajectory(study: Study, timing: Arrivals, pilots: Pilots, spent: int, seeds: int, seed: int) -> Trajectory:
    said = pilots.forecast()
    target, diverges = study.target.loss, pilots.diverged[0]
    ends = [settling_time(said.time, loss, target) for loss in (said.loss, said.low, said.high)]
    reached = TargetTime() if diverges else TargetTime(mean=ends[0], low=ends[1], high=ends[2])
    applied = float(said.updates[-1]) * timing.gradients_a_step
    gradients = Gradients.expected(applied, timing.acceptance, study.active_workers)
    notes = [_cost(study, pilots, spent, timing.acceptance, seeds), f"staleness: {timing.staleness.method}"]
    notes += _warnings(pilots, said, target)
    return Trajectory(
        engine="predict",
        study=study.as_dict(),
        seed=seed,
        time=said.time.tolist(),
        updates=said.updates.tolist(),
        loss=said.loss.tolist(),
        loss_low=said.low.tolist(),
        loss_high=said.high.tolist(),
        update_rate=timing.rate,
        staleness=StalenessSummary.from_counts(timing.observed.pmf),
        delay=DelaySummary(mean=timing.delay_mean, cv=timing.delay_cv),
        gradients=gradients,
        mean_square_stable=False if diverges else None,
        time_to_target=reached,
        status=_status(study, said, reached, diverges=diverges),
        notes=notes,
    )


def _warnings(pilots: Pilots, said: Forecast, target: float) -> list[str]:
    """Where the prediction stands on little."""
    if not pilots.noise_decides(target):
        return []
    if pilots.diverged[1]:
        return ["the hotter pilot diverged: this is the colder one's loss, which noise makes late"]
    if settling_time(said.time, said.loss, target) is None:
        return ["the predicted loss no longer falls, which may be the pilots' noise alone; a larger budget says more"]
    own = settling_time(said.time, said.cold, target)
    needs = f"more than {said.time[-1]:.4g}" if own is None else f"{own:.4g}"
    return [
        f"the colder pilot itself needs {needs} s: noise decides, the prediction is drawn from far away; a larger "
        "budget says more"
    ]


def _left_out(pilots: list[Pilot], what: str) -> str | None:
    if not pilots:
        return None
    which = ", ".join(f"{one.study.active_workers} workers at {one.temperature:.3g}" for one in pilots)
    return f"pilots of {which} times the noise temperature {what} and do not stand for the run"


def _status(study: Study, said: Forecast, reached: TargetTime, *, diverges: bool) -> str:
    if diverges:
        return f"diverges: the loss grew without bound at learning rate {study.learning_rate:g}"
    if reached.mean is not None:
        return f"reaches loss {study.target.loss:g} after {reached.mean:.4g} s and stays below"
    end = said.time[-1]
    return f"has not settled below {study.target.loss:g} within {end:.4g} s; the loss is {said.loss[-1]:.4g} there"


def _cost(study: Study, pilots: Pilots, spent: int, acceptance: float, seeds: int) -> str:
    first = pilots.pilots[0].study
    if len(pilots.pilots) == 1:
        what = "the study itself in virtual time" if first is study else "the same steps on one worker"
        return f"no cheaper pilot stands in for this run: it is {what}; {seeds} seeds cost {spent:.0f} samples"
    batches = " and ".join(str(one.study.batch_size) for one in pilots.pilots)
    heat = " and ".join(f"{one.temperature:.3g}" for one in pilots.pilots)
    share = spent / pilots.whole
    if first.active_workers == 1 < study.active_workers:  # stands for steps, not for what they leave out
        share *= acceptance
    return (
        f"pilots in virtual time: {first.active_workers} worker(s), learning rate {first.learning_rate:.4g}, batches "
        f"of {batches} ({heat} times the noise temperature); {seeds} seeds cost {spent:.0f} samples, "
        f"{100 * share:.0f} % of as many such runs"
    )
