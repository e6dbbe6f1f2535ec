"""Best gain, staleness, workers and threshold against closed forms, published numbers and polynomials."""

import math

import numpy as np
import pytest

from stalewise import parse_delay
from stalewise.dynamics import best_staleness, best_threshold, best_workers, fastest_gain, rightmost_root
from stalewise.errors import InputError

GAMMA = parse_delay("gamma(1, 4)")


def rate_of(gain, law):
    return -rightmost_root(gain, law).value.real


@pytest.mark.parametrize("text", ["gamma(2, 4)", "gamma(1, 2.5)", "constant(2)", "normal(1, 0.3)", "weibull(1, 2)"])
def test_gains_beside_the_fastest_are_slower(text):
    """By certified roots, 1e-3 and 10 % to either side; at the gain itself two roots meet."""
    law = parse_delay(text)
    best = fastest_gain(law)
    for factor in (0.9, 0.999, 1.001, 1.1):
        assert rate_of(factor * best.gain, law) < best.rate
    assert rate_of(best.gain, law) == pytest.approx(best.rate, rel=1e-6)


def test_general_search_agrees_with_the_closed_form():
    """A sum of two gamma(2) laws is a gamma(4) law, which the search does not know."""
    half = parse_delay("gamma(0.5, 2)")
    best = fastest_gain(half + half)
    assert best.gain == pytest.approx(0.8**5, rel=1e-12)
    assert best.rate == pytest.approx(0.8, rel=1e-12)


def test_exponential_delays_have_a_plateau():
    """Rate 1/(2 mu) from a mu = 1/4 on, by certified roots too."""
    best = fastest_gain(parse_delay("exponential(2)"))
    assert (best.gain, best.rate, best.plateau) == (pytest.approx(0.125), pytest.approx(0.25), True)
    assert rate_of(5.0, parse_delay("exponential(2)")) == pytest.approx(0.25)


def test_gamma_below_shape_one_is_governed_by_its_singularity():
    """Of shape 1/2 and mean 1: from a = 1/sqrt(2) on no root is left of it, and none to its right before."""
    best = fastest_gain(parse_delay("gamma(1, 0.5)"))
    assert (best.gain, best.rate) == (pytest.approx(math.sqrt(0.5)), pytest.approx(0.5))
    assert "singularity" in best.note
    assert rate_of(0.99 * best.gain, parse_delay("gamma(1, 0.5)")) < 0.5


@pytest.mark.parametrize(
    ("law", "golden"),
    [(1.0, (0.368, 0.845, 1.275, 1.461, 1.536)), (GAMMA, (0.328, 0.844, 1.555, 1.979, 2.178))],
)
def test_best_gain_of_a_spectrum(law, golden):
    """Condition numbers 1, 3, 10, 30, 100, as found once by maximising the slowest mode on a grid."""
    found = [fastest_gain(law, condition).gain for condition in (1, 3, 10, 30, 100)]
    assert found == pytest.approx(golden, abs=1e-3)


def test_heavy_tails_are_said():
    """They have neither a fastest gain nor a delay that helps."""
    law = parse_delay("lognormal(1, 1)")
    assert fastest_gain(law).gain is None
    assert "power of time" in fastest_gain(law).note
    assert best_staleness(1.0, law).delay is None
    with pytest.raises(InputError, match="heavy-tailed"):
        best_workers([1.0], 0.1, law, 2)


def test_small_staleness_accelerates():
    """Gamma(k) by (1 + 1/k)^k, constant delays by e; the rate is that of a certified root at the delay told."""
    for shape in (1.0, 2.0, 4.0):
        assert best_staleness(3.0, parse_delay(f"gamma(1, {shape})")).speed_up == pytest.approx(
            (1 + 1 / shape) ** shape
        )
    assert best_staleness(3.0).speed_up == pytest.approx(math.e)
    found = best_staleness(3.0, GAMMA)
    law = parse_delay(f"gamma({found.delay!r}, 4)")
    assert rate_of(3.0, law) == pytest.approx(found.rate, rel=1e-6)
    for factor in (0.9, 1.1):
        assert rate_of(3.0, parse_delay(f"gamma({factor * found.delay!r}, 4)")) < found.rate


def round_robin_rate(workers, step):
    """N |ln z| a cycle, z the largest root of z^N - z^(N-1) + h."""
    return -workers * math.log(np.abs(np.roots([1.0, -1.0, *[0.0] * (workers - 2), step])).max())


@pytest.mark.parametrize("curvatures", [[1.0], [1.0, 0.4]])
def test_best_workers_at_a_fixed_learning_rate(curvatures):
    """Every number of round-robin workers, by the roots of its polynomial."""
    rates = {n: min(round_robin_rate(n, 0.15 * c) for c in curvatures) for n in range(2, 9)}
    found = best_workers(curvatures, 0.15, 1.0, 8)
    assert found.best == max(rates, key=rates.__getitem__)
    for choice, rate in zip(found.choices[1:], found.rates[1:], strict=True):
        assert rate == pytest.approx(rates[int(choice)], rel=2e-3)


def test_retuned_learning_rates_of_round_robin():
    """N h = (1 - 1/N)^(N-1), a double root, with rate -N ln(1 - 1/N) a cycle; nothing is gained by more workers."""
    found = best_workers([2.0], None, 1.0, 4)
    for n, rate, learning_rate in zip(found.choices[1:], found.rates[1:], found.learning_rates[1:], strict=True):
        assert 2.0 * learning_rate * n == pytest.approx((1 - 1 / n) ** (n - 1), rel=2e-3)
        assert rate == pytest.approx(-n * math.log(1 - 1 / n), rel=5e-3)
    assert found.best == 1
    assert "re-tuned" in found.note


def test_retuned_rates_are_level():
    """Gamma(4), condition 10: two workers within 10 % of one, at half of the learning rate."""
    found = best_workers([1.0, 0.1], None, GAMMA, 2)
    assert found.as_good == (1, 2)
    assert found.learning_rates[1] == pytest.approx(0.5 * found.learning_rates[0], rel=0.05)


def test_memoryless_workers_reach_the_optimum_of_their_spectrum():
    """Condition 10 at eta 0.05: 46 to 64 workers are as good, as event simulations of the loss found 56."""
    low, high = best_workers([1.0, 0.1], 0.05, parse_delay("exponential(1)"), 128).as_good
    assert low < 56 < high


def test_a_threshold_pays_where_staleness_slows():
    """40 memoryless workers near their limit: some threshold is faster than none (1,000), and 0 is slower than best."""
    found = best_threshold([1.0], 0.15, parse_delay("exponential(1)"), 40, [0, 10, 1000])
    assert found.choices.tolist() == [0, 10, 1000]
    assert found.best == 10
    assert found.rates[2] < found.rates[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastest_gain(0.0), "delay must be"),
        (lambda: fastest_gain(1.0, 0.5), "condition must be at least 1"),
        (lambda: best_staleness(-1.0), "gain must be"),
        (lambda: best_workers([], 0.1, 1.0, 4), "curvatures must be"),
        (lambda: best_workers([1.0], 0.1, 1.0, 0), "most must be"),
        (lambda: best_threshold([1.0], 0.1, 1.0, 4, []), "thresholds are missing"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
