"""Networks: time to a loss predicted from pilots, against virtual time.

For every cell (workload, N, learning rate, delay law) the run itself with several seeds, pilots that cost a fifth of
its samples (a sixteenth for N = 256), and beside them what else could be said. A time to a loss is when the mean loss
over seeds, averaged over a tenth of the time to both sides, last comes down through it; a horizon bounds all runs.

Candidates, judged on the same runs: ``pilots``, the method of `predict`; ``straight``, the same with a straight line
in the temperature; ``cold``, the colder pilot as it is; ``log``, the two pilots' losses drawn back by their logarithm;
``times``, their times to each loss drawn back; ``power``, the run itself for a fifth of the time, its loss continued as
a + b t^-c; ``fixed``, the curvatures of one cheap worker's curve, none above the measured largest one, each under the
delayed recursion; ``linear``, as many updates as one worker needs, N times faster.

    python validation/nonconvex.py --data mnist-folder      # runs what is missing, two cells at a time; under two hours
    python validation/nonconvex.py --report                 # the table of what is there
    python validation/nonconvex.py --collapse               # docs/collapse.svg: one u, N = 4 to 256
    python validation/nonconvex.py --real --data folder     # mnist-cnn on Ray, injected delays, N = 8 and 16

Every run is kept in runs/nonconvex as soon as it is done, and not run again.
"""

import argparse
import hashlib
import itertools
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from scipy import optimize

from stalewise.delays import Replay, parse_delay
from stalewise.dynamics.recursion import mean_step_limit, transient
from stalewise.landscape.curvature import leading_curvature
from stalewise.prediction.pilots import drawn_back, pilots_of, smoothed
from stalewise.prediction.pilots.fleets import every_nth
from stalewise.prediction.pilots.runs import FAR
from stalewise.prediction.pilots.temperature import EXPONENT
from stalewise.simulation import NetworkRun, advance
from stalewise.staleness import arrivals
from stalewise.study import make_study
from stalewise.trajectory import settling_time, write_atomically
from stalewise.workloads import load_network

EXAMPLES = Path(__file__).parents[1] / "examples"
LAWS = {
    "constant": "constant(1)",
    "gamma(4)": "gamma(1, 4)",
    "lognormal": "lognormal(1, 1)",
    "PAI": 'trace("pai_job_1.csv")',
}
WORKLOADS = {  # kind, options, momentum, u = learning rate x workers / (1 - momentum), losses, horizon [mean cycles]
    "digits-mlp": ("digits-mlp", {}, 0.0, (0.1, 0.316, 1.0), (1.0, 0.4, 0.15), 160),
    "digits-mlp momentum": ("digits-mlp", {}, 0.9, (0.1, 0.316, 1.0), (1.0, 0.4, 0.15), 160),
    "mnist-cnn": ("mnist-cnn", {"width": 4, "images": 1024}, 0.0, (0.06, 0.19, 0.6), (1.5, 0.8, 0.4), 100),
    "char-transformer": ("char-transformer", {"context": 16, "width": 16, "layers": 1}, 0.9, (0.6, 1.9, 6.0),
                         (3.4, 3.15, 2.9), 120),
}  # fmt: skip
WHOLE = ("digits-mlp",)  # tables with every cell; of the others a third
FLEETS = {16: (12, 0.2), 64: (6, 0.2), 256: (3, 1 / 16)}  # workers: seeds, budget of the pilots
BATCH, ROUND = 32, 8
CANDIDATES = ("pilots", "straight", "cold", "log", "times", "power", "fixed", "linear")
FEW = 0.2  # of the run's time: what `power` sees of it


def cells():
    """All cells (workload, N, u, law); of the shortened tables every third along each diagonal."""
    for name, (_, _, _, rates, _, _) in WORKLOADS.items():
        for (i, workers), (j, rate), (k, law) in itertools.product(
            enumerate(FLEETS), enumerate(rates), enumerate(LAWS)
        ):
            if name in WHOLE or (i + j + k) % 3 == 0:
                yield name, workers, rate, law


