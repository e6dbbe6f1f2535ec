"""Every law against quadrature, its own inverse, and samples."""

import math

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
    Sum,
    Uniform,
    parse_delay,
)
from stalewise.errors import InputError

CONTINUOUS = [
    Exponential(2.0),
    ShiftedExponential(0.5, 1.5),
    Gamma(1.0, 4.0),
    Gamma(1.0, 0.3),
    Gamma(0.7, 200.0),
    Lognormal(1.0, 0.01),
    Lognormal(1.0, 0.1),
    Lognormal(2.0, 0.5),
    Uniform(0.0, 1.0),
    Uniform(0.3, 1.7),
]
SAMPLED = [
    Empirical(np.array([0.2, 0.5, 0.5, 1.0, 3.0])),
    Replay((np.array([1.0, 2.0, 3.0]), np.array([0.5]))),
]
SUMS = [
    Gamma(1.0, 4.0) + Constant(0.5),
    Lognormal(1.0, 0.3) + Constant(0.2),
    Exponential(1.0) + Uniform(0.1, 0.4) + Constant(0.3),
    Lognormal(0.5, 0.4) + Gamma(1.0, 2.0),
]
EVERY = [Constant(0.7), *CONTINUOUS, *SUMS, *SAMPLED]
FREQUENCIES = np.array([0.0, 1e-6, 0.3, 40.0, 1e-4j, 1j, 0.5 + 3j, 2.0 - 30j, 300j, 0.1 + 1000j])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


def quadrature(law, s):
    """E exp(-s D) from SciPy's density: log panels up to the median, linear panels above."""
    low, middle, high = (float(law.quantile(p)) for p in (1e-17, 0.5, 1.0 - 1e-16))
    edges = np.concatenate([np.geomspace(max(low, 1e-60), middle, 12000), np.linspace(middle, high, 12000)[1:]])
    half = 0.5 * np.diff(edges)[:, None]
    t = (edges[:-1, None] + half * (1.0 + _NODES)).ravel()
    mass = (half * _WEIGHTS).ravel() * law.frozen.pdf(t)
    return np.array([np.exp(-value * t) @ mass for value in s])


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_transform_agrees_with_quadrature(law):
    """The closed transform equals the integral of the density, also at large imaginary arguments."""
    assert np.abs(law.laplace(FREQUENCIES) - quadrature(law, FREQUENCIES)).max() < 1e-10


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0, 20.0])
def test_lognormal_transform_agrees_with_a_rotated_contour(cv):
    """Heavy tails: the saddle-point line equals the line on which the integrand's argument is halved."""
    law = Lognormal(1.0, cv)
    x = np.linspace(-12, 12, 20001)
    for s in (1e-3j, 1j, 3.0 + 50j, 1e4j, 200.0):
        z = x - 1j * np.angle(s) / (2 * law.sigma)
        integrand = np.exp(-s * law.median * np.exp(law.sigma * z) - z * z / 2)
        expected = integrand.sum() * (x[1] - x[0]) / math.sqrt(2 * math.pi)
        assert law.laplace(s) == pytest.approx(expected, abs=1e-11)


def test_lognormal_transform_does_not_exist_left_of_zero():
    """A heavy tail has no exponential moment: the answer is NaN there, and only there."""
    values = Lognormal(1.0, 0.5).laplace(np.array([-0.1, 0.0, -1e-9 + 1j, 1.0]))
    assert np.isnan(values).tolist() == [True, False, True, False]


@pytest.mark.parametrize("law", CONTINUOUS[:5], ids=str)
def test_transform_exists_up_to_the_abscissa(law):
    """Between the abscissa and zero the transform is the finite exponential moment."""
    s = np.array([max(0.25 * law.abscissa, -2.0 / law.mean)])
    assert np.abs(law.laplace(s) / quadrature(law, s) - 1).max() < 1e-9


def test_uniform_transform_at_large_real_arguments():
    """Far right the transform is exp(-s low)/(s width), with no overflow on the way."""
    assert Uniform(0.001, 1.001).laplace(1e4) == pytest.approx(math.exp(-10.0) / 1e4)


@pytest.mark.parametrize("law", EVERY, ids=str)
def test_transform_keeps_the_shape_of_its_argument(law):
    """A number gives a number, an array an array of the same shape, and E exp(0) = 1."""
    assert np.shape(law.laplace(0.5j)) == ()
    assert law.laplace(np.ones((2, 3), complex)).shape == (2, 3)
    assert law.laplace(0.0) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("law", EVERY, ids=str)
def test_transform_has_the_moments_of_the_law(law):
    """Minus the slope at zero is the mean; the curvature is the second moment."""
    h = 1e-3 / law.mean
    up, down = law.laplace(np.array([1j * h, -1j * h]))
    assert (down - up) / (2j * h) == pytest.approx(law.mean, rel=1e-4)
    assert -(up + down - 2.0) / h**2 == pytest.approx(law.variance + law.mean**2, rel=1e-4)


@pytest.mark.parametrize("law", SUMS, ids=str)
def test_sum_transforms_to_the_product(law):
    """Independent parts: transforms multiply, means and variances add."""
    s = np.array([0.2, 1j, 3 + 40j])
    assert law.laplace(s) == pytest.approx(np.prod([part.laplace(s) for part in law.parts], axis=0))
    assert law.mean == pytest.approx(sum(part.mean for part in law.parts))
    assert law.variance == pytest.approx(sum(part.variance for part in law.parts))


