"""What is wrong with a log is refused in one line or repaired in a note, never silently."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.delays import fit_delay
from stalewise.errors import InputError
from stalewise.traces import Trace, read_trace

HEADER = "worker,start,end"


@pytest.fixture
def log(tmp_path):
    """A function that reads rows written to a file."""

    def read(*rows, header=HEADER, **options):
        path = tmp_path / "log.csv"
        path.write_text("\n".join((header, *rows, "")))
        return read_trace(path, **options)

    return read


def busy(label="a", count=20, delay=1.0, first=0.0):
    """Rows of a worker that computes back to back."""
    return [f"{label},{first + i * delay!r},{first + (i + 1) * delay!r}" for i in range(count)]


def test_a_clean_log_has_no_notes(log):
    """Workers of different speed that compute until the end: nothing to say."""
    rng = np.random.default_rng(0)
    rows = []
    for worker in range(5):
        ends = np.cumsum(rng.gamma(4.0, 0.25 * (1 + worker), 400))
        starts = np.append(0.0, ends[:-1])
        rows += [f"{worker},{s!r},{e!r}" for s, e in zip(starts.tolist(), ends.tolist(), strict=True) if e < 380.0]
    assert log(*rows).notes == ()


def test_exact_duplicates_are_removed_and_counted(log):
    """The first of equal rows stays; rows that differ in any column stay too."""
    header = f"{HEADER},pulled_version,grad_norm"
    trace = log("a,0,1,0,", "b,0,1,0,", "a,0,1,0,", "a,0,1,0,2", "a,1,2,1,3", "a,0,1,0,", header=header)
    assert trace.worker.tolist() == ["a", "b", "a", "a"]
    assert trace.notes[0] == "2 rows the same as another in every column: removed"
    assert np.isnan(trace.optional["grad_norm"][0]) and trace.optional["grad_norm"][2:].tolist() == [2.0, 3.0]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(4, 6)), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_duplicates_and_order_do_not_matter(tmp_path_factory, rows, seed):
    """Rows written twice and shuffled give the trace of the rows written once (whatever is noted)."""
    path = tmp_path_factory.mktemp("logs") / "log.csv"

    def read(lines):
        path.write_text("\n".join((HEADER, *(f"{w},{s},{e}" for w, s, e in lines), "")))
        return read_trace(path)

    once, twice = read(sorted(set(rows))), read(np.random.default_rng(seed).permutation([*rows, *rows]).tolist())
    key = [sorted(zip(t.worker.tolist(), t.start.tolist(), t.end.tolist(), strict=True)) for t in (once, twice)]
    assert key[0] == key[1]
    assert f"{2 * len(rows) - len(once)} row" in twice.notes[0]


def test_a_gradient_in_flight_is_censored_at_the_end_of_the_log(log):
    """It keeps its row; durations, by_worker and replay leave it out."""
    trace = log(*busy("a", 3), "b,0.5,2.5", "b,2.5,")
    assert trace.censored.sum() == 1
    row = int(np.argmax(trace.censored))
    assert (trace.worker[row], trace.start[row], trace.end[row]) == ("b", 2.5, 3.0)
    assert sorted(trace.durations.tolist()) == [1.0, 1.0, 1.0, 2.0]
    assert trace.censored_durations.tolist() == [0.5]
    assert {k: v.tolist() for k, v in trace.by_worker().items()} == {"a": [1.0, 1.0, 1.0], "b": [2.0]}
    assert trace.notes == (
        "1 gradient of worker b without an end: in flight as the log ended at 3 s, or lost; censored there or at the "
        "worker's next start, not in means or replay",
    )
    assert (np.diff(trace.end) >= 0).all()


def test_a_lost_gradient_is_censored_where_its_worker_began_anew(log):
    """Until then it is known not to have ended, whether it was lost or not."""
    trace = log("a,0,1", "a,1,", "a,5,6", "b,0,9")
    assert trace.end[trace.censored].tolist() == [5.0]


@pytest.mark.parametrize("blank", ["", " ", "nan", "NaN"])
def test_a_worker_that_never_returns(log, blank):
    """Its only gradient has no end: it is in the trace, and in nobody's mean."""
    trace = log(*busy("a", 9), f"b,0,{blank}")
    assert (len(trace), list(trace.by_worker()), trace.durations.tolist()) == (10, ["a"], [1.0] * 9)
    assert trace.end[trace.censored].tolist() == [9.0]
    assert fit_delay(trace).count == 9


def test_a_worker_that_falls_silent_is_named(log):
    """Where no row says that it began another gradient, a note says that it stopped."""
    trace = log(*busy("a", 200), *busy("b", 30))
    assert trace.notes == (
        "worker b never returned after 30 s, though the log goes on to 200 s; no row says what became of it",
    )
    assert log(*busy("a", 200), *busy("b", 185)).notes == ()
    assert log(*busy("a", 200), *busy("once", 1), *busy("twice", 2)).notes == ()


def test_a_log_of_which_nothing_ended_is_refused(log):
    """There is no delay in it."""
    with pytest.raises(InputError, match=r"log.csv: none of its 2 gradients has ended; a trace needs at least one"):
        log("a,0,", "b,1,")