def study_of(name, workers, rate, law, data):
    """The study of a cell; the trace's 256 workers are thinned out by speed."""
    kind, options, momentum, _, losses, _ = WORKLOADS[name]
    workload = {"kind": kind, "options": options}
    if kind == "mnist-cnn":
        workload["data"] = str(data)
    schedule = {"policy": "async", "learning_rate": rate * (1 - momentum) / workers, "momentum": momentum}
    study = make_study(
        {
            "workload": workload,
            "cluster": {"workers": workers, "compute": LAWS[law]},
            "schedule": {**schedule, "batch_size": BATCH},
            "target": {"loss": losses[-1]},
        },
        folder=EXAMPLES,
    )
    whole = parse_delay(LAWS[law], folder=EXAMPLES)
    if isinstance(whole, Replay):
        study = study.with_delay(every_nth(whole, max(FLEETS), workers))
    return study


_NETWORKS = {}


def network_of(study):
    key = json.dumps(study.as_dict()["workload"], sort_keys=True)
    if key not in _NETWORKS:
        _NETWORKS[key] = load_network(study.workload)
    return _NETWORKS[key]


def kept(folder, key, make):
    """A run from its file, or made and put there; only read if nothing may be written."""
    where, writes = folder
    path = where / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if not path.exists() and writes:
        write_atomically(path, json.dumps({"key": key, **make()}))
    return json.loads(path.read_text())


def run(study, seeds, horizon, losses, scale=1.0):
    """Losses of a study over all seeds, on its clock times ``scale`` in mean cycles, until the lowest has settled."""
    network = network_of(study)
    cycle = study.workers().mean_cycle
    runs = [NetworkRun(study, network, 1000 * i + study.active_workers, network.start(i)) for i in range(seeds)]
    reach, began = ROUND, time.process_time()
    while True:
        advance(runs, reach * cycle)
        points = min(len(one.time) - one.blew_up for one in runs)
        clock = np.array(runs[0].time[:points]) / cycle
        seen = smoothed(clock, np.array([one.loss[:points] for one in runs]).mean(axis=0))
        settled = settling_time(clock, seen, 0.95 * losses[-1])
        if any(one.blew_up for one in runs) or reach >= horizon or (settled and clock[-1] >= 1.3 * settled + 4):
            break
        reach = min(reach + ROUND, horizon)
    return {
        "time": (clock * scale).tolist(),
        "loss": [one.loss[:points] for one in runs],
        "updates": runs[0].updates[:points],
        "blew_up": any(one.blew_up for one in runs),
        "samples": sum(one.samples for one in runs),
        "cpu": time.process_time() - began,
    }


def cell(name, workers, rate, law, data, folder):
    """Everything that a cell needs, run or read."""
    study = study_of(name, workers, rate, law, data)
    seeds, budget = FLEETS[workers]
    *_, losses, horizon = WORKLOADS[name]
    found = {"truth": kept(folder, ["truth", name, workers, rate, law], lambda: run(study, seeds, horizon, losses))}
    chosen = pilots_of(study, arrivals(study), budget)
    mean = study.workers().mean_cycle
    for which, pilot in zip(("cold", "hot"), chosen, strict=True):
        scale = pilot.seconds * pilot.study.workers().mean_cycle / mean
        key = [which, name, workers, rate, law, pilot.study.active_workers, pilot.study.batch_size]
        found[which] = kept(folder, key, lambda p=pilot, s=scale: run(p.study, seeds, horizon / s, losses, s))
        found[which]["temperature"] = pilot.temperature
    alone = study_of(name, 1, rate / workers, "constant", data)
    steps = 4 if name.startswith("digits") else 1
    found["alone"] = kept(
        folder, ["alone", name, workers, rate],
        lambda: run(alone, steps, horizon * workers, losses, 1.0 / workers),
    )  # fmt: skip
    found["curvature"] = kept(
        folder, ["curvature", name],
        lambda: {"largest": leading_curvature(network_of(study), network_of(study).start(0))},
    )["largest"]  # fmt: skip
    return study, found


