"""The delay equation with noise, against closed forms, chains, and exact properties of the discrete chain.

Statistical tests have fixed seeds and a tolerance of 4.5 standard errors: 7 in a million for one comparison, with
about 100 comparisons a false alarm once in 1,500 changes of seed.
"""

import math

import mpmath
import numpy as np
import pytest
from numba import njit
from scipy import stats
from scipy.linalg import expm

from stalewise.delays import Empirical, parse_delay
from stalewise.dynamics import SDDE, ArrivalEquation, Jumps, gain_limit
from stalewise.dynamics.sdde import normals
from stalewise.dynamics.sdde.ensemble import DRAWN
from stalewise.dynamics.sdde.grid import grid_of
from stalewise.dynamics.sdde.kernel import room_for, run_paths
from stalewise.errors import InputError

SIGMAS = 4.5
TIMES = np.array([0.0, 0.3, 1.0, 1.7, 6.0, 19.0])

# variance of noise 1, gain and delay as said: the closed form, chains and Lyapunov equations in mpmath
VARIANCES = [
    (1.0, "constant(1)", 1.7041117211679139242),
    (0.5, "constant(1)", 1.6857964171683396356 - 0.0),
    (1.0, "gamma(1, 2)", 7.0 / 6.0),
    (1.0, "gamma(1, 10)", 1.5127165667999035443),
    (1.0, "uniform(0.5, 1.5)", 1.541269336574),
    (1.0, "shifted_exponential(0.5, 0.5)", 1.3364028464949640466),
    (0.4, "shifted_exponential(1, 2)", 3.5472926360562750085),
    (0.8, "exponential(1)", 1.8 / 1.6),
    (1.0, "constant(0)", 0.5),
]


def rng(seed=0):
    return np.random.default_rng(seed)


def walked(equation, step, horizon, noise, start=0.0, scheme=None, terms=None):
    """Paths of shape (steps + 1, 64) under given normals of shape (steps, rows, 64)."""
    grid = grid_of(equation.law, horizon, step, start)
    plan = equation._plan(grid, scheme, grid.steps + 1, terms)
    room = room_for(plan, normals.streams(np.random.SeedSequence(0)))
    run_paths(plan, room, grid.past(start, int(plan.offsets[-1])), noise, rng())
    return room.values.copy()


def response(equation, step, horizon, scheme):
    """What one unit normal in the first step does to the chain: its variance is the sum of squares of this."""
    steps = grid_of(equation.law, horizon, step).steps
    kick = np.zeros((steps, 3, 64))
    kick[0, 0] = 1.0
    return walked(equation, step, horizon, kick, 0.0, scheme)[:, 0]


# normals


def test_normals_are_normal():
    """Moments to the eighth, Kolmogorov's distance, tails, and correlations in time and across lanes."""
    many = np.empty((60_000, 64))
    normals.fill_normals(normals.streams(np.random.SeedSequence(5)), np.zeros(64, np.uint64), many)
    flat, n = many.ravel(), many.size
    for power, (mean, spread) in {
        1: (0, 1),
        2: (1, 2),
        3: (0, 15),
        4: (3, 96),
        6: (15, 10170),
        8: (105, 2016000),
    }.items():
        assert abs(np.mean(flat**power) - mean) < SIGMAS * math.sqrt(spread / n)
    assert stats.kstest(flat, "norm").pvalue > 1e-5
    for edge in (3.0, 4.0, 5.0):
        expected = n * stats.norm.sf(edge)
        for side in (1, -1):
            assert abs(np.sum(side * flat > edge) - expected) < SIGMAS * math.sqrt(expected) + 1
    across = np.corrcoef(many.T) - np.eye(64)
    assert np.abs(across).max() < 6.0 / math.sqrt(len(many))  # 2,016 pairs
    assert abs(np.corrcoef(flat[:-64], flat[64:])[0, 1]) < SIGMAS / math.sqrt(n)
    assert abs(np.corrcoef(flat[:-64] ** 2, flat[64:] ** 2)[0, 1]) < SIGMAS / math.sqrt(n)


