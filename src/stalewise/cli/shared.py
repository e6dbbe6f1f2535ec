"""What every verb shares: its options, reading a study, progress, writing into a folder, printing."""

import contextlib
import shutil
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
from stalewise.trajectory import to_json, write_atomically

STDIN = "<standard input>"  # what a lone - becomes: Cyclopts takes a dash for an option

Json = Annotated[bool, cyclopts.Parameter(name="--json", negative="", help="Print one JSON document and nothing else.")]
Set = Annotated[
    list[str] | None,
    cyclopts.Parameter(name="--set", help="Override a field: --set schedule.learning_rate=0.1 (repeatable)."),
]
Seed = Annotated[int, cyclopts.Parameter(name="--seed", help="Root of all random numbers.")]
Out = Annotated[
    Path | None, cyclopts.Parameter(name="--out", help="Folder to write the answer into, for `stalewise report`.")
]


def read_study(path: str, overrides: list[str] | None) -> Study:
    """A study from a file, or from standard input for ``-``."""
    if path == STDIN:
        return parse_study(sys.stdin.read(), overrides=overrides or [], source="standard input")
    return load_study(path, overrides=overrides or [])


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


def make_folder(folder: Path) -> None:
    """Create a folder; an error if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: cannot use {str(folder)!r} as a folder: {error.strerror}") from None


def study_toml(study: Study, folder: Path | None) -> str:
    """The study as TOML that works from ``folder``: trace files it names are copied there, under their plain names."""
    data = study.as_dict()
    if folder is None:
        return study.to_toml()
    for part in ("compute", "download", "upload"):
        text = data["cluster"].get(part)
        for name in study.cluster.files(part) if text else ():
            make_folder(folder)
            source, copy = study.cluster.folder / name, folder / Path(name).name
            if source.resolve() != copy.resolve():
                shutil.copyfile(source, copy)
            data["cluster"][part] = text = text.replace(name, copy.name)
    return Study.model_validate(data, context={"folder": folder}).to_toml()


def say(json: bool, answer: Any, lines: list[str]) -> None:
    """Print an answer: as JSON, or as lines."""
    print(to_json(answer) if json else "\n".join(lines))
