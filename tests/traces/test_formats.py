"""Every format gives the same trace, under its own names or ours, and refuses what is wrong in one line."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.errors import InputError, MissingExtraError
from stalewise.traces import COLUMNS, FORMATS, parse_columns, read_trace
from stalewise.traces.csv import CsvTable

BYTEDANCE = "examples/bytedance_se.csv"


def make_columns(rows, seed=0):
    """A log of ten workers, in the order of ends, with a hole in every optional column and gradients in flight."""
    rng = np.random.default_rng(seed)
    delay = rng.gamma(4.0, 0.25, (10, rows // 10))
    end = np.cumsum(delay, axis=1)
    order = np.argsort(end, axis=None)
    columns = {
        "worker": [f"node-{i}" for i in np.repeat(np.arange(10), rows // 10)[order]],
        "start": (end - delay).ravel()[order].tolist(),
        "end": end.ravel()[order].tolist(),
        "pulled_version": list(range(rows)),
        "applied_version": [i + 9 for i in range(rows)],
        "compute": (0.9 * delay).ravel()[order].tolist(),
    }
    for name, row in (("pulled_version", 3), ("applied_version", 5), ("compute", 7), ("end", rows - 1)):
        columns[name][row] = None
    return columns


def as_csv(columns, path, quote=csv.QUOTE_MINIMAL, names=None):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=quote, lineterminator="\n")
        writer.writerow(names or columns)
        writer.writerows(
            ["" if v is None else repr(v) if isinstance(v, float) else v for v in row]
            for row in zip(*columns.values(), strict=True)
        )
    return path


def as_jsonl(columns, path):
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    with path.open("w") as file:
        file.writelines(
            json.dumps({k: v for k, v in row.items() if v is not None or k == "end"}) + "\n" for row in rows
        )
    return path


def as_parquet(columns, path, **options):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def assert_equal(a, b):
    """To the last bit, and with the same notes."""
    assert (a.worker == b.worker).all()
    for x, y in ((a.start, b.start), (a.end, b.end), (a.censored, b.censored)):
        np.testing.assert_array_equal(x, y, strict=True)
    assert a.optional.keys() == b.optional.keys()
    for name in a.optional:
        np.testing.assert_array_equal(a.optional[name], b.optional[name], strict=True)
    assert a.notes == b.notes


def test_every_format_reads_the_same(tmp_path):
    """200,000 rows: CSV by NumPy, by PyArrow and by Python's csv module, JSON Lines, Parquet."""
    columns = make_columns(200_000)
    plain = as_csv(columns, tmp_path / "plain.csv")
    trace = read_trace(plain)
    assert len(trace) == 200_000
    assert (trace.censored.sum(), np.isnan(trace.optional["compute"]).sum()) == (1, 1)
    assert trace.start.tolist()[:-1] == columns["start"][:-1] and trace.end.tolist()[:-1] == columns["end"][:-1]
    for other in (as_csv(columns, tmp_path / "q.csv", csv.QUOTE_ALL), as_jsonl(columns, tmp_path / "log.jsonl")):
        assert_equal(trace, read_trace(other))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert_equal(trace, read_trace(plain))
        assert_equal(trace, read_trace(tmp_path / "q.csv"))
    assert_equal(trace, read_trace(as_parquet(columns, tmp_path / "log.parquet", row_group_size=70_000)))


CELL = st.one_of(
    st.floats(allow_nan=False, width=64).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["", " ", " 1 ", "nan", "-nAn", "1e400", "1_0", "x", "+1", "1,", '"2"', "0x10", "infinity", "\t3"]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["a", " b", "", '"c,d"', "-nAn", "#e"]), CELL, CELL), max_size=6))
def test_the_ways_to_read_csv_agree(tmp_path_factory, rows):
    """NumPy, PyArrow and the csv module give the same columns, or the same error."""
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    path.write_text("".join(f"{','.join(row)}\n" for row in [("worker", "start", "end"), *rows]))

    def read(way):
        table = CsvTable(path, {})
        with pytest.MonkeyPatch.context() as patch:
            if way != "arrow":
                patch.setitem(sys.modules, "pyarrow", None)
            if way == "csv":
                patch.setattr(CsvTable, "_fast", lambda *_: False)
            try:
                columns = table.read(("worker",), ("start", "end"))
            except InputError as error:
                return str(error)
        return repr(
            (columns.texts["worker"].as_strings().tolist(), {k: v.tolist() for k, v in columns.numbers.items()})
        )

    assert read("arrow") == read("numpy") == read("csv")


