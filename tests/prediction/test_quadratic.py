"""Prediction against simulation on quadratics, and the answers that are not numbers."""

import math
import re

import pytest

from stalewise.prediction import compare, limit, predict, stability_chart
from stalewise.simulation import simulate
from studies import quadratic


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)"])
@pytest.mark.parametrize("workers", [4, 16, 64])
def test_time_to_target_is_the_simulated_one(law, workers):
    """Within 5 % at 40 % of the mean-square limit, noise-free (12,800 / N seeds: their 95 % interval is below 2 %)."""
    rate = 0.4 * limit(quadratic(law, workers, 0.001)).learning_rate["mean_square"]
    study = quadratic(law, workers, rate)
    said = predict(study)
    seen = simulate(study, seeds=12_800 // workers, horizon=said.time[-1])
    assert said.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.05)


@pytest.mark.parametrize(
    ("law", "cluster"),
    [*((law, {}) for law in ("gamma(1, 4)", "weibull(1, 0.7)", "lognormal(1, 1)")),
     *((law, {"service": "constant(0.04)"}) for law in ("gamma(1, 4)", "lognormal(1, 1)"))],
)  # fmt: skip
def test_few_steps(law, cluster):
    """A target after some four steps: within 3 % of 4,000 seeds, though their number by a time is not normal at all."""
    study = quadratic(law, 24, 1.4, target=0.03, policy="k-batch-sync", group=1).with_cluster(**cluster)
    said = predict(study).time_to_target.mean
    seen = simulate(study, seeds=4000, seed=1, horizon=2.0 * said).time_to_target.mean
    assert said == pytest.approx(seen, rel=0.03)


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)"])
def test_time_to_target_with_gradient_noise(law):
    """Within 5 % where the floor is below half of the target (4,000 seeds: 95 % interval below 2 %)."""
    rate = 0.4 * limit(quadratic(law, 16, 0.001)).learning_rate["mean_square"]
    study = quadratic(law, 16, rate, noise=0.01)
    said = predict(study)
    assert said.noise_floor < 0.5 * study.target.loss
    seen = simulate(study, seeds=4000, horizon=said.time[-1])
    assert said.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.05)


def test_a_thousand_workers():
    """Counted in blocks of four updates: time to target within 1 % of simulation, floor within 10 % (16 seeds)."""
    study = quadratic("gamma(1, 4)", 1000, 1e-3)
    said, seen = predict(study), simulate(study, seeds=4)
    assert said.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.01)
    assert said.updates[-1] == pytest.approx(1000 * said.time[-1], rel=0.03)
    noisy = quadratic("gamma(1, 4)", 1000, 1e-3, noise=1.0)
    held = simulate(noisy, seeds=16, horizon=200.0).loss[400:]
    assert predict(noisy).noise_floor == pytest.approx(sum(held) / len(held), rel=0.1)


@pytest.mark.parametrize("law", ["exponential(1)", "gamma(1, 4)"])
def test_as_many_workers_as_there_are(law):
    """Learning rate x workers alone matters in the end: 60,000 workers are 15,000 at a quarter of it, to 1 in 1,000."""
    few, many = (predict(quadratic(law, n, 0.4 / n, noise=0.01)) for n in (15_000, 60_000))
    assert many.time_to_target.mean == pytest.approx(few.time_to_target.mean, rel=1e-3)
    assert many.noise_floor == pytest.approx(few.noise_floor / 4, rel=2e-3)
    seen = simulate(quadratic(law, 60_000, 0.4 / 60_000, noise=0.01), seeds=2, horizon=40.0)
    assert many.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=5e-3)


@pytest.mark.parametrize("law", ["gamma(1, 0.01)", "lognormal(1, 10)"])
def test_delays_of_many_scales(law):
    """No grid resolves them: staleness is counted in virtual time; the time to target within 20 % of simulation."""
    study = quadratic(law, 8, 0.02)
    said = predict(study)
    assert "no formula for these delays" in " ".join(said.notes)
    seen = simulate(study, seeds=400, horizon=said.time[-1])
    assert said.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.2)


