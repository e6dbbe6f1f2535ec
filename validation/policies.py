"""Update rate and staleness of every policy: formula against simulation.

For each policy, 8 delay laws and N = 1, 2, 4, 16, 64, 256 workers, prints the update rate and the staleness' mean,
variance and 99 % quantile as `stalewise.staleness.arrivals` says them, and their errors against simulations that it
does not share (other seeds; warm-up left out). The standard error of the simulated number is beside it: the number of
gradients is chosen so that it is below 0.3 % for the mean, and for the variance wherever the delay's fourth moment
allows that. Allowed: 0.5 % for rate and mean, 2 % for variance and quantile, or 3 standard errors where that is more.
Rows that `arrivals` counted itself, having no formula, are marked "counted": they check the counting, at 2 % for all
or 3 standard errors of a difference.
A quantile that is one off is right if the simulated share up to it is 99 % within 0.1 %. Exceptions are listed at the
end; exits with 1 if a formula is among them. Run by `make validate`: about 7 minutes of
processor time, 4 to 5 on two free cores. `--quick` takes a tenth of the gradients,
other words are the beginnings of the policies wanted.
"""

import sys
import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from stalewise.simulation.quadratic import run_ensemble
from stalewise.staleness import Arrivals, arrivals
from stalewise.study import Study, make_study

LAWS = (
    "constant(1)", "exponential(1)", "gamma(1,4)", "lognormal(1,0.5)", "lognormal(1,1.5)", "uniform(0.5,1.5)",
    "shifted_exponential(0.5,0.5)", "gamma(1,0.5)",
)  # fmt: skip
QUICK = 0.1
WORKERS = (1, 2, 4, 16, 64, 256)
SEEDS, BATCHES = 2, 6
GRADIENTS = {"lognormal(1,1.5)": 1.2e6, "gamma(1,0.5)": 6e5, "exponential(1)": 6e5}
FEWEST = 3e5
WARM_UP = 40.0
ALLOWED = {"rate": 0.005, "mean": 0.005, "variance": 0.02, "p99": 0.02}
COUNTED = 0.02


