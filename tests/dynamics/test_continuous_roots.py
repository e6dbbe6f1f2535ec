"""Characteristic roots of the delay equation: closed forms, polynomials, high precision, brute force."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import lambertw

from stalewise.delays import Empirical, Gamma, Hyperexponential, Lognormal, Weibull, parse_delay
from stalewise.dynamics import (
    SDDE,
    Inertia,
    are_stable,
    characteristic_roots,
    gain_limit,
    is_stable,
    rightmost_root,
    rightmost_roots,
)
from stalewise.dynamics.roots.kernel import count_right
from stalewise.dynamics.roots.transform import program_of, transform
from stalewise.errors import InputError, NotConvergedError

# mpmath, 30 to 40 digits, residual and argument principle checked: project's reference data
REFERENCE = [
    (1.0, "gamma(1, 2.5)", -0.41734150758400868903 + 1.0895492176789450847j),
    (0.7, "gamma(1, 1.5)", -0.50770493868657747363 + 0.76419224055029510376j),
    (1.1, "gamma(1, 7.3)", -0.307769163536072163 + 1.2957331372106928374j),
    (1.8, "uniform(0.5, 1.5)", 0.019551870496777849615 + 1.5858238748161104694j),
    (0.6, "uniform(0, 4)", -0.14094434475691935301 + 0.60832355652866712612j),
    (1.0, "shifted_exponential(0.5, 0.5)", -0.41862314746184897092 + 1.1781648893764749285j),
    (1.0, "shifted_exponential(0.9, 0.1)", -0.32214752353173159752 + 1.3294998644639744705j),
    (2.2, "shifted_exponential(0.5, 0.5)", -0.018727577394055914017 + 1.7008168219560570219j),
    (
        0.8,
        "mixture([constant(0.2), constant(1), constant(4)], [0.5, 0.3, 0.2])",
        -0.30082933563764602032 + 0.59726129955458013178j,
    ),
    (1.2, "mixture([constant(0.9), constant(1.1)], [0.5, 0.5])", -0.19605537889174286392 + 1.4318960437596087956j),
]
LIMITS = [
    ("constant(1)", math.pi / 2),
    ("gamma(1, 1.5)", 7.3484692283495342946),
    ("gamma(1, 2.5)", 3.0853677656013023698),
    ("gamma(1, 4)", 4 * math.tan(math.pi / 8) / math.cos(math.pi / 8) ** 4),
    ("gamma(1, 5)", 2.0879226959952891996),
    ("gamma(1, 10)", 1.7927232199289391632),
    ("uniform(0.5, 1.5)", 1.7447160499097198835),
    ("uniform(0, 4)", 1.2337005501361698274),
    ("shifted_exponential(0.5, 0.5)", 2.2698293006614405565),
    ("lognormal(1, 0.53294034)", 2.37166883842042),  # sigma 0.5
    ("lognormal(1, 1.3108324944320862)", 11.5411247850764),  # sigma 1
    ("mixture([constant(0.9), constant(1.1)], [0.5, 0.5])", 1.590376500595727965),
    ("mixture([constant(1), constant(1.4142135623730951)], [0.4, 0.6])", 1.2991997371454345395),
    ("exponential(1)", math.inf),
    ("weibull(1, 0.7)", math.inf),  # a mixture of exponentials: the real part never vanishes
]
ALL_LAWS = [
    "constant(0.8)", "gamma(1, 4)", "gamma(1, 0.6)", "exponential(1)", "uniform(0.2, 1.4)", "normal(1, 0.3)",
    "normal(0.5, 1)", "weibull(1, 2)", "weibull(1, 0.7)", "weibull(1, 20)", "lognormal(1, 1)", "lognormal(1, 0.1)",
    "pareto(1, 2.5)", "hyperexponential([0.5, 3], [0.8, 0.2])", "gamma(1, 2.5) + uniform(0, 1) + constant(0.3)",
    "mixture([constant(0.3), pareto(2, 1.5)], [0.7, 0.3])", "regimes([gamma(0.5, 9), weibull(3, 0.8)], [5, 6])",
]  # fmt: skip


def law_of(name):
    """A law by its text, or 100,000 samples of a gamma law."""
    if name == "samples":
        return Empirical(np.random.default_rng(0).gamma(4.0, 0.25, 100_000))
    return parse_delay(name)


@pytest.mark.parametrize(("gain", "law", "value"), REFERENCE)
def test_root_is_the_reference(gain, law, value):
    """Within 1e-12, and certified rightmost."""
    root = rightmost_root(gain, parse_delay(law))
    assert abs(root.value - value) < 1e-12
    assert root.certified


@pytest.mark.parametrize("gain", [1e-6, 0.2, 0.5, 1.0, 2.0, 30.0, 1e4, 1e8])
def test_constant_delay_is_lambert(gain):
    """W_0(-a tau)/tau, and by the route through a law of one sample."""
    value = complex(lambertw(-gain * 0.7)) / 0.7
    for delay in (0.7, Empirical(np.array([0.7]))):
        root = rightmost_root(gain, delay)
        assert abs(root.value - complex(value.real, abs(value.imag))) < 1e-14 * (1 + abs(value))
        assert root.certified


@pytest.mark.parametrize(("gain", "delay"), [(0.5, 2.0), (2.0, 1.0), (10.0, 0.1), (0.3, 10.0)])
def test_many_roots_are_branches_of_lambert(gain, delay):
    """Sixty of them, every branch, in order, certified to be all."""
    roots = characteristic_roots(gain, delay, 60)
    branches = sorted((complex(lambertw(-gain * delay, k)) / delay for k in range(62)), key=lambda s: -s.real)
    for root, branch in zip(roots, branches, strict=False):
        assert abs(root.value - complex(branch.real, abs(branch.imag))) < 1e-13 * abs(branch)
        assert root.certified and root.multiplicity == 1


@pytest.mark.parametrize("shape", [1, 2, 4, 9])
@pytest.mark.parametrize("gain", [0.05, 1.0, 6.0])
def test_chains_are_polynomials(shape, gain):
    """An Erlang delay's k + 1 roots, by mpmath in 40 digits, to 1e-12 of their size."""
    roots = characteristic_roots(gain, Gamma(1.0, shape), 20)
    with mpmath.workdps(40):
        stage = [mpmath.mpf(1) / shape, 1]
        coefficients = [mpmath.mpf(1)]
        for _ in range(shape):
            coefficients = [
                (coefficients[i] * stage[0] if i < len(coefficients) else 0)
                + (coefficients[i - 1] * stage[1] if i else 0)
                for i in range(len(coefficients) + 1)
            ]
        exact = mpmath.polyroots([*coefficients, mpmath.mpf(gain)], maxsteps=500, extraprec=400)
    upper = sorted((complex(z) for z in exact if z.imag > -1e-20), key=lambda s: -s.real)
    assert sum(2 if root.value.imag else 1 for root in roots) == shape + 1
    for root in roots:
        assert min(abs(root.value - z) for z in upper) < 1e-12 * abs(root.value)


