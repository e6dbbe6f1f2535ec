r"""Roots of :math:`f(s) = p(s) + q(s)\varphi(s)` in compiled code.

Everything rests on one bound: right of a line :math:`\Re s = \sigma` the transform and its derivative are at most
:math:`\varphi(\sigma)` and :math:`-\varphi'(\sigma)`, and less far up where the law is smooth (`bounds`), so that roots
lie where :math:`|p| \le |q|B` and :math:`|f'|` has a bound K. A march up the line with steps of 0.85 \|f\|/K turns f by
less than 60 degrees a step: the turns add up without ambiguity, and the argument principle counts the roots.
"""

import numpy as np
from numba import njit

from stalewise.dynamics.roots.transform import bounds, transform

TURN = 0.85
MOST_STEPS, MOST_WORK = 2_000_000, 2e8  # steps of a march, and steps times nodes
RENEWED = 1.5  # how much farther up bounds are asked anew
MOST_CLEAR = 20_000
LOST, FAR = -1, -2  # a count that failed: the line runs through a root; the program's reach is too short
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def value(program, stack, equation, s):  # pragma: no cover
    """The function f and its derivative; ``equation`` is (p0, p1, p2, q0, q1)."""
    p0, p1, p2, q0, q1 = equation
    phi, slope = transform(program, stack, s)
    q = q0 + q1 * s
    return p0 + s * (p1 + s * p2) + q * phi, p1 + 2.0 * p2 * s + q1 * phi + q * slope


@_compiled
def newton(program, stack, equation, s, size):  # pragma: no cover
    """A root by Newton's method from s, and whether it converged; ``size`` [1/s] is that of a typical root."""
    last = np.inf
    for step in range(80):
        f, slope = value(program, stack, equation, s)
        if slope == 0.0:
            return s, False
        change = f / slope
        s = s - change
        moved = abs(change)
        if not moved < 1e8 * size:
            return s, False
        if moved <= 4e-16 * (abs(s) + 1e-3 * size) or (step > 6 and moved < 1e-9 * (abs(s) + size) and moved >= last):
            return s, True
        last = moved
    return s, last < 1e-7 * (abs(s) + size)


@_compiled
def reach_of(equation, phi):  # pragma: no cover
    """Roots where the transform is at most ``phi`` lie within this distance of 0."""
    p0, p1, p2, q0, q1 = equation
    constant, linear = abs(p0) + abs(q0) * phi, abs(q1) * phi
    if p2 == 0.0:
        return constant / (abs(p1) - linear) if abs(p1) > linear else np.inf
    linear += abs(p1)
    return 0.5 * (linear + np.sqrt(linear * linear + 4.0 * abs(p2) * constant)) / abs(p2)


@_compiled
def _steepness(equation, phi, slope, size):  # pragma: no cover
    """Bound of the derivative of f within ``size`` of 0."""
    _, p1, p2, q0, q1 = equation
    return abs(p1) + 2.0 * abs(p2) * size + abs(q1) * phi + (abs(q0) + abs(q1) * size) * slope


@_compiled
def height_of(program, stack, equation, sigma, top, farthest):  # pragma: no cover
    r"""A height above which f has no root right of sigma, ``top`` where none is known.

    With :math:`f = p_0 + p_1 s + q_0\varphi` and p_0, p_1 >= 0: :math:`|p| \ge p_1 \Im s`, which grows, and
    :math:`|q_0\varphi| \le |q_0|B(\sigma, \Im s)`, which falls. So where the first is larger at a height, it is larger
    everywhere above it and right of sigma. Heights are halved while that is so.
    """
    _, p1, p2, q0, q1 = equation
    if p2 != 0.0 or q1 != 0.0:
        return top
    height = top
    if np.hypot(height, sigma) > farthest:
        height = 0.98 * np.sqrt(max(farthest * farthest - sigma * sigma, 0.0))
    if not p1 * height > 1.02 * abs(q0) * bounds(program, stack, sigma, height)[0]:
        return top
    while p1 * 0.5 * height > 1.02 * abs(q0) * bounds(program, stack, sigma, 0.5 * height)[0]:
        height *= 0.5
    return height


