"""Roots of the index equation: closed forms, companion matrices, counts."""

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.dynamics import Inertia, index_root, index_roots
from stalewise.dynamics.recursion import characteristic_coefficients, decay_per_update, mean_step_limit
from stalewise.dynamics.roots.discrete import count_inside
from stalewise.errors import InputError
from stalewise.staleness import CONSTANT, StalenessLaw, staleness_law


def fixed(staleness):
    """Every gradient equally stale."""
    return StalenessLaw(np.eye(1, staleness + 1, staleness)[0], CONSTANT)


@pytest.mark.parametrize(("staleness", "limit"), [(1, 1.0), (2, 0.618033988749894848), (99, 0.0157867338194265642)])
def test_root_on_the_circle_at_the_limit(staleness, limit):
    """Levin, May (1976): 2 sin(pi/(2(2m + 1))); inside below, outside above."""
    assert abs(index_root(limit, fixed(staleness)).value) == pytest.approx(1.0, abs=1e-10)
    assert (
        abs(index_root(0.99 * limit, fixed(staleness)).value)
        < 1.0
        < abs(index_root(1.01 * limit, fixed(staleness)).value)
    )


@pytest.mark.parametrize("workers", [2, 8])
def test_memoryless_workers(workers):
    """(z - 1)(z - (1 - 1/N)) + hz/N = 0."""
    law, step = staleness_law(parse_delay("exponential(1)"), workers), 0.9 / workers
    exact = np.roots([1.0, -2.0 + (1.0 + step) / workers, 1.0 - 1.0 / workers])
    assert abs(index_root(step, law).value - exact[np.argmax(exact.imag)]) < 1e-9


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "uniform(0.9, 1.1)"])
@pytest.mark.parametrize("inertia", [Inertia(), Inertia(0.9), Inertia(0.5, nesterov=True, decay=0.1)])
def test_roots_are_those_of_the_companion_matrix(law, inertia):
    """All of them at 4 workers, the largest certified at 16, at three shares of the limit."""
    for workers in (4, 16):
        staleness = staleness_law(parse_delay(law), workers)
        most = mean_step_limit(staleness, inertia.filter())
        for share in (0.05, 0.5, 1.2):
            coefficients = np.trim_zeros(
                characteristic_coefficients(share * most, staleness.pmf, inertia.filter()), "b"
            )
            exact = np.roots(coefficients)
            root = index_root(share * most, staleness, inertia)
            assert abs(root.value) == pytest.approx(np.abs(exact).max(), rel=1e-7)
            assert root.certified
            assert np.log(abs(root.value)) == pytest.approx(
                -decay_per_update(share * most, staleness, inertia.filter()), abs=1e-7
            )
            if workers == 4:
                roots = index_roots(share * most, staleness, inertia)
                assert sum(2 if one.value.imag else 1 for one in roots) == len(coefficients) - 1
                largest = np.sort(np.abs(exact))[::-1]
                assert abs(roots[0].value) == pytest.approx(largest[0], rel=1e-7)


def test_counts_are_beyond_doubt():
    """Zeros inside a circle against numpy's roots, 30 random polynomials; every sure count is right."""
    rng = np.random.default_rng(3)
    sure = 0
    for _ in range(30):
        coefficients = rng.standard_normal(rng.integers(3, 20))
        radius = rng.uniform(0.3, 2.0)
        count, beyond_doubt = count_inside(coefficients, radius)
        if beyond_doubt:
            sure += 1
            assert count == np.sum(np.abs(np.roots(coefficients[::-1])) < radius)
    assert sure > 25


def test_at_its_end_at_once():
    """One worker, h = 1: the minimum is reached in one step."""
    assert index_root(1.0, fixed(0)).value == 0.0


def test_bad_arguments():
    """One line, the value and what is allowed."""
    with pytest.raises(InputError, match="step must be positive"):
        index_root(0.0, fixed(1))
    with pytest.raises(InputError, match="staleness must be at most 600 updates long, got 1001; try index_root"):
        index_roots(0.1, fixed(1000))
