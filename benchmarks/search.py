"""Limits and settling times of 10,000 pairs of mode and schedule in one call, and the first plan of a fresh process.

The pairs are 100 modes under 100 schedules, whose arrivals are given (what those cost is told apart). Beside it the
exact single call, on every 97th pair, and how far the two are apart. The plan is that of examples/quadratic.toml with
an empty cache of compiled code, median of 3 processes; its prediction has to agree with its check in virtual time.
Run: python benchmarks/search.py
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from stalewise.dynamics.batch import settle
from stalewise.prediction.quadratic import settling
from stalewise.staleness import arrivals
from stalewise.study import Study, make_study

LAWS = ("constant(1)", "uniform(0.9, 1.1)", "gamma(1, 2)", "gamma(1, 4)", "gamma(1, 8)", "exponential(1)",
        "lognormal(1, 0.5)", "lognormal(1, 1)")  # fmt: skip
WORKERS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 20)
SCHEDULES = MODES = 100
SHARE = 0.2  # of 1/N: learning rate x largest curvature
NOISE, TARGET = 1e-4, 1e-4
GOAL, PLAN_GOAL = 2.0, 10.0
PLAN_TOLERANCE = 0.05  # of the settling time; the 95 % interval of the check over seeds is 4 % to either side
REPEATS = 3
STUDY = Path(__file__).parents[1] / "examples" / "quadratic.toml"


def study_of(law: str, workers: int, curvature: float) -> Study:
    """One mode."""
    return make_study(
        {
            "workload": {"eigenvalues": [curvature], "gradient_noise": NOISE},
            "cluster": {"workers": workers, "compute": law},
            "schedule": {"policy": "async", "learning_rate": SHARE / workers},
            "target": {"loss": TARGET},
        }
    )


def first_plan() -> tuple[float, float, float]:
    """CPU and wall seconds a plan takes in a fresh process that has to compile everything; its error.

    That is how far the settling time predicted is off the one of its check, relative.
    """
    with tempfile.TemporaryDirectory() as cache:
        command = [str(Path(sys.executable).with_name("stalewise")), "plan", str(STUDY), "--json"]
        begun, used = time.perf_counter(), _children()
        said = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "NUMBA_CACHE_DIR": cache})
        wall, cpu = time.perf_counter() - begun, _children() - used
    predicted, checked = (
        json.loads(said.stdout)[engine]["time_to_target"]["mean"] for engine in ("predicted", "checked")
    )
    return cpu, wall, abs(predicted / checked - 1.0)


def _children() -> float:
    """CPU seconds of the processes that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    curvature = np.geomspace(0.01, 1.0, MODES)
    pairs = [(law, workers) for law in LAWS for workers in WORKERS][:SCHEDULES]
    begun = time.process_time()
    timings = [arrivals(study_of(law, workers, 1.0)) for law, workers in pairs]
    print(f"arrivals of {SCHEDULES} schedules: {time.process_time() - begun:.1f} s")
    rate = np.array([SHARE / workers for _, workers in pairs])[:, None]
    step = rate * curvature
    settle(timings[:1], step[:1], curvature, rate[:1] ** 2 * NOISE, 1.0, TARGET)
    spent = []
    for _ in range(REPEATS):
        begun = time.process_time()
        found = settle(timings, step, curvature, rate**2 * NOISE, 1.0, TARGET)
        spent.append(time.process_time() - begun)
    print(f"{found.time.size} limits and settling times: {median(spent):.2f} s of one core, goal {GOAL:g} s")
    begun, errors = time.process_time(), []
    for flat in range(0, found.time.size, 97):
        i, j = divmod(flat, MODES)
        exact, _ = settling(study_of(*pairs[i], float(curvature[j])), timings[i])
        errors.append(abs(found.time[i, j] / exact - 1.0))
    each = (time.process_time() - begun) / len(errors)
    print(f"one by one, exactly: {each * found.time.size:.0f} s for as many ({1e3 * each:.1f} ms each)")
    print(f"apart by {100 * median(errors):.2f} % (median), {100 * max(errors):.1f} % at most, of {len(errors)} pairs")
    cpu, wall, off = (median(row) for row in zip(*(first_plan() for _ in range(REPEATS)), strict=True))
    print(
        f"first plan in a fresh process, compiling included: {cpu:.1f} s CPU, {wall:.1f} s wall, goal {PLAN_GOAL:g} s"
    )
    print(f"its prediction is {100 * off:.1f} % off its check")
    return int(median(errors) > 0.01 or off > PLAN_TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
