"""Delays shorter by half the time between updates: closed forms, certified roots, and the index equation."""

import cmath
import math

import pytest

from stalewise import parse_delay
from stalewise.dynamics import (
    decay_per_update,
    fleet_gain_limit,
    fleet_root,
    gain_limit,
    rightmost_root,
    shortened,
)
from stalewise.dynamics.half_step import _Advanced
from stalewise.dynamics.recursion import mean_step_limit
from stalewise.errors import InputError
from stalewise.staleness import staleness_law

GAMMA = parse_delay("gamma(1, 4)")


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("constant(1)", "constant(0.75)"),
        ("uniform(0.5, 1.5)", "uniform(0.25, 1.25)"),
        ("shifted_exponential(0.5, 0.5)", "shifted_exponential(0.25, 0.5)"),
        ("gamma(1, 4) + constant(0.5)", "gamma(1, 4) + constant(0.25)"),
    ],
)
def test_delays_of_at_least_half_a_step_have_a_shorter_law(text, shorter):
    """Its transform is the law's times e^(s/2R)."""
    law = parse_delay(text)
    found = shortened(law, 0.25)
    s = 0.3 + 2.0j
    assert found.mean == pytest.approx(law.mean - 0.25)
    assert complex(found.laplace(s)) == pytest.approx(cmath.exp(0.25 * s) * complex(law.laplace(s)))
    assert found == parse_delay(shorter)


def test_delays_that_may_be_shorter_have_none():
    assert shortened(GAMMA, 0.01) is None
    assert shortened(0.2, 0.25) is None
    assert shortened(GAMMA, 0.0) == GAMMA


@pytest.mark.parametrize("workers", [1, 2, 4, 16, 64])
def test_limit_of_constant_delays(workers):
    """(pi/2) N/(N - 1/2) over the mean."""
    assert fleet_gain_limit(2.0, workers / 2.0) == pytest.approx(math.pi / 4 * workers / (workers - 0.5), rel=1e-11)


@pytest.mark.parametrize(
    ("text", "published"),
    [("gamma(1, 4)", (4.511, 2.988, 2.415, 2.308)), ("uniform(0.9, 1.1)", (2.110, 1.805, 1.629, 1.590))],
)
def test_limits_found_before(text, published):
    """2, 4, 16 and 64 workers, by another program."""
    assert [fleet_gain_limit(parse_delay(text), n) for n in (2, 4, 16, 64)] == pytest.approx(published, abs=2e-3)


@pytest.mark.parametrize("gain", [0.1, 0.3, 0.45, 1.0, 2.0])
def test_followed_roots_are_the_certified_ones_where_these_exist(gain):
    """Shifted exponential, no delay shorter than half a step: a real root, two of them, a pair."""
    law, half = parse_delay("shifted_exponential(0.5, 0.5)"), 0.125
    advanced = _Advanced(gain, law, half)
    found = advanced.least(advanced.followed(complex(rightmost_root(gain, law).value)))
    certified = fleet_root(gain, law, 4.0)
    assert certified.certified
    assert found == pytest.approx(complex(certified.value), rel=1e-7)


@pytest.mark.parametrize("gain", [0.2, 1 / math.e, 0.45, 1.0, 2.0])
@pytest.mark.parametrize("workers", [4, 8, 64])
def test_roots_solve_the_equation(gain, workers):
    """By the law's own transform; they say that nothing was counted, and no real root lies nearer to 0."""
    root = fleet_root(gain, GAMMA, workers)
    s = complex(root.value)
    assert abs(s + gain * cmath.exp(s / (2 * workers)) * complex(GAMMA.laplace(s))) < 1e-9
    assert not root.certified and "nothing is counted" in root.note
    if s.imag == 0.0:
        nearer = [s.real * share for share in (0.1, 0.5, 0.9, 0.99)]
        assert all(x + gain * math.exp(x / (2 * workers)) * float(GAMMA.laplace(x).real) > 0 for x in nearer)


@pytest.mark.parametrize(("text", "workers", "left"), [("constant(1)", 4, 0.004), ("gamma(1, 4)", 8, 0.02)])
def test_the_correction_halves_the_error_at_least(text, workers, left):
    """Decay rates at gain x mean 0.2, 1/e, 1 and the limit, against the index equation."""
    law = parse_delay(text)
    staleness = staleness_law(law, workers)
    for gain in (0.2, 1 / math.e, 1.0):
        true = workers * decay_per_update(gain / workers, staleness)
        with_it, without = (
            -root.value.real / true - 1.0 for root in (fleet_root(gain, law, workers), rightmost_root(gain, law))
        )
        assert abs(with_it) < min(0.5 * abs(without), left)
    limit = workers * mean_step_limit(staleness)
    assert abs(fleet_gain_limit(law, workers) / limit - 1.0) < 0.5 * abs(gain_limit(law) / limit - 1.0)


def test_heavy_tails_have_a_limit_and_no_root():
    """Lognormal, 64 workers: within 3 % of the index equation's limit, from above."""
    law = parse_delay("lognormal(1, 1)")
    assert fleet_root(0.5, law, 64.0).value is None
    assert fleet_gain_limit(law, 64.0) / (64 * mean_step_limit(staleness_law(law, 64))) == pytest.approx(
        1.027, abs=0.005
    )


def test_wrong_arguments_are_refused():
    for call in (lambda: fleet_root(1.0, 1.0, 0.0), lambda: fleet_gain_limit(1.0, -1.0), lambda: shortened(1.0, -1.0)):
        with pytest.raises(InputError, match="must be"):
            call()
