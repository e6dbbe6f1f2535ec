"""Networks: loss over wall-clock for several numbers of workers, predicted by pilots and run in virtual time."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stalewise.claims.figure import Axis, Curve, Effort, Figure, Panel, interval, seconds, theory
from stalewise.errors import InputError
from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.study import Study, make_study
from stalewise.trajectory import Trajectory, finite

CLAIM = "The same holds for a network with a non-convex loss: more workers help, then staleness hurts."
RATE, DOTS = 0.02, 14


COUNTS = (1, 4, 16, 64)


@dataclass(frozen=True)
class _Case:
    """A network: its workload, the target of its loss, virtual seconds to run, seeds, workers that are predicted."""

    name: str
    told: str
    workload: dict[str, Any]
    target: float
    horizon: float
    seeds: int
    predicted: tuple[int, ...]


def mnist(effort: Effort) -> Figure:
    """Loss of a small convolutional network on 1,024 images of MNIST; needs their files."""
    if effort.data is None:
        raise InputError("figure mnist needs --data, the folder of MNIST's IDX files")
    workload = {"kind": "mnist-cnn", "data": str(effort.data), "options": {"width": 4, "images": 1024}}
    return _figure(_Case("mnist", "mnist-cnn, width 4, 1,024 images", workload, 1.0, 16.0, 2, (4, 16)), effort)


def digits(effort: Effort) -> Figure:
    """Loss of a small perceptron on scikit-learn's digits, which need no files."""
    return _figure(_Case("digits", "digits-mlp", {"kind": "digits-mlp"}, 0.4, 40.0, 4, COUNTS), effort)


def _figure(case: _Case, effort: Effort) -> Figure:
    if effort.quick:
        case = replace(case, horizon=case.horizon / 4.0, seeds=2)
    curves, times = [], {}
    for colour, workers in enumerate(effort.each(COUNTS, "{} workers")):
        study = _study(case, workers)
        foretold = predict(study, seed=effort.seed) if workers in case.predicted else None
        run = simulate(study, seeds=case.seeds, seed=effort.seed, horizon=case.horizon)
        name = f"{workers} worker{'' if workers == 1 else 's'}"
        if foretold is not None:
            curves.append(theory(name, foretold.time, foretold.loss, colour))
        curves.append(_dots("" if foretold else name, run, colour))
        times[workers] = (foretold, run)
    panel = Panel(case.told, Axis("time", "s"), Axis("training loss", log=True), curves)
    ends = {n: np.inf if run.diverges else run.loss[-1] for n, (_, run) in times.items()}
    best = min(ends, key=ends.__getitem__)
    holds = COUNTS[0] < best < COUNTS[-1] and ends[COUNTS[-1]] > 1.1 * ends[best]
    return Figure(case.name, CLAIM, holds, _caption(case, times, ends, best), [panel])


def _study(case: _Case, workers: int) -> Study:
    return make_study({
        "workload": case.workload,
        "cluster": {"workers": workers, "compute": "gamma(mean=1, shape=4)"},
        "schedule": {"policy": "async", "learning_rate": RATE, "batch_size": 32},
        "target": {"loss": case.target, "time_limit": case.horizon},
    })  # fmt: skip


def _dots(name: str, run: Trajectory, colour: int) -> Curve:
    """Points of a simulated loss with its interval."""
    at = np.unique(np.linspace(0, len(run.time) - 1, DOTS).astype(int))[1:]
    low, high = run.loss_low or run.loss, run.loss_high or run.loss
    pick = [[finite(one[i]) for i in at] for one in (run.loss, low, high)]
    return Curve(name, [run.time[i] for i in at], pick[0], "simulated", colour, pick[1], pick[2])


def _caption(case: _Case, times: dict, ends: dict[int, float], best: int) -> list[str]:
    said = []
    for n, (foretold, run) in times.items():
        at, reached = interval(run.time_to_target), run.time_to_target.mean is not None
        time = f"loss {case.target:g} {'after ' + at if reached else 'never'}"
        end = "diverged" if not np.isfinite(ends[n]) else f"after {case.horizon:g} s loss {ends[n]:.3g}"
        guess = ""
        if foretold is not None:
            guess = f" (predicted: {seconds(foretold.time_to_target.mean)}, loss {foretold.loss[-1]:.3g})"
        said.append(f"{n} worker{'' if n == 1 else 's'}: {time}, {end}{guess}.")
    return [
        f"Batch 32, learning rate {RATE:g} for all, gamma(4) delays of 1 s, mean of {case.seeds} seeds.",
        *said,
        f"After {case.horizon:g} s {best} workers have the least loss. Predictions are drawn from two cheap pilots, "
        "virtual runs with smaller batches (docs/networks.md), since a network has no formula.",
    ]
