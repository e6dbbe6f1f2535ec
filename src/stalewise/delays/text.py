"""Delay laws as text: ``gamma(mean=1.0, shape=4) + constant(0.1)``."""

import ast
from collections.abc import Callable
from pathlib import Path

from stalewise import checks
from stalewise.delays.laws import (
    AbstractDelay,
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    Replay,
    ShiftedExponential,
    Uniform,
)
from stalewise.errors import InputError
from stalewise.traces import read_trace

_LAWS: dict[str, tuple[tuple[str, ...], Callable[..., AbstractDelay]]] = {
    "constant": (("value",), Constant),
    "exponential": (("mean",), Exponential),
    "shifted_exponential": (("shift", "mean"), ShiftedExponential),
    "gamma": (("mean", "shape"), Gamma),
    "lognormal": (("mean", "cv"), Lognormal),
    "uniform": (("low", "high"), Uniform),
}
_FILES = ("empirical", "trace")


def parse_delay(text: str, *, folder: str | Path = ".") -> AbstractDelay:
    """Read a delay law from text.

    Args:
        text: A law such as ``gamma(mean=1.0, shape=4)``, or several joined by ``+`` for the sum of independent parts.
        folder: Where relative file names in ``empirical("...")`` and ``trace("...")`` are looked up.

    Returns:
        The law; ``str(law)`` reads back as the same law.

    Raises:
        InputError: The text is not a law; says what is wrong with it and what is allowed.

    Example:
        >>> parse_delay("gamma(mean=1.0, shape=4) + constant(0.5)").mean
        1.5
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"delay law: cannot read {text!r}; write for example gamma(mean=1.0, shape=4)") from None
    try:
        return _law(tree, text, Path(folder))
    except RecursionError:
        raise InputError(f"delay law: too many parts in {text[:40]!r}...") from None


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
        return _measured(name, _arguments(name, ("file",), node, text)["file"], folder)
    names, build = _LAWS[name]
    arguments = _arguments(name, names, node, text)
    return build(*(checks.non_negative(f"{name}: {key}", value) for key, value in arguments.items()))


def _arguments(name: str, names: tuple[str, ...], node: ast.Call, text: str) -> dict:
    given: dict = {}
    pairs = [*zip(names, node.args, strict=False), *((k.arg or "**", k.value) for k in node.keywords)]
    wanted = f"{name}({', '.join(names)})"
    if len(node.args) > len(names):
        raise InputError(f"delay law: {wanted} takes {len(names)} value(s), got {len(node.args)} in {text!r}")
    for key, value in pairs:
        if key not in names or key in given:
            raise InputError(f"delay law: {wanted} has no place for {key!r} in {text!r}")
        try:
            given[key] = ast.literal_eval(value)
        except (ValueError, TypeError):
            raise InputError(f"delay law: {name}: {key} must be a plain value, got {ast.unparse(value)!r}") from None
    missing = [key for key in names if key not in given]
    if missing:
        raise InputError(f"delay law: {wanted} needs {', '.join(missing)}, got {text!r}")
    return {key: given[key] for key in names}


def _measured(name: str, file: object, folder: Path) -> AbstractDelay:
    if not isinstance(file, str):
        raise InputError(f"delay law: {name} takes a file name in quotes, got {file!r}")
    trace = read_trace(folder / file)
    sequences = tuple(trace.by_worker().values())
    if name == "trace":
        return Replay(sequences, source=file)
    return Empirical(trace.durations, source=file)
