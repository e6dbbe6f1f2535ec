"""The delay equation over very long times: nothing is resolved step by step, and nothing is wrong."""

import numpy as np
import pytest
from scipy.special import lambertw

from stalewise import parse_delay
from stalewise.dynamics import SDDE, ArrivalEquation
from stalewise.errors import InputError, NotConvergedError


def of_chain(gain: float, t: float) -> tuple[float, float]:
    """Mean and variance under gamma(1, 4), by the five roots of s(1 + s/4)^4 + a: partial fractions."""
    stages = np.poly1d([0.25, 1.0]) ** 4
    whole = stages * np.poly1d([1.0, 0.0]) + gain
    s = whole.roots
    c = stages(s) / whole.deriv()(s)
    sums = s[:, None] + s
    square = (c[:, None] * c * np.expm1(sums * t) / sums).sum().real
    return 1.0 - gain * (c * np.expm1(s * t) / s).sum().real, square


@pytest.mark.parametrize("gain", [1e-6, 1e-2, 1.0, 2.2])
def test_a_chain_of_stages_is_right_after_a_million_delays(gain):
    """Mean to 2e-9 and variance to 1e-9, at early times too when asked together with late ones."""
    t = np.array([5.0, 40.0, 1e3, 1e6])
    equation = SDDE(gain, parse_delay("gamma(1, 4)"), diffusion=1.0)
    wanted = np.array([of_chain(gain, float(one)) for one in t])
    np.testing.assert_allclose(equation.mean(t), wanted[:, 0], atol=2e-9)
    np.testing.assert_allclose(equation.variance(t), wanted[:, 1], rtol=1e-9)


def test_a_constant_delay_is_right_after_a_million_million_delays():
    """Gain 1e-12: the mean from a constant history is W exp(W t)-like, s = W(-a) the rightmost root."""
    gain = 1e-12
    s = lambertw(-gain).real
    wanted = -gain / s * np.exp(s * 1e12) / (1.0 + s)
    assert SDDE(gain, 1.0).mean(1e12) == pytest.approx(wanted, rel=1e-9)


def test_a_constant_delay_near_its_limit_settles_at_the_stationary_variance():
    """The second moment of a mode that rings for thousands of delays."""
    equation = SDDE(1.5707, 1.0, diffusion=1.0)
    assert equation.variance(1e6) == pytest.approx(equation.stationary_variance(), rel=1e-9)


@pytest.mark.parametrize("delay", [1.0, parse_delay("gamma(1, 4)")])
def test_any_history_is_remembered_rightly(delay):
    """A late time asked for alone, and up to which every step is resolved, agree."""

    def history(t):
        return 1.0 + 0.3 * np.sin(t)

    late = SDDE(0.05, delay).mean([31.0, 300.0], history)[0]
    assert late == pytest.approx(SDDE(0.05, delay).mean(31.0, history), rel=1e-5)
    rate = np.log(late / SDDE(0.05, delay).mean([131.0], history)[0]) / 100.0
    assert SDDE(0.05, delay).mean(231.0, history) == pytest.approx(late * np.exp(-200.0 * rate), rel=1e-5)


def test_heavy_tails_are_refused_where_they_cannot_be_resolved():
    """No exponential takes over; inverting over so long a time returned numbers of size 10."""
    with pytest.raises(NotConvergedError, match="too long to resolve; ask for at most"):
        SDDE(1.0, parse_delay("pareto(1, 2.5)")).mean(1e6)


@pytest.mark.parametrize("delay", [1.0, parse_delay("gamma(1, 4)")])
def test_growing_noise_settles_at_the_stationary_variance_or_is_refused(delay):
    """2,048 points for any time gave 7 % too little after 3,000 delays."""
    for equation in (
        SDDE(1.0, delay, diffusion=1.0, present_noise=0.5),
        ArrivalEquation(0.1, 1.0, 10.0, delay, 1.0),
    ):
        for horizon in (50.0, 300.0, 3000.0):
            try:
                assert equation.variance(horizon) == pytest.approx(equation.stationary_variance(), rel=2e-4)
            except NotConvergedError as refused:
                assert "too long to resolve" in str(refused) and horizon > 600.0
        with pytest.raises(NotConvergedError, match="or for stationary_variance"):
            equation.variance(1e5)


@pytest.mark.parametrize(("horizon", "step"), [(1e12, 0.1), (10.0, 1e-8)])
def test_paths_that_take_hours_or_all_memory_are_refused(horizon, step):
    """They hung, or were killed."""
    with pytest.raises(InputError, match="step must be at least"):
        SDDE(1.0, 1.0).sample_paths(horizon, step, 4, np.random.default_rng(0))
