"""Networks in virtual time beside a plain loop over PyTorch gradients: gradients a second, on one core.

The plain loop is told the order of events for nothing: it copies the version that a worker read into the model, calls
``backward`` and takes the step of SGD, gradient by gradient. Virtual time pays for its events, computes what it can
together, and tells the loss besides; what telling costs stands in a column of its own, for the plain loop tells none.
Both end at the same parameters, up to rounding, or this exits with 1.
Run: python benchmarks/virtual.py [--data FOLDER of MNIST's four IDX files]
"""

import argparse
import sys
import time
from statistics import median

import numpy as np
import torch

from stalewise.protocol import Start, Step
from stalewise.simulation.loop import VirtualCluster
from stalewise.simulation.network import NetworkRun, advance
from stalewise.study import Study, make_study
from stalewise.workloads import open_network
from stalewise.workloads.network import Network
from stalewise.workloads.task import Task

WORKERS = (1, 4, 16, 64)
GRADIENTS = {"digits-mlp": 1024, "mnist-cnn": 64, "char-transformer": 32}  # and two cycles at least
SEEDS = {"digits-mlp": (1, 16), "mnist-cnn": (1,), "char-transformer": (1,)}
BATCH = 32
REPEATS = 5
GOAL = 2.0  # times the plain loop, digits-mlp at 64 workers
CLOSE = 1e-3  # between final parameters, over how far they went


def study_of(kind: str, workers: int, data: str | None) -> Study:
    """Asynchronous workers with gamma(1, 4) delays."""
    return make_study(
        {
            "workload": {"kind": kind} | ({"data": data} if kind == "mnist-cnn" else {}),
            "cluster": {"workers": workers, "compute": "gamma(1, 4)"},
            "schedule": {"policy": "async", "learning_rate": 0.1 / workers, "batch_size": BATCH},
            "target": {"loss": 1e-3},
        }
    )


def order_of(study: Study, seed: int, until: float) -> list[tuple[int, int, int]]:
    """Worker, index of its batch and version read, of every gradient in the order in which they are applied."""
    cluster = VirtualCluster(study, study.server(), np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[0]))
    version, read, index, order = 0, [0] * study.active_workers, [0] * study.active_workers, []
    while cluster.next_time <= until:
        _, worker, instructions = next(cluster)
        order.append((worker, index[worker], read[worker]))
        index[worker] += 1
        for instruction in instructions:
            match instruction:
                case Step():
                    version = instruction.version
                case Start(worker=other):
                    read[other] = version
    return order


def plainly(
    study: Study, network: Network, task: Task, seed: int, start: np.ndarray, order: list[tuple[int, int, int]]
) -> np.ndarray:
    """Final parameters of the plain loop, shape (size,)."""
    model, weights = task.model, list(task.model.parameters())
    versions = [[part.clone() for part in network.parts(torch.from_numpy(start))]]
    for worker, index, read in order:
        batch = network.draw((seed, worker, index), BATCH)
        with torch.no_grad():
            for weight, value in zip(weights, versions[read], strict=True):
                weight.copy_(value)
                weight.grad = None
        loss = (
            task.loss(model(batch[0]), batch[1]) if isinstance(task.loss, torch.nn.Module) else task.loss(model, batch)
        )
        loss.backward()
        versions.append([v - study.learning_rate * w.grad for v, w in zip(versions[-1], weights, strict=True)])
    return torch.cat([value.ravel() for value in versions[-1]]).numpy()


class Telling:
    """A network whose losses are timed."""

    def __init__(self, network: Network) -> None:
        self.network, self.seconds = network, 0.0

    def __getattr__(self, name: str):
        return getattr(self.network, name)

    def loss(self, parameters: np.ndarray) -> float:
        begun = time.process_time()
        told = self.network.loss(parameters)
        self.seconds += time.process_time() - begun
        return told


def measure(kind: str, workers: int, seeds: int, data: str | None) -> tuple[float, float, float, float]:
    """Microseconds a gradient: plain, virtual time, its losses; and how far apart the answers are."""
    network, study = open_network(study_of(kind, workers, data))
    start, task = network.start(0), network._build()
    network.at_once(BATCH)
    until = max(GRADIENTS[kind] / (workers * seeds), 2.0)
    orders = [order_of(study, seed, 0.5 * np.ceil(2 * until)) for seed in range(seeds)]
    count = sum(map(len, orders))
    plain, virtual, losses, apart = [], [], [], 0.0
    for _ in range(REPEATS):
        begun = time.process_time()
        expected = [plainly(study, network, task, seed, start, order) for seed, order in enumerate(orders)]
        plain.append(time.process_time() - begun)
        telling = Telling(network)
        runs = [NetworkRun(study, telling, seed, start) for seed in range(seeds)]
        telling.seconds, begun = 0.0, time.process_time()
        advance(runs, until)
        virtual.append(time.process_time() - begun - telling.seconds)
        losses.append(telling.seconds)
        assert sum(run.server.tally.applied for run in runs) == count
        for run, end in zip(runs, expected, strict=True):
            apart = max(apart, float(np.linalg.norm(run.parameters - end) / np.linalg.norm(end - start)))
    each = 1e6 / count
    return median(plain) * each, median(virtual) * each, median(losses) * each, apart


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="folder of MNIST's four IDX files; mnist-cnn is left out without it")
    data = parser.parse_args().data
    torch.set_num_threads(1)
    wrong = False
    print(
        "us of one core a gradient: plain loop, virtual time (times as fast), telling the loss besides; answers apart"
    )
    for kind, several in SEEDS.items():
        if kind == "mnist-cnn" and data is None:
            print("mnist-cnn is left out: name the folder of MNIST's four IDX files with --data")
            continue
        for workers in WORKERS:
            for seeds in several:
                plain, virtual, losses, apart = measure(kind, workers, seeds, data)
                goal = f", goal {GOAL:g}" if (kind, workers) == ("digits-mlp", 64) else ""
                print(f"{kind:16} {workers:3} workers, {seeds:2} seeds: {plain:6.0f} {virtual:6.0f} "
                      f"({plain / virtual:.2f} times{goal}) {losses:6.0f}   {apart:.0e}", flush=True)  # fmt: skip
                wrong |= apart > CLOSE
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
