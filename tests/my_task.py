"""Tasks a user might write; tests look them up as ``my_task:name``."""

# ruff: noqa: NPY002  (users draw such numbers)

import random

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from stalewise.workloads.digits import digits_mlp

X = torch.linspace(-1, 1, 96).reshape(32, 3)
Y = (X.sum(1, keepdim=True) > 0).float()


def regression(width: int = 4):
    """The least a factory can be: a tuple, a criterion, a loader."""
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    return model, nn.MSELoss(), DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)


def small(width: int = 8):
    """Two classes told apart by a net of one hidden layer; tensors, so that gradients may have any batch size."""
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    angles = torch.linspace(0.0, 19.0, 240)
    samples = torch.stack([torch.sin(angles), torch.cos(1.7 * angles), torch.sin(2.3 * angles)], 1)
    return model, nn.BCEWithLogitsLoss(), (samples, (samples[:, :1] + samples[:, 1:2] * samples[:, 2:] > 0).float())


def normalised():
    """Batch normalisation, dropout and a frozen layer."""
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    model[0].requires_grad_(False)
    return model, nn.MSELoss(), (X, Y)


class Pairs(Dataset):
    """Samples as dictionaries."""

    def __len__(self):
        return len(X)

    def __getitem__(self, at):
        return {"x": X[at], "y": Y[at], "at": at}


def dictionaries():
    """A loss of its own, on batches that are dictionaries."""
    return nn.Linear(3, 1), lambda model, batch: ((model(batch["x"]) - batch["y"]) ** 2).mean(), DataLoader(Pairs())


def weighted():
    """A loader with an order of its own."""
    sampler = WeightedRandomSampler(torch.arange(1.0, 33.0).tolist(), 32)
    return nn.Linear(3, 1), nn.MSELoss(), DataLoader(TensorDataset(X, Y), batch_size=4, sampler=sampler)


class Endless(IterableDataset):
    """Samples without numbers."""

    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def iterable():
    """An iterable data set in a loader."""
    return nn.Linear(3, 1), nn.MSELoss(), DataLoader(Endless(), batch_size=4)


def bare_iterable():
    """An iterable data set as it is: refused."""
    return nn.Linear(3, 1), nn.MSELoss(), Endless()


def doubles():
    """Parameters of another type: refused."""
    return nn.Linear(3, 1).double(), nn.MSELoss(), (X, Y)


def nothing():
    """Not a task: refused."""
    return nn.Linear(3, 1)


class Attentive(nn.Module):
    """PyTorch's own attention, fused where it can be."""

    def __init__(self):
        super().__init__()
        self.rise, self.attend, self.fall = (
            nn.Linear(1, 4),
            nn.MultiheadAttention(4, 2, batch_first=True),
            nn.Linear(4, 1),
        )

    def forward(self, x):
        """Shape (samples, 3) to (samples, 1)."""
        x = self.rise(x[..., None])
        x = x + nn.functional.scaled_dot_product_attention(x, x, x)
        return self.fall(self.attend(x, x, x, need_weights=False)[0].mean(-2))


def attentive():
    """Attention in two forms."""
    return Attentive(), nn.MSELoss(), (X, Y)


def penalised():
    """A loss that sees the parameters past the model's output."""
    model, loss, data = regression()
    return model, lambda model, batch: loss(model(batch[0]), batch[1]) + 0.1 * model[0].weight.square().sum(), data


class Fused(nn.Module):
    """Attention that insists on its fused form."""

    def __init__(self):
        super().__init__()
        self.rise = nn.Linear(1, 4)

    def forward(self, x):
        """Shape (samples, 3) to (samples, 1)."""
        x = self.rise(x[..., None])[:, None]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(x, x, x).mean((-2, -1))


def fused():
    """A loss without second derivatives."""
    return Fused(), nn.MSELoss(), (X, Y)


def normalised_alone():
    """Batch normalisation without dropout."""
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1)), nn.MSELoss(), (X, Y)


def decided():
    """Values decide what is done."""
    return nn.Linear(3, 1), lambda model, batch: model(batch[0]).abs().mean() * float(batch[1].sum() > 2), (X, Y)


