"""Verdicts kept and verdicts from theorems are those of a count; bounds of transforms hold, and fall."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stalewise.delays import Empirical, Gamma, parse_delay
from stalewise.dynamics import are_stable, gain_limit, is_stable, rightmost_root
from stalewise.dynamics.roots.kernel import clear, count_right, height_of
from stalewise.dynamics.roots.search import facts_of
from stalewise.dynamics.roots.transform import bounds, is_rising, program_of, transform

LAWS = [
    "constant(0.8)", "gamma(1, 4)", "gamma(1, 0.6)", "exponential(1)", "uniform(0.2, 1.4)", "uniform(0, 2)",
    "normal(1, 0.3)", "normal(0.5, 1)", "weibull(1, 2)", "weibull(1, 0.7)", "weibull(1, 20)", "lognormal(1, 1)",
    "lognormal(1, 0.1)", "lognormal(1, 100)", "pareto(1, 2.5)", "hyperexponential([0.5, 3], [0.8, 0.2])",
    "gamma(1, 2.5) + uniform(0, 1) + constant(0.3)", "mixture([constant(0.3), pareto(2, 1.5)], [0.7, 0.3])",
    "mixture([constant(0.2), constant(1), constant(4)], [0.5, 0.3, 0.2])", "samples",
]  # fmt: skip
SMOOTH = ["gamma(1, 4)", "uniform(0, 2)", "normal(1, 0.3)", "weibull(1, 2)", "weibull(1, 0.7)", "lognormal(1, 1)"]


def law_of(name):
    """A law by its text, or a thousand samples."""
    if name == "samples":
        return Empirical(np.random.default_rng(0).gamma(4.0, 0.25, 1000))
    return parse_delay(name)


def counted(law, gain):
    """The count alone, with a program of its own."""
    reach = 4.0 * gain + 24.0 / law.mean
    return count_right(program_of(law, 0.0, reach), (0.0, 1.0, 0.0, gain, 0.0), 0.0, reach) == 0


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(LAWS), gains=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=12))
def test_what_was_asked_before_does_not_matter(name, gains):
    """In any order, again and all at once: what a count of its own says of each gain."""
    law = law_of(name)
    gains = [10.0**exponent / law.mean for exponent in gains]
    expected = [counted(law, gain) for gain in gains]
    assert [is_stable(gain, law) for gain in gains + gains] == expected + expected
    assert are_stable(gains, law).tolist() == expected


def test_proven_ranges_do_not_reach_across_the_limit():
    """Gains near the limit from both sides, far ones first: each on its side. Laws that no other test asks about."""
    for name in ("gamma(1, 4.5)", "normal(1, 0.31)", "weibull(1, 2.1)", "uniform(0.2, 1.41)"):
        law = law_of(name)
        most = gain_limit(law)
        for off in (0.5, 0.1, 1e-3, 1e-6, 1e-9):
            assert not is_stable(most * (1.0 + off), law) and is_stable(most * (1.0 - off), law)
        facts = facts_of(law)
        assert most * (1.0 - 1e-5) < facts.stable < most < facts.unstable[0] < most * (1.0 + 1e-5)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=5), share=st.floats(0.05, 1.0), data=st.data())
def test_every_law_is_stable_below_half_pi_over_its_mean(values, share, data):
    """Choices of constants with any shares: no root right of the axis, by a count."""
    weights = np.array([data.draw(st.floats(0.01, 1.0)) for _ in values])
    weights /= weights.sum()
    parts = ", ".join(f"constant({value!r})" for value in values)
    law = parse_delay(f"mixture([{parts}], [{', '.join(map(repr, weights.tolist()))}])")
    if law.mean < 1e-3:
        return
    gain = 0.9999 * share * 0.5 * math.pi / law.mean
    assert counted(law, gain)
    assert is_stable(gain, law)


def test_the_inequality_of_the_proof():
    """x >= pi/2 sin x - cos x, equal at pi/2 alone; so a constant delay is the law that stands least gain."""
    x = np.linspace(0.0, 60.0, 600_001)
    off = x - 0.5 * math.pi * np.sin(x) + np.cos(x)
    assert off.min() > -1e-12 and abs(x[off.argmin()] - 0.5 * math.pi) < 1e-4
    assert is_stable(0.5 * math.pi * (1 - 1e-12), 1.0) and not is_stable(0.5 * math.pi * (1 + 1e-8), 1.0)


def test_roots_that_come_back():
    """Two constants under which roots also cross to the left as the gain grows: no count is carried across that."""
    law = parse_delay("mixture([constant(0.1), constant(3)], [0.6, 0.4])")
    assert not is_rising(law)
    program, gains = program_of(law, 0.0, 0.0), np.geomspace(0.5, 400.0, 300)
    counts = [count_right(program, (0.0, 1.0, 0.0, gain, 0.0), 0.0, 1e300) for gain in gains]
    assert (np.diff(counts) < 0).any()
    clears = [clear(program, low, high, 1e300) for low, high in itertools.pairwise(gains)]
    assert sum(clears) > 100
    assert all(low == high for (low, high), same in zip(itertools.pairwise(counts), clears, strict=True) if same)
    assert [is_stable(gain, law) for gain in gains[::-1]] == [count == 0 for count in counts[::-1]]


@pytest.mark.parametrize("name", [name for name in LAWS if is_rising(law_of(name))])
def test_roots_on_the_axis_move_right(name):
    """-Re phi'/phi > 0 on the axis, at 300 frequencies, where the law is said to have it."""
    law = law_of(name)
    program = program_of(law, 0.0, 0.0)
    stack = np.empty((len(program.rows), 2), complex)
    for omega in np.geomspace(0.01, 50.0, 300):
        phi, slope = transform(program, stack, complex(0.0, omega))
        if abs(phi) > 1e-6:
            assert -(slope / phi).real > 0.0


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(LAWS),
    place=st.tuples(st.floats(-1.0, 1.0), st.floats(-2.0, 1.5)),
    beyond=st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 3.0)),
)
@example(name="uniform(0.2, 1.4)", place=(2.2e-309, 0.0), beyond=(0.0, 0.0))
def test_bounds_of_transforms(name, place, beyond):
    """Right of sigma and above omega neither transform nor derivative exceeds them; on the axis they are equal."""
    law = law_of(name)
    reach = 200.0 / law.mean
    left = 0.0 if law.abscissa == 0.0 else min(1.0 / law.mean, -0.8 * law.abscissa)
    program = program_of(law, left, reach)
    stack = np.empty((len(program.rows), 2), complex)
    sigma = place[0] * left if place[0] < 0 else place[0] / law.mean
    omega = 10.0 ** place[1] / law.mean
    phi, slope = bounds(program, stack, sigma, omega)
    s = complex(sigma + beyond[0] / law.mean, omega * (1.0 + beyond[1]))
    value, derivative = transform(program, stack, s)
    most, steepest = bounds(program, stack, sigma, 0.0)
    assert abs(law.laplace(np.array([s]))[0]) <= phi * (1 + 1e-12) + 1e-12 * most
    assert abs(value) <= phi * (1 + 1e-12) + 1e-12 * most
    assert abs(derivative) <= slope * (1 + 1e-12) + 1e-12 * steepest
    assert phi <= most and slope <= steepest
    assert most == pytest.approx(law.laplace(np.array([sigma + 0j])).real[0], rel=1e-11)


