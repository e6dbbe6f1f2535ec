"""A task of your own: `stalewise train examples/own.toml`."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def factory(width: int = 32):
    """Model, loss and data: a curve through 2,000 noisy points."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2000, 1, generator=generator) * 6 - 3
    y = torch.sin(2 * x) + 0.1 * torch.randn(2000, 1, generator=generator)
    model = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
    return model, nn.MSELoss(), DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
