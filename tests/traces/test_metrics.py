"""Staleness that other systems log, in optimiser updates."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.errors import InputError
from stalewise.protocol import Server
from stalewise.traces import (
    batch_fraction_to_updates,
    queue_length_to_updates,
    read_metrics,
    samples_to_updates,
    versions_to_updates,
)

LOGS = {
    "AReaL": ("ppo_actor/update/version_stats/sample_staleness_theta_", ("avg", "min", "max")),
    "prime-rl": ("off_policy/", ("mean", "min", "max")),
    "SkyRL": ("async/staleness_", ("mean", "min", "max")),
    "verl": ("training/off_policy/trajectory_staleness_worst/", ("mean", "min", "max")),
}


def write(folder, rows, name="metrics.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("system", LOGS)
def test_each_system_is_recognised(tmp_path, system):
    """Mean of the means, smallest and largest, over the lines that have them; other lines are passed over."""
    stem, ends = LOGS[system]
    values = [(1.0, 0.0, 2.0), (3.0, 1.0, 6.0)]
    rows = [
        {"step": i, **{f"{stem}{end}": v for end, v in zip(ends, row, strict=True)}} for i, row in enumerate(values)
    ]
    found = read_metrics(write(tmp_path, [{"step": -1, "loss": 0.5}, *rows, {"loss": 0.25}]))
    assert (found.system, found.steps, found.mean, found.max) == (system, 2, 2.0, 6.0)
    assert found.min == (None if system == "prime-rl" else 0.0)
    assert found.notes[0].startswith(system) and "updates_per_version" in found.notes[-1]


def test_prime_rl_splits_its_staleness(tmp_path):
    """In flight and in queue add up to the mean; drops are summed; the dispatcher's gauges are something else."""
    rows = [
        {"off_policy/mean": 3.0, "off_policy/in_flight/mean": 1.0, "off_policy/in_queue/mean": 2.0},
        {"off_policy/mean": 1.0, "off_policy/in_flight/mean": 1.0, "off_policy/in_queue/mean": 0.0},
    ]
    rows = [{**row, "off_policy/dropped": 4.0, "dispatcher/off_policy/mean": 99.0} for row in rows]
    found = read_metrics(write(tmp_path, [*rows, {"off_policy/dropped": 1.0}]))
    assert (found.mean, found.in_flight, found.in_queue, found.dropped) == (2.0, 1.0, 1.0, 8.0)
    with pytest.raises(InputError, match=r"no staleness metric among"):
        read_metrics(write(tmp_path, [{"dispatcher/off_policy/mean": 1.0}]))


def test_verl_counts_from_the_oldest_version_where_it_can(tmp_path):
    """The worst staleness is the canonical one; the other is a lower bound, and called so."""
    row = {"data": {"training/off_policy/trajectory_staleness/mean": 1.0}, "step": 1}
    found = read_metrics(write(tmp_path, [row]))
    assert found.mean == 1.0 and "a lower bound" in found.notes[0]
    row["data"]["training/off_policy/trajectory_staleness_worst/mean"] = 2.5
    found = read_metrics(write(tmp_path, [row]))
    assert found.mean == 2.5 and "oldest" in found.notes[0]


def test_csv_exports_are_read_too(tmp_path):
    """Blanks, and names under a run's."""
    path = tmp_path / "export.csv"
    path.write_text('"Step","run 1 - async/staleness_mean","run 1 - async/staleness_max"\n1,,\n2,"1.5","3"\n3,0.5,\n')
    found = read_metrics(path)
    assert (found.system, found.steps, found.mean, found.max) == ("SkyRL", 2, 1.0, 3.0)


def test_samples_need_the_size_of_an_update(tmp_path):
    """PipelineRL counts samples: 512 of them are four updates of 128, a largest value and no mean."""
    path = write(tmp_path, [{"stats/lag": 128}, {"stats/lag": 512}])
    found = read_metrics(path, samples_per_update=128)
    assert (found.max, found.mean) == (4.0, None)
    with pytest.raises(InputError, match=r"its staleness is in samples; say how many make an update"):
        read_metrics(path)


