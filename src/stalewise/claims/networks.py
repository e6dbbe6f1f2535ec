"""Networks: loss over wall-clock for several numbers of workers, predicted by pilots and run in virtual time."""

import numpy as np

from stalewise.claims.figure import Axis, Curve, Effort, Figure, Panel, interval, seconds, theory
from stalewise.errors import InputError
from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.study import Study, make_study
from stalewise.trajectory import Trajectory, finite

CLAIM = "The same holds for a network with a non-convex loss: more workers help, then staleness hurts."
SEEDS = 4
DOTS = 14


def mnist(effort: Effort) -> Figure:
    """Loss of a small convolutional network on 1,024 images of MNIST; needs their files."""
    if effort.data is None:
        raise InputError("figure mnist needs --data, the folder of MNIST's IDX files")
    workload = {"kind": "mnist-cnn", "data": str(effort.data), "options": {"width": 4, "images": 1024}}
    rate, horizon, target = 0.02, 40.0, 0.5
    return _figure("mnist", "mnist-cnn, width 4, 1,024 images", workload, rate, (1, 4, 16, 64), horizon, target, effort)


def digits(effort: Effort) -> Figure:
    """Loss of a small perceptron on scikit-learn's digits, which need no files."""
    workload = {"kind": "digits-mlp"}
    return _figure("digits", "digits-mlp", workload, 0.02, (1, 4, 16, 64), 40.0, 0.4, effort)


def _figure(name, told, workload, rate, counts, horizon, target, effort: Effort) -> Figure:
    if effort.quick:
        horizon /= 4.0
    curves, times = [], {}
    for colour, workers in enumerate(effort.each(counts, "{} workers")):
        study = _study(workload, rate, workers, target, horizon)
        foretold = predict(study, seed=effort.seed)
        run = simulate(study, seeds=min(effort.repeats(32), SEEDS), seed=effort.seed, horizon=horizon)
        curves.append(theory(f"{workers} workers", foretold.time, foretold.loss, colour))
        curves.append(_dots(run, colour))
        times[workers] = (foretold, run)
    panel = Panel(told, Axis("time", "s"), Axis("training loss", log=True), curves)
    ends = {n: run.loss[-1] if not run.diverges else np.inf for n, (_, run) in times.items()}
    best = min(ends, key=ends.__getitem__)
    holds = counts[0] < best < counts[-1] and ends[counts[-1]] > 1.1 * ends[best]
    return Figure(name, CLAIM, holds, _caption(told, rate, target, horizon, times, ends), [panel])


def _study(workload: dict, rate: float, workers: int, target: float, horizon: float) -> Study:
    return make_study({
        "workload": workload,
        "cluster": {"workers": workers, "compute": "gamma(mean=1, shape=4)"},
        "schedule": {"policy": "async", "learning_rate": rate, "batch_size": 32},
        "target": {"loss": target, "time_limit": horizon},
    })  # fmt: skip


def _dots(run: Trajectory, colour: int) -> Curve:
    """Points of a simulated loss with its interval."""
    at = np.unique(np.linspace(0, len(run.time) - 1, DOTS).astype(int))[1:]
    low, high = run.loss_low or run.loss, run.loss_high or run.loss
    pick = [[finite(one[i]) for i in at] for one in (run.loss, low, high)]
    return Curve("", [run.time[i] for i in at], pick[0], "simulated", colour, pick[1], pick[2])


def _caption(told, rate, target, horizon, times, ends) -> list[str]:
    said = []
    for n, (foretold, run) in times.items():
        end = "diverged" if not np.isfinite(ends[n]) else f"loss {ends[n]:.3g} (predicted {foretold.loss[-1]:.3g})"
        said.append(
            f"{n} worker{'' if n == 1 else 's'}: loss {target:g} after {interval(run.time_to_target)} (predicted "
            f"{seconds(foretold.time_to_target.mean)}), after {horizon:g} s {end}."
        )
    best = min(ends, key=ends.__getitem__)
    seeds = int(next(iter(times.values()))[1].notes[0].split()[2])
    return [
        f"{told.capitalize()}, batch 32, learning rate {rate:g} for all, gamma(4) delays of 1 s, mean of {seeds} seeds.",
        *said,
        f"After {horizon:g} s {best} workers have the least loss. Predictions are drawn from two cheap pilots, virtual "
        "runs with smaller batches, for a network has no formula.",
    ]
