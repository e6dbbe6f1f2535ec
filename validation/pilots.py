"""What the method of `predict` for networks rests on, on digits-mlp (docs/networks.md).

* ``policies``: nine policies of 8 workers, gamma(4) delays; times to losses 1, 0.7, 0.4 predicted from two pilots with
  exponents 0.7 to 1 of the temperature, against the runs themselves; 5 seeds from each of 3 starts.
* ``fleets``: pilots of 16, 32 and 64 workers at one price stand in for 64, u = 0.15 and 0.47; straight line, 9 seeds.
* ``rates``: the curve at one u from those at half and twice it (or at 0.71 and 1.41 times it), the logarithms of their
  losses interpolated in log u at equal drift, u x cycles; 16 and 64 workers, losses 1 and 0.4, 6 seeds.
* ``seeds``: how far times of single runs scatter at u = 0.15, 0.47, 1.5 (16 workers, 12 seeds).

    python validation/pilots.py                 # ten minutes
"""

import argparse
from unittest.mock import patch

import numpy as np

from stalewise.prediction.pilots import design, drawn_back, losses_of, pilots_of, smoothed
from stalewise.simulation import NetworkRun, advance
from stalewise.staleness import arrivals
from stalewise.study import make_study
from stalewise.trajectory import settling_time
from stalewise.workloads import open_network

POLICIES = {
    "sync": {"policy": "sync", "learning_rate": 0.2},
    "k-sync": {"policy": "k-sync", "group": 6, "learning_rate": 0.2},
    "ssp": {"policy": "ssp", "max_staleness": 3},
    "producer-consumer": {"policy": "producer-consumer", "group": 2, "max_staleness": 4, "learning_rate": 0.04},
    "threshold": {"max_staleness": 9},
    "inverse weights": {"staleness_weight": "inverse", "learning_rate": 0.1},
    "nesterov": {"momentum": 0.9, "nesterov": True, "learning_rate": 0.002},
    "cosine": {"learning_rate_schedule": "cosine(600)", "learning_rate": 0.03},
    "k-batch-async": {"policy": "k-batch-async", "group": 4, "learning_rate": 0.06},
}
EXPONENTS = (0.7, 0.8, 0.85, 0.9, 1.0)


def study_of(workers, **schedule):
    cluster = {"workers": workers, "compute": "gamma(1, 4)"}
    if schedule.get("policy") == "producer-consumer":
        cluster["service"] = "constant(0.2)"
    return make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": cluster,
            "schedule": {"policy": "async", "learning_rate": 0.02, **schedule},
            "target": {"loss": 0.1},
        }
    )


def losses(network, what, seeds, horizon):
    """Smoothed losses of all seeds, (start, seed) pairs, of a study or a pilot on the study's clock up to there [s]."""
    pilot = what if isinstance(what, design.Pilot) else design.Pilot(what, 1.0, 1.0, 1.0)
    runs = [NetworkRun(pilot.study, network, 1000 * start + seed, network.start(start)) for start, seed in seeds]
    advance(runs, pilot.reach(horizon))
    time, found = losses_of(pilot, runs, horizon)
    return time, smoothed(time, found)


def predicted(network, study, budget, seeds, horizon):
    """Losses of the two pilots on one clock, and their temperatures."""
    cold, hot = pilots_of(study, arrivals(study), budget)
    time, c = losses(network, cold, seeds, horizon)
    other, h = losses(network, hot, seeds, horizon)
    return time, c, np.array([np.interp(time, other, row) for row in h]), (cold.temperature, hot.temperature)


def errors(said, seen):
    return [100 * (one / truth - 1) for one, truth in zip(said, seen, strict=True) if one and truth]


def times(time, loss, levels):
    return [settling_time(time, loss, level) for level in levels]