def test_double_roots():
    """Where two roots meet: a D = 1/e for constant delays, a mean = (k/(k+1))^(k+1) for gamma ones."""
    constant = rightmost_root(1.0 / math.e, 1.0)
    assert (constant.value, constant.multiplicity) == (pytest.approx(-1.0, abs=1e-12), 2)
    several = characteristic_roots(1.0 / math.e, 1.0, 3)
    assert [root.multiplicity for root in several] == [2, 1, 1]
    gamma = rightmost_root(0.8**5, parse_delay("gamma(1, 4)"))
    assert (gamma.value, gamma.multiplicity) == (pytest.approx(-0.8, abs=1e-12), 2)


@pytest.mark.parametrize("off", [1e-4, 1e-7, 1e-9, -1e-4, -1e-7, -1e-9])
def test_nearly_double_roots(off):
    """Just beside it there are two, real or a pair, each where mpmath has it; the condition says what to expect."""
    gain = (1.0 + off) / math.e
    roots = characteristic_roots(gain, 1.0, 2)
    with mpmath.workdps(40):
        exact = complex(mpmath.lambertw(-mpmath.mpf(gain)))
        lower = complex(mpmath.lambertw(-mpmath.mpf(gain), -1))
    expected = [exact, lower] if off < 0 else [complex(exact.real, abs(exact.imag))]
    for root, value in zip(roots, expected, strict=False):
        assert abs(root.value - value) < 4.0 * root.condition * 2.2e-16 * abs(value)
        assert root.condition > 50.0


