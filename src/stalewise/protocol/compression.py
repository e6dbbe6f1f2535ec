"""How gradients are made smaller on their way to the server.

============= ====================================================================================================
text          what is sent
============= ====================================================================================================
none          float32
bfloat16      the nearest value with 8 bits of mantissa, ties to even
top-k(share)  that share of the values, the largest in size; the rest stays at the worker, which adds it to its next
              gradient (error feedback; Stich, Cordonnier, Jaggi, Sparsified SGD with Memory, NeurIPS 2018)
============= ====================================================================================================
"""

from dataclasses import dataclass

from stalewise.errors import InputError
from stalewise.protocol.choices import parse_choice

_KINDS = {"none": (), "bfloat16": (), "top-k": ("share",)}


@dataclass(frozen=True)
class Compression:
    """What is sent of a gradient; ``Compression()`` is all of it, `parse_compression` reads the others."""

    kind: str = "none"
    share: float = 1.0

    def bytes_of(self, size: int) -> int:
        """Bytes of a gradient of ``size`` values on its way: values, and for top-k their places in 4 bytes each."""
        match self.kind:
            case "bfloat16":
                return 2 * size
            case "top-k":
                return 8 * self.kept(size)
        return 4 * size

    def kept(self, size: int) -> int:
        """Values that top-k sends, 1 at least."""
        return max(1, round(self.share * size))


def parse_compression(text: str) -> Compression:
    """Read a compression from text such as ``top-k(0.01)``.

    Raises:
        InputError: The text is none; says what is allowed.
    """
    kind, numbers = parse_choice("compression", text, _KINDS)
    if numbers and not 0 < numbers[0] <= 1:
        raise InputError(f"compression: share of {kind} must be above 0 and at most 1, got {numbers[0]:g}")
    return Compression(kind, *numbers)
