"""Trajectories: strict JSON in and out, summaries, and files that are whole or absent."""

import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.errors import InputError
from stalewise.protocol import Server
from stalewise.trajectory import (
    DelaySummary,
    Gradients,
    StalenessSummary,
    TargetTime,
    Trajectory,
    finite,
    load_json,
    load_trajectory,
    to_json,
    write_atomically,
)

STUDY = {
    "workload": {"eigenvalues": [1.0]},
    "cluster": {"workers": 2, "compute": "exponential(1)"},
    "target": {"loss": 0.1},
}


def make(**changes):
    values = {
        "engine": "simulate",
        "study": STUDY,
        "seed": 3,
        "time": [0.0, 1.0],
        "updates": [0, 2],
        "loss": [1.0, 0.5],
        "update_rate": 2.0,
        "staleness": StalenessSummary.from_counts(np.array([1, 3])),
        "delay": DelaySummary(mean=1.0, cv=None),
        "gradients": Gradients(computed=4, applied=3, in_flight=1),
        "time_to_target": TargetTime(mean=0.1 + 0.2, low=None),
        "status": "reached the target: Δ = 0",
    }
    return Trajectory.model_validate({**values, **changes})


def test_json_reads_back(tmp_path):
    """A trajectory written as JSON and loaded again is the same, to the last bit, and knows its study."""
    trajectory = make(notes=["one\ntwo"], loss_low=[0.1, 1 / 3])
    write_atomically(tmp_path / "t.json", trajectory.to_json())
    again = load_trajectory(tmp_path / "t.json")
    assert again == trajectory
    assert again.as_study().active_workers == 2


def test_json_has_the_keys_of_the_contract():
    """Other people's scripts rely on these."""
    keys = json.loads(make().to_json()).keys()
    assert {"engine", "study", "seed", "time", "updates", "loss", "loss_low", "loss_high", "update_rate"} <= keys
    assert {"staleness", "delay", "gradients", "mean_stable", "mean_square_stable", "decay_rate"} <= keys
    assert {"noise_floor", "time_to_target", "status"} <= keys


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_json_is_strictly_valid_whatever_goes_in(value):
    """Neither NaN nor Infinity is ever written."""
    json.loads(to_json(value), parse_constant=refuse)


def test_numpy_values_become_plain():
    """Arrays become lists, scalars numbers, what is not finite null."""
    value = {"a": np.array([1.0, math.nan]), "b": np.float32(0.5), "c": np.int64(2), "d": np.bool_(True), 5: -math.inf}
    assert json.loads(to_json(value)) == {"a": [1.0, None], "b": 0.5, "c": 2, "d": True, "5": None}
    assert (finite(math.nan), finite(math.inf), finite(None), finite(np.float64(2))) == (None, None, None, 2.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=200))
def test_staleness_summary_agrees_with_the_sample(sample):
    """Moments and quantiles from counts are those of the values themselves."""
    summary = StalenessSummary.from_counts(np.bincount(sample, minlength=20))
    assert summary.mean == pytest.approx(np.mean(sample))
    assert summary.variance == pytest.approx(np.var(sample), abs=1e-12)
    for p, value in ((0.5, summary.p50), (0.99, summary.p99)):
        assert sum(summary.pmf[:value]) < p + 1e-12 and sum(summary.pmf[: value + 1]) > p - 1e-12
    assert (summary.max, len(summary.pmf)) == (max(sample), max(sample) + 1)
    assert sum(summary.pmf) == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [[], [0.0, 0.0]])
def test_staleness_of_nothing_is_null(counts):
    """No applied gradient, no staleness."""
    summary = StalenessSummary.from_counts(np.array(counts))
    assert (summary.mean, summary.p99, summary.max, summary.pmf) == (None, None, None, [])


def test_delay_summary_from_moments():
    """Mean and cv of ages 1, 2, 3; null for none; no cv where all ages are zero."""
    summary = DelaySummary.from_moments(3, 6.0, 14.0)
    assert (summary.mean, summary.cv) == (2.0, pytest.approx(math.sqrt(2 / 3) / 2))
    assert DelaySummary.from_moments(0, 0.0, 0.0) == DelaySummary(mean=None, cv=None)
    assert DelaySummary.from_moments(2, 0.0, 0.0) == DelaySummary(mean=0.0, cv=None)


def test_gradients_from_a_server_add_up():
    """computed is the sum of the others."""
    server = Server(3)
    server.begin()
    server.finished(1)
    server.lost(2)
    gradients = Gradients.from_tally(server.tally)
    assert gradients == Gradients(computed=4, applied=1, lost=1, in_flight=2)


def test_divergence_is_either_kind():
    """Unknown is not unstable."""
    assert make(mean_stable=False).diverges and make(mean_stable=True, mean_square_stable=False).diverges
    assert not make(mean_stable=True).diverges and not make().diverges


@pytest.mark.parametrize("time", [[], [1.0, 0.0], [0.0, math.nan], [0.0, math.inf]])
def test_times_rise(time):
    """A trajectory has a time, and goes forward."""
    with pytest.raises(ValueError, match="time must"):
        make(time=time, updates=[0] * len(time), loss=[1.0] * len(time))


def test_curves_have_one_value_a_time():
    """A loss of another length is refused."""
    with pytest.raises(ValueError, match=r"loss must have as many values as time"):
        make(loss=[1.0])
    with pytest.raises(ValueError, match=r"loss_high must have as many values as time"):
        make(loss_high=[1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"trajectory file: t.json is not JSON"),
        (b"\xff\x00", r"trajectory file: t.json is not JSON"),
        (b"3", r"trajectory file: t.json: it: "),
        (b"{}", r"trajectory file: t.json: engine: field required"),
        (b'{"engine": "guess"}', r"trajectory file: t.json: engine: input should be"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, content, message):
    """The message names the file and the field."""
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_trajectory(tmp_path / "t.json")
    assert "\n" not in str(caught.value)


def test_missing_files_are_refused(tmp_path):
    """So are folders."""
    with pytest.raises(InputError, match=r"plan file: .*does not exist"):
        load_json(tmp_path / "none.json", "plan file")
    with pytest.raises(InputError, match=r"plan file: cannot read"):
        load_json(tmp_path, "plan file")


def test_failed_writes_leave_nothing_behind(tmp_path, monkeypatch):
    """The old file stays whole, and no temporary file is left."""
    path = tmp_path / "t.json"
    write_atomically(path, "old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    """As if opened in the usual way under the user's umask."""
    write_atomically(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
