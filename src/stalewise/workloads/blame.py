"""Whose an exception is: that of a user's own task is told with the place in their code."""

import contextlib
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from stalewise.errors import InputError, MissingExtraError, TaskError
from stalewise.study import BUILT_IN

OURS = str(Path(__file__).parents[1])
OTHERS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_CALLED = re.compile(r"\Wtorch\W(nn\Wmodules|autograd|_tensor|utils\Wdata|_functorch)\b")  # by a task
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')  # in the text of what a loader's process has raised
_PROCESS = "Original Traceback"


@contextlib.contextmanager
def blaming(kind: str, home: str | None) -> Iterator[None]:
    """Make what a user's own task raises a `TaskError`; all else passes as it is.

    A task's is what comes out of its own code, or out of PyTorch in calling its model, loss or data.

    Args:
        kind: The workload's.
        home: File of the module that holds the factory.
    """
    try:
        yield
    except (InputError, MissingExtraError, TaskError):
        raise
    except Exception as error:
        raised = None if kind in BUILT_IN else raised_by_task(error, home)
        if raised is None:
            raise
        raise TaskError(kind, raised) from error


def raised_by_task(error: Exception, home: str | None) -> str | None:
    """Type, text and place of what a task raised; None if it is not the task's."""
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    last = max((i for i, (file, _) in enumerate(frames) if file.startswith(OURS)), default=-1)
    frames, text = frames[last + 1 :], str(error)
    own = [frame for frame in frames if _is_own(frame[0], home)]
    if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename, home):
        own, text = [(error.filename, error.lineno or 0)], error.msg
    elif _PROCESS in text:
        own = [(file, int(line)) for file, line in _PLACE.findall(text) if _is_own(file, home)]
        text = text.strip().splitlines()[-1].removeprefix(f"{type(error).__name__}: ")
    elif not own and not any(_CALLED.search(file) for file, _ in frames):
        return None
    text = " ".join(text.split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{what} ({_short(own[-1][0])}:{own[-1][1]})" if own else what


def _is_own(file: str, home: str | None) -> bool:
    if home is not None and file == home:
        return True
    return Path(file).is_absolute() and not file.startswith((OURS, *OTHERS)) and "site-packages" not in file


def _short(file: str) -> str:
    """Relative to where we are, if it lies below."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
