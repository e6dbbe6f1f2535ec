"""Dependence, unlike workers, changes of regime, outliers, and the test of fit: found when there, else not."""

import json

import numpy as np
import pytest
from scipy import stats

from stalewise.delays import fit_delay, parse_delay
from stalewise.delays.fitting import rank_laws
from stalewise.delays.fitting.changes import find_changes
from stalewise.delays.fitting.dependence import dependence
from stalewise.delays.fitting.goodness import goodness_of_fit
from stalewise.delays.fitting.heterogeneity import heterogeneity
from stalewise.delays.fitting.outliers import find_outliers
from stalewise.delays.fitting.ranking import FOLDS, Fold, rank_held_out
from stalewise.traces import Trace


def rng_of(seed):
    return np.random.default_rng(seed)


def autoregressive(rng, n, r, spread=0.2):
    """Lognormal delays of median 1 whose logarithm has lag-1 autocorrelation r."""
    z = rng.standard_normal(n)
    for i in range(1, n):
        z[i] = r * z[i - 1] + np.sqrt(1 - r * r) * z[i]
    return np.exp(spread * z)


def changes_in(values, workers=1):
    return find_changes("w", values, np.cumsum(values) - values, workers=workers)


def alarms_fit(count, trials, level):
    """Whether a count of false alarms is one that chance gives at that level (1e-4)."""
    return stats.binomtest(count, trials, level, alternative="greater").pvalue > 1e-4


def test_no_regime_is_seen_where_none_is():
    """False alarms among 300 independent logs (gamma, lognormal, Pareto) at 1 %, and among 100 autocorrelated ones."""
    draws = (
        lambda g: g.gamma(4, 1, 150),
        lambda g: g.lognormal(0, 1, 150),
        lambda g: 1 + g.pareto(2, 150),
    )
    found = sum(bool(changes_in(draws[seed % 3](rng_of(seed)))) for seed in range(300))
    assert alarms_fit(found, 300, 0.01)
    found = sum(bool(changes_in(autoregressive(rng_of(seed), 300, 0.6))) for seed in range(100))
    assert found <= 8


def test_regimes_are_found_where_they_are():
    """Twenty percent slower from row 120 on, cv 0.15: found in 30 of 30 logs, within eight rows in most of them."""
    near = 0
    for seed in range(30):
        x = rng_of(seed).gamma(44, 1 / 44, 300)
        x[120:] *= 1.2
        found = changes_in(x)
        assert found, seed
        first = min(found, key=lambda c: c.p_value)
        near += abs(first.row - 120) <= 8
        assert first.after / first.before == pytest.approx(1.2, abs=0.12)
    assert near >= 24


def test_two_changes_and_a_long_log():
    """Up and down again, in 30,000 rows: both places within 40 rows."""
    x = rng_of(1).gamma(10, 0.1, 30_000)
    x[9_000:20_000] *= 1.3
    found = changes_in(x)
    assert [c.row for c in found] == [pytest.approx(9_000, abs=40), pytest.approx(20_000, abs=40)]
    assert found[0].time == pytest.approx(float(x[: found[0].row].sum()))


def test_changes_are_named_and_explain_autocorrelation():
    """A step makes delays look autocorrelated; between the changes they are not."""
    x = [rng_of(seed).gamma(100, 0.01, 200) for seed in range(3)]
    x[1][100:] *= 1.5
    fit = fit_delay(trace_of(x))
    assert {c.worker for c in fit.changes} == {"1"}
    assert fit.dependence.lag1 > 0.2
    assert abs(fit.dependence.within_regimes) < 0.15
    assert any("worker changes regime (median delay of worker 1 at" in s for s in fit.sentences)
    assert json.loads(json.dumps(fit.as_dict(), allow_nan=False))["change_points"][0]["worker"] == "1"


def trace_of(sequences, names=None):
    """Workers that compute back to back."""
    end = [np.cumsum(x) for x in sequences]
    labels = np.repeat(names or [str(i) for i in range(len(sequences))], [len(x) for x in sequences])
    return Trace(labels, np.concatenate(end) - np.concatenate(sequences), np.concatenate(end), {}, source="log.csv")