@_compiled
def _most_steps(program):  # pragma: no cover
    """How many steps a march may take."""
    return min(MOST_STEPS, int(MOST_WORK / (program.rules.shape[1] + 1)) + 1000)


@_compiled
def count_right(program, equation, sigma, farthest):  # pragma: no cover
    """Roots with real part above sigma, those below the axis too; `LOST` or `FAR` if it cannot tell.

    ``farthest``: the program is good so far from 0 [1/s].
    """
    stack = np.empty((len(program.rows), 2), np.complex128)
    p0, p1, p2, _, q1 = equation
    phi, slope = bounds(program, stack, sigma, 0.0)
    top = 1.02 * reach_of(equation, phi)
    renew = np.inf
    if top < 1e300 and sigma < top and top * slope > 16.0 * phi:  # far up: there it pays to look how f falls
        top = height_of(program, stack, equation, sigma, top, farthest)
        renew = 2.0 * phi / slope
    if not top < 1e300 or np.hypot(top, sigma) > farthest:
        return FAR
    if sigma >= top and renew == np.inf:
        return 0
    before, _ = value(program, stack, equation, complex(sigma, 0.0))
    at = turned = 0.0
    for _ in range(_most_steps(program)):
        if at > renew:
            phi, slope = bounds(program, stack, sigma, at)
            renew = RENEWED * at
        step = TURN * abs(before) / _steepness(equation, phi, slope, np.hypot(sigma, at))
        if p2 != 0.0 or q1 != 0.0:
            step = TURN * abs(before) / _steepness(equation, phi, slope, np.hypot(sigma, at + step))
        if not step > 1e-13 * (at + abs(sigma)) + 1e-300:
            return LOST
        at = min(at + step, top)
        after, _ = value(program, stack, equation, complex(sigma, at))
        turned += np.angle(after / before)
        before = after
        if at >= top:
            s = complex(sigma, at)
            p = p0 + s * (p1 + s * p2)
            if p2 == 0.0:
                round_arc = np.angle(s + p0 / p1)
            else:  # the angles of s over both roots of p; both have real parts of 0 at most
                root = np.sqrt(complex(p1 * p1 - 4.0 * p0 * p2, 0.0))
                low, high = (-p1 - root) / (2.0 * p2), (-p1 + root) / (2.0 * p2)
                round_arc = np.angle(s - low) + np.angle(s - high)
            return int(np.round((round_arc + np.angle(before / p) - turned) / np.pi))
    return LOST


@_compiled
def clear(program, low, high, farthest):  # pragma: no cover
    r"""Whether :math:`i\omega + a\varphi(i\omega)` is nowhere 0 for any gain a from ``low`` > 0 to ``high``.

    Then as many roots lie right of the axis for each of them: roots move with the gain, and would have to cross it.
    f is linear in a, so that its least size over these gains is the distance of :math:`-i\omega` from a segment; and
    :math:`|df/d\omega| \le 1 + a\,|\varphi'| \le 1 +` ``high`` x bound: no zero within the distance over that. Above
    ``high`` :math:`|i\omega| > a|\varphi|`.
    """
    if not high < farthest:
        return False
    stack = np.empty((len(program.rows), 2), np.complex128)
    mean = bounds(program, stack, 0.0, 0.0)[1]
    slope, renew, at = mean, 2.0 / mean, 0.0
    for _ in range(MOST_CLEAR):
        if at > renew:
            slope, renew = bounds(program, stack, 0.0, at)[1], RENEWED * at
        phi, _ = transform(program, stack, complex(0.0, at))
        size = phi.real * phi.real + phi.imag * phi.imag
        gain = low if size == 0.0 else min(max(-at * phi.imag / size, low), high)
        apart = abs(complex(0.0, at) + gain * phi)
        if apart < 1e-9 * (at + high * np.sqrt(size)):
            return False
        at += 0.95 * apart / (1.0 + high * slope)
        if at > high:
            return True
    return False


