"""The error of Poisson arrivals."""

import numpy as np
import pytest

from stalewise.delays import parse_delay
from stalewise.staleness import poisson_error
from stalewise.staleness.poisson import dispersion, interarrival_distance


def test_memoryless_workers_are_poisson():
    """No error at all, to the grid; and the user is told so."""
    error = poisson_error(parse_delay("exponential(1)"), 8)
    assert max(error.interarrival, error.staleness, abs(error.dispersion - 1)) < 2e-3
    assert error.good_enough
    assert "good enough for all" in error.sentence


def test_interarrival_distance_of_two_constant_workers():
    """One comes, the other is uniform on the cycle: P(T > t) = 1 - t on (0, 1), largest gap to exp(-2t) at ln 2/2."""
    t = np.log(2) / 2
    assert interarrival_distance(parse_delay("constant(1)"), 2) == pytest.approx(max(1 - t - 0.5, np.exp(-2)), abs=1e-4)


@pytest.mark.parametrize(("workers", "published"), [(4, 0.063), (16, 0.015), (64, 0.005)])
def test_interarrival_distance_falls_as_the_workers_grow(workers, published):
    """gamma(4): about 0.25/N."""
    assert interarrival_distance(parse_delay("gamma(1, 4)"), workers) == pytest.approx(published, abs=1.5e-3)


def test_dispersion_runs_from_one_to_the_squared_variation():
    """Short windows see at most one arrival, long ones c^2; in between, the simulated 0.41 of gamma(4)."""
    law = parse_delay("gamma(1, 4)")
    assert dispersion(law, 1e-3) == pytest.approx(1.0, abs=2e-3)
    assert dispersion(law, 1.0) == pytest.approx(0.41, abs=0.01)
    assert dispersion(law, 60.0) == pytest.approx(0.25, abs=0.01)
    assert dispersion(parse_delay("constant(1)"), 1.5) == pytest.approx(0.25 / 1.5)


def test_regular_workers_are_told_apart():
    """gamma(4), 16 workers: times are Poisson, staleness nearly (0.037), noise is not; constant workers never are."""
    error = poisson_error(parse_delay("gamma(1, 4)"), 16)
    assert error.staleness == pytest.approx(0.037, abs=0.006)
    assert not error.good_enough
    assert "wrong for noise" in error.sentence
    assert "good enough for times" in error.sentence
    constant = poisson_error(parse_delay("constant(1)"), 16)
    assert constant.staleness > 0.8
    assert constant.dispersion == pytest.approx(0.0)


def test_dispersion_of_nearly_equal_delays():
    """In one mean delay E(D - mu)^+/mu have no arrival, as many two: c sqrt(2/pi), resolved or not."""
    for shape, allowed in ((1e6, 3e-5), (1e12, 1e-4)):
        told = dispersion(parse_delay(f"gamma(1, {shape:g})"), 1.0)
        assert told == pytest.approx(np.sqrt(2.0 / np.pi / shape), abs=allowed)
