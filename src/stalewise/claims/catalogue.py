"""Which figures there are."""

import difflib
import importlib
from collections.abc import Sequence

from stalewise.claims.figure import Effort, Figure
from stalewise.errors import InputError

CLAIMS = {  # name: module, what it claims
    "workers": ("workers", "more workers are not always faster"),
    "acceleration": ("staleness", "a small staleness may accelerate"),
    "divergence": ("staleness", "a large staleness diverges, and where"),
    "bandwidth": ("bandwidth", "limited bandwidth has a best number of workers and a best learning rate"),
    "trigger": ("triggers", "event-triggered communication saves traffic"),
    "hitting": ("hitting", "first hitting times under five laws of delay"),
    "digits": ("networks", "a network: more workers help, then hurt (scikit-learn's digits)"),
    "mnist": ("networks", "the same on MNIST; needs --data"),
}
NEEDS_DATA = "mnist"


def wanted(names: Sequence[str], effort: Effort) -> tuple[list[str], list[str]]:
    """Names of the figures to draw, all unless given, and sentences about those left out.

    Raises:
        InputError: A name is unknown, or a figure asked for by name needs data that are not given.
    """
    for name in names:
        if name not in CLAIMS:
            near = difflib.get_close_matches(name, CLAIMS, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise InputError(f"figures: must be among {', '.join(CLAIMS)}, got {name!r}{hint}")
    if NEEDS_DATA in names and effort.data is None:
        raise InputError("figures: mnist needs --data, the folder of MNIST's IDX files")
    if names or effort.data is not None:
        return list(dict.fromkeys(names or CLAIMS)), []
    left = "mnist is left out: it needs --data, the folder of MNIST's IDX files; digits is drawn of another network"
    return [name for name in CLAIMS if name != NEEDS_DATA], [left]


def draw(name: str, effort: Effort) -> Figure:
    """Compute one figure.

    Args:
        name: One of `CLAIMS`.
        effort: What it may cost.

    Raises:
        InputError: Data are missing.
        MissingExtraError: PyTorch, which the networks' figures need, is not installed.
    """
    module = importlib.import_module(f"stalewise.claims.{CLAIMS[name][0]}")
    return getattr(module, name)(effort)
