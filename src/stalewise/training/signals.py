"""Ctrl-C and SIGTERM between two steps, never within one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
    """Have signals that stop wait for the moments at which the function that is given is called.

    There the handler that was set before does what it does, such as raise KeyboardInterrupt. A second signal is not
    held. Signals without a handler in Python end the process as ever; outside the main thread nothing is held.
    """
    handlers: dict[int, Callable[[int, Any], Any]] = {}
    waiting: list[int] = []

    def hold(number: int, frame: Any) -> None:
        if waiting:
            handlers[number](number, frame)
        waiting.append(number)

    def release() -> None:
        if waiting:
            number = waiting[0]
            waiting.clear()
            handlers[number](number, None)

    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, hold)
    try:
        yield release
        release()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
