"""`simulate`: invariants, statistics, endings."""

import numpy as np
import pytest

from stalewise.errors import InputError
from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.simulation.network import NetworkRun, compensated
from stalewise.study import Workload, make_study
from stalewise.workloads import load_network
from studies import quadratic

DIGITS = Workload(kind="digits-mlp")


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)", "lognormal(1, 1)"])
def test_mean_staleness_is_workers_minus_one(law):
    """Whatever the delays, the mean staleness is N - 1, and the mean age the mean delay (4.5 standard errors)."""
    run = simulate(quadratic(law, 8, 0.01, start="staggered"), seeds=16, horizon=2000.0)
    assert run.staleness.mean == pytest.approx(7.0, abs=0.01)
    error = (run.delay.cv * run.delay.mean) / np.sqrt(run.gradients.applied)
    assert run.delay.mean == pytest.approx(1.0, abs=4.5 * error + 1e-3)


def test_nothing_applied_is_older_than_the_threshold():
    """A drop threshold of 5 leaves nothing older than 5, and every gradient is accounted for."""
    run = simulate(quadratic("exponential(1)", 16, 0.02, max_staleness=5), seeds=8, horizon=50.0)
    assert run.staleness.max == 5
    assert run.gradients.dropped > 0
    total = run.gradients.applied + run.gradients.dropped + run.gradients.in_flight
    assert run.gradients.computed == total


def test_endings_are_told():
    """Divergence and a floor above the target are answers in a sentence."""
    wild = simulate(quadratic("gamma(1, 4)", 16, 0.5), seeds=4)
    assert wild.diverges
    assert wild.status.startswith("diverges")
    assert wild.time_to_target.mean is None
    stuck = simulate(quadratic("gamma(1, 4)", 4, 0.2, noise=0.1, target=1e-4), seeds=32)
    assert not stuck.diverges
    assert "gradient noise holds" in stuck.status


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_divergence_is_seen_through_gradient_noise(seed):
    """Past the mean-square limit (0.139) the noise grows without bound; that is no floor."""
    run = simulate(quadratic("gamma(1, 4)", 16, 0.2, noise=0.01), seed=seed)
    assert run.diverges
    assert run.noise_floor is None
    short = simulate(quadratic("gamma(1, 4)", 16, 0.2, noise=0.01), seed=seed, horizon=30.0)
    assert short.diverges
    assert "still grows" in short.status


def test_floor_is_only_told_where_the_loss_is_level():
    """The floor of a level loss is the predicted one; none without noise, nor of a run that ends on its way down."""
    study = quadratic("exponential(1)", 4, 0.1, noise=0.1, target=1e-5)
    assert simulate(study, seeds=256).noise_floor == pytest.approx(predict(study).noise_floor, rel=0.03)
    assert simulate(study, seeds=64, horizon=8.0).noise_floor is None
    assert simulate(quadratic("exponential(1)", 4, 0.1), seeds=8, horizon=300.0).noise_floor is None


def test_start_at_the_optimum():
    """Noise alone moves it, up to the floor, which is no divergence."""
    data = quadratic("gamma(1, 4)", 4, 0.05, noise=0.1, target=0.1).as_dict()
    data["workload"]["start"] = 0.0
    run = simulate(make_study(data), seeds=16, horizon=500.0)
    assert not run.diverges
    assert 0 < run.loss[-1] < 0.1


def test_same_seed_same_run():
    """Results depend on the seed alone, not on threads."""
    study = quadratic("gamma(1, 4)", 4, 0.1, noise=0.01)
    assert simulate(study, seeds=6, seed=3).loss == simulate(study, seeds=6, seed=3).loss
    assert simulate(study, seeds=6, seed=3).loss != simulate(study, seeds=6, seed=4).loss


def test_bad_numbers_are_refused():
    """Seeds and horizon must be positive."""
    study = quadratic("gamma(1, 4)", 4, 0.1)
    with pytest.raises(InputError, match="horizon must be positive"):
        simulate(study, horizon=-1.0)
    with pytest.raises(InputError, match="seeds must be a whole number"):
        simulate(study, seeds=-2)


def test_repetitions_take_their_starts_in_turn():
    """Of `simulate` and `predict`, with any number of starts: the mean loss at 0 is that of these first parameters."""
    data = {
        "workload": {"kind": "digits-mlp"},
        "cluster": {"workers": 2, "compute": "gamma(1, 4)"},
        "schedule": {"policy": "async", "learning_rate": 0.05},
        "target": {"loss": 2.0},
    }
    study = make_study(data)
    network = load_network(Workload(kind="digits-mlp"))
    first = [network.loss(network.start(3 + i)) for i in range(8)]
    for starts, whose in ((1, first[:1] * 5), (2, (first[:2] * 3)[:5]), (5, first[:5]), (9, first[:5])):
        run = simulate(study, seeds=5, seed=3, starts=starts, horizon=1.0)
        assert run.loss[0] == pytest.approx(np.mean(whose), rel=1e-6)
        assert (run.loss_high[0] > run.loss[0]) == (starts > 1)
    for starts, whose in ((1, first[:1]), (8, first)):
        assert predict(study, seed=3, starts=starts).loss[0] == pytest.approx(np.mean(whose), rel=1e-6)
    for run in (simulate, predict):
        with pytest.raises(InputError, match="starts must be a whole number, 1 or more, got 0"):
            run(study, starts=0)


def test_delay_compensation_is_the_published_correction():
    """g + lambda g * g * (now - read), as arrays and inside a run of two workers; none for lambda = 0."""
    gradient, read, now = (np.array(v, np.float32) for v in ([1.0, -2.0], [0.0, 1.0], [0.5, 0.0]))
    np.testing.assert_allclose(compensated(gradient, read, now, 0.1), [1.0 + 0.1 * 0.5, -2.0 - 0.1 * 4.0])
    assert compensated(gradient, read, now, 0.0) is gradient
    data = {
        "workload": {"kind": "digits-mlp"},
        "cluster": {"workers": 2, "compute": "constant(1)"},
        "schedule": {"policy": "async", "learning_rate": 0.05, "delay_compensation": 2.0},
        "target": {"loss": 1e-6},
    }
    network = load_network(DIGITS)
    run = NetworkRun(make_study(data), network, 0, network.start(0))
    run.advance(2.0)
    x = [network.start(0)]
    reads, index = [0, 0], [0, 0]
    for turn in range(4):
        worker = turn % 2
        g, _ = network.gradient(x[reads[worker]], (0, worker, index[worker]), 32)
        x.append(x[-1] - np.float32(0.05) * compensated(g, x[reads[worker]], x[-1], 2.0))
        reads[worker], index[worker] = len(x) - 1, index[worker] + 1
    np.testing.assert_allclose(run.parameters, x[-1], atol=1e-7)
    assert np.abs(x[-1] - x[0]).max() > 1e-4
