"""Several delays of one law, one after the other: what a worker spends on its local steps."""

import functools
import operator

import numpy as np

from stalewise import checks
from stalewise.delays.laws.base import AbstractDelay, Constant, Sum
from stalewise.delays.laws.light import Gamma, ShiftedExponential
from stalewise.delays.laws.sampled import Replay
from stalewise.errors import InputError

MOST_DRAWN = 1000  # copies that are drawn one by one, where the sum has no law of its own


def repeated(law: AbstractDelay, times: int) -> AbstractDelay:
    """Law of the sum of ``times`` successive delays of one worker [s].

    Constant and gamma laws stay what they are, exponential ones become gamma, a replay adds up successive delays of
    its record; any other law is a sum of independent copies.

    Raises:
        InputError: The law is autocorrelated (regimes), or there are more than 1,000 copies to draw.
    """
    checks.at_least("local_steps", times, 1)
    if times == 1:
        return law
    match law:
        case Constant(value=value):
            total = Constant(times * value)
        case Gamma(shape=shape):
            total = Gamma(times * law.mean, times * shape)
        case ShiftedExponential(shift=shift):
            total = Gamma(times * (law.mean - shift), times) + Constant(times * shift)
        case Replay(sequences=sequences, source=source):
            total = Replay(tuple(_successive(np.asarray(one, float), times) for one in sequences), source)
        case Sum(parts=parts):
            total = functools.reduce(operator.add, (repeated(part, times) for part in parts))
        case _:
            total = _copies(law, times)
    return total


def _copies(law: AbstractDelay, times: int) -> AbstractDelay:
    if not law.independent:
        raise InputError(f"local_steps must be 1 where successive delays depend on each other, got {times} of {law}")
    if times > MOST_DRAWN:
        raise InputError(f"local_steps must be at most {MOST_DRAWN} for {law}, got {times}")
    return Sum((law,) * times)


def _successive(sequence: np.ndarray, times: int) -> np.ndarray:
    """Sums of ``times`` delays in a row, one after the other, as a record read round and round gives them."""
    laps, rest = divmod(times, len(sequence))
    round_ = np.concatenate([sequence, sequence])
    begin = (np.arange(len(sequence)) * times) % len(sequence)
    added = np.concatenate([[0.0], np.cumsum(round_)])
    return laps * sequence.sum() + added[begin + rest] - added[begin]
