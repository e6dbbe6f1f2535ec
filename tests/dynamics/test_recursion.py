"""The delayed recursion: golden values, closed forms, two routes to one number."""

import math

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.dynamics import memoryless_second_moment, step_limit, transient
from stalewise.dynamics.inertia import NO_FILTER, Inertia
from stalewise.dynamics.limits import decay_rate, stationary_variance
from stalewise.dynamics.recursion import (
    _circle_integrals,
    characteristic_coefficients,
    decay_per_update,
    mean_square_step_limit,
    mean_step_limit,
    noise_gain,
    reciprocal_series,
    zeros_inside,
)
from stalewise.simulation.quadratic import run_ensemble
from stalewise.staleness import arrivals, staleness_law
from studies import quadratic


@pytest.mark.parametrize(("step", "value"), [(0.05, 3.10050e-4), (0.1, 6.35615e-4), (0.2, 3.11264e-3)])
def test_memoryless_moments_are_golden(step, value):
    """Eight exponential workers after 60 updates."""
    assert memoryless_second_moment(step, 0.0, 1.0, 8, 60)[-1] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(("workers", "value"), [(2, 2.561553), (4, 3.372281), (16, 6.178908), (64, 11.824752)])
def test_memoryless_limit(workers, value):
    """(1 + sqrt(1 + 8N))/2 to 6 digits, and the closed moments really turn there."""
    limit = step_limit(arrivals(quadratic("exponential(1)", workers, 0.01))).mean_square
    assert limit * workers == pytest.approx(value, abs=1e-6)
    below = memoryless_second_moment(limit * 0.97, 0.0, 1.0, workers, 8_000)
    above = memoryless_second_moment(limit * 1.03, 0.0, 1.0, workers, 8_000)
    assert below[-1] < below[4_000]
    assert above[-1] > above[4_000]


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
def test_constant_limit(workers):
    """2 sin(pi/(2(2N-1))), from the formula and from the zeros of the index equation."""
    value = 2 * math.sin(math.pi / (2 * (2 * workers - 1)))
    law = staleness_law(parse_delay("constant(1)"), workers)
    assert step_limit(arrivals(quadratic("constant(1)", workers, 0.01))).mean_square == pytest.approx(value, rel=1e-12)
    assert mean_step_limit(law) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("law", ["gamma(1, 4)", "uniform(0.9, 1.1)", "lognormal(1, 1)"])
def test_limits_are_where_zeros_cross(law):
    """Just below the mean limit no zero lies in the unit disc, just above one does; mean square comes first."""
    staleness = staleness_law(parse_delay(law), 8)
    limit = mean_step_limit(staleness)
    for factor, inside in ((0.999, False), (1.001, True)):
        coefficients = np.concatenate([[1.0], limit * factor * staleness.pmf])
        coefficients[1] -= 1.0
        assert bool(zeros_inside(coefficients, 1.0)) is inside
    assert mean_square_step_limit(staleness) < limit


@pytest.mark.parametrize("step", [0.01, 0.05, 0.15])
def test_decay_is_the_largest_companion_eigenvalue(step):
    """Counting zeros and Newton agree with the eigenvalues of the recursion's companion matrix."""
    law = staleness_law(parse_delay("uniform(0.9, 1.1)"), 8)
    coefficients = np.concatenate([[1.0], step * law.pmf])
    coefficients[1] -= 1.0
    modulus = np.abs(np.roots(coefficients)).max()
    assert decay_per_update(step, law) == pytest.approx(-math.log(modulus), rel=1e-6)


def test_transient_by_brute_force():
    """With full staleness noise the variance is that of independent staleness draws (4.5 standard errors)."""
    law, step, runs, updates = staleness_law(parse_delay("gamma(1, 4)"), 3), 0.25, 40_000, 24
    rng = np.random.default_rng(5)
    x = np.ones((updates + 1, runs))
    for k in range(updates):
        past = np.maximum(k - rng.choice(len(law.pmf), runs, p=law.pmf), 0)
        x[k + 1] = x[k] - step * x[past, np.arange(runs)] + 0.1 * rng.standard_normal(runs)
    said = transient(step, 0.01, 1.0, law, 1.0, updates)
    error = x[-1].std() / math.sqrt(runs)
    assert said.mean[-1] == pytest.approx(x[-1].mean(), abs=4.5 * error)
    assert said.second[6] == pytest.approx((x[6] ** 2).mean(), rel=0.05)
    assert said.second[-1] == pytest.approx((x[-1] ** 2).mean(), rel=0.05)


def test_stationary_variance_of_plain_sgd():
    """One worker: V = noise/(h (2 - h))."""
    timing = arrivals(quadratic("gamma(1, 4)", 1, 0.3))
    assert stationary_variance(0.3, 0.01, timing) == pytest.approx(0.01 / (0.3 * 1.7), rel=1e-8)


def test_stationary_variance_is_where_the_moments_end():
    """Closed formula and long recursion agree for exponential workers."""
    timing = arrivals(quadratic("exponential(1)", 4, 0.25))
    end = memoryless_second_moment(0.25, 0.01, 0.0, 4, 5000)[-1]
    assert stationary_variance(0.25, 0.01, timing) == pytest.approx(end, rel=1e-9)


