"""Successive delays added up: laws of the sum against draws, and against a record read round and round."""

import numpy as np
import pytest
from scipy import stats

from stalewise.delays import Replay, parse_delay, repeated
from stalewise.delays.compiled import DelayStream, encode
from stalewise.errors import InputError


@pytest.mark.parametrize(
    "text",
    ["constant(2)", "gamma(1, 4)", "exponential(3)", "shifted_exponential(1, 2)", "uniform(1, 2) + exponential(1)",
     "lognormal(1, 1)"],
)  # fmt: skip
def test_law_of_the_sum(text):
    """Mean and variance are five times as large; draws follow it (KS, one false alarm in 10,000)."""
    law = parse_delay(text)
    total = repeated(law, 5)
    assert total.mean == pytest.approx(5 * law.mean) and total.variance == pytest.approx(5 * law.variance)
    draws = law.sample(20_000, np.random.default_rng(0)).reshape(-1, 5).sum(axis=1)
    if law.variance > 0:
        assert stats.kstest(draws, total.cdf).pvalue > 1e-4
    assert repeated(law, 1) is law


@pytest.mark.parametrize(("length", "times"), [(7, 3), (5, 5), (4, 9), (6, 4)])
def test_replay_adds_up_successive_delays(length, times):
    """Reading the new record in order is reading the old one ``times`` at a time, for ever."""
    record = np.random.default_rng(length).random(length) + 0.1
    added = repeated(Replay((record,)), times).sequences[0]
    long = np.resize(record, length * times).reshape(-1, times).sum(axis=1)
    np.testing.assert_allclose(np.resize(added, len(long)), long)
    total = repeated(Replay((record,)), times)
    stream = DelayStream(encode(total.components(), total.mean), 1, np.random.default_rng(0))
    assert {round(stream.next(0), 9) for _ in range(length)} <= {round(float(one), 9) for one in added}


def test_what_cannot_be_added_up():
    """Regimes, and more copies than can be drawn."""
    with pytest.raises(InputError, match="local_steps must be 1 where successive delays depend"):
        repeated(parse_delay("regimes([constant(1), constant(2)], [5, 5])"), 2)
    with pytest.raises(InputError, match="local_steps must be at most 1000"):
        repeated(parse_delay("lognormal(1, 1)"), 1001)
    assert repeated(parse_delay("gamma(1, 4)"), 10**6).mean == 1e6
