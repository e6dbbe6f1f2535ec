"""Rounds of synchronising policies against closed forms and plain sampling."""

import math

import numpy as np
import pytest
from scipy import stats

from stalewise.delays import parse_delay
from stalewise.staleness import kth_of, longest_of, rounds
from stalewise.staleness.rounds import kth_gradient

SAMPLES = 40_000


def test_kth_of_exponentials_is_a_harmonic_sum():
    """The k-th of N memoryless delays has mean sum 1/i and variance sum 1/i^2, i from N - k + 1 to N."""
    i = np.arange(41, 65)
    mean, variance = kth_of(parse_delay("exponential(1)"), 64, 24)
    assert mean == pytest.approx((1 / i).sum(), rel=1e-5)
    assert variance == pytest.approx((1 / i**2).sum(), rel=1e-4)


@pytest.mark.parametrize(("workers", "k"), [(1, 1), (2, 1), (7, 3), (256, 1)])
def test_kth_of_uniforms_is_beta(workers, k):
    """A law that starts late: the k-th of N uniform delays on (0.5, 1.5) is 0.5 + Beta(k, N - k + 1)."""
    law = stats.beta(k, workers - k + 1)
    mean, variance = kth_of(parse_delay("uniform(0.5, 1.5)"), workers, k)
    assert mean == pytest.approx(0.5 + law.mean(), rel=1e-5)
    assert variance == pytest.approx(law.var(), rel=1e-3)


def test_longest_of_one_is_the_delay():
    """Of a single delay, mean and variance are its own, the heavy tail up to 1e-12 included."""
    law = parse_delay("lognormal(1, 1.5)")
    assert longest_of(law, 1) == pytest.approx((law.mean, law.variance), rel=1e-3)


def sampled(law: str, workers: int, k: int, *, stale_first: bool) -> tuple[float, float]:
    """Mean of the time until k gradients that count, and its standard error, from plain draws of every cycle."""
    rng = np.random.default_rng(3)
    delay, cycles = parse_delay(law), 3 * k // workers + 12
    draws = delay.sample(SAMPLES * workers * cycles, rng).reshape(SAMPLES, workers, cycles)
    done = draws.cumsum(axis=2)
    if stale_first:
        done[:, 1:, 0] = np.inf  # useless: what was under way when the round began
    times = np.partition(done.reshape(SAMPLES, -1), k - 1, axis=1)[:, k - 1]
    return float(times.mean()), float(times.std() / np.sqrt(SAMPLES))


@pytest.mark.parametrize("law", ["gamma(1, 4)", "uniform(0.5, 1.5)", "shifted_exponential(0.5, 0.5)"])
@pytest.mark.parametrize(("workers", "k"), [(2, 2), (4, 7), (16, 8)])
def test_gradients_of_fresh_workers(law, workers, k):
    """K gradients of N workers begun together: within 4 standard errors and 0.1 % (1 false alarm in 1,700 runs)."""
    mean, _ = kth_gradient(parse_delay(law), workers, k)
    seen, error = sampled(law, workers, k, stale_first=False)
    assert abs(mean - seen) < 4 * error + 1e-3 * seen


def test_memoryless_rounds_of_newest_versions():
    """Memoryless workers under way are as good as new, so sampling them from their start is exact."""
    mean, _ = kth_gradient(parse_delay("exponential(1)"), 4, 6, stale_first=True)
    seen, error = sampled("exponential(1)", 4, 6, stale_first=True)
    assert abs(mean - seen) < 4 * error + 1e-3 * seen


def test_gradients_of_one_worker_add_up():
    """One worker needs k delays, whatever their law."""
    law = parse_delay("lognormal(1, 1.5)")
    assert kth_gradient(law, 1, 5) == pytest.approx((5 * law.mean, 5 * law.variance))
    assert kth_gradient(parse_delay("exponential(1)"), 3, 5)[0] == pytest.approx(5 / 3, rel=1e-3)


@pytest.mark.parametrize(
    "text", ["gamma(1, 4)", "lognormal(1, 1)", "weibull(1, 0.7)", "hyperexponential([0.5, 3], [0.8, 0.2])"]
)
@pytest.mark.parametrize("stale_first", [False, True])
def test_very_many_gradients_are_normal_counts(text, stale_first, monkeypatch):
    """At 64 a worker the formula is within 0.001 % of the mean and 4 % of the variance of the sums; a million are no
    harder, where a table would not fit into memory."""
    law = parse_delay(text)
    said = kth_gradient(law, 8, 64 * 8, stale_first=stale_first)
    monkeypatch.setattr(rounds, "MANY", math.inf)
    summed = kth_gradient.__wrapped__(law, 8, 64 * 8, stale_first=stale_first)
    assert said[0] == pytest.approx(summed[0], rel=1e-5) and said[1] == pytest.approx(summed[1], rel=0.04)
    assert said != summed
    monkeypatch.undo()
    mean, variance = kth_gradient(law, 8, 8_000_000, stale_first=stale_first)
    assert mean == pytest.approx(1e6, rel=1e-5) and variance == pytest.approx(law.cv**2 * 1e6 / 8, rel=1e-3)
