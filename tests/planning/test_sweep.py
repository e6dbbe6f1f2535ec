"""Sweeps: every combination, kept, widened, told where it has no meaning."""

import csv
import io

import numpy as np
import pytest

from stalewise.errors import InputError
from stalewise.hands import Hands
from stalewise.planning import parse_axes, sweep
from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.simulation.quadratic import run_ensemble
from studies import quadratic

STUDY = quadratic("gamma(1, 4)", 4, 0.1, noise=1e-3)
AXES = {"schedule.learning_rate": [0.05, 0.1, 3.0], "cluster.workers": [1, 4]}


@pytest.mark.parametrize(("engine", "alone"), [("predict", predict), ("simulate", simulate)])
def test_each_row_is_the_verbs_own_answer(engine, alone):
    """Also at the combination that diverges; the best row is the least."""
    found = sweep(STUDY, AXES, engine=engine)
    assert [tuple(row["values"].values()) for row in found.rows] == [
        (rate, workers) for rate in (0.05, 0.1, 3.0) for workers in (1, 4)
    ]
    for row in found.rows:
        one = STUDY.with_fields(row["values"])
        told = alone(one)
        assert row["time_to_target"] == told.time_to_target.mean and row["status"] == told.status
        if row["time_to_target"]:
            assert row["cost"] == pytest.approx(one.active_workers * row["time_to_target"])
            assert row["traffic"] == pytest.approx(16 * one.active_workers * row["time_to_target"], rel=0.1)
    assert [row["time_to_target"] for row in found.rows[4:]] == [None, None]
    assert found.best["time_to_target"] == min(row["time_to_target"] for row in found.rows[:4])
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(table) == 6 and float(table[3]["time_to_target"]) == found.rows[3]["time_to_target"]
    assert table[4]["time_to_target"] == "" and table[4]["schedule.learning_rate"] == "3.0"


def test_a_sweep_that_is_widened_computes_what_is_missing(tmp_path):
    """And a changed study is another one."""
    told = []
    first = sweep(STUDY, AXES, engine="predict", hands=Hands(tmp_path))
    wide = {**AXES, "cluster.workers": [1, 4, 6]}
    second = sweep(
        STUDY, wide, engine="predict", hands=Hands(tmp_path), progress=lambda share, _what: told.append(share)
    )
    assert len(told) == 3 and told[-1] == 1.0
    assert [row for row in second.rows if row["values"]["cluster.workers"] != 6] == first.rows
    other = STUDY.with_workload(gradient_noise=1e-2)
    assert sweep(other, AXES, engine="predict", hands=Hands(tmp_path)).rows != first.rows


def test_combinations_without_meaning_are_told_and_the_rest_is_done():
    """More active workers than there are; if that is all, or the study lacks a learning rate, it is refused."""
    found = sweep(STUDY, {"schedule.active_workers": [2, 9]}, engine="predict")
    assert found.rows[0]["time_to_target"] and found.rows[1]["time_to_target"] is None
    assert "no meaning: schedule.active_workers must be at most cluster.workers = 4, got 9" in found.rows[1]["status"]
    with pytest.raises(InputError, match="no combination has a meaning; the first: schedule"):
        sweep(STUDY, {"schedule.active_workers": [9]}, engine="predict")
    with pytest.raises(InputError, match="learning_rate is missing"):
        sweep(STUDY.with_schedule(learning_rate=None), {"cluster.workers": [2, 3]}, engine="predict")
    with pytest.raises(InputError, match="needs 1 to 10,000 combinations, got 160,000"):
        sweep(STUDY, {"cluster.workers": list(range(1, 401)), "schedule.learning_rate": [0.1] * 400})


def test_axes_are_read():
    """Lists, and values at equal ratios."""
    axes = parse_axes(["schedule.policy=['async', 'sync']", "schedule.learning_rate = geom(0.01, 1, 5)"])
    assert list(axes) == ["schedule.policy", "schedule.learning_rate"]
    assert axes["schedule.policy"] == ["async", "sync"]
    assert axes["schedule.learning_rate"] == pytest.approx([0.01, 0.03162, 0.1, 0.3162, 1.0], rel=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schedule.learning_rate", "write section.field="),
        ("rate=[1]", "write section.field="),
        ("schedule.learning_rate=0.1", "needs a list of values"),
        ("schedule.learning_rate=[]", "needs a list of values"),
        ("schedule.learning_rate=geom(0, 1, 5)", "geom takes two positive ends"),
        ("schedule.learning_rate=geom(0.1, 1)", "geom takes two positive ends"),
        ("schedule.learning_rate=[0.1", "needs a list of values"),
    ],
)
def test_axes_that_are_none(text, words):
    """One line each."""
    with pytest.raises(InputError, match=words):
        parse_axes([text])


def test_a_field_is_varied_once():
    """Twice is refused, not the last one taken."""
    with pytest.raises(InputError, match="workers is given twice"):
        parse_axes(["cluster.workers=[1]", "cluster.workers=[2]"])


@pytest.mark.parametrize("bound", [0, 3])
def test_traffic_of_steps_that_wait(bound):
    """Every gradient computed reads and sends, however many a step takes: within 3 % of those that a run begins."""
    one = quadratic("gamma(1, 4)", 8, 0.1, max_staleness=bound, on_stale="wait", start="staggered")
    run = run_ensemble(one, np.array([0.0, 4000.0]), seeds=4, seed=3)
    rate = run.tally.applied / 4 / 4000.0
    for engine in ("predict", "simulate"):
        (row,) = sweep(one, {"schedule.learning_rate": [0.1]}, engine=engine).rows
        assert row["traffic"] / row["time_to_target"] == pytest.approx(8 * 2 * rate, rel=0.08)
