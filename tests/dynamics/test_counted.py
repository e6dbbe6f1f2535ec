"""Second moments along a recorded path, against memoryless workers, whose moments close, and against virtual time."""

from dataclasses import replace

import numpy as np
import pytest

from stalewise import limit, simulate
from stalewise.dynamics import (
    decay_along,
    dispersion,
    memoryless_second_moment,
    memoryless_step_limit,
    stationary_variance,
    step_limit,
)
from stalewise.dynamics.counted import _add_moments_in_time, _add_second_moments, _along_path
from stalewise.simulation.paths import recorded_path
from stalewise.staleness import arrivals
from stalewise.study import make_study
from studies import quadratic


@pytest.fixture(scope="module", params=[2, 8])
def memoryless(request):
    """Exponential workers, their closed moments and the same followed along a path of 2,000,000 updates."""
    study = quadratic("exponential(1)", request.param, 0.01)
    exact = arrivals(study)
    along = replace(exact, memoryless=False, path=lambda: recorded_path(study, 2_000_000, 1.0, exact.rate, seed=3))
    return request.param, exact, along


def test_paths_keep_the_mean_staleness():
    """N - 1 for one gradient a step, (N - 1)/K for groups of K; whole steps; repeated to the bit by its seed."""
    single = quadratic("gamma(1, 4)", 8, 0.01)
    path = recorded_path(single, 200_000, 1.0, 8.0, seed=1)
    assert path.staleness.mean() == pytest.approx(7.0, abs=1e-3)
    assert path.ends[-1] == len(path.staleness) == len(path.ends)
    assert np.array_equal(path.staleness, recorded_path(single, 200_000, 1.0, 8.0, seed=1).staleness)
    grouped = recorded_path(single.with_schedule(policy="k-batch-async", group=4), 200_000, 1.0, 8.0)
    assert grouped.staleness.mean() == pytest.approx(7.0 / 4.0, abs=1e-3)
    assert np.all(np.diff(grouped.ends) == 4)


def test_limit_is_that_of_closed_moments(memoryless):
    """Within 3.5 of the standard errors it says (one in 1,000 by chance, for each), which are below 2 %."""
    workers, _, along = memoryless
    found = dispersion(along)
    assert found is not None
    assert found.error < 0.02
    assert found.limit * (1.0 + found.error) == pytest.approx(memoryless_step_limit(workers), rel=3.5 * found.error)
    assert step_limit(along).mean_square == found.limit


@pytest.mark.parametrize(("share", "allowed"), [(0.3, 0.03), (0.5, 0.03), (0.8, 0.07)])
def test_variance_is_that_of_closed_moments(memoryless, share, allowed):
    """Standard error 1 % at half the limit; near it that of the limit, 1 %, comes in fourfold."""
    workers, exact, along = memoryless
    step = share * memoryless_step_limit(workers)
    assert stationary_variance(step, 1.0, along) == pytest.approx(stationary_variance(step, 1.0, exact), rel=allowed)


def test_decay_is_that_of_closed_moments(memoryless):
    """Over 4 cycles within 5 %, at 0.6 of the limit: 5 standard errors, of 400 stretches and more."""
    workers, _, along = memoryless
    step, updates = 0.6 * memoryless_step_limit(workers), 4 * workers
    exact = memoryless_second_moment(step, 0.0, 1.0, workers, updates)
    assert decay_along(step, along, updates) == pytest.approx(exact, rel=0.05)
    long = decay_along(step, along, 100_000)
    assert len(long) == 100_001
    assert long[-1] < 1e-30


@pytest.mark.parametrize(
    "schedule",
    [
        {"policy": "async", "max_staleness": 5, "on_stale": "admit"},
        {"policy": "async", "max_staleness": 9, "on_stale": "wait"},
        {"policy": "ssp", "max_staleness": 1},
        {"policy": "async", "max_staleness": 3},
        {"policy": "async", "staleness_weight": "inverse"},
        {"policy": "k-async", "group": 4},
    ],
)
def test_beyond_the_limit_virtual_time_diverges_and_below_it_does_not(schedule):
    """At 0.85 of the limit the mean loss of 64 seeds falls by 10^6 and at 1.25 it grows."""
    study = make_study(
        {
            "workload": {"eigenvalues": [1.0]},
            "cluster": {"workers": 8, "compute": "gamma(1, 4)"},
            "schedule": schedule,
            "target": {"loss": 1e-6},
        }
    )
    most = limit(study).learning_rate["mean_square"]
    assert most is not None
    below = simulate(study.with_schedule(learning_rate=0.85 * most), seeds=64, horizon=1000.0)
    assert below.time_to_target.mean is not None
    assert simulate(study.with_schedule(learning_rate=1.25 * most), seeds=64, horizon=1000.0).diverges


def test_nothing_before_a_stretch_is_read():
    """A ring as long as the longest staleness was filled with 1 for each of 100,000 stretches: minutes under CV 100."""
    timing = arrivals(quadratic("lognormal(1, 1)", 8, 0.01))
    along, lasted = _along_path(timing)
    assert along.ring > 64
    steps, out = np.array([0.05]), np.zeros((1, 201, 1))
    _add_second_moments(along, steps, 200, np.full((along.ring, 1), np.nan), np.empty((2, 1)), out)
    assert np.isfinite(out).all()
    assert out[0, -1, 0] < out[0, 0, 0]
    times = np.zeros((1, 3))
    time = np.array([0.0, 5.0, 10.0])
    _add_moments_in_time(along, 0.05, lasted, lasted.sum(), time, np.full(along.ring, np.nan), times)
    assert (np.diff(times[0]) < 0).all()
