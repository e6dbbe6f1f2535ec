"""What is measured, by another route."""

import functools

import numpy as np
import pytest
import torch
from torch.func import functional_call

import my_task
from stalewise.errors import InputError
from stalewise.landscape import leading_curvature, measure
from stalewise.landscape.budget import plan_for
from stalewise.landscape.noise import collect, noise_of
from stalewise.study import Workload
from stalewise.workloads import load_network

SMALL = Workload(kind="digits-mlp", options={"width": 8})
TESTS = {"folder": "tests"}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def own(name):
    """A task of tests/my_task.py."""
    return Workload.model_validate({"kind": f"my_task:{name}"}, context=TESTS)


@pytest.fixture(scope="module")
def found():
    """The small network at its start and after 200 updates."""
    return measure(SMALL, budget=30_000, updates=[200], learning_rate=0.1)  # all of its samples


class Dense:
    """Derivatives of the small network in double precision by torch.func, parameter by parameter."""

    def __init__(self):
        network = load_network(SMALL)
        task = network._build()
        model, (self.x, self.y) = task.model.double(), task.data
        names = [name for name, _ in model.named_parameters()]
        self.weights = network.start(0).astype(float)

        def outputs(flat, x):
            return functional_call(model, dict(zip(names, network.parts(flat), strict=True)), (x.double(),))

        self.outputs = outputs

    def loss(self, flat, x, y):
        return torch.nn.functional.cross_entropy(self.outputs(flat, x), y)

    @property
    def flat(self):
        return torch.from_numpy(self.weights)

    @functools.cache  # noqa: B019  (one object)
    def hessian(self):
        return torch.func.hessian(lambda flat: self.loss(flat, self.x, self.y))(self.flat).numpy()

    def gauss_newton(self):
        """J' (diag p - p p') J with p the softmax, the Hessian of cross-entropy."""
        jacobian = torch.func.jacrev(lambda flat: self.outputs(flat, self.x))(self.flat).numpy()
        p = self.outputs(self.flat, self.x).softmax(1).detach().numpy()
        bent = p[:, :, None] * jacobian - p[:, :, None] * np.einsum("no,nop->np", p, jacobian)[:, None]
        return np.einsum("nop,noq->pq", jacobian, bent, optimize=True) / len(p)

    @functools.cache  # noqa: B019
    def gradients(self):
        """Of every sample, shape (samples, parameters)."""
        one = torch.func.grad(lambda flat, x, y: self.loss(flat, x[None], y[None]))
        return torch.func.vmap(one, (None, 0, 0))(self.flat, self.x, self.y).numpy()


@pytest.fixture(scope="module")
def dense():
    return Dense()


def test_ten_leading_eigenvalues_are_those_of_dense_matrices(found, dense):
    """Differentiated twice in double precision; a network of 682 parameters on all of its data."""
    place = found.places[0]
    assert place.samples == 1500
    for told, matrix in ((place.hessian, dense.hessian()), (place.gauss_newton, dense.gauss_newton())):
        exact = np.linalg.eigvalsh(matrix)[::-1][:10]
        assert [one.value for one in told] == pytest.approx(exact, rel=1e-4)
        for one, value in zip(told, exact, strict=True):
            assert abs(one.value - value) <= one.residual + 3e-6 * exact[0]
    assert leading_curvature(load_network(SMALL), load_network(SMALL).start(0)) == pytest.approx(
        place.curvature, rel=1e-4
    )


def test_spectrum_keeps_the_dense_trace_and_range(found, dense):
    """Within 9.9 standard errors, what 99 % of t with 2 degrees of freedom lie within; no point past the ends."""
    eigenvalues, density = np.linalg.eigvalsh(dense.hessian()), found.places[0].density
    assert abs(density.trace.value - eigenvalues.sum()) < 9.9 * density.trace.standard_error
    assert density.trace.standard_error < 0.2 * eigenvalues.sum()
    slack = 1e-5 * eigenvalues[-1]
    assert eigenvalues[0] - slack <= density.eigenvalues[0] <= 0.8 * eigenvalues[0]
    assert density.eigenvalues[-1] == pytest.approx(eigenvalues[-1], rel=1e-4)
    share = sum(s for e, s in zip(density.eigenvalues, density.shares, strict=True) if e > eigenvalues[-30])
    assert share == pytest.approx(30 / 682, rel=0.3)


