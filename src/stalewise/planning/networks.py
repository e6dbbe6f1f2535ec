"""Search for a network's schedule, by pilots with few workers.

What a pilot shows depends on workers through u = learning rate x workers and the noise temperature alone, so the
search is over u; at a given u more workers only lower the temperature, so in the end as few are taken as do as well.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stalewise.planning.knobs import under
from stalewise.planning.objectives import Spent, traffic_of
from stalewise.planning.search import (
    Candidate,
    Found,
    guard,
    guard_sentence,
    many,
    policies,
    rank,
    rounded,
    synchronous_sentence,
)
from stalewise.prediction import predict_network, stiffest
from stalewise.staleness import arrivals
from stalewise.study import Study
from stalewise.trajectory import Trajectory
from stalewise.workloads import open_network

if TYPE_CHECKING:
    from stalewise.workloads.network import Network

FEWEST = 4  # workers of a pilot
SEEDS = 4  # of a pilot in the search
FINAL_SEEDS = 16  # of the two best, and of what they are compared with
FINALISTS = 2
FIRST_CYCLES = 400.0
STEADY = 1.05  # fewer workers are preferred as long as they cost no more than this factor


@dataclass(frozen=True)
class _Trial:
    """A study and the pilot that predicts it."""

    study: Study
    trajectory: Trajectory
    size: int

    @property
    def time(self) -> float:
        """Upper end of the settling time's interval over seeds: a lucky seed does not win the search [s]."""
        reached = self.trajectory.time_to_target
        if reached.mean is None:
            return math.inf
        return reached.high if reached.high is not None else math.inf

    def candidate(self, note: str) -> Candidate:
        told = self.trajectory
        time = math.inf if told.time_to_target.mean is None else told.time_to_target.mean
        rate = told.gradients.computed / told.time[-1] if told.time[-1] > 0 else 0.0
        traffic = traffic_of(rate, self.size, time)
        return Candidate(self.study, Spent(time, self.study.active_workers * time, traffic), note)


class _Pilots:
    """Runs pilots, keeps them, and counts what they cost."""

    def __init__(self, network: "Network", seed: int, say: Callable[[float, str], None]) -> None:
        self._network, self._seed, self._say = network, seed, say
        self.trials: list[_Trial] = []
        self.count, self.cost = 0, 0.0

    def run(self, study: Study, seeds: int = SEEDS) -> _Trial:
        """A pilot; of one schedule the one with most seeds is kept."""
        rate, best = study.learning_rate, min((t.time for t in self.trials), default=math.inf)
        self._say(min(self.count / 20, 0.95), f"pilot: {study.policy}, learning rate {rate:.4g}")
        cycle = study.workers().mean_cycle
        most = FIRST_CYCLES if not math.isfinite(best) else min(max(3.0 * best / cycle, 40.0), 2000.0)
        trial = _Trial(
            study,
            predict_network(
                study,
                network=self._network,
                seeds=seeds,
                seed=self._seed,
                budget=1.0,
                most_workers=FEWEST,
                most_cycles=most,
            ),
            self._network.size,
        )
        self.trials = [t for t in self.trials if t.study.schedule != study.schedule] + [trial]
        self.count += 1
        self.cost += trial.trajectory.gradients.computed * seeds
        return trial

    def confirm(self, trials: list[_Trial]) -> _Trial:
        """The best of the finalists among ``trials``, run again with more seeds."""
        finalists = sorted(trials, key=lambda t: t.time)[:FINALISTS]
        return min((self.run(t.study, FINAL_SEEDS) for t in finalists), key=lambda t: t.time)

    def climb(self, at: Callable[[float], Study], first: float) -> _Trial:
        """Double the knob until it stops helping (halve it if the first step hurts), refine, confirm."""
        here = self.run(at(first))
        best, knob, factor = here, first, 2.0
        tried = [here]
        for _ in range(6):
            trial = self.run(at(knob * factor))
            tried.append(trial)
            if trial.time < best.time:
                best, knob = trial, knob * factor
            elif best is here and factor > 1:
                factor = 0.5
            else:
                break
        tried += [self.run(at(knob * share)) for share in (math.sqrt(0.5), math.sqrt(2.0))]
        return self.confirm(tried)


