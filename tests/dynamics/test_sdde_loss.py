"""The loss of many modes: against closed forms, chains, exact laws, one mode's equation, and halved steps.

Statistical tests have fixed seeds and a tolerance of 4.5 standard errors: 7 in a million for one comparison, with
about 100 comparisons a false alarm once in 1,500 changes of seed.
"""

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats
from scipy.linalg import expm

from stalewise.delays import parse_delay
from stalewise.dynamics import SDDE, ModeLoss
from stalewise.dynamics.sdde.modes import mode_room
from stalewise.dynamics.sdde.normals import streams
from stalewise.errors import InputError

SIGMAS = 4.5
GAMMA = parse_delay("gamma(1, 4)")


def rng(seed=0):
    return np.random.default_rng(seed)


def within(estimate, error, exact):
    return np.max(np.abs(np.asarray(estimate) - exact) / error)


def plain(modes, floor, delay=GAMMA, workers=8, share=0.05):
    """Modes of curvature 0.1 to 1 that start at 1 with learning rate 0.05; the floor as a share of the target."""
    curvatures = np.geomspace(0.1, 1.0, modes)
    unit = ModeLoss.of_workers(curvatures, 0.05, workers, delay, 1.0)
    target = share * float(unit.mean(0.0))
    return ModeLoss.of_workers(curvatures, 0.05, workers, delay, floor * target / unit.floor), target


# formulas


def test_moments_are_those_of_a_chain():
    """gamma(1, 2), two modes: x' = -a z2, z1' = 2 (x - z1), z2' = 2 (z1 - z2); exponentials of it integrated."""
    loss = ModeLoss([0.6, 2.0], [0.3, 1.5], parse_delay("gamma(1, 2)"), [0.4, 0.2], [1.0, -2.0])
    for t in (0.5, 3.0, 11.0):
        squares, spreads = np.zeros(2), np.zeros(2)
        for i, (gain, noise, start) in enumerate(((0.6, 0.4, 1.0), (2.0, 0.2, -2.0))):
            chain = np.array([[0.0, 0.0, -gain], [2.0, -2.0, 0.0], [0.0, 2.0, -2.0]])
            squares[i] = (expm(chain * t) @ np.full(3, start))[0] ** 2
            roots, vectors = np.linalg.eig(chain)
            parts = vectors[0] * np.linalg.inv(vectors)[:, 0]
            sums = roots[:, None] + roots
            spreads[i] = noise**2 * (parts @ (np.expm1(sums * t) / sums) @ parts).real
        half = np.array([0.15, 0.75])
        assert loss.mean(t) == pytest.approx(half @ (squares + spreads), rel=1e-7)
        assert loss.variance(t) == pytest.approx(half**2 @ (2 * spreads**2 + 4 * squares * spreads), rel=1e-7)


def test_floor_is_the_closed_form():
    """Constant delay G = (1 + sin u)/(2 a cos u), exponential (a + r)/(2 a r)."""
    gains, noises = np.array([0.5, 1.2]), np.array([0.3, 0.7])
    energies = (1 + np.sin(gains)) / (2 * gains * np.cos(gains))
    found = ModeLoss(gains, [1.0, 3.0], 1.0, noises)
    assert found.stationary_variances() == pytest.approx(noises**2 * energies, rel=1e-12)
    assert found.floor == pytest.approx(0.5 * (noises**2 * energies) @ [1.0, 3.0], rel=1e-12)
    assert found.mean(300.0) == pytest.approx(found.floor, rel=1e-7)
    found = ModeLoss(gains, 1.0, parse_delay("exponential(2)"), 1.0)
    assert found.stationary_variances() == pytest.approx((gains + 0.5) / gains, rel=1e-9)
    assert ModeLoss([1.0, 1.6], 1.0, 1.0, 1.0).floor == math.inf
    assert np.isinf(ModeLoss([1.0, 1.6], 1.0, 1.0, 1.0).stationary_variances()).tolist() == [False, True]