def test_columns_may_have_other_names(tmp_path):
    """A mapping from our names to the file's gives what renaming the columns gives, in every format."""
    columns = make_columns(1000)
    trace = read_trace(as_csv(columns, tmp_path / "ours.csv"))
    theirs = {f"my {name}": values for name, values in columns.items()} | {"note": ["x"] * 1000}
    names = {name: f"my {name}" for name in columns}
    for path in (
        as_csv(theirs, tmp_path / "theirs.csv"),
        as_jsonl(theirs, tmp_path / "theirs.jsonl"),
        as_parquet(theirs, tmp_path / "theirs.parquet"),
    ):
        assert_equal(trace, read_trace(path, columns=names))


def test_a_mapping_wins_over_a_column_of_the_same_name(tmp_path):
    """Also where it swaps two of them; an error names both."""
    path = tmp_path / "log.csv"
    path.write_text("worker,start,end,t\na,2,1,5\n")
    assert read_trace(path, columns={"start": "end", "end": "start"}).durations.tolist() == [1.0]
    assert read_trace(path, columns={"end": "t"}).durations.tolist() == [3.0]
    path.write_text("worker,start,t\na,2,one\n")
    with pytest.raises(InputError, match=r"log.csv: end \(t\) must be a number, got 'one' in data row 1"):
        read_trace(path, columns={"end": "t"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"start": "begin"},
            r"columns: start is to come from 'begin', which is not there; the file has 'worker, start,",
        ),
        ({"strat": "start"}, r"columns must be one of worker, start, .*, got 'strat'; did you mean \"start\"\?"),
    ],
)
def test_wrong_mappings_are_refused(tmp_path, columns, message):
    """The error says what the file has, or what can be mapped."""
    path = tmp_path / "log.csv"
    path.write_text("worker,start,end\na,0,1\n")
    with pytest.raises(InputError, match=message):
        read_trace(path, columns=columns)


def test_columns_are_parsed_from_text():
    """start=begin_ts,end=done_ts, spaces allowed; anything else is refused."""
    assert parse_columns("start=begin_ts, end = done ts") == {"start": "begin_ts", "end": "done ts"}
    for text in ("start", "start=", "=x", "start=a,start=b", "start=a,", ""):
        with pytest.raises(InputError, match=r"columns must be like start=begin_ts,end=done_ts, each name once, got"):
            parse_columns(text)


def test_the_format_can_be_given(tmp_path):
    """As how the file is written, or as what its columns mean; a wrong one is refused."""
    path = tmp_path / "log.txt"
    path.write_text("worker,start,end,gpu,time,batch_time_norm\n{a,0,1,1,0,500\n")
    assert read_trace(path).durations.tolist() == [1.0]
    assert read_trace(path, format="pai").durations.tolist() == [0.5]
    with pytest.raises(
        InputError, match=r"format bytedance needs dp_rank,.*; dp_rank is not among its columns, 'worker,"
    ):
        read_trace(path, format="bytedance")
    with pytest.raises(InputError, match=f"format must be one of {', '.join(FORMATS)}, got 'xml'"):
        read_trace(path, format="xml")
    path.write_text("{a},worker,start,end\n1,a,0,1\n")
    assert read_trace(path, format="csv").durations.tolist() == [1.0]
    with pytest.raises(InputError, match=r"data row 1 is not a JSON object: '\{a\},worker,start,end'"):
        read_trace(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"worker": 1, "start": 0, "end": 1}\n[1]\n', r"log.jsonl: data row 2 is not a JSON object: '\[1\]'"),
        ('{"worker": 1, "start": 0\n"end": 1}\n', r"data row 1 is not a JSON object"),
        ('{"worker": 1, "start": 0, "end": "1"}\n', r"end must be a number, got '1' in data row 1"),
        ('{"worker": 1, "start": true, "end": 1}\n', r"start must be a number, got 'true' in data row 1"),
        ('{"worker": 1, "end": 1, "start": null}\n', r"start must be a number, got '' in data row 1"),
        (
            '{"worker": 1, "start": 0, "end": 1}\n{"worker": 1, "end": 2}\n',
            r"start must be a number, got '' in data row 2",
        ),
        ('{"worker": 1.5, "start": 0, "end": 1}\n', r"worker must be text or a whole number, got '1.5' in data row 1"),
        ('{"worker": null, "start": 0, "end": 1}\n', r"worker must be named, got a blank in data row 1"),
        ('{"worker": 1, "start": 0, "end": Infinity}\n', r"end must be a finite number, got 'inf' in data row 1"),
        (
            f'{{"worker": 1, "start": 0, "end": {"9" * 400}}}\n',
            r"end must be a number, got '9{40}\.\.\.' in data row 1",
        ),
        (f'{{"worker": 1, "start": 0, "end": {"[" * 100_000}\n', r"data row 1 is not a JSON object"),
        ('{"a": 1}\n', r"unknown columns 'a'; known: worker,start,end"),
        ('\n  \n{"worker": 1, "start": 2, "end": 1}\n', r"end must be later than its start, 2 s, got 1 in data row 1"),
        (b'{"worker": "\xff"}\n', r"log.jsonl: not a JSON Lines text file \(invalid start byte\)"),
    ],
)
def test_bad_json_lines_are_refused_in_one_line(tmp_path, text, message):
    """Row, column and value, whatever else is in the file; nothing is long."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_json_lines_may_nest_and_number_their_workers(tmp_path):
    """Nested keys are outer/inner; whole numbers and text name the same workers."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"w": 1, "t": {"a": 0, "b": {"c": 2}}}\n{"w": "1", "t": {"a": 2, "b": {"c": 3}}}\n')
    trace = read_trace(path, columns={"worker": "w", "start": "t/a", "end": "t/b/c"})
    assert {k: v.tolist() for k, v in trace.by_worker().items()} == {"1": [2.0, 1.0]}