def test_polynomials_are_the_functions():
    """log and exp to two units of the last digit, also beside 1 and next to 0."""

    @njit
    def log(u):
        return normals._minus_log(u)

    @njit
    def exp(y):
        return normals.exp_minus(y)

    tries = np.concatenate([rng().random(500), 2.0 ** -np.arange(1, 53), 1 - 2.0 ** -np.arange(2, 53)])
    assert max(abs(log(u) / float(-mpmath.log(mpmath.mpf(u))) - 1) for u in tries) < 5e-16
    assert log(1.0) == 0.0
    assert max(abs(exp(y) / float(mpmath.exp(-mpmath.mpf(y))) - 1) for y in 700 * rng().random(500)) < 5e-16
    assert exp(0.0) == 1.0
    assert exp(1e9) < 1e-300


# moments by formula


def test_fundamental_solution_of_a_constant_delay():
    """Exact sums of polynomials (mpmath, 40 digits): the response is the mean of a path that was 0 before its start."""
    response = SDDE(1.0, 1.0)._fundamental(50.0)
    exact = [
        1.0,
        0.5,
        -0.375,
        0.20833333333333333333,
        0.052973434744268077601,
        0.0020026482728546098553,
        -1.6097761295132110813e-7,
    ]
    assert response(np.array([0.5, 1.5, 2.5, 5.0, 10.0, 20.0, 50.0])) == pytest.approx(exact, abs=1e-15)


@pytest.mark.parametrize("gain", [0.3, 1.0, 3.9, 5.0])
def test_mean_of_erlang_delays_is_a_chain(gain):
    """gamma(1, 2): x' = -a z2, z1' = 2 (x - z1), z2' = 2 (z1 - z2), stable or not."""
    chain = np.array([[0.0, 0.0, -gain], [2.0, -2.0, 0.0], [0.0, 2.0, -2.0]])
    exact = np.array([(expm(chain * t) @ np.ones(3))[0] for t in TIMES])
    equation = SDDE(gain, parse_delay("gamma(1, 2)"))
    assert equation.mean(TIMES) == pytest.approx(exact, abs=1e-8 * np.abs(exact).max())
    functions = equation.mean(TIMES, start=lambda t: np.exp(-t / 5))
    states = np.array([1.0, 1 / 0.9, 1 / 0.81])  # E e^{D/5} of the parts
    exact = np.array([(expm(chain * t) @ states)[0] for t in TIMES])
    assert functions == pytest.approx(exact, abs=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("start", [1.0, lambda t: np.cos(2 * t)])
def test_two_routes_to_the_mean(start):
    """A constant delay by pieces, and as a law of one sample by inversion."""
    pieces, inverted = SDDE(1.2, 0.7), SDDE(1.2, Empirical(np.array([0.7])))
    assert inverted.mean(TIMES, start) == pytest.approx(pieces.mean(TIMES, start), abs=1e-6)
    assert inverted.variance(TIMES) == pytest.approx(pieces.variance(TIMES), abs=1e-6)


def test_mean_without_delay_is_exponential():
    assert SDDE(2.0, 0.0).mean(TIMES, 3.0) == pytest.approx(3.0 * np.exp(-2.0 * TIMES))
    assert SDDE(2.0, 0.0, 1.0).variance(1.0) == pytest.approx((1 - math.exp(-4.0)) / 4.0)


def test_mean_on_the_first_delays():
    """From 1: 1 - a t, then a parabola (method of steps by hand)."""
    assert SDDE(1.0, 1.0).mean([0.25, 1.0, 1.5527864045000420607, 2.0]) == pytest.approx([0.75, 0.0, -0.4, -0.5])


@pytest.mark.parametrize(("gain", "law", "value"), VARIANCES)
def test_stationary_variance(gain, law, value):
    """Within 1e-9 of references, and the variance arrives there."""
    equation = SDDE(gain, parse_delay(law), 2.0)
    assert equation.stationary_variance() == pytest.approx(4.0 * value, rel=1e-9)
    assert equation.variance(150.0) == pytest.approx(4.0 * value, rel=1e-7)


def test_unstable_variance_is_infinite():
    """By the mean, and by the mean square alone: b^2 G = 1 (closed form)."""
    assert SDDE(1.6, 1.0, 1.0).stationary_variance() == math.inf
    energy = 1.7041117211679139242
    edge = math.sqrt(1.0 / energy)
    for noise in ("present_noise", "delayed_noise"):
        assert SDDE(1.0, 1.0, 1.0, **{noise: 1.001 * edge}).stationary_variance() == math.inf
        assert SDDE(1.0, 1.0, 1.0, **{noise: 0.5}).stationary_variance() == pytest.approx(
            2.9689802189064569968, rel=1e-12
        )
    law = parse_delay("gamma(1, 4)")
    assert SDDE(1.001 * gain_limit(law), law, 1.0).stationary_variance() == math.inf


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)"])
def test_variance_of_multiplicative_noise_arrives(law):
    """The renewal equation runs into the stationary formula."""
    equation = SDDE(0.7, parse_delay(law), 1.0, 0.3, 0.4)
    assert equation.variance(60.0) == pytest.approx(equation.stationary_variance(), rel=3e-4)


