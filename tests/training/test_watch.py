"""What a run remembers, and how it is compared with a plan."""

import numpy as np
import pytest

from stalewise.study import make_study
from stalewise.training.records import MOST, Records
from stalewise.training.watch import Expectation, Watch

STUDY = make_study(
    {
        "workload": {"kind": "digits-mlp"},
        "cluster": {"workers": 8, "compute": "gamma(1, 4)"},
        "schedule": {"policy": "async", "learning_rate": 0.1},
        "target": {"loss": 0.1},
    }
)


def test_losses_are_thinned_and_sums_are_not():
    """A long run keeps at most so many losses, the first and the last among them; every gradient counts."""
    records = Records()
    for k in range(20_000):
        records.add(float(k), 1.0 / (k + 1), k)
        records.applied(k % 5, 0.5)
    assert len(records.time) <= MOST and records.thinned > 1
    assert records.time[0] == 0.0 and records.time[-1] == 19_999.0
    assert np.all(np.diff(records.time) > 0)
    assert records.staleness_summary().mean == records.mean_staleness == 2.0
    assert records.delay_summary().mean == pytest.approx(0.5)


def test_records_survive_a_checkpoint():
    """Read back they are the same, infinite losses included."""
    records = Records()
    for k, loss in enumerate([2.0, float("inf"), 1.0]):
        records.add(float(k), loss, k)
        records.applied(k, 0.25 * k)
    again = Records.from_dict(records.as_dict())
    assert again.as_dict() == records.as_dict()
    assert again.staleness == records.staleness and again.loss == records.loss


def feed(watch, scale, count=400, seed=0):
    rng = np.random.default_rng(seed)
    for delay in rng.gamma(4, scale / 4, size=count):
        watch.applied(7, delay)


def test_delays_that_leave_the_plan_are_told_once():
    """No warning at the assumed mean (500 windows of gamma(4): none), one at twice that, again only after a return."""
    for seed in range(500):
        watch = Watch(STUDY, Expectation(delay=1.0, staleness=7.0))
        feed(watch, 1.0, seed=seed)
        assert watch.look(1.0) == []
    feed(watch, 2.0)
    (told,) = watch.look(2.0)
    assert "after 2 s the mean delay is" in told and "the plan assumed 1" in told
    assert watch.look(3.0) == []
    feed(watch, 1.0)
    assert watch.look(4.0) == []
    feed(watch, 2.0)
    assert len(watch.look(5.0)) == 1
    assert len(watch.warnings) == 2


def test_outlook():
    """Time left to the predicted end, and the loss beside the predicted one, on a logarithmic scale between points."""
    expected = Expectation(end=10.0, time=(0.0, 10.0), loss=(1.0, 0.01))
    watch = Watch(STUDY, expected)
    assert expected.loss_at(5.0) == pytest.approx(0.1)
    assert watch.outlook(5.0, 0.11) == ", predicted end in 5 s, loss +10 % of predicted"
    assert watch.outlook(12.0, 0.1) == ", 2 s past the predicted end"
    assert Watch(STUDY, Expectation()).outlook(5.0, 0.1) == ""


def test_what_a_checkpoint_keeps_of_records_stays_as_it_was():
    """A thread may write it while more losses come."""
    records = Records()
    records.add(0.0, 1.0, 0)
    kept = records.as_dict()
    records.add(1.0, 0.5, 3)
    records.applied(2, 0.3)
    assert [len(kept[name]) for name in ("time", "loss", "updates")] == [1, 1, 1]
    assert kept["ages"] == [0.0, 0.0, 0.0] and kept["staleness"] == {}