def answers(study, found, losses, horizon, momentum):
    """Times [mean cycles] to the losses, by the run and by every candidate; None for never within the horizon."""
    truth = curve(found["truth"], horizon)
    cold, hot = curve(found["cold"], horizon, each=True), curve(found["hot"], horizon, each=True)
    time_ = cold[0]
    hot_there = np.array([np.interp(time_, hot[0], row, right=row[-1]) for row in hot[1]])
    heat = (found["cold"]["temperature"], found["hot"]["temperature"])
    weight = (heat[0] ** EXPONENT - 1.0) / (heat[1] ** EXPONENT - heat[0] ** EXPONENT)
    end = min(time_[-1], hot[0][-1])
    known = time_ <= end + 1e-9
    mean, low, high = drawn_back(cold[1][:, known], hot_there[:, known], heat)
    c, h = cold[1].mean(axis=0), hot_there.mean(axis=0)
    return {
        "truth": times(*truth, losses),
        "pilots": times(time_[known], mean, losses),
        "straight": times(time_[known], drawn_back(cold[1][:, known], hot_there[:, known], heat, 1.0)[0], losses),
        "low": times(time_[known], low, losses),
        "high": times(time_[known], high, losses),
        "cold": times(time_, c, losses),
        "log": times(time_[known], (c * (c / h) ** weight)[known], losses),
        "times": [
            None if a is None or b is None else max(a - weight * (b - a), 0.0)
            for a, b in zip(times(time_, c, losses), times(*curve(found["hot"], horizon), losses), strict=True)
        ],
        "power": continued(*truth, losses, horizon),
        "fixed": fixed(study, found, losses, horizon, momentum),
        "linear": times(*curve(found["alone"], horizon), losses),
    }


def curve(one, horizon, *, each=False):
    """Smoothed losses against mean cycles, up to the horizon."""
    clock = np.array(one["time"])
    inside = clock <= horizon * (1 + 1e-9)
    losses = smoothed(clock[inside], np.array(one["loss"])[:, inside])
    return clock[inside], losses if each else losses.mean(axis=0)


def times(clock, loss, losses):
    return [settling_time(clock, loss, level) for level in losses]


def continued(clock, loss, losses, horizon):
    """The run's own loss up to a fifth of its time, continued as a + b t^-c."""
    seen = (clock <= FEW * clock[-1]) & (clock > 0.5)
    t, y = clock[seen], loss[seen]
    if len(t) < 5:
        return [None] * len(losses)
    try:
        (a, b, c), _ = optimize.curve_fit(
            lambda t, a, b, c: np.log(a + b * t**-c), t, np.log(y), p0=(0.05 * y.min(), y[0], 0.7),
            bounds=([1e-6, 1e-9, 0.01], [y.min(), np.inf, 4.0]), maxfev=20_000,
        )  # fmt: skip
    except (RuntimeError, ValueError):
        return [None] * len(losses)
    later = np.geomspace(t[-1], horizon, 2000)
    return times(
        np.concatenate([clock[seen], later[1:]]), np.concatenate([y, (a + b * later**-c)[1:]]), losses
    )  # fmt: skip


def fixed(study, found, losses, horizon, momentum):
    """Modes of one worker's curve, none stiffer than measured, each under the fleet's staleness."""
    alone, largest = found["alone"], found["curvature"]
    rate = study.learning_rate / (1.0 - momentum)
    updates, loss = np.array(alone["updates"], float), np.array(alone["loss"]).mean(axis=0)
    grid = np.geomspace(1e-5, 1.0, 60) * largest
    pulls = np.abs(1.0 - np.minimum(rate * grid, 1.999))
    design = np.column_stack([np.ones_like(updates), pulls[None, :] ** (2.0 * updates[:, None])])
    weights, _ = optimize.nnls(design / loss[:, None], np.ones_like(loss))
    law = arrivals(study).staleness
    if rate * grid[weights[1:] > 0].max(initial=0.0) >= mean_step_limit(law):
        return [None] * len(losses)
    steps = int(horizon * study.active_workers)
    total = np.full(steps + 1, weights[0])
    for weight, curvature in zip(weights[1:], grid, strict=True):
        if weight > 0:
            total += weight * transient(rate * curvature, 0.0, 1.0, law, 0.0, steps).mean ** 2
    clock = np.arange(steps + 1) / study.active_workers
    return times(clock, total, losses)


