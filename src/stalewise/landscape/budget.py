"""What a measurement may cost, and how that is divided."""

import re
from dataclasses import dataclass

from stalewise import checks
from stalewise.errors import InputError
from stalewise.landscape.spectrum import products_needed

DEFAULT = "20000"
LEAST = 1000
PRODUCT = 3.0  # gradients that a product with second derivatives costs, a sample of it a sample of theirs
NOISE = 0.05  # of the budget goes to gradients, as much to slopes of single samples
FEWEST_GRADIENTS, MOST_GRADIENTS = 40, 10_000  # twenty groups of two; errors of a percent and less
MOST_SLOPES = 4096
PROBES, STEPS = 3, 30
_TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|min)?\s*")


@dataclass(frozen=True)
class Budget:
    """Gradients, or seconds [s], for one place."""

    gradients: float | None = None
    seconds: float | None = None


def parse_budget(text: str) -> Budget:
    """Read ``20000`` (gradients), ``60s`` or ``2min``.

    Raises:
        InputError: It is none of these, or too few gradients.
    """
    found = _TEXT.fullmatch(str(text))
    if found is None:
        raise InputError(f"--budget must be gradients or a time, such as {DEFAULT}, 60s or 2min; got {text!r}")
    number, unit = float(found[1]), found[2]
    if unit:
        return Budget(seconds=checks.positive("--budget", number, unit) * (60 if unit == "min" else 1))
    return Budget(gradients=_enough(number))


def _enough(gradients: float) -> float:
    if not LEAST <= gradients <= 1e12:
        raise InputError(f"--budget must be {LEAST:,} gradients or more, got {gradients:g}")
    return gradients


@dataclass(frozen=True)
class Plan:
    """How a budget is spent.

    Attributes:
        count: Eigenvalues sought of each matrix.
        samples: Behind curvatures.
        products: At most this many for the leading eigenvalues of a matrix.
        gradients: To tell the noise.
        slopes: Samples whose gradients are looked at along eigenvectors.
        total: Gradients expected to be spent.
    """

    count: int
    samples: int
    products: int
    gradients: int
    slopes: int
    total: float


def plan_for(budget: float, batch_size: int, count: int) -> Plan:
    """Divide a budget of gradients: a tenth for the noise, what is left for curvatures, on as many samples as it pays.

    Four times the usual number of products is allowed to eigenvalues that are slow to separate.
    """
    gradients = int(min(MOST_GRADIENTS, max(FEWEST_GRADIENTS, NOISE * budget)))
    slopes = int(min(MOST_SLOPES, max(batch_size, NOISE * budget * batch_size / count)))
    usual = 2 * products_needed(count) + PROBES * STEPS
    left = budget - gradients - slopes * count / batch_size
    samples = max(batch_size, int(left * batch_size / (PRODUCT * usual)))
    total = gradients + slopes * count / batch_size + PRODUCT * usual * samples / batch_size
    return Plan(count, samples, 4 * products_needed(count), gradients, slopes, total)
