r"""Verdicts on the plain delay equation, each from a theorem or from a count, and what has been proven kept.

**Every law is stable while gain x mean delay is below** :math:`\pi/2`. With :math:`\varphi(s) = 1 - s\psi(s)`,
:math:`\psi(s) = \int_0^\infty e^{-st}P(D > t)\,dt`, a root solves :math:`s(1 - a\psi(s)) = -a`. Where
:math:`a\,\mathrm E D < 1` and :math:`\Re s \ge 0`, :math:`|a\psi| < 1`, so that :math:`1 - a\psi` has a real part above
0 and :math:`-a/s` has none: there is no root. As the gain grows from there, a root (which is within a of 0, and moves
continuously) comes right of the axis only across it: at :math:`s = i\omega`, :math:`\omega > 0`,
:math:`\mathrm E\cos\omega D = 0` and :math:`a\,\mathrm E\sin\omega D = \omega`. For all x >= 0

.. math:: x \ge \tfrac{\pi}{2}\sin x - \cos x,

for up to 3.7 the difference is least, and 0, at :math:`\pi/2` alone (its slope
:math:`1 - \tfrac\pi2\cos x - \sin x` is below 0 before it and above 0 after), and further right
:math:`x > \sqrt{1 + \pi^2/4}`. With :math:`x = \omega D` the means of both sides are
:math:`\omega\,\mathrm E D \ge \tfrac{\pi}{2}\,\omega/a`, so that :math:`a\,\mathrm E D \ge \pi/2`.

Beyond it roots are counted. If none lies right of the axis, and none on it for any gain from there down to
:math:`\pi/2` over the mean (`kernel.clear`), all these gains are stable; the same between two gains that are unstable,
and without a march upwards where roots only move right (`transform.is_rising`).
"""

import math

from stalewise.dynamics.roots.kernel import clear, count_right
from stalewise.dynamics.roots.search import Facts

LEAST_KNOWN = 1.5  # gain x mean delay from where the axis is looked at


def proven(facts: Facts, gain: float) -> bool | None:
    """Whether a gain [1/s] is stable, where that has been proven; else None."""
    if gain <= facts.stable:
        return True
    least, most = facts.unstable
    return False if least <= gain <= most else None


def counted(facts: Facts, gain: float) -> bool | None:
    """Whether a gain [1/s] is stable, by a count; None where the first program cannot tell. Keeps what it proves."""
    program, reach, _ = facts.first
    count = count_right(program, (0.0, 1.0, 0.0, gain, 0.0), 0.0, reach)
    if count < 0:
        return None
    if count == 0:
        if clear(program, LEAST_KNOWN / facts.mean, gain, reach):
            facts.stable = gain
        return True
    least, most = facts.unstable
    if facts.rising:
        facts.unstable = (min(least, gain), math.inf)
    elif least > most:
        facts.unstable = (gain, gain)
    elif clear(program, min(least, gain), max(most, gain), reach):
        facts.unstable = (min(least, gain), max(most, gain))
    return False
