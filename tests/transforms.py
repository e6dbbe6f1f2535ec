"""Transforms of delay laws by other routes, in 40 digits and more: what the fast ones are measured against."""

import math

import mpmath as mp
import numpy as np

from stalewise.delays import (
    Constant,
    Gamma,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    Regimes,
    ShiftedExponential,
    Sum,
    Uniform,
    Weibull,
)

ANGLES = (0.0, 0.25 * math.pi, -0.25 * math.pi, 0.5 * math.pi, -0.5 * math.pi)


SIZES = tuple(10.0 ** np.arange(-6, 5))


def grid(law, sizes=SIZES, *, left=True):
    """|s| mean from 1e-6 to 1e4 in five directions; for light tails also Re s < 0, to 90 % of the abscissa."""
    right = [size / law.mean * complex(round(math.cos(a), 15), math.sin(a)) for size in sizes for a in ANGLES]
    if law.abscissa == 0.0 or not left:
        return np.array(right)
    end = max(0.9 * law.abscissa, (-2.0 if isinstance(law, Weibull) and law.shape < 2 else -20.0) / law.mean)
    return np.array(right + [end * f + 1j * w / law.mean for f in (0.1, 0.5, 1.0) for w in (0.0, 0.3, 3.0, 30.0)])


def reference(law, s):
    """E exp(-s D) to 25 digits or more, by a closed form, a series, or a contour of its own."""
    with mp.workdps(50):
        return _TRANSFORMS[type(law)](law, mp.mpc(s))


def worst_error(law, s):
    """Largest relative error of ``law.laplace`` over s, where the reference is above 1e-290."""
    worst = 0.0
    for point, value in zip(s, law.laplace(s), strict=True):
        exact = reference(law, complex(point))
        if abs(exact) > 1e-290:
            worst = max(worst, float(abs(mp.mpc(complex(value)) - exact) / abs(exact)))
    return worst


def _uniform(law, s):
    low, high = mp.mpf(law.low), mp.mpf(law.high)
    return (mp.exp(-s * low) - mp.exp(-s * high)) / (s * (high - low))


def _normal(law, s):
    mean, std = mp.mpf(law.center), mp.mpf(law.spread)
    cut = mp.erfc((s * std - mean / std) / mp.sqrt(2)) / mp.erfc(-mean / std / mp.sqrt(2))
    return mp.exp(s * s * std * std / 2 - s * mean) * cut


def _pareto(law, s):
    a = mp.mpf(law.shape)
    return a * mp.expint(a + 1, s * mp.mpf(law.scale))


def _lognormal(law, s):
    """Trapezoid rule, 1,500 points, on the line where the double exponential's argument is halved."""
    sigma, median = mp.mpf(law.sigma), mp.mpf(law.median)
    w = mp.lambertw(s * median * sigma**2)
    half = mp.arg(s) / 2
    turn = max(min(half, sigma), -sigma)
    line = mp.mpc(mp.re(-w / sigma), mp.im(-w / sigma) if abs(mp.im(w)) >= abs(turn) else -turn / sigma)
    points = [line + mp.mpf(j) / 50 for j in range(-750, 751)]
    return mp.fsum(mp.exp(-s * median * mp.exp(sigma * z) - z * z / 2) for z in points) / 50 / mp.sqrt(2 * mp.pi)


def _weibull(law, s):
    """Shapes 1/2 and 2 by the error function, others by power series: in z for shapes above 1, in 1/z^k below."""
    k, z = mp.mpf(law.shape), s * mp.mpf(law.scale)
    if law.shape == 0.5:
        return mp.sqrt(mp.pi / (4 * z)) * mp.exp(1 / (4 * z)) * mp.erfc(1 / (2 * mp.sqrt(z)))
    if law.shape == 2.0:
        with mp.workdps(50 + (60 if mp.re(z) < 0 else 0)):
            return 1 - z * mp.sqrt(mp.pi) / 2 * mp.exp(z * z / 4) * mp.erfc(z / 2)
    size = float(abs(z))
    cancel = (law.shape - 1) * (size / law.shape) ** (law.shape / (law.shape - 1)) if law.shape > 1 else 0.0
    if law.shape < 1 or (cancel > 300.0 and mp.re(z) >= 0):
        return _weibull_ray(k, z)
    if cancel > 300.0:
        return mp.mpf(0)  # out of reach of the series: not compared
    with mp.workdps(int(60 + cancel)):
        total, power, n = mp.mpc(0), mp.mpc(1), 0
        while True:
            term = power * mp.gamma(1 + n / k)
            total += term
            n += 1
            power *= -z / n
            if n > size + 20 and abs(term) < abs(total) * mp.mpf(10) ** -25:
                return total


def _weibull_ray(k, z):
    """Trapezoid rule in log x^k on a ray inside the sector where both factors fall; digits make up for cancellation."""
    lost = float(k) * math.log(max(2.0 * float(k) / math.pi, 1.0)) + 5.0  # by cancellation, in powers of e
    with mp.workdps(int(40 + lost)):
        return _trapezoid(k, z, lost)


def _trapezoid(k, z, lost):
    angle = min(0.75 * float(mp.arg(z)), math.copysign(1.0, float(mp.arg(z))) * 1.2 / float(k), key=abs)
    strip = min(0.5 * math.pi - float(k) * abs(angle), 1.4, float(k))
    size = float(abs(z))
    low = min(0.0, -float(k) * math.log(size / max(float(k), 1.0))) - 70.0
    step = mp.mpf(2 * math.pi * strip / (51.0 + lost - min(low + 70.0, 0.0)))
    turn, turned = mp.expjpi(-angle / math.pi), mp.expjpi(-angle * float(k) / math.pi)
    y, x = mp.exp(low), mp.exp(low / k)
    ratio, root = mp.exp(step), mp.exp(step / k)
    total = mp.mpc(0)
    while y < 400:
        total += mp.exp(-y * turned - z * x * turn) * y * turned
        y, x = y * ratio, x * root
    return total * step


def _averaged(law, s):
    return mp.fsum(mp.mpf(float(p)) * reference(part, s) for p, part in zip(law.probabilities, law.laws, strict=True))


_TRANSFORMS = {
    Constant: lambda law, s: mp.exp(-s * mp.mpf(law.value)),
    ShiftedExponential: lambda law, s: mp.exp(-s * mp.mpf(law.shift)) / (1 + s * mp.mpf(law.exponential_mean)),
    Gamma: lambda law, s: (1 + s * mp.mpf(law.gamma_mean) / mp.mpf(law.shape)) ** -mp.mpf(law.shape),
    Uniform: _uniform,
    Normal: _normal,
    Pareto: _pareto,
    Lognormal: _lognormal,
    Weibull: _weibull,
    Mixture: _averaged,
    Regimes: _averaged,
    Sum: lambda law, s: mp.fprod(reference(part, s) for part in law.parts),
}
