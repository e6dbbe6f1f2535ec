"""A training server: push and pull per second, beside what the machine and its peers can do, in the same run.

Four workers, gradients that cost nothing (an array that is there), 0.1, 4 and 40 MB of parameters:

* ours: `stalewise.training` whole: protocol, tallies, staleness, finite checks, optimizer;
* (a) the parameter-server pattern of Ray's documentation: an actor that holds the parameters, workers that get them by
  value and return gradients, `ray.wait` in the driver;
* (b) a bare loop on shared memory: each process copies the parameters and adds its gradient under a lock, no server
  (torch.multiprocessing);
* (c) Ray control messages with no payload.

Then mnist-cnn with real gradients (``--data`` names the folder of MNIST's IDX files) beside Hogwild with the same
batch. Answers are checked: parameters are minus the learning rate times the gradients applied. Medians of repeats.

Run by `make bench-train`; about 5 minutes.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.multiprocessing as mp

from stalewise.hands.cluster import local_ray
from stalewise.study import make_study
from stalewise.training.engine import trajectory_of
from stalewise.training.fleet import Fleet
from stalewise.training.host import Host
from stalewise.training.run import Run
from stalewise.training.watch import Expectation, Watch

WORKERS = 4
RATE = 2.0**-20
SIZES = {"0.1 MB": 25_000, "4 MB": 1_000_000, "40 MB": 10_000_000}
CNN_BATCH = 32


class Ready:
    """A network whose gradient is there already, ones; reading the parameters is one copy."""

    batch_size = None

    def __init__(self, size):
        self.size = size
        self._here, self._gradient = np.zeros(size, np.float32), np.ones(size, np.float32)

    def start(self, seed):
        return np.zeros(self.size, np.float32)

    def loss(self, parameters):
        return 1.0

    def score(self, parameters):
        return None

    def local_gradient(self, parameters, batch, batch_size, steps, learning_rate, room):
        self._here[:] = parameters
        if room[0] != 1.0:
            room[:] = self._gradient  # from then on it is there
        return room


class ReadyHost(Host):
    """A worker process with such a network."""

    def __init__(self, study, run, device, threads):
        from stalewise.protocol import parse_compression
        from stalewise.workloads.compressor import Compressor

        torch.set_num_threads(1)
        self._run, self._network = run, Ready(study.workload.options["size"])
        self._how, self._trigger = (1, 1, RATE), 0.0
        self._compressor, self._packed = Compressor(parse_compression("none"), self._network.size), {}


def study_of(size, time_limit):
    return make_study(
        {
            "workload": {"kind": "digits-mlp", "options": {"size": size}},
            "cluster": {"workers": WORKERS, "compute": "constant(0.01)"},
            "schedule": {"policy": "async", "learning_rate": RATE},
            "target": {"loss": 1e-9, "time_limit": time_limit},
        }
    )


def ours(ray, size, seconds):
    study, network = study_of(size, seconds), Ready(size)
    fleet = Fleet(ray, study, size, 0, real=True, host=ReadyHost)
    watch = Watch(study, Expectation())
    run = Run(
        study, network, fleet, 0, inject=False, writer=None, watch=watch, sink=lambda *_: None, warn=print
    )  # fmt: skip
    before = time.process_time()
    run.until_done(seconds, None, None)
    run.close()
    busy = time.process_time() - before
    told = trajectory_of(run)
    expected = -RATE * told.gradients.applied
    assert np.all(run.parameters == np.float32(expected)), (run.parameters[:3], expected)
    assert abs(told.staleness.mean - (WORKERS - 1)) < 0.01 + 10 / told.gradients.applied, told.staleness.mean
    fleet.close()
    return told.gradients.applied / told.time[-1], busy / told.gradients.applied


def ray_pattern(ray, size, seconds):
    @ray.remote(num_cpus=0)
    class ParameterServer:
        def __init__(self):
            self.parameters, self.applied = np.zeros(size, np.float32), 0

        def apply_gradients(self, gradient):
            self.parameters = self.parameters - np.float32(RATE) * gradient
            self.applied += 1
            return self.parameters

        def result(self):
            return float(self.parameters[0]), self.applied

    @ray.remote(num_cpus=0)
    class Worker:
        def __init__(self):
            self.here, self.gradient = np.zeros(size, np.float32), np.ones(size, np.float32)

        def compute_gradients(self, parameters):
            self.here[:] = parameters
            return self.gradient

    server, workers = ParameterServer.remote(), [Worker.remote() for _ in range(WORKERS)]
    first = np.zeros(size, np.float32)
    ray.get([worker.compute_gradients.remote(first) for worker in workers])
    began, done = time.monotonic(), 0
    pending = {worker.compute_gradients.remote(first): worker for worker in workers}
    while time.monotonic() - began < seconds:
        (ready,), _ = ray.wait(list(pending))
        worker = pending.pop(ready)
        parameters = server.apply_gradients.remote(ready)
        pending[worker.compute_gradients.remote(parameters)] = worker
        done += 1
    took = time.monotonic() - began
    value, applied = ray.get(server.result.remote())
    assert applied == done and value == np.float32(-RATE * applied)
    for actor in (server, *workers):
        ray.kill(actor)
    return done / took


def _bare(parameters, lock, counts, rank, stop, ready):
    torch.set_num_threads(1)
    here, gradient = torch.zeros_like(parameters), torch.ones_like(parameters)
    ready.wait()
    while not stop.is_set():
        here.copy_(parameters)
        with lock:
            parameters.add_(gradient, alpha=-RATE)
        counts[rank] += 1


def _race(context, jobs, counts, stop, ready, seconds):
    """Start processes together, let them run, stop them; updates made in that time."""
    processes = [context.Process(target=target, args=arguments) for target, arguments in jobs]
    for process in processes:
        process.start()
    ready.wait()
    time.sleep(seconds)
    done = int(counts.sum())
    stop.set()
    for process in processes:
        process.join()
    return done


def bare_loop(size, seconds):
    context = mp.get_context("spawn")
    parameters = torch.zeros(size).share_memory_()
    counts = torch.zeros(WORKERS, dtype=torch.int64).share_memory_()
    lock, stop, ready = context.Lock(), context.Event(), context.Barrier(WORKERS + 1)
    arguments = (parameters, lock, counts)
    jobs = [(_bare, (*arguments, rank, stop, ready)) for rank in range(WORKERS)]
    done = _race(context, jobs, counts, stop, ready, seconds)
    assert float(parameters[0]) == np.float32(-RATE * int(counts.sum()))
    return done / seconds


def control(ray, seconds):
    @ray.remote(num_cpus=0)
    class Echo:
        def ping(self):
            return None

    actors = [Echo.remote() for _ in range(WORKERS)]
    ray.get([actor.ping.remote() for actor in actors])
    pending, done, began = {actor.ping.remote(): actor for actor in actors}, 0, time.monotonic()
    while time.monotonic() - began < seconds:
        (ready,), _ = ray.wait(list(pending))
        actor = pending.pop(ready)
        pending[actor.ping.remote()] = actor
        done += 1
    for actor in actors:
        ray.kill(actor)
    return done / (time.monotonic() - began)


def cnn_study(data, seconds):
    return make_study(
        {
            "workload": {"kind": "mnist-cnn", "data": data},
            "cluster": {"workers": WORKERS, "compute": "constant(0.01)"},
            "schedule": {"policy": "async", "learning_rate": 0.01, "batch_size": CNN_BATCH},
            "target": {"loss": 1e-9, "time_limit": seconds},
        }
    )


def ours_cnn(data, seconds):
    from stalewise.training import train

    told = train(cnn_study(data, seconds), compute="real")
    return told.gradients.applied / told.time[-1], told.loss[-1]


def _hogwild(parameters, counts, rank, stop, ready, data):
    from stalewise.workloads import load_network

    torch.set_num_threads(1)
    network = load_network(cnn_study(data, 1.0).workload)
    network.gradient(network.start(0), (0, 0, 0), CNN_BATCH)
    ready.wait()
    while not stop.is_set():
        gradient, _ = network.gradient(parameters.numpy(), (0, rank, int(counts[rank])), CNN_BATCH)
        parameters.add_(torch.from_numpy(gradient), alpha=-0.01)
        counts[rank] += 1


def hogwild_cnn(data, seconds):
    from stalewise.workloads import load_network

    context = mp.get_context("spawn")
    network = load_network(cnn_study(data, 1.0).workload)
    parameters = torch.from_numpy(network.start(0)).share_memory_()
    counts = torch.zeros(WORKERS, dtype=torch.int64).share_memory_()
    stop, ready = context.Event(), context.Barrier(WORKERS + 1)
    arguments = (parameters, counts)
    jobs = [(_hogwild, (*arguments, rank, stop, ready, data)) for rank in range(WORKERS)]
    done = _race(context, jobs, counts, stop, ready, seconds)
    return done / seconds, network.loss(parameters.numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of MNIST's IDX files; without it mnist-cnn is left out")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    print(f"updates per second, {WORKERS} workers; median of {options.repeats}, interleaved")
    print(f"{'':<8} {'ours':>9} {'(a) Ray pattern':>16} {'(b) bare loop':>14} {'(c) control':>12}"
          f" {'ours/(a)':>9} {'ours/(b)':>9} {'server, us an update':>21}")  # fmt: skip
    for name in options.sizes:
        rows = []
        for _ in range(options.repeats):
            with local_ray() as ray:
                rate, busy = ours(ray, SIZES[name], options.seconds)
                pattern, messages = ray_pattern(ray, SIZES[name], options.seconds), control(ray, options.seconds)
            rows.append((rate, pattern, bare_loop(SIZES[name], options.seconds), messages, 1e6 * busy))
        rate, pattern, bare, messages, busy = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<8} {rate:9.0f} {pattern:16.0f} {bare:14.0f} {messages:12.0f}"
              f" {rate / pattern:9.2f} {rate / bare:9.2f} {busy:21.0f}")  # fmt: skip
    if options.data is None:
        print("mnist-cnn is left out: --data names the folder of MNIST's IDX files")
        return
    pairs = [
        (*ours_cnn(options.data, 4 * options.seconds), *hogwild_cnn(options.data, 4 * options.seconds))
        for _ in range(options.repeats)
    ]
    rate, loss, other, other_loss = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"mnist-cnn, batch {CNN_BATCH}, real gradients: ours {rate:.0f}/s (loss {loss:.3f}), Hogwild {other:.0f}/s "
          f"(loss {other_loss:.3f}): {rate / other:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