class Named(nn.Module):
    """A layer in two places, a weight in two layers, a scalar, and a parameter without use."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(3, 3)
        self.third = nn.Linear(3, 3)
        self.third.weight = self.first.weight
        self.scale, self.idle = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.scale * self.third(self.second(self.first(x).tanh())).sum(-1, keepdim=True)


def tied():
    """Such a model, with a loss that looks at its parameters."""
    return (
        Named(),
        lambda m, b: ((m(b[0]) - b[1]) ** 2).mean() + 0.1 * sum((w**2).sum() for w in m.parameters()),
        (X, Y),
    )


def short_last():
    """A loader with an order of its own whose last batch is short."""
    sampler = WeightedRandomSampler(torch.arange(1.0, 11.0).tolist(), 10)
    return nn.Linear(3, 1), nn.MSELoss(), DataLoader(TensorDataset(X, Y), batch_size=4, sampler=sampler)


class Faulty(nn.Linear):
    """Gives NaN for training batches that hold sample 0."""

    def forward(self, x):
        poisoned = (x == X[0]).all(-1).any() & self.training
        return super().forward(x) * torch.where(poisoned, torch.nan, 1.0)


def faulty():
    """A task one in eight of whose gradients is not finite (4 of 32 samples a batch)."""
    return Faulty(3, 1), nn.MSELoss(), DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)


def broken():
    """A factory that cannot be called."""
    raise RuntimeError("no data here")


def numpys():
    """Data that NumPy and Python make up."""
    x = torch.from_numpy(np.random.randn(32, 3).astype(np.float32)) + random.random()
    return nn.Linear(3, 1), nn.MSELoss(), (x, Y)


class Shaken(Dataset):
    """Samples that are never twice the same."""

    def __len__(self):
        return len(X)

    def __getitem__(self, at):
        return X[at] + torch.randn(3) + np.random.randn() + random.random(), Y[at]


def augmented():
    """Random augmentation."""
    return nn.Linear(3, 1), nn.MSELoss(), DataLoader(Shaken(), batch_size=4)


def persistent():
    """A loader with an order of its own and processes that stay."""
    sampler = WeightedRandomSampler(torch.arange(1.0, 11.0).tolist(), 10)
    data = DataLoader(
        TensorDataset(X, Y), batch_size=4, sampler=sampler, num_workers=1, persistent_workers=True, drop_last=True
    )
    return nn.Linear(3, 1), nn.MSELoss(), data


def lazy():
    """Parameters that are not there yet: refused."""
    return nn.LazyLinear(1), nn.MSELoss(), (X, Y)


def scalar():
    """Data without samples: refused."""
    return nn.Linear(3, 1), nn.MSELoss(), torch.tensor(1.0)


class Failing(nn.Linear):
    """Raises in training: always after so many calls, and every so many."""

    calls, after, every = 0, 10**9, 10**9

    def forward(self, x):
        if self.training:
            Failing.calls += 1
            if Failing.calls > self.after or Failing.calls % self.every == 0:
                raise ValueError("own\n  trouble")
        return super().forward(x)


def failing():
    """A model that raises now and then."""
    return Failing(3, 1), nn.MSELoss(), (X, Y)


class Growing(nn.Linear):
    """One more input each time it is made."""

    made = 0

    def __init__(self):
        Growing.made += 1
        super().__init__(2 + Growing.made, 1)

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, self.in_features - 3)))


def growing():
    """Another model in every process."""
    return Growing(), nn.MSELoss(), (X, Y)


def unknown():
    """Data that are not numbers."""
    return nn.Linear(3, 1), nn.MSELoss(), (X * torch.nan, Y)


def shifted(by=0.0, times=1.0):
    """A loss that may be negative, zero or nothing at all."""
    return nn.Linear(3, 1), lambda model, batch: times * nn.functional.mse_loss(model(batch[0]), batch[1]) + by, (X, Y)


def pointed():
    """A loss without a second derivative at its first parameters, though it has a first."""
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model, lambda model, batch: 1.0 + model(batch[0]).square().mean() ** 0.75, (X, Y)


def lonely():
    """One sample."""
    return nn.Linear(3, 1), nn.MSELoss(), (X[:1], Y[:1])


class Stumbling(nn.Linear):
    """Raises when it is called; in a loss and in data of the same kind, too."""

    def forward(self, x):
        raise KeyError("no such\n layer")


class Holed(Dataset):
    """Its samples are not there."""

    def __len__(self):
        return len(X)

    def __getitem__(self, at):
        return X[at + 10_000], Y[at]


def stumbling(part: str = "model", processes: int = 0):
    """A task whose model, loss, data, shapes or factory fail at run time."""
    model = Stumbling(3, 1) if part == "model" else nn.Sequential(nn.Linear(4 if part == "shapes" else 3, 1))
    loss = (lambda model, batch: model(batch[0]).sum() / batch[2].sum()) if part == "loss" else nn.MSELoss()
    if part == "data":
        return model, loss, DataLoader(Holed(), batch_size=4)
    if part == "processes":
        sampler = WeightedRandomSampler(torch.ones(32).tolist(), 32)
        return model, loss, DataLoader(Holed(), batch_size=4, sampler=sampler, num_workers=processes)
    if part == "factory":
        return model, loss, undefined  # noqa: F821
    return model, loss, (X, Y)


class Walked(IterableDataset):
    """Always in the same order."""

    def __init__(self, *tensors):
        self.tensors = tensors

    def __iter__(self):
        return zip(*self.tensors, strict=True)


def digits_loaded(order: str = "same", batch: int = 75):
    """The small digits-mlp, its data from a loader with an order of its own."""
    model, loss, data = digits_mlp(width=8)[:3]
    count = len(data[0])
    if order == "same":
        return model, loss, DataLoader(Walked(*data), batch_size=batch)
    sampler = SubsetRandomSampler(range(count)) if order == "new" else WeightedRandomSampler(torch.ones(count), count)
    return model, loss, DataLoader(TensorDataset(*data), batch_size=batch, sampler=sampler)


def even():
    """A linear model without noise at its best, equally curved in all directions."""
    samples = torch.linalg.qr(torch.sin(torch.outer(torch.arange(1.0, 241.0), torch.tensor([1.0, 1.7, 2.3]))))[0]
    samples = samples * 240**0.5
    model = nn.Linear(3, 1, bias=False)
    nn.init.ones_(model.weight)
    return model, nn.MSELoss(), (samples, torch.zeros(240, 1))
