"""Tasks a user might write; tests look them up as ``my_task:name``."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

X = torch.linspace(-1, 1, 96).reshape(32, 3)
Y = (X.sum(1, keepdim=True) > 0).float()


def regression(width: int = 4):
    """The least a factory can be: a tuple, a criterion, a loader."""
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    return model, nn.MSELoss(), DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)


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
