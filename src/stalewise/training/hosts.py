"""The worker processes of a run: started, found again after they died, killed when they hang."""

import math
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stalewise.errors import InputError, NotConvergedError, TaskError
from stalewise.study import Study
from stalewise.training.host import Host
from stalewise.training.lines import Lines

LOOK = 0.2  # how often hosts that are not there are looked for [s]
REST = 0.5  # a process that died is left alone so long [s]
MOST_DEATHS = 5  # in a row without one gradient
_TASK = re.compile(r"TaskError: workload\.kind: (?P<kind>\S+) raised (?P<raised>.*)")


class Place(NamedTuple):
    """A process to be: the workers it plays and where it computes."""

    workers: tuple[int, ...]
    device: str


def places_of(study: Study, *, real: bool, processors: int) -> list[Place]:
    """Processes of a run: one a worker where delays are real, else as many as there are processors for each device."""
    places = []
    for device, workers in study.devices():
        count = len(workers) if real else min(len(workers), processors)
        places += [Place(tuple(workers[i::count]), device) for i in range(count)]
    return places


@dataclass
class Seat:
    """One process as the server sees it."""

    place: Place
    actor: Any
    asked: Any = None  # reference of the call that says where it is
    look_at: float = 0.0
    up: bool = False
    remote: bool = False
    serving: bool = False
    served: Any = None  # reference of the call that serves the line, which ends when the process or its task fails
    deaths: int = 0
    process: int | None = None  # its number on its node
    tickets: dict[int, float] = field(default_factory=dict)  # orders it has, and when each was sent


