"""Staleness of recorded jobs: models that `stalewise fit` finds, against a replay of the record in virtual time.

For each trace and each model the variance and the 99 % quantile of staleness under ``async`` with the trace's workers,
from `simplification_costs`'s chain (draws in virtual time) and, for the texts that a study takes, from `predict` and
`simulate` of a study with ``compute`` = the text. Goals: the fitted model within 15 % of the replay, the empirical
within 5 %. Which model is "the fitted one" is what the verdict says: the pooled law where workers are alike, each
worker's own law (its own delays where no law passes) where they are not; likewise for the empirical one. Exits with 1
if a goal is missed. Run by `make validate`; under a minute.

    python validation/replay.py [TRACE ...]
"""

import sys
from pathlib import Path

from stalewise import fit_delay, predict, read_trace, simulate
from stalewise.delays.fitting.verdict import is_unlike
from stalewise.staleness import simplification_costs
from stalewise.study import make_study

EXAMPLES = Path(__file__).parents[1] / "examples"
TRACES = (EXAMPLES / "pai_job_1.csv", EXAMPLES / "bytedance_se.csv")
FITTED, EMPIRICAL = 0.15, 0.05


def main(paths: list[str]) -> int:
    missed = [row for path in (paths or TRACES) for row in trace_rows(Path(path))]
    print("\n".join(missed) if missed else "every goal is met")
    return int(bool(missed))


def trace_rows(path: Path) -> list[str]:
    trace = read_trace(path)
    fit = fit_delay(trace)
    costs = {cost.model: cost for cost in simplification_costs(trace, fit)}
    unlike = is_unlike(fit)
    print(f"\n{path.name}: {len(fit.workers)} workers, {'unlike' if unlike else 'alike'}; best law {fit.law}")
    print(f"  {'model':<28}{'mean':>8}{'variance':>10}{'error':>9}{'p99':>6}{'error':>9}")
    for cost in costs.values():
        print(
            f"  {cost.model:<28}{cost.mean:>8.2f}{cost.variance:>10.4g}{percent(cost.variance_error)}"
            f"{cost.p99:>6}{percent(cost.p99_error)}"
        )
    texts = {"trace": f'trace("{path.name}")', "empirical": f'empirical("{path.name}")', "law": str(fit.law)}
    for name, text in texts.items():
        study = question(path, text, len(fit.workers))
        for engine, run in (("predict", predict), ("simulate", simulated)):
            seen, replay = run(study).staleness, costs["replay"]
            print(
                f"  {f'{engine} {name}':<28}{seen.mean:>8.2f}{seen.variance:>10.4g}"
                f"{percent(seen.variance / replay.variance - 1)}{seen.p99:>6}{percent(seen.p99 / replay.p99 - 1)}"
            )
    chosen = {"per_worker": FITTED, "independent": EMPIRICAL} if unlike else {"fitted": FITTED, "identical": EMPIRICAL}
    return [
        f"{path.name}: {model} misses its goal of {100 * goal:.0f} %"
        for model, goal in chosen.items()
        if max(abs(costs[model].variance_error or 0.0), abs(costs[model].p99_error or 0.0)) > goal
    ]


def simulated(study):
    return simulate(study, seeds=16, horizon=400 * study.delay().mean)


def question(path: Path, text: str, workers: int):
    return make_study(
        {
            "workload": {"eigenvalues": [1.0], "start": 1.0},
            "cluster": {"workers": workers, "compute": text, "start": "staggered"},
            "schedule": {"policy": "async", "learning_rate": 0.1 / workers},
            "target": {"loss": 0.001},
        },
        folder=path.parent,
    )


def percent(value: float | None) -> str:
    return f"{'-' if value is None else f'{100 * value:+.1f} %':>9}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