# the chain that paths are


def test_euler_chain_has_its_exact_variance():
    """100 steps a delay: 1.72005219864846752, not the equation's 1.70411, nor 1.689 of a ring one entry short."""
    assert np.sum(response(SDDE(1.0, 1.0, 1.0), 0.01, 120.0, "euler") ** 2) == pytest.approx(
        1.72005219864846752, rel=1e-13
    )


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1.0), ("trapezoid", 2.0)])
@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "shifted_exponential(0.5, 0.5)", "constant(0)"])
def test_weak_order(scheme, order, law):
    """Error of the chain's exact stationary variance and of its mean, no sampling: orders within 0.15."""
    equation = SDDE(1.0, parse_delay(law), 1.0)
    exact, errors, offs = equation.stationary_variance(), [], []
    for step in (1 / 16, 1 / 32, 1 / 64):
        errors.append(abs(np.sum(response(equation, step, 60.0, scheme) ** 2) - exact))
        path = walked(equation, step, 2.0, np.zeros((math.ceil(2.0 / step), 3, 64)), 1.0, scheme)[:, 0]
        offs.append(abs(path[-1] - equation.mean(2.0)))
    if law == "constant(0)" and scheme == "trapezoid":
        assert max(errors) < 1e-12  # exact for Ornstein and Uhlenbeck
    else:
        assert np.log2(errors[:-1]) - np.log2(errors[1:]) == pytest.approx(order, abs=0.15)
    if max(offs) > 1e-12:
        assert np.log2(offs[:-1]) - np.log2(offs[1:]) == pytest.approx(order, abs=0.15)


def coarser(fine, ratio, terms):
    """Legendre terms of cells ``ratio`` times as long, from increments of shape (steps, 3, 64)."""
    edges = np.linspace(-1.0, 1.0, ratio + 1)
    cells = fine.reshape(-1, ratio, 3, 64)
    rows = []
    for k in range(terms + 1):
        primitive = np.polynomial.legendre.Legendre.basis(k).integ()
        means = np.diff(primitive(edges)) * ratio / 2.0
        rows.append(math.sqrt((2 * k + 1) / ratio) * np.einsum("r,nrsj->nsj", means, cells))
    return np.stack(rows, axis=2).reshape(len(cells), 3 * (terms + 1), 64)