def test_parquet_types(tmp_path):
    """Integers, single precision, decimals and dictionaries are read; text, times and booleans are no numbers."""
    arrow = pytest.importorskip("pyarrow")
    good = {
        "worker": arrow.array(["a", "b"]).dictionary_encode(),
        "start": arrow.array([0, 1], arrow.int16()),
        "end": arrow.array([1.5, 2.25], arrow.float32()),
        "compute": arrow.array([1, None], arrow.decimal128(5, 2)),
        "upload": arrow.nulls(2),
    }
    trace = read_trace(as_parquet(good, tmp_path / "good.parquet"))
    assert trace.durations.tolist() == [1.5, 1.25]
    assert trace.optional["compute"][0] == 1.0 and np.isnan(trace.optional["upload"]).all()
    for values, kind in ((["1", "2"], "string"), ([True, False], "bool"), ([1, 2], "timestamp")):
        column = arrow.array(values, arrow.timestamp("us") if kind == "timestamp" else None)
        with pytest.raises(InputError, match=rf"end must hold numbers, got a column of {kind}"):
            read_trace(as_parquet(good | {"end": column}, tmp_path / "bad.parquet"))
    with pytest.raises(InputError, match=r"worker must be named, got a blank in data row 2"):
        read_trace(as_parquet(good | {"worker": arrow.array([7, None])}, tmp_path / "bad.parquet"))
    with pytest.raises(InputError, match=r"no gradient in it"):
        read_trace(as_parquet({k: v[:0] for k, v in good.items()}, tmp_path / "bad.parquet"))


def test_broken_parquet_is_refused_in_one_line(tmp_path):
    """Cut short, garbled or empty behind its first bytes."""
    whole = as_parquet(make_columns(1000), tmp_path / "log.parquet").read_bytes()
    rng = np.random.default_rng(0)
    for number in range(20):
        broken = bytearray(whole[: rng.integers(4, len(whole))] if number < 10 else whole)
        for place in rng.integers(4, len(broken), 30 if number >= 10 else 0):
            broken[place] = rng.integers(256)
        (tmp_path / "log.parquet").write_bytes(broken)
        try:
            read_trace(tmp_path / "log.parquet")
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


