"""How far `stalewise fit` can be trusted: bias and spread of fits with and without censoring, and false alarms.

1. Every family, 400 delays, 200 samples: bias of the fitted mean and of the 99 % quantile in standard errors of the
   average, and their spread. Once complete, once with about 25 % of the delays censored at random bounds, where the fit
   that takes bounds for delays ("naive") is set beside the one that does not.
2. P-values of goodness of fit under the truth: share below 0.05 and 0.2, Kolmogorov-Smirnov test of uniformity; and
   power against a wrong law.
3. Verdicts on independent, identical workers: how often each simplification is called unsafe, a regime or an outlier
   seen; and how often those that are there are found.

Exits with 1 if a bias exceeds four standard errors and 1 %, or a rate what it should be by more than chance (1e-3).
Run by `make validate`; a few minutes.
"""

import sys

import numpy as np
from scipy import stats

from stalewise import fit_delay, parse_delay
from stalewise.delays.fitting import rank_laws
from stalewise.delays.fitting.verdict import is_dependent, is_unlike
from stalewise.traces import Trace

TRUTHS = {
    "exponential": "exponential(2)",
    "shifted_exponential": "shifted_exponential(1, 2)",
    "gamma": "gamma(1, 4)",
    "shifted_gamma": "gamma(1, 3) + constant(2)",
    "lognormal": "lognormal(1, 0.5)",
    "shifted_lognormal": "lognormal(1, 1) + constant(2)",
    "uniform": "uniform(1, 2)",
    "weibull": "weibull(1, 1.5)",
    "pareto": "pareto(1, 3)",
    "normal": "normal(1, 0.2)",
    "hyperexponential": "hyperexponential([0.5, 4], [0.8, 0.2])",
}
DELAYS, SAMPLES = 400, 200
failures: list[str] = []


def main() -> int:
    recovery()
    p_values()
    verdicts()
    print("\n".join(["", "FAILED:", *failures]) if failures else "\nall within what chance allows")
    return int(bool(failures))


def recovery() -> None:
    print(f"1. {SAMPLES} samples of {DELAYS} delays: bias [%] (in standard errors of the average), spread [%]")
    print(
        f"{'family':<20}{'censored':>9}{'mean: bias':>18}{'spread':>8}{'naive bias':>11}{'p99: bias':>18}{'spread':>8}"
    )
    for place, (name, text) in enumerate(TRUTHS.items()):
        law = parse_delay(text)
        for censoring in (False, True):
            seeds = np.random.SeedSequence([place, censoring]).spawn(SAMPLES)
            rows = [one(name, law, censoring, np.random.default_rng(seed)) for seed in seeds]
            share, mean, naive, p99 = np.array([row for row in rows if row is not None]).T
            true = float(law.quantile(0.99))
            bias, error = summary(mean, law.mean)
            tail_bias, tail_error = summary(p99, true)
            naive_bias = summary(naive, law.mean)[0] if censoring else None
            print(
                f"{name:<20}{100 * share.mean():>7.0f} %{100 * bias:>+9.2f} ({bias / error:>+5.1f}){'':>2}"
                f"{100 * mean.std() / law.mean:>7.1f}{'' if naive_bias is None else f'{100 * naive_bias:>+10.1f}':>11}"
                f"{100 * tail_bias:>+10.2f} ({tail_bias / tail_error:>+5.1f}){100 * p99.std() / true:>8.1f}"
                f"{'' if len(mean) == SAMPLES else f'   {SAMPLES - len(mean)} without'}",
                flush=True,
            )
            if abs(bias) > max(4.0 * error, 0.01):
                failures.append(f"mean of {name}, censoring {censoring}: off by {100 * bias:.2f} %")


def one(name: str, law, censoring: bool, rng: np.random.Generator) -> tuple[float, ...] | None:
    """Censored share, fitted mean, naive mean, fitted 99 % quantile; None where the family was not needed."""
    x = law.sample(DELAYS, rng)
    bounds = (
        rng.exponential(3.0 * law.mean, DELAYS) + float(law.quantile(0.02)) if censoring else np.full(DELAYS, np.inf)
    )
    seen, lasting = x[x <= bounds], bounds[x > bounds]
    found = [c.law for c in rank_laws(seen, lasting) if c.family.name == name]
    naive = [c.law for c in rank_laws(np.minimum(x, bounds)) if c.family.name == name]
    if not found or not naive:
        return None
    return len(lasting) / DELAYS, found[0].mean, naive[0].mean, float(found[0].quantile(0.99))


def summary(values: np.ndarray, true: float) -> tuple[float, float]:
    """Relative bias and its standard error."""
    return values.mean() / true - 1.0, values.std(ddof=1) / true / np.sqrt(len(values))


