"""The server as a pure state machine: event in, instructions out. No clock, no tensors, no network.

Virtual time (`stalewise.simulation`) and real time (`stalewise.training`) drive this same object; the compiled
event kernel is tested to give the same instructions, event for event.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from stalewise import checks
from stalewise.errors import InputError
from stalewise.protocol.instructions import (
    Again,
    Cancel,
    Contribution,
    Drop,
    Expire,
    Hold,
    Instruction,
    Start,
    Step,
    Train,
    Unsent,
)
from stalewise.protocol.rules import ADMIT, CANCEL, DROP, WAIT, Rules


@dataclass
class Tally:
    """What became of every gradient begun. ``computed`` is the sum of the others."""

    applied: int = 0
    dropped: int = 0
    cancelled: int = 0
    unsent: int = 0
    lost: int = 0
    in_flight: int = 0

    @property
    def computed(self) -> int:
        """Gradients begun."""
        return self.applied + self.dropped + self.cancelled + self.unsent + self.lost + self.in_flight


class Server:
    """A set of `Rules` and its state; fully asynchronous unless the rules say otherwise.

    Attributes:
        version: Steps taken so far.
        reading: For each worker at work, the version it read; oldest first.
        tally: What became of every gradient; held ones count as in flight.
    """

    def __init__(self, workers: int, rules: Rules | None = None) -> None:
        self.workers = checks.at_least("workers", workers, 1)
        self.rules = rules or Rules()
        self.version = 0
        self.reading: dict[int, int] = {}
        self.tally = Tally()
        self._held: deque[tuple[int, int]] = deque()
        self._training = False
        self._idle: dict[int, None] = {}
        self._waiting: dict[int, None] = {}
        self._clock: Counter[int] = Counter()
        self._leaving: set[int] = set()

    def begin(self, present: Iterable[int] | None = None) -> list[Instruction]:
        """Set every worker to work on the first parameters, or those that are ``present``; others may join later."""
        return self._ask(range(self.workers) if present is None else sorted(present))

    def resume(self, version: int, tally: Tally) -> None:
        """Go on from where another server of these rules was: what was in flight there is lost."""
        self.version = version
        self.tally = replace(tally, lost=tally.lost + tally.in_flight, in_flight=0)

    def finished(self, worker: int, norm: float | None = None) -> list[Instruction]:
        """``worker``'s gradient has arrived; its ``norm`` matters to a trigger alone."""
        version = self._take(worker)
        if self.is_quiet(norm):
            return self._quiet(worker, version)
        staleness = self.version - version
        bound = self.rules.max_staleness
        if bound is not None and staleness > bound and self.rules.on_stale == DROP:
            self.tally.in_flight -= 1
            self.tally.dropped += 1
            return [Drop(worker, staleness), *self._ask([worker])]
        self._held.append((worker, version))
        self._clock[worker] += 1
        if self.rules.trains:
            return [Hold(worker), *self._train(), *self._ask([worker])]
        ready = self._ready()
        if self.rules.idles or (self.rules.on_stale == WAIT and len(self._held) >= self.rules.group and not ready):
            self._idle[worker] = None
        freed = [] if worker in self._idle else [worker]
        return self._step(freed) if ready else [Hold(worker), *self._ask(freed)]

    def is_quiet(self, norm: float | None) -> bool:
        """Whether a gradient of this norm stays with its worker; no norm, no trigger."""
        return norm is not None and norm <= self.rules.trigger and self.rules.trigger > 0

    def trained(self) -> list[Instruction]:
        """The step that `Train` began is done; the next begins if enough is held by now."""
        if not self._training:
            raise InputError("no step was begun that could be done")
        self._training = False
        step = self._update(self.rules.group)
        return [step, *self._expire(), *self._train(), *self._ask([])]

    def lost(self, worker: int) -> list[Instruction]:
        """``worker`` died with its gradient; it may come back with `joined`."""
        self._take(worker)
        self.tally.in_flight -= 1
        self.tally.lost += 1
        self._clock.pop(worker, None)
        return self._step([]) if self._held and not self.rules.trains and self._ready() else self._ask([])

    def joined(self, worker: int) -> list[Instruction]:
        """A worker that was lost is back and wants work."""
        if worker in self.reading or worker in self._waiting:
            raise InputError(f"worker {worker} is at work already; only a lost worker can join")
        if worker in self._idle:
            raise InputError(f"worker {worker} waits for the others already; only a lost worker can join")
        active = [self._clock[w] for w in (*self.reading, *self._waiting)]
        self._clock[worker] = min(active or self._clock.values(), default=0)
        self._leaving.discard(worker)
        return self._ask([worker])

    def leave(self, worker: int) -> list[Instruction]:
        """``worker`` begins nothing more once its gradient is there, until it has `joined` again."""
        self._leaving.add(worker)
        self._waiting.pop(worker, None)
        return self._step([]) if self._held and not self.rules.trains and self._ready() else self._ask([])

    def stay(self, worker: int) -> list[Instruction]:
        """``worker`` takes part (again): it goes on after its gradient, or begins one if it has none."""
        if worker not in self._leaving:
            return []
        self._leaving.discard(worker)
        at_work = worker in self.reading or worker in self._waiting or worker in self._idle
        return [] if at_work else self.joined(worker)

    def _ready(self) -> bool:
        """Whether what is held makes a step."""
        if len(self._held) < self.rules.group and not (self.rules.idles and not self.reading and not self._waiting):
            return False
        if self.rules.on_stale != WAIT or self.rules.max_staleness is None or not self.reading:
            return True
        return self.version - next(iter(self.reading.values())) < self.rules.max_staleness

    def _step(self, freed: list[int]) -> list[Instruction]:
        """Take the step, stop what it makes worthless, and set to work who waited for it."""
        step = self._update(len(self._held))
        stopped = self._outdated()
        for worker in stopped:
            self._take(worker)
        self.tally.in_flight -= len(stopped)
        self.tally.cancelled += len(stopped)
        freed = [*self._idle, *freed, *stopped]
        self._idle.clear()
        if self.rules.flushes:
            freed.sort()
        return [step, *(Cancel(worker) for worker in stopped), *self._ask(freed)]

    def _update(self, count: int) -> Step:
        """A step on the ``count`` gradients held longest."""
        taken = [self._held.popleft() for _ in range(count)]
        ages = [(worker, self.version - version) for worker, version in taken]
        self.version += 1
        self.tally.in_flight -= count
        self.tally.applied += count
        return Step(self.version, tuple(Contribution(worker, age, self.rules.weight(age)) for worker, age in ages))

    def _train(self) -> list[Instruction]:
        if self._training or len(self._held) < self.rules.group:
            return []
        self._training = True
        return [Train()]

    def _expire(self) -> list[Instruction]:
        """Drop what is held and too old by now."""
        bound = self.rules.max_staleness
        if bound is None or self.rules.on_stale != DROP:
            return []
        old = [(worker, self.version - read) for worker, read in self._held if self.version - read > bound]
        self._held = deque((worker, read) for worker, read in self._held if self.version - read <= bound)
        self.tally.in_flight -= len(old)
        self.tally.dropped += len(old)
        return [Expire(worker, age) for worker, age in old]

    def _outdated(self) -> list[int]:
        """Workers whose gradient in flight a step has made worthless, the oldest first."""
        if self.rules.flushes:
            return list(self.reading)
        if self.rules.on_stale != CANCEL or self.rules.max_staleness is None:
            return []
        oldest = self.version - self.rules.max_staleness
        return [worker for worker, version in self.reading.items() if version < oldest]

    def _quiet(self, worker: int, version: int) -> list[Instruction]:
        self.tally.in_flight -= 1
        self.tally.unsent += 1
        if self.rules.on_quiet == "refresh":
            return [Unsent(worker), *self._ask([worker])]
        self.reading[worker] = version
        self.tally.in_flight += 1
        return [Unsent(worker), Again(worker)]

    def _ask(self, workers) -> list[Instruction]:
        """Start these, and whoever waits for leave to start, as far as the rules allow; first come, first served."""
        self._waiting.update(dict.fromkeys(worker for worker in workers if worker not in self._leaving))
        admits = self.rules.max_staleness is not None and (self.rules.on_stale == ADMIT or self.rules.trains)
        if self.rules.lead is None and not admits:
            started = [self._start(worker) for worker in self._waiting]
            self._waiting.clear()
            return [*started]
        slowest = min((self._clock[w] for w in (*self.reading, *self._waiting)), default=0)
        started = []
        for worker in list(self._waiting):
            if self._may_start(worker, slowest):
                del self._waiting[worker]
                started.append(self._start(worker))
        return started

    def _may_start(self, worker: int, slowest: int) -> bool:
        if self.rules.lead is not None:
            return self._clock[worker] - slowest <= self.rules.lead
        in_flight = self.reading.values() if self.rules.on_stale == ADMIT else ()
        oldest = next(iter(in_flight), self.version)
        last = self.version + (len(self._held) + len(self.reading)) // self.rules.group
        return last <= oldest + (self.rules.max_staleness or 0)

    def _take(self, worker: int) -> int:
        if worker not in self.reading:
            raise InputError(f"worker {worker} has no gradient in flight")
        return self.reading.pop(worker)

    def _start(self, worker: int) -> Start:
        self.reading[worker] = self.version
        self.tally.in_flight += 1
        return Start(worker, self.version)