def test_times_without_delay_are_logarithms():
    """F = 2 e^(-2 a t) without noise; with noise F = c + (2 - c) e^(-2 a t), c the floor."""
    quiet = ModeLoss(0.5, 1.0, 0.0, 0.0, 2.0).settling_time(0.02)
    assert quiet.settling == pytest.approx(math.log(100.0), rel=1e-9)
    assert quiet.first == quiet.settling
    noisy = ModeLoss(0.5, 1.0, 0.0, 0.1, 2.0).settling_time(0.02)
    assert noisy.floor == pytest.approx(0.005)
    assert noisy.settling == pytest.approx(math.log((2 - 0.005) / (0.02 - 0.005)), rel=1e-9)


def test_settling_is_the_last_crossing_and_first_is_the_first():
    """A mode that swings: a tau = 1.3, against the mean of one mode on a fine grid."""
    found = ModeLoss(1.3, 2.0, 1.0).settling_time(0.05)
    times = np.linspace(0.0, 40.0, 400_001)
    curve = SDDE(1.3, 1.0).mean(times) ** 2
    assert found.first == pytest.approx(times[np.argmax(curve <= 0.05)], abs=1e-4)
    assert found.settling == pytest.approx(times[np.flatnonzero(curve > 0.05)[-1]], abs=2e-4)
    assert found.settling > 3.0 * found.first


def test_slow_and_heavy_tailed_modes_settle():
    """A gain of 0.001 per delay: 1/(2a) ln(F/F*) but for the delay; Pareto delays have no root and settle too."""
    slow = ModeLoss([0.001, 1.0], [1.0, 1.0], 1.0).settling_time(0.005)
    assert slow.settling == pytest.approx(math.log(100.0) / 0.002, rel=2e-3)
    heavy = ModeLoss(0.5, 1.0, parse_delay("pareto(1, 2.5)")).settling_time(0.001)
    times = np.linspace(0.0, 60.0, 60_001)
    curve = 0.5 * SDDE(0.5, parse_delay("pareto(1, 2.5)")).mean(times) ** 2
    assert heavy.settling == pytest.approx(times[np.flatnonzero(curve > 0.001)[-1]], abs=2e-3)


def imhof(curvatures, squares, spreads, level):
    """P(half the weighted sum of squared normals <= level), exact: the characteristic function inverted."""
    scale = 0.5 * curvatures * spreads
    apart = squares / spreads

    def integrand(u):
        turn = np.outer(u, scale)
        angle = 0.5 * np.sum(np.arctan(turn) + apart * turn / (1 + turn**2), axis=1) - 0.5 * level * u
        size = np.exp(np.sum(0.25 * np.log1p(turn**2) + 0.5 * apart * turn**2 / (1 + turn**2), axis=1))
        return np.sin(angle) / (u * size)

    nodes, weights = np.polynomial.legendre.leggauss(48)
    edges = np.concatenate([[0.0], np.geomspace(2.0, 20_000.0, 200)]) / math.sqrt(np.sum(scale**2 * (1 + 2 * apart)))
    points = np.concatenate([0.5 * (b - a) * (nodes + 1) + a for a, b in itertools.pairwise(edges)])
    sizes = np.concatenate([0.5 * (b - a) * weights for a, b in itertools.pairwise(edges)])
    return 0.5 - sizes @ integrand(points) / math.pi


def test_gamma_law_is_near_the_exact_one():
    """One mode 0.04 (noncentral chi-square), two 0.022, ten 0.006: the docstring's numbers."""
    for modes, most, floors in ((1, 0.04, (0.5, 1.2)), (2, 0.022, (0.5, 1.2)), (10, 0.006, (0.5, 0.8))):
        worst = 0.0
        for floor in floors:
            loss, target = plain(modes, floor)
            times = np.linspace(4.0, 60.0, 15)
            squares, spreads = loss._moments(times)
            exact = [imhof(loss._curvatures, *column, target) for column in zip(squares.T, spreads.T, strict=True)]
            if modes == 1:
                scale = 0.05 * spreads[0]
                assert exact == pytest.approx(stats.ncx2.cdf(target / scale, 1, squares[0] / spreads[0]), abs=1e-3)
            worst = max(worst, np.max(np.abs(loss.reached(target, times) - exact)))
        assert 0.3 * most < worst < most


