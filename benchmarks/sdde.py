"""Sample paths of the delay equation beside the cost of drawing their normals alone, and plain NumPy.

dx = -x(t - 1) dt + dW at 100 steps a delay, Euler and Maruyama's scheme, float64; Milstein's with noise that grows with
the path. Answers: the variance in the long run of the Euler chain is 1.72005219864846752. Nanoseconds a path-step,
medians of 5; on one core of CPU time, on all cores of wall time. Run: python benchmarks/sdde.py
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from stalewise.dynamics import SDDE
from stalewise.dynamics.sdde.ensemble import cores
from stalewise.dynamics.sdde.normals import LANES, normals_alone, streams

REPEATS = 5
STEPS_A_DELAY, HORIZON, PATHS = 100, 30.0, 16_384
CHAIN = 1.72005219864846752
GOAL = 1.5


def nanoseconds(call: Callable[[], object], path_steps: float, clock: Callable[[], float] = time.process_time) -> float:
    """Of one path-step."""
    call()
    spent = []
    for _ in range(REPEATS):
        begun = clock()
        call()
        spent.append(clock() - begun)
    return 1e9 * median(spent) / path_steps


def plain_numpy(paths: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """The same chain, a step of all paths at a time; the last values."""
    h = 1.0 / STEPS_A_DELAY
    ring = np.ones((STEPS_A_DELAY + 1, paths))
    for k in range(steps):
        now, past = ring[k % len(ring)], ring[(k + 1) % len(ring)]
        ring[(k + 1) % len(ring)] = now - h * past + np.sqrt(h) * rng.standard_normal(paths)
    return ring[steps % len(ring)]


def main() -> int:
    steps = round(HORIZON * STEPS_A_DELAY)
    work = float(PATHS * steps)
    state, raw, normals = streams(np.random.SeedSequence(0)), np.empty(LANES, np.uint64), np.empty(LANES)
    alone = nanoseconds(lambda: normals_alone(state, raw, normals, int(work / 8 // LANES)), work / 8)
    additive = SDDE(1.0, 1.0, 1.0)
    growing = SDDE(1.0, 1.0, 0.5, present_noise=0.3, delayed_noise=0.2)

    def run(equation: SDDE, scheme: str, threads: int, paths: int = PATHS, **more: int):
        rng = np.random.default_rng(1)
        return equation.sample_paths(HORIZON, 0.01, paths, rng, scheme=scheme, saved=16, threads=threads, **more)

    print(f"normals alone: {alone:.2f} ns")
    rows = {
        "Euler, additive": (additive, "euler", PATHS, {}),
        "trapezoid, additive": (additive, "trapezoid", PATHS, {}),
        "Euler, noise that grows": (growing, "euler", PATHS // 4, {}),
        "Milstein, 4 terms": (growing, "milstein", PATHS // 16, {"terms": 4}),
    }
    for name, (equation, scheme, paths, more) in rows.items():
        one = nanoseconds(lambda e=equation, s=scheme, p=paths, m=more: run(e, s, 1, p, **m), paths * steps)
        every = nanoseconds(
            lambda e=equation, s=scheme, p=paths, m=more: run(e, s, cores(), p, **m), paths * steps, time.perf_counter
        )
        print(f"{name:<26}{one:8.2f} ns on one core ({one / alone:.2f} x normals), {every:.2f} ns on {cores()} cores")
    numpy_paths = 2048
    theirs = nanoseconds(lambda: plain_numpy(numpy_paths, 500, np.random.default_rng(2)), numpy_paths * 500)
    print(f"{'NumPy, all paths at once':<26}{theirs:8.2f} ns on one core")
    found = run(additive, "euler", cores())
    off = (found.variance[-1] - CHAIN) / found.variance_error[-1]
    print(f"variance {found.variance[-1]:.4f}, the chain's {CHAIN:.4f}: {off:+.1f} standard errors")
    print(f"goal: Euler within {GOAL:g} x the normals alone")
    return int(abs(off) > 5.0)


if __name__ == "__main__":
    sys.exit(main())
