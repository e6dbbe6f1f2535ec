"""Stability charts against limits found point by point, and followed boundaries against the closed forms."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalewise.cli.main import run
from stalewise.delays import Gamma, parse_delay
from stalewise.dynamics import gain_limit, index_root, rightmost_root
from stalewise.dynamics.boundary import decay_curve, gain_boundary, step_boundary
from stalewise.dynamics.recursion import decay_per_update, mean_square_step_limit, mean_step_limit
from stalewise.errors import InputError
from stalewise.prediction import chart, limit
from stalewise.prediction.charts import _last_stable
from stalewise.report.figures import chart_page
from stalewise.staleness import arrivals, staleness_law
from studies import quadratic


def test_followed_gain_limits():
    """Gamma delays from CV 0.05 to 1.2: k tan(pi/2k)/cos^k(pi/2k), none from CV 1 on; a family that jumps is caught."""
    spreads = np.concatenate([np.linspace(0.05, 0.98, 40), [1.0, 1.2]])
    shapes = spreads**-2.0
    found = gain_boundary([Gamma(1.0, float(shape)) for shape in shapes])
    angle = np.pi / (2.0 * shapes[:40])
    np.testing.assert_allclose(found[:40], shapes[:40] * np.tan(angle) / np.cos(angle) ** shapes[:40], rtol=1e-10)
    assert np.isinf(found[40:]).all()
    laws = [parse_delay(text) for text in ("constant(1)", "uniform(0, 4)", "constant(0.1)", "weibull(1, 2)")]
    np.testing.assert_allclose(gain_boundary(laws), [gain_limit(law) for law in laws], rtol=1e-10)


@pytest.mark.parametrize("law", ["gamma(1, 4)", "uniform(0.9, 1.1)", "lognormal(1, 1)"])
def test_followed_step_limits_and_decays(law):
    """From 1 to 64 workers, each the limit found anew; decays along the steps those of the single call."""
    laws = [staleness_law(parse_delay(law), workers) for workers in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)]
    found = step_boundary(laws)
    np.testing.assert_allclose(found, [mean_step_limit(one) for one in laws], rtol=1e-8)
    for one, most in ((laws[3], found[3]), (laws[7], found[7])):
        steps = np.geomspace(0.01, 0.95, 25) * most
        np.testing.assert_allclose(decay_curve(steps, one), [decay_per_update(h, one) for h in steps], rtol=1e-3)
        assert np.log(abs(index_root(steps[9], one).value)) == pytest.approx(-decay_curve(steps, one)[9], rel=1e-6)


@pytest.mark.parametrize("law", ["gamma(1, 4)", "exponential(1)"])
def test_workers_chart_is_the_limit_at_workers_in_between(law):
    """Mean-square limits within 2.5 %, of the mean 2 %, at numbers of workers where nothing was measured; no holes."""
    study = quadratic(law, 16, 0.05)
    found = chart(study, "workers")
    for workers in (5, 11, 23):
        exact = limit(study.with_cluster(workers=32).with_schedule(active_workers=workers)).learning_rate
        log_workers = np.log(found.x.values)
        for name, key, allowed in (("mean-square limit", "mean_square", 0.025), ("limit of the mean", "mean", 0.02)):
            curve = np.exp(np.interp(np.log(workers), log_workers, np.log(found.boundaries[name])))
            assert curve == pytest.approx(exact[key], rel=allowed)
    rates, limits = np.array(found.y.values), found.boundaries["mean-square limit"]
    for i, most in enumerate(limits):
        known = [found.levels[j][i] is not None for j in range(len(rates))]
        assert known == (rates < most).tolist()
    timing = arrivals(study)
    place = found.x.values.index(16.0)
    expected = timing.rate * decay_per_update(0.1 * rates[10], timing.staleness)
    assert found.levels[10][place] == pytest.approx(expected, rel=1e-3)
    assert found.point == (16.0, 0.05)
    assert found.boundaries["mean-square limit"][0] == pytest.approx(2.0)  # one worker


def test_spread_chart():
    """Levels are the certified roots' real parts, inside the boundary alone; the fastest gain is a double root."""
    found = chart(quadratic("gamma(1, 4)", 16, 0.05), "spread")
    gains, spreads = np.array(found.y.values), np.array(found.x.values)
    i, j = 20, 25
    root = rightmost_root(gains[j], Gamma(1.0, spreads[i] ** -2))
    assert found.levels[j][i] == pytest.approx(-root.value.real)
    for i, most in enumerate(found.boundaries["limit of the mean"]):
        stable = gains < (np.inf if most is None else most)
        assert [row[i] is not None for row in found.levels] == stable.tolist()
    fastest = found.boundaries["fastest (a double root)"][10]
    assert rightmost_root(fastest, Gamma(1.0, spreads[10] ** -2)).multiplicity == 2
    assert found.point == (pytest.approx(0.5), pytest.approx(0.8))