def test_share_that_has_hit_is_at_least_the_share_that_is_there():
    """Ten modes, floor 0.8 of the target: the bound holds for paths, and so does that of the median."""
    loss, target = plain(10, 0.8)
    told = loss.settling_time(target, workers=8)
    found = loss.hitting_time(target, 40.0, 0.1, 2_000, rng(1), settling=False)
    bound = np.interp(found.time, told.time, told.reached)
    assert np.all(found.cdf >= bound - 0.006 - SIGMAS * found.survival_error)
    assert found.quantile(0.5) < told.median_bound < told.settling
    assert told.spread == pytest.approx(math.sqrt(0.25 * told.settling / 8))


def test_noise_free_share_is_a_step():
    told = ModeLoss(0.5, 1.0, 0.0, 0.0, 2.0).settling_time(0.02)
    assert set(told.reached) == {0.0, 1.0}
    assert told.median_bound == pytest.approx(math.log(100.0), abs=2e-2)


# paths


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "lognormal(1, 1)", "constant(0)"])
def test_paths_have_the_mean_and_variance_of_the_formula(law):
    """Four modes, two of the same gain; step errors are below a standard error."""
    loss = ModeLoss([0.2, 0.9, 0.9, 1.1], [0.2, 1.0, 2.0, 0.5], parse_delay(law), [0.1, 0.5, 0.2, 0.3], [1, 1, -1, 2])
    found = loss.sample_paths(9.0, 1 / 20, 6_400, rng(2), saved=10)
    assert within(found.mean[1:], found.mean_error[1:], loss.mean(found.time[1:])) < SIGMAS
    assert within(found.variance[1:], found.variance_error[1:], loss.variance(found.time[1:])) < SIGMAS
    assert found.mean[0] == pytest.approx(float(loss.mean(0.0)))


def test_three_brownian_motions_hit_a_sphere():
    """No drift to speak of: from radius 2 to 1 by t with probability erfc(1/sqrt(2 t))/2, exact (Bessel process).

    The bridge of the radius is exact for three dimensions, whatever the step; grid points alone are off by 0.04.
    """
    loss = ModeLoss(np.full(3, 1e-9), 1.0, 1.0, 1.0, 2.0 / math.sqrt(3.0))
    times = np.array([1.0, 2.0, 4.0])
    exact = 0.5 * special.erfc(1.0 / np.sqrt(2.0 * times))
    for step in (0.5, 0.125):
        found = loss.hitting_time(0.5, 4.0, step, 100_000, rng(3), settling=False, saved=9)
        rows = np.searchsorted(found.time, times)
        assert within(found.cdf[rows], found.survival_error[rows], exact) < SIGMAS
        points = loss.sample_paths(4.0, step, 20_000, rng(3), saved=33, keep=20_000).values.min(axis=0) <= 0.5
        assert points.mean() < exact[-1] - 0.025


def test_bridge_is_of_first_order_where_modes_are_unequal():
    """Curvatures 1 and 0.1, no drift: from a fine grid 0.4061 by t = 2; errors fall at least with the step."""
    loss = ModeLoss([1e-9, 1e-9], [1.0, 0.1], 1.0, 1.0, 2.0 / math.sqrt(1.1))
    fine = loss.hitting_time(0.5, 2.0, 1 / 128, 100_000, rng(1), settling=False, saved=3)
    assert fine.cdf[-1] == pytest.approx(0.4061, abs=SIGMAS * 1.8e-3)
    for step, most in ((0.5, 0.02), (0.25, 0.008), (0.125, 0.003)):
        found = loss.hitting_time(0.5, 2.0, step, 200_000, rng(2), settling=False, saved=3)
        assert abs(found.cdf[-1] - fine.cdf[-1]) < most + SIGMAS * fine.survival_error[-1]


