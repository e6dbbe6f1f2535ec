"""Maximum likelihood of every family against brute force and SciPy, with censored and with thinned delays."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from stalewise.delays import fit_delay, parse_delay
from stalewise.delays.fitting import rank_laws
from stalewise.delays.fitting.families import (
    FAMILIES,
    gamma,
    hyperexponential,
    log_density,
    lognormal,
    scaled,
    shape_of,
    truncated_normal,
    weibull,
)
from stalewise.delays.fitting.ranking import log_likelihood
from stalewise.delays.fitting.sample import EXACT, Sample, kaplan_meier
from stalewise.errors import InputError

SHARE = 0.25  # of delays censored


def censor(law, n, seed):
    """Delays that ended and bounds of the others, about a quarter of them."""
    rng = np.random.default_rng(seed)
    x, bounds = law.sample(n, rng), rng.exponential(3.0 * law.mean, n) + float(law.quantile(0.02))
    return x[x <= bounds], bounds[x > bounds]


SEARCHES = {
    "gamma": (gamma, lambda p: stats.gamma(p[1], scale=p[0] / p[1]), "gamma(1, 4)"),
    "lognormal": (lognormal, lambda p: stats.lognorm(p[1], scale=math.exp(p[0])), "lognormal(1, 0.5)"),
    "weibull": (weibull, lambda p: stats.weibull_min(p[1], scale=p[0]), "gamma(1, 2)"),
    "normal": (
        truncated_normal,
        lambda p: stats.truncnorm(-p[0] / p[1], np.inf, loc=p[0], scale=p[1]),
        "lognormal(1, 0.4)",
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("censoring", [False, True])
def test_maximum_is_that_of_scipy(name, censoring):
    """The reported log-likelihood is SciPy's at the fitted parameters, and no simplex search finds a greater one."""
    search, law_of, text = SEARCHES[name]
    x, c = censor(parse_delay(text), 300, 1)
    c = c if censoring else c[:0]

    def loss(p):
        law = law_of(p)
        return -(law.logpdf(x).sum() + law.logsf(c).sum()) if p[1] > 0 else math.inf

    found = search(Sample.of(x, c))
    assert found.log_likelihood == pytest.approx(-loss(found.parameters), rel=1e-9)
    best = optimize.minimize(loss, found.parameters, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
    assert found.log_likelihood >= -best.fun - 1e-5


@pytest.mark.parametrize("censoring", [False, True])
def test_two_phases_are_found(censoring):
    """The hyperexponential fit beats the truth, by no more than chance (Wilks at 1e-5), and its gradient vanishes."""
    rng = np.random.default_rng(3)
    x = np.where(rng.random(3000) < 0.8, rng.exponential(0.5, 3000), rng.exponential(4.0, 3000))
    bounds = rng.exponential(4.0, 3000) if censoring else np.full(3000, np.inf)
    ended, c = x[x <= bounds], bounds[x > bounds]

    def value(p):
        first, second, share = p
        density = share / first * np.exp(-ended / first) + (1 - share) / second * np.exp(-ended / second)
        lasting = share * np.exp(-c / first) + (1 - share) * np.exp(-c / second)
        return np.log(density).sum() + np.log(lasting).sum()

    found = hyperexponential(Sample.of(ended, c))
    assert found.log_likelihood == pytest.approx(value(found.parameters), rel=1e-9)
    assert -1e-6 < found.log_likelihood - value((0.5, 4.0, 0.8)) < 0.5 * stats.chi2.isf(1e-5, 3)
    slopes = optimize.approx_fprime(np.array(found.parameters), value, 1e-6)
    assert np.abs(slopes).max() < 0.5
    assert hyperexponential(Sample.of(np.random.default_rng(0).gamma(4, 1, 500))) is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_censored_delays_move_no_maximum_away(family):
    """With censoring the text's log-likelihood is what SciPy's density and survival give, and the truth has less."""
    texts = {
        "exponential": "exponential(2)",
        "shifted_exponential": "shifted_exponential(1, 2)",
        "gamma": "gamma(1, 4)",
        "lognormal": "lognormal(1, 0.5)",
        "uniform": "uniform(1, 2)",
        "shifted_gamma": "gamma(1, 3) + constant(2)",
        "shifted_lognormal": "lognormal(1, 1) + constant(2)",
        "weibull": "weibull(1, 1.5)",
        "pareto": "pareto(1, 3)",
        "normal": "normal(1, 0.2)",
        "hyperexponential": "hyperexponential([0.5, 4], [0.8, 0.2])",
    }
    truth = parse_delay(texts[family.name])
    x, c = censor(truth, 2000, 5)
    fitted = next(k for k in rank_laws(x, c) if k.family is family)
    gain = fitted.log_likelihood - log_likelihood(truth, x, c)
    assert -0.1 < gain < 0.5 * stats.chi2.isf(1e-5, family.parameters + 1)
    naive = next(k.law for k in rank_laws(np.concatenate([x, c])) if k.family.name == family.name)
    assert abs(fitted.law.mean - truth.mean) < abs(naive.mean - truth.mean) + 4.5 * truth.cv * truth.mean / 2000**0.5


@pytest.mark.parametrize("text", ["exponential(2)", "gamma(1, 4)", "lognormal(1, 0.5)"])
def test_censored_fits_are_unbiased_and_naive_ones_are_not(text):
    """Over 60 samples the mean is within 4 standard errors of the truth; bounds taken for delays lose a tenth or so."""
    law = parse_delay(text)
    fitted, naive = [], []
    for seed in range(60):
        x, c = censor(law, 300, seed)
        fitted.append(next(k.law.mean for k in rank_laws(x, c) if k.family.name == text.partition("(")[0]))
        naive.append(np.concatenate([x, c]).mean())
    error = np.std(fitted, ddof=1) / 60**0.5
    assert abs(np.mean(fitted) - law.mean) < 4 * error + 0.002 * law.mean
    assert np.mean(naive) < law.mean - 10 * error


def test_no_censored_delay_is_ignored():
    """A bound far out moves the fit; one at 0 says nothing and does not."""
    x = np.random.default_rng(0).gamma(4, 0.25, 200)
    plain = rank_laws(x)
    assert [c.text for c in rank_laws(x, [0.0])] == [c.text for c in plain]
    for one in rank_laws(x, [30.0]):
        before = next((c for c in plain if c.family is one.family), None)
        assert before is None or one.log_likelihood < before.log_likelihood - 0.5
    fit = fit_delay(x, censored=[30.0])
    assert fit.censored == 1
    assert any("1 more was in flight when the log ended" in sentence for sentence in fit.sentences)


def test_bounds_must_be_numbers_and_belong_to_samples():
    """Negative and infinite bounds are refused."""
    with pytest.raises(InputError, match=r"every bound must be finite, 0 or more, got -1.0 seconds"):
        fit_delay([1.0] * 9, censored=[-1.0])
    with pytest.raises(InputError, match=r"censored takes bounds in seconds, got str"):
        fit_delay([1.0] * 9, censored="soon")


def test_kaplan_meier_by_hand():
    """Five delays, two of them censored: survival 4/5, 4/5 * 2/3, 0; equal to SciPy's."""
    values, censored = np.array([1.0, 3.0, 4.0]), np.array([2.0, 3.5])
    assert kaplan_meier(values, censored) == pytest.approx([4 / 5, 4 / 5 * 2 / 3, 0.0])
    rng = np.random.default_rng(0)
    x, c = np.sort(rng.exponential(1, 50)), np.sort(rng.exponential(1, 30))
    ours = kaplan_meier(x, c)
    theirs = stats.ecdf(stats.CensoredData(uncensored=x, right=c)).sf
    assert ours == pytest.approx(theirs.evaluate(x), abs=1e-12)


def test_thinned_samples_cost_little_likelihood():
    """Fits to a thinned sample of 200,000 are within 0.05 of the exact maximum, where a closed form gives that."""
    for seed, draw in enumerate([lambda r: r.gamma(2.5, 1, 200_000), lambda r: r.lognormal(0, 1.2, 200_000)]):
        x = draw(np.random.default_rng(seed))
        thin = Sample.of(x)
        assert len(thin.values) < EXACT < len(x)
        assert thin.count == pytest.approx(len(x)) and thin.mean == pytest.approx(x.mean(), rel=1e-9)
        whole = Sample(np.sort(x), np.ones(len(x)), np.zeros(0), np.zeros(0))
        for family in FAMILIES:
            rough, exact = family.fit(thin), family.fit(whole)
            if exact is not None and rough is not None:
                lost = log_density(exact, x).sum() - log_density(rough, x).sum()
                assert abs(lost) < 0.05, family.name


def test_a_workers_own_pace():
    """The shape of another law at the sample's mean; with bounds, at the most likely scale."""
    law = parse_delay("gamma(mean=2, shape=4) + constant(1)")
    x = np.random.default_rng(0).gamma(4, 0.5, 500) + 1.0
    assert shape_of(law).fit(Sample.of(3 * x)).mean == pytest.approx(3 * x.mean(), rel=1e-5)
    assert scaled(law, 3.0).variance == pytest.approx(9 * law.variance)
    full, bounds = 3 * x[:400], np.full(100, 1e-3)
    assert shape_of(law).fit(Sample.of(full, bounds)).mean == pytest.approx(full.mean(), rel=0.02)
