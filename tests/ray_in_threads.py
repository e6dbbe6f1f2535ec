"""As much of Ray as a fleet needs, its actors threads of this process: what goes wrong can be chosen."""

import threading
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from types import SimpleNamespace


class RayError(Exception):
    """Whatever becomes of a call."""


class RayTaskError(RayError):
    """The code that was called raised."""


exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)


class Method:
    """A method that runs in a thread of its own."""

    def __init__(self, function):
        self._function = function

    def remote(self, *arguments):
        """Call it; a future is the reference."""
        future = Future()

        def call():
            try:
                future.set_result(self._function(*arguments))
            except Exception as error:
                failed = RayTaskError(f"traceback\n{type(error).__name__}: {error}")
                failed.cause = error
                future.set_exception(failed)

        threading.Thread(target=call, daemon=True).start()
        return future


def remote(kind):
    """A class as actors of it are made."""

    def make(*arguments):
        host = kind(*arguments)
        return SimpleNamespace(where=Method(lambda: ("here", 0)), serve=Method(host.serve))

    return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=make))


def wait(references, timeout):
    """Which of them are done."""
    done, others = wait_for(references, timeout)
    return list(done), list(others)


def get(reference):
    """What came of it."""
    return reference.result()


def kill(actor, no_restart=True):
    """Threads cannot be killed; they end when their line does."""


def cluster_resources():
    """Two processors."""
    return {"CPU": 2.0}


def get_runtime_context():
    """One node."""
    return SimpleNamespace(get_node_id=lambda: "here")
