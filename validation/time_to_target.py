"""Time to target on the quadratic of examples/: prediction against simulation.

Prints a table for N = 4, 16, 64 workers under constant, gamma(4) and exponential delays, at three shares of the
mean-square limit, without and with the example's gradient noise. Seeds are added until the simulated interval is
2 % wide, to 16,000 at most. Where the noise floor is above half of the target the mean loss comes down to the target
at a shallow angle, so that a small error of the floor is a large one of the time: such rows are marked ~ and judged
apart. Exits with 1 if any other is off by more than 5 %. Run by `make validate`; a few minutes.
"""

import sys
from pathlib import Path

from stalewise import limit, load_study, predict, simulate
from stalewise.study import make_study

FEWEST, MOST = 1000, 16_000
ALLOWED = 0.05
STUDY = load_study(Path(__file__).parents[1] / "examples" / "quadratic.toml")


def main() -> int:
    judged, limited, never = [], [], 0
    print(f"{'noise':>6} {'delays':<24}{'N':>4}{'share':>7}{'floor':>7}{'predicted':>11}", end="")
    print(f"{'simulated [95 %]':>28}{'seeds':>7}{'error':>9}")
    for noise in (0.0, 0.01):
        for law in ("constant(1.0)", "gamma(mean=1.0, shape=4)", "exponential(1.0)"):
            for workers in (4, 16, 64):
                for share in (0.15, 0.4, 0.7):
                    error, floor = row(noise, law, workers, share)
                    if error is None:
                        never += 1
                    else:
                        (limited if floor > 0.5 else judged).append(abs(error))
    worst = max(judged)
    print(f"largest error of {len(judged)} rows: {100 * worst:.1f} %, allowed {100 * ALLOWED:.0f} %")
    print(f"largest of {len(limited)} rows (~) whose floor is above half of the target: {100 * max(limited):.1f} %")
    print(f"{never} rows never settle, by prediction and by simulation")
    return int(worst > ALLOWED)


def row(noise: float, law: str, workers: int, share: float) -> tuple[float | None, float]:
    """Relative error of the prediction, None where both say never; and the floor as a share of the target."""
    data = STUDY.as_dict()
    data["workload"]["gradient_noise"] = noise
    data["cluster"].update(workers=workers, compute=law)
    study = make_study(data)
    study = study.with_schedule(learning_rate=share * (limit(study).learning_rate["mean_square"] or 0.0))
    said = predict(study)
    floor = (said.noise_floor or 0.0) / study.target.loss
    head = f"{noise:>6g} {law:<24}{workers:>4}{share:>7.2f}{floor:>6.2f}{'~' if floor > 0.5 else ' '}"
    mean = said.time_to_target.mean
    seeds = FEWEST
    while True:
        seen = simulate(study, seeds=seeds, horizon=said.time[-1]).time_to_target
        if mean is None and seen.mean is None:
            print(f"{head}{'never':>11}{'never':>28}{seeds:>7}", flush=True)
            return None, floor
        width = (seen.high - seen.low) / seen.mean if seen.mean and seen.low and seen.high else 1.0
        if width < 0.02 or seeds >= MOST or mean is None:
            break
        seeds *= 4
    shown = "-" if seen.mean is None else f"{seen.mean:.3f} [{seen.low:.3f}, {seen.high or float('inf'):.3f}]"
    if mean is None or seen.mean is None:
        print(f"{head}{'never' if mean is None else f'{mean:.3f}':>11}{shown:>28}{seeds:>7}{'':>9}", flush=True)
        return float("inf"), floor
    error = mean / seen.mean - 1.0
    print(f"{head}{mean:>11.3f}{shown:>28}{seeds:>7}{100 * error:>+7.1f} %", flush=True)
    return error, floor


if __name__ == "__main__":
    sys.exit(main())