class Tally:
    """Errors of all candidates, and of the pilots by kind of cell."""

    def __init__(self):
        self.errors = {key: [] for key in CANDIDATES}
        self.reached = {key: [] for key in CANDIDATES}
        self.by, self.cover, self.costs = {}, [], []

    def add(self, said, groups):
        """One cell; returns whether the band held each time that was reached."""
        for key in CANDIDATES:
            for seen, one in zip(said["truth"], said[key], strict=True):
                self.reached[key].append((seen is None) == (one is None))
                if seen is not None:
                    self.errors[key].append(100 * (one / seen - 1.0) if one is not None else np.inf)
        inside = []
        for seen, one, low, high, cold in zip(
            *(said[key] for key in ("truth", "pilots", "low", "high", "cold")), strict=True
        ):
            if seen is not None:
                near = one is not None and cold is not None and cold <= FAR * one
                for group in (*groups, f"colder pilot {'<=' if near else '>'} {FAR:g} x"):
                    self.by.setdefault(group, []).append(100 * (one / seen - 1.0) if one is not None else np.inf)
                inside.append(low is not None and low <= seen and (high is None or seen <= high))
        self.cover += inside
        return inside

    def tell(self):
        """What each candidate is worth."""
        costs = 100 * np.array(self.costs)
        print(f"\n{len(costs)} cells; pilots cost {costs.min():.1f} to {costs.max():.1f} % of the run's samples")
        for key in CANDIDATES:
            print(
                f"{key:<8} {spread(self.errors[key])}, median bias {np.median(self.errors[key]):+6.1f} %; reached or "
                f"not, right: {100 * np.mean(self.reached[key]):5.1f} %"
            )
        print(f"the 95 % band holds {100 * np.mean(self.cover):.0f} % of the {len(self.cover)} times")
        for group, some in self.by.items():
            print(f"  {group:<22} {len(some):>4} times: {spread(some)}")


def spread(errors):
    sizes = np.minimum(np.abs(errors), 999.0)
    return f"median {np.median(sizes):5.1f} %, 90th percentile {np.quantile(sizes, 0.9):6.1f} %"


def report(data, folder):
    """The table: every cell, then what each candidate is worth."""
    tally = Tally()
    print(f"{'workload':<20}{'N':>4}{'u':>7} {'delays':<10}{'time to losses [mean cycles]':>30}", end="")
    print("".join(f"{key:>22}" for key in ("pilots: error [%]", "band holds", "fixed [%]", "linear [%]")))
    for name, workers, rate, law in cells():
        _, _, momentum, _, losses, horizon = WORKLOADS[name]
        try:
            study, found = cell(name, workers, rate, law, data, (folder, False))
        except FileNotFoundError:
            continue
        said = answers(study, found, losses, horizon, momentum)
        tally.costs.append(1.0 / found["cold"]["temperature"] + 1.0 / found["hot"]["temperature"])
        inside = tally.add(said, (f"N = {workers}", name, f"{name} u = {rate:g}", law))
        row = [text(said["truth"], "{:.1f}"), off(said, "pilots"), " ".join("y" if one else "n" for one in inside),
               off(said, "fixed"), off(said, "linear")]  # fmt: skip
        print(f"{name:<20}{workers:>4}{rate:>7g} {law:<10}{row[0]:>30}" + "".join(f"{part:>22}" for part in row[1:]))
    tally.tell()


