"""Stability verdicts and certified rightmost roots on one core, beside tdscontrol, qpmr and a 40-node generator.

Every answer is compared with mpmath (40 digits, Newton from the certified root). CPU time, medians of 5, in
microseconds a call from Python; "verdict" is settled by a theorem, "counted" with all that was proven before forgotten;
"compiled" is the root without leaving compiled code. Peers that are not installed are
left out: `pip install tdscontrol qpmr`. tdscontrol and qpmr know constant delays and choices of them alone.
Run: python benchmarks/roots.py
"""

import importlib
import importlib.util
import math
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from types import ModuleType

import mpmath
import numpy as np

from stalewise.delays import AbstractDelay, Empirical, Gamma, parse_delay
from stalewise.dynamics import are_stable, gain_limit, is_stable, rightmost_root, rightmost_roots
from stalewise.dynamics.roots.search import facts_of

REPEATS = 5
NODES = 40
GAIN = 1.0
CHART, CHART_GOAL = 200, 0.1
ALLOWED = 1e-10
LAWS = (
    "constant(1)", "mixture([constant(0.2), constant(1), constant(4)], [0.5, 0.3, 0.2])", "gamma(1, 4)",
    "gamma(1, 2.5)", "uniform(0.5, 1.5)", "shifted_exponential(0.5, 0.5)", "gamma(0.6, 2) + uniform(0, 0.8)",
    "normal(1, 0.3)", "weibull(1, 2)", "lognormal(1, 1)", "100,000 samples",
)  # fmt: skip


def timed(call: Callable[[], object], calls: int) -> float:
    """Microseconds a call."""
    call()
    spent = []
    for _ in range(REPEATS):
        begun = time.process_time()
        for _ in range(calls):
            call()
        spent.append((time.process_time() - begun) / calls)
    return 1e6 * median(spent)


def counted_anew(law: AbstractDelay) -> bool:
    """A verdict for which nothing is known of the law: a count, and the march that makes later ones free."""
    facts = facts_of(law)
    facts.stable, facts.unstable = 0.0, (math.inf, 0.0)
    return is_stable(GAIN, law)


def law_of(name: str) -> AbstractDelay:
    """A law, or samples of a gamma law."""
    if name == "100,000 samples":
        return Empirical(np.random.default_rng(0).gamma(4.0, 0.25, 100_000))
    return parse_delay(name)


def exact(law: AbstractDelay, root: complex) -> complex:
    """The root in 40 digits, where the transform has a closed form; else polished with the law's own transform."""
    if isinstance(law, Gamma):
        with mpmath.workdps(40):
            shape, scale = mpmath.mpf(law.shape), mpmath.mpf(law.mean) / mpmath.mpf(law.shape)
            return complex(mpmath.findroot(lambda s: s + GAIN * (1 + scale * s) ** -shape, mpmath.mpc(root)))
    s, step = root, 1e-6
    for _ in range(4):
        here, ahead, behind = (
            s + GAIN * law.laplace(np.array([s])),
            *(z + GAIN * law.laplace(np.array([z])) for z in (s + step, s - step)),
        )
        s -= complex(here[0] / ((ahead[0] - behind[0]) / (2.0 * step)))
    return s


def generator_root(law: AbstractDelay, horizon: float) -> complex:
    """Rightmost eigenvalue of the delay equation's generator on 40 Chebyshev nodes; cut off at ``horizon``."""
    theta = np.cos(np.pi * np.arange(NODES + 1) / NODES)
    weight = (-1.0) ** np.arange(NODES + 1) * np.where(np.arange(NODES + 1) % NODES == 0, 2.0, 1.0)
    derivative = np.outer(weight, 1.0 / weight) / (theta[:, None] - theta + np.eye(NODES + 1))
    derivative -= np.diag(derivative.sum(axis=1))
    values, shares = law.atoms
    if len(values) == 0:
        x, w = np.polynomial.legendre.leggauss(400)
        values = 0.5 * horizon * (1.0 + x)
        shares = 0.5 * horizon * w * law.density(values)
    place = 1.0 - 2.0 * values / horizon
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (1.0 / weight) / (place[:, None] - theta)
        basis = terms / terms.sum(axis=1, keepdims=True)
    for i, j in zip(*np.nonzero(np.isclose(place[:, None], theta, atol=1e-15)), strict=True):
        basis[i] = np.eye(NODES + 1)[j]
    matrix = derivative * (2.0 / horizon)
    matrix[0] = -GAIN * shares @ basis
    found = np.linalg.eigvals(matrix)
    best = found[np.argmax(found.real)]
    return complex(best.real, abs(best.imag))


