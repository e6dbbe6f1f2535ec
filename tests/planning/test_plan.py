"""Plans: better than the obvious, honest about what cannot be done."""

import math

import pytest

from stalewise.planning import plan
from stalewise.simulation import simulate
from studies import quadratic


def open_study(law, workers, **keys):
    """A study whose schedule is left to the plan."""
    return quadratic(law, workers, 0.1, **keys).with_schedule(policy=None, learning_rate=None)


def test_plan_beats_its_neighbours_in_simulation():
    """The pick, simulated, is within 8 % of the best of a grid of workers and learning rates around it."""
    study = open_study("gamma(1, 4)", 16, noise=0.01)
    found = plan(study)
    assert found.checked.time_to_target.mean == pytest.approx(found.predicted.time_to_target.mean, rel=0.05)
    best = math.inf
    for workers in (4, 8, 16):
        for factor in (0.7, 1.0, 1.4):
            rate = factor * found.study.learning_rate * found.study.active_workers / workers
            schedule = {"policy": "async", "active_workers": workers, "learning_rate": rate}
            time = simulate(study.with_schedule(**schedule), seeds=64, horizon=25.0).time_to_target.mean
            best = min(best, time or math.inf)
    assert found.checked.time_to_target.mean < 1.08 * best
    assert not found.stay_synchronous


def test_what_is_given_is_held():
    """Learning rate and workers given in the schedule stay."""
    found = plan(quadratic("gamma(1, 4)", 16, 0.03, active_workers=8))
    assert found.study.learning_rate == 0.03
    assert found.study.active_workers == 8
    assert any("held as given" in reason for reason in found.reasons)


def test_synchronous_wins_when_delays_are_equal_and_noise_is_none():
    """Equal workers, no noise, one curvature range: asynchrony has nothing to win, and the plan says so."""
    found = plan(open_study("constant(1)", 8))
    assert found.stay_synchronous
    assert any("tay synchronous" in reason for reason in found.reasons)


def test_out_of_reach_is_an_answer():
    """A fixed learning rate whose floor is above the target: said, with the floor."""
    found = plan(quadratic("gamma(1, 4)", 1, 0.5, noise=1.0, target=1e-4))
    assert found.predicted.time_to_target.mean is None
    assert "No schedule tried" in found.reasons[0]
