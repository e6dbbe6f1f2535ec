"""Laws as text: what is written reads back, what is wrong is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.delays import (
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Replay,
    ShiftedExponential,
    Uniform,
    parse_delay,
)
from stalewise.errors import InputError

positive = st.floats(1e-6, 1e6).map(lambda x: float(f"{x:.12g}"))
LAWS = st.one_of(
    st.builds(Constant, positive),
    st.builds(Exponential, positive),
    st.builds(ShiftedExponential, positive, positive),
    st.builds(Gamma, positive, positive),
    st.builds(Lognormal, positive, positive),
    st.builds(Uniform, positive, positive.map(lambda x: x + 1e6)).map(lambda u: parse_delay(str(u))),
)


@settings(max_examples=200, deadline=None)
@given(LAWS)
def test_every_law_reads_back(law):
    """str(law) parses to an equal law."""
    assert parse_delay(str(law)) == law


@settings(max_examples=50, deadline=None)
@given(st.lists(LAWS, min_size=2, max_size=4))
def test_every_sum_reads_back(laws):
    """So does a sum, once its constants have been gathered."""
    total = parse_delay(" + ".join(str(law) for law in laws))
    again = parse_delay(str(total))
    assert str(again) == str(total)
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
