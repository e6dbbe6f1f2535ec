"""Networks as functions of one flat vector: against plain PyTorch."""

# ruff: noqa: NPY002  (users draw such numbers)

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import my_task
from stalewise.errors import InputError
from stalewise.prediction import predict
from stalewise.simulation import simulate
from stalewise.study import make_study
from stalewise.workloads import open_network
from stalewise.workloads.batches import Addressed
from stalewise.workloads.images import read_idx

HERE = Path(my_task.__file__).parent


def study_of(kind, folder=HERE, *, batch_size=None, **workload):
    schedule = {"policy": "async", "learning_rate": 0.1} | ({"batch_size": batch_size} if batch_size else {})
    return make_study(
        {
            "workload": {"kind": kind, **workload},
            "cluster": {"workers": 2, "compute": "constant(1)"},
            "schedule": schedule,
            "target": {"loss": 0.1},
        },
        folder=folder,
    )


def opened(kind, **more):
    return open_network(study_of(kind, **more))


def plain(network, model, parameters):
    """The same model, driven by hand."""
    flat = torch.from_numpy(parameters.copy())
    with torch.no_grad():
        weights = [w for w in model.parameters() if w.requires_grad]
        for weight, part in zip(weights, network.parts(flat), strict=True):
            weight.copy_(part)
    return weights


@pytest.mark.parametrize("kind", ["digits-mlp", "char-transformer", "my_task:regression", "my_task:dictionaries"])
def test_gradients_are_autograds(kind):
    """Loss and gradient of a batch are bit for bit those of a plain backward pass, whatever came before."""
    network, study = opened(kind)
    parameters = network.start(3)
    network.gradient(network.start(1), (0, 0, 0), study.batch_size)
    gradient, loss = network.gradient(parameters, (5, 1, 2), study.batch_size)
    task = network._build()
    weights = plain(network, task.model, parameters)
    batch = network.draw((5, 1, 2), study.batch_size)
    expected = (
        task.loss(task.model(batch[0]), batch[1]) if isinstance(task.loss, nn.Module) else task.loss(task.model, batch)
    )
    expected.backward()
    assert loss == float(expected.detach())
    np.testing.assert_array_equal(gradient, torch.cat([w.grad.ravel() for w in weights]).numpy())


STACKED = ["digits-mlp", "my_task:regression", "my_task:dictionaries", "my_task:normalised_alone", "my_task:tied"]
ALONE = ["my_task:normalised", "my_task:decided"]