@pytest.mark.parametrize("law", [*CONTINUOUS, *SUMS], ids=str)
def test_quantile_inverts_the_cdf(law):
    """F(Q(p)) = p for a continuous law, and survival is its complement."""
    p = np.array([0.001, 0.05, 0.5, 0.95, 0.999])
    t = law.quantile(p)
    assert np.abs(law.cdf(t) - p).max() < 1e-6
    assert np.abs(law.survival(t) - (1 - p)).max() < 1e-6


@pytest.mark.parametrize("law", SAMPLED, ids=str)
def test_sampled_quantile_is_the_smallest_that_reaches_p(law):
    """For a sample Q(p) is the least value whose cdf reaches p."""
    for p in (0.01, 0.25, 0.5, 0.75, 1.0):
        t = float(law.quantile(p))
        assert law.cdf(t) >= p > law.cdf(t - 1e-9)


def test_constant_jumps_at_its_value():
    """The cdf of a constant is a step, its variance and cv are zero."""
    law = Constant(2.0)
    assert law.cdf([1.999, 2.0]).tolist() == [0.0, 1.0]
    assert law.quantile([0.1, 0.9]).tolist() == [2.0, 2.0]
    assert (law.variance, law.cv, Constant(0.0).cv) == (0.0, 0.0, 0.0)


def test_sum_of_two_exponentials_is_erlang():
    """The tabulated convolution agrees with the Erlang cdf and quantile."""
    law, erlang = Exponential(1.0) + Exponential(1.0), stats.gamma(2.0)
    t = np.linspace(0.0, 20.0, 101)
    assert np.abs(law.cdf(t) - erlang.cdf(t)).max() < 1e-5
    assert law.quantile([0.01, 0.5, 0.99]) == pytest.approx(erlang.ppf([0.01, 0.5, 0.99]), abs=1e-4)


def test_sum_gathers_constants():
    """Constants add up to one part; a sum of constants is a constant; zero is no part at all."""
    assert Constant(1.0) + Constant(2.0) == Constant(3.0)
    assert Gamma(1.0, 2.0) + Constant(0.0) == Gamma(1.0, 2.0)
    assert str(Constant(1.0) + Gamma(1.0, 2.0) + Constant(0.5)) == "gamma(mean=1, shape=2) + constant(1.5)"
    assert isinstance(Gamma(1.0, 2.0) + Gamma(1.0, 3.0), Sum)
    with pytest.raises(TypeError):
        Constant(1.0) + 1.0  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize("law", EVERY, ids=str)
def test_samples_have_the_mean_and_variance(law):
    """Within 4.5 standard errors: about 36 checks, so one false alarm in 4,000 choices of the seed."""
    n = 20_000
    x = law.sample(n, np.random.default_rng(5))
    assert x.shape == (n,) and (x > 0).all()
    assert abs(x.mean() - law.mean) <= 4.5 * math.sqrt(law.variance / n) + 1e-12
    spread = ((x - law.mean) ** 2 - law.variance).std()
    assert abs(((x - law.mean) ** 2).mean() - law.variance) <= 4.5 * spread / math.sqrt(n) + 1e-12


def test_large_samples_are_compressed_without_losing_moments():
    """Above 4,000 delays the transform groups neighbours and still matches the full sum."""
    values = np.random.default_rng(0).lognormal(0.0, 1.0, 20_000)
    law = Empirical(values)
    for s in (0.1, 1j, 1 + 5j):
        assert law.laplace(s) == pytest.approx(np.exp(-s * values).mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Constant(-1.0), r"constant: value must be zero or more, and finite, got -1.0 seconds"),
        (lambda: Exponential(0.0), r"exponential: mean must be positive and finite, got 0.0 seconds"),
        (lambda: ShiftedExponential(-0.1, 1.0), r"shifted_exponential: shift must be zero or more"),
        (lambda: Gamma(1.0, math.inf), r"gamma: shape must be positive and finite, got inf"),
        (lambda: Gamma(math.nan, 1.0), r"gamma: mean must be positive and finite, got nan seconds"),
        (lambda: Lognormal(1.0, 0.0), r"lognormal: cv must be positive"),
        (lambda: Uniform(2.0, 1.0), r"uniform: high must exceed low, got low=2.0, high=1.0"),
        (lambda: Empirical(np.array([])), r"empirical: needs at least one delay, got shape \(0,\)"),
        (
            lambda: Empirical(np.array([1.0, 0.0])),
            r"every delay must be positive and finite, got .*0.0.* at position 1",
        ),
        (lambda: Replay(()), r"trace: no worker in it"),
        (lambda: Replay((np.array([1.0, np.nan]),)), r"trace: every delay must be positive and finite"),
    ],
)
def test_wrong_parameters_are_refused(build, message):
    """The message names the law, the parameter, its value and what is allowed."""
    with pytest.raises(InputError, match=message):
        build()


def test_law_of_the_examples_is_what_the_architecture_says():
    """gamma(mean=1, shape=4) has cv 1/2."""
    assert parse_delay("gamma(mean=1.0, shape=4)").cv == pytest.approx(0.5)