def test_one_mode_hits_as_the_equation_of_one_mode_does():
    """F = x^2/2 falls to 0.02 when x falls to 0.2: the exact 0.75118 at t = 1 (inverse Gaussian law)."""
    found = ModeLoss(1.0, 1.0, 1.0, 0.5).hitting_time(0.02, 1.0, 0.01, 40_000, rng(6), settling=False)
    assert abs(found.cdf[-1] - 0.7511804571) < SIGMAS * found.survival_error[-1]
    assert any("One mode" in sentence for sentence in found.warnings)


@pytest.mark.parametrize("settling", [False, True])
def test_halved_steps_give_the_same_times(settling):
    """Ten modes, floor 0.8 of the target, constant delay: steps of 1/4 and 1/32 agree; points alone do not."""
    loss, target = plain(10, 0.8, 1.0)
    coarse, fine = (
        loss.hitting_time(target, 16.0, step, 20_000, rng(seed), settling, saved=33)
        for seed, step in ((4, 0.25), (5, 1 / 32))
    )
    rows = slice(16, 32)
    error = np.hypot(coarse.survival_error, fine.survival_error)[rows]
    assert within(coarse.survival[rows], error, fine.survival[rows]) < SIGMAS
    losses = loss.sample_paths(16.0, 0.25, 20_000, rng(4), saved=65, keep=20_000).values <= target
    points = losses[:49].any(axis=0).mean() if not settling else losses[48:].all(axis=0).mean()
    assert abs(points - fine.cdf[24]) > 10.0 * fine.survival_error[24]


def test_settling_without_noise_is_that_of_the_mean():
    loss = ModeLoss([1.3, 0.4], [2.0, 1.0], 1.0)
    found = loss.hitting_time(0.05, 30.0, 1 / 200, 2, rng(), saved=6001)
    assert found.quantile(0.5) == pytest.approx(loss.settling_time(0.05).settling, abs=6e-3)
    found = loss.hitting_time(0.05, 30.0, 1 / 200, 2, rng(), settling=False, saved=6001)
    assert found.quantile(0.5) == pytest.approx(loss.settling_time(0.05).first, abs=6e-3)


# d, floor: T of the mean and the mean first hitting time (standard deviation) of 8 real workers, event by event
TABLE = {
    (1, 0.02): (36.25, 35.94, 3.4),
    (1, 0.5): (43.09, 32.62, 11.5),
    (10, 0.02): (10.10, 10.08, 0.73),
    (10, 0.5): (14.08, 12.85, 3.4),
    (10, 0.8): (20.85, 14.88, 5.4),
    (100, 0.02): (10.28, 10.25, 0.57),
    (100, 0.5): (14.21, 14.06, 1.6),
    (100, 0.8): (20.47, 18.82, 3.1),
    (100, 1.2): (math.inf, 37.9, 14.7),
}


@pytest.mark.parametrize(("modes", "floor"), TABLE)
def test_times_of_eight_workers(modes, floor):
    """Event simulations of 8 gamma(4) workers, learning rate 0.05, curvatures 0.1 to 1, target 5 % of the start.

    The mean loss is at the target within 2.1 % (half an update's delay and the simulation's own error), the first
    hitting time within 6 %; its standard deviation is that of the paths and of the arrivals together, within 20 %.
    """
    loss, target = plain(modes, floor)
    curve, mean, deviation = TABLE[modes, floor]
    told = loss.settling_time(target, workers=8)
    assert told.settling == pytest.approx(curve, rel=0.021)
    horizon = 110.0 if math.isinf(curve) or modes == 1 else 3.0 * curve
    found = loss.hitting_time(target, horizon, 0.1, 1_280, rng(7), settling=False)
    assert found.survival[-1] < 2e-3
    assert found.mean == pytest.approx(mean, rel=0.06)
    spread = 2.0 * np.trapezoid(found.time * found.survival, found.time) - found.mean**2
    assert math.sqrt(spread + 0.25 * mean / 8) == pytest.approx(deviation, rel=0.2)
    sentences = " ".join(told.warnings)
    assert ("never settles" in sentences) == (floor > 1.0)
    assert ("earlier" in sentences) == (0.5 < floor < 1.0)