@pytest.mark.parametrize("kind", [*STACKED, *ALONE, "my_task:weighted", "my_task:short_last"])
@pytest.mark.parametrize("steps", [1, 2])
def test_gradients_together_are_those_one_by_one(kind, steps):
    """At many parameters, each on its own batch: up to rounding where they are computed together, else to the bit."""
    network, study = opened(kind)
    size = study.batch_size or 8
    assert (network.at_once(size) > 1) == (kind not in ALONE)
    rng = np.random.default_rng(0)
    first = network.start(0)
    at = [first + 0.1 * rng.standard_normal(network.size).astype(np.float32) for _ in range(11)]
    names = [(3, worker % 4, steps * (worker // 4)) for worker in range(11)]
    together = network.local_gradients(at, names, size, steps, 0.1)
    one_by_one = np.stack([network.local_gradient(*pair, size, steps, 0.1) for pair in zip(at, names, strict=True)])
    assert together.shape == (11, network.size) and np.abs(one_by_one).max() > 0.01
    if kind in ALONE:
        np.testing.assert_array_equal(together, one_by_one)
    apart = np.linalg.norm(together - one_by_one, axis=1)
    assert (apart <= 1e-4 * np.linalg.norm(one_by_one, axis=1)).all()


def test_heavy_gradients_are_computed_one_by_one():
    """What keeps a core busy is not slowed down; two batch sizes are two questions."""
    network, _ = opened("char-transformer")
    assert network.at_once(2) > 1
    assert network.at_once(64) == 1


def test_batches_have_names():
    """One name, one batch; other names, other batches; a plain loader's batch size is the study's unless it says so."""
    network, study = opened("my_task:regression")
    assert study.batch_size == 8
    assert opened("my_task:regression", batch_size=5)[1].batch_size == 5
    one, same, other = (network.draw(name, 8)[0] for name in ((0, 1, 2), (0, 1, 2), (0, 2, 1)))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("kind", ["my_task:weighted", "my_task:iterable"])
def test_loaders_with_an_order_of_their_own(kind):
    """Batches come in the loader's order, worker by worker, and a name means the same batch when asked for again."""
    network, study = opened(kind)
    assert study.batch_size == 4
    names = [(0, worker, index) for index in range(20) for worker in (0, 1)]
    first = [network.draw(name, 4)[0].clone() for name in names]
    again = [network.draw(name, 4)[0] for name in names]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    if kind == "my_task:iterable":
        assert torch.equal(torch.cat(first[::2][:8]), my_task.X)
    with pytest.raises(InputError, match=r"batch_size must be the loader's own 4, .* got 8"):
        network.draw((0, 0, 0), 8)


def test_workers_of_a_loader_that_stay_serve_one_stream():
    """Two workers' batches, taken in turns, are those of each by itself."""
    network, _ = opened("my_task:persistent")
    turns = {(0, worker, index): network.draw((0, worker, index), 4)[0] for index in range(5) for worker in (0, 1)}
    network.loss(network.start(0))
    for worker in (0, 1):
        alone, _ = opened("my_task:persistent")
        for index in range(5):
            assert torch.equal(alone.draw((0, worker, index), 4)[0], turns[0, worker, index])


def test_what_is_random_in_data_is_named():
    """Two processes have the same data and draw the same batches, whatever their own random numbers are; a batch means
    the same samples again, others others."""
    first, _ = opened("my_task:numpys")
    np.random.seed(5)
    assert torch.equal(opened("my_task:numpys")[0].draw((0, 0, 0), 8)[0], first.draw((0, 0, 0), 8)[0])
    network, _ = opened("my_task:augmented")
    one, other = network.draw((0, 1, 2), 4)[0], network.draw((0, 1, 3), 4)[0]
    state, numpys = torch.get_rng_state(), np.random.get_state()[1]
    assert torch.equal(network.draw((0, 1, 2), 4)[0], one) and not torch.equal(other, one)
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numpys)
    assert network.loss(network.start(0)) == network.loss(network.start(0))


def test_first_parameters_follow_the_seed():
    """Seeds differ, and each is what the factory makes under it."""
    network, _ = opened("my_task:regression", options={"width": 5})
    torch.manual_seed(7)
    expected = torch.cat([w.detach().ravel() for w in my_task.regression(5)[0].parameters()]).numpy()
    np.testing.assert_array_equal(network.start(7), expected)
    assert not np.array_equal(network.start(0), network.start(1))
    assert network.size == len(expected) == 5 * 3 + 5 + 5 + 1


@pytest.mark.parametrize("verb", [predict, simulate])
def test_losses_of_any_sign(verb):
    """A loss below zero, or of nothing, does not diverge for that; one that is no number is refused."""
    for options, least in (({"by": -5.0}, -5.0), ({"times": 0.0}, 0.0)):
        told = verb(study_of("my_task:shifted", options=options, batch_size=4))
        assert told.time_to_target.mean == 0.0 and "reaches" in told.status
        low, loss, high = map(np.array, (told.loss_low, told.loss, told.loss_high))
        assert (least <= low).all() and (low <= loss).all() and (loss <= high).all()
    with pytest.raises(InputError, match="the loss at the first parameters must be finite, got nan"):
        verb(study_of("my_task:shifted", options={"times": float("nan")}))


@pytest.mark.parametrize("limit", [None, 12.0])
def test_how_a_run_that_does_not_get_there_ended(limit):
    """It names a time limit only where there is one, and the loss at the end."""
    study = study_of("my_task:shifted", batch_size=4).with_target(loss=1e-9, time_limit=limit)
    told = simulate(study.with_schedule(learning_rate=1e-3), seeds=2, horizon=None if limit else 12.0)
    by = "the time limit" if limit else "the end of the run"
    assert told.status == f"has not settled below 1e-09 by {by}, 12 s; the loss is {told.loss[-1]:.4g} there"


@pytest.mark.parametrize("verb", [predict, simulate])
def test_layers_that_normalise_over_the_batch(verb):
    """Another batch size is another loss, so pilots keep the study's; no part of the data is a single sample."""
    study = study_of("my_task:normalised_alone", batch_size=8)
    network, study = open_network(study)
    assert not network.any_batch and opened("my_task:regression")[0].any_batch
    assert verb(study.with_target(loss=100.0)).time_to_target.mean == 0.0
    data = Addressed(TensorDataset(torch.arange(9.0)))
    assert [(len(batch[0]), count) for batch, count in data.all(part=4)] == [(4, 4), (5, 5)]
    assert [count for _, count in data.all(part=5)] == [5, 4]
    assert np.isfinite(network.derivatives(network.start(0), 5).hessian(network.start(1))[0]).all()


def test_dropout_normalisation_and_frozen_layers():
    """A name fixes dropout too; the loss has none; what is frozen is left alone; averages are filled in at the end."""
    network, _ = opened("my_task:normalised")
    parameters = network.start(0)
    one, same, other = (network.gradient(parameters, name, 32)[0] for name in ((0, 0, 0), (0, 0, 0), (0, 0, 1)))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert network.size == 12 + 7
    assert network.loss(parameters) == network.loss(parameters)
    state = network.export(parameters)
    model = my_task.normalised()[0]
    model.load_state_dict(state)
    hidden = model[0](my_task.X)
    torch.testing.assert_close(model[1].running_mean, hidden.mean(0))
    with torch.no_grad():
        told = nn.functional.mse_loss(model.eval()(my_task.X), my_task.Y)
    assert network.loss(parameters) == pytest.approx(float(told), rel=0.05)  # n or n - 1 in the variance


@pytest.mark.parametrize("kind", ["my_task:regression", "char-transformer"])
def test_hessian_products(kind):
    """Along a direction the Hessian is the loss's second difference (networks without kinks)."""
    network, _ = opened(kind, options={"width": 8})
    rng = np.random.default_rng(0)
    at, along = network.start(0).astype(np.float32), rng.standard_normal(network.size).astype(np.float32)
    along /= np.linalg.norm(along)
    product, _ = network.derivatives(at).hessian(along)
    second = [network.loss(at + np.float32(0.05 * s) * along) for s in (-1, 0, 1)]
    assert along @ product == pytest.approx((second[0] - 2 * second[1] + second[2]) / 0.05**2, rel=0.05, abs=2e-3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("my_task:missing", "module 'my_task' has no function 'missing'"),
        ("no_such_module:f", "there is no module 'no_such_module' beside the study"),
        ("my_task:nothing", r"must return \(model, loss, data\), got Linear"),
        ("my_task:doubles", "parameters must be dense float32, got torch.float64"),
        ("my_task:bare_iterable", "wrap an iterable data set in a DataLoader"),
        ("my_task:lazy", "the model has lazy layers; call it once on a batch in the factory"),
        ("my_task:scalar", "the first axis of a tensor counts samples, got one without axes"),
    ],
)
def test_what_is_no_task(kind, message):
    """One line says what is wrong with it."""
    with pytest.raises(InputError, match=message):
        opened(kind)


def test_wrong_options_and_data():
    """A factory's arguments are checked before it is called; files are named."""
    with pytest.raises(InputError, match=r"workload.options: digits-mlp takes \(width: int = 64, layers: int = 2\)"):
        opened("digits-mlp", options={"depth": 3})
    with pytest.raises(InputError, match=r"workload.data: cannot read '.*none.txt'"):
        opened("char-transformer", data="none.txt")
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte' does not exist; workload.data names the folder"):
        opened("mnist-cnn", data="nowhere")
    with pytest.raises(InputError, match="heads must divide width, got heads = 4 and width = 6"):
        opened("char-transformer", options={"width": 6})
    for kind, name, value, least in (
        ("digits-mlp", "width", 0, 1), ("digits-mlp", "layers", -1, 0), ("digits-mlp", "width", "many", 1),
        ("char-transformer", "context", 0, 1), ("char-transformer", "layers", -1, 0),
        ("char-transformer", "heads", 0, 1), ("char-transformer", "width", 8.5, 1),
    ):  # fmt: skip
        message = f"workload.options: {name} must be a whole number, {least} or more, got {value!r}"
        with pytest.raises(InputError, match=message):
            opened(kind, options={name: value})


def write_mnist(folder, count=64):
    """Four IDX files of random images, the training images gzipped."""
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images, labels = rng.integers(256, size=(count, 28, 28), dtype=np.uint8), rng.integers(10, size=count)
        head = struct.pack(">IIII", 0x803, count, 28, 28)
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(head + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, count) + labels.astype(np.uint8).tobytes()
        )


