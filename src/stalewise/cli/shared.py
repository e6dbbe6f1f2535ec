"""What every verb shares: its options, reading a study, progress, writing into a folder, printing."""

import contextlib
import filecmp
import itertools
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stalewise.errors import InputError
from stalewise.study import Study, load_study, parse_study
from stalewise.trajectory import (
    Trajectory,
    load_json,
    load_trajectory,
    parse_trajectory,
    to_json,
    write_atomically,
)

STDIN = "<standard input>"  # what a lone - becomes: Cyclopts takes a dash for an option

MOST_SEED = 1 << 63  # PyTorch takes no more

TRACE = "trace.csv"  # what `train` writes; a copied trace gets another name

Json = Annotated[bool, cyclopts.Parameter(name="--json", negative="", help="Print one JSON document and nothing else.")]
Set = Annotated[
    list[str] | None,
    cyclopts.Parameter(name="--set", help="Override a field: --set schedule.learning_rate=0.1 (repeatable)."),
]
Seed = Annotated[
    int,
    cyclopts.Parameter(
        name="--seed", help="Root of all random numbers.", validator=cyclopts.validators.Number(gte=0, lt=MOST_SEED)
    ),
]
Out = Annotated[
    Path | None, cyclopts.Parameter(name="--out", help="Folder to write the answer into, for `stalewise report`.")
]


def read_study(path: str, overrides: list[str] | None) -> Study:
    """A study from a file, or from standard input for ``-``."""
    if path == STDIN:
        return parse_study(sys.stdin.read(), overrides=overrides or [], source="standard input")
    return load_study(path, overrides=overrides or [])


def read_trajectory(path: str) -> Trajectory:
    """A trajectory from a file, or from standard input for ``-``."""
    if path == STDIN:
        return parse_trajectory(sys.stdin.read(), source="standard input")
    return load_trajectory(path)


def read_expectation(path: Path) -> Trajectory:
    """What `predict` said, from its answer or from a plan's."""
    content = load_json(path, "--expect")
    if isinstance(content, dict) and "predicted" in content:
        content = content["predicted"]
    return parse_trajectory(to_json(content), source=path.name)


def warn(message: str) -> None:
    """Tell of something while a verb goes on."""
    print(f"stalewise: warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def stopped_by_signals(out: Path | None) -> Iterator[None]:
    """SIGTERM is like Ctrl-C: what is open is closed; then it is said how to go on."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print(f"stalewise: stopped; {_how_to_go_on(out)}", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _how_to_go_on(out: Path | None) -> str:
    from stalewise.training.checkpoint import NAME  # noqa: PLC0415  (imported by then)

    if out is None:
        return "without --out nothing was kept"
    return f"go on with --out {out} --resume" if (out / NAME).exists() else "it had not begun, there is no checkpoint"


@contextlib.contextmanager
def trace_file(path: str) -> Iterator[Path]:
    """A trace file's path; standard input for ``-``."""
    if path != STDIN:
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "standard input"
        copy.write_text(sys.stdin.read(), encoding="utf-8")
        yield copy


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """A bar with time left on standard error, silent where that is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share, message: bar.update(task, completed=share, description=f"{title}: {message}")


def write_answer(folder: Path | None, files: dict[str, str]) -> None:
    """Write the files of an answer into ``folder``, each whole or not at all."""
    if folder is None:
        return
    make_folder(folder)
    for name, text in files.items():
        write_atomically(folder / name, text)


def check_folder(folder: Path | None) -> None:
    """Refuse a dash in a folder's place."""
    if str(folder) == STDIN:
        raise InputError("--out: needs a folder, got '-'")


def make_folder(folder: Path) -> None:
    """Create a folder; an error if that cannot be."""
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot use {str(folder)!r} as a folder: {error.strerror}") from None


def study_toml(study: Study, folder: Path) -> str:
    """The study as TOML that works from ``folder``: trace files it names are copied there, over no other file."""
    sources, study = study.cluster.sources, study.with_places()
    if not sources:
        return study.to_toml()
    make_folder(folder)
    return study.with_sources({name: _copy(path, folder) for name, path in sources.items()}, folder).to_toml()


def _copy(source: Path, folder: Path) -> str:
    """Copy a file into a folder, under its own name or the first of name-2, name-3, ... that is free; the name."""
    for number in itertools.count(1):
        copy = folder / (source.name if number == 1 else f"{source.stem}-{number}{source.suffix}")
        if copy.is_file() and filecmp.cmp(source, copy, shallow=False) and copy.name != TRACE:
            return copy.name
        if not copy.exists() and copy.name != TRACE:
            temporary = copy.with_name(f".{copy.name}.partial")
            shutil.copyfile(source, temporary)
            temporary.replace(copy)
            return copy.name
    raise AssertionError("unreachable")


def say(json: bool, answer: Any, lines: list[str]) -> None:
    """Print an answer: as JSON, or as lines."""
    print(to_json(answer) if json else "\n".join(lines))