def test_quantile_error_is_the_scatter_of_quantiles():
    """Over 40 seeds; a standard deviation of 40 is good to 11 %."""
    loss, target = plain(3, 0.5, 1.0)
    runs = [loss.hitting_time(target, 60.0, 0.25, 640, rng(seed), settling=False) for seed in range(40)]
    scatter = np.std([run.quantile(0.5) for run in runs], ddof=1)
    assert np.mean([run.quantile_error(0.5) for run in runs]) == pytest.approx(scatter, rel=0.5)
    assert loss.hitting_time(target, 2.0, 0.25, 640, rng()).quantile_error(0.9) == math.inf


def test_result_does_not_depend_on_threads():
    loss, target = plain(3, 0.5)
    one, many, other = (
        loss.hitting_time(target, 8.0, 0.1, 1000, rng(seed), threads=threads)
        for seed, threads in ((1, 1), (1, 3), (2, 1))
    )
    assert np.array_equal(one.survival, many.survival)
    assert not np.array_equal(one.survival, other.survival)


def test_memory_does_not_grow_with_time():
    """A thread's arrays are as large for 10 s as for 1,000 s."""
    from stalewise.dynamics.sdde.grid import grid_of

    loss, _ = plain(5, 0.5, 1.0)
    sizes = []
    for horizon in (10.0, 1000.0):
        plan = loss._plan(grid_of(loss.law, horizon, 0.1), 11)
        sizes.append(sum(array.nbytes for array in mode_room(plan, streams(np.random.SeedSequence(0)))))
    assert sizes[0] == sizes[1]


# noise that grows with the loss


def test_one_mode_with_growing_noise_is_one_with_delayed_noise():
    """kappa F(t - tau) = (kappa lambda/2) x(t - tau)^2: another code, the same variance, floor and limit."""
    loss = ModeLoss(0.8, 1.5, 1.0, 0.3, 1.0, noise_growths=0.4)
    equation = SDDE(0.8, 1.0, 0.3, delayed_noise=math.sqrt(0.3))
    assert loss.floor == pytest.approx(0.75 * equation.stationary_variance(), rel=1e-12)
    times = np.array([0.5, 1.0, 2.5, 7.0, 30.0])
    exact = 0.75 * (equation.mean(times) ** 2 + equation.variance(times))
    assert loss.mean(times) == pytest.approx(exact, rel=2e-3)
    energy = (1 + math.sin(0.8)) / (1.6 * math.cos(0.8))
    for factor, finite in ((0.999, True), (1.001, False)):
        growing = ModeLoss(0.8, 1.5, 1.0, 0.3, noise_growths=factor / (0.75 * energy))
        assert math.isfinite(growing.floor) == finite
        assert np.isfinite(growing.stationary_variances()).all() == finite


