"""A server's steps are those of torch.optim, bit for bit."""

import numpy as np
import pytest
import torch

from stalewise.errors import InputError
from stalewise.study import Schedule
from stalewise.workloads.optimizer import Optimizer

SCHEDULES = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.5, "nesterov": True},
    {"optimizer": "SGD", "momentum": 0.5, "optimizer_options": {"dampening": 0.1}},
    {"optimizer": "Adam", "optimizer_options": {"betas": [0.8, 0.99]}},
    {"optimizer": "AdamW", "weight_decay": 0.1},
    {"optimizer": "RMSprop"},
    {"optimizer": "Adagrad"},
]


def theirs(schedule, weights):
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in schedule.get("optimizer_options", {}).items()}
    options |= {k: v for k, v in schedule.items() if k in ("momentum", "nesterov", "weight_decay")}
    return getattr(torch.optim, schedule.get("optimizer", "SGD"))(weights, lr=0.1, **options)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_steps_are_those_of_torch(schedule):
    """Ten steps of a flat vector end where PyTorch's optimizer of its two parts does, bit for bit; so they do after
    `state` and `restore` half way; no step touches what it began from."""
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(53).astype(np.float32), rng.standard_normal((10, 53)).astype(np.float32)
    weights = [torch.nn.Parameter(torch.from_numpy(part.copy())) for part in (start[:20], start[20:])]
    other = theirs(schedule, weights)
    ours, here = Optimizer(Schedule(learning_rate=0.1, **schedule), 53), start
    for k, gradient in enumerate(gradients):
        if k == 5:
            tensors, plain = ours.state()
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            ours = Optimizer(Schedule(learning_rate=0.1, **schedule), 53)
            ours.restore(tensors, plain)
        before = here.copy()
        after = ours.step(here, gradient)
        np.testing.assert_array_equal(here, before)
        here = after
        for weight, part in zip(weights, (gradient[:20], gradient[20:]), strict=True):
            weight.grad = torch.from_numpy(part.copy())
        other.step()
    np.testing.assert_array_equal(here, torch.cat([w.detach() for w in weights]).numpy())


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("warmup(4)", [0.25, 0.5, 0.75, 1, 1]),
        ("cosine(4)", [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0]),
        ("step(2, 0.1)", [1, 1, 0.1, 0.1, 0.01]),
        ("inverse-sqrt(1)", [1, 2**-0.5, 3**-0.5, 0.5, 5**-0.5]),
    ],
)
def test_learning_rate_schedules(text, factors):
    """A step moves by its factor times the learning rate."""
    ours, here = Optimizer(Schedule(learning_rate=0.5, learning_rate_schedule=text), 1), np.zeros(1, np.float32)
    moved = []
    for _ in factors:
        after = ours.step(here, np.ones(1, np.float32))
        moved.append(float(here[0] - after[0]))
        here = after
    np.testing.assert_allclose(moved, 0.5 * np.array(factors), atol=2e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beta": 0.9}, ".*'beta'"), ({"betas": [0.9]}, ".*out of range"), ({"capturable": True}, "If capturable=True"),
     ({"differentiable": True}, ".*in-place")],
)  # fmt: skip
def test_unknown_options_are_refused(options, message):
    """In one line, by the optimizer's own word, before the first step."""
    with pytest.raises(InputError, match=f"optimizer_options: Adam: {message}"):
        Optimizer(Schedule(learning_rate=0.1, optimizer="Adam", optimizer_options=options), 3)
