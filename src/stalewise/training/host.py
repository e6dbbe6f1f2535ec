"""What runs in a worker process: gradients, for one or more logical workers."""

import contextlib
import os
import socket
import struct
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalewise.protocol import parse_compression
from stalewise.simulation.network import gradient_norm
from stalewise.study import Study
from stalewise.training.memory import Memory
from stalewise.workloads import load_network

Vector = NDArray[np.float32]
OK, QUIET, NOT_FINITE, MISSHAPEN, WRONG_RUN = range(5)
HELLO = struct.Struct("<qq")  # run, host
WELCOME = struct.Struct("<qqq")  # size, versions, gradients
ORDER = struct.Struct("<qqqqqqq")  # run, ticket, worker, row of the version, seed, batch, order cancelled
ANSWER = struct.Struct("<qqqdd")  # run, ticket, what became of it, norm, seconds


class Order(NamedTuple):
    """A gradient to compute: the batch is named (seed, worker, batch); ``ticket`` names the order in its run.

    ``cancelled`` is the ticket of the worker's order before, if that was cancelled; else 0.
    """

    run: int
    ticket: int
    worker: int
    version: int
    seed: int
    batch: int
    cancelled: int = 0


class Answer(NamedTuple):
    """What became of an order: ``norm`` of the gradient, and how many ``seconds`` it took to compute."""

    run: int
    ticket: int
    state: int
    norm: float
    seconds: float


class Host:
    """A process that computes gradients, on a Ray worker.

    Args:
        study: Whose gradients.
        run: A number that names the run: orders of another are refused.
        device: "cpu" or "cuda".
        threads: Of PyTorch.
    """

    def __init__(self, study: Study, run: int, device: str, threads: int) -> None:
        import torch  # noqa: PLC0415  (heavy: on the worker only)

        from stalewise.workloads.compressor import Compressor  # noqa: PLC0415

        torch.set_num_threads(threads)
        schedule = study.schedule
        self._run = run
        self._network = load_network(study.workload, device)
        self._how = (study.batch_size, schedule.local_steps, study.learning_rate)
        self._trigger = schedule.trigger
        self._compressor = Compressor(parse_compression(schedule.compression), self._network.size)
        self._packed: dict[int, int] = {}  # by worker, the order whose gradient was packed last
        self._network.gradient(self._network.start(0), (0, 0, 0), study.batch_size)

    def where(self) -> tuple[str, int]:
        """The node it runs on, and its process number there, once it is warm."""
        import ray  # noqa: PLC0415

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def gradient(self, parameters: Vector, order: Order) -> tuple[Answer, Any]:
        """Compute an order whose parameters came with it; the answer, and what is sent of the gradient."""
        self._take_back(order)
        answer, gradient = self._compute(parameters, order)
        return answer, None if gradient is None else self._pack(order, gradient)

    def serve(self, path: str, host: int) -> None:
        """Compute the orders that come over the server's socket at ``path``, in shared memory, until it hangs up."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(path)
            line.sendall(HELLO.pack(self._run, host))
            memory = _welcome(line)
            with contextlib.suppress(OSError):  # the server hung up
                while (order := self._next(line)) is not None:
                    line.sendall(ANSWER.pack(*self._serve(memory, order)))

    def _serve(self, memory: Memory, order: Order) -> Answer:
        self._take_back(order)
        room = memory.gradients[order.worker]
        answer, gradient = self._compute(memory.versions[order.version], order, room)
        if gradient is not None:
            sent = self._compressor.unpack(self._pack(order, gradient))
            if not np.shares_memory(sent, room):
                room[:] = sent
        return answer

    def _pack(self, order: Order, gradient: Vector) -> Any:
        self._packed[order.worker] = order.ticket
        return self._compressor.pack(order.worker, gradient)

    def _take_back(self, order: Order) -> None:
        """A cancelled gradient leaves no trace in what its worker keeps back."""
        if order.cancelled and self._packed.get(order.worker) == order.cancelled:
            self._compressor.undo(order.worker)

    def _next(self, line: socket.socket) -> Order | None:
        received = receive(line, ORDER.size)
        return None if received is None else Order(*ORDER.unpack(received))

    def _compute(self, parameters: Vector, order: Order, room: Vector | None = None) -> tuple[Answer, Vector | None]:
        """The answer, and the gradient where it is to be sent; in ``room`` if it can be computed there."""
        if order.run != self._run:
            return Answer(order.run, order.ticket, WRONG_RUN, 0.0, 0.0), None
        if len(parameters) != self._network.size:  # the factory made another model here than at the server
            return Answer(order.run, order.ticket, MISSHAPEN, 0.0, 0.0), None
        began = time.perf_counter()
        gradient = self._network.local_gradient(parameters, (order.seed, order.worker, order.batch), *self._how, room)
        norm = gradient_norm(gradient)
        state = _state(norm, self._trigger)
        answer = Answer(order.run, order.ticket, state, norm, time.perf_counter() - began)
        return answer, gradient if state == OK else None


def _state(norm: float, trigger: float) -> int:
    if not np.isfinite(norm):
        return NOT_FINITE
    return QUIET if trigger > 0 and norm <= trigger else OK


def _welcome(line: socket.socket) -> Memory:
    """The shared memory whose descriptor the server sends."""
    message, descriptors, _, _ = socket.recv_fds(line, WELCOME.size, 1)
    return Memory(*WELCOME.unpack(message), descriptor=descriptors[0])


def receive(line: socket.socket, size: int) -> bytes | None:
    """Exactly ``size`` bytes; None if the other side hung up."""
    parts, missing = [], size
    while missing:
        try:
            part = line.recv(missing)
        except OSError:
            return None
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
