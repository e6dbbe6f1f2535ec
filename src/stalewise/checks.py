"""Checks of arguments: one message each, naming the field, its value and what is allowed."""

import difflib
import math
from collections.abc import Iterable

from stalewise.errors import InputError


def positive(name: str, value: float, unit: str = "") -> float:
    """Return ``value`` as a float if it is finite and above zero."""
    return _number(name, value, unit, "positive and finite", lambda v: v > 0)


def non_negative(name: str, value: float, unit: str = "") -> float:
    """Return ``value`` as a float if it is finite and not below zero."""
    return _number(name, value, unit, "zero or more, and finite", lambda v: v >= 0)


def finite(name: str, value: float, unit: str = "") -> float:
    """Return ``value`` as a float if it is finite."""
    return _number(name, value, unit, "finite", lambda _: True)


def at_least(name: str, value: int, least: int) -> int:
    """Return ``value`` if it is a whole number of at least ``least``."""
    try:
        whole = int(value)
        wrong = isinstance(value, bool) or whole != value or whole < least
    except (TypeError, ValueError, OverflowError):
        wrong, whole = True, least
    if wrong:
        raise InputError(f"{name} must be a whole number, {least} or more, got {value!r}")
    return whole


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is among ``allowed``; otherwise suggest the nearest."""
    names = list(allowed)
    if value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise InputError(f"{name} must be one of {', '.join(names)}, got {value!r}{hint}")


def _number(name: str, value: float, unit: str, allowed: str, good) -> float:
    suffix = f" {unit}" if unit else ""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number ({allowed}), got {value!r}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not good(number):
        raise InputError(f"{name} must be {allowed}, got {value!r}{suffix}")
    return number