@_compiled
def _turn_along(program, stack, equation, start, end, steps):  # pragma: no cover
    """Turn of f along a segment to the right or up; NaN if it runs through a root or takes too long."""
    length = abs(end - start)
    along = (end - start) / length
    before, _ = value(program, stack, equation, start)
    phi, slope = bounds(program, stack, start.real, max(start.imag, 0.0))
    done = turned = 0.0
    level = along.imag == 0.0
    renew = max(start.imag, 0.0) * RENEWED + phi / slope
    farthest = max(abs(start), abs(end))
    for _ in range(steps):
        here = start + done * along
        if level or here.imag > renew:
            phi, slope = bounds(program, stack, here.real, max(here.imag, 0.0))
            renew = RENEWED * here.imag
        step = TURN * abs(before) / _steepness(equation, phi, slope, farthest)
        if not step > 1e-12 * (farthest + length):
            return np.nan
        done = min(done + step, length)
        after, _ = value(program, stack, equation, start + done * along)
        turned += np.angle(after / before)
        before = after
        if done >= length:
            return turned
    return np.nan


@_compiled
def count_in_box(program, equation, left, right, low, high):  # pragma: no cover
    """Roots in a rectangle; -1 if one lies on its edge."""
    stack = np.empty((len(program.rows), 2), np.complex128)
    a, b, c, d = complex(left, low), complex(right, low), complex(right, high), complex(left, high)
    total = _turn_along(program, stack, equation, a, b, _most_steps(program))
    total += _turn_along(program, stack, equation, b, c, _most_steps(program))
    total -= _turn_along(program, stack, equation, d, c, _most_steps(program))
    total -= _turn_along(program, stack, equation, a, d, _most_steps(program))
    return int(np.round(total / (2.0 * np.pi))) if np.isfinite(total) else -1


@_compiled
def _lambert_seed(product):  # pragma: no cover
    """Near the principal branch of Lambert's function at -product."""
    if product < 0.3678794411714423:
        w = complex(-product * (1.0 + product * (1.0 + 1.5 * product)), 0.0)
        if product > 0.2:
            p = np.sqrt(2.0 * (1.0 - np.e * product))
            w = complex(-1.0 + p - p * p / 3.0, 0.0)
    elif product < 6.0:
        p = np.sqrt(complex(2.0 * (1.0 - np.e * product), 0.0))
        w = -1.0 + p - p * p / 3.0 + 11.0 / 72.0 * p * p * p
        if product > 1.0:
            w = complex(0.55 * np.log(product) - 0.318, 1.337 + 0.35 * np.log(product))
    else:
        log = np.log(complex(-product, 0.0))
        w = log - np.log(log)
    return w


@_compiled
def rightmost(program, equation, mean, square, edge, farthest):  # pragma: no cover
    """Best root found from a few seeds, and whether a count says that it is the rightmost.

    ``mean`` and ``square`` are the delay's mean [s] and squared coefficient of variation, ``edge`` the transform's
    abscissa, ``farthest`` the program's reach. Returns root, found, count right of it (`LOST`, `FAR`), where counted.
    """
    stack = np.empty((len(program.rows), 2), np.complex128)
    p0, p1, p2, q0, _ = equation
    gain = (q0 + p0) / p1
    size = 1.0 / mean
    late = mean + p2 / p1
    best, found, further, sigma = complex(-np.inf, 0.0), False, LOST, -np.inf
    for seed in range(4):
        if seed == 0:
            s = _lambert_seed(gain * late) / late
            if square > 0.3:
                s = s / (1.0 + 0.3 * square)
        elif seed == 1:  # delays as dispersed as exponential ones
            s = (-1.0 + np.sqrt(complex(1.0 - 4.0 * gain * late, 0.0))) / (2.0 * late)
        elif seed == 2:
            s = complex(-gain, 0.0)
        else:
            s = complex(0.0, 0.7 * gain)
        s, good = newton(program, stack, equation, s, size)
        if not good or not s.real > edge or abs(s) > farthest:
            continue
        if s.imag < 0.0:
            s = s.conjugate()
        if s.imag < 1e-13 * abs(s):
            s = complex(s.real, 0.0)
        if s.real > best.real:
            best, found = s, True
            further, sigma = certify(program, equation, s, edge, abs(s) + size, farthest)
            if further == 0:
                return best, True, 0, sigma
    if not found:
        return best, False, LOST, -np.inf
    return best, True, further, sigma