def policies(network):
    levels, seeds = (1.0, 0.7, 0.4), [(start, seed) for start in range(3) for seed in range(5)]
    found = {exponent: [] for exponent in EXPONENTS}
    for name, schedule in POLICIES.items():
        study = study_of(8, **schedule)
        horizon = 75 * study.workers().mean_cycle * (2 if "sync" in schedule.get("policy", "") else 1)
        time, run = losses(network, study, seeds, horizon)
        seen = times(time, run.mean(axis=0), levels)
        clock, cold, hot, heat = predicted(network, study, 0.2, seeds, horizon)
        for exponent in EXPONENTS:
            mean, _, _ = drawn_back(cold, hot, heat, exponent)
            some = errors(times(clock, mean, levels), seen)
            found[exponent] += some
            if exponent == 0.85:
                print(f"{name:<18} {' '.join(f'{one:+.1f}' for one in some)} % at exponent 0.85", flush=True)
    for exponent, some in found.items():
        sizes = np.abs(some)
        print(
            f"exponent {exponent:g}: median {np.median(sizes):.1f} %, 90th percentile {np.quantile(sizes, 0.9):.1f} %, "
            f"bias {np.median(some):+.1f} %"
        )


def fleets(network):
    levels, seeds = (1.0, 0.5, 0.25), [(seed, 0) for seed in range(9)]
    for u in (0.15, 0.47):
        study = study_of(64, learning_rate=u / 63.5)
        time, run = losses(network, study, seeds, 110.0)
        seen = times(time, run.mean(axis=0), levels)
        for most in (16, 32, 64):
            with patch.object(design, "MOST", most):
                clock, cold, hot, heat = predicted(network, study, 0.2, seeds, 110.0)
            some = errors(times(clock, drawn_back(cold, hot, heat, 1.0)[0], levels), seen)
            print(f"u = {u:g}, {most} workers for 64: {' '.join(f'{one:+.1f}' for one in some)} %", flush=True)


def seeds_apart(network):
    levels = (1.0, 0.5, 0.25)
    for u in (0.15, 0.47, 1.5):
        time, run = losses(network, study_of(16, learning_rate=u / 15.5), [(seed, 0) for seed in range(12)], 150.0)
        each = np.array([times(time, row, levels) for row in run], float)
        print(
            f"u = {u:g}: single runs scatter by {100 * np.nanstd(each, 0, ddof=1) / np.nanmean(each, 0)} %", flush=True
        )


def between(low, high, u):
    """Times and losses at u from (u, times, losses) at a smaller and a larger one."""
    (a, first, falling), (b, second, faster) = low, high
    share = np.log(u / a) / np.log(b / a)
    time = np.linspace(0.0, min(first[-1] * a, second[-1] * b) / u, 400)
    one, other = (np.interp(time * u / v, t, np.log(x)) for v, t, x in ((a, first, falling), (b, second, faster)))
    return time, np.exp((1.0 - share) * one + share * other)


def rates(network):
    levels = (1.0, 0.4)
    for workers in (16, 64):
        runs = {}
        for u in (0.1, 0.141, 0.2, 0.283, 0.4, 0.566, 0.8):
            study = study_of(workers, learning_rate=u / (workers - 0.5))
            time, run = losses(network, study, [(0, seed) for seed in range(6)], min(16.0 / u, 130.0))
            runs[u] = (u, time, run.mean(axis=0))
        for low, u, high in ((0.1, 0.141, 0.2), (0.2, 0.283, 0.4), (0.4, 0.566, 0.8), (0.1, 0.2, 0.4), (0.2, 0.4, 0.8)):
            some = errors(times(*between(runs[low], runs[high], u), levels), times(*runs[u][1:], levels))
            told = " ".join(f"{one:+.1f}" for one in some)
            print(f"{workers} workers, u = {u:g} from {low:g} and {high:g}: {told} %", flush=True)


def main():
    parts = {"policies": policies, "fleets": fleets, "rates": rates, "seeds": seeds_apart}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=list(parts), default=list(parts))
    network, _ = open_network(study_of(8))
    np.set_printoptions(precision=1)
    for part in parser.parse_args().parts:
        parts[part](network)


if __name__ == "__main__":
    main()
