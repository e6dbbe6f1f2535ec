"""Path-steps a second of the delay equation's sample paths, beside the cost of their normals alone, numpy and vbjax.

dx = -x(t - 1) dt + dW from 0, 100 steps a delay. Each run checks its answer: the variance at the end must be within 4.5
standard errors of the exact one, which for Euler's chain is 1.72005219864846752 (the equation's is 1.70411).
Nanoseconds a path-step: CPU time on one core, wall time on all; medians of 3. Ratios travel, nanoseconds do not.
Peers are timed where they are installed: `pip install vbjax-dynamics`. Run: python benchmarks/sdde.py
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from stalewise.delays import parse_delay
from stalewise.dynamics import SDDE, ModeLoss, SamplePaths
from stalewise.dynamics.sdde.ensemble import cores
from stalewise.dynamics.sdde.normals import LANES, normals_alone, streams

try:
    import jax
    from vbjax_dynamics.loops import make_sdde
except ModuleNotFoundError:
    jax = make_sdde = None

CHAIN = 1.72005219864846752  # of Euler's scheme, 100 steps a delay
CONTINUOUS = 1.7041117211679139
LAG = 100
DELAYS = 30.0
PATHS = 65_536
REPEATS = 3
GOAL = 1.5


def normals_ns() -> float:
    """Nanoseconds of a normal, drawn as the paths draw them and thrown away."""
    state, raw, normals = streams(np.random.SeedSequence(1)), np.zeros(LANES, np.uint64), np.zeros(LANES)
    rounds = 500_000
    begun = time.process_time()
    total = normals_alone(state, raw, normals, rounds)
    spent = time.process_time() - begun
    if abs(total) > 4.5 * math.sqrt(rounds):
        sys.exit(f"normals: the sum of {rounds} of them is {total:.0f}")
    return 1e9 * spent / (rounds * LANES)


def checked(what: str, found: SamplePaths, exact: float, slack: float = 0.0) -> str:
    """Variance at the end over the exact one."""
    off = abs(found.variance[-1] - exact)
    if off > 4.5 * found.variance_error[-1] + slack * exact:
        sys.exit(f"{what}: variance {found.variance[-1]:.4f} ({found.variance_error[-1]:.4f}), exact {exact:.4f}")
    return f"{found.variance[-1] / exact:.3f}"


def numpy_run(paths: int, delays: float, seed: int) -> tuple[float, float]:
    """CPU nanoseconds a path-step of a ring of arrays, and the variance at the end."""
    rng = np.random.default_rng(seed)
    ring = np.zeros((LAG + 1, paths))
    steps = round(delays * LAG)
    begun = time.process_time()
    for n in range(steps):
        slot, after = n % (LAG + 1), (n + 1) % (LAG + 1)
        ring[after] = ring[slot] - ring[after] / LAG + rng.standard_normal(paths) / math.sqrt(LAG)
    spent = time.process_time() - begun
    return 1e9 * spent / (paths * steps), float(ring[steps % (LAG + 1)].var())


def vbjax_run(paths: int, delays: float, seed: int) -> tuple[float, float] | None:
    """The same by vbjax-dynamics (Heun's scheme, float32, jit), after a first run that compiles; None if missing."""
    if jax is None or make_sdde is None:
        return None
    _, loop = make_sdde(1.0 / LAG, LAG, lambda buffer, _, t, p: -p * buffer[t - LAG], 1.0)
    steps = round(delays * LAG)
    last = jax.jit(lambda buffer: loop(buffer, 1.0)[1][-1])
    noise = jax.random.normal(jax.random.PRNGKey(seed), (steps, paths))
    buffer = jax.numpy.concatenate([jax.numpy.zeros((LAG + 1, paths)), noise])
    last(buffer).block_until_ready()
    begun = time.process_time()
    ends = last(buffer).block_until_ready()
    return 1e9 * (time.process_time() - begun) / (paths * steps), float(np.var(np.asarray(ends)))


def near(what: str, variance: float, exact: float, paths: int) -> str:
    """The same check for peers: a variance of normals has the standard error sqrt(2/paths) of its size."""
    if abs(variance / exact - 1.0) > 4.5 * math.sqrt(2.0 / paths) + 0.003:
        sys.exit(f"{what}: variance {variance:.4f}, exact {exact:.4f}")
    return f"{variance / exact:.3f}"


@dataclass(frozen=True)
class Case:
    """An equation under a scheme.

    Attributes:
        name: Of the row.
        equation, scheme, terms: What is walked, as of `SDDE.sample_paths`.
        normals: Drawn in a path-step.
        exact: Variance at the end.
        paths, delays: How many, and how long.
        start: Of the paths.
        slack: Of the exact variance, for the step's own error.
    """

    name: str
    equation: SDDE
    scheme: str
    normals: int
    exact: float
    paths: int = PATHS
    delays: float = DELAYS
    terms: int | None = None
    start: float = 0.0
    slack: float = 0.0

    def run(self, seed: int, threads: int) -> tuple[float, SamplePaths]:
        """Nanoseconds a path-step, CPU time on one thread and wall time on more, and the answer."""
        clock = time.process_time if threads == 1 else time.perf_counter
        rng = np.random.default_rng(seed)
        begun = clock()
        found = self.equation.sample_paths(
            self.delays, 1.0 / LAG, self.paths, rng, self.start, self.scheme, saved=3, terms=self.terms, threads=threads
        )
        return 1e9 * (clock() - begun) / (found.paths * self.delays * LAG), found

    def row(self, alone: float, threads: int) -> str:
        """What it costs, beside its normals, on one core and on all."""
        self.run(0, 1)
        runs = [self.run(seed, 1) for seed in range(REPEATS)]
        many = median(self.run(seed, threads)[0] for seed in range(REPEATS))
        ns = median(spent for spent, _ in runs)
        said = checked(self.name, runs[0][1], self.exact, self.slack)
        over = ns / (self.normals * alone)
        goal = f"  goal {GOAL}: {'met' if over <= GOAL else 'missed'}" if self.name == "Euler" else ""
        return f"{self.name:>34} {f'{ns:.2f} ({said})':>16} {over:>12.2f}x {many:>9.2f} {1e3 / many:>7.0f}{goal}"


def cases() -> list[Case]:
    """What is measured."""
    plain = SDDE(1.0, 1.0, 1.0)
    present = SDDE(1.0, 1.0, 1.0, present_noise=0.3)
    both = SDDE(1.0, 1.0, 0.0, present_noise=0.3, delayed_noise=0.3)
    gamma = SDDE(1.0, parse_delay("gamma(1, 4)"), 1.0)
    moving = float(both.variance(4.0))
    return [
        Case("Euler", plain, "euler", 1, CHAIN),
        Case("trapezoid", plain, "trapezoid", 1, CONTINUOUS),
        Case("Euler, present noise", present, "euler", 2, present.stationary_variance(), slack=0.02),
        Case("Milstein, present noise", present, "milstein", 2, present.stationary_variance(), terms=0, slack=0.02),
        Case("Milstein, two noises", both, "milstein", 2, moving, 16_384, 4.0, 0, 1.0, 0.04),
        Case("Milstein, two noises, 5 terms", both, "milstein", 12, moving, 16_384, 4.0, 5, 1.0, 0.04),
        Case("trapezoid, gamma(4) delays", gamma, "trapezoid", 1, gamma.stationary_variance(), 1024, 20.0),
    ]


def hitting_row() -> str:
    """First passage of the level 0.2, whose exact share by the first delay is 0.7511804571."""
    equation, spent, hit = SDDE(1.0, 1.0, 0.5), [], None
    for seed in range(REPEATS + 1):
        begun = time.process_time()
        hit = equation.hitting_time(0.2, 1.0, 1.0 / LAG, 100_000, np.random.default_rng(seed), saved=3, threads=1)
        spent.append(1e9 * (time.process_time() - begun) / (100_000 * LAG))
        if abs(hit.cdf[-1] - 0.7511804571) > 4.5 * hit.survival_error[-1]:
            sys.exit(f"hitting: {hit.cdf[-1]:.4f}, exact 0.7512")
    return f"{'first hitting, bridge':>34} {median(spent[1:]):.2f}"


def modes_row() -> str:
    """Loss of 100 modes, a mode-step."""
    loss = ModeLoss(np.geomspace(0.1, 1.0, 100), 1.0, 1.0, 0.1)
    loss.sample_paths(1.0, 1.0 / LAG, 64, np.random.default_rng(0), saved=3, threads=1)
    begun = time.process_time()
    found = loss.sample_paths(10.0, 1.0 / LAG, 640, np.random.default_rng(0), saved=3, threads=1)
    ns = 1e9 * (time.process_time() - begun) / (640 * 10 * LAG * 100)
    exact = float(loss.mean(10.0))
    if abs(found.mean[-1] - exact) > 4.5 * found.mean_error[-1]:
        sys.exit(f"100 modes: mean loss {found.mean[-1]:.4f}, exact {exact:.4f}")
    return f"{'loss of 100 modes, a mode-step':>34} {f'{ns:.2f} ({found.mean[-1] / exact:.3f})':>16}"


def peer_row(name: str, peer: Callable, paths: int, delays: float, exact: float, ours: float) -> str:
    """A peer on the same equation."""
    runs = [peer(paths, delays, seed) for seed in range(REPEATS)]
    if runs[0] is None:
        return f"{name:>34} not installed"
    ns = median(spent for spent, _ in runs)
    said = near(name, float(np.mean([variance for _, variance in runs])), exact, REPEATS * paths)
    return f"{f'{name}, {round(delays * LAG)} steps':>34} {f'{ns:.1f} ({said})':>16} {ns / ours:>12.0f} times Euler's"


def main() -> None:
    normals_ns()
    alone = median(normals_ns() for _ in range(5))
    every = cores()
    print(
        f"one normal alone {alone:.2f} ns. ns a path-step (variance over the exact one), float64; no float32 is offered"
    )
    print(f"{'':>34} {'one core':>16} {'over normals':>13} {f'{every} cores':>9} {'10^6/s':>7}")
    for case in cases():
        print(case.row(alone, every), flush=True)
    print(hitting_row())
    print(modes_row())
    ours = median(cases()[0].run(seed, 1)[0] for seed in range(REPEATS))
    print("peers, the same equation, one process")
    print(peer_row("numpy", numpy_run, 4096, DELAYS, CHAIN, ours))
    for delays in (15.0, 45.0):
        print(peer_row("vbjax-dynamics", vbjax_run, 512, delays, CONTINUOUS, ours), flush=True)


if __name__ == "__main__":
    main()