def strong_order(equation, scheme, fine_scheme, most, horizon=2.0):
    """Slope of the root mean square error at the end, 8 to 64 steps a delay beside ``most``, 256 paths.

    All of them see the same Brownian path, a polygon of ``most`` steps a delay: its areas are known from its corners.
    """
    errors = np.zeros(4)
    for block in range(4):
        steps = int(horizon * most)
        fine = rng(block).standard_normal((steps, 3, 64))
        exact = walked(equation, 1.0 / most, horizon, fine, 1.0, fine_scheme, 0)[-1]
        for i, per in enumerate((8, 16, 32, 64)):
            terms = per // 2 if scheme == "milstein" and not equation.additive else 0
            path = walked(equation, 1.0 / per, horizon, coarser(fine, most // per, terms), 1.0, scheme, terms)
            errors[i] += np.mean((path[-1] - exact) ** 2)
    return -np.polyfit(np.log2([8, 16, 32, 64]), 0.5 * np.log2(errors), 1)[0]


NOISES = {
    "present": {"diffusion": 0.0, "present_noise": 0.5},
    "present and additive": {"diffusion": 1.0, "present_noise": 0.5},
    "delayed": {"diffusion": 0.0, "delayed_noise": 1.2},
    "delayed and additive": {"diffusion": 1.0, "delayed_noise": 1.2},
    "all": {"diffusion": 0.7, "present_noise": 0.5, "delayed_noise": 0.8},
}


@pytest.mark.parametrize("noise", NOISES)
def test_strong_order_of_multiplicative_noise(noise):
    """Half for Euler and Maruyama, one with the double integrals; 256 paths give the slope to about 0.04."""
    equation = SDDE(0.3, 1.0, **NOISES[noise])
    assert strong_order(equation, "euler", "milstein", 8192) == pytest.approx(0.5, abs=0.15)
    assert strong_order(equation, "milstein", "milstein", 8192) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("scheme", ["euler", "trapezoid"])
def test_strong_order_of_additive_noise(scheme):
    assert strong_order(SDDE(1.0, 1.0, 1.0), scheme, "euler", 8192) == pytest.approx(1.0, abs=0.15)


def test_kernels_with_a_density_need_no_double_integral():
    """Euler and Maruyama's scheme is of order 1 for delayed noise if the delay has a density."""
    equation = SDDE(0.5, parse_delay("gamma(1, 4)"), 0.0, 0.0, 1.0)
    assert strong_order(equation, "euler", "euler", 2048) == pytest.approx(1.0, abs=0.15)


def test_terms_of_the_double_integral_matter():
    """With too few terms Milstein's scheme falls back to order 1/2 for delayed noise: the terms do the work."""
    equation, most = SDDE(0.3, 1.0, 0.0, 0.0, 1.2), 1024
    fine = rng(1).standard_normal((2 * most, 3, 64))
    exact = walked(equation, 1 / most, 2.0, coarser(fine, 1, 0), 1.0, "milstein", 0)[-1]

    def error(terms):
        path = walked(equation, 1 / 16, 2.0, coarser(fine, most // 16, terms), 1.0, "milstein", terms)
        return math.sqrt(np.mean((path[-1] - exact) ** 2))

    assert error(16) < 0.6 * error(0)


def test_fast_loop_is_the_general_one():
    """The loop for constant delays gives what the general one gives from the same bits."""
    for scheme in ("euler", "trapezoid"):
        equation, streams = SDDE(1.0, 1.0, 1.0), normals.streams(np.random.SeedSequence(8))
        drawn = np.zeros((300, 3, 64))
        for i in range(300):
            normals.fill_normals(streams, np.zeros(64, np.uint64), drawn[i, :1])
        grid = grid_of(equation.law, 6.0, 0.02)
        plan = equation._plan(grid, scheme, 11, None)
        past = np.linspace(1.0, 2.0, 51)
        given, fast = (room_for(plan, normals.streams(np.random.SeedSequence(8))) for _ in range(2))
        run_paths(plan, given, past, drawn, rng())
        run_paths(plan, fast, past, DRAWN, rng())
        assert fast.values == pytest.approx(given.values, abs=1e-12)


# ensembles


def within(estimate, error, exact):
    return np.max(np.abs(np.asarray(estimate) - exact) / error)


@pytest.mark.parametrize(
    ("law", "noise"),
    [
        ("constant(1)", {"diffusion": 1.0}),
        ("gamma(1, 4)", {"diffusion": 1.0}),
        ("lognormal(1, 1)", {"diffusion": 1.0}),
        ("pareto(1, 2.5)", {"diffusion": 1.0}),
        ("constant(1)", {"diffusion": 0.5, "present_noise": 0.3, "delayed_noise": 0.3}),
        ("gamma(1, 4)", {"diffusion": 0.5, "present_noise": 0.3, "delayed_noise": 0.3}),
        ("constant(1)", {"diffusion": 0.3, "jumps": Jumps(0.7, 0.5, 0.8)}),
        ("gamma(1, 4)", {"jumps": Jumps(3.0, -0.5, 0.0), "delayed_noise": 0.3}),
    ],
)
def test_ensemble_agrees_with_formula(law, noise):
    """Mean and variance at eight times; step errors are below a standard error."""
    equation = SDDE(0.8, parse_delay(law), **noise)
    start = lambda t: 1.0 - 0.2 * np.maximum(t, -5.0)  # noqa: E731
    step = 1 / 50 if equation.additive else 1 / 200
    found = equation.sample_paths(8.0, step, 8_000, rng(3), start, saved=9)
    assert within(found.mean[1:], found.mean_error[1:], equation.mean(found.time, start)[1:]) < SIGMAS
    assert within(found.variance[1:], found.variance_error[1:], equation.variance(found.time, start)[1:]) < SIGMAS


@pytest.mark.parametrize("rate", [200.0, 1e14])
def test_many_jumps_a_step(rate):
    """50 or 10^13 of them in each, whose sum is drawn; beyond 10^12 their number too is taken as normal."""
    equation = SDDE(0.8, 1.0, jumps=Jumps(rate, 1.0 / rate, 1.0 / math.sqrt(rate)))
    found = equation.sample_paths(3.0, 0.02 if rate > 1e9 else 0.25, 8_000, rng(3), saved=4)
    step = 0.0 if rate > 1e9 else 0.25
    allowed = 0.02 + 0.2 * step  # jumps come at the end of a step
    assert found.mean[1:] == pytest.approx(equation.mean(found.time)[1:], abs=allowed + SIGMAS * found.mean_error[-1])
    assert found.variance[1:] == pytest.approx(
        equation.variance(found.time)[1:], rel=allowed, abs=SIGMAS * found.variance_error[-1]
    )


@pytest.mark.parametrize("expected", [12.0, 300.0])
def test_numbers_of_jumps_are_poisson(expected):
    """Jumps of 1 in a single step, hardly pulled back; chi-square over twelfths, false alarm 1 in 10,000."""
    equation = SDDE(1e-12, 1.0, jumps=Jumps(expected, 1.0, 0.0))
    counts = np.rint(equation.sample_paths(1.0, 1.0, 20_000, rng(5), 0.0, keep=20_000).values[-1])
    edges = np.unique(stats.poisson.ppf(np.arange(1, 12) / 12, expected))
    shares = np.diff(stats.poisson.cdf(edges, expected), prepend=0.0, append=1.0)
    seen = np.bincount(np.searchsorted(edges, counts), minlength=len(shares))
    assert stats.chisquare(seen, shares * len(counts)).pvalue > 1e-4


def test_a_thousand_million_jumps_a_second_end():
    """Half of them in a step, of no mean: the variance is that of a diffusion of 1."""
    found = SDDE(1.0, 1.0, jumps=Jumps(1e9, 0.0, 1e9**-0.5)).sample_paths(1.0, 0.5, 4_000, rng(3), 0.0, saved=3)
    assert found.variance[-1] == pytest.approx(0.5 + 0.5, abs=SIGMAS * found.variance_error[-1])


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "lognormal(1, 1)"])
@pytest.mark.parametrize("delay", [1e-300, 1e-20, 1e-13])
def test_a_delay_next_to_nothing_is_none(law, delay):
    """Variance in the long run 1/2, mean and variance on the way those of an exponential."""
    law = parse_delay(law.replace("(1", f"({delay}"))
    equation = SDDE(1.0, law, diffusion=1.0)
    assert equation.stationary_variance() == pytest.approx(0.5, rel=1e-12)
    assert equation.mean(2.0) == pytest.approx(math.exp(-2.0), rel=1e-12)
    assert equation.variance(2.0) == pytest.approx(0.5 * -math.expm1(-4.0), rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_paths_that_overflow_are_infinite_and_say_so():
    """Gain 30 at delay 1 grows by a factor 10 a second: beyond 10^308 there is no number."""
    found = SDDE(30.0, 1.0).sample_paths(1000.0, 0.1, 4, rng(1), keep=1)
    assert found.mean[-1] == found.variance[-1] == found.mean_error[-1] == math.inf
    assert not np.isnan(np.concatenate([found.mean, found.variance, found.values[:, 0]])).any()
    assert "overflow" in found.warnings[0]
    assert SDDE(1.0, 1.0).sample_paths(3.0, 0.1, 4, rng(1)).warnings == ()


def test_result_does_not_depend_on_threads():
    """Bit for bit, also where the last block is not full; and the same seed gives the same paths again."""
    equation = SDDE(1.0, 1.0, 1.0)
    one, many, again, other = (
        equation.sample_paths(3.0, 0.1, 1000, rng(seed), keep=70, threads=threads)
        for seed, threads in ((1, 1), (1, 3), (1, None), (2, 1))
    )
    for name in ("mean", "variance", "mean_error", "variance_error", "values"):
        assert np.array_equal(getattr(one, name), getattr(many, name))
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.mean, other.mean)
    hits = [equation.hitting_time(0.2, 3.0, 0.1, 1000, rng(1), threads=threads) for threads in (1, 2)]
    assert np.array_equal(hits[0].survival, hits[1].survival)


def test_sums_are_those_of_the_paths():
    """Mean, variance and their errors as numpy has them of the same paths."""
    found = SDDE(1.0, 1.0, 1.0).sample_paths(3.0, 0.1, 6400, rng(1), keep=6400)
    assert found.values.shape == (31, 6400)
    assert found.mean == pytest.approx(found.values.mean(axis=1), abs=1e-12)
    assert found.variance == pytest.approx(found.values.var(axis=1, ddof=1), abs=1e-12)
    assert found.mean_error == pytest.approx(found.values.std(axis=1, ddof=1) / 80, abs=1e-12)
    assert found.variance_error[1:] == pytest.approx(found.variance[1:] * math.sqrt(2 / 6399), rel=0.35)


def test_step_divides_a_constant_delay():
    found = SDDE(1.0, 1.0, 1.0).sample_paths(2.5, 0.3, 2, rng())
    assert found.step == 0.25
    assert found.time[-1] == 2.5
    assert SDDE(1.0, parse_delay("gamma(1, 2)"), 1.0).sample_paths(2.5, 0.3, 2, rng()).time[-1] == pytest.approx(2.5)


# hitting times


def test_first_passage_before_the_delay_is_inverse_gaussian():
    """From 1 down to 0.2 with noise 0.5: the drift is -1 until t = 1, where 0.75118 is exact; later 2e8 paths in C."""
    found = SDDE(1.0, 1.0, 0.5).hitting_time(0.2, 3.0, 0.01, 40_000, rng(6), saved=301)
    times = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    exact = np.array([0.2691000258, 0.7511804571, 0.92110, 0.972669, 0.989719, 0.995946])
    rows = [round(t / 0.01) for t in times]
    assert within(1 - found.survival[rows], found.survival_error[rows], exact) < SIGMAS
    assert abs(found.mean - 0.80611) < SIGMAS * found.mean_error
    assert found.quantile(0.0) == 0.0
    assert 1 - np.interp(found.quantile(0.5), found.time, found.survival) == pytest.approx(0.5)
    assert found.quantile(0.9999) == math.inf


def test_first_passage_from_below_is_that_from_above():
    """The equation is odd."""
    equation = SDDE(1.0, 1.0, 0.5)
    down = equation.hitting_time(0.2, 2.0, 0.02, 640, rng(6))
    up = equation.hitting_time(-0.2, 2.0, 0.02, 640, rng(6), start=-1.0)
    late = slice(25, None)
    error = np.hypot(up.survival_error, down.survival_error)[late]
    assert within(up.survival[late], error, down.survival[late]) < SIGMAS


def test_without_noise_the_time_is_that_of_the_mean():
    """1 - t = 0.25 at 0.75; then the parabola's -0.4 at 2 - sqrt(0.2)."""
    equation = SDDE(1.0, 1.0)
    assert equation.hitting_time(0.25, 3.0, 0.001, 2, rng(), saved=3001).quantile(0.5) == pytest.approx(0.75, abs=1e-3)
    found = equation.hitting_time(-0.4, 3.0, 0.001, 2, rng(), saved=3001)
    assert found.quantile(0.5) == pytest.approx(1.5527864, abs=1e-3)
    assert equation.hitting_time(-0.51, 3.0, 0.001, 2, rng()).survival[-1] == 1.0
    last = equation.hitting_time(0.4, 12.0, 0.001, 2, rng(), settling=True, saved=12001)
    times = np.linspace(0, 12, 12001)
    assert last.quantile(0.5) == pytest.approx(times[np.abs(equation.mean(times)) > 0.4].max(), abs=2e-3)


def test_settling_of_brownian_motion():
    """Next to no drift, a band of 1: never to leave it in 2 s from 0 is a theta series (reflection)."""
    found = SDDE(1e-9, 1.0, 0.8).hitting_time(1.0, 2.0, 0.01, 20_000, rng(4), start=0.0, settling=True)
    stay = sum(
        4 / math.pi * (-1) ** k / (2 * k + 1) * math.exp(-((2 * k + 1) ** 2) * math.pi**2 * 1.28 / 8) for k in range(20)
    )
    assert abs((1 - found.survival[0]) - stay) < SIGMAS * found.survival_error[0]
    assert (np.diff(found.survival) <= 1e-12).all()
    outside = 2 * stats.norm.sf(1.0 / (0.8 * math.sqrt(2.0)))
    assert abs(found.survival[-1] - outside) < SIGMAS * math.sqrt(outside / found.paths)


def test_bridge_makes_coarse_steps_do():
    """Steps of 1/10 and 1/100 give the same time; counting grid points only does not (0.69 for 0.751 at 1 s)."""
    equation = SDDE(1.0, 1.0, 0.5)
    coarse = equation.hitting_time(0.2, 1.0, 0.1, 40_000, rng(9))
    assert abs((1 - coarse.survival[-1]) - 0.7511804571) < SIGMAS * coarse.survival_error[-1]
    paths = equation.sample_paths(1.0, 0.1, 40_000, rng(9), keep=40_000).values
    assert np.mean(paths.min(axis=0) <= 0.2) < 0.72


# arrivals one by one


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)", "lognormal(1, 1)"])
def test_arrivals_agree_with_formula(law):
    """Mean and variance of Poisson arrivals at ten times, and in the long run."""
    equation = ArrivalEquation(0.1, 1.0, 10.0, parse_delay(law), 0.5)
    found = equation.sample_paths(20.0, 8_000, rng(12), start=1.5, saved=11)
    assert within(found.mean[1:], found.mean_error[1:], equation.mean(found.time, 1.5)[1:]) < SIGMAS
    assert within(found.variance[1:], found.variance_error[1:], equation.variance(found.time, 1.5)[1:]) < SIGMAS
    assert equation.variance(40.0) == pytest.approx(equation.stationary_variance(), rel=1e-3)


def test_arrivals_stationary_variance_is_the_closed_form():
    """Constant delay: G = (1 + sin u)/(2 a cos u); exponential: (a + r)/(2 a r); infinite from h^2 R G = 1 on."""
    energy = (1 + math.sin(1.0)) / (2 * math.cos(1.0))
    found = ArrivalEquation(0.1, 1.0, 10.0, 1.0, 0.5).stationary_variance()
    assert found == pytest.approx(0.05 * energy / (1 - 0.1 * energy), rel=1e-12)
    energy = (2.0 + 0.5) / 2.0
    found = ArrivalEquation(0.2, 1.0, 10.0, parse_delay("exponential(2)"), 0.5).stationary_variance()
    assert found == pytest.approx(0.2 * energy / (1 - 0.4 * energy), rel=1e-10)
    for workers, limit in ((4, (-1 + math.sqrt(33)) / 2), (16, (-1 + math.sqrt(129)) / 2)):
        just_below, just_above = (
            ArrivalEquation(f * limit / workers, 1.0, workers, parse_delay("exponential(1)"), 1.0).stationary_variance()
            for f in (0.999, 1.001)
        )
        assert just_below < just_above == math.inf


def test_regular_arrivals_of_constant_delay_are_a_recursion():
    """Every 1/4 s with a delay of 0.6 s, the value read is that after the third arrival before: x <- x - h x[-3]."""
    found = ArrivalEquation(0.3, 1.0, 4.0, 0.6, regular=True).sample_paths(
        5.1, 2, rng(), saved=103, start=lambda t: 1 + t
    )
    values = []
    for k in range(1, 21):
        read = k / 4 - 0.6
        seen = 1 + read if read < 0 else (values[math.floor(read * 4) - 1] if read >= 0.25 else 1.0)
        values.append((values[-1] if values else 1.0) - 0.3 * seen)
    assert found.mean[[round((k / 4 + 0.05) / 0.05) for k in range(1, 21)]] == pytest.approx(values, abs=1e-9)
    assert found.variance == pytest.approx(0.0, abs=1e-20)


def test_arrivals_hit_a_level_when_one_of_them_does():
    """No noise, no delay: k = 7 arrivals take x from 1 to below 0.5 at h = 0.1; their time is Erlang's."""
    equation = ArrivalEquation(0.1, 1.0, 3.0, 0.0)
    found = equation.hitting_time(0.5, 6.0, 4_000, rng(2), saved=61)
    assert (
        within(found.survival[5:50], found.survival_error[5:50], stats.gamma.sf(found.time, 7, scale=1 / 3)[5:50])
        < SIGMAS
    )
    last = equation.hitting_time(0.5, 6.0, 4_000, rng(2), saved=61, settling=True)
    assert last.survival == pytest.approx(found.survival)  # it falls only: it settles when it first gets there
    threads = equation.hitting_time(0.5, 6.0, 4_000, rng(2), saved=61, threads=1)
    assert np.array_equal(threads.survival, found.survival)


# refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SDDE(0.0, 1.0), "gain must be positive and finite, got 0.0 1/s"),
        (lambda: SDDE(1.0, -1.0), "delay must be zero or more"),
        (lambda: SDDE(1.0, 1.0, math.nan), "diffusion must be zero or more"),
        (lambda: SDDE(1.0, 1.0, 1.0, -0.1), "present_noise must be zero or more"),
        (lambda: SDDE(1.0, 1.0, 1.0, 0.0, -0.1), "delayed_noise must be zero or more"),
        (lambda: SDDE(1.0, 1.0).sample_paths(9.0, 1.5, 10, rng()), "step must be at most the mean delay, 1 s, got 1.5"),
        (lambda: SDDE(1.0, 1.0).sample_paths(0.5, 0.8, 10, rng()), "step must be at most the horizon, 0.5 s, got 0.8"),
        (lambda: SDDE(1.0, 1.0).sample_paths(1.0, 0.1, 1, rng()), "paths must be a whole number, 2 or more, got 1"),
        (lambda: SDDE(1.0, 1.0).sample_paths(1.0, 0.1, 10, 7), "rng must be a numpy.random.Generator, got 7"),
        (lambda: SDDE(1.0, 1.0).sample_paths(1.0, 0.1, 10, rng(), scheme="heun"), "scheme must be one of euler"),
        (lambda: SDDE(1.0, 1.0, 1.0, 0.5).sample_paths(1.0, 0.1, 10, rng(), scheme="trapezoid"), "additive noise"),
        (lambda: SDDE(1.0, 0.0, 1.0, 0.0, 0.5).sample_paths(1.0, 0.1, 10, rng()), "delayed_noise needs a delay"),
        (lambda: SDDE(1.0, 1.0).sample_paths(1.0, 0.1, 10, rng(), start=lambda t: t * np.inf), "start must be finite"),
        (lambda: SDDE(1.0, 1.0).hitting_time(1.0, 1.0, 0.1, 10, rng()), "level must be finite and not the value at 0"),
        (lambda: SDDE(1.0, 1.0).hitting_time(-1.0, 1.0, 0.1, 10, rng(), settling=True), "level must be positive"),
        (lambda: ArrivalEquation(0.0, 1.0, 1.0, 1.0), "learning_rate must be positive"),
        (lambda: ArrivalEquation(1.0, 1.0, 1.0, 1.0, -1.0), "gradient_noise must be zero or more"),
        (lambda: ArrivalEquation(0.1, 1.0, 1.0, 1.0, regular=True).mean(1.0), "regular arrivals have sample paths"),
        (lambda: Jumps(0.0, 1.0, 1.0), "jumps: rate must be positive"),
        (lambda: Jumps(1.0, math.inf, 1.0), "jumps: mean must be finite"),
        (lambda: SDDE(1.0, 1.0).mean([-1.0]), "t must be zero or more"),
        (lambda: SDDE(1.0, 1.0).variance([]), "t must be zero or more"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=message):
        call()


def test_milstein_refuses_delays_with_atoms():
    """Two atoms: the delayed value jumps about like the path itself, at two lags."""
    law = Empirical(np.array([0.5, 1.0]))
    with pytest.raises(InputError, match="constant delay or one without atoms"):
        SDDE(1.0, law, 1.0, 0.0, 0.5).sample_paths(1.0, 0.1, 10, rng(), scheme="milstein")
