"""How many workers, what staleness, what learning rate, how long, and when to stay synchronous."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stalewise.delays import fit_delay, parse_delay
    from stalewise.errors import InputError
    from stalewise.planning import plan
    from stalewise.prediction import compare, limit, predict
    from stalewise.simulation import simulate
    from stalewise.study import Study, load_study
    from stalewise.traces import read_trace
    from stalewise.training import train
    from stalewise.trajectory import Trajectory, load_trajectory

_HOME = {
    "InputError": "errors",
    "Study": "study",
    "Trajectory": "trajectory",
    "compare": "prediction",
    "fit_delay": "delays",
    "limit": "prediction",
    "load_study": "study",
    "load_trajectory": "trajectory",
    "parse_delay": "delays",
    "plan": "planning",
    "predict": "prediction",
    "read_trace": "traces",
    "simulate": "simulation",
    "train": "training",
}

__all__ = [
    "InputError",
    "Study",
    "Trajectory",
    "compare",
    "fit_delay",
    "limit",
    "load_study",
    "load_trajectory",
    "parse_delay",
    "plan",
    "predict",
    "read_trace",
    "simulate",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the compiled parts take a second to load."""
    if name not in _HOME:
        raise AttributeError(f"module 'stalewise' has no attribute {name!r}")
    return getattr(importlib.import_module(f"stalewise.{_HOME[name]}"), name)