@pytest.mark.parametrize("law", ["constant(1)", "exponential(1)", "gamma(1, 4)", "lognormal(1, 1)"])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_slow_modes_go_on_as_exponentials(law, noise, monkeypatch):
    """Whether 2^14 or 2^21 updates are solved one by one: the same to 1e-4 (constant delays: whole cycles)."""
    study = quadratic(law, 8, 1e-4, noise=noise)
    said = predict(study).time_to_target.mean
    monkeypatch.setattr("stalewise.prediction.quadratic.SOLVED_UPDATES", 1 << 21)
    monkeypatch.setattr("stalewise.prediction.quadratic._Tail.exponential", lambda *_: False)
    assert said == pytest.approx(predict(study).time_to_target.mean, rel=1e-4)


@pytest.mark.parametrize("rate", [1e-7, 1e-9, 1e-11])
def test_tiny_learning_rates_are_gradient_flow(rate):
    """loss = 0.05 exp(-0.2 rate workers t) once the stiff mode has died: the time to 0.005 in closed form."""
    said = predict(quadratic("gamma(1, 4)", 8, rate)).time_to_target.mean
    assert said == pytest.approx(math.log(10.0) / (0.2 * rate * 8), rel=1e-4)


def test_too_slow_to_tell():
    """Where a loss changes by less than rounding lets see, no time is made up."""
    said = predict(quadratic("exponential(1)", 8, 1e-15))
    assert said.time_to_target.mean is None
    assert "given longer it will" in said.status


def test_floor_is_the_simulated_one():
    """Noise floor within 4 % of the simulated one (64 seeds)."""
    study = quadratic("gamma(1, 4)", 8, 0.1, noise=0.1, target=1e-4)
    seen = simulate(study, seeds=64, horizon=4000.0)
    assert predict(study).noise_floor == pytest.approx(seen.noise_floor, rel=0.04)


def test_divergence_and_floor_are_answers():
    """Said in a sentence, with the number that would do; taken, it does."""
    wild = quadratic("gamma(1, 4)", 16, 0.5)
    said = predict(wild)
    assert said.diverges
    assert "mean-square limit 0.144" in said.status
    seen = simulate(wild.with_schedule(learning_rate=_advised(said)), seeds=8)
    assert not seen.diverges
    assert seen.time_to_target.mean is not None
    noisy = quadratic("gamma(1, 4)", 16, 0.05, noise=1.0)
    stuck = predict(noisy)
    assert not stuck.diverges
    assert stuck.time_to_target.mean is None
    settled = simulate(noisy.with_schedule(learning_rate=_advised(stuck)), seeds=64, horizon=8000.0)
    floor = sum(settled.loss[400:]) / len(settled.loss[400:])
    assert floor == pytest.approx(0.5 * 0.005, rel=0.05)


def _advised(answer) -> float:
    """The learning rate that the notes advise."""
    (found,) = [m for note in answer.notes for m in re.findall(r"; ([0-9.e-]+), half|rate of ([0-9.e-]+) would", note)]
    return float("".join(found))


def test_limit_in_workers():
    """The limit in workers is where 2 sin(pi/(2(2N-1))) passes the learning rate."""
    found = limit(quadratic("constant(1)", 4, 0.2))
    assert found.active_workers == {"mean": 8, "mean_square": 8}
    assert found.diverges is False
    assert limit(quadratic("constant(1)", 4, 0.2).with_cluster(workers=9)).diverges is True


def test_chart_falls_with_workers():
    """More workers, smaller limit; the schedule's own point is in it."""
    chart = stability_chart(quadratic("gamma(1, 4)", 16, 0.05))
    assert chart["mean_square"] == sorted(chart["mean_square"], reverse=True)
    assert chart["point"] == {"workers": 16, "learning_rate": 0.05}


def test_synchronous_is_plain_descent():
    """Without noise a synchronous step multiplies each mode by 1 - rate x curvature, each round."""
    study = quadratic("constant(1)", 8, 0.5, policy="sync")
    said = predict(study)
    assert said.loss[-1] == pytest.approx(simulate(study, seeds=2, horizon=said.time[-1]).loss[-1], rel=1e-9)


def test_compare_needs_two():
    """Ratios are to the first trajectory."""
    one = predict(quadratic("constant(1)", 4, 0.1))
    table = compare([one, one])
    assert table.rows[0]["ratios"] == [1.0, 1.0]


def test_a_loss_that_explodes_at_once_begins_where_it_starts():
    """Weight decay of 1e6: not one finite value was left, and the answer was a traceback."""
    said = predict(quadratic("gamma(1, 4)", 8, 0.05, weight_decay=1e6))
    assert said.diverges and said.loss[0] == pytest.approx(0.55)
