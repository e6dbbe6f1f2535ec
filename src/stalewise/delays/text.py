"""Delay laws as text: ``gamma(mean=1.0, shape=4) + constant(0.1)``."""

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stalewise import checks
from stalewise.delays.laws import (
    AbstractDelay,
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Hyperexponential,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    Regimes,
    Replay,
    ShiftedExponential,
    Uniform,
    Weibull,
)
from stalewise.errors import InputError
from stalewise.traces import read_trace

_LAWS: dict[str, tuple[tuple[str, ...], Callable[..., AbstractDelay]]] = {
    "constant": (("value",), Constant),
    "exponential": (("mean",), Exponential),
    "shifted_exponential": (("shift", "mean"), ShiftedExponential),
    "gamma": (("mean", "shape"), Gamma),
    "weibull": (("mean", "shape"), Weibull),
    "lognormal": (("mean", "cv"), Lognormal),
    "pareto": (("mean", "shape"), Pareto),
    "uniform": (("low", "high"), Uniform),
    "normal": (("mean", "std"), Normal),
    "hyperexponential": (("means", "weights"), Hyperexponential),
    "mixture": (("laws", "weights"), Mixture),
    "regimes": (("laws", "dwell"), Regimes),
}
_LISTS = ("means", "weights")
_FILES = ("empirical", "trace")


def parse_delay(text: str, *, folder: str | Path = ".") -> AbstractDelay:
    """Read a delay law from text.

    Args:
        text: A law such as ``gamma(mean=1.0, shape=4)``, or several joined by ``+`` for the sum of independent parts;
            ``mixture`` and ``regimes`` take a list of any laws, nested as deep as wanted.
        folder: Where relative file names in ``empirical("...")`` and ``trace("...")`` are looked up.

    Returns:
        The law; ``str(law)`` reads back as the same law.

    Raises:
        InputError: The text is not a law; says what is wrong with it and what is allowed.

    Example:
        >>> parse_delay("gamma(mean=1.0, shape=4) + constant(0.5)").mean
        1.5
    """
    names_files = any(name in text for name in _FILES)  # which change
    return _read(text, folder) if names_files else _read_once(text)


def _read(text: str, folder: str | Path) -> AbstractDelay:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"delay law: cannot read {text!r}; write for example gamma(mean=1.0, shape=4)") from None
    try:
        return _law(tree, text, Path(folder))
    except RecursionError:
        raise InputError(f"delay law: too many parts in {text[:40]!r}...") from None


@functools.lru_cache(maxsize=256)
def _read_once(text: str) -> AbstractDelay:
    """`_read` of a text that names no files: a search asks for the same laws thousands of times."""
    return _read(text, ".")


def files_of(text: str) -> list[str]:
    """Files that a law's text names."""
    return [ast.literal_eval(node) for node in _file_nodes(ast.parse(text.strip(), mode="eval"))]


def rename_files(text: str, names: dict[str, str]) -> str:
    """A law's text with its files renamed."""
    tree = ast.parse(text.strip(), mode="eval")
    for node in _file_nodes(tree):
        node.value = names.get(ast.literal_eval(node), node.value)
    return ast.unparse(tree)


def _file_nodes(tree: ast.AST) -> list[ast.Constant]:
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    named = [(n.args or [k.value for k in n.keywords])[0] for n in calls if n.func.id in _FILES]  # type: ignore[union-attr]
    return [node for node in named if isinstance(node, ast.Constant)]


def _law(node: ast.expr, text: str, folder: Path) -> AbstractDelay:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _law(node.left, text, folder) + _law(node.right, text, folder)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise InputError(f"delay law: cannot read {text!r}; write for example gamma(mean=1.0, shape=4)")
    name = checks.one_of("delay law", node.func.id, (*_LAWS, *_FILES))
    if name in _FILES:
        return _measured(name, _arguments(name, ("file",), node, text, folder)["file"], folder)
    names, build = _LAWS[name]
    return build(*_arguments(name, names, node, text, folder).values())


def _arguments(name: str, names: tuple[str, ...], node: ast.Call, text: str, folder: Path) -> dict:
    """Values by name, in the order of ``names``, each given once by place or by name."""
    given: dict = {}
    pairs = [*zip(names, node.args, strict=False), *((k.arg or "**", k.value) for k in node.keywords)]
    wanted = f"{name}({', '.join(names)})"
    if len(node.args) > len(names):
        raise InputError(f"delay law: {wanted} takes {len(names)} value(s), got {len(node.args)} in {text!r}")
    for key, value in pairs:
        if key not in names or key in given:
            raise InputError(f"delay law: {wanted} has no place for {key!r} in {text!r}")
        given[key] = _argument(name, key, value, text, folder)
    missing = [key for key in names if key not in given]
    if missing:
        raise InputError(f"delay law: {wanted} needs {', '.join(missing)}, got {text!r}")
    return {key: given[key] for key in names}


def _argument(name: str, key: str, node: ast.expr, text: str, folder: Path) -> Any:
    """A file's name, a number, a list of numbers or a list of laws, by what the place is for."""
    if key == "laws":
        if not isinstance(node, ast.List | ast.Tuple):
            raise InputError(f"delay law: {name}: laws must be a list such as [exponential(1), gamma(2, 4)]")
        return [_law(one, text, folder) for one in node.elts]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        raise InputError(f"delay law: {name}: {key} must be a plain value, got {ast.unparse(node)!r}") from None
    if key == "file" or key in _LISTS or (key == "dwell" and isinstance(value, list | tuple)):
        return value
    return checks.non_negative(f"{name}: {key}", value)


def _measured(name: str, file: object, folder: Path) -> AbstractDelay:
    if not isinstance(file, str):
        raise InputError(f"delay law: {name} takes a file name in quotes, got {file!r}")
    trace = read_trace(folder / file)
    sequences = tuple(trace.by_worker().values())
    if name == "trace":
        return Replay(sequences, source=file)
    return Empirical(trace.durations, source=file)
