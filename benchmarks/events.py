"""Completed gradients a second of the event kernel on one core, beside a bare calendar queue, cimba and SimPy.

Each run checks its answer: the variance of the staleness of N memoryless workers is N(N - 1). Times are CPU
time, medians of 5 (peers: 1), in nanoseconds a gradient; ratios travel, nanoseconds do not. Peers are timed where
they are installed: `pip install simpy cimba`. Run: python benchmarks/events.py
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from bare_calendar import bare
from peers import cimba_run, simpy_run

from stalewise.delays import Exponential
from stalewise.delays.compiled import encode
from stalewise.protocol import rules_of
from stalewise.simulation.kernel import NOTHING, Fleet, Records, run

REPEATS = 5
SIZES = {100: 4_000_000, 10_000: 4_000_000, 1_000_000: 4_000_000}
TOLERANCE = 0.05  # of the variance: 8 correlated standard errors at 4 cycles of a million workers, more elsewhere


def schedules(n: int) -> dict[str, dict]:
    """Every policy with settings that bite."""
    return {
        "async": {},
        "sync": {},
        "k-sync": {"group": n // 2},
        "k-batch-sync": {"group": n},
        "k-async": {"group": n // 4},
        "k-batch-async": {"group": n // 4},
        "ssp": {"max_staleness": 3},
        "rennala": {"group": n // 4},
        "ringmaster drop": {"policy": "ringmaster", "max_staleness": n},
        "ringmaster cancel": {"policy": "ringmaster", "max_staleness": n, "on_stale": "cancel"},
        "wait": {"policy": "async", "max_staleness": 2 * n, "on_stale": "wait"},
        "admit": {"policy": "async", "max_staleness": n, "on_stale": "admit"},
    }


def kernel(workers: int, events: float, schedule: dict, name: str = "async", seed: int = 0) -> tuple[float, int, float]:
    """CPU seconds, completed gradients, and variance of the staleness."""
    law = Exponential(1.0)
    encoded = encode(law.components(), law.mean)
    fleet = Fleet(workers, encoded, law.mean, False, False, encoded)
    rules = rules_of(**{"policy": name, **schedule}, workers=workers)
    counts = np.zeros(64 * workers, np.int64)
    records = Records(np.array([0.0, events / workers]), np.zeros(2), np.zeros(2), counts, np.zeros((0, 4)))
    rngs = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    begun = time.process_time()
    done = run(fleet, rules, NOTHING, records, *rngs)
    spent = time.process_time() - begun
    return spent, done.events, _variance(counts)


def _variance(counts: np.ndarray) -> float:
    share, k = counts / max(counts.sum(), 1), np.arange(len(counts), dtype=float)
    return float(share @ k**2 - (share @ k) ** 2)


def timed(workers: int, events: float, schedule: dict, name: str = "async") -> tuple[float, float]:
    """Median nanoseconds a gradient, and the last run's variance."""
    runs = [kernel(workers, events, schedule, name, seed) for seed in range(REPEATS)]
    return median(1e9 * seconds / done for seconds, done, _ in runs), float(np.mean([v for *_, v in runs]))


def _beside_async(workers: int, name: str) -> tuple[float, float]:
    """Median nanoseconds of a policy and of async, run by turns."""
    seconds: list[list[float]] = [[], []]
    for seed in range(REPEATS):
        for kept, (policy, schedule) in zip(seconds, ((name, schedules(workers)[name]), ("async", {})), strict=True):
            spent, done, _ = kernel(workers, 1_000_000, schedule, policy, seed)
            kept.append(1e9 * spent / done)
    return median(seconds[0]), median(seconds[1])


def bare_timed(workers: int, events: int) -> tuple[float, float]:
    """The same of the bare loop."""
    seconds, variances = [], []
    for seed in range(REPEATS):
        begun = time.process_time()
        counts = bare(workers, events, np.random.default_rng(seed), 64 * workers)
        seconds.append(1e9 * (time.process_time() - begun) / events)
        variances.append(_variance(counts))
    return median(seconds), float(np.mean(variances))


def checked(what: str, variance: float, workers: int, events: float) -> str:
    """Measured over exact variance; the start of a run takes 2 cycles or so off it."""
    ratio = variance / (workers * (workers - 1))
    if events / workers > 100 and abs(ratio - 1.0) > TOLERANCE:
        sys.exit(f"{what}, {workers} workers: staleness variance {ratio:.3f} of the exact one")
    return f"{ratio:.3f}"


def main() -> None:
    kernel(4, 1000, {})
    bare(4, 1000, np.random.default_rng(0), 256)
    print("fully async, ns a completed gradient (variance of staleness over the exact one)")
    print(f"{'workers':>9} {'kernel':>16} {'bare calendar':>16} {'ratio':>6} {'cimba':>16} {'SimPy':>16}")
    ours: dict[int, float] = {}
    for workers, events in SIZES.items():
        ours[workers], variance = timed(workers, events, {})
        floor, floor_variance = bare_timed(workers, events)
        cells = [f"{ours[workers]:.1f} ({checked('kernel', variance, workers, events)})"]
        cells.append(f"{floor:.1f} ({checked('bare', floor_variance, workers, events)})")
        peers = []
        for peer, size in ((cimba_run, events), (simpy_run, 400_000)):
            found = None if workers > 10_000 else peer(workers, size, 0)
            if found is None:
                peers.append("-")
                continue
            seconds, done, seen = found
            peers.append(f"{1e9 * seconds / done:.0f} ({checked(peer.__name__, seen, workers, size)})")
        print(f"{workers:>9} {cells[0]:>16} {cells[1]:>16} {ours[workers] / floor:>6.2f} {peers[0]:>16} {peers[1]:>16}")
    print(f"a million workers cost {ours[1_000_000] / ours[100]:.1f} times as much as 100 (goal 8)")
    print("\nevery policy, ns a completed gradient, and over async (goal 3)")
    for name in schedules(100):
        pairs = [_beside_async(n, name) for n in (100, 10_000)]
        row, ratios = [one for one, _ in pairs], [one / other for one, other in pairs]
        print(f"{name:>18} {row[0]:>8.1f} {row[1]:>8.1f}   x{ratios[0]:.2f} x{ratios[1]:.2f}")
    print("\npeak memory of a fresh process [MB]")
    for workers, events in ((1000, 1e6), (1000, 1e7), (1_000_000, 4e6)):
        said = subprocess.run(
            [sys.executable, __file__, str(workers), str(events)], capture_output=True, text=True, check=True
        )
        print(f"{workers:>9} workers, {events:.0e} gradients: {said.stdout.strip()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        kernel(int(sys.argv[1]), float(sys.argv[2]), {})
        status = Path("/proc/self/status").read_text()  # rusage would count the parent's before it became this one
        peak = int(re.findall(r"VmHWM:\s*(\d+)", status)[0])
        print(f"{peak / 1e3:.0f}")
    else:
        main()
