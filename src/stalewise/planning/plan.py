"""`plan`: the schedule for a target, why, what else was possible, and when to stay synchronous."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stalewise import checks
from stalewise.errors import InputError
from stalewise.hands import Hands, identity
from stalewise.planning.networks import search_network
from stalewise.planning.objectives import Goal
from stalewise.planning.quadratics import search_quadratic
from stalewise.planning.search import APART, MARGIN, Found, size_of
from stalewise.planning.trials import Bench
from stalewise.planning.triggers import POLICY as EVENT_TRIGGERED
from stalewise.planning.triggers import are_searched, choose_trigger, hold_trigger
from stalewise.prediction import advise, predict
from stalewise.protocol.rules import GROUPED
from stalewise.simulation import simulate
from stalewise.study import Study
from stalewise.trajectory import Trajectory

CHECKED = 2.0  # times the predicted time, simulated
NETWORK_SEEDS = 8  # of the prediction and the check, each from a start of its own
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Plan:
    """A schedule and the case for it.

    Attributes:
        study: The study under the chosen schedule.
        predicted: What `predict` says of it.
        checked: What `simulate` says of it.
        alternatives: Other schedules tried: {schedule, time_to_target [s], cost, traffic [bytes], note}, best first;
            of quadratics to nine tenths of the target.
        reasons: Why, in sentences.
        stay_synchronous: Whether no schedule tried that applies stale gradients beats the best one that does not.
        baselines: What published rules say: {rule, source, schedule, time_to_target, cost, traffic, note}.
        gradients: What the search cost, of the study's batch size; none of a quadratic.
        front: Schedules that none tried beats in time, cost and traffic at once, like the alternatives.
    """

    study: Study
    predicted: Trajectory
    checked: Trajectory
    alternatives: list[dict[str, Any]]
    reasons: list[str]
    stay_synchronous: bool
    baselines: list[dict[str, Any]]
    front: list[dict[str, Any]]
    gradients: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schedule": self.study.schedule.model_dump(exclude_none=True),
            "predicted": self.predicted.model_dump(),
            "checked": self.checked.model_dump(),
            "alternatives": self.alternatives,
            "reasons": self.reasons,
            "stay_synchronous": self.stay_synchronous,
            "baselines": self.baselines,
            "front": self.front,
            "gradients": self.gradients,
        }


def plan(
    study: Study, *, goal: Goal | None = None, margin: float = MARGIN, seed: int = 0, gradients: float | None = None,
    hands: Hands | None = None, unsure: Mapping[str, float] | None = None, progress: Progress | None = None,
) -> Plan:  # fmt: skip
    """Choose a schedule for a study's target.

    What ``[schedule]`` gives is held; what it leaves out is searched, up to ``cluster.workers``. That is policy,
    active workers, group, batch size where samples cost time, staleness threshold, learning rate and momentum: of
    quadratics by mathematics, of networks by theory, a race of pilots and full runs in virtual time; and where traffic
    matters triggers, in virtual time. The pick is checked by `simulate`.

    Args:
        study: Its schedule may be empty.
        goal: What is to be least, and limits; time unless given.
        margin: Largest share of the mean-square limit that a learning rate may take, above 0, below 1. Quadratics.
        seed: Of pilots and simulations.
        gradients: Of the study's batch size: what a network's search may cost, the prediction and the check of the pick
            not counted; as many as it takes unless given.
        hands: That run a network's pilots, see `stalewise.hands`; this process unless given.
        unsure: Factors by which ``curvature`` (of a quadratic), ``noise`` or ``spread`` (of the delays) may be off,
            over which the plan tells its regret; 1.2, 1.5 and 1.3 unless given, two standard errors for a log's spread.
        progress: Called with the fraction done and a message.

    Returns:
        The plan. If no schedule reaches the target it is still an answer: the closest one, and why.
    """
    checks.at_least("seed", seed, 0)
    held = study.schedule
    if held.policy is None and held.group > 1:
        raise InputError(f"schedule.policy is missing: a group, got {held.group}, belongs to {', '.join(GROUPED)}")
    if held.trigger > 0 and held.policy not in (None, EVENT_TRIGGERED):
        raise InputError(
            f"schedule.trigger belongs to policy {EVENT_TRIGGERED!r}, got {held.trigger:g} under {held.policy!r}"
        )
    say = progress or (lambda _fraction, _message: None)
    goal = goal or Goal()
    if not 0.0 < margin < 1.0:
        raise InputError(f"margin must be above 0 and below 1, got {margin:g}")
    if gradients is not None:
        checks.positive("gradients", gradients)
    inner: Progress = lambda share, message: say(0.9 * share, message)  # noqa: E731

    def searched(free: Study) -> Found:
        if free.workload.is_quadratic:
            return search_quadratic(free, seed, inner, goal, margin, unsure)
        most = gradients or math.inf
        return search_network(
            free, seed, inner, goal, hands or Hands(), budget=most, identity=identity(free), unsure=unsure
        )

    bench = Bench(hands or Hands())
    if not study.workload.is_quadratic:
        bench = Bench(hands or Hands(), identity(study), study.batch_size)
    found = _with_trigger(study, seed, inner, goal, searched, bench, gradients or math.inf)
    say(0.9, "predicting the pick")
    predicted = predict(found.study, seed=seed, starts=NETWORK_SEEDS)
    say(0.95, "checking the pick in virtual time")
    said = predicted.time_to_target.mean
    seeds = None if study.workload.is_quadratic else NETWORK_SEEDS
    horizon = None if said is None else CHECKED * said
    checked = simulate(found.study, seeds=seeds, seed=seed + APART, horizon=horizon, starts=NETWORK_SEEDS)
    if said is not None and checked.time_to_target.mean is None and not checked.diverges:
        checked = simulate(found.study, seeds=seeds, seed=seed + APART, starts=NETWORK_SEEDS)
    say(1.0, "done")
    return Plan(
        study=found.study,
        predicted=predicted,
        checked=checked,
        alternatives=found.alternatives,
        reasons=[
            *found.reasons, *_advice(found.study, predicted, seed),
            _verdict(predicted, checked, simulated=found.study.schedule.trigger > 0),
        ],
        stay_synchronous=found.stay_synchronous,
        baselines=found.baselines,
        front=found.front,
        gradients=found.gradients,
    )  # fmt: skip


def _with_trigger(
    study: Study, seed: int, say: Progress, goal: Goal, searched: Callable[[Study], Found], bench: Bench, budget: float
) -> Found:
    """What is found as if all gradients were sent, and then triggers, or the one that is given, in virtual time."""
    given = study.schedule.trigger > 0
    found = searched(study.with_schedule(policy=EVENT_TRIGGERED, trigger=None) if given else study)
    if not given and not are_searched(study, goal):
        return found
    say(1.0, "triggers")
    size = size_of(study)
    if not study.workload.is_quadratic:
        bench.budget, bench.expected = budget - found.gradients - found.beside, found.time
    if given:
        choice = hold_trigger(study, found.study, goal, size, seed, bench)
    else:
        choice = choose_trigger(study, found.study, found.asynchronous, goal, size, seed, bench)
    stale = choice.study is not found.study and choice.study.active_workers > 1 and not given
    return replace(
        found,
        study=choice.study,
        reasons=[*found.reasons, choice.sentence, *_cost_of(bench, found.gradients)],
        gradients=found.gradients + (bench.spent if found.gradients else 0.0),
        stay_synchronous=found.stay_synchronous and not stale,
    )


def _cost_of(bench: Bench, before: float) -> list[str]:
    """What trials of triggers cost a network."""
    return [f"Trials of triggers cost {bench.spent:.0f} gradients more."] if before else []


def _advice(study: Study, predicted: Trajectory, seed: int) -> list[str]:
    advice = advise(study, predicted, seed=seed)
    return [f"{advice[0].upper()}{advice[1:]}."] if advice else []


def _verdict(predicted: Trajectory, checked: Trajectory, *, simulated: bool) -> str:
    """How the check turned out; ``simulated`` if the prediction is a simulation, as it is under a trigger."""
    said, seen = predicted.time_to_target, checked.time_to_target
    if said.mean is not None and seen.mean is not None:
        seeds = ""
        if seen.low is not None:
            high = "never" if seen.high is None else f"{seen.high:.4g}"
            seeds = f" (95 % interval over seeds {seen.low:.4g} to {high})"
        off = 100 * (said.mean / seen.mean - 1)
        how = "with the seeds of the prediction, which is a simulation" if simulated else "predicted"
        return f"Checked in virtual time: {seen.mean:.4g} s{seeds} against {said.mean:.4g} s {how} ({off:+.1f} %)."
    end = checked.time[-1]
    if said.mean is not None and said.mean > end and not checked.diverges:
        expected = float(np.interp(end, predicted.time, predicted.loss))
        seeds = (
            ""
            if checked.loss_low is None or checked.loss_high is None
            else (f" (95 % interval over seeds {checked.loss_low[-1]:.4g} to {checked.loss_high[-1]:.4g})")
        )
        return (
            f"Checked in virtual time as far as its budget goes, {end:.4g} s of the {said.mean:.4g} s predicted: the "
            f"loss is {checked.loss[-1]:.4g}{seeds} there against {expected:.4g} predicted."
        )
    return f"Checked in virtual time: {checked.status}."


__all__ = ["Found", "Plan", "plan"]