def schedules(workers: int) -> dict[str, dict]:
    """Every policy, with settings in proportion to the workers."""
    half = max(workers // 2, 1)
    bound = 2 * workers
    return {
        "sync": {"policy": "sync"},
        "k-sync, K = N/2": {"policy": "k-sync", "group": half},
        "k-batch-sync, K = N": {"policy": "k-batch-sync", "group": workers},
        "k-async, K = N/2": {"policy": "k-async", "group": half},
        "k-batch-async, K = N/2 + 1": {"policy": "k-batch-async", "group": workers // 2 + 1},
        "async": {"policy": "async"},
        "event-triggered, none quiet": {"policy": "event-triggered"},
        "rennala, S = 2N": {"policy": "rennala", "group": 2 * workers},
        "ssp, lead 0": {"policy": "ssp", "max_staleness": 0},
        "ssp, lead 3": {"policy": "ssp", "max_staleness": 3},
        "ringmaster, bound N, drop": {"policy": "ringmaster", "max_staleness": workers},
        "ringmaster, bound N, cancel": {"policy": "ringmaster", "max_staleness": workers, "on_stale": "cancel"},
        "async, bound 2N, drop": {"policy": "async", "max_staleness": bound},
        "async, bound 2N, cancel": {"policy": "async", "max_staleness": bound, "on_stale": "cancel"},
        "async, bound 2N, wait": {"policy": "async", "max_staleness": bound, "on_stale": "wait"},
        "async, bound 2N, admit": {"policy": "async", "max_staleness": bound, "on_stale": "admit"},
    }


@dataclass(frozen=True)
class Number:
    value: float
    error: float = 0.0


@dataclass(frozen=True)
class Simulated:
    rate: Number
    mean: Number
    variance: Number
    below: np.ndarray  # P(staleness <= k)


def horizon(study: Study, said: Arrivals, gradients: float) -> float:
    """Long enough for that many gradients, and for the rate of rounds to be known to 0.2 %."""
    rate = said.rate / (study.active_workers if study.policy == "ssp" else 1)
    rounds = study.policy in ("sync", "k-sync", "k-batch-sync", "rennala", "ssp")
    fewest = min(max((said.delay_cv / 0.0025) ** 2, 2400.0), 16_000.0) if rounds else 1200.0
    return max(gradients / study.active_workers, fewest / rate, 1200.0) / SEEDS / BATCHES


def simulate(study: Study, length: float) -> Simulated:
    """Batches of seeds, counted after a warm-up that is run with the same seeds and subtracted."""
    at = np.array([0.0, WARM_UP, WARM_UP + length])
    rates, counts = [], []
    for batch in range(BATCHES):
        begin = run_ensemble(study, at[:2], seeds=SEEDS, seed=1000 + batch)
        end = run_ensemble(study, at, seeds=SEEDS, seed=1000 + batch)
        rates.append(float((end.updates[:, 2] - end.updates[:, 1]).mean() / length))
        counted = end.counts.copy()
        counted[: len(begin.counts)] -= begin.counts
        counts.append(counted)
    moments = np.array([moments_of(c) for c in counts])
    total = np.zeros(max(map(len, counts)))
    for c in counts:
        total[: len(c)] += c
    mean, variance = moments_of(total)
    error = moments.std(axis=0, ddof=1) / np.sqrt(BATCHES)
    rate = Number(float(np.mean(rates)), float(np.std(rates, ddof=1) / np.sqrt(BATCHES)))
    return Simulated(rate, Number(mean, error[0]), Number(variance, error[1]), np.cumsum(total) / total.sum())


def moments_of(counts: np.ndarray) -> tuple[float, float]:
    k = np.arange(len(counts))
    mean = float(counts @ k / counts.sum())
    return mean, float(counts @ (k - mean) ** 2 / counts.sum())


def errors(said: Arrivals, seen: Simulated) -> dict[str, tuple[float, float]]:
    """For each number its relative error and the standard error of the simulated one, relative too."""
    law = said.staleness
    found = {"rate": (said.rate, seen.rate), "mean": (law.mean, seen.mean), "variance": (law.variance, seen.variance)}
    out = {}
    for name, (value, number) in found.items():
        scale = max(abs(number.value), 1e-6)
        out[name] = ((value - number.value) / scale if abs(value - number.value) > 1e-9 else 0.0, number.error / scale)
    mine, theirs = law.quantile(0.99), int(np.searchsorted(seen.below, 0.99))
    tie = abs(mine - theirs) <= 1 and abs(seen.below[min(mine, theirs, len(seen.below) - 1)] - 0.99) < 1e-3
    out["p99"] = (0.0 if tie else (mine - theirs) / max(theirs, 1), 0.0)
    return out


def row(name: str, schedule: dict, law: str, workers: int, share: float) -> tuple[bool, dict[str, tuple[float, float]]]:
    """Whether `arrivals` counted, and the errors; one printed line."""
    study = make_study(
        {
            "workload": {"eigenvalues": [1.0], "start": 0.0},
            "cluster": {"workers": workers, "compute": law, "start": "staggered"},
            "schedule": {"learning_rate": 1.0, **schedule},
            "target": {"loss": 0.1},
        }
    )
    said = arrivals(study)
    wide = GRADIENTS.get(law, FEWEST)
    found = errors(said, simulate(study, share * horizon(study, said, wide)))
    counted = said.staleness.method.startswith("counted")
    k = said.staleness
    cells = " ".join(f"{100 * e:>+7.2f} ({100 * s:.2f})" for e, s in found.values())
    print(
        f"{name:<28} {law:<29}{workers:>4} {'counted' if counted else 'formula'} {said.rate:>9.4f} {k.mean:>9.4f} "
        f"{k.variance:>11.4f} {k.quantile(0.99):>5d} | {cells}",
        flush=True,
    )
    return counted, found


def main() -> int:
    share = QUICK if "--quick" in sys.argv else 1.0
    began = time.perf_counter()
    print(
        f"{'policy':<28} {'delays':<29}{'N':>4} {'how':<7} {'rate':>9} {'mean':>9} {'variance':>11} {'p99':>5} | ",
        end="",
    )
    print("error [%] (standard error) of rate, mean, variance, p99")
    worst, exceptions, wrong = defaultdict(dict), [], False
    wanted = tuple(word for word in sys.argv[1:] if not word.startswith("--"))
    for name in schedules(2):
        if wanted and not name.startswith(wanted):
            continue
        for law in LAWS:
            for workers in WORKERS:
                counted, found = row(name, schedules(workers)[name], law, workers, share)
                for number, (error, sampling) in found.items():
                    kind = (name, "counted" if counted else "formula")
                    if abs(error) >= abs(worst[kind].get(number, (0.0,))[0]):
                        worst[kind][number] = (error, sampling, law, workers)
                    allowed = max(COUNTED, 4.3 * sampling) if counted else max(ALLOWED[number], 3 * sampling)
                    if abs(error) > allowed:
                        wrong |= not counted
                        exceptions.append(
                            f"{name}, {law}, N = {workers}: {number} {100 * error:+.2f} % ({100 * sampling:.2f})"
                        )
    print("\nlargest error [%] (standard error), with its law and N")
    for (name, how), numbers in worst.items():
        said = "; ".join(f"{n} {100 * e:+.2f} ({100 * s:.2f}) {law} {w}" for n, (e, s, law, w) in numbers.items())
        print(f"{name:<28} {how}: {said}")
    print(f"\n{len(exceptions)} exceptions; {time.perf_counter() - began:.0f} s")
    print("\n".join(exceptions))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
