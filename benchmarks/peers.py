"""The same job in general simulators: N processes, exponential delays of mean 1 s, staleness of every gradient."""

import time
from itertools import repeat

import numpy as np

try:
    import simpy
except ModuleNotFoundError:
    simpy = None
try:
    import cimba
    from cimba import inputs
except ModuleNotFoundError:
    cimba = None


def simpy_run(workers: int, events: int, seed: int) -> tuple[float, int, float] | None:
    """CPU seconds, gradients, and variance of their staleness; None if SimPy is not installed."""
    if simpy is None:
        return None
    environment = simpy.Environment()
    draws = np.random.default_rng(seed).standard_exponential
    total = [0, 0, 0]  # gradients, sum of staleness, sum of squares

    def worker():
        for _ in repeat(None):
            read = total[0]
            yield environment.timeout(draws())
            age = total[0] - read
            total[0] += 1
            total[1] += age
            total[2] += age * age

    for _ in range(workers):
        environment.process(worker())
    begun = time.process_time()
    environment.run(until=events / workers)
    return time.process_time() - begun, total[0], total[2] / total[0] - (total[1] / total[0]) ** 2


def cimba_run(workers: int, events: int, seed: int) -> tuple[float, int, float] | None:
    """The same in cimba, a C library, its model compiled by its Python package; None if that is not installed."""
    if cimba is None:
        return None

    class Async(cimba.Model):
        delay: cimba.Input[float] = inputs.dist.exponential(mean=1.0)
        version: float = 0.0
        total: float = 0.0
        squares: float = 0.0
        steps: cimba.Output[float]
        variance: cimba.Output[float]

        @cimba.process(copies=workers)
        def worker(self):
            while True:
                read = self.version
                cimba.hold(self.delay.next())
                age = self.version - read
                self.version += 1.0
                self.total += age
                self.squares += age * age

        @cimba.on_end
        def measure(self):
            self.steps = self.version
            self.variance = self.squares / self.version - (self.total / self.version) ** 2

    model = Async()
    for seconds in (1e-3, events / workers):  # the first one compiles
        window = cimba.Window(warmup=0.0, duration=seconds)
        begun = time.process_time()
        result = cimba.Experiment(model, replications=1, window=window, seed=seed).run()[model]
        spent = time.process_time() - begun
    steps, variance = (float(np.ravel(np.asarray(one))[0]) for one in (result.steps, result.variance))
    return spent, round(steps), variance
