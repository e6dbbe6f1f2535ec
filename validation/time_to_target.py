"""Time to target on the quadratic of examples/: prediction against simulation.

Prints a table for N = 4, 16, 64 workers under constant, gamma(4) and exponential delays, at three shares of the
mean-square limit, with and without gradient noise. Run by `make validate`; about a minute.
"""

from pathlib import Path

from stalewise import limit, load_study, predict, simulate

SEEDS = 1000
STUDY = load_study(Path(__file__).parents[1] / "examples" / "quadratic.toml")


def main() -> None:
    worst = 0.0
    print(f"{'noise':>6} {'delays':<24}{'N':>4}{'share':>7}{'predicted':>11}{'simulated [95 %]':>28}{'error':>8}")
    for noise in (0.0, 0.01):
        for law in ("constant(1.0)", "gamma(mean=1.0, shape=4)", "exponential(1.0)"):
            for workers in (4, 16, 64):
                for share in (0.15, 0.4, 0.7):
                    worst = max(worst, row(noise, law, workers, share))
    print(f"largest error {100 * worst:.1f} %")


def row(noise: float, law: str, workers: int, share: float) -> float:
    study = STUDY.with_cluster(workers=workers, compute=law)._with("workload", {"gradient_noise": noise})
    rate = share * (limit(study).learning_rate["mean_square"] or 0.0)
    study = study.with_schedule(learning_rate=rate)
    said = predict(study)
    head = f"{noise:>6g} {law:<24}{workers:>4}{share:>7.2f}"
    if said.time_to_target.mean is None:
        print(f"{head}   {said.status}")
        return 0.0
    if (said.noise_floor or 0.0) > 0.9 * study.target.loss:
        print(f"{head}   floor {said.noise_floor:.4g} is within 10 % of the target: settling time is ill-defined")
        return 0.0
    seen = simulate(study, seeds=SEEDS, horizon=said.time[-1]).time_to_target
    if seen.mean is None:
        print(f"{head}{said.time_to_target.mean:>11.3f}   not settled in simulation")
        return 1.0
    error = said.time_to_target.mean / seen.mean - 1.0
    span = f"{seen.mean:.3f} [{seen.low:.3f}, {'-' if seen.high is None else f'{seen.high:.3f}'}]"
    print(f"{head}{said.time_to_target.mean:>11.3f}{span:>28}{100 * error:>+7.1f} %", flush=True)
    return abs(error)


if __name__ == "__main__":
    main()
