"""Every law: distribution, tail, moments, equilibrium, samples, compiled draws, transform, against other routes."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

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
    ShiftedExponential,
    Uniform,
    Weibull,
    parse_delay,
)
from stalewise.delays.compiled import DelayStream, encode
from transforms import grid, worst_error

SINGLE = [
    Exponential(2.0),
    ShiftedExponential(0.5, 1.5),
    Gamma(1.0, 0.3),
    Gamma(1.0, 4.0),
    Weibull(1.0, 0.5),
    Weibull(1.0, 2.0),
    Weibull(2.0, 8.0),
    Lognormal(2.0, 0.5),
    Lognormal(1.0, 3.0),
    Pareto(1.0, 1.5),
    Pareto(1.0, 3.7),
    Uniform(0.3, 1.7),
    Normal(1.0, 0.3),
    Normal(1.0, 2.0),
]
CHOICES = [
    Hyperexponential([0.5, 3.0], [4.0, 1.0]),
    Mixture((Gamma(1.0, 4.0) + Constant(0.1), Pareto(1.0, 2.5)), (1.0, 2.0)),
    Mixture((Constant(0.5), Exponential(1.0) + Uniform(0.0, 1.0)), (1.0, 3.0)),
    Regimes((Gamma(0.5, 4.0), Lognormal(3.0, 0.5)), (30.0, 60.0)),
    Gamma(1.0, 4.0) + Lognormal(0.5, 0.5),
]
CONTINUOUS = [*SINGLE, *CHOICES]
ATOMS = [Empirical(np.array([0.2, 0.5, 0.5, 1.0, 3.0])), Constant(0.7), Constant(0.7) + Empirical(np.array([1.0, 2.0]))]
EVERY = [*CONTINUOUS, *ATOMS]
TRANSFORMED = [
    *CONTINUOUS,
    Gamma(1.0, 50.0),
    Weibull(1.0, 0.2),
    Weibull(1.0, 1.4),
    Weibull(1.0, 10.0),
    Lognormal(1.0, 0.05),
    Lognormal(1.0, 10.0),
    Pareto(1.0, 1.01),
    Pareto(1.0, 2.0),
    Pareto(1.0, 40.0),
    Normal(1.0, 0.02),
]


@pytest.mark.parametrize("law", TRANSFORMED, ids=str)
def test_transform_agrees_with_mpmath(law):
    """To 1e-10 of its size, however small: |s| mean from 1e-6 to 1e4, five directions, light tails left of the axis."""
    assert worst_error(law, grid(law, (1e-6, 0.01, 1.0, 30.0, 1e4), left=law != Gamma(1.0, 50.0))) < 1e-10


@pytest.mark.parametrize("law", [Weibull(1.0, 0.6), Lognormal(1.0, 2.0), Pareto(1.0, 1.5)], ids=str)
def test_heavy_tails_say_where_the_transform_exists(law):
    """Abscissa 0, a sentence, and NaN left of the axis, also for whatever contains the law."""
    for one in (law, law + Gamma(1.0, 2.0), Mixture((Exponential(1.0), law), (1.0, 1.0)), Regimes((law, law), 9.0)):
        assert one.abscissa == 0.0
        assert "Re s >= 0 only" in one.transform_domain
        assert np.isnan(one.laplace(np.array([-0.1, 0.1, -1e-9 + 1j]))).tolist() == [True, False, True]
    assert Weibull(1.0, 1.0).abscissa == -1.0 and Weibull(1.0, 1.5).abscissa == -math.inf
    assert "Re s > -2 1/s" in Exponential(0.5).transform_domain
    assert Normal(1.0, 0.1).transform_domain == "every s"


@pytest.mark.parametrize("law", SINGLE, ids=str)
def test_cdf_is_scipys_and_the_integral_of_the_density(law):
    """Our own closed forms against SciPy's, and both against quadrature between quantiles."""
    t = law.quantile(np.array([0.01, 0.3, 0.9, 0.999]))
    assert law.cdf(t) == pytest.approx(law.frozen.cdf(t), rel=1e-9)
    assert law.survival(t) == pytest.approx(law.frozen.sf(t), rel=1e-9)
    for low, high in itertools.pairwise(t):
        area, _ = integrate.quad(law.density, low, high, epsabs=0.0, epsrel=1e-10)
        assert law.cdf(high) - law.cdf(low) == pytest.approx(area, rel=1e-8)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_survival_keeps_its_digits_in_the_tail(law):
    """The quantile of the tail is its inverse down to 1e-20, where 1 - cdf is zero."""
    q = np.array([0.5, 1e-3, 1e-10, 1e-20])
    t = law.tail_quantile(q)
    kept = law.survival(np.nextafter(t, 0)) < 3 * q  # no atom there, and no end of a bounded support
    assert kept.sum() >= 2
    assert law.survival(t)[kept] == pytest.approx(q[kept], rel=1e-3 if not isinstance(law, Uniform) else 1e-5)


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
def test_moments_are_those_of_the_survival_function(law):
    """Mean = int S and, where it exists, E D^2 = int 2 t S."""
    top = float(law.tail_quantile(1e-25))
    t = np.concatenate([[0.0], np.geomspace(1e-9 * law.mean, top, 200_001)])
    s = law.survival(t)
    assert integrate.trapezoid(s, t) == pytest.approx(law.mean, rel=1e-4)
    if math.isfinite(law.variance) and law.abscissa < 0:
        assert integrate.trapezoid(2 * t * s, t) == pytest.approx(law.variance + law.mean**2, rel=1e-4)