def test_parquet_needs_its_extra(tmp_path, monkeypatch):
    """Without PyArrow the error says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "log.parquet").write_bytes(b"PAR1PAR1")
    with pytest.raises(MissingExtraError, match=r"pip install 'stalewise\[parquet\]'"):
        read_trace(tmp_path / "log.parquet")


def test_bytedance_delays_are_those_of_the_busiest_stage(tmp_path):
    """Seconds of forward and backward compute a step, rank and stage; their maximum over stages; rows by hand."""
    with open(BYTEDANCE, newline="") as file:
        rows = list(csv.DictReader(file))
    sums = {}
    for row in rows:
        if row["optype"] in ("forward-compute", "backward-compute"):
            key = row["dp_rank"], int(row["step"]), row["stage"]
            sums[key] = sums.get(key, 0.0) + float(row["duration"])
    steps = sorted({step for _, step, _ in sums})
    wanted = {r: [max(sums[r, s, stage] for stage in "01") for s in steps] for r in "012"}
    trace = read_trace(BYTEDANCE)
    assert {k: v.tolist() for k, v in trace.by_worker().items()} == {k: pytest.approx(v) for k, v in wanted.items()}
    assert trace.by_worker()["0"][0] == pytest.approx(5.602576, abs=1e-6)
    assert trace.notes[0].startswith("ByteDance operations: a gradient is one step of one data-parallel rank")
    twice = tmp_path / "twice.csv"
    text = Path(BYTEDANCE).read_text()
    twice.write_text(text + text.partition("\n")[2])
    assert read_trace(twice).notes[1] == "768 compute rows the same as another in every column: removed"
    assert read_trace(twice).by_worker()["1"].tolist() == trace.by_worker()["1"].tolist()


def test_bytedance_traces_with_faults_are_refused(tmp_path):
    """A negative duration, no compute operation, a blank step."""
    head = "dp_rank,stage,step,optype,start_ts,duration\n"
    for row, message in (
        ("0,0,1,forward-compute,0,-1", r"duration must be zero or more, got '-1' in data row 1"),
        ("0,0,1,forward-send,0,1", r"no optype ends in -compute"),
        ("0,0,,forward-compute,0,1", r"step must be a number, got '' in data row 1"),
    ):
        (tmp_path / "t.csv").write_text(f"{head}{row}\n")
        with pytest.raises(InputError, match=message):
            read_trace(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(
        f"{head}0,0,1,forward-compute,0,1\n0,0,2,forward-compute,0,0\n1,0,1,a-compute,0,2\n"
    )
    trace = read_trace(tmp_path / "t.csv")
    assert trace.durations.tolist() == [1.0, 2.0]
    assert trace.notes[1] == "1 step without compute time: left out"


def test_a_table_of_steps_and_workers(tmp_path):
    """One column a worker; a blank is a step without it, and told."""
    (tmp_path / "t.csv").write_text("step,0,1,10\n5,1,2,3\n6,4,,6\n")
    trace = read_trace(tmp_path / "t.csv", unit="ms")
    assert {k: v.tolist() for k, v in trace.by_worker().items()} == {
        "0": pytest.approx([0.001, 0.004]), "1": pytest.approx([0.002]), "10": pytest.approx([0.003, 0.006])
    }  # fmt: skip
    assert trace.notes[1] == "workers have between 1 and 2 steps: some are missing"
    (tmp_path / "t.csv").write_text("step,a\n5,0\n")
    with pytest.raises(InputError, match=r"a must be positive and finite, got '0' in data row 1"):
        read_trace(tmp_path / "t.csv", format="steps")


def test_repeated_pai_samples_are_removed(tmp_path):
    """The same worker, time and value; the index column is no part of it."""
    (tmp_path / "t.csv").write_text(
        ",worker,gpu,time,batch_time_norm\n0,0,25,1,5\n1,0,25,1,5\n2,0,25,1,6\n3,1,25,1,5\n"
    )
    trace = read_trace(tmp_path / "t.csv")
    assert {k: v.tolist() for k, v in trace.by_worker().items()} == {"0": [0.005, 0.006], "1": [0.005]}
    assert trace.notes[1] == "1 row the same as another in worker, time and batch_time_norm: removed"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.sampled_from([b"", b"worker,start,end\n", b"{", b"PAR1"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, head):
    """Nothing but an InputError of bounded length comes out of any file."""
    path = tmp_path_factory.mktemp("any") / "log"
    path.write_bytes(head + data)
    try:
        read_trace(path)
    except (InputError, MissingExtraError) as error:
        assert len(str(error)) < 600


def test_quotes_far_down_do_not_change_the_rest(tmp_path):
    """A block with quotes goes another way from there on; a quoted line end belongs to its label."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS[:3])
    writer.writerows((("w" if i != 90_000 else 'w"x,\ny'), i, i + 1) for i in range(100_000))
    (tmp_path / "t.csv").write_text(out.getvalue())
    trace = read_trace(tmp_path / "t.csv")
    assert len(trace) == 100_000 and trace.worker[90_000] == 'w"x,\ny'
    assert trace.durations.tolist() == [1.0] * 100_000
