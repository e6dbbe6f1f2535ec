"""Search for a network's schedule, by pilots with few workers.

What a pilot shows depends on workers through u = learning rate x workers and the noise temperature alone, so the
search is over u; at a given u more workers only lower the temperature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from stalewise.planning.search import (
    Candidate,
    Found,
    guard,
    guard_sentence,
    rank,
    synchronous_sentence,
)
from stalewise.prediction import predict_network, stiffest
from stalewise.staleness import arrivals
from stalewise.study import Study
from stalewise.trajectory import Trajectory
from stalewise.workloads import AbstractNetwork, load_network

SEEDS = 4
FIRST_CYCLES = 400.0


@dataclass(frozen=True)
class _Trial:
    study: Study
    trajectory: Trajectory

    @property
    def time(self) -> float:
        """Upper end of the settling time's interval over seeds: a lucky seed does not win the search [s]."""
        reached = self.trajectory.time_to_target
        if reached.mean is None:
            return math.inf
        return reached.high if reached.high is not None else math.inf

    def candidate(self, note: str) -> Candidate:
        mean = self.trajectory.time_to_target.mean
        return Candidate(self.study, math.inf if mean is None else mean, note)


class _Pilots:
    """Runs pilots, keeps them, and counts what they cost."""

    def __init__(self, network: AbstractNetwork, seed: int, say: Callable[[float, str], None]) -> None:
        self._network, self._seed, self._say = network, seed, say
        self.trials: list[_Trial] = []

    def run(self, study: Study) -> _Trial:
        rate, best = study.learning_rate, min((t.time for t in self.trials), default=math.inf)
        self._say(min(len(self.trials) / 14, 0.95), f"pilot: {study.policy}, learning rate {rate:.4g}")
        cycle = study.cluster.delay().mean
        most = FIRST_CYCLES if not math.isfinite(best) else min(max(3.0 * best / cycle, 40.0), 2000.0)
        trial = _Trial(
            study, predict_network(study, network=self._network, seeds=SEEDS, seed=self._seed, most_cycles=most)
        )
        self.trials.append(trial)
        return trial

    def climb(self, at: Callable[[float], Study], first: float) -> _Trial:
        """Double the knob until it stops helping (halve it if the first step hurts), then refine by square roots."""
        here = self.run(at(first))
        best, knob, factor = here, first, 2.0
        for _ in range(6):
            trial = self.run(at(knob * factor))
            if trial.time < best.time:
                best, knob = trial, knob * factor
            elif (best is here and factor > 1 and not math.isfinite(best.time)) or (best is here and factor > 1):
                factor = 0.5
            else:
                break
        for refined in (knob * math.sqrt(0.5), knob * math.sqrt(2.0)):
            trial = self.run(at(refined))
            best = min(best, trial, key=lambda t: t.time)
        return best


def search_network(study: Study, seed: int, say: Callable[[float, str], None]) -> Found:
    """Search u with all active workers, then the synchronous learning rate; say what half the workers would do."""
    network = load_network(study.workload.kind)
    held, workers = study.schedule, study.active_workers
    curvature, _ = stiffest(study)
    pilots = _Pilots(network, seed, say)
    picks: dict[str, _Trial] = {}
    for policy in ["sync"] if held.policy == "sync" else ["async", "sync"]:
        gradients = workers if policy == "sync" else 1
        changes = {"policy": policy, "active_workers": workers}
        if policy == "sync":
            changes["max_staleness"] = None
        base = study.with_schedule(**changes)
        if held.learning_rate:
            picks[policy] = pilots.run(base)
            continue
        picks[policy] = pilots.climb(
            lambda knob, base=base, gradients=gradients: base.with_schedule(
                learning_rate=float(f"{knob * gradients / workers:.3g}")
            ),
            first=1.0 / curvature,
        )
    asynchronous = picks["async"].time if "async" in picks else math.inf
    synchronous = picks["sync"].time
    stay = held.policy == "sync" or synchronous <= asynchronous
    pick = picks["sync"] if "async" not in picks or (stay and held.policy is None) else picks["async"]
    searched = list(pilots.trials)
    reasons = [_headline(pick), _rate_sentence(pick, workers, held.learning_rate is not None)]
    chosen = pick.study
    if chosen.policy == "async":
        if workers > 1 and not held.active_workers:
            reasons.append(_half(pick, pilots))
        if held.max_staleness is None and workers > 1:
            bound = guard(arrivals(chosen, seed=seed), workers)
            chosen = chosen.with_schedule(max_staleness=bound)
            reasons.append(guard_sentence(bound, workers))
    if "async" in picks:
        reasons.append(synchronous_sentence(*(_mean(picks[p]) for p in ("async", "sync"))))
    cost = sum(t.trajectory.gradients.computed for t in pilots.trials)
    reasons.append(
        f"The search ran {len(pilots.trials)} pilots of {SEEDS} repetitions in virtual time, which stand for "
        f"{cost:.0f} gradients of the schedules they predict."
    )
    others = [t.candidate(_note(t, workers)) for t in [*searched, *pilots.trials[len(searched) :]] if t is not pick]
    return Found(chosen, rank(others), reasons, stay)


def _mean(trial: _Trial) -> float:
    mean = trial.trajectory.time_to_target.mean
    return math.inf if mean is None else mean


def _note(trial: _Trial, workers: int) -> str:
    few = trial.study.active_workers < workers
    text = "the same learning rate x workers with half of them" if few else "pilot"
    if trial.trajectory.diverges:
        return f"{text}: diverges"
    high = trial.trajectory.time_to_target.high
    return f"{text}: at most {high:.4g} s over seeds" if high is not None else f"{text}: not settled in every seed"


def _headline(pick: _Trial) -> str:
    study, mean = pick.study, pick.trajectory.time_to_target.mean
    if mean is None:
        return f"No schedule tried settles below {study.target.loss:g}; the closest: {pick.trajectory.status}."
    return f"{study.policy} with {study.active_workers} workers reaches {study.target.loss:g} in about {mean:.4g} s."


def _rate_sentence(pick: _Trial, workers: int, fixed: bool) -> str:
    rate = pick.study.learning_rate
    if fixed:
        return f"The learning rate {rate:.4g} is held as given."
    if pick.study.policy == "sync":
        return f"The learning rate {rate:.4g} was the best of those tried, judged by the slowest seeds."
    return (
        f"The learning rate {rate:.4g} makes learning rate x workers = {rate * workers:.3g}, the best of those tried, "
        "judged by the slowest seeds; with another number of workers keep that product."
    )


def _half(pick: _Trial, pilots: _Pilots) -> str:
    workers = pick.study.active_workers
    half = max(workers // 2, 1)
    rate = float(f"{pick.study.learning_rate * workers / half:.3g}")
    trial = pilots.run(pick.study.with_schedule(active_workers=half, learning_rate=rate))
    mean, best = trial.trajectory.time_to_target.mean, pick.trajectory.time_to_target.mean
    if mean is None or best is None:
        return f"Half the workers at the same product would not settle: {workers} workers average the noise down."
    change = 100 * (mean / best - 1)
    return (
        f"Half the workers ({half}) at the same product would take {mean:.4g} s ({change:+.0f} %): at a fixed product "
        "more workers buy less gradient noise, not a faster clock."
    )