@pytest.mark.parametrize("law", EVERY, ids=str)
def test_equilibrium_is_the_integral_of_the_survival_function(law):
    """Its cdf is int_0^t S / mean, its mean E D^2/(2 E D), its quantile the inverse, its transform (1 - phi)/(s m)."""
    rest = law.equilibrium()
    for t in (0.3 * law.mean, 1.1 * law.mean, 4.0 * law.mean):
        cuts = [v for v in law.atoms[0] if 0 < v < t]
        low = [v for v in np.append(law.quantile([0.0, 0.01, 0.5, 0.99]), law.quantile(1.0)) if 0 < v < t]
        area, _ = integrate.quad(law.survival, 0.0, t, points=sorted({*cuts, *low}) or None, limit=500)
        assert rest.cdf(t) == pytest.approx(area / law.mean, abs=2e-6)
        assert rest.quantile(rest.cdf(t)) == pytest.approx(t, rel=1e-6) or rest.survival(t) < 1e-9
    assert rest.survival(0.0) == pytest.approx(1.0, abs=1e-6)
    expected = (law.variance + law.mean**2) / (2 * law.mean)
    assert rest.mean == pytest.approx(expected)
    s = np.array([0.5, 2.0 + 1j]) / law.mean
    assert rest.laplace(s) == pytest.approx((1 - law.laplace(s)) / (s * law.mean))
    assert rest.laplace(0.0) == 1.0


@pytest.mark.parametrize("law", CONTINUOUS, ids=str)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_samples_follow_the_law(law, seed):
    """Kolmogorov-Smirnov at 1e-5 for draws, compiled draws, residuals: 171 tests, false alarm in 0.2 % of seed sets.

    Regimes and mixtures with an atom are left to tests of their own where the test needs independence or continuity.
    """
    rng = np.random.default_rng(seed)
    assert stats.kstest(law.equilibrium().sample(4000, rng), law.equilibrium().cdf).pvalue > 1e-5
    if len(law.atoms[0]):
        return
    assert stats.kstest(law.sample(4000, rng), law.cdf).pvalue > 1e-5
    if law.independent:
        source = DelayStream(encode(law.components(), law.mean), 1, rng)
        assert stats.kstest([source.next(0) for _ in range(4000)], law.cdf).pvalue > 1e-5


def test_equilibrium_of_a_memoryless_delay_is_itself():
    """Exponential: the residual is the delay; constant: it is uniform."""
    t = np.array([0.1, 1.0, 5.0, 100.0])
    assert Exponential(2.0).equilibrium().survival(t) == pytest.approx(np.exp(-t / 2), rel=1e-12)
    assert Constant(2.0).equilibrium().cdf([0.5, 1.0, 3.0]) == pytest.approx([0.25, 0.5, 1.0])
    assert Pareto(1.0, 1.5).equilibrium().mean == math.inf


def test_infinite_variance_goes_through():
    """Pareto of shape 1.5: mean 1, variance and cv infinite, autocorrelation of a mixture with it 0 all the same."""
    law = Pareto(1.0, 1.5)
    assert (law.mean, law.variance, law.cv) == (1.0, math.inf, math.inf)
    assert (law + Exponential(1.0)).cv == math.inf
    assert Mixture((law, Exponential(1.0)), (1, 1)).autocorrelation(1) == 0.0
    assert math.isnan(Regimes((law, Exponential(2.0)), 10.0).autocorrelation(1))


def test_normal_mean_is_that_of_the_truncated_law():
    """What `.mean` says is the mean of the delay, not the parameter."""
    assert Normal(1.0, 1.0).mean == pytest.approx(stats.truncnorm(-1, np.inf, 1, 1).mean())
    assert Normal(1.0, 1.0).variance == pytest.approx(stats.truncnorm(-1, np.inf, 1, 1).var())


def test_compiled_nested_laws_follow_the_law():
    """A mixture of sums of mixtures and regimes: means of 40,000 compiled draws within 4.5 standard errors.

    The error counts the autocorrelation by batches of 1,000; two moments of two laws, one false alarm in 30,000.
    """
    inner = Mixture((Constant(0.1), Exponential(0.4) + Uniform(0.0, 0.2)), (1.0, 2.0))
    for law in (
        Mixture((inner + Gamma(1.0, 3.0), Regimes((inner, Pareto(2.0, 6.0)), 8.0) + Constant(0.2)), (3.0, 1.0)),
        Regimes((inner + Weibull(1.0, 2.0), Regimes((Exponential(0.2), Normal(1.0, 0.3)), 4.0)), (20.0, 10.0)),
    ):
        source = DelayStream(encode(law.components(), law.mean), 2, np.random.default_rng(3))
        draws = np.array([source.next(i % 2) for i in range(40_000)])
        for values, expected in ((draws, law.mean), ((draws - law.mean) ** 2, law.variance)):
            batches = values.reshape(40, 1000).mean(axis=1)
            assert abs(batches.mean() - expected) < 4.5 * batches.std(ddof=1) / math.sqrt(40)