def test_decay_rates():
    """Two exponential workers, u = 0.1: 0.1031, known to four digits; one: (1 - h)^2 a renewal; heavy tails: none."""
    assert decay_rate(0.1, arrivals(quadratic("lognormal(1, 1)", 8, 0.1))) is None
    assert decay_rate(0.05, arrivals(quadratic("exponential(1)", 2, 0.1))) == pytest.approx(0.1031, rel=1e-3)
    alone = decay_rate(0.3, arrivals(quadratic("exponential(1)", 1, 0.1)))
    assert alone == pytest.approx(0.5 * (1.0 - 0.7**2), rel=1e-6)
    assert decay_rate(0.3, arrivals(quadratic("constant(1)", 1, 0.1))) == pytest.approx(-math.log(0.7), rel=1e-6)


@pytest.mark.parametrize(("law", "share"), [("gamma(1, 4)", 0.05), ("gamma(1, 4)", 0.5), ("uniform(0.9, 1.1)", 0.2)])
def test_decay_rates_are_those_of_virtual_time(law, share):
    """Half the slope of the log of the mean loss of 8 x 2,000 runs, 4 workers, from 3 to 15 cycles: within 3 %."""
    timing = arrivals(quadratic(law, 4, 0.01))
    step = share * step_limit(timing).mean_square
    study = quadratic(law, 4, step, start="staggered")
    study = study.model_copy(update={"workload": study.workload.model_copy(update={"eigenvalues": [1.0]})})
    time, slopes = np.linspace(0.0, 15.0, 241), []
    for seed in range(8):
        loss = run_ensemble(study, time, seeds=2000, seed=seed).loss.mean(axis=0)
        slopes.append(-0.5 * np.polyfit(time[time >= 3], np.log(loss[time >= 3]), 1)[0])
    assert decay_rate(step, timing) == pytest.approx(np.mean(slopes), rel=0.03)


@pytest.mark.parametrize("law", ["uniform(0.5, 1.5)", "shifted_exponential(0.5, 0.5)", "gamma(1, 4)"])
@pytest.mark.parametrize("workers", [4, 32, 64])
def test_limits_where_the_transform_has_zeros(law, workers):
    """P(w) close to zero on the circle does not break the search; zeros cross at the limit."""
    staleness = staleness_law(parse_delay(law), workers)
    limit = mean_step_limit(staleness)
    assert not zeros_inside(characteristic_coefficients(0.999 * limit, staleness.pmf), 1.0)
    assert zeros_inside(characteristic_coefficients(1.001 * limit, staleness.pmf), 1.0)
    assert 0 < mean_square_step_limit(staleness) <= limit


def test_what_jitter_makes_of_slow_modes():
    """g_0 - g_1, of which the limit is made, to 7 digits though both are 10,000 times larger: heavy tail."""
    staleness, step = staleness_law(parse_delay("pareto(1, 3)"), 2), 1.58e-4
    slow, (plain, *_) = noise_gain(step, staleness), _circle_integrals(step, staleness.pmf, NO_FILTER, 0.0, 1 << 20)
    assert slow.additive - slow.read == pytest.approx(plain.additive - plain.read, rel=1e-7)


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "gamma(1, 0.3)", "exponential(1)"])
def test_noise_gain_of_slow_modes(law):
    """The residue on a larger circle agrees with the trapezoid rule on the unit circle, and with 1/(2h) as h falls."""
    staleness = staleness_law(parse_delay(law), 8)
    slow, (plain, *_) = noise_gain(0.01, staleness), _circle_integrals(0.01, staleness.pmf, NO_FILTER, 0.0, 1 << 18)
    assert (slow.additive, slow.read) == pytest.approx((plain.additive, plain.read), rel=1e-10)
    for step in (1e-5, 1e-9):
        gain = noise_gain(step, staleness)
        assert 2 * step * gain.additive == pytest.approx(1.0, abs=2 * step * 8)
        assert 2 * step * gain.read == pytest.approx(1.0, abs=20 * step * 8)


@pytest.mark.parametrize("step", [1e-4, 0.03, 0.1])
def test_long_recursions(step, monkeypatch):
    """Newton's iteration on power series gives what the recursion gives, to rounding."""
    coefficients = characteristic_coefficients(step, staleness_law(parse_delay("gamma(1, 4)"), 16).pmf)
    plain = reciprocal_series(coefficients, 5000)
    monkeypatch.setattr("stalewise.dynamics.recursion.RECURSED", 0)
    assert reciprocal_series(coefficients, 5000) == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize(("law", "off"), [("gamma(1, 4)", 0.001), ("constant(1)", 1e-5), ("uniform(0.5, 1.5)", 0.001)])
def test_limits_of_large_fleets(law, off):
    """Ages counted in blocks give the mean limit that the ages themselves give."""
    timing = arrivals(quadratic(law, 1000, 0.01))
    assert timing.coarse.block == 4
    assert timing.coarse.rate * 4 == timing.rate
    assert mean_step_limit(timing.coarse.staleness) / 4 == pytest.approx(mean_step_limit(timing.staleness), rel=off)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("momentum", "step"), [(0.0, 0.005789), (0.0, 0.0058), (0.9, 0.000525), (0.99, 6e-5)])
def test_a_zero_that_newton_loses_is_counted(momentum, step):
    """Pareto(2.5), 8 workers: a slope next to 0 throws the first try far off, where it was infinity over infinity."""
    law, how = arrivals(quadratic("pareto(1, 2.5)", 8, 0.01)).staleness, Inertia(momentum).filter()
    decay = decay_per_update(step, law, how)
    coefficients = characteristic_coefficients(step, law.pmf, how)
    assert zeros_inside(coefficients, math.exp(decay * (1.0 - 1e-3))) == 0
    assert zeros_inside(coefficients, math.exp(decay * (1.0 + 2e-3))) > 0
