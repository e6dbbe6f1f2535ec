r"""What a stale gradient is multiplied by before gradients are averaged.

================== =============================== =================================================================
text               weight of staleness tau         source
================== =============================== =================================================================
constant           1
inverse            1/tau, and 1 for tau = 0        Zhang et al., arXiv:1511.05950
polynomial(p)      (1 + tau)^-p                    Xie et al., arXiv:1903.03934 (FedAsync); p = 0.5 in FedBuff
hinge(a, b)        1 up to b, then 1/(a(tau-b)+1)  Xie et al.
delay-adaptive(c)  min(1, c/tau)                   Koloskova et al., arXiv:2206.08307; Mishchenko et al., 2206.07638
================== =============================== =================================================================
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stalewise.jit import compiled
from stalewise.protocol.choices import parse_choice

_KINDS = {"constant": (), "inverse": (), "polynomial": ("p",), "hinge": ("a", "b"), "delay-adaptive": ("c",)}
_CODES = list(_KINDS)


@compiled
def weigh(code, first, second, staleness):  # pragma: no cover
    """Weight of one gradient; see `Weight`."""
    if code == 0:
        return 1.0
    if code == 1:
        return 1.0 / max(staleness, 1)
    if code == 2:
        return (1.0 + staleness) ** -first
    if code == 3:
        return 1.0 if staleness <= second else 1.0 / (first * (staleness - second) + 1.0)
    return min(1.0, first / max(staleness, 1))


@dataclass(frozen=True)
class Weight:
    """A weight by staleness: ``Weight()`` is 1, `parse_weight` reads the others."""

    kind: str = "constant"
    first: float = 0.0
    second: float = 0.0

    @property
    def code(self) -> int:
        """Its number in compiled code."""
        return _CODES.index(self.kind)

    def __call__(self, staleness: float) -> float:
        """Weight of one gradient of this staleness, in updates."""
        return float(weigh(self.code, self.first, self.second, staleness))

    def of(self, staleness: ArrayLike) -> NDArray[np.float64]:
        """Weights, element by element."""
        return np.array([self(one) for one in np.ravel(staleness)]).reshape(np.shape(staleness))


def parse_weight(text: str) -> Weight:
    """Read a weight from text such as ``polynomial(0.5)``.

    Raises:
        InputError: The text is not a weight; says what is allowed.
    """
    kind, numbers = parse_choice("staleness_weight", text, _KINDS)
    return Weight(kind, *numbers)
