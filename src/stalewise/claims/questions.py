"""The study that figures vary, and its times to the target: by mathematics, tuned, in virtual time."""

import math
from typing import Any

import numpy as np

from stalewise.claims.figure import Effort
from stalewise.planning.search import MARGIN, rounded
from stalewise.planning.shortlist import guess
from stalewise.prediction.quadratic import settling
from stalewise.simulation import simulate
from stalewise.staleness import arrivals
from stalewise.study import Study, make_study
from stalewise.trajectory import TargetTime

SEEDS = 256
INNER = 0.9  # of the target, for which a learning rate is tuned: the fastest to a loss only just holds it there
TRIED = np.geomspace(0.7, 1.4, 8)  # learning rates about a guess, over it


def example(workers: int, **changes: Any) -> Study:
    """``examples/quadratic.toml``: curvatures 1 and 0.1, gradient noise 0.01, gamma(4) delays of 1 s, target 0.005.

    Args:
        workers: All of them active.
        **changes: Fields of any section by name, such as ``service="constant(0.1)"``.
    """
    sections: dict[str, dict[str, Any]] = {
        "workload": {"eigenvalues": [1.0, 0.1], "gradient_noise": 0.01, "start": 1.0},
        "cluster": {"workers": workers, "compute": "gamma(mean=1, shape=4)"},
        "schedule": {"policy": "async", "learning_rate": 0.05},
        "target": {"loss": 0.005},
    }
    for name, value in changes.items():
        sections[_section(name)][name] = value
    return make_study(sections)


def _section(name: str) -> str:
    places = {"eigenvalues": "workload", "gradient_noise": "workload", "compute": "cluster", "service": "cluster",
              "loss": "target"}  # fmt: skip
    return places.get(name, "schedule")


def predicted_time(study: Study, seed: int) -> float:
    """Time to the target by mathematics [s]; infinite if it is never reached."""
    return settling(study, arrivals(study, seed=seed))[0]


def tuned(study: Study, seed: int) -> Study:
    """The study with the learning rate that is fastest to nine tenths of its target, of 8 about a guess."""
    timing = arrivals(study, seed=seed)
    about = guess(study.with_schedule(learning_rate=None), timing, MARGIN).study.learning_rate
    inner = study.with_target(loss=INNER * study.target.loss)
    tried = [inner.with_schedule(learning_rate=rounded(float(about * factor))) for factor in TRIED]
    return min(tried, key=lambda one: settling(one, timing)[0]).with_target(loss=study.target.loss)


def simulated_time(study: Study, effort: Effort, expected: float, seeds: int = SEEDS) -> TargetTime:
    """Time to the target in virtual time [s], with a 95 % interval over seeds other than those of the prediction.

    It is run half as long again as expected, or 60 s where it is not expected at all.
    """
    horizon = 1.5 * expected if math.isfinite(expected) else 60.0
    run = simulate(study, seeds=effort.repeats(seeds), seed=effort.seed + 1, horizon=horizon)
    return run.time_to_target
