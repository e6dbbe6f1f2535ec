"""Worst relative error of every delay law's transform against mpmath, and its cost.

Over |s| mean = 1e-6 ... 1e4 in the directions 0, +-45 and +-90 degrees, for light tails also Re s < 0 down to 90 % of
the abscissa (or -20/mean where there is none). Exits with 1 if any exceeds 1e-10. A few minutes.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from stalewise import parse_delay
from transforms import grid, worst_error

ALLOWED = 1e-10
LAWS = """
constant(1)
exponential(1)
shifted_exponential(0.5, 0.5)
gamma(1, 0.3)
gamma(1, 4)
gamma(1, 100)
weibull(1, 0.1)
weibull(1, 0.5)
weibull(1, 0.9)
weibull(1, 1.5)
weibull(1, 2)
weibull(1, 3)
weibull(1, 10)
weibull(1, 30)
lognormal(1, 0.01)
lognormal(1, 0.5)
lognormal(1, 2)
lognormal(1, 10)
lognormal(1, 100)
pareto(1, 1.01)
pareto(1, 1.5)
pareto(1, 2)
pareto(1, 3.7)
pareto(1, 100)
uniform(0.3, 1.7)
normal(1, 0.01)
normal(1, 0.3)
normal(1, 1)
normal(1, 10)
hyperexponential([0.5, 3], [4, 1])
mixture([gamma(1, 4) + constant(0.1), pareto(1, 2.5)], [1, 1])
regimes([gamma(0.5, 4), lognormal(3, 0.5)], 30)
gamma(1, 4) + lognormal(0.5, 0.5) + uniform(0, 1) + constant(1)
"""


def main() -> int:
    worst = 0.0
    print(f"{'law':<66}{'worst error':>12}{'us/value':>10}")
    for text in LAWS.strip().splitlines():
        law = parse_delay(text)
        points = grid(law, left=not text.startswith("gamma(1, 100"))
        begun = time.perf_counter()
        law.laplace(points)
        cost = (time.perf_counter() - begun) / len(points)
        error = worst_error(law, points)
        worst = max(worst, error)
        print(f"{text:<66}{error:>12.1e}{1e6 * cost:>10.1f}", flush=True)
    print(f"worst {worst:.1e}, allowed {ALLOWED:g}")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
