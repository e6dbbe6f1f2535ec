"""Settings written as a name and numbers, such as ``polynomial(0.5)``."""

import math
import re
from collections.abc import Mapping

from stalewise.errors import InputError

_TEXT = re.compile(r"\s*([a-z][a-z0-9-]*)\s*(?:\(([^()]*)\))?\s*")


def parse_choice(field: str, text: str, kinds: Mapping[str, tuple[str, ...]]) -> tuple[str, list[float]]:
    """Read a name and its numbers.

    Args:
        field: What the text was given for; errors name it.
        text: ``name`` or ``name(number, ...)``; numbers may be written as ``a=1``.
        kinds: Names, and what the numbers of each are called.

    Returns:
        The name, and its numbers, finite and 0 or more.

    Raises:
        InputError: The name is unknown, or the numbers are not as many, or not such.
    """
    allowed = ", ".join(f"{kind}({', '.join(names)})" if names else kind for kind, names in kinds.items())
    found = _TEXT.fullmatch(text)
    if not found or found[1] not in kinds:
        raise InputError(f"{field} must be one of {allowed}, got {text!r}")
    kind, names = found[1], kinds[found[1]]
    values = [part.rpartition("=")[2] for part in (found[2] or "").split(",") if part.strip()]
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(numbers) != len(names) or len(numbers) != len(values):
        raise InputError(f"{field}: {kind} takes ({', '.join(names)}), got {text!r}")
    for name, value in zip(names, numbers, strict=True):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{field}: {name} of {kind} must be 0 or more, got {value:g}")
    return kind, numbers