@pytest.mark.parametrize("name", SMOOTH)
def test_bounds_fall(name):
    """At 150/mean they are below a twentieth of those on the axis, and roots lie less far than without them."""
    law = law_of(name)
    reach = 200.0 / law.mean
    program = program_of(law, 0.0, reach)
    stack = np.empty((len(program.rows), 2), complex)
    phi, slope = bounds(program, stack, 0.0, 150.0 / law.mean)
    most, steepest = bounds(program, stack, 0.0, 0.0)
    assert phi < 0.05 * most and slope < 0.05 * steepest
    gain = 150.0 / law.mean
    height = height_of(program, stack, (0.0, 1.0, 0.0, gain, 0.0), 0.0, 1.02 * gain, reach)
    assert height < 0.6 * gain
    t = np.linspace(height, gain, 400)
    assert (gain * np.abs(law.laplace(1j * t)) < t).all()


@pytest.mark.parametrize("exponent", [5, 6, 7, 8])
@pytest.mark.parametrize(
    "name", ["gamma(1, 0.5)", "uniform(0, 2)", "weibull(1, 0.7)", "lognormal(1, 100)", "normal(1, 0.3)"]
)
def test_large_gains(name, exponent):
    """Certified, and a root by the law's own transform; of mixtures of exponentials stable, as theory has it."""
    law, gain = law_of(name), 10.0**exponent
    root = rightmost_root(gain, law)
    assert root.certified
    if name in ("gamma(1, 0.5)", "weibull(1, 0.7)"):
        assert is_stable(gain, law)
        assert root.value == (None if law.abscissa == 0.0 else pytest.approx(law.abscissa))
    elif root.value is not None:
        assert root.value.real > 0 and not is_stable(gain, law)
        assert abs(root.value + gain * law.laplace(np.array([root.value]))[0]) < 1e-12 * abs(root.value)
    if name == "uniform(0, 2)":  # s^2 = -(a/2)(1 - e^-2s), from every place near where its roots are
        s = rng_places(math.sqrt(0.5 * gain))
        for _ in range(60):
            e = np.exp(-2 * np.maximum(s.real, -5.0) - 2j * s.imag)  # held where a start is lost
            s = s - (s * s + 0.5 * gain * (1 - e)) / (2 * s + gain * e)
        good = abs(s + gain * law.laplace(np.maximum(s.real, -5.0) + 1j * s.imag)) < 1e-9 * abs(s)
        assert good.sum() > 100
        assert s[good].real.max() == pytest.approx(root.value.real, abs=1e-9)


def rng_places(middle):
    """Where to start Newton's method."""
    x, y = np.meshgrid(np.linspace(0.1, 6.0, 12), np.linspace(-40.0, 40.0, 200) + middle)
    return (x + 1j * y).ravel()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8, 0.95])
def test_where_the_singularity_of_gamma_delays_takes_over(shape):
    """A hair below the gain of the proof a root lies right of it, by Newton; a hair above none, and it is returned."""
    law = Gamma(1.0, shape)
    quarter = 0.5 * math.pi * shape
    gain = shape * math.tan(quarter) ** shape / math.cos(quarter)
    s = complex(-shape, shape * math.tan(quarter))
    for _ in range(50):
        base = 1.0 + s / shape
        s -= (s + 0.98 * gain * base**-shape) / (1.0 - 0.98 * gain * base ** (-shape - 1.0))
    assert abs(s + 0.98 * gain * (1.0 + s / shape) ** -shape) < 1e-12 and s.real > -shape
    found = rightmost_root(0.98 * gain, law)
    assert abs(found.value - complex(s.real, abs(s.imag))) < 1e-9 and found.certified
    beyond = rightmost_root(1.02 * gain, law)
    assert beyond.value == pytest.approx(-shape) and beyond.certified and "singularity" in beyond.note
