"""`plan`: the schedule for a target, why, what else was possible, and when to stay synchronous."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stalewise import checks
from stalewise.errors import InputError
from stalewise.planning.networks import search_network
from stalewise.planning.quadratics import search_quadratic
from stalewise.planning.search import Found
from stalewise.prediction import advise, predict
from stalewise.protocol.rules import GROUPED
from stalewise.simulation import simulate
from stalewise.study import Study
from stalewise.trajectory import Trajectory

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Plan:
    """A schedule and the case for it.

    Attributes:
        study: The study under the chosen schedule.
        predicted: What `predict` says of it.
        checked: What `simulate` says of it.
        alternatives: Other schedules tried: {schedule, time_to_target, note}, best first.
        reasons: Why, in sentences.
        stay_synchronous: Whether no asynchronous schedule tried beats the best synchronous one.
    """

    study: Study
    predicted: Trajectory
    checked: Trajectory
    alternatives: list[dict[str, Any]]
    reasons: list[str]
    stay_synchronous: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schedule": self.study.schedule.model_dump(exclude_none=True),
            "predicted": self.predicted.model_dump(),
            "checked": self.checked.model_dump(),
            "alternatives": self.alternatives,
            "reasons": self.reasons,
            "stay_synchronous": self.stay_synchronous,
        }


def plan(study: Study, *, seed: int = 0, progress: Progress | None = None) -> Plan:
    """Choose active workers, learning rate and staleness threshold for a study's target.

    What ``[schedule]`` gives is held; what it leaves out is searched, up to ``cluster.workers``. Quadratics are
    searched by mathematics, networks by pilots with few workers. The pick is checked by `simulate`.

    Args:
        study: Its schedule may be empty.
        seed: Of pilots and simulations.
        progress: Called with the fraction done and a message.

    Returns:
        The plan. If no schedule reaches the target it is still an answer: the closest one, and why.
    """
    checks.at_least("seed", seed, 0)
    held = study.schedule
    if held.policy is None and held.group > 1:
        raise InputError(f"schedule.policy is missing: a group, got {held.group}, belongs to {', '.join(GROUPED)}")
    if held.trigger > 0:
        raise InputError(f"schedule.trigger cannot be planned for yet, got {held.trigger:g}; leave it out, or simulate")
    say = progress or (lambda _fraction, _message: None)
    search = search_quadratic if study.workload.is_quadratic else search_network
    found = search(study, seed, lambda share, message: say(0.6 * share, message))
    say(0.6, "predicting the pick")
    predicted = predict(found.study, seed=seed)
    say(0.7, "checking the pick in virtual time")
    checked = simulate(found.study, seed=seed)
    say(1.0, "done")
    return Plan(
        study=found.study,
        predicted=predicted,
        checked=checked,
        alternatives=found.alternatives,
        reasons=[*found.reasons, *_advice(found.study, predicted, seed), _verdict(predicted, checked)],
        stay_synchronous=found.stay_synchronous,
    )


def _advice(study: Study, predicted: Trajectory, seed: int) -> list[str]:
    advice = advise(study, predicted, seed=seed)
    return [f"{advice[0].upper()}{advice[1:]}."] if advice else []


def _verdict(predicted: Trajectory, checked: Trajectory) -> str:
    said, seen = predicted.time_to_target, checked.time_to_target
    if said.mean is not None and seen.mean is not None:
        seeds = ""
        if seen.low is not None:
            high = "never" if seen.high is None else f"{seen.high:.4g}"
            seeds = f" (95 % interval over seeds {seen.low:.4g} to {high})"
        off = 100 * (said.mean / seen.mean - 1)
        return f"Checked in virtual time: {seen.mean:.4g} s{seeds} against {said.mean:.4g} s predicted ({off:+.1f} %)."
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