def package(name: str) -> ModuleType | None:
    """A package, if it is installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def peers(law: AbstractDelay) -> dict[str, tuple[float, complex]]:
    """Times and answers of other packages, for delays that are constants or choices of them."""
    values, shares = law.atoms
    found: dict[str, tuple[float, complex]] = {}
    if len(values) and abs(shares.sum() - 1.0) < 1e-12 and len(values) < 100:
        if (tdscontrol := package("tdscontrol")) is not None:
            parts = [np.zeros((1, 1), order="F"), *(-GAIN * p * np.ones((1, 1), order="F") for p in shares)]
            delays = [0.0, *map(float, values)]

            def tds() -> complex:
                return max(tdscontrol.roots(tdscontrol.tds(parts, delays), -1.0), key=lambda s: (s.real, s.imag))

            found["tdscontrol"] = timed(tds, 200), complex(tds())
        if (qpmr := package("qpmr")) is not None:
            table = np.zeros((len(values) + 1, 2))
            table[0, 1], table[1:, 0] = 1.0, GAIN * shares
            region = [-1.0, 1.0, 0.0, 2.0]

            def mapped() -> complex:
                return max(qpmr.qpmr(table, np.array([0.0, *values]), region=region)[0], key=lambda s: s.real)

            found["qpmr"] = timed(mapped, 5), complex(mapped())
    if law.abscissa < 0.0 and not isinstance(law, Empirical):
        horizon = float(law.tail_quantile(1e-12))
        found["generator"] = timed(lambda: generator_root(law, horizon), 20), generator_root(law, horizon)
    return found


def chart() -> tuple[float, float, int]:
    """Seconds for verdicts and for decay rates of 200 gains x 200 spreads; cells on the wrong side of the limit."""
    gains, shapes = np.linspace(0.02, 4.0, CHART), np.geomspace(1.2, 100.0, CHART)
    laws = [Gamma(1.0, float(shape)) for shape in shapes]
    wrong = sum(int((are_stable(gains, law) != (gains < gain_limit(law))).sum()) for law in laws)
    verdicts = timed(lambda: [are_stable(gains, law) for law in laws], 1) / 1e6
    rates = timed(lambda: [rightmost_roots(gains, law) for law in laws], 1) / 1e6
    return verdicts, rates, wrong


def main() -> int:
    warnings.simplefilter("ignore")  # of a peer
    worst = 0.0
    many = np.full(1000, GAIN)
    print(f"{'law':<62}{'verdict':>9}{'counted':>9}{'root':>8}{'compiled':>9}{'error':>9}   peers: us (error)")
    for name in LAWS:
        law = law_of(name)
        root = rightmost_root(GAIN, law)
        verdict, inner = (
            timed(lambda law=law: is_stable(GAIN, law), 2000),
            timed(lambda law=law: counted_anew(law), 500),
        )
        line = f"{name[:60]:<62}{verdict:>9.1f}{inner:>9.1f}"
        if root.value is None:
            print(f"{line}{'no root, a heavy tail':>26}")
            continue
        error = abs(root.value - exact(law, root.value))
        worst = max(worst, error)
        whole, inner = (
            timed(lambda law=law: rightmost_root(GAIN, law), 1000),
            timed(lambda law=law: rightmost_roots(many, law), 3),
        )
        others = (f"{peer} {us:.0f} ({abs(s - root.value):.0e})" for peer, (us, s) in peers(law).items())
        print(f"{line}{whole:>8.1f}{inner / 1000:>9.2f}{error:>9.0e}   {', '.join(others)}", flush=True)
    verdicts, rates, wrong = chart()
    print(
        f"chart of {CHART} gains x {CHART} spreads: verdicts {1e3 * verdicts:.0f} ms, goal {1e3 * CHART_GOAL:.0f}; ",
        end="",
    )
    print(f"certified roots {1e3 * rates:.0f} ms; cells on the wrong side of the gain limit: {wrong}")
    print(f"largest error {worst:.1e}, allowed {ALLOWED:g}")
    return int(worst > ALLOWED or wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