def test_mnist_from_files(tmp_path):
    """Plain or gzipped; pixels in 0 to 1; cut or foreign files are refused."""
    write_mnist(tmp_path)
    network, _ = opened("mnist-cnn", data=str(tmp_path))
    x, y = network.draw((0, 0, 0), 16)
    assert x.shape == (16, 1, 28, 28) and 0.9 < float(x.max()) <= 1.0 and y.dtype == torch.int64
    assert network.loss(network.start(0)) == pytest.approx(np.log(10), rel=0.5)
    few, _ = opened("mnist-cnn", data=str(tmp_path), options={"images": 3})
    assert len({float(image.sum()) for image in few.draw((0, 0, 0), 64)[0]}) == 3
    with pytest.raises(InputError, match="images must be 1 to 64, got 65"):
        opened("mnist-cnn", data=str(tmp_path), options={"images": 65})
    with pytest.raises(InputError, match=r"images must be a whole number, 1 or more, got 1\.5"):
        opened("mnist-cnn", data=str(tmp_path), options={"images": 1.5})
    with pytest.raises(InputError, match="width must be a whole number, 1 or more, got 0"):
        opened("mnist-cnn", data=str(tmp_path), options={"width": 0})
    assert opened("mnist-cnn", data=str(tmp_path))[0].size == 9098
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cut short: 63 bytes for shape \(64,\)"):
        read_idx(path, 1)
    path.write_bytes(b"not an idx file")
    with pytest.raises(InputError, match="is not an IDX file of unsigned bytes with 1 axes"):
        read_idx(path, 1)