def test_overlapping_gradients_of_a_worker_are_told(log):
    """They are kept; a clock that was set back looks like that."""
    trace = log(*busy("a", 5), "a,4.5,5.5", "b,0,6")
    assert len(trace) == 7
    assert trace.notes == (
        "1 gradient of worker a began before the same worker's last one had ended: kept as logged; a clock was set "
        "back, or several compute under one label",
    )


def test_a_clock_that_is_set_back_is_told(log):
    """Rows that begin before the one above are read in the order of time, and counted."""
    trace = log("a,0,1", "a,1,2", "a,0.25,0.75", "a,2,3")
    assert trace.notes[0].startswith("1 row of worker a that began before the same worker's row above: read in the or")
    assert "overlap" not in trace.notes[0] and "had ended" in trace.notes[1]
    assert trace.by_worker()["a"].tolist() == [1.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(("other", "unit"), [(1e3, "ms"), (1e6, "us"), (1e9, "ns")])
def test_mixed_units_are_refused(log, other, unit):
    """Half the rows of a worker in seconds, half in a smaller unit: two scales with nothing in between."""
    rng = np.random.default_rng(0)
    delays = rng.gamma(20.0, 0.05, 40) * np.repeat([1.0, other], 20)
    ends = np.cumsum(delays)
    rows = [f"a,{e - d!r},{e!r}" for e, d in zip(ends.tolist(), delays.tolist(), strict=True)]
    with pytest.raises(
        InputError, match=r"log.csv: delays of worker a come in two scales, 20 about .* as if in two un"
    ):
        log(*rows)
    assert "20 about" in log(*rows, unit="s").notes[0]
    small = delays.copy()
    small[1:20] = 1.0 * other
    ends = np.cumsum(small)
    few = log(*(f"a,{e - d!r},{e!r}" for e, d in zip(ends.tolist(), small.tolist(), strict=True)))
    assert few.notes[0].endswith("as if in two units: kept as logged")


def test_wide_but_continuous_delays_are_no_mixed_units(log):
    """Five decades without a gap, and a worker a hundred times as slow as another, are read without a word."""
    delays = 10.0 ** np.linspace(-2, 3, 60)
    ends = np.cumsum(delays)
    rows = [f"a,{e - d!r},{e!r}" for e, d in zip(ends.tolist(), delays.tolist(), strict=True)]
    assert log(*rows, *busy("b", 50, 100.0)).notes == ()


def test_parts_longer_than_the_whole_are_told(log):
    """A compute time in ms beside a start and an end in s."""
    trace = log("a,0,1,500", "a,1,2,0.5", "a,2,3,", header=f"{HEADER},compute")
    assert trace.notes == (
        "compute is longer than the time from start to end in 1 row: kept as logged; is it in another unit?",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,0,1", "a,5,4"], r"end must be later than its start, 5 s, got 4 in data row 2"),
        (["a,0,1", "a,,4"], r"start must be a number, got '' in data row 2"),
        (["a,0,1", "a,2,-inf"], r"end must be a finite number, got '-inf' in data row 2"),
        (["a,0,1", f"{'x' * 101},2,3"], r"worker must be at most 100 characters long, got 'x{40}\.\.\.' in data row 2"),
        (["a,0,1", "a,1,9" + "9" * 400], r"end must be a finite number, got '9{40}\.\.\.' in data row 2"),
        (["a,0,1", ",1,2"], r"worker must be named, got a blank in data row 2"),
        (["a,0,1", '"a,1,2'], r"data row 2 has 1 values, the header has 3"),
    ],
)
def test_wrong_rows_are_refused_with_their_number(log, rows, message):
    """One bounded line, whichever way the file is read."""
    with pytest.raises(InputError, match=message) as caught:
        log(*rows)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_bad_rows_are_found_far_down(log):
    """The number of the row is right beyond the first block."""
    rows = [f"w{i % 7},{i},{i + 1}" for i in range(150_000)]
    rows[140_000] = "w0,5,zero"
    with pytest.raises(InputError, match=r"end must be a number, got 'zero' in data row 140001"):
        log(*rows)
    rows[140_000] = "w0,140000,139999"
    with pytest.raises(InputError, match=r"later than its start, 140000 s, got 139999 in data row 140001"):
        log(*rows)


def test_traces_built_in_python_may_be_censored():
    """`censored` is optional, as long as the rows, and lets an end be its start."""
    worker = np.array(["a", "a"])
    trace = Trace(worker, np.array([0.0, 1.0]), np.array([1.0, 1.0]), {}, censored=np.array([False, True]))
    assert (trace.durations.tolist(), trace.censored_durations.tolist()) == ([1.0], [0.0])
    with pytest.raises(InputError, match=r"end must be later than its start, 1 s, got 1 in data row 2"):
        Trace(worker, np.array([0.0, 1.0]), np.array([1.0, 1.0]), {})
    with pytest.raises(InputError, match=r"censored has 1 values for 2 gradients"):
        Trace(worker, np.array([0.0, 1.0]), np.array([1.0, 2.0]), {}, censored=np.array([True]))
