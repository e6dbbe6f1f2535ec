"""Staleness by formula against invariants and simulation."""

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.simulation.quadratic import run_ensemble
from stalewise.staleness import arrivals, longest_of, mixed_poisson, staleness_law
from studies import quadratic

LAWS = ("uniform(0.9, 1.1)", "gamma(1, 4)", "shifted_exponential(0.5, 0.5)", "lognormal(1, 1)")


@pytest.mark.parametrize("law", [*LAWS, "constant(1)", "exponential(1)", "lognormal(1, 1.5)", "gamma(1, 0.5)"])
@pytest.mark.parametrize("workers", [1, 2, 16, 65, 256])
def test_mean_is_workers_minus_one(law, workers):
    """The formula keeps the exact mean."""
    assert staleness_law(parse_delay(law), workers).mean == pytest.approx(workers - 1, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("workers", [2, 8])
def test_law_is_that_of_the_simulation(law, workers):
    """Total variation to 100,000 simulated gradients below 0.012, four times the sampling error at 8 workers."""
    study = quadratic(law, workers, 1e-3, start="staggered")
    run = run_ensemble(study, np.linspace(0, 25_000 / workers, 3), seeds=4, seed=1)
    seen, said = run.counts / run.counts.sum(), staleness_law(parse_delay(law), workers).pmf
    length = max(len(seen), len(said))
    gap = np.abs(np.pad(seen, (0, length - len(seen))) - np.pad(said, (0, length - len(said)))).sum() / 2
    assert gap < 0.012


def test_memoryless_workers_are_geometric():
    """The grid route, on a gamma law of shape 1, gives the geometric law of exponential workers."""
    grid, exact = staleness_law(parse_delay("gamma(1, 1)"), 6), staleness_law(parse_delay("exponential(1)"), 6)
    np.testing.assert_allclose(grid.pmf[:60], exact.pmf[:60], atol=2e-4)
    np.testing.assert_allclose(
        mixed_poisson(parse_delay("exponential(1)"), 6).pmf[:40], (1 / 6) * (5 / 6) ** np.arange(40), atol=3e-2
    )


def test_longest_of_exponentials():
    """The longest of N exponentials has mean H_N and variance sum 1/k^2."""
    mean, variance = longest_of(parse_delay("exponential(1)"), 10)
    k = np.arange(1, 11)
    assert mean == pytest.approx((1 / k).sum(), rel=1e-5)
    assert variance == pytest.approx((1 / k**2).sum(), rel=1e-4)


def test_dropping_is_counted():
    """With a threshold the law is counted in virtual time: bounded, and slower than without."""
    free = arrivals(quadratic("exponential(1)", 8, 0.01))
    bounded = arrivals(quadratic("exponential(1)", 8, 0.01, max_staleness=7))
    assert len(bounded.staleness.pmf) == 8
    assert bounded.rate == pytest.approx(free.rate * bounded.acceptance, rel=0.02)
    assert bounded.acceptance < 0.95