def search_network(study: Study, seed: int, say: Callable[[float, str], None]) -> Found:
    """Search u with all active workers, then the synchronous learning rate, then how few workers would do as well."""
    network, study = open_network(study)
    held, workers = study.schedule, study.active_workers
    curvature, _ = stiffest(study)
    pilots = _Pilots(network, seed, say)
    picks: dict[str, _Trial] = {}
    tried = policies(study)
    own = tried[0]
    for policy in tried:
        base = under(study, policy, workers, group=held.group, max_staleness=held.max_staleness)
        assert base is not None
        gradients = base.rules().group
        if held.learning_rate:
            picks[policy] = pilots.run(base, FINAL_SEEDS)
            continue
        picks[policy] = pilots.climb(
            lambda knob, base=base, gradients=gradients: base.with_schedule(
                learning_rate=rounded(knob * gradients / workers)
            ),
            first=1.0 / curvature,
        )
    stay = own == "sync" or _mean(picks["sync"]) <= _mean(picks[own])
    pick = picks["sync"] if stay and held.policy is None else picks[own]
    fewer = ""
    if pick.study.policy == "async" and not held.active_workers:
        pick, fewer = _fewer(pick, pilots, fixed=held.learning_rate is not None)
    chosen, few = pick.study, pick.study.active_workers
    reasons = [_headline(pick), _rate_sentence(pick, held.learning_rate is not None), *([fewer] if fewer else [])]
    if chosen.policy == "async" and held.max_staleness is None and few > 1:
        bound = guard(arrivals(chosen, seed=seed), few)
        chosen = chosen.with_schedule(max_staleness=bound)
        reasons.append(guard_sentence(bound, few))
    if own != "sync":
        means = [_mean(picks[policy]) for policy in tried]
        reasons.append(synchronous_sentence(*means, tie=_overlap(picks[own], picks["sync"])))
    reasons.append(
        f"The search ran {pilots.count} pilots of {SEEDS} repetitions ({FINAL_SEEDS} for the finalists) in virtual "
        f"time, which stand for {pilots.cost:.0f} gradients of the schedules they predict."
    )
    others = [t.candidate(_note(t)) for t in pilots.trials if t is not pick]
    return Found(chosen, rank(others), reasons, stay)


def _mean(trial: _Trial) -> float:
    mean = trial.trajectory.time_to_target.mean
    return math.inf if mean is None else mean


def _overlap(one: _Trial, other: _Trial) -> bool:
    """Whether the intervals over seeds overlap."""
    low = max(t.trajectory.time_to_target.low or math.inf for t in (one, other))
    return low <= min(one.time, other.time)


def _note(trial: _Trial) -> str:
    if trial.trajectory.diverges:
        return "pilot: diverges"
    return f"pilot: {_over_seeds(trial)}"


def _over_seeds(trial: _Trial) -> str:
    reached = trial.trajectory.time_to_target
    if reached.low is None or reached.high is None:
        return "not settled in every seed"
    return f"{reached.low:.4g} to {reached.high:.4g} s over seeds"


def _headline(pick: _Trial) -> str:
    study, mean = pick.study, pick.trajectory.time_to_target.mean
    if mean is None:
        return f"No schedule tried settles below {study.target.loss:g}; the closest: {pick.trajectory.status}."
    return (
        f"{study.policy} with {many(study.active_workers)} reaches {study.target.loss:g} in about {mean:.4g} s "
        f"({_over_seeds(pick)})."
    )


def _rate_sentence(pick: _Trial, fixed: bool) -> str:
    rate, workers = pick.study.learning_rate, pick.study.active_workers
    if fixed:
        return f"The learning rate {rate:.4g} is held as given."
    if pick.study.policy == "sync":
        return f"The learning rate {rate:.4g} was the best of those tried, judged by the slowest seeds."
    return (
        f"The learning rate {rate:.4g} makes learning rate x workers = {rate * workers:.3g}, the best of those tried, "
        "judged by the slowest seeds; with another number of workers keep that product."
    )


def _fewer(pick: _Trial, pilots: _Pilots, *, fixed: bool) -> tuple[_Trial, str]:
    """The fewest workers, by halves, within `STEADY` of the pick, at the same learning rate x workers unless held."""
    tried = [pick]
    while tried[-1].study.active_workers > 1:
        last = tried[-1].study
        few = last.active_workers // 2
        rate = last.learning_rate if fixed else rounded(last.learning_rate * last.active_workers / few)
        tried.append(pilots.run(last.with_schedule(active_workers=few, learning_rate=rate), FINAL_SEEDS))
        if not tried[-1].time <= STEADY * pick.time:
            break
    if len(tried) == 1:
        return pick, ""
    taken = [trial for trial in tried if trial.time <= STEADY * pick.time][-1]
    left = tried[-1]
    same = "" if fixed else " at the same product"
    if taken is not pick:
        text = (
            f"With {many(pick.study.active_workers)}{same} it would take {_mean(pick):.4g} s ({_over_seeds(pick)}): "
            "not worth the workers, a plan takes the fewest, by halves, whose slowest seeds are within "
            f"{100 * (STEADY - 1):.0f} % of the best."
        )
    else:
        text = f"It takes all {pick.study.active_workers}: fewer leave more gradient noise at the same clock."
    if left is taken:
        return taken, text
    few = many(left.study.active_workers)
    if left.trajectory.diverges:
        return taken, f"{text} With {few}{same} it would diverge."
    if not math.isfinite(_mean(left)):
        return taken, f"{text} With {few}{same} it would not settle."
    return taken, f"{text} With {few}{same} it would take {_mean(left):.4g} s ({_over_seeds(left)})."