def p_values() -> None:
    print("\n2. p-values of goodness of fit, 200 samples of 200 delays (chosen law, refitted bootstrap)")
    for text, censoring in (
        ("exponential(1)", False),
        ("gamma(1, 4)", False),
        ("gamma(1, 4)", True),
        ("uniform(1, 2)", False),
    ):
        law = parse_delay(text)
        p = np.array([p_value(law, censoring, seed) for seed in range(200)])
        uniform = stats.kstest(p, "uniform").pvalue
        print(
            f"{text:<18}{'25 % censored' if censoring else 'complete':<15} below 0.05: {np.mean(p < 0.05):.3f}   "
            f"below 0.2: {np.mean(p < 0.2):.3f}   uniform: p = {uniform:.2g}",
            flush=True,
        )
        if stats.binomtest(int((p < 0.05).sum()), 200, 0.05, alternative="greater").pvalue < 1e-3:
            failures.append(f"p-values of {text}, censoring {censoring}: too small too often")
    two = [np.random.default_rng(seed).permutation(np.r_[two_modes(seed)]) for seed in range(50)]
    power = np.mean([fit_delay(x, seed=0).goodness.p_value < 0.01 for x in two])
    print(f"two modes of cv 0.14 at 1 and 2 (no family has two): rejected at 0.01 in {100 * power:.0f} % of 50 samples")


def p_value(law, censoring: bool, seed: int) -> float:
    rng = np.random.default_rng(seed)
    x = law.sample(200, rng)
    bounds = rng.exponential(3.0 * law.mean, 200) if censoring else np.full(200, np.inf)
    return fit_delay(x[x <= bounds], censored=bounds[x > bounds], seed=seed).goodness.p_value


def two_modes(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.gamma(50, 0.02, 100), rng.gamma(50, 0.04, 100)])


def verdicts() -> None:
    print("\n3. verdicts, 8 workers of 100 delays each, 100 logs a row: share of logs in which it is said")
    print(f"{'workers':<44}{'unlike':>8}{'dependent':>11}{'regimes':>9}{'outliers':>10}{'law fails':>11}")
    rows = {
        "identical gamma(1, 4)": (lambda rng, _: rng.gamma(4, 0.25, 100), True),
        "identical lognormal, cv 1": (lambda rng, _: rng.lognormal(0, 0.83, 100), True),
        "identical normal, cv 0.05": (lambda rng, _: rng.normal(1, 0.05, 100), True),
        "identical pareto, shape 2.5": (lambda rng, _: 1 + rng.pareto(2.5, 100), True),
        "autoregressive 0.5, identical": (lambda rng, _: walk(rng, 100, 0.5), False),
        "autoregressive 0.8, identical": (lambda rng, _: walk(rng, 100, 0.8), False),
        "means 10 % apart, cv 0.2": (lambda rng, i: (1 + 0.1 * (i % 2)) * rng.gamma(25, 0.04, 100), False),
        "one of eight 20 % slower from half on, cv 0.1": (stepped, False),
        "1 % of delays ten times as long, cv 0.2": (spiked, False),
    }
    for name, (draw, null) in rows.items():
        said = np.array([verdict(draw, seed) for seed in range(100)])
        shares = said.mean(axis=0)
        print(f"{name:<46}" + "".join(f"{100 * s:>6.0f} %{'':>2}" for s in shares), flush=True)
        levels = (0.01, 0.0027, 0.01) if null else ()
        for what, level, count in zip(("unlike", "dependent", "regimes"), levels, said.sum(axis=0), strict=False):
            if stats.binomtest(int(count), 100, level, alternative="greater").pvalue < 1e-3:
                failures.append(f"{name}: {what} said in {count:.0f} of 100 logs")


def verdict(draw, seed: int) -> tuple[bool, ...]:
    rng = np.random.default_rng(seed)
    delays = np.array([draw(rng, i) for i in range(8)])
    end = np.cumsum(delays, axis=1)
    worker = np.repeat([str(i) for i in range(8)], delays.shape[1])
    fit = fit_delay(Trace(worker, (end - delays).ravel(), end.ravel(), {}), seed=seed)
    refuted = fit.goodness.p_value < 0.01
    return is_unlike(fit), is_dependent(fit), bool(fit.changes), fit.outliers.number > 0, refuted


def walk(rng: np.random.Generator, n: int, r: float) -> np.ndarray:
    """Lognormal delays of cv 0.2 whose logarithm is autoregressive."""
    z = rng.standard_normal(n)
    for i in range(1, n):
        z[i] = r * z[i - 1] + np.sqrt(1 - r * r) * z[i]
    return np.exp(0.2 * z)


def stepped(rng: np.random.Generator, worker: int) -> np.ndarray:
    x = rng.gamma(100, 0.01, 100)
    x[50:] *= 1.2 if worker == 0 else 1.0
    return x


def spiked(rng: np.random.Generator, _: int) -> np.ndarray:
    return rng.gamma(25, 0.04, 100) * np.where(rng.random(100) < 0.01, 10.0, 1.0)


if __name__ == "__main__":
    sys.exit(main())
