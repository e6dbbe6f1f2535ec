"""Momentum and weight decay: closed forms, brute force, virtual time."""

import numpy as np
import pytest

from stalewise import limit, predict, simulate
from stalewise.dynamics import (
    Inertia,
    StepFilter,
    memoryless_second_moment,
    memoryless_step_limit,
    stationary_variance,
    step_limit,
    transient,
)
from stalewise.dynamics.memoryless import memoryless_variance_factor, moment_map
from stalewise.dynamics.recursion import (
    _circle_integrals,
    characteristic_coefficients,
    decay_per_update,
    mean_step_limit,
    noise_gain,
)
from stalewise.errors import InputError
from stalewise.staleness import CONSTANT, StalenessLaw, arrivals
from stalewise.study import make_study
from studies import quadratic

FRESH = StalenessLaw(np.ones(1), "exact: nothing is stale")
FIXED = StalenessLaw(np.eye(1, 4, 3)[0], CONSTANT)
SPREAD = StalenessLaw(np.array([0.2, 0.1, 0.4, 0.0, 0.3]), "given")
INERTIAS = [Inertia(0.5), Inertia(0.9), Inertia(0.9, nesterov=True), Inertia(0.5, decay=0.3), Inertia(0.0, decay=0.5)]


def stepped(step, law, inertia, start, updates, noise_at=None):
    """The mean of x by the optimiser's own lines, a step at a time."""
    x, velocity = [start], 0.0
    for k in range(updates):
        read = sum(p * x[max(k - age, 0)] for age, p in enumerate(law.pmf))
        along = step * (read + inertia.decay * x[-1]) + (1.0 if k == noise_at else 0.0)
        velocity = inertia.momentum * velocity + along
        x.append(x[-1] - (along + inertia.momentum * velocity if inertia.nesterov else velocity))
    return np.array(x)


@pytest.mark.parametrize("inertia", INERTIAS)
@pytest.mark.parametrize("law", [FRESH, FIXED, SPREAD])
def test_transient_is_the_optimiser_step_by_step(law, inertia):
    """Mean from a standing start, and variance as the sum of squared responses, by brute force to rounding."""
    moments = transient(0.05, 0.7, 2.0, law, 0.0, 120, inertia.filter())
    mean = stepped(0.05, law, inertia, 2.0, 120)
    kicks = stepped(0.05, law, inertia, 0.0, 120, noise_at=0)
    np.testing.assert_allclose(moments.mean, mean, atol=1e-11)
    np.testing.assert_allclose(moments.second - moments.mean**2, 0.7 * np.cumsum(kicks**2), atol=1e-10)


@pytest.mark.parametrize("inertia", INERTIAS)
@pytest.mark.parametrize("law", [FIXED, SPREAD])
def test_noise_gain_is_the_sum_of_squared_responses(law, inertia):
    """Parseval: variance of x, and of the mean read, for unit noise."""
    gain = noise_gain(0.02, law, inertia.filter())
    kicks = stepped(0.02, law, inertia, 0.0, 4000, noise_at=0)[1:]
    assert gain.additive == pytest.approx(np.sum(kicks**2), rel=1e-7)
    assert gain.read == pytest.approx(np.sum(np.convolve(kicks, law.pmf) ** 2), rel=1e-7)


@pytest.mark.parametrize("inertia", INERTIAS)
def test_slow_modes_have_their_residue(inertia):
    """The integral on a larger circle plus the residue agrees with the trapezoid rule on the unit circle."""
    how = inertia.filter()
    step = 2e-3 / how.gain
    gain, (plain, *_) = noise_gain(step, SPREAD, how), _circle_integrals(step, SPREAD.pmf, how, 0.0, 1 << 19)
    assert (gain.additive, gain.read) == pytest.approx((plain.additive, plain.read), rel=1e-9)
    assert gain.additive * 2 * step * (1 + how.decay) / how.gain == pytest.approx(1.0, rel=0.05)  # as small steps go


@pytest.mark.parametrize("inertia", INERTIAS)
@pytest.mark.parametrize("law", [FRESH, FIXED, SPREAD])
def test_mean_limit_and_decay_are_those_of_the_polynomial(law, inertia):
    """Stable below the limit, unstable above, decay by the smallest zero: numpy's roots of c."""
    how = inertia.filter()
    most = mean_step_limit(law, how)

    def modulus(step):
        return np.abs(np.roots(characteristic_coefficients(step, law.pmf, how)[::-1])).min()

    assert modulus(most) == pytest.approx(1.0, abs=1e-7)
    assert modulus(0.999 * most) > 1.0 > modulus(1.001 * most)
    for share in (0.01, 0.3, 0.8):
        assert decay_per_update(share * most, law, how) == pytest.approx(np.log(modulus(share * most)), rel=1e-8)


