"""The half inter-arrival correction: delay equation without and with it against the index equation (docs/theory.md)."""

import math

from stalewise import parse_delay
from stalewise.dynamics import decay_per_update, fleet_gain_limit, fleet_root, gain_limit, rightmost_root
from stalewise.dynamics.recursion import mean_step_limit
from stalewise.errors import NotConvergedError
from stalewise.staleness import staleness_law

LAWS, FLEETS, GAINS = ("constant(1)", "gamma(1, 4)", "lognormal(1, 1)"), (2, 4, 8, 16, 64), (0.2, 1.0 / math.e, 1.0)


def off(told: float | None, true: float) -> str:
    """Relative error in per cent."""
    return "-" if told is None or not math.isfinite(told) else f"{100.0 * (told / true - 1.0):+.1f}"


def rate_of(root: complex | None) -> float | None:
    """Decay rate of a root [1/s]."""
    return None if root is None else -root.real


def main() -> None:
    """Print limits of the mean and decay rates of the index equation, and both errors."""
    print("law, N: limit u (error without, with %); rate at u = 0.2, 1/e, 1 (the same)")
    for text in LAWS:
        law = parse_delay(text)
        for workers in FLEETS:
            staleness = staleness_law(law, workers)
            limit = workers * mean_step_limit(staleness)
            row = [f"{limit:.3f} ({off(gain_limit(law), limit)}, {off(fleet_gain_limit(law, workers), limit)})"]
            for gain in GAINS if law.abscissa < 0 else ():
                true = workers * decay_per_update(gain / workers, staleness)
                try:
                    told = rate_of(fleet_root(gain, law, workers).value)
                except NotConvergedError:
                    told = None
                row.append(f"{true:.3f} ({off(rate_of(rightmost_root(gain, law).value), true)}, {off(told, true)})")
            print(f"{text}, {workers}: {'; '.join(row)}")


if __name__ == "__main__":
    main()