def test_noise_is_that_of_all_single_gradients(found, dense):
    """Total, signal and noise scale by both estimators within 4.5 standard errors of their exact values."""
    gradients, noise = dense.gradients(), found.places[0].noise
    total, square = gradients.var(0).sum(), (gradients.mean(0) ** 2).sum()
    for told, exact in (
        (noise.total, total),
        (noise.gradient_square, square),
        (noise.scale, total / square),
        (noise.scale_two_batch, total / square),
    ):
        assert abs(told.value - exact) < 4.5 * told.standard_error < 0.5 * exact
    for batch in found.places[0].batches:
        assert abs(batch.total.value - total) < 4.5 * batch.total.standard_error


@pytest.mark.parametrize("order", ["same", "new", "drawn"])
@pytest.mark.parametrize("batch", [32, 75])
def test_noise_of_a_loader_is_that_of_all_single_gradients(order, batch, dense):
    """In the same order every round, each sample once a round, or drawn: exact values within 4.5 standard errors.

    Batches of a round taken for independent draws: two of them gave a scale of 0.7 (30 samples) and 0 times the exact
    one in the same order, 7 and 10^7 standard errors off; in new orders 75 samples told 5 % too little noise.
    """
    task = Workload.model_validate(
        {"kind": "my_task:digits_loaded", "options": {"order": order, "batch": batch}}, context=TESTS
    )
    network = load_network(task)
    assert (network.start(0) == load_network(SMALL).start(0)).all()
    gradients, none = dense.gradients(), np.zeros((network.size, 0))
    total, square = gradients.var(0).sum(), (gradients.mean(0) ** 2).sum()
    rounds = collect(network, network.start(0), batch, 1000, none, (0, 2), lambda: None)
    assert len(rounds.seconds) == 1000 // -(-1500 // batch) * -(-1500 // batch)
    told = noise_of(rounds)
    assert told.two_batch is None
    for one, exact in ((told.total, total), (told.gradient_square, square), (told.scale, total / square)):
        assert abs(one.value - exact) < 4.5 * one.standard_error < 0.6 * exact
    if order == "new":
        assert told.total.value == pytest.approx(total, rel=0.04)


def test_errors_of_a_loaders_noise_are_honest(dense):
    """Over twelve seeds total noise spreads by its standard error at most; a mean over all of a round does not."""
    task = Workload.model_validate({"kind": "my_task:digits_loaded", "options": {"order": "new"}}, context=TESTS)
    network = load_network(task)
    none = np.zeros((network.size, 0))
    told = [noise_of(collect(network, network.start(0), 75, 200, none, (s, 2), lambda: None)) for s in range(12)]
    values = np.array([one.total.value for one in told])
    assert 0.2 < values.std(ddof=1) / np.mean([one.total.standard_error for one in told]) < 1.3
    exact = dense.gradients().var(0).sum()
    assert abs(values.mean() - exact) < 4.5 * values.std(ddof=1) / np.sqrt(12)
    assert np.std([one.gradient_square.value for one in told]) < 1e-3 * told[0].gradient_square.value


def test_noise_takes_its_share_of_the_budget():
    """A twentieth of it in gradients, up to 10,000; a loader's in whole rounds, which is noted."""
    assert [plan_for(budget, 32, 10).gradients for budget in (1000, 20_000, 1e6)] == [50, 1000, 10_000]
    found = measure(own("weighted"), budget=1000, eigenvalues=2)
    assert any("noise is from 6 rounds of the loader" in note for note in found.notes)
    assert found.places[0].batches[0].gradients == 48


def test_noise_along_eigenvectors_is_that_of_single_gradients(dense):
    """Sample by sample, to rounding; then their covariance."""
    network = load_network(SMALL)
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((network.size, 3)))[0]
    slopes = network.derivatives(network.start(0), 1500).slopes(vectors)
    exact = dense.gradients() @ vectors
    np.testing.assert_allclose(slopes, exact, atol=3e-6 * np.abs(exact).max())