def test_heterogeneity_is_not_seen_where_none_is():
    """Means and spreads of identical workers, independent or not: no more small p-values than by chance."""
    small = spread = 0
    for seed in range(200):
        g = rng_of(seed)
        h = heterogeneity([g.lognormal(0, 0.8, 40) for _ in range(6)], 1.0, g)
        small, spread = small + (h.p_value <= 0.05), spread + (h.spread_p_value <= 0.05)
    assert alarms_fit(small, 200, 0.05) and alarms_fit(spread, 200, 0.05)
    small = 0
    for seed in range(100):
        g = rng_of(seed)
        logs = [autoregressive(g, 300, 0.6) for _ in range(6)]
        small += heterogeneity(logs, dependence(logs, [[x] for x in logs]).memory, g).p_value <= 0.05
    assert alarms_fit(small, 100, 0.08)  # blocks of finite length let a little through


def test_heterogeneity_is_measured():
    """Means spread by 10 %: what is left after chance is 10 % within a fifth, though the bare cv is larger."""
    found = []
    for seed in range(20):
        g = rng_of(seed)
        paces = np.exp(0.1 * g.standard_normal(20))
        h = heterogeneity([pace * g.gamma(25, 0.04, 50) for pace in paces], 1.0, g)
        assert h.p_value < 0.05 and h.cv_of_means >= h.beyond_chance
        found.append(h.beyond_chance)
    assert np.mean(found) == pytest.approx(0.1, rel=0.2)


def test_unlike_spreads_are_seen():
    """Equal means, cv 0.1 and 0.4: only the test of spreads speaks."""
    g = rng_of(0)
    h = heterogeneity([g.normal(1, 0.1, 200), g.normal(1, 0.4, 200), g.normal(1, 0.1, 200)], 1.0, g)
    assert h.spread_p_value <= 0.005 < h.p_value


def test_outliers_are_named():
    """Two delays ten times as long: who, when, and what share of the time; none in exponential delays."""
    x = rng_of(0).gamma(100, 0.01, 400)
    x[[50, 300]] = 10.0, 12.0
    found = find_outliers({"a": x}, {"a": np.cumsum(x) - x})
    assert found.number == 2 and found.share_of_rows == 0.005
    assert found.share_of_time == pytest.approx(22.0 / x.sum())
    assert (found.worst[0].worker, found.worst[0].delay) == ("a", 12.0)
    assert found.worst[0].time == pytest.approx(x[:300].sum())
    y = rng_of(1).exponential(1, 100_000)
    assert find_outliers({"a": y}, {"a": y}).number == 0
    assert find_outliers({"a": y}, {"a": y}).slowest_percent == pytest.approx(0.056, abs=0.005)  # (1 + log 100)/100


def test_autocorrelation_limit():
    """95 % of independent logs stay within the limit."""
    out = 0
    for seed in range(300):
        x = [rng_of((seed, w)).gamma(2, 1, 60) for w in range(3)]
        d = dependence(x, [[s] for s in x])
        out += d.p_value < 0.05
    assert 0.015 < out / 300 < 0.095  # four standard errors


def test_held_out_decides_and_aic_breaks_ties():
    """The first law is within 2 of the best held-out score and no law that is has a smaller AIC."""
    for seed in range(10):
        g = rng_of(seed)
        folds = [Fold(g.gamma(50, 0.02 * pace, 40), np.zeros(0)) for pace in (1, 1.1, 0.9, 1.2, 1.0)]
        ranked = rank_held_out(folds)
        most = max(c.held_out for c in ranked)
        tied = [c.aic for c in ranked if c.held_out >= most - 2.0]
        assert ranked[0].held_out >= most - 2.0 and ranked[0].aic == min(tied)
        assert all(np.isfinite(c.held_out) for c in ranked)


