"""Sums: the tabulated convolution against closed forms, quadrature and Monte Carlo."""

import numpy as np
import pytest
from scipy import integrate, stats

from stalewise.delays import (
    AbstractDelay,
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Mixture,
    Pareto,
    Uniform,
    parse_delay,
)

T = np.concatenate([np.linspace(0.0, 20.0, 401), np.linspace(20.0, 55.0, 100)])


def _two_rates(t):
    return (np.exp(-t) - 0.01 * np.exp(-t / 0.01)) / 0.99


@pytest.mark.parametrize(
    ("law", "survival"),
    [
        (Exponential(1.0) + Exponential(1.0), stats.gamma(2).sf),
        (Exponential(1.0) + Exponential(1.0) + Exponential(1.0), stats.gamma(3).sf),
        (Gamma(0.3, 0.3) + Gamma(0.7, 0.7), stats.gamma(1).sf),
        (Exponential(1.0) + Exponential(0.01), _two_rates),
        (Exponential(0.01) + Exponential(1.0), _two_rates),
        (
            Mixture((Constant(1.0), Exponential(2.0)), (1, 3)) + Exponential(1.0),
            lambda t: 0.25 * np.exp(-np.maximum(t - 1, 0)) + 0.75 * (2 * np.exp(-t / 2) - np.exp(-t)),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, AbstractDelay) else "",
)
def test_sum_agrees_with_its_closed_form(law, survival):
    """1e-6 of absolute and 2e-4 of relative error, down to survival 1e-24; the area under it is the mean."""
    expected = survival(T)
    assert np.abs(law.survival(T) - expected).max() < 1e-6
    tail = expected > 1e-24
    assert np.abs(law.survival(T) / expected - 1)[tail].max() < 2e-4
    assert law.excess(0.0) == pytest.approx(law.mean, rel=1e-6)


def test_sum_of_uniforms_is_triangular():
    """Kinks and a bounded support."""
    law, t = Uniform(0.0, 1.0) + Uniform(0.0, 1.0), np.linspace(0.0, 2.0, 201)
    assert law.cdf(t) == pytest.approx(np.where(t < 1, t * t / 2, 1 - (2 - t) ** 2 / 2), abs=1e-7)
    assert law.density(np.array([0.5, 1.5])) == pytest.approx([0.5, 0.5], rel=1e-3)


def test_heavy_tail_of_a_sum_is_kept():
    """Pareto plus exponential, in either order, against adaptive quadrature far out."""
    pareto = Pareto(1.0, 1.5)
    for t in (0.5, 2.0, 30.0, 1e4):
        inner, _ = integrate.quad(
            lambda x, t=t: np.exp(-x) * pareto.survival(t - x), 0, t - pareto.scale, epsrel=1e-10, limit=500,
            points=[x for x in (1.0, 5.0, 25.0) if x < t - pareto.scale] or None,
        )  # fmt: skip
        expected = inner + np.exp(-(t - pareto.scale))
        for law in (pareto + Exponential(1.0), Exponential(1.0) + pareto):
            assert law.survival(t) == pytest.approx(expected, rel=2e-5)


def test_sums_of_samples_are_exact():
    """Atoms add to atoms."""
    law = Empirical(np.array([1.0, 2.0])) + Empirical(np.array([0.5, 0.5, 3.0])) + Constant(1.0)
    assert law.cdf([2.4, 2.5, 3.5, 4.9, 5.0, 6.0]) == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 5 / 6, 1.0])
    assert law.quantile([0.3, 0.5, 1.0]) == pytest.approx([2.5, 3.5, 6.0])
    assert law.excess([0.0, 4.0]) == pytest.approx([law.mean, (1.0 + 2.0) / 6])


@pytest.mark.parametrize(
    "text",
    [
        "lognormal(1, 1) + weibull(0.5, 0.7) + constant(0.2)",
        "mixture([pareto(1, 1.5), gamma(2, 3) + uniform(0, 1)], [1, 2]) + normal(1, 0.5)",
        "regimes([exponential(1), gamma(3, 2)], 20) + lognormal(0.5, 2)",
        "mixture([exponential(1) + uniform(0, 1), constant(1)], [1, 1]) + mixture([exponential(2) + gamma(1, 2), "
        "exponential(1)], [1, 1])",
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_sum_follows_its_parts(text, seed):
    """Kolmogorov-Smirnov at 1e-5 against sums of samples of the parts: eight tests, false alarm below 1e-4."""
    law, rng = parse_delay(text), np.random.default_rng(seed)
    assert stats.kstest(law.sample(20_000, rng), law.cdf).pvalue > 1e-5


def test_large_samples_in_a_sum():
    """Above 4,000 delays the convolution groups neighbours: cdf within 1e-3 of the average over all of them."""
    values = np.random.default_rng(0).lognormal(0.0, 1.0, 9000)
    law, t = Empirical(values) + Lognormal(1.0, 0.5), np.linspace(0.5, 10.0, 20)
    expected = np.array([Lognormal(1.0, 0.5).cdf(x - values).mean() for x in t])
    assert law.cdf(t) == pytest.approx(expected, abs=1e-3)
