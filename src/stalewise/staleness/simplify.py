"""What does it cost in staleness to simplify a trace? Replay against ever simpler models, in virtual time."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stalewise import checks
from stalewise.delays import AbstractDelay, Cost, DelayFit, Exponential, Replay
from stalewise.staleness.arrivals import arrivals
from stalewise.staleness.law import StalenessLaw, staleness_law
from stalewise.study import Study, make_study
from stalewise.traces import Trace

Array = NDArray[np.float64]
MODELS = ("replay", "independent", "per_worker", "identical", "fitted", "memoryless")
MOST_WORKERS = 10_000
_LEAST_DRAWS = 4000  # of each worker, and 1,000,000 of all of them together


def simplification_costs(trace: Trace, fit: DelayFit, *, seed: int = 0) -> tuple[Cost, ...]:
    """Staleness of the trace's workers, always busy under ``async``, replayed and simplified step by step.

    ``independent`` draws each worker's delays with replacement; ``per_worker`` from the law fitted to that worker, or
    the same where none fits; ``identical`` from all workers' delays; ``fitted`` from the pooled law; ``memoryless``
    from an exponential law of the mean. All but the last are counted over 200,000 updates from stationary clocks, which
    leaves the variance a standard error of about 1 %.

    Args:
        trace: What was fitted.
        fit: Its fit.
        seed: Of the draws and of virtual time.

    Returns:
        One cost a model, in the order of `MODELS`; none for a single worker or for more than 10,000.

    Limits:
        A replay begins each worker at a random place of its own record: what workers do at the same time (a slow disk
        under all of them) is not kept.
    """
    checks.at_least("seed", seed, 0)
    sequences = trace.by_worker()
    workers = len(sequences)
    if not 2 <= workers <= MOST_WORKERS:
        return ()
    rng = np.random.default_rng(seed)
    laws: dict[str, AbstractDelay] = {
        "replay": Replay(tuple(sequences.values())),
        **{name: Replay(_drawn(sequences, draw, rng)) for name, draw in _models(sequences, fit).items()},
    }
    seen = {name: _counted(law, workers, seed) for name, law in laws.items()}
    seen["memoryless"] = staleness_law(Exponential(fit.mean), workers)
    return tuple(_cost(name, seen[name], seen["replay"]) for name in MODELS)


Draw = Callable[[str, int, np.random.Generator], Array]


def _models(sequences: dict[str, Array], fit: DelayFit) -> dict[str, Draw]:
    pool = fit.delays

    def own_law(label: str, n: int, rng: np.random.Generator) -> Array:
        worker = fit.workers[label]
        return worker.law.sample(n, rng) if worker.law and worker.fits else rng.choice(sequences[label], n)

    return {
        "independent": lambda label, n, rng: rng.choice(sequences[label], n),
        "per_worker": own_law,
        "identical": lambda _, n, rng: rng.choice(pool, n),
        "fitted": lambda _, n, rng: fit.law.sample(n, rng),
    }


def _drawn(sequences: dict[str, Array], draw: Draw, rng: np.random.Generator) -> tuple[Array, ...]:
    """Long independent records, one a worker, for the replay to read."""
    size = max(_LEAST_DRAWS, 1_000_000 // len(sequences))
    tiny = np.finfo(float).tiny
    return tuple(np.maximum(draw(label, size, rng), tiny) for label in sequences)


def _counted(law: AbstractDelay, workers: int, seed: int) -> StalenessLaw:
    return arrivals(_question(workers).with_delay(law), seed=seed).staleness


def _question(workers: int) -> Study:
    """Asynchronous workers whose clocks are in their stationary state; what they train does not matter here."""
    return make_study(
        {
            "workload": {"eigenvalues": [1.0], "start": 0.0},
            "cluster": {"workers": workers, "compute": "exponential(1)", "start": "staggered"},
            "schedule": {"policy": "async", "learning_rate": 1.0},
            "target": {"loss": 1.0},
        }
    )


def _cost(model: str, seen: StalenessLaw, replay: StalenessLaw) -> Cost:
    p99, true = seen.quantile(0.99), replay.quantile(0.99)
    return Cost(
        model=model,
        mean=seen.mean,
        variance=seen.variance,
        p99=p99,
        variance_error=seen.variance / replay.variance - 1.0 if replay.variance > 1e-9 else None,
        p99_error=p99 / true - 1.0 if true > 0 else None,
    )