def test_threshold_chart():
    """Limits rise as the threshold falls; the curve is the last stable threshold, found anew on both of its sides."""
    study = quadratic("gamma(1, 4)", 8, 0.3, max_staleness=8)
    found = chart(study, "threshold")
    limits = np.array(found.levels, float)
    assert (np.diff(limits, axis=0) < 1e-6 * limits[:-1]).all()
    boundary = found.boundaries["learning rate 0.3 is stable up to"]
    assert boundary[0] is None and boundary[-1] is not None
    for workers, last in zip(found.x.values, boundary, strict=True):
        for most, stable in ((last, True), (last and last + 1, False)) if last else ((found.y.values[-1], True),):
            asked = study.with_cluster(workers=16).with_schedule(
                active_workers=int(workers), max_staleness=int(most), on_stale="drop"
            )
            law = arrivals(asked).staleness
            assert (mean_square_step_limit(law, mean_step_limit(law)) > 0.3) == stable
    assert found.point == (8.0, 8.0)
    nowhere = chart(study.with_schedule(learning_rate=1.5), "threshold")
    assert set(nowhere.boundaries["learning rate 1.5 is stable up to"]) == {0.0}


@settings(max_examples=200, deadline=None)
@given(last=st.integers(0, 300), guess=st.integers(1, 300), most=st.integers(1, 256))
def test_the_last_stable_threshold(last, guess, most):
    """From any guess, and asked of few thresholds where the guess is near."""
    asked = []
    found = _last_stable(lambda k: asked.append(k) or k <= last, guess, most)
    assert found == (None if last >= most else last)
    assert all(1 <= k <= most for k in asked)
    assert len(asked) <= 4 + 3 * math.log2(1 + abs(min(last, most) - min(guess, most)))


def test_charts_as_a_verb(tmp_path, capsys):
    """JSON on standard output, pictures in a folder with text escaped; bad input is one line and nothing written."""
    study = tmp_path / "study.toml"
    study.write_text(quadratic("gamma(1, 4)", 4, 0.05).to_toml())
    assert run(["chart", str(study), "--kind", "spread", "--json", "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[0]["kind"] == "spread" and told[0]["x"]["name"] == "coefficient of variation of the delay"
    assert json.loads((tmp_path / "out" / "charts.json").read_text()) == told
    assert "Stability charts" in (tmp_path / "out" / "charts.html").read_text()
    told[0]["notes"] = ["<script>alert(1)</script>"]
    assert "<script>alert" not in chart_page(told)
    assert run(["chart", str(study), "--kind", "nothing", "--out", str(tmp_path / "no")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    with pytest.raises(InputError, match="chart: workers needs policy async"):
        chart(quadratic("gamma(1, 4)", 4, 0.05, policy="sync"), "workers")
    with pytest.raises(InputError, match="chart: workers needs schedule"):
        chart(quadratic("gamma(1, 4)", 4, 0.05, local_steps=4), "workers")


def test_a_threshold_and_weights_are_the_studys_own():
    """Dropped beyond 24 updates, weighted: the chart's limit at 32 workers is that of `limit`."""
    study = quadratic("gamma(1, 4)", 16, 0.05, max_staleness=24, staleness_weight="polynomial(0.5)")
    found = chart(study, "workers")
    place = found.x.values.index(32.0)
    exact = limit(study.with_cluster(workers=32).with_schedule(active_workers=32)).learning_rate
    assert found.boundaries["mean-square limit"][place] == pytest.approx(exact["mean_square"], rel=1e-3)
