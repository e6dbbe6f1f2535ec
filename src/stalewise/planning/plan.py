"""`plan`: the schedule for a target, why, what else was possible, and when to stay synchronous."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stalewise.planning.networks import search_network
from stalewise.planning.quadratics import search_quadratic
from stalewise.planning.search import Found
from stalewise.prediction import predict
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
        reasons=[*found.reasons, _verdict(predicted, checked)],
        stay_synchronous=found.stay_synchronous,
    )


def _verdict(predicted: Trajectory, checked: Trajectory) -> str:
    said, seen = predicted.time_to_target.mean, checked.time_to_target.mean
    if said is None or seen is None:
        return f"Checked in virtual time: {checked.status}."
    return f"Checked in virtual time: {seen:.4g} s against {said:.4g} s predicted ({100 * (said / seen - 1):+.1f} %)."


__all__ = ["Found", "Plan", "plan"]