class Hosts:
    """All processes of a run.

    Args:
        ray: The module, initialised.
        study: What is trained.
        run: The number of the run.
        lines: How they are reached.
        real: Whether gradients take as long as they take.
        joined: Whether Ray is a cluster that others use: processes then ask for a processor each.
        host: What runs in them.

    Attributes:
        seats: The processes.
        of: Which of them plays each worker.
        trouble: What the task raised last in one of them; blank if nothing.
    """

    def __init__(
        self, ray: Any, study: Study, run: int, lines: Lines, *, real: bool, joined: bool, host: type[Host] = Host
    ) -> None:
        self._ray, self._lines = ray, lines
        self._here = ray.get_runtime_context().get_node_id()
        cores = os.cpu_count() or 1
        processors = int(ray.cluster_resources().get("CPU", 1)) if joined else cores
        places = places_of(study, real=real, processors=max(processors, 1))
        threads = max(1, processors // len(places)) if real else 1
        remote = ray.remote(host)
        self.seats: list[Seat] = []
        self.trouble, self._by_task, self._kind = "", False, study.workload.kind
        share = gpu_share(sum(place.device != "cpu" for place in places), ray.cluster_resources().get("GPU", 0.0))
        for place in places:
            options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0, "num_cpus": int(joined)}
            if joined:
                options["scheduling_strategy"] = "SPREAD"
            if place.device != "cpu":
                options["num_gpus"] = share
                if share == 0.0:
                    raise InputError(f"cluster.device: no GPU for {place.device!r}; Ray sees none")
            actor = remote.options(**options).remote(study, run, place.device, threads)
            self.seats.append(Seat(place, actor, asked=actor.where.remote()))
        self.of = {worker: number for number, seat in enumerate(self.seats) for worker in seat.place.workers}

    def up(self) -> int:
        """How many are there."""
        return sum(seat.up for seat in self.seats)

    def look(self) -> list[int]:
        """Look for those that are not there; the numbers of those that have come, over Ray."""
        now, come = time.monotonic(), []
        for number, seat in enumerate(self.seats):
            if seat.up or now < seat.look_at:
                continue
            seat.look_at = now + LOOK
            if seat.served is not None and self._failed(seat) and seat.serving:
                self.died(number)  # before it was on its line
            if seat.serving:
                continue
            if seat.asked is None:
                seat.asked = seat.actor.where.remote()
            if not self._ray.wait([seat.asked], timeout=0)[0]:
                continue
            if self._found(number, seat):
                come.append(number)
        return come

    def _found(self, number: int, seat: Seat) -> bool:
        """A host has said where it is, or that it cannot be; whether it is up, over Ray."""
        asked, seat.asked = seat.asked, None
        try:
            node, seat.process = self._ray.get(asked)
        except self._ray.exceptions.RayError as error:
            self.died(number, error)
            return False
        if node == self._here:
            seat.serving = True
            seat.served = seat.actor.serve.remote(self._lines.path, number)
            return False
        seat.up = seat.remote = True
        return True

    def arrived(self, number: int) -> None:
        """A host of this node is on its line."""
        seat = self.seats[number]
        seat.up, seat.remote = True, False

    def died(self, number: int, error: Exception | None = None) -> list[int]:
        """A host is gone, or not there yet; the orders it had.

        Raises:
            NotConvergedError: It cannot be made, or keeps dying without computing anything.
            TaskError: So, for what the task raises.
        """
        seat = self.seats[number]
        seat.deaths += seat.up or seat.serving
        seat.up = seat.serving = seat.remote = False
        seat.asked, seat.look_at = None, time.monotonic() + REST
        if error is not None and "creation task" in str(error):
            said = _last_line(error)
            if found := _TASK.search(said):
                raise TaskError(found["kind"], f"{found['raised']} in worker process {number}, which cannot start")
            raise NotConvergedError(f"worker process {number} cannot start: {said}")
        if error is not None and isinstance(error, self._ray.exceptions.RayTaskError):
            self._remember(error)
        if seat.deaths > MOST_DEATHS:
            if seat.served is not None:
                self._failed(seat, wait=1.0)
            ended = f"worker process {number} died {seat.deaths} times without computing a gradient"
            if self._by_task:
                raise TaskError(self._kind, f"{self.trouble}; {ended}")
            raise NotConvergedError(f"{ended}{self.trouble and f'; the task raised {self.trouble}'}")
        lost, seat.tickets = list(seat.tickets), {}
        return lost

    def _failed(self, seat: Seat, wait: float = 0.0) -> bool:
        """Whether the call that serves a line has ended; if the task ended it, what it raised is remembered."""
        if not self._ray.wait([seat.served], timeout=wait)[0]:
            return False
        served, seat.served = seat.served, None
        try:
            self._ray.get(served)
        except self._ray.exceptions.RayTaskError as error:
            self._remember(error)
        except self._ray.exceptions.RayError:  # the process is gone
            pass
        return True

    def _remember(self, error: Exception) -> None:
        """What was raised in a process, and whether by the user's own task."""
        self.trouble, self._by_task = _last_line(error), isinstance(getattr(error, "cause", None), TaskError)

    def hung(self, patience: float) -> list[int]:
        """Hosts whose oldest order is more than ``patience`` seconds old."""
        now = time.monotonic()
        late = (n for n, seat in enumerate(self.seats) if seat.tickets and seat.up)
        return [n for n in late if now - next(iter(self.seats[n].tickets.values())) > patience]

    def kill(self, number: int) -> None:
        """End a process; Ray starts it again."""
        self._ray.kill(self.seats[number].actor, no_restart=False)

    def close(self) -> None:
        """End all of them."""
        for seat in self.seats:
            self._ray.kill(seat.actor)


def gpu_share(processes: int, gpus: float) -> float:
    """What each process asks of a GPU so that all find a place: no GPU holds more than its share of them; 0 if none."""
    return 1.0 / math.ceil(max(processes, 1) / int(gpus)) if gpus >= 1.0 else 0.0


def _last_line(error: Exception) -> str:
    """What was raised, in one line: the cause where Ray has it, else the last line of its traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, TaskError):
        return cause.raised
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