def collapse(folder):
    """Loss against mean cycles at one u: with a batch of 32, and with the batch that gives all one temperature."""
    from matplotlib.figure import Figure

    name, rate, horizon, seeds = "digits-mlp", 0.316, 60, 4
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    numbers = {}
    for matched, axis in zip((False, True), axes, strict=True):
        for workers in (4, 8, 16, 64, 256):
            size = BATCH * 64 // workers if matched else BATCH
            study = study_of(name, workers, rate, "gamma(4)", None).with_schedule(batch_size=size)
            study = study.with_schedule(learning_rate=rate / (workers - 0.5))  # half a step: docs/networks.md
            stretch = workers / (workers - 0.5)
            key = ["collapse", name, workers, size, rate, seeds]
            one = kept((folder, True), key, lambda s=study, c=stretch: run(s, seeds, horizon, (0.02,), c))
            clock, loss = curve(one, horizon)
            axis.plot(clock, loss, label=f"N = {workers}, batch {size}", lw=1.5)
            numbers[matched, workers] = times(clock, loss, (1.0, 0.4, 0.2))
        axis.set(yscale="log", xlabel="time [mean cycles of N - 1/2 updates]", xlim=(0, horizon))
        axis.set_title("one temperature: batch 2048/N" if matched else "batch 32", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(f"training loss, mean of {seeds} seeds")
    figure.savefig(Path(__file__).parents[1] / "docs" / "collapse.svg", metadata={"Date": None})
    for (matched, workers), found in numbers.items():
        print(f"{'one temperature' if matched else 'batch 32':<16} N = {workers:<4} {text(found, '{:.1f}')}")


def real(data, losses=(1.5, 0.8, 0.4), seeds=3, cycle=0.4):
    """Real runs of mnist-cnn on Ray from several starts, beside what pilots from the same starts say."""
    from stalewise.hands.cluster import local_ray
    from stalewise.prediction.pilots import predict_network
    from stalewise.training import train

    with local_ray():
        for workers in (8, 16):
            study = study_of("mnist-cnn", workers, 0.3, "gamma(4)", data).with_cluster(
                compute=f"gamma({cycle!r}, 4)"
            )  # fmt: skip
            runs = [train(study, seed=one) for one in range(seeds)]
            said = [predict_network(study, network=network_of(study), seed=one, seeds=2) for one in range(seeds)]
            clock = np.arange(0.0, min(one.time[-1] for one in (*runs, *said)), 0.25 * cycle)
            seen = smoothed(clock, mean_on(clock, [(one.time, one.loss) for one in runs]))
            told, low, high = (
                mean_on(clock, [(one.time, getattr(one, name)) for one in said])
                for name in ("loss", "loss_low", "loss_high")
            )
            held = (low <= seen) & (seen <= high)
            print(f"N = {workers}, time to losses {losses} [s]:")
            print(f"  real, mean of {seeds} runs  {text(times(clock, seen, losses), '{:.1f}')}")
            print(f"  predicted            {text(times(clock, told, losses), '{:.1f}')}")
            for one, other in zip(runs, said, strict=True):
                own = smoothed(clock, mean_on(clock, [(one.time, one.loss)]))
                print(
                    f"  from one start       {text(times(clock, own, losses), '{:.1f}')} "
                    f"(predicted {text(times(other.time, other.loss, losses), '{:.1f}')})"
                )
            print(
                f"  band holds the real loss at {100 * held.mean():.0f} % of its points; {said[0].notes[0]}", flush=True
            )


def mean_on(clock, curves):
    """Mean loss of several curves at the times of one clock."""
    return np.mean([np.interp(clock, time, loss) for time, loss in curves], axis=0)


def text(values, form):
    return " ".join("-" if one is None else form.format(one) for one in values)


def off(said, key):
    """Errors [%]; of what the run never reaches, whether that was said."""
    words = []
    for seen, one in zip(said["truth"], said[key], strict=True):
        if seen is None:
            words.append("ok" if one is None else "false")
        else:
            words.append("never" if one is None else f"{100 * (one / seen - 1):+.0f}")
    return " ".join(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of MNIST's IDX files; without it mnist-cnn is left out")
    parser.add_argument("--folder", type=Path, default=Path("runs/nonconvex"), help="where runs are kept")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(WORKLOADS), help="these workloads")
    parser.add_argument("--report", action="store_true", help="only tell what is there")
    parser.add_argument("--collapse", action="store_true", help="only the figure")
    parser.add_argument("--real", action="store_true", help="only mnist-cnn on Ray")
    args = parser.parse_args()
    for name in list(WORKLOADS):
        if (args.only and name not in args.only) or (WORKLOADS[name][0] == "mnist-cnn" and not args.data):
            del WORKLOADS[name]
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.collapse or args.real:
        collapse(args.folder) if args.collapse else real(args.data)
        return
    if not args.report:
        todo = sorted(cells(), key=lambda one: one[1])  # small fleets first: something to look at soon
        began = time.time()
        with ProcessPoolExecutor(args.processes, initializer=_alone) as pool:
            jobs = {pool.submit(cell, *one, args.data, (args.folder, True)): one for one in todo}
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                left = (time.time() - began) / done * (len(todo) - done)
                print(f"{done}/{len(todo)} {jobs[job]}, about {left / 60:.0f} min left", file=sys.stderr, flush=True)
    report(args.data, args.folder)


def _alone():
    """One thread a process."""
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
