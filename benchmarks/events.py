"""Completed gradients per second of the event kernel on one core, with its answer checked.

No peers yet: this is the baseline that later work is measured against.
"""

import time

import numpy as np

from stalewise.simulation.quadratic import run_ensemble
from stalewise.study import make_study

REPEATS = 5


def main() -> None:
    print(f"{'workers':>8}{'million/s':>11}{'staleness variance / exact':>28}")
    for workers in (10, 100, 1000, 10_000):
        study = make_study(
            {
                "workload": {"eigenvalues": [1.0], "start": 0.0},
                "cluster": {"workers": workers, "compute": "exponential(1.0)", "start": "staggered"},
                "schedule": {"policy": "async", "learning_rate": 1e-6},
                "target": {"loss": 1.0},
            }
        )
        grid = np.array([0.0, max(1e6 / workers, 20.0)])
        run_ensemble(study, grid[:1], seeds=1, seed=0)
        seconds, run = [], None
        for repeat in range(REPEATS):
            begun = time.perf_counter()
            run = run_ensemble(study, grid, seeds=1, seed=repeat)
            seconds.append(time.perf_counter() - begun)
        share = run.counts / run.counts.sum()
        k = np.arange(len(share))
        variance = share @ k**2 - (share @ k) ** 2
        print(
            f"{workers:>8}{run.applied / np.median(seconds) / 1e6:>11.2f}{variance / (workers * (workers - 1)):>28.3f}"
        )


if __name__ == "__main__":
    main()