@pytest.mark.parametrize("beta", [0.3, 0.9, 0.99])
def test_limits_without_staleness(beta):
    """Heavy ball 2(1 + beta); Nesterov 2(1 + beta)/(1 + 2 beta): the textbook's."""
    assert mean_step_limit(FRESH, Inertia(beta).filter()) == pytest.approx(2.0 * (1.0 + beta))
    nesterov = mean_step_limit(FRESH, Inertia(beta, nesterov=True).filter())
    assert nesterov == pytest.approx(2.0 * (1.0 + beta) / (1.0 + 2.0 * beta))


@pytest.mark.parametrize("workers", [1, 2, 8, 100])
def test_memoryless_moments_without_momentum(workers):
    """The seven moments hold the closed forms of limit and variance."""
    most = memoryless_step_limit(workers)
    for step in (0.1 * most, 0.9 * most):
        matrix, noise = moment_map(step, workers)
        solved = np.linalg.solve(np.eye(7) - matrix, noise)[0]
        assert memoryless_variance_factor(step, workers) == pytest.approx(solved, rel=1e-8)
    at = [np.abs(np.linalg.eigvals(moment_map(share * most, workers)[0])).max() for share in (0.999, 1.001)]
    assert at[0] < 1.0 < at[1]


@pytest.mark.parametrize("inertia", INERTIAS[1:])
def test_memoryless_moments_settle_where_the_matrix_says(inertia):
    """Iterated moments end at the stationary variance; past the limit they grow."""
    how, workers = inertia.filter(), 4
    most = memoryless_step_limit(workers, how)
    last = memoryless_second_moment(0.5 * most, 1.0, 1.0, workers, 4000, how)[-1]
    assert last == pytest.approx(memoryless_variance_factor(0.5 * most, workers, how), rel=1e-9)
    below, above = (memoryless_second_moment(s * most, 0.0, 1.0, workers, 20_000, how) for s in (0.99, 1.01))
    assert below[-1] < below[10_000] < above[10_000] < above[-1]


@pytest.mark.parametrize("nesterov", [False, True])
def test_blocks_of_steps(nesterov):
    """Twenty steps as one: the response to a gradient that stays is exact, gain and lag are kept."""
    inertia = Inertia(0.9, nesterov=nesterov)
    one, block = inertia.filter(), inertia.filter(20)
    x = velocity = 0.0
    moved = [0.0]
    for _ in range(400):
        velocity = 0.9 * velocity + 1.0
        x += 1.0 + 0.9 * velocity if nesterov else velocity
        moved.append(x)
    y = carried = 0.0
    for k in range(1, 21):
        y += 20.0 * (block.now + block.carried * carried)
        carried = block.pole * carried + 1.0
        assert y == pytest.approx(moved[20 * k], rel=1e-12)
    assert block.gain == pytest.approx(one.gain)
    assert StepFilter() == Inertia().filter() == Inertia().filter(7)


@pytest.mark.parametrize(
    ("law", "schedule"),
    [
        ("gamma(1, 4)", {"momentum": 0.9}),
        ("exponential(1)", {"momentum": 0.5, "nesterov": True}),
        ("lognormal(1, 1)", {"momentum": 0.5, "weight_decay": 0.2}),
    ],
)
def test_floor_and_time_are_those_of_virtual_time(law, schedule):
    """8 workers at 0.4 of the mean-square limit: noise floor within 4 %, settling time within 4 % (2,048 seeds)."""
    study = quadratic(law, 8, 0.01, noise=0.01).with_schedule(**schedule)
    study = study.with_schedule(learning_rate=0.4 * limit(study).learning_rate["mean_square"])
    said = predict(study)
    study = study.model_copy(update={"target": study.target.model_copy(update={"loss": 3.0 * said.noise_floor})})
    said = predict(study)
    seen = simulate(study, seeds=2048, horizon=3.0 * said.time_to_target.mean)
    held = np.mean(seen.loss[-200:])
    assert said.noise_floor == pytest.approx(held, rel=0.04)
    assert said.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.04)