@pytest.mark.parametrize("law", [*ALL_LAWS, "samples"])
def test_compiled_transforms(law):
    """Transform and derivative as the law itself has them, 200 points: 2e-13 of the transform at Re s."""
    law = law_of(law)
    rng = np.random.default_rng(1)
    reach = 24.0 / law.mean
    left = 0.0 if law.abscissa == 0.0 else min(4.0 / law.mean, -0.8 * law.abscissa)
    program = program_of(law, left, reach)
    s = rng.uniform(-left, reach / 2, 200) + 1j * rng.uniform(0.0, reach / 2, 200)
    stack = np.empty((len(program.rows), 2), complex)
    found = np.array([transform(program, stack, one) for one in s])
    bound = law.laplace(s.real + 0j).real
    assert np.max(np.abs(found[:, 0] - law.laplace(s)) / bound) < 2e-13
    step = 1e-4 / law.mean
    inner = s[s.real > step - left]
    slope = (law.laplace(inner + 1j * step) - law.laplace(inner - 1j * step)) / (2j * step)
    steepest = law.mean * law.laplace(inner.real - step + 0j).real if left else law.mean
    assert np.max(np.abs(found[s.real > step - left, 1] - slope) / steepest) < 1e-6


def newton_from_everywhere(law, gain, left, right, top):
    """Roots by Newton's method from 900 places, with the law's own transform in NumPy."""
    x, y = np.meshgrid(np.linspace(left, right, 30), np.linspace(0.0, top, 30))
    s, step = (x + 1j * y).ravel(), 1e-5 / law.mean
    with np.errstate(all="ignore"):
        for _ in range(60):
            f = s + gain * law.laplace(s)
            slope = 1.0 + gain * (law.laplace(s + step) - law.laplace(s - step)) / (2.0 * step)
            s = np.where(np.isfinite(f / slope) & (abs(f / slope) < 10.0 * top), s - f / slope, np.nan)
            s = np.where((s.real > left - 1.0) & (abs(s) < 10.0 * top), s, np.nan)
        good = abs(s + gain * law.laplace(s)) < 1e-9 * gain
    return s[good & (s.real >= left)]


@pytest.mark.parametrize(
    "law", ["normal(1, 0.3)", "weibull(1, 2)", "uniform(0.2, 1.4)", "gamma(1, 2.5) + constant(0.4)"]
)
@pytest.mark.parametrize("gain", [0.1, 0.4, 1.5, 8.0])
def test_no_root_lies_further_right(law, gain):
    """Newton's method from 900 places finds none that the certificate denies, and finds the certified one."""
    law = parse_delay(law)
    root = rightmost_root(gain, law)
    assert root.certified
    seen = newton_from_everywhere(law, gain, max(root.value.real - 0.5, 0.9 * law.abscissa), gain, 1.2 * gain + 4.0)
    assert seen.real.max() == pytest.approx(root.value.real, abs=1e-8)


@pytest.mark.parametrize("law", ["lognormal(1, 1)", "pareto(1, 2.5)", "weibull(1, 0.7)"])
def test_heavy_tail_has_no_root(law):
    """A stable mean decays like a power: no root, certified; past the limit there is one to the right."""
    law = parse_delay(law)
    most = gain_limit(law)
    stable = rightmost_root(min(0.8 * most, 100.0), law)
    assert stable.value is None and stable.certified
    assert "no characteristic root" in stable.note
    if math.isfinite(most):
        unstable = rightmost_root(1.2 * most, law)
        assert unstable.certified and unstable.value.real > 0
        assert abs(unstable.value + 1.2 * most * law.laplace(np.array([unstable.value]))[0]) < 1e-10 * most


def test_a_solver_nearby_misses_the_rightmost_root():
    """Newton's method from Lambert's root for the mean delay ends 1.2 to the left of the rightmost root."""
    law, gain = parse_delay("mixture([constant(0.28), constant(2.4)], [0.8, 0.2])"), 5.32
    s = complex(lambertw(-gain * law.mean)) / law.mean
    for _ in range(60):
        early, late = 0.8 * np.exp(-0.28 * s), 0.2 * np.exp(-2.4 * s)
        s -= (s + gain * (early + late)) / (1.0 - gain * (0.28 * early + 2.4 * late))
    assert abs(s + gain * law.laplace(np.array([s]))[0]) < 1e-12  # a root, but
    root = rightmost_root(gain, law)
    assert root.certified
    assert abs(root.value + gain * law.laplace(np.array([root.value]))[0]) < 1e-12
    assert root.value.real > s.real + 1.1
    program = program_of(law, 0.0, 0.0)
    assert count_right(program, (0.0, 1.0, 0.0, gain, 0.0), s.real + 0.01, 1e300) >= 2