def test_loop_is_the_spectral_radius():
    """Of the matrix that takes squared modes to squared modes; stationary variances solve its equation."""
    gains, curvatures, growths = np.array([0.2, 0.7, 1.1]), np.array([0.4, 1.0, 3.0]), np.array([0.05, 0.0, 0.2])
    loss = ModeLoss(gains, curvatures, 1.0, [0.1, 0.2, 0.3], noise_growths=growths)
    energies = (1 + np.sin(gains)) / (2 * gains * np.cos(gains))
    matrix = energies[:, None] * growths[:, None] * 0.5 * curvatures[None, :]
    assert loss.loop == pytest.approx(np.max(np.abs(np.linalg.eigvals(matrix))), rel=1e-12)
    free = energies * np.array([0.01, 0.04, 0.09])
    assert loss.stationary_variances() == pytest.approx(np.linalg.solve(np.eye(3) - matrix, free), rel=1e-12)
    double = ModeLoss(gains, curvatures, 1.0, 0.1, noise_growths=growths * 1.01 / loss.loop)
    assert double.floor == math.inf
    assert "without bound" in double.settling_time(1e-3).warnings[0]


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)"])
def test_paths_with_growing_noise_have_the_mean_of_the_formula(law):
    """Three modes, a loop of a half: on the way and in the long run."""
    curvatures = np.array([0.2, 1.0, 0.6])
    unit = ModeLoss(curvatures, curvatures, parse_delay(law), 0.1, [1.0, -0.5, 1.5], noise_growths=1.0)
    growth = 0.5 / unit.loop
    loss = ModeLoss(curvatures, curvatures, parse_delay(law), 0.1, [1.0, -0.5, 1.5], noise_growths=growth)
    assert loss.loop == pytest.approx(0.5)
    found = loss.sample_paths(40.0, 1 / 25, 6_400, rng(9), saved=21)
    assert within(found.mean[1:], found.mean_error[1:], loss.mean(found.time[1:])) < SIGMAS
    assert loss.mean(200.0) == pytest.approx(loss.floor, rel=2e-3)
    told = loss.settling_time(2.0 * loss.floor)
    assert float(loss.mean(told.settling)) == pytest.approx(2.0 * loss.floor, rel=2e-3)
    assert np.isnan(told.reached).all()
    assert told.median_bound == math.inf


# refusals


def test_workers_make_gains():
    loss = ModeLoss.of_workers([1.0, 0.5], 0.1, 4, parse_delay("exponential(2)"), [0.25, 1.0], noise_growth=3.0)
    assert loss._gains == pytest.approx([0.2, 0.1])
    assert loss._noises == pytest.approx([0.01 * 2 * 0.25, 0.01 * 2])
    assert loss._growths == pytest.approx([0.06, 0.06])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ModeLoss([1.0, 0.0], 1.0, 1.0), "gains must be positive and finite, got 0.0"),
        (lambda: ModeLoss([], 1.0, 1.0), "gains must be one or more numbers"),
        (lambda: ModeLoss([[1.0]], 1.0, 1.0), "gains must be one or more numbers, got an array of shape"),
        (lambda: ModeLoss("fast", 1.0, 1.0), "gains must be a number or one for each mode, got 'fast'"),
        (lambda: ModeLoss([1.0, 1.0], [1.0, 1.0, 1.0], 1.0), "curvatures must be a number or 2 numbers"),
        (lambda: ModeLoss(1.0, -1.0, 1.0), "curvatures must be positive"),
        (lambda: ModeLoss(1.0, 1.0, -1.0), "delay must be zero or more"),
        (lambda: ModeLoss(1.0, 1.0, 1.0, -1.0), "diffusions must be zero or more"),
        (lambda: ModeLoss(1.0, 1.0, 1.0, 1.0, math.nan), "starts must be finite, got nan"),
        (lambda: ModeLoss(1.0, 1.0, 1.0, noise_growths=-1.0), "noise_growths must be zero or more"),
        (lambda: ModeLoss(1.0, 1.0, 1.0).settling_time(0.5), "target must be below the loss at the start, 0.5, got 0"),
        (lambda: ModeLoss(1.0, 1.0, 1.0).settling_time(0.0), "target must be positive"),
        (lambda: ModeLoss(1.0, 1.0, 1.0).settling_time(0.1, workers=0), "workers must be a whole number, 1 or more"),
        (lambda: ModeLoss(1.0, 1.0, 1.0).hitting_time(0.6, 1.0, 0.1, 10, rng()), "target must be below the loss"),
        (lambda: ModeLoss(1.0, 1.0, 1.0, noise_growths=0.1).variance(1.0), "noise_growths must be 0"),
        (lambda: ModeLoss(1.0, 1.0, 1.0).mean(-1.0), "t must be zero or more"),
        (lambda: ModeLoss.of_workers(1.0, 0.1, 4, 0.0), "delay must be positive"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