def test_covariance_along_measured_eigenvectors(found, dense):
    """Against all samples, within 4.5 standard errors; with the rest it makes the total."""
    noise = found.places[0].noise
    vectors = np.linalg.eigh(dense.hessian())[1][:, ::-1][:, :10]
    exact = np.var(dense.gradients() @ vectors, axis=0)
    assert noise.covariance.route == "samples"
    for told, value in zip(noise.covariance.along, exact, strict=True):
        assert abs(told.value - value) < 4.5 * told.standard_error
    matrix = np.array(noise.covariance.matrix)
    off = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    assert noise.covariance.off_diagonal == pytest.approx(off / (matrix**2).sum())
    parts = sum(one.value for one in noise.covariance.along) + 672 * noise.rest.value
    assert parts == pytest.approx(noise.total.value)


def test_after_updates_of_sgd(found):
    """The place is where the loop written out comes to; the file says how it came there."""
    network = load_network(SMALL)
    at = network.start(0)
    for step in range(200):
        at = at - np.float32(0.1) * network.gradient(at, (0, 1, step), 32)[0]
    first, later = found.places
    assert (later.updates, later.learning_rate, first.updates, first.learning_rate) == (200, 0.1, 0, None)
    assert later.loss == pytest.approx(network.loss(at))
    assert later.loss < 0.5 * first.loss
    assert later.curvature == pytest.approx(leading_curvature(network, at), rel=1e-4)


def test_same_seed_same_numbers():
    """But for the clock."""
    one, same = (measure(own("regression"), budget=1000, eigenvalues=2) for _ in range(2))
    assert one.places[0].hessian == same.places[0].hessian
    assert one.places[0].noise == same.places[0].noise
    assert one.gradients == same.gradients


@pytest.mark.parametrize("name", ["regression", "attentive", "dictionaries", "weighted", "iterable", "normalised"])
def test_tasks_of_all_kinds(name):
    """Loaders, dictionaries, attention, batch normalisation: the leading curvature is that of a dense Hessian."""
    workload = own(name)
    network, place = load_network(workload), measure(workload, budget=1000, eigenvalues=2).places[0]
    about = network.derivatives(network.start(0), plan_for(1000, network.batch_size or 32, 2).samples)
    matrix = np.stack([about.hessian(unit)[0] for unit in np.eye(network.size)])
    assert np.abs(matrix - matrix.T).max() < 1e-5 * np.abs(matrix).max()
    assert place.curvature == pytest.approx(np.linalg.eigvalsh(matrix.astype(float))[-1], rel=1e-4)
    assert place.noise.covariance.route == ("batches" if name == "normalised" else "samples")


@pytest.mark.parametrize("kind", ["my_task:attentive", "char-transformer"])
def test_products_with_attention(kind):
    """Hessian against differences of gradients, Gauss-Newton against forward-mode Jacobians."""
    options = {} if kind.startswith("my") else {"width": 8, "context": 8, "layers": 1, "heads": 2}
    network = load_network(Workload.model_validate({"kind": kind, "options": options}, context=TESTS))
    at, rng = network.start(0), np.random.default_rng(0)
    along = rng.standard_normal(network.size).astype(np.float32)
    along /= np.linalg.norm(along)
    about = network.derivatives(at, 32)
    model = network._build().model.double()
    (batch, _), *_ = about._batches
    inputs = batch[0] if kind.startswith("my") else batch[0][..., :-1]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    names = [n for n, w in model.named_parameters() if w.requires_grad]

    def outputs(flat):
        weights = dict(zip(names, network.parts(flat), strict=True))
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional_call(model, weights, (inputs,))

    def loss(z):
        if kind.startswith("my"):
            return ((z - batch[1].double()) ** 2).mean()
        return torch.nn.functional.cross_entropy(z.flatten(0, -2), batch[0][..., 1:].flatten())

    flat, v = torch.from_numpy(at).double(), torch.from_numpy(along).double()
    gradient = torch.func.grad(lambda flat: loss(outputs(flat)))
    bent = (gradient(flat + 1e-4 * v) - gradient(flat - 1e-4 * v)) / 2e-4
    about._batches, about.shares = about._batches[:1], np.ones(1)
    np.testing.assert_allclose(about.hessian(along)[0], bent, atol=1e-4 * bent.abs().max())
    z, moved = torch.func.jvp(outputs, (flat,), (v,))
    (product,) = torch.func.vjp(outputs, flat)[1](torch.func.jvp(torch.func.grad(loss), (z,), (moved,))[1])
    np.testing.assert_allclose(about.gauss_newton(along)[0], product, atol=1e-4 * product.abs().max())


