"""How orders reach the worker processes, and their answers come back: shared memory on the server's node, else Ray."""

import contextlib
import selectors
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from stalewise.training.host import ANSWER, HELLO, ORDER, WELCOME, Answer, Order, receive
from stalewise.training.memory import Memory

BACKLOG = 128


class Arrival:
    """Something that came from a host: an answer, that it is there, or (neither) that it is gone.

    ``payload`` is what was sent of the gradient, where it is not in shared memory; ``error`` is why it is gone, where
    that is known.
    """

    def __init__(
        self, host: int, answer: Answer | None = None, payload: Any = None, *, here: bool = False,
        error: Exception | None = None,
    ) -> None:  # fmt: skip
        self.host, self.answer, self.payload, self.here, self.error = host, answer, payload, here, error


class Lines:
    """The server's ends of all lines.

    A Unix socket carries orders and answers of fixed length to the hosts of this node; vectors lie in `Memory`. For the
    others a Ray call does, whose result wakes the server. The socket lives in a folder of its own that only its owner
    may enter.
    """

    def __init__(self, run: int, memory: Memory) -> None:
        self._run, self._memory = run, memory
        self._folder = tempfile.mkdtemp(prefix="stalewise-")
        self.path = str(Path(self._folder) / "line")
        self._entrance = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._entrance.bind(self.path)
        self._entrance.listen(BACKLOG)
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._entrance, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._lines: dict[int, socket.socket] = {}
        self._called: deque[Arrival] = deque()

    def send(self, host: int, order: Order) -> bool:
        """Send an order over the host's socket; whether that could be done."""
        line = self._lines.get(host)
        if line is None:
            return False
        try:
            line.sendall(ORDER.pack(*order))
        except OSError:
            return False
        return True

    def call(self, host: int, reference: Any) -> None:
        """Await a Ray call that computes an order."""

        def done(future: Future) -> None:
            try:
                answer, payload = future.result()
                self._called.append(Arrival(host, Answer(*answer), payload))
            except Exception as error:
                self._called.append(Arrival(host, error=error))
            self._ring()

        reference.future().add_done_callback(done)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: the bell rings already; closed: nobody listens
            self._rope.send(b"!")

    def arrivals(self, timeout: float) -> Iterator[Arrival]:
        """What has come, after ``timeout`` seconds at the latest."""
        for key, _ in self._selector.select(max(timeout, 0.0)):
            if key.fileobj is self._entrance:
                yield from self._admit()
            elif key.fileobj is self._bell:
                while self._rung():
                    pass
            else:
                yield self._read(key.data)
        while self._called:
            yield self._called.popleft()

    def _rung(self) -> bool:
        try:
            return bool(self._bell.recv(4096))
        except BlockingIOError:
            return False

    def _admit(self) -> Iterator[Arrival]:
        """Let a host in, if it belongs to this run, and hand it the shared memory."""
        line, _ = self._entrance.accept()
        hello = receive(line, HELLO.size)
        run, host = HELLO.unpack(hello) if hello else (0, 0)
        if run != self._run:
            line.close()
            return
        self.hang_up(host)
        try:
            socket.send_fds(line, [WELCOME.pack(*self._memory.shape)], [self._memory.descriptor])
        except OSError:  # it died on the threshold
            line.close()
            return
        self._lines[host] = line
        self._selector.register(line, selectors.EVENT_READ, host)
        yield Arrival(host, here=True)

    def _read(self, host: int) -> Arrival:
        received = receive(self._lines[host], ANSWER.size)
        if received is None:
            self.hang_up(host)
            return Arrival(host)
        return Arrival(host, Answer(*ANSWER.unpack(received)))

    def hang_up(self, host: int) -> None:
        """Close a host's socket, if it has one."""
        line = self._lines.pop(host, None)
        if line is not None:
            self._selector.unregister(line)
            line.close()

    def close(self) -> None:
        """Close all of them."""
        for host in list(self._lines):
            self.hang_up(host)
        self._selector.close()
        for end in (self._entrance, self._bell, self._rope):
            end.close()
        shutil.rmtree(self._folder, ignore_errors=True)