def test_versions_of_several_updates(tmp_path):
    """With four mini-batches a version, a lag of two versions is 8 to 11 updates, 9.5 on average."""
    row = {"async/staleness_mean": 2.0, "async/staleness_min": 2, "async/staleness_max": 2}
    found = read_metrics(write(tmp_path, [row]), updates_per_version=4)
    assert (found.min, found.mean, found.max) == (8.0, 9.5, 11.0)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"loss": 1.0}], {}, r"metrics.jsonl: no staleness metric among 'loss'; known: version_stats/"),
        ([{"async/staleness_mean": -1}], {}, r"async/staleness_mean must be zero or more, got '-1' in data row 1"),
        ([{"async/staleness_mean": "a"}], {}, r"async/staleness_mean must be a number, got 'a' in data row 1"),
        ([{"async/staleness_mean": None}], {}, r"SkyRL metrics are named in it, but no line has a value"),
        (
            [{"async/staleness_mean": 1, "off_policy/mean": 1}],
            {},
            r"metrics of prime-rl, SkyRL; say which with system=",
        ),
        ([{"a/off_policy/mean": 1, "b/off_policy/mean": 1}], {}, r"off_policy/mean stands in several columns, 'a/off_"),
        ([{"off_policy/mean": 1}], {"system": "verl"}, r"no staleness metric of verl among"),
        ([{"off_policy/mean": 1}], {"system": "Verl"}, r"system must be one of .*did you mean \"verl\""),
        ([{"off_policy/mean": 1}], {"updates_per_version": 0.5}, r"updates_per_version must be 1 or more, got 0.5"),
    ],
)
def test_metrics_that_say_nothing_are_refused(tmp_path, rows, options, message):
    """In one line that says what is known."""
    with pytest.raises(InputError, match=message):
        read_metrics(write(tmp_path, rows), **options)


def test_one_system_of_several_can_be_chosen(tmp_path):
    """By name."""
    path = write(tmp_path, [{"async/staleness_mean": 1, "off_policy/mean": 2}])
    assert read_metrics(path, system="prime-rl").mean == 2.0


def test_missing_metrics_files_are_refused(tmp_path):
    """As traces are."""
    with pytest.raises(InputError, match=r"metrics file: .* does not exist"):
        read_metrics(tmp_path / "none")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.lists(st.integers(0, 8), min_size=20, max_size=60), st.integers(1, 4))
def test_queue_length_gives_the_mean_staleness(workers, arrivals, per_update):
    """Little's law, exactly: items are read at some version and applied later, a few at a time, in any order.

    What is left at the end counts with the updates that it has waited for.
    """
    rng = np.random.default_rng(len(arrivals) * workers)
    version, lengths, staleness, pool = 0, [], [], []
    while arrivals or len(pool) >= per_update:
        pool += [version] * (arrivals.pop() if arrivals else 0)
        if len(pool) >= per_update:
            lengths.append(len(pool))
            for _ in range(per_update):
                staleness.append(version - pool.pop(rng.integers(len(pool))))
            version += 1
    leftover = sum(version - read for read in pool)
    if not lengths:
        return
    shown = queue_length_to_updates(np.mean(lengths), per_update)
    assert shown == pytest.approx((sum(staleness) + leftover) / len(staleness), abs=1e-9)


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_busy_workers_are_n_minus_one_stale(workers, seed):
    """The server of this project, N always-busy workers: N under way, N - 1 updates stale on average."""
    rng, server, ages = np.random.default_rng(seed), Server(workers), []
    server.begin()
    for _ in range(400 * workers):
        ages.append(server.finished(int(rng.integers(workers)))[0].gradients[0].staleness)
    in_flight = sum(server.version - version for version in server.reading.values())
    assert (sum(ages) + in_flight) / len(ages) == pytest.approx(queue_length_to_updates(workers), abs=1e-9)


@given(st.floats(0, 1e6), st.integers(1, 64))
def test_units_agree_with_each_other(lag, updates):
    """A batch of u updates: as versions, as samples, as a share of the batch; and 0 is fresh in each."""
    assert versions_to_updates(lag, updates, place=0) == pytest.approx(lag * updates)
    assert samples_to_updates(lag * updates * 32, 32) == pytest.approx(lag * updates)
    assert batch_fraction_to_updates(lag, updates) == pytest.approx(lag * updates)
    assert versions_to_updates(0) == samples_to_updates(0, 8) == batch_fraction_to_updates(0) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: versions_to_updates(-1), r"versions must be zero or more, and finite, got -1"),
        (lambda: versions_to_updates(1, float("inf")), r"updates_per_version must be positive and finite, got inf"),
        (lambda: samples_to_updates(1, 0), r"samples_per_update must be positive and finite, got 0"),
        (lambda: batch_fraction_to_updates(float("nan")), r"fraction must be zero or more, and finite, got nan"),
        (lambda: queue_length_to_updates(3, 4), r"length must be at least items_per_update, 4, got 3"),
    ],
)
def test_wrong_units_are_refused(call, message):
    """By name, value and what is allowed."""
    with pytest.raises(InputError, match=message):
        call()
