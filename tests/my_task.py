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
