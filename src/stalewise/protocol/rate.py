r"""How the learning rate changes over updates.

================== ===========================================================
text               factor of the learning rate at update k = 0, 1, ...
================== ===========================================================
constant           1
warmup(n)          (k + 1)/n up to 1
cosine(n)          (1 + cos(pi k/n))/2, and 0 from n on
step(n, factor)    factor once more after every n updates
inverse-sqrt(n)    1 up to n, then sqrt(n/(k + 1))
================== ===========================================================
"""

import math
from dataclasses import dataclass

from stalewise.errors import InputError
from stalewise.protocol.choices import parse_choice

_KINDS = {"constant": (), "warmup": ("n",), "cosine": ("n",), "step": ("n", "factor"), "inverse-sqrt": ("n",)}


@dataclass(frozen=True)
class RateSchedule:
    """A factor of the learning rate by update; ``RateSchedule()`` is 1, `parse_rate_schedule` reads the others."""

    kind: str = "constant"
    updates: float = 1.0
    factor: float = 1.0

    def __call__(self, update: int) -> float:
        """The factor at update 0, 1, ..."""
        match self.kind:
            case "warmup":
                return min(1.0, (update + 1) / self.updates)
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * min(update / self.updates, 1.0)))
            case "step":
                return self.factor ** (update // self.updates)
            case "inverse-sqrt":
                return min(1.0, math.sqrt(self.updates / (update + 1)))
        return 1.0


def parse_rate_schedule(text: str) -> RateSchedule:
    """Read a schedule from text such as ``cosine(2000)``.

    Raises:
        InputError: The text is not a schedule; says what is allowed.
    """
    kind, numbers = parse_choice("learning_rate_schedule", text, _KINDS)
    if numbers and numbers[0] < 1:
        raise InputError(f"learning_rate_schedule: n of {kind} must be 1 or more updates, got {numbers[0]:g}")
    return RateSchedule(kind, *numbers)
