"""Real runs on a local Ray."""

import subprocess

import numpy as np
import pytest
import torch

from on_ray import REAL
from stalewise.hands.cluster import local_ray
from stalewise.study import Workload, make_study
from stalewise.traces import read_trace
from stalewise.training import train
from stalewise.workloads import load_network

DIGITS = Workload(kind="digits-mlp")

pytestmark = REAL


@pytest.fixture(scope="module", autouse=True)
def ray():
    """One Ray for all tests; `train` uses it."""
    with local_ray() as ray:
        yield ray


def digits(workers, compute, rate, service="constant(0)", **schedule):
    """A digits study that does not reach its target."""
    return make_study(
        {
            "workload": {"kind": "digits-mlp"},
            "cluster": {"workers": workers, "compute": compute, "service": service},
            "schedule": {"policy": "async", "learning_rate": rate, **schedule},
            "target": {"loss": 1e-6},
        }
    )


def test_one_worker_is_a_plain_loop():
    """Bit for bit: the losses of a real run with one worker are those of a plain PyTorch loop on the same batches."""
    run = train(digits(1, "constant(0.01)", 0.05, momentum=0.5), time_limit=3.0)
    network = load_network(DIGITS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as on a worker: sums are rounded in the same order
    task, losses = network._build(), []
    with torch.no_grad():
        for weight, part in zip(
            task.model.parameters(), network.parts(torch.from_numpy(network.start(0))), strict=True
        ):
            weight.copy_(part)
    sgd = torch.optim.SGD(task.model.parameters(), lr=0.05, momentum=0.5)
    for index in range(int(run.updates[-1]) + 1):
        losses.append(network.loss(torch.cat([w.detach().ravel() for w in task.model.parameters()]).numpy()))
        x, y = network.draw((0, 0, index), 32)
        sgd.zero_grad()
        task.loss(task.model(x), y).backward()
        sgd.step()
    torch.set_num_threads(threads)
    assert run.updates[-1] > 20
    assert run.loss == [losses[int(k)] for k in run.updates]


def test_staleness_and_trace(tmp_path):
    """Eight workers: mean staleness within 5 % of 7; the trace reads back and says the same; counts add up."""
    run = train(digits(8, "gamma(0.08, 4)", 0.01), time_limit=8.0, trace_path=tmp_path / "t.csv")
    assert run.staleness.mean == pytest.approx(7.0, rel=0.05)
    assert run.delay.mean == pytest.approx(0.08, rel=0.15)
    trace = read_trace(tmp_path / "t.csv")
    assert len(trace.durations) == run.gradients.applied
    assert trace.censored.sum() == run.gradients.in_flight
    assert trace.staleness.mean() == pytest.approx(run.staleness.mean)
    assert run.gradients.computed == run.gradients.applied + run.gradients.in_flight


def test_threshold_and_synchronous():
    """A threshold drops and is never passed; a synchronous run has no staleness."""
    bounded = train(digits(6, "exponential(0.03)", 0.01, max_staleness=4), time_limit=2.5)
    assert bounded.gradients.dropped > 0
    assert bounded.staleness.max <= 4
    together = train(digits(4, "gamma(0.03, 4)", 0.01, policy="sync"), time_limit=3.0)
    assert together.staleness.max == 0
    assert together.gradients.applied == 4 * together.updates[-1]


@pytest.mark.parametrize(
    ("schedule", "most", "fates"),
    [
        ({"policy": "k-sync", "group": 3}, 0, {"cancelled"}),
        ({"policy": "k-batch-sync", "group": 5}, 0, {"cancelled"}),
        ({"policy": "k-async", "group": 2}, None, set()),
        ({"policy": "k-batch-async", "group": 5}, None, set()),
        ({"policy": "rennala", "group": 3}, 0, {"dropped"}),
        ({"policy": "ringmaster", "max_staleness": 2, "on_stale": "cancel"}, 2, {"cancelled"}),
        ({"max_staleness": 4, "on_stale": "wait"}, 4, set()),
        ({"max_staleness": 4, "on_stale": "admit"}, 4, set()),
        ({"policy": "event-triggered", "trigger": 1.0, "on_quiet": "keep"}, None, {"unsent"}),
    ],
    ids=lambda value: value.get("policy", value.get("on_stale")) if isinstance(value, dict) else "",
)
def test_every_policy_runs_for_real(schedule, most, fates, tmp_path):
    """Its bound holds, its gradients have the fates it gives them, and the trace has a row for each of them."""
    run = train(digits(4, "exponential(0.04)", 0.05, **schedule), time_limit=2.0, trace_path=tmp_path / "t.csv")
    tally = run.gradients
    seen = {fate for fate in ("dropped", "cancelled", "unsent", "lost") if getattr(tally, fate) > 0}
    assert seen == fates
    assert tally.applied > 20
    assert most is None or run.staleness.max <= most
    trace = read_trace(tmp_path / "t.csv")
    assert len(trace) == tally.computed
    assert len(trace.staleness) == tally.applied


def test_a_shared_link_is_the_bottleneck():
    """Six workers that could do 120 gradients a second, on a link that takes 25 of them."""
    run = train(digits(6, "constant(0.05)", 0.01, service="constant(0.04)"), time_limit=3.0)
    assert run.update_rate == pytest.approx(25.0, rel=0.1)
    assert run.staleness.mean == pytest.approx(5.0, rel=0.1)


def test_producers_and_a_consumer():
    """The trainer takes four at a time, 0.1 s a step; nothing older than the bound is used, and it is kept busy."""
    schedule = {"policy": "producer-consumer", "group": 4, "max_staleness": 2}
    run = train(digits(8, "gamma(0.1, 4)", 0.05, service="constant(0.1)", **schedule), time_limit=3.0)
    assert run.staleness.max <= 2
    assert run.update_rate == pytest.approx(10.0, rel=0.15)
    tally = run.gradients
    assert tally.computed == tally.applied + tally.dropped + tally.in_flight


def test_local_steps_are_those_of_a_worker_by_itself():
    """One worker of four local steps goes where plain SGD goes, to rounding, in a quarter of the updates."""
    run = train(digits(1, "constant(0.01)", 0.05, local_steps=4, staleness_weight="inverse"), time_limit=3.0)
    network = load_network(DIGITS)
    parameters, losses = network.start(0), [network.loss(network.start(0))]
    for index in range(4 * int(run.updates[-1])):
        gradient, _ = network.gradient(parameters, (0, 0, index), 32)
        parameters = parameters - np.float32(0.05) * gradient
        if index % 4 == 3:
            losses.append(network.loss(parameters))
    assert run.updates[-1] > 10
    np.testing.assert_allclose(run.loss, [losses[int(k)] for k in run.updates], rtol=1e-3)


def test_a_killed_process_loses_nothing_else(monkeypatch):
    """Killing a worker process mid-run: its gradients are counted as lost, the run goes on, the counts add up."""
    from stalewise.training import engine

    class Killing(engine.Fleet):
        def collect(self, timeout):
            outcome = super().collect(timeout)
            self.seen = getattr(self, "seen", 0) + (outcome is not None)
            if self.seen > 30 and not getattr(self, "killed", False):
                self.killed = True
                self.hosts.kill(0)
            return outcome

    monkeypatch.setattr(engine, "Fleet", Killing)
    run = train(digits(4, "gamma(0.05, 4)", 0.01), time_limit=6.0)
    assert run.gradients.lost >= 1
    assert run.updates[-1] > 60
    tally = run.gradients
    assert tally.computed == tally.applied + tally.lost + tally.in_flight


def test_ray_listens_on_loopback_only():
    """No socket of Ray's is open to the network."""
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    open_to_all = [line for line in lines if "ray" in line or "gcs" in line or "python" in line]
    addresses = [line.split()[3] for line in open_to_all]
    assert addresses
    assert [a for a in addresses if not a.startswith(("127.", "[::1]", "[::ffff:127."))] == []


def test_blow_up_is_an_answer():
    """A wild learning rate ends the run with a sentence."""
    run = train(digits(2, "constant(0.01)", 1e6), time_limit=5.0)
    assert run.diverges
    assert run.status.startswith("diverges")
    assert np.isfinite(run.loss).all()