def test_fewer_parameters_than_eigenvalues():
    """All four eigenvalues are found, and nothing is left for the density or for noise beside them."""
    place = measure(own("weighted"), budget=1000).places[0]
    assert len(place.hessian) == len(place.gauss_newton) == 4
    assert place.density.trace.value == pytest.approx(sum(one.value for one in place.hessian))
    assert (place.density.trace.standard_error, place.noise.rest.value) == (0.0, 0.0)
    assert [one.batch_size for one in place.batches] == [4]


def test_a_loss_without_second_derivatives():
    """PyTorch's words, in one line."""
    with pytest.raises(
        InputError, match=r"workload.kind: the loss has no second derivatives in PyTorch: derivative for"
    ):
        measure(own("fused"), budget=1000)


def test_where_there_is_nothing_to_see():
    """One sample has no noise, a loss that is nothing neither noise nor a scale of it."""
    told = measure(own("lonely"), budget=1000).places[0]
    assert told.noise.total.value == pytest.approx(0.0, abs=1e-5 * told.noise.gradient_square.value)
    assert told.noise.covariance.route == "batches"
    shifted = Workload.model_validate({"kind": "my_task:shifted", "options": {"times": 0.0}}, context=TESTS)
    noise = measure(shifted, budget=1000).places[0].noise
    assert noise.total.value == noise.gradient_square.value == 0.0 and noise.scale is noise.scale_two_batch is None
    with pytest.raises(InputError, match=r"workload.kind: second derivatives of the loss \(Hessian\) must be finite"):
        measure(own("pointed"), budget=1000)


def test_no_gauss_newton_where_the_loss_sees_parameters():
    """It says so; the rest is measured."""
    found = measure(own("penalised"), budget=1000, eigenvalues=2)
    assert found.places[0].gauss_newton is None
    assert any("no Gauss-Newton matrix" in note for note in found.notes)


def test_sampling_error_of_eigenvalues():
    """The largest curvature over 16 other sets of samples spreads by its standard error, within a factor of 2."""
    told = measure(SMALL, budget=1000).places[0]
    assert told.samples < 200
    network, rng = load_network(SMALL), np.random.default_rng(1)
    values = []
    for _ in range(16):
        about = network.derivatives(network.start(0), told.samples)
        rows = rng.choice(1500, told.samples, replace=False)
        about._batches, about.shares = [(network._data._rows(rows), told.samples)], np.ones(1)
        values.append(_largest(about, network.size))
    assert 0.5 < np.std(values, ddof=1) / told.hessian[0].standard_error < 2.0


def test_more_budget_than_data_tells_errors_as_well():
    """All of the samples stand in sixteen parts, however many more could be paid for."""
    (all_, more) = (measure(own("regression"), budget=budget, eigenvalues=2).places[0] for budget in (3000, 3_000_000))
    assert all_.samples == more.samples == len(my_task.X)
    for one, other in zip(all_.hessian, more.hessian, strict=True):
        assert other.standard_error == pytest.approx(one.standard_error, rel=0.3) and one.standard_error > 0


def _largest(about, size):
    vector = np.random.default_rng(0).standard_normal(size)
    for _ in range(60):
        vector = about.hessian(vector / np.linalg.norm(vector))[0].astype(float)
    return np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": "a lot"}, "--budget must be gradients or a time, such as 20000, 60s or 2min; got 'a lot'"),
        ({"budget": 10}, "--budget must be 1,000 gradients or more, got 10"),
        ({"budget": "0.001s"}, r"--budget: 0.001 s is \d+ gradients here, 1,000 are needed"),
        ({"updates": [5]}, "schedule.learning_rate is missing: --updates takes steps of plain SGD"),
        ({"updates": [-1], "learning_rate": 0.1}, "--updates must be a whole number, 0 or more, got -1"),
        ({"eigenvalues": 0}, "--eigenvalues must be a whole number, 1 or more, got 0"),
        ({"updates": [30], "learning_rate": 1e30, "budget": 1000}, "schedule.learning_rate must be smaller, got 1e"),
    ],
)
def test_wrong_arguments(arguments, message):
    """One line each."""
    with pytest.raises(InputError, match=message):
        measure(own("regression"), **arguments)