def test_a_generator_that_cuts_the_delay_off_is_wrong():
    """Chebyshev's 20 nodes on 10 means of an exponential delay, a usual way: 0.08 off, where the root is known."""
    nodes, horizon, gain = 20, 10.0, 1.0
    theta = np.cos(np.pi * np.arange(nodes + 1) / nodes)
    weight = np.ones(nodes + 1)
    weight[[0, -1]] = 2.0
    weight *= (-1.0) ** np.arange(nodes + 1)
    apart = theta[:, None] - theta + np.eye(nodes + 1)
    derivative = np.outer(weight, 1.0 / weight) / apart
    derivative -= np.diag(derivative.sum(axis=1))
    past, masses = 0.5 * horizon * (theta - 1.0), np.polynomial.legendre.leggauss(200)
    t = 0.5 * horizon * (1.0 - masses[0])
    basis = np.array([np.prod([(2 * (-t) / horizon + 1 - theta[j]) / (theta[i] - theta[j])
                               for j in range(nodes + 1) if j != i], axis=0) for i in range(nodes + 1)])  # fmt: skip
    generator = derivative * (2.0 / horizon)
    generator[0] = -gain * basis @ (0.5 * horizon * masses[1] * np.exp(-t))
    assert past[0] == 0.0
    theirs = np.linalg.eigvals(generator).real.max()
    ours = rightmost_root(gain, parse_delay("exponential(1)"))
    assert ours.value.real == pytest.approx(-0.5, abs=1e-12) and ours.certified
    assert abs(theirs + 0.5) > 0.02


@pytest.mark.parametrize(("law", "value"), LIMITS)
def test_gain_limit(law, value):
    """Closed forms and high-precision values; stable below, unstable above, the root on the axis there."""
    law = parse_delay(law)
    found = gain_limit(law)
    assert found == pytest.approx(value, rel=1e-12 if "lognormal" not in str(law) else 1e-7)
    if math.isfinite(value):
        assert rightmost_root(found * (1 + 1e-9), law).value.real == pytest.approx(0.0, abs=1e-7)
        assert is_stable(0.999 * found, law) and not is_stable(1.001 * found, law)


def test_many_gains_at_once():
    """Element by element what single calls give, NaN where no root exists."""
    law = parse_delay("gamma(1, 4)")
    gains = np.geomspace(0.01, 20.0, 12).reshape(3, 4)
    roots = rightmost_roots(gains, law)
    assert roots.shape == (3, 4)
    assert all(root == rightmost_root(gain, law).value for gain, root in zip(gains.flat, roots.flat, strict=True))
    assert (are_stable(gains, law) == (gains < gain_limit(law))).all()
    assert are_stable([1.0, 1e3], parse_delay("normal(1, 0.3)")).tolist() == [True, False]
    assert np.isnan(rightmost_roots([1.0], parse_delay("lognormal(1, 1)"))).all()
    with pytest.raises(InputError, match="gains must be positive and finite, got -1"):
        rightmost_roots([1.0, -1.0], law)


@pytest.mark.parametrize("inertia", [Inertia(0.9), Inertia(0.9, nesterov=True), Inertia(0.5, decay=0.3)])
def test_momentum(inertia):
    """Roots by brute force on the axis of gains, limits where the root crosses, more roots than one branch has."""
    rate, delay = 8.0, 1.0
    most = gain_limit(delay, inertia, rate)
    time, lead = inertia.momentum / ((1 - inertia.momentum) * rate), inertia.nesterov * inertia.momentum / rate

    def f(s, gain):
        return s * (1 + time * s) + gain * (1 + lead * s) * (np.exp(-s * delay) + inertia.decay)

    for share in (0.1, 0.6, 0.98, 1.1):
        root = rightmost_root(share * most, delay, inertia, rate)
        assert root.certified
        assert abs(f(root.value, share * most)) < 1e-12 * max(most, 1.0)
        assert (root.value.real < 0) == (share < 1) == is_stable(share * most, delay, inertia, rate)
    roots = characteristic_roots(0.6 * most, delay, 6, inertia, rate)
    assert len(roots) == 6 and all(root.certified for root in roots)
    assert max(abs(f(root.value, 0.6 * most)) for root in roots) < 1e-9
    with pytest.raises(InputError, match="rate is missing"):
        rightmost_root(1.0, 1.0, inertia)


def test_without_delay():
    """A gain alone: -a; with momentum the oscillator's roots."""
    assert rightmost_root(2.0, 0.0).value == -2.0
    root = rightmost_root(2.0, 0.0, Inertia(0.5), rate=1.0)  # T = 1
    assert root.value == pytest.approx(-0.5 + 1j * math.sqrt(1.75))
    assert gain_limit(0.0) == math.inf


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf])
def test_bad_gain(gain):
    """Gains must be positive and finite."""
    with pytest.raises(InputError, match="gain must be positive"):
        rightmost_root(gain, 1.0)