@_compiled
def certify(program, equation, root, edge, size, farthest):  # pragma: no cover
    """How many roots lie right of ``root`` (`LOST`, `FAR`), and right of which line they were counted.

    First by a line to the left of it, right of which there must be itself (and its conjugate) alone: that is quick and
    leaves nothing out. Else by lines ever farther right of it, from 1e-9 of ``size`` on.
    """
    own = 2 if root.imag > 0.0 else 1
    for margin in (0.06, 0.006):
        sigma = root.real - margin * size
        if sigma > edge and (sigma >= 0.0 or edge < 0.0):
            count = count_right(program, equation, sigma, farthest)
            if count == own:
                return 0, sigma
    margin = 1e-9
    count, sigma = LOST, root.real
    while margin < 2e-3:
        sigma = root.real + margin * size
        count = count_right(program, equation, sigma, farthest)
        if count != LOST:
            break
        margin *= 30.0
    return count, sigma


@_compiled
def rightmost_of_gains(program, gains, mean, square, edge, farthest, roots, certified):  # pragma: no cover
    """`rightmost` of the plain delay equation for many gains; fills ``roots`` and ``certified``."""
    for i in range(len(gains)):
        root, found, further, _ = rightmost(program, (0.0, 1.0, 0.0, gains[i], 0.0), mean, square, edge, farthest)
        roots[i] = root
        certified[i] = found and further == 0


@_compiled
def _balance(program, stack, inertia, omega):  # pragma: no cover
    """Minus the undelayed part over what the gain multiplies, at s = i omega: the gain where it is real.

    ``inertia`` is (T, T_n, weight decay over curvature). Also how fast its phase may turn [rad s].
    """
    time, lead, decay = inertia
    s = complex(0.0, omega)
    phi, slope = transform(program, stack, s)
    pulled = phi + decay
    undelayed = -s * (1.0 + time * s) / (1.0 + lead * s)
    return undelayed / pulled, abs(slope) / abs(pulled) + 1.0 / omega


@_compiled
def least_gain(program, inertia, start, finest, last, farthest):  # pragma: no cover
    """Smallest positive gain with a root on the axis, infinite if none is found up to ``last``; -1 if out of reach.

    Steps turn the phase by about a seventh, but are no smaller than ``finest`` [1/s].
    """
    stack = np.empty((len(program.rows), 2), np.complex128)
    best, omega = np.inf, start
    before, speed = _balance(program, stack, inertia, omega)
    while omega < last:
        if omega / (1.0 + inertia[2]) > best:  # |undelayed| is omega at least
            break
        step = max(0.14 / speed, finest)
        if omega + step > farthest:
            return -1.0
        after, speed = _balance(program, stack, inertia, omega + step)
        if (before.imag > 0.0) != (after.imag > 0.0) and max(before.real, after.real) > 0.0:
            low, high = omega, omega + step
            for _ in range(80):
                middle = 0.5 * (low + high)
                found, _ = _balance(program, stack, inertia, middle)
                if (found.imag > 0.0) == (before.imag > 0.0):
                    low = middle
                else:
                    high = middle
                if high - low <= 2e-16 * high:
                    break
            one, _ = _balance(program, stack, inertia, low)
            other, _ = _balance(program, stack, inertia, high)
            gain = 0.5 * (one.real + other.real)
            if gain > 0.0 and abs(one - other) < 1e-6 * abs(one):  # no pole
                best = min(best, gain)
        before = after
        omega += step
    return best


@_compiled
def counts_of_gains(program, gains, farthest, counts):  # pragma: no cover
    """Roots right of the axis of the plain delay equation, for many gains; fills ``counts``."""
    for i in range(len(gains)):
        counts[i] = count_right(program, (0.0, 1.0, 0.0, gains[i], 0.0), 0.0, farthest)
