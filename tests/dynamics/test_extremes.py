"""Spectra over 12 decades, up to a million workers: an answer that other routes share, or a refusal; never a hang."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise import predict
from stalewise.dynamics import (
    constant_step_limit,
    decay_rate,
    memoryless_step_limit,
    stationary_variance,
    step_limit,
)
from stalewise.dynamics.batch import settle
from stalewise.staleness import arrivals
from stalewise.study import make_study

FLEETS = st.sampled_from([1, 2, 7, 100, 1_000, 30_000, 1_000_000])
LAWS = st.sampled_from(["constant(1)", "exponential(1)", "gamma(1, 4)"])


def study_of(law, workers, rate, eigenvalues=(1.0,), noise=0.0, target=1e-3, **schedule):
    return make_study(
        {
            "workload": {"eigenvalues": list(eigenvalues), "gradient_noise": noise},
            "cluster": {"workers": workers, "compute": law},
            "schedule": {"policy": "async", "learning_rate": rate, **schedule},
            "target": {"loss": target},
        }
    )


@settings(max_examples=25, deadline=None)
@given(law=LAWS, workers=FLEETS, exponent=st.floats(-12.0, -2.0))
def test_slow_modes_of_any_fleet(law, workers, exponent):
    """Far below the limit staleness does not matter: variance nu/2h, decay R h, each to the first order in h N."""
    timing = arrivals(study_of(law, workers, 1e-9)).coarse
    step = 10.0**exponent / workers * timing.block
    near = 3.0 * 10.0**exponent
    assert stationary_variance(step, 1.0, timing) * 2.0 * step == pytest.approx(1.0, rel=near + 1e-6)
    assert decay_rate(step, timing) == pytest.approx(timing.rate * step, rel=near + 1e-6)


@settings(max_examples=20, deadline=None)
@given(workers=st.integers(1, 1_000_000))
def test_limits_of_any_fleet(workers):
    """Constant and memoryless workers against their closed forms, one by one or in blocks."""
    constant = step_limit(arrivals(study_of("constant(1)", workers, 1e-9)))
    assert constant.mean_square == pytest.approx(constant_step_limit(workers), rel=1e-6)
    memoryless = step_limit(arrivals(study_of("exponential(1)", workers, 1e-9)))
    assert memoryless.mean_square == pytest.approx(memoryless_step_limit(workers), rel=1e-6)


@settings(max_examples=6, deadline=None)
@given(law=LAWS, workers=st.sampled_from([1, 8, 300, 100_000]), momentum=st.sampled_from([0.0, 0.9]))
def test_spectra_over_twelve_decades(law, workers, momentum):
    """Curvatures 1e-12 to 1: finite and in order, the floor that of slow modes for all but the stiffest."""
    eigenvalues = np.geomspace(1e-12, 1.0, 25)
    rate = 0.1 / workers * (1.0 - momentum)
    said = predict(study_of(law, workers, rate, eigenvalues, noise=1e-6, target=0.4, momentum=momentum))
    assert said.mean_square_stable
    slow = 0.25 * rate / (1.0 - momentum) * 1e-6 * 25
    assert said.noise_floor == pytest.approx(slow, rel=0.02)
    assert 0 < said.decay_rate < 1e-9 * said.update_rate
    assert all(math.isfinite(one) for one in said.loss)
    assert said.time_to_target.mean is not None and said.time_to_target.mean > 0


def test_the_search_call_over_twelve_decades():
    """Slow modes settle after log(start/target)/2 over their decay, whatever their curvature."""
    timing = arrivals(study_of("gamma(1, 4)", 64, 1e-9))
    step = np.geomspace(1e-13, 1e-3, 21) / 64.0
    found = settle([timing], step, 1.0, 0.0, 1.0, 1e-3)
    np.testing.assert_allclose(found.time[0] * timing.rate * step, 0.5 * math.log(0.5 / 1e-3), rtol=5e-3)
