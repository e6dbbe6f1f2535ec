"""``stalewise``: exit codes, one-line errors, and the list of verbs."""

import gc
import os
import sys
import traceback
from importlib import metadata

import cyclopts

from stalewise.cli import verbs
from stalewise.cli.shared import STDIN
from stalewise.errors import InputError, MissingExtraError, TaskError

DIVERGES = 3

app = cyclopts.App(
    name="stalewise",
    help="How many workers, what staleness, what learning rate, how long, and when to stay synchronous.\n\n"
    "Start with `stalewise fit TRACE` on a log of delays, or `stalewise plan STUDY` on a study file.",
    version=metadata.version("stalewise"),
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
for verb in verbs.ALL:
    app.command(verb)


def main(argv: list[str] | None = None) -> None:
    """Run one verb and exit: 0 done, 1 a fault, 2 wrong input or a task's fault, 3 the answer is "this diverges"."""
    gc.set_threshold(100_000, 20, 100)  # compiling makes a million objects that last; looking through them costs 1 s
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one verb; its exit code."""
    try:
        diverges = app([STDIN if word == "-" else word for word in argv])
        sys.stdout.flush()
    except (cyclopts.CycloptsError, InputError, MissingExtraError) as error:
        return _complain(error, 2)
    except TaskError as error:
        if os.environ.get("STALEWISE_TRACEBACK"):
            traceback.print_exception(error)
        return _complain(f"{error}; STALEWISE_TRACEBACK=1 shows all of it", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("STALEWISE_TRACEBACK"):
            raise
        return _complain(f"{type(error).__name__}: {error} (STALEWISE_TRACEBACK=1 shows where)", 1)
    return DIVERGES if diverges is True else 0


def _complain(error: object, code: int) -> int:
    print("stalewise:", " ".join(str(error).split()), file=sys.stderr)
    return code
