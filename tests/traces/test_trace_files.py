"""Traces in and out: what is right reads back exactly, what is wrong is named by row and column."""

import numpy as np
import pytest

from stalewise.errors import InputError
from stalewise.traces import COLUMNS, UNITS, Trace, TraceWriter, read_trace
from stalewise.traces import writer as writer_module


def write(folder, text, name="log.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_come_in_the_order_of_their_ends(tmp_path):
    """A file in any order is sorted by end; the optional columns follow their rows."""
    trace = read_trace(write(tmp_path, "end,worker,start,grad_norm\n3,b,0,30\n1,a,0,\n2,a,1,20\n"))
    assert trace.worker.tolist() == ["a", "a", "b"]
    assert trace.end.tolist() == [1.0, 2.0, 3.0]
    assert trace.durations.tolist() == [1.0, 1.0, 3.0]
    assert np.isnan(trace.optional["grad_norm"][0]) and trace.optional["grad_norm"][1:].tolist() == [20.0, 30.0]
    assert (len(trace), trace.source, trace.notes) == (3, "log.csv", ())


def test_workers_keep_their_own_order(tmp_path):
    """by_worker sorts each worker's delays by start and the workers by number, 2 before 10."""
    trace = read_trace(write(tmp_path, "worker,start,end\nw10,0,1\nw2,5,7\nw2,0,3\nw10,1,9\n"))
    assert {k: v.tolist() for k, v in trace.by_worker().items()} == {"w2": [3.0, 2.0], "w10": [1.0, 8.0]}
    assert list(trace.by_worker()) == ["w2", "w10"]


@pytest.mark.parametrize("unit", UNITS)
def test_unit_scales_every_time_and_nothing_else(tmp_path, unit):
    """start, end, compute, download and upload are times; versions and norms are not."""
    header = "worker,start,end,pulled_version,applied_version,compute,grad_norm"
    trace = read_trace(write(tmp_path, f"{header}\na,1,3,4,6,2,5\n"), unit=unit)
    assert trace.durations[0] == pytest.approx(2 * UNITS[unit])
    assert trace.optional["compute"][0] == pytest.approx(2 * UNITS[unit])
    assert (trace.staleness.tolist(), trace.optional["grad_norm"].tolist()) == ([2], [5.0])


def test_byte_order_mark_spaces_and_blank_lines_are_harmless(tmp_path):
    """What spreadsheets add does not change the trace."""
    trace = read_trace(write(tmp_path, b"\xef\xbb\xbfworker, start ,end\r\n\r\n a ,0,1\r\n\r\n"))
    assert (trace.worker.tolist(), trace.durations.tolist()) == (["a"], [1.0])


def test_staleness_is_known_only_where_both_versions_are(tmp_path):
    """A blank version leaves its row out; no version column at all gives None."""
    rows = "worker,start,end,pulled_version,applied_version\na,0,1,0,2\na,1,2,,3\na,2,3,1,\n"
    assert read_trace(write(tmp_path, rows)).staleness.tolist() == [2]
    blank = read_trace(write(tmp_path, "worker,start,end,pulled_version,applied_version\na,0,1,,\n"))
    assert blank.staleness is None
    assert read_trace(write(tmp_path, "worker,start,end\na,0,1\n")).staleness is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log.csv: the file is empty"),
        ("worker,start,end\n", r"log.csv: no gradient in it; a trace needs at least one row"),
        ("a,b\n1,2\n", r"unknown columns 'a, b'; known: worker,start,end"),
        ('"a\nb",c\n1,2\n', r"unknown columns"),
        ("worker,start,end\na,0\n", r"data row 1 has 2 values, the header has 3"),
        ("worker,start,end\na,0,1\na,1,2,3\n", r"data row 2 has 4 values, the header has 3"),
        ("worker,start,end\na,zero,1\n", r"start must be a number, got 'zero' in data row 1"),
        ("worker,start,end\na,0,\n", r"none of its 1 gradients has ended"),
        ("worker,start,end\na,0,1\na,nan,1\n", r"start must be a finite number, got 'nan' in data row 2"),
        ("worker,start,end\na,0,inf\n", r"end must be a finite number, got 'inf'"),
        ("worker,start,end\na,0,9\na,2,1\n", r"end must be later than its start, 2 s, got 1 in data row 2"),
        ("worker,start,end\na,1,1\n", r"end must be later than its start"),
        ("worker,start,start\na,0,1\n", r"column 'start' stands twice in the header"),
        (
            "worker,start,end,pulled_version,applied_version\na,0,1,1.5,2\n",
            r"pulled_version must be a whole number, 0 or more, got 1.5 in data row 1",
        ),
        (
            "worker,start,end,pulled_version,applied_version\na,0,1,-1,2\n",
            r"pulled_version must be a whole number, 0 or more, got -1 in data row 1",
        ),
        (
            "worker,start,end,pulled_version,applied_version\na,0,1,1,inf\n",
            r"applied_version must be a whole number, 0 or more, got inf in data row 1",
        ),
        ("worker,start,end\n ,0,1\n", r"worker must be named, got a blank in data row 1"),
        ("worker,start,end,compute\na,0,1,x\n", r"compute must be a number, got 'x' in data row 1"),
        (
            "worker,start,end,pulled_version,applied_version\na,0,1,3,2\n",
            r"applied_version must be at least its pulled_version, 3, got 2 in data row 1",
        ),
        ("worker,gpu,time,batch_time_norm\n0,1,1,-5\n", r"batch_time_norm must be positive, got -5 in data row 1"),
        (b"\x80\x81\xff\x00", r"is not a CSV text file"),
        (b"worker,start,end\n" + b"x" * 200_000 + b",0,1\n", r"is not a CSV text file \(field larger than"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, message):
    """The message names the file, the row and column, the value and what is allowed."""
    with pytest.raises(InputError, match=message) as caught:
        read_trace(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    """So are paths that hold no file, and units that are none."""
    with pytest.raises(InputError, match=r"does not exist"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"is a folder, not a file"):
        read_trace(tmp_path)
    with pytest.raises(InputError, match=r"null byte"):
        read_trace("\0")
    with pytest.raises(InputError, match=r"cannot read .*: File name too long"):
        read_trace(tmp_path / ("x" * 5000))
    with pytest.raises(InputError, match=r"unit must be one of s, ms, us, ns, min, got 'sec'"):
        read_trace(write(tmp_path, "worker,start,end\na,0,1\n"), unit="sec")


def test_what_the_writer_writes_reads_back_exactly(tmp_path):
    """Every column to the last bit, also microseconds after a month; columns left out are NaN."""
    rng = np.random.default_rng(0)
    start = 2.6e6 + np.cumsum(rng.exponential(1.0, 50))
    rows = [
        {
            "worker": i % 3,
            "start": s,
            "end": s + 1e-6,
            "pulled_version": i,
            "applied_version": i + 2,
            "compute": 0.1 / 3,
        }
        for i, s in enumerate(start)
    ]
    with TraceWriter(tmp_path / "out.csv") as writer:
        for row in rows:
            writer.write(**row)
        assert writer.secure().length == (tmp_path / "out.csv.partial").stat().st_size
        unfinished = read_trace(tmp_path / "out.csv.partial")
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]
    trace = read_trace(tmp_path / "out.csv")
    assert len(unfinished) == len(trace) == 50
    assert (trace.start == start).all() and (trace.end == start + 1e-6).all()
    assert trace.worker.tolist() == [str(i % 3) for i in range(50)]
    assert (trace.optional["compute"] == 0.1 / 3).all()
    assert (trace.staleness == 2).all() and np.isnan(trace.optional["grad_norm"]).all()


def test_writer_begins_with_the_header(tmp_path):
    """A run killed before its first gradient leaves a header, and what stood there before."""
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(KeyboardInterrupt), TraceWriter(tmp_path / "out.csv"):
        raise KeyboardInterrupt
    assert (tmp_path / "out.csv.partial").read_text().strip() == ",".join(COLUMNS)
    assert (tmp_path / "out.csv").read_text() == "precious"


def test_rows_wait_while_the_disk_is_full(tmp_path):
    """No file may grow beyond 2,000 bytes: rows wait, who needs them on disk is told, and with room all are there."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(writer):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        for k in range(200):
            writer._flushed = 0.0
            writer.write(worker="0", start=float(k), end=k + 1.0)

    try:
        with TraceWriter(tmp_path / "out.csv") as writer:
            fill(writer)
            with pytest.raises(OSError, match="File too large"):
                writer.secure()
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with (
            pytest.raises(InputError, match=r"trace file: cannot write .*other.csv': File too large"),
            TraceWriter(tmp_path / "other.csv") as other,
        ):
            fill(other)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    np.testing.assert_array_equal(read_trace(tmp_path / "out.csv").start, np.arange(200.0))


def test_a_growing_trace_always_ends_with_a_whole_row(tmp_path, monkeypatch):
    """However many rows come between two flushes: `fit` may read at any time."""
    monkeypatch.setattr(writer_module, "FLUSHED_EVERY", 1e9)
    with TraceWriter(tmp_path / "out.csv") as writer:
        for k in range(3000):
            writer.write(worker="0", start=float(k), end=k + 1 / 3, compute=k / 7)
            if k % 10 == 0:
                assert writer.partial.read_bytes().endswith(b"\r\n")


def test_only_the_trace_that_was_secured_goes_on(tmp_path):
    """A trace of another run is not cut, and the whole one is taken where the partial one is another's."""
    path = tmp_path / "out.csv"
    with TraceWriter(path) as writer:
        writer.write(worker="0", start=0.0, end=1.0)
        kept = writer.secure()
        writer.write(worker="0", start=1.0, end=2.0)
    with pytest.raises(KeyboardInterrupt), TraceWriter(path) as other:
        for k in range(100):
            other.write(worker="9", start=0.5 + k, end=2.5 + k)
        raise KeyboardInterrupt
    with TraceWriter(path, kept) as again:
        again.write(worker="0", start=1.0, end=3.0)
    assert read_trace(path).end.tolist() == [1.0, 3.0]
    path.write_text("nothing of the kind" * 100)
    with pytest.raises(InputError, match="is not the one that the checkpoint goes on from"):
        TraceWriter(path, kept)
    assert path.read_text() == "nothing of the kind" * 100


def test_writer_refuses_what_it_cannot_write(tmp_path):
    """A folder in the file's place, a file in the folder's place."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "out.csv"):
        with pytest.raises(InputError, match="cannot write"):
            TraceWriter(path)


def test_production_job_has_its_published_numbers():
    """PAI job 1: 3,000 mini-batches, 300 of each of ten workers, 0.38 to 1 s, mean 0.443672 s as NumPy reads it."""
    trace = read_trace("examples/pai_job_1.csv")
    raw = np.genfromtxt("examples/pai_job_1.csv", delimiter=",", skip_header=1)
    by_worker = trace.by_worker()
    assert list(by_worker) == [str(i) for i in range(10)]
    assert {len(values) for values in by_worker.values()} == {300}
    assert trace.durations.mean() == pytest.approx(0.443672)
    assert (trace.durations.min(), trace.durations.max()) == pytest.approx((0.38, 1.0))
    for label, values in by_worker.items():
        rows = raw[raw[:, 1] == int(label)]
        assert values == pytest.approx(rows[np.argsort(rows[:, 3], kind="stable"), 4] / 1000)
    assert (np.diff(trace.end) >= 0).all()
    assert "read as ms" in trace.notes[0] and trace.staleness is None


def test_unit_of_a_production_job_can_be_given():
    """Its times are normalised: the caller may say what a unit is."""
    assert read_trace("examples/pai_job_1.csv", unit="s").durations.mean() == pytest.approx(443.672)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ([], [], r"no gradient in it"),
        ([0.0, 1.0], [1.0], r"start has 2 values for 1 gradients"),
        ([0.0], [np.nan], r"end must be a finite number of seconds, got nan in data row 1"),
        ([2.0], [1.0], r"end must be later than its start, 2 s, got 1 in data row 1"),
    ],
)
def test_traces_check_their_arrays(start, end, message):
    """A trace built in Python is held to the same rules."""
    with pytest.raises(InputError, match=message):
        Trace(np.array(["a"] * len(end), np.str_), np.array(start), np.array(end), {})
