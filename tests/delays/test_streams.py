"""Delays drawn one at a time inside compiled code follow the law."""

import numpy as np
import pytest
from scipy import stats

from stalewise.delays import (
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Replay,
    ShiftedExponential,
    Uniform,
)
from stalewise.delays.compiled import DelayStream, encode


def stream(law, workers, seed=0):
    return DelayStream(encode(law.components(), law.mean), workers, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "law",
    [
        Exponential(2.0),
        ShiftedExponential(1.0, 0.5),
        Gamma(1.0, 0.4),
        Gamma(1.0, 4.0),
        Lognormal(1.0, 0.8),
        Uniform(1.0, 3.0),
        Gamma(1.0, 4.0) + Constant(0.5),
        Gamma(1.0, 4.0) + Lognormal(0.5, 0.5) + Uniform(0.0, 1.0) + Constant(1.0),
    ],
    ids=str,
)
def test_stream_follows_the_law(law):
    """Kolmogorov-Smirnov at 1e-4: eight laws, so under one false alarm in 1,000 choices of the seed."""
    source = stream(law, 2)
    draws = [source.next(i % 2) for i in range(4000)]
    assert stats.kstest(draws, law.cdf).pvalue > 1e-4


def test_stream_of_a_constant_is_the_constant():
    """No randomness where there is none."""
    source = stream(Constant(0.25), 3)
    assert {source.next(worker) for worker in (0, 1, 2, 2)} == {0.25}


def test_stream_of_an_empirical_law_draws_every_value_equally_often():
    """A chi-square test at 1e-4 over the recorded values."""
    source = stream(Empirical(np.array([1.0, 2.0, 4.0, 8.0])), 1)
    draws = np.array([source.next(0) for _ in range(4000)])
    counts = [(draws == value).sum() for value in (1.0, 2.0, 4.0, 8.0)]
    assert sum(counts) == 4000 and stats.chisquare(counts).pvalue > 1e-4


def test_replay_keeps_the_order_of_each_worker():
    """Worker i walks round sequence i mod 2 from wherever it began, whatever the others do."""
    sequences = (np.arange(1.0, 8.0), np.arange(101.0, 104.0))
    source = stream(Replay(sequences), 3, seed=4)
    order = np.random.default_rng(1).integers(0, 3, 300)
    seen = {0: [], 1: [], 2: []}
    for worker in order:
        seen[int(worker)].append(source.next(int(worker)))
    for worker, values in seen.items():
        sequence = sequences[worker % 2]
        begin = int(np.flatnonzero(sequence == values[0])[0])
        assert values == np.resize(np.roll(sequence, -begin), len(values)).tolist()


def test_replay_begins_at_random_places():
    """Over many seeds every place is a beginning."""
    law = Replay((np.arange(1.0, 6.0),))
    assert {stream(law, 1, seed).next(0) for seed in range(60)} == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_streams_with_equal_seeds_are_equal():
    """The seed determines every draw."""
    law = Gamma(1.0, 2.0) + Empirical(np.array([1.0, 2.0]))
    one, two = stream(law, 2, 7), stream(law, 2, 7)
    assert [one.next(i % 2) for i in range(50)] == [two.next(i % 2) for i in range(50)]