def test_regimes_share_time_by_dwell():
    """Equal dwell times, delays of 1 s and 10 s: half of the time each, so 10 of 11 delays are the short one."""
    law = Regimes((Constant(1.0), Constant(10.0)), 100.0)
    assert law.probabilities == pytest.approx([10 / 11, 1 / 11])
    assert law.mean == pytest.approx(20 / 11)
    chain = 1.0 - 1 / 100 - 10 / 100
    assert [law.autocorrelation(k) for k in (0, 1, 5)] == pytest.approx([1.0, chain, chain**5])


def test_regimes_last_their_dwell_and_correlate_as_they_say():
    """Compiled draws: time shares, mean visits and the autocorrelation at lags 1, 3, 10, over 200 workers.

    Means over independent workers, 4.5 standard errors: six checks, one false alarm in 20,000 seeds.
    """
    law = Regimes((Exponential(1.0), Constant(0.5), Gamma(4.0, 2.0)), (10.0, 5.0, 40.0))
    source = DelayStream(encode(law.components(), law.mean), 200, np.random.default_rng(0))
    x = np.array([[source.next(w) for _ in range(600)] for w in range(200)])
    off = x - law.mean
    for lag in (1, 3, 10):
        products = (off[:, :-lag] * off[:, lag:]).mean(axis=1)
        expected = law.autocorrelation(lag) * law.variance
        assert abs(products.mean() - expected) < 4.5 * products.std(ddof=1) / math.sqrt(200)
    means = x.mean(axis=1)
    assert abs(means.mean() - law.mean) < 4.5 * means.std(ddof=1) / math.sqrt(200)
    runs = [
        np.diff(np.flatnonzero(np.diff((row == 0.5).astype(int), prepend=0, append=0)))[::2] for row in x[:, 50:-50]
    ]
    visits = 0.5 * np.concatenate([run[1:-1] for run in runs if len(run) > 2])
    assert abs(visits.mean() - 5.0) < 4.5 * visits.std(ddof=1) / math.sqrt(len(visits)) + 0.15


def test_autocorrelation_of_nested_memory():
    """A mixture that uses regimes half of the time: covariance from its own counts, against 200 compiled workers."""
    law = Mixture((Regimes((Constant(1.0), Constant(5.0)), 25.0), Exponential(1.0)), (1.0, 1.0)) + Uniform(0.0, 1.0)
    source = DelayStream(encode(law.components(), law.mean), 200, np.random.default_rng(5))
    x = np.array([[source.next(w) for _ in range(400)] for w in range(200)]) - law.mean
    for lag in (1, 4):
        products = (x[:, :-lag] * x[:, lag:]).mean(axis=1)
        assert abs(products.mean() - law.autocovariance(lag)) < 4.5 * products.std(ddof=1) / math.sqrt(200)


def test_staggered_workers_are_in_a_regime_by_its_share_of_time():
    """Regimes that outlast the burn-in: constant delays of 1 s and 10 s, half of 2,000 workers in each.

    4.5 standard errors: one false alarm in 150,000 seeds.
    """
    law = Regimes((Constant(1.0), Constant(10.0)), 1e6)
    source = DelayStream(encode(law.components(), law.mean), 2000, np.random.default_rng(1))
    for worker in range(2000):
        source.residual(worker)
    slow = np.mean([source.next(worker) == 10.0 for worker in range(2000)])
    assert abs(slow - 0.5) < 4.5 * 0.5 / math.sqrt(2000)


def test_replay_autocorrelation_is_that_of_the_record():
    """A trace that alternates is anticorrelated at odd lags and repeats at even ones."""
    law = parse_delay("exponential(1)")
    assert law.autocorrelation(3) == 0.0
    from stalewise.delays import Replay

    assert Replay((np.array([1.0, 3.0] * 4),)).autocorrelation(1) == pytest.approx(-1.0)
    assert Replay((np.array([1.0, 3.0] * 4),)).autocorrelation(2) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [100, 30_000])
def test_transform_of_a_sample_is_its_mean_to_rounding(count):
    """Interpolated panels or plain sum: 1e-11 of the mean of |exp(-s d)|, at large and small s, also left of zero."""
    values = np.random.default_rng(0).lognormal(0.0, 1.0, count)
    law = Empirical(values)
    for s in (1e-6, 0.1, 1j, -0.05 + 2j, 30.0 - 40j, 300j, 3000.0):
        terms = np.exp(-s * values)
        assert abs(law.laplace(s) - terms.mean()) < 1e-11 * np.abs(terms).mean()