def test_limit_with_momentum_is_where_virtual_time_turns():
    """Gamma(4), 4 workers, momentum 0.9: the loss of 512 runs falls at 0.95 of the limit and grows at 1.05."""
    study = quadratic("gamma(1, 4)", 4, 0.01, momentum=0.9)
    most = limit(study).learning_rate["mean_square"]
    for share, grows in ((0.95, False), (1.05, True)):
        run = simulate(study.with_schedule(learning_rate=share * most), seeds=512, horizon=60.0)
        third = len(run.loss) // 3
        assert (np.mean(run.loss[-third:]) > np.mean(run.loss[third : 2 * third])) == grows


def test_momentum_moves_the_limit_of_a_study_as_of_its_arrivals():
    """`limit` is the step limit over the curvature, for each inertia its own."""
    study = quadratic("gamma(1, 4)", 8, 0.01, momentum=0.9)
    stiff = study.workload.modes().eigenvalues.max()
    found = step_limit(arrivals(study), Inertia(0.9))
    assert limit(study).learning_rate["mean_square"] == pytest.approx(found.mean_square / stiff)
    assert found.mean_square < 0.2 * step_limit(arrivals(study)).mean_square


def growing(workers, law, rate, growth, eigenvalues=(1.0, 0.1)):
    return make_study(
        {
            "workload": {"eigenvalues": list(eigenvalues), "gradient_noise": 0.01, "noise_growth": growth},
            "cluster": {"workers": workers, "compute": law},
            "schedule": {"policy": "async", "learning_rate": rate},
            "target": {"loss": 0.05},
        }
    )


def test_noise_that_grows_with_the_loss_alone():
    r"""One worker, one mode: V = nu/(h(2 - h) - growth eta^2 lambda/2), unstable where that is negative."""
    study = growing(1, "constant(1)", 0.3, 2.0, eigenvalues=(1.0,))
    variance = 0.09 * 0.01 / (0.3 * 1.7 - 0.09 * 2.0 * 0.5)
    assert predict(study).noise_floor == pytest.approx(0.5 * variance, rel=1e-6)
    assert limit(study).learning_rate["mean_square"] == pytest.approx(1.0, rel=1e-3)  # h (2 - h) = h^2


@pytest.mark.parametrize("law", ["exponential(1)", "gamma(1, 4)", "constant(1)"])
def test_noise_that_grows_with_the_loss_in_virtual_time(law):
    """Two coupled modes, 4 workers: floor and settling time within 4 % (2,048 seeds)."""
    study = growing(4, law, 0.1, [1.0, 3.0])
    said = predict(study)
    seen = simulate(study, seeds=2048, horizon=2.5 * said.time_to_target.mean)
    assert said.noise_floor > 1.1 * predict(growing(4, law, 0.1, 0.0)).noise_floor
    assert said.time_to_target.mean == pytest.approx(seen.time_to_target.mean, rel=0.04)
    assert said.loss[-1] == pytest.approx(np.interp(said.time[-1], seen.time, seen.loss), rel=0.05)


def test_stationary_variance_is_infinite_past_the_limit():
    timing = arrivals(quadratic("gamma(1, 4)", 8, 0.01))
    most = step_limit(timing, Inertia(0.9)).mean_square
    assert stationary_variance(1.01 * most, 1.0, timing, Inertia(0.9)) == np.inf
    assert np.isfinite(stationary_variance(0.9 * most, 1.0, timing, Inertia(0.9)))


@pytest.mark.parametrize("law", ["constant(1)", "gamma(1, 4)", "exponential(1)", "lognormal(1, 1)"])
@pytest.mark.parametrize("momentum", [0.9996, 0.999999])
def test_momentum_that_averages_over_too_long_is_refused(law, momentum):
    """Responses of a million updates took minutes, or all memory; the message says how much would do."""
    study = quadratic(law, 8, 0.1 * (1.0 - momentum)).with_schedule(momentum=momentum)
    for ask in (predict, limit):
        with pytest.raises(InputError, match=r"momentum must be at most 0\.9995 here, got 0\.9999*6?.*try simulate"):
            ask(study)


def test_momentum_averages_over_blocks_in_large_fleets():
    """A block of 100 updates keeps 0.9999^100 of its velocity: 2,000 blocks are followed, 2,000 updates without."""
    inertia = Inertia(0.9999)
    inertia.check_resolved(100)
    with pytest.raises(InputError, match="averages over 1e\\+04 updates"):
        inertia.check_resolved()
