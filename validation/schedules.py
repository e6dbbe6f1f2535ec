"""Every policy and cluster on a quadratic, up to the limit: prediction against virtual time.

8 workers of gamma(4) cycles on curvatures 1 and 0.1 with gradient noise, at five shares of the mean-square limit that
`limit` certifies. For each the noise floor, predicted over simulated, and the time to a target of four times the
predicted floor. Standard errors come from 4 ensembles of other seeds. A row is right if both are within 4 %, or 3
standard errors where that is more. Rows that are not are listed at the end, for docs/theory.md to tell; exits with 1
if one is among them below half of the limit, or if a run diverges below 0.9 of it. Run by `make validate`: about 3
minutes.
"""

import sys
from statistics import mean, stdev

from stalewise import limit, predict, simulate
from stalewise.study import Study, make_study

SHARES = (0.2, 0.4, 0.6, 0.8, 0.9)
ENSEMBLES, SEEDS = 4, 512
ALLOWED, LOW = 0.04, 0.5
LONG = 300.0  # s, so that what takes longer than predicted is seen
SLOW = {"group": [{"count": 4}, {"count": 4, "compute": "gamma(3, 4)"}]}
STUDIES: dict[str, tuple[dict, dict]] = {
    "async": ({"policy": "async"}, {}),
    "sync": ({"policy": "sync"}, {}),
    "k-sync 4": ({"policy": "k-sync", "group": 4}, {}),
    "k-batch-sync 6": ({"policy": "k-batch-sync", "group": 6}, {}),
    "k-async 4": ({"policy": "k-async", "group": 4}, {}),
    "k-batch-async 4": ({"policy": "k-batch-async", "group": 4}, {}),
    "ssp 1": ({"policy": "ssp", "max_staleness": 1}, {}),
    "rennala 4": ({"policy": "rennala", "group": 4}, {}),
    "ringmaster 4 cancel": ({"policy": "ringmaster", "max_staleness": 4, "on_stale": "cancel"}, {}),
    "drop 3": ({"policy": "async", "max_staleness": 3}, {}),
    "drop 8": ({"policy": "async", "max_staleness": 8}, {}),
    "wait 9": ({"policy": "async", "max_staleness": 9, "on_stale": "wait"}, {}),
    "admit 5": ({"policy": "async", "max_staleness": 5, "on_stale": "admit"}, {}),
    "producer-consumer": (
        {"policy": "producer-consumer", "group": 4, "max_staleness": 2}, {"service": "constant(0.4)"}
    ),
    "inverse weights": ({"policy": "async", "staleness_weight": "inverse"}, {}),
    "polynomial(0.5) weights": ({"policy": "async", "staleness_weight": "polynomial(0.5)"}, {}),
    "unlike workers": ({"policy": "async"}, SLOW),
    "unlike workers, k-async 4": ({"policy": "k-async", "group": 4}, SLOW),
    "shared link": ({"policy": "async"}, {"service": "exponential(0.1)"}),
    "4 local steps": ({"policy": "async", "local_steps": 4}, {}),
    "sync, 8 local steps": ({"policy": "sync", "local_steps": 8}, {}),
}  # fmt: skip


def study_of(name: str, rate: float | None = None, target: float = 0.01) -> Study:
    """One row's study; without a learning rate, for its limit."""
    schedule, cluster = STUDIES[name]
    return make_study(
        {
            "workload": {"eigenvalues": [1.0, 0.1], "gradient_noise": 0.01, "start": 1.0},
            "cluster": {"workers": 8, "compute": "gamma(1, 4)", "start": "staggered", **cluster},
            "schedule": {**schedule, **({} if rate is None else {"learning_rate": rate})},
            "target": {"loss": target},
        }
    )


def main() -> int:
    rate_share = ", ".join(f"{share:g}" for share in SHARES)
    print(f"predicted over simulated (standard error), at {rate_share} of the mean-square limit")
    wrong, fatal = [], []
    for name in STUDIES:
        most = limit(study_of(name)).learning_rate["mean_square"]
        floors, times = [], []
        for share in SHARES:
            floor, time = row(name, share * most)
            for cells, what, found in ((floors, "floor", floor), (times, "time", time)):
                cells.append("diverges" if found is None else f"{found[0]:.3f} ({found[1]:.3f})")
                if found is None or abs(found[0] - 1.0) > max(ALLOWED, 3.0 * found[1]):
                    wrong.append(f"{name}, {share:g} of the limit: {what} {cells[-1]}")
                    if share < LOW or (found is None and share < 0.9):
                        fatal.append(wrong[-1])
        print(f"{name:<26} limit {most:<8.4g} floor " + "  ".join(floors), flush=True)
        print(f"{'':<41} time  " + "  ".join(times), flush=True)
    print(f"{len(wrong)} of {2 * len(STUDIES) * len(SHARES)} are off by more than {ALLOWED:.0%}:")
    print("\n".join(wrong))
    return int(bool(fatal))


def row(name: str, rate: float) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Floor and time to target, each predicted over simulated with its standard error; None if a run diverges."""
    floor = predict(study_of(name, rate)).noise_floor
    if floor is None:
        return None, None
    study = study_of(name, rate, target=4.0 * floor)
    said = predict(study)
    horizon = max(4.0 * said.time[-1], LONG)
    seen = [simulate(study, seeds=SEEDS, seed=1000 * (i + 1), horizon=horizon) for i in range(ENSEMBLES)]
    if any(run.diverges or run.noise_floor is None or run.time_to_target.mean is None for run in seen):
        return None, None
    return (
        _ratio(floor, [run.noise_floor for run in seen]),
        _ratio(said.time_to_target.mean, [run.time_to_target.mean for run in seen]),
    )


def _ratio(said: float, seen: list[float]) -> tuple[float, float]:
    return said / mean(seen), said / mean(seen) * stdev(seen) / mean(seen) / ENSEMBLES**0.5


if __name__ == "__main__":
    sys.exit(main())
