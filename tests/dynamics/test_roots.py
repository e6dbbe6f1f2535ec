"""Characteristic roots and gain limits against closed forms and high-precision values."""

import math

import numpy as np
import pytest
from scipy.special import lambertw

from stalewise.delays import Empirical, parse_delay
from stalewise.dynamics import gain_limit, rightmost_root
from stalewise.errors import InputError

# mpmath, 40 digits: residual and argument principle checked
REFERENCE = [
    (1.0, "gamma(1, 2.5)", -0.41734150758400868903 + 1.0895492176789450847j),
    (0.7, "gamma(1, 1.5)", -0.50770493868657747363 + 0.76419224055029510376j),
    (1.1, "gamma(1, 7.3)", -0.307769163536072163 + 1.2957331372106928374j),
    (1.8, "uniform(0.5, 1.5)", 0.019551870496777849615 + 1.5858238748161104694j),
    (0.6, "uniform(0, 4)", -0.14094434475691935301 + 0.60832355652866712612j),
    (2.2, "shifted_exponential(0.5, 0.5)", -0.018727577394055914017 + 1.7008168219560570219j),
]
LIMITS = [
    ("constant(1)", math.pi / 2),
    ("gamma(1, 1.5)", 7.3484692283495342946),
    ("gamma(1, 4)", 4 * math.tan(math.pi / 8) / math.cos(math.pi / 8) ** 4),
    ("gamma(1, 10)", 1.7927232199289391632),
    ("uniform(0.5, 1.5)", 1.7447160499097198835),
    ("shifted_exponential(0.5, 0.5)", 2.2698293006614405565),
    ("exponential(1)", math.inf),
]


@pytest.mark.parametrize(("gain", "law", "value"), REFERENCE)
def test_root_is_the_reference(gain, law, value):
    """Within 1e-10, and certified rightmost."""
    root = rightmost_root(gain, parse_delay(law))
    assert abs(root.value - value) < 1e-10
    assert root.certified


@pytest.mark.parametrize("gain", [1e-6, 0.2, 0.5, 1.0, 2.0, 30.0])
def test_constant_delay_is_lambert(gain):
    """W_0(-a tau)/tau, and also by the general route through a law of one sample."""
    value = complex(lambertw(-gain * 0.7)) / 0.7
    assert abs(rightmost_root(gain, 0.7).value - complex(value.real, abs(value.imag))) < 1e-12 * (1 + abs(value))
    general = rightmost_root(gain, Empirical(np.array([0.7])))
    assert abs(general.value - complex(value.real, abs(value.imag))) < 1e-8 * (1 + abs(value))


def test_double_root():
    """At a tau = 1/e two roots meet at -1/tau."""
    assert rightmost_root(1 / math.e, 1.0).value == pytest.approx(-1.0, abs=1e-7)


def test_heavy_tail_has_no_root():
    """A stable lognormal mean decays like a power; an unstable one has its root."""
    stable = rightmost_root(1.0, parse_delay("lognormal(1, 1)"))
    assert stable.value is None
    assert "no characteristic root" in stable.note
    assert rightmost_root(7.0, parse_delay("lognormal(1, 1)")).value.real > 0


@pytest.mark.parametrize(("law", "value"), LIMITS)
def test_gain_limit(law, value):
    """Closed forms and high-precision values; the root there lies on the axis."""
    assert gain_limit(parse_delay(law)) == pytest.approx(value, rel=1e-12)
    if math.isfinite(value):
        assert rightmost_root(value, parse_delay(law)).value.real == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf])
def test_bad_gain(gain):
    """Gains must be positive and finite."""
    with pytest.raises(InputError, match="gain must be positive"):
        rightmost_root(gain, 1.0)


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_decay_set_by_the_singularity(gain):
    """Gamma of shape 0.3: Newton from 400 places finds no root right of the singularity, which is returned."""
    found = rightmost_root(gain, parse_delay("gamma(1, 0.3)"))
    assert found.value == pytest.approx(-0.3)
    assert not found.certified
    rng = np.random.default_rng(0)
    for start in rng.uniform(-0.3, 0.1, 400) + 1j * rng.uniform(0.0, 3.0 * gain, 400):
        s = start
        for _ in range(50):
            base = 1.0 + s / 0.3
            s = s - (s + gain * base**-0.3) / (1.0 - gain * base**-1.3)
            if not abs(s) < 100.0:
                break
        assert not (s.real > -0.2999 and abs(s + gain * (1.0 + s / 0.3) ** -0.3) < 1e-9)