def test_bad_arguments():
    """One line, the value and what is allowed."""
    with pytest.raises(InputError, match="count must be at most 2000, got 5000"):
        characteristic_roots(1.0, 1.0, 5000)
    with pytest.raises(InputError, match="delay must be zero or more"):
        rightmost_root(1.0, -1.0)


EXTREME = [
    "constant(1)", "gamma(1, 4)", "gamma(1, 1e12)", "gamma(1, 0.0001)", "exponential(1)", "uniform(0.999999, 1.000001)",
    "normal(1, 0.3)", "normal(1, 1e-6)", "weibull(1, 2)", "weibull(1, 0.7)", "lognormal(1, 1)", "lognormal(1, 1e-5)",
    "lognormal(1, 100)", "pareto(1, 2.5)", "hyperexponential([0.1, 100], [0.999, 0.001])",
]  # fmt: skip


def _limit_or_more(law):
    """The gain limit, infinite where it is out of reach."""
    try:
        return gain_limit(law)
    except NotConvergedError:
        return math.inf


@settings(max_examples=150, deadline=None)
@given(exponent=st.floats(-8.0, 8.0), law=st.sampled_from(EXTREME))
def test_stiff_and_extreme_inputs(exponent, law):
    """Gain x delay from 1e-8 to 1e8, CV from 1e-6 to 100: a root that is one, or a refusal."""
    law, gain = parse_delay(law), 10.0**exponent
    try:
        root = rightmost_root(gain, law)
    except NotConvergedError:
        return
    if root.value is None:
        assert law.abscissa == 0.0 and gain <= _limit_or_more(law) * (1 + 1e-9)
        return
    if "singularity" in root.note:
        return
    step = 1e-6 * abs(root.value)
    here, ahead, behind = (s + gain * law.laplace(np.array([s]))[0] for s in root.value + np.array([0.0, step, -step]))
    if root.multiplicity == 1:
        assert abs(here / (ahead - behind)) * 2.0 * step < 1e-9 * abs(root.value) * max(1.0, root.condition)
    assert root.certified
    if law.cv < 1e-4:
        lambert = complex(lambertw(-gain))
        assert abs(root.value - complex(lambert.real, abs(lambert.imag))) < 1e-6 * (1 + abs(lambert)) * max(
            1, root.condition
        )
    if exponent < -4:
        assert root.value.real == pytest.approx(-gain, rel=0.2 if law.cv > 5 else 1e-3)


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_decay_set_by_the_singularity(gain):
    """Gamma of shape 0.3: Newton from 400 places finds no root right of the singularity, which is returned."""
    found = rightmost_root(gain, parse_delay("gamma(1, 0.3)"))
    assert found.value == pytest.approx(-0.3)
    assert found.certified
    rng = np.random.default_rng(0)
    for start in rng.uniform(-0.3, 0.1, 400) + 1j * rng.uniform(0.0, 3.0 * gain, 400):
        s = start
        for _ in range(50):
            base = 1.0 + s / 0.3
            s = s - (s + gain * base**-0.3) / (1.0 - gain * base**-1.3)
            if not abs(s) < 100.0:
                break
        assert not (s.real > -0.2999 and abs(s + gain * (1.0 + s / 0.3) ** -0.3) < 1e-9)


@pytest.mark.parametrize(("cv", "low", "high"), [(10.0, 100.0, 2e3), (30.0, 1e3, 1e5), (100.0, 1e5, 1e7)])
def test_a_wide_lognormal_has_a_gain_limit_far_out(cv, low, high):
    """Its transform crosses the imaginary axis at 670 mean rates and more: the limit is large and not infinite."""
    law = Lognormal(1.0, cv)
    found = gain_limit(law)
    omega = brentq(lambda w: law.laplace(1j * w).real, low, high)
    assert found == pytest.approx(omega / abs(law.laplace(1j * omega)), rel=1e-7)
    assert SDDE(1.01 * found, law, 1.0).stationary_variance() == math.inf


@pytest.mark.parametrize("law", [Gamma(1.0, 0.5), Weibull(1.0, 0.7), Hyperexponential([0.1, 3.0], [0.6, 0.4])])
def test_mixtures_of_exponentials_have_no_gain_limit(law):
    """The real part of 1/(1 + i w m) is positive, whatever m and w."""
    assert gain_limit(law) == math.inf
