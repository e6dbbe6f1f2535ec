"""Laws as text: what is written reads back, what is wrong is named."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.delays import (
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Hyperexponential,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    Regimes,
    Replay,
    ShiftedExponential,
    Uniform,
    Weibull,
    files_of,
    parse_delay,
)
from stalewise.errors import InputError

positive = st.floats(1e-6, 1e6)
SIMPLE = st.one_of(
    st.builds(Constant, positive),
    st.builds(Exponential, positive),
    st.builds(ShiftedExponential, positive, positive),
    st.builds(Gamma, positive, positive),
    st.builds(Lognormal, positive, positive),
    st.builds(Uniform, positive, positive.map(lambda x: x + 1e6)),
    st.builds(Weibull, positive, st.floats(0.02, 200.0)),
    st.builds(Pareto, positive, st.floats(1.0001, 1e6)),
    st.builds(Normal, positive, positive),
    st.lists(st.tuples(positive, positive), min_size=1, max_size=3).map(
        lambda pairs: Hyperexponential([m for m, _ in pairs], [w for _, w in pairs])
    ),
)


def _nested(laws):
    sums = st.lists(laws, min_size=2, max_size=3).map(lambda parts: sum(parts[1:], parts[0]))
    lists = st.lists(st.one_of(laws, sums), min_size=2, max_size=3)
    mixtures = lists.flatmap(
        lambda parts: st.lists(positive, min_size=len(parts), max_size=len(parts)).map(lambda w: Mixture(parts, w))
    )
    regimes = st.tuples(lists, st.floats(1.0, 50.0)).map(
        lambda pair: Regimes(pair[0], [pair[1] * law.mean for law in pair[0]])
    )
    return st.one_of(mixtures, regimes)


LAWS = st.recursive(SIMPLE, _nested, max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(LAWS)
def test_every_law_reads_back(law):
    """str(law) parses to an equal law."""
    assert parse_delay(str(law)) == law


@settings(max_examples=50, deadline=None)
@given(st.lists(LAWS, min_size=2, max_size=4))
def test_every_sum_reads_back(laws):
    """So does a sum, once its constants have been gathered."""
    total = sum(laws[1:], laws[0])
    again = parse_delay(str(total))
    assert again == total
    assert again.mean == pytest.approx(sum(law.mean for law in laws))


def test_arguments_by_place_and_by_name_agree():
    """Both spellings, in any order and with spaces, are one law."""
    assert parse_delay(" gamma(2, 3) ") == parse_delay("gamma(shape=3, mean=2.0)") == Gamma(2.0, 3.0)
    assert parse_delay("shifted_exponential(0, 1)") == parse_delay("exponential(1)")


def test_measured_laws_read_their_file(tmp_path):
    """empirical pools the rows, trace keeps them per worker and in order; names are relative to the folder."""
    (tmp_path / "log.csv").write_text("worker,start,end\na,0,1\nb,0,3\na,1,3\n")
    pooled = parse_delay('empirical("log.csv")', folder=tmp_path)
    replay = parse_delay("trace('log.csv')", folder=tmp_path)
    assert isinstance(pooled, Empirical) and isinstance(replay, Replay)
    assert pooled.values.tolist() == [1.0, 2.0, 3.0]
    assert [s.tolist() for s in replay.sequences] == [[1.0, 2.0], [3.0]]
    assert parse_delay(str(replay), folder=tmp_path) == replay
    assert parse_delay(str(pooled), folder=tmp_path) == pooled
    total = parse_delay('trace("log.csv") + constant(1)', folder=tmp_path)
    assert total.mean == pytest.approx(3.0)
    assert np.asarray(total.cdf([2.0, 4.0])) == pytest.approx([1 / 3, 1.0])
    (tmp_path / "log.csv").write_text("worker,start,end\na,0,1\nb,0,2\na,1,3\n")
    assert parse_delay(str(replay), folder=tmp_path) != replay
    assert parse_delay(str(pooled), folder=tmp_path) != pooled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot read ''; write for example gamma\(mean=1.0, shape=4\)"),
        ("gamma(", r"cannot read 'gamma\('"),
        ("3.0", r"cannot read '3.0'"),
        ("gamma(1,2) * 2", r"cannot read"),
        ("a.gamma(1, 2)", r"cannot read"),
        ("constant(1) +\nconstant(2)\0", r"cannot read"),
        ("gama(1, 2)", r'must be one of constant, .*, got \'gama\'; did you mean "gamma"\?'),
        ("constant(1) + foo(2)", r"delay law must be one of .*got 'foo'"),
        ("gamma(1)", r"gamma\(mean, shape\) needs shape, got 'gamma\(1\)'"),
        ("gamma()", r"needs mean, shape"),
        ("gamma(1, 2, 3)", r"gamma\(mean, shape\) takes 2 value\(s\), got 3"),
        ("gamma(1, mean=2)", r"has no place for 'mean'"),
        ("gamma(1, scale=2)", r"has no place for 'scale'"),
        ("constant(**{'value': 1})", r"has no place for '\*\*'"),
        ("constant(x)", r"constant: value must be a plain value, got 'x'"),
        ("constant(1 + 1)", r"must be a plain value, got '1 \+ 1'"),
        ("constant({[]: 1})", r"must be a plain value"),
        ("constant(*[1])", r"must be a plain value"),
        ("constant('a')", r"constant: value must be a number \(zero or more, and finite\), got 'a'"),
        ("constant(1j)", r"must be a number"),
        ("constant(-1)", r"must be zero or more, and finite, got -1"),
        ("constant(1e999)", r"must be zero or more, and finite, got inf"),
        ("constant(" + "9" * 400 + ")", r"must be zero or more, and finite"),
        ("exponential(0)", r"exponential: mean must be positive and finite"),
        ("uniform(2, 1)", r"uniform: high must exceed low"),
        ("weibull(1, 0.001)", r"weibull: shape must be from 0.02 to 200, got 0.001; .*lognormal"),
        ("weibull(0, 1)", r"weibull: mean must be positive and finite, got 0.0 seconds"),
        ("pareto(1, 1)", r"pareto: shape must be above 1, got 1.0; at 1 or below the mean delay is infinite"),
        ("pareto(mean=-1, shape=2)", r"pareto: mean must be zero or more"),
        ("normal(0, 1)", r"normal: mean must be positive and finite, got 0.0 seconds"),
        ("normal(1, 0)", r"normal: std must be positive"),
        ("hyperexponential([1, 2], [1])", r"hyperexponential: weights must have one value for each of 2 means, got 1"),
        ("hyperexponential([1, 0], [1, 1])", r"hyperexponential: means\[1\] must be positive and finite, got 0"),
        ("hyperexponential(1, 2)", r"hyperexponential: means must be a list of one or more numbers, got 1"),
        ("hyperexponential([], [])", r"hyperexponential: means must be a list of one or more numbers, got \[\]"),
        ("mixture([], [])", r"mixture: laws must be a list of one or more delay laws, got \[\]"),
        ("mixture(exponential(1), [1])", r"mixture: laws must be a list such as \[exponential\(1\), gamma\(2, 4\)\]"),
        ("mixture([exponential(1)], [-1])", r"mixture: weights\[0\] must be positive and finite, got -1"),
        ("mixture([exponential(1), 3], [1, 1])", r"cannot read"),
        ("mixture([gama(1, 2)], [1])", r'did you mean "gamma"'),
        ("regimes([exponential(1)], 5)", r"regimes: laws must be two or more, got 1; write the law alone"),
        (
            "regimes([exponential(1), exponential(9)], 5)",
            r"dwell must be at least the mean delay of its law, got 5.0",
        ),
        ("regimes([exponential(1), constant(0)], 5)", r"regimes: mean of constant\(0\) must be positive"),
        ("regimes([exponential(1), exponential(2)], [5])", r"regimes: dwell must have one value for each of 2 laws"),
        ("regimes([exponential(1), exponential(2)])", r"regimes\(laws, dwell\) needs dwell"),
        ("trace(3)", r"trace takes a file name in quotes, got 3"),
        ("trace('missing.csv')", r"trace file: '.*missing.csv' does not exist"),
        (r"empirical('\0')", r"is not a CSV text file"),
        ("+".join(["constant(1)"] * 20_000), r"delay law: "),
    ],
)
def test_what_is_not_a_law_is_refused_in_one_line(text, message):
    """The message names what is wrong and what is allowed, without a line break."""
    with pytest.raises(InputError, match=message) as caught:
        parse_delay(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
def test_measured_laws_read_every_format(tmp_path, name):
    """Whatever `read_trace` recognises, also inside a mixture and behind other laws."""
    rows = [{"worker": w, "start": a, "end": b} for w, a, b in (("a", 0.0, 1.0), ("b", 0.0, 3.0), ("a", 1.0, 3.0))]
    if name.endswith("parquet"):
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / name)
    elif name.endswith("jsonl"):
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    else:
        (tmp_path / name).write_text("worker,start,end\n" + "\n".join(",".join(map(str, r.values())) for r in rows))
    for text in (f'empirical("{name}")', f'trace("{name}")'):
        law = parse_delay(f"mixture(laws=[{text}, constant(4)], weights=[1, 1]) + constant(1)", folder=tmp_path)
        assert law.mean == pytest.approx(4.0)
        assert files_of(str(law)) == [name]
        assert parse_delay(str(law), folder=tmp_path) == law


def test_numbers_that_need_more_than_12_digits_keep_them():
    """Twelve digits where they say it all, otherwise as many as it takes."""
    assert str(Constant(0.1)) == "constant(0.1)"
    assert parse_delay(str(Uniform(1e6, np.nextafter(1e6, 2e6)))) == Uniform(1e6, np.nextafter(1e6, 2e6))
