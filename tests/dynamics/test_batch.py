"""Many modes under many schedules at once, against the exact single call and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stalewise.dynamics import decay_of, memoryless_step_limit, step_limit
from stalewise.dynamics.batch import KEPT, settle, settle_together, step_limits
from stalewise.dynamics.inertia import Inertia
from stalewise.errors import InputError
from stalewise.prediction.quadratic import settling
from stalewise.staleness import arrivals
from stalewise.study import make_study


def study_of(law, workers, rate, noise, target):
    return make_study(
        {
            "workload": {"eigenvalues": [1.0], "gradient_noise": noise},
            "cluster": {"workers": workers, "compute": law},
            "schedule": {"policy": "async", "learning_rate": rate},
            "target": {"loss": target},
        }
    )


@pytest.mark.parametrize("law", ["constant(1)", "uniform(0.9, 1.1)", "gamma(1, 4)", "shifted_exponential(0.5, 0.5)"])
@pytest.mark.parametrize("workers", [2, 8, 64])
def test_times_are_those_of_the_single_call(law, workers):
    """At 0.01, 0.1 and 0.3 of the limit, without and with noise: within 3 % (5 % at 0.3)."""
    timing = arrivals(study_of(law, workers, 0.01, 0.0, 0.01))
    limit = step_limit(timing).mean_square
    for noise in (0.0, 0.02):
        for share, allowed in ((0.01, 0.005), (0.1, 0.03), (0.3, 0.055)):
            step = share * limit
            target = max(1e-3, 0.6 * step * noise)
            time, floor = settling(study_of(law, workers, step, noise, target), timing)
            found = settle([timing], step, 1.0, step**2 * noise, 1.0, target)
            assert found.time[0, 0] == pytest.approx(time, rel=allowed)
            assert found.floor[0, 0] == pytest.approx(floor, rel=0.05)


def test_limits():
    """Conservative beside the measured ones, exact for memoryless workers and without staleness."""
    laws = ["gamma(1, 4)", "lognormal(1, 1)", "exponential(1)", "constant(1)"]
    timings = [arrivals(study_of(law, 8, 0.01, 0.0, 0.01)) for law in laws]
    alone = arrivals(study_of("gamma(1, 4)", 1, 0.01, 0.0, 0.01))
    found = settle([*timings, alone], 0.01, 1.0, 0.0, 1.0, 1e-3).limit
    measured = np.array([step_limit(timing).mean_square for timing in timings])
    assert (found[:4] <= measured * 1.001).all() and (found[:4] > 0.85 * measured).all()
    assert found[2] == pytest.approx(memoryless_step_limit(8))
    assert found[4] == 2.0


def test_what_never_settles():
    """Past the limit, under a floor above the target, and a mode that does not move."""
    timing = arrivals(study_of("gamma(1, 4)", 8, 0.01, 0.0, 0.01))
    found = settle([timing], [0.5, 0.05, 0.0], 1.0, [0.0, 1.0, 0.0], 1.0, 1e-3)
    assert found.time[0].tolist() == [math.inf] * 3
    assert found.floor[0, 0] == math.inf and found.floor[0, 1] > 1e-3
    assert settle([timing], 0.05, 1.0, 0.0, 0.01, 1e-3).time[0, 0] == 0.0


def test_shapes():
    """Schedules times modes, or one line that names the shapes."""
    timing = arrivals(study_of("gamma(1, 4)", 8, 0.01, 0.0, 0.01))
    assert settle([timing] * 3, np.full(5, 0.01), 1.0, 0.0, 1.0, 1e-3).time.shape == (3, 5)
    with pytest.raises(InputError, match="shapes do not fit 3 schedules: step"):
        settle([timing] * 3, np.full((2, 5), 0.01), 1.0, 0.0, 1.0, 1e-3)
    with pytest.raises(InputError, match="noise must be"):
        settle([timing], 0.01, 1.0, -1.0, 1.0, 1e-3)


@pytest.mark.parametrize("modes", [3, KEPT + 3])
def test_modes_together_have_their_floors_and_equal_shares_of_what_is_left(modes):
    """The latest of them under these targets; never where floors alone are above the target."""
    timing = arrivals(study_of("gamma(1, 4)", 8, 0.01, 0.0, 0.01))
    curvature, start, target = np.geomspace(1.0, 0.1, modes), np.ones(modes), 0.02
    rates = np.array([0.1, 0.01, 0.001])
    step = rates[:, None] * curvature
    noise = rates[:, None] ** 2 * np.full(modes, 2.0 / modes)
    (limit,) = step_limits([timing])
    time, floor = settle_together(timing, step, curvature, noise, start, target, limit=limit)
    alone = [settle([timing], h, curvature, one, start, 1e300).floor[0] for h, one in zip(step, noise, strict=True)]
    assert floor == pytest.approx([one.sum() for one in alone])
    assert math.isinf(time[0]) and floor[0] > target
    for row in (1, 2):
        wanted = alone[row] + (target - floor[row]) / modes
        each = settle([timing], step[row], curvature, noise[row], start, wanted).time[0]
        assert time[row] == pytest.approx(each.max())


@pytest.mark.parametrize("inertia", [Inertia(), Inertia(0.8), Inertia(0.5, True)])
def test_whether_a_step_is_stable_is_what_its_limits_say(inertia):
    """On both sides of them, where only the index equation knows."""
    timing = replace(arrivals(study_of("gamma(1, 4)", 8, 0.01, 0.0, 0.01)), path=None)
    limit = step_limit(timing, inertia)
    assert limit.mean_square < limit.mean
    for step in (0.5, 0.999, 1.001):
        square, mean = (decay_of(step * one, timing, inertia) for one in (limit.mean_square, limit.mean))
        assert square.mean and square.mean_square == (step < 1.0)
        assert mean.mean == (step < 1.0)