def test_a_law_that_ends_does_not_predict_slower_times():
    """Uniform delays that later reach further: by AIC uniform, but it calls the last fifth impossible."""
    g = rng_of(1)
    values = [g.uniform(1, 2, 100) for _ in range(4)] + [g.uniform(1.3, 2.3, 100)]
    by_family = {c.family.name: c for c in rank_held_out([Fold(v, np.zeros(0)) for v in values])}
    uniform, gamma = by_family["uniform"], by_family["gamma"]
    assert uniform.aic < gamma.aic
    assert uniform.held_out < gamma.held_out


def test_held_out_by_hand():
    """For the exponential the score is that of a mixture with one part in n + 1 of a wide lognormal."""
    folds = [Fold(rng_of(i).exponential(1, 30), np.zeros(0)) for i in range(FOLDS)]
    found = next(c for c in rank_held_out(folds) if c.family.name == "exponential")
    total = 0.0
    for i, fold in enumerate(folds):
        train = np.concatenate([f.values for j, f in enumerate(folds) if j != i])
        wide = stats.lognorm(2 * np.log(train).std(), scale=np.exp(np.log(train).mean()))
        share = 1 / (len(train) + 1)
        density = (1 - share) * stats.expon(scale=train.mean()).pdf(fold.values) + share * wide.pdf(fold.values)
        total += np.log(density).sum()
    assert found.held_out == pytest.approx(total, abs=1e-3)


def test_p_values_with_censoring_are_uniform_and_powerful():
    """Thirty censored gamma samples give uniform p-values (KS at 1e-3); of a law of two modes they are all small."""
    law, p = parse_delay("gamma(1, 4)"), []
    for seed in range(30):
        g = rng_of(seed)
        x, bounds = law.sample(100, g), g.exponential(3, 100)
        one = next(c for c in rank_laws(x[x <= bounds], bounds[x > bounds]) if c.family.name == "gamma")
        p.append(goodness_of_fit(one, x[x <= bounds], bounds[x > bounds], g, replicates=99).p_value)
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    g = rng_of(99)
    x, bounds = np.concatenate([g.gamma(50, 0.02, 150), g.gamma(50, 0.1, 150)]), g.exponential(9, 300)
    ended, lasting = x[x <= bounds], bounds[x > bounds]
    one = rank_laws(ended, lasting)[0]
    assert goodness_of_fit(one, ended, lasting, g).p_value < 0.01


def test_a_trace_with_gradients_in_flight():
    """They count for their worker, and those of a worker with nothing else in the pool only."""
    x = [rng_of(seed).gamma(4, 0.25, 60) for seed in range(3)]
    whole = trace_of(x)
    late = np.array([whole.end.max() - 2.5, whole.end.max() - 1.0])
    trace = Trace(
        np.concatenate([whole.worker, ["1", "ghost"]]),
        np.concatenate([whole.start, late]),
        np.concatenate([whole.end, np.full(2, whole.end.max())]),
        {},
        censored=np.arange(len(whole) + 2) >= len(whole),
    )
    fit, plain = fit_delay(trace), fit_delay(whole)
    assert fit.censored == 2 and fit.count == len(whole)
    assert {label: worker.censored for label, worker in fit.workers.items()} == {"0": 0, "1": 1, "2": 0}
    assert fit.workers["1"].law.mean > plain.workers["1"].law.mean
    assert fit.as_dict()["pooled"]["censored"] == 2
    json.dumps(fit.as_dict(), allow_nan=False)


def test_many_workers_are_fitted_but_not_all_tested():
    """The first 64 workers have a held-out ranking and a test, the others AIC alone; a note says so."""
    fit = fit_delay(trace_of([rng_of(seed).exponential(1, 24) for seed in range(66)]))
    workers = list(fit.workers.values())
    assert workers[63].goodness is not None and workers[63].candidates[0].held_out is not None
    assert workers[64].goodness is None and workers[64].candidates[0].held_out is None
    assert workers[64].law is not None
    assert any("first 64 of 66" in note for note in fit.notes)
