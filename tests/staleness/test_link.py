"""The shared link against the product form, exact small cases, and a plain simulation."""

import heapq

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.staleness import link_rate


def simulated(think: str, service: str, workers: int, jobs: int = 40_000) -> float:
    """Rate of a first-come-first-served link, the first tenth left out."""
    rng = np.random.default_rng(4)
    thinks, services = (parse_delay(law).sample(jobs + workers, rng) for law in (think, service))
    arrivals = list(thinks[:workers])
    heapq.heapify(arrivals)
    free = start = 0.0
    for job in range(jobs):
        free = max(free, heapq.heappop(arrivals)) + services[job]
        if job == jobs // 10:
            start = free
        heapq.heappush(arrivals, free + thinks[workers + job])
    return (jobs - 1 - jobs // 10) / (free - start)


@pytest.mark.parametrize("think", ["exponential(1)", "gamma(1, 4)", "constant(1)"])
@pytest.mark.parametrize("workers", [2, 5, 12])
def test_memoryless_service_has_the_product_form(think, workers):
    """p_n ~ N!/(N - n)! s^n, for any computing time of mean 1."""
    n = np.arange(workers + 1)
    falling = np.cumprod(np.concatenate([[1.0], workers - n[:-1]]))
    idle = 1.0 / (falling * 0.1**n).sum()
    assert link_rate(parse_delay(think), parse_delay("exponential(0.1)"), workers) == pytest.approx((1 - idle) / 0.1)


@pytest.mark.parametrize(
    ("think", "service", "workers", "within"),
    [
        ("exponential(1)", "constant(0.1)", 8, 0.006),  # exact: sampling error 0.2 % alone
        ("exponential(1)", "gamma(0.1, 4)", 12, 0.006),
        ("gamma(1, 4)", "exponential(0.1)", 12, 0.012),  # exact: sampling error of the service 0.5 %
        ("gamma(1, 4)", "constant(0.1)", 12, 0.03),
        ("uniform(0.5, 1.5)", "constant(0.1)", 12, 0.04),
        ("constant(1)", "gamma(0.1, 4)", 12, 0.055),
        ("lognormal(1, 1.5)", "constant(0.1)", 8, 0.02),  # sampling error of the heavy tail 0.5 %
        ("constant(1)", "constant(0.1)", 8, 0.001),
    ],
)
def test_rate_is_that_of_a_plain_simulation(think, service, workers, within):
    """As stated: exact if either is memoryless or both constant, else off by a few per cent where the link fills."""
    said = link_rate(parse_delay(think), parse_delay(service), workers)
    assert said == pytest.approx(simulated(think, service, workers), rel=within)


def test_limits():
    """One worker never queues; no service is no link; many workers fill it, by 10,000 of them without overflow."""
    think, service = parse_delay("gamma(1, 4)"), parse_delay("gamma(0.1, 2)")
    assert link_rate(think, service, 1) == pytest.approx(1 / 1.1)
    assert link_rate(think, parse_delay("constant(0)"), 7) == pytest.approx(7.0)
    assert link_rate(think, service, 10_000) == pytest.approx(10.0)
