"""Checks of arguments: what passes is a plain number, what does not is named with its value."""

import math
from decimal import Decimal

import numpy as np
import pytest

from stalewise import checks
from stalewise.errors import InputError, MissingExtraError


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3), Decimal("0.5")])
def test_numbers_pass_as_floats(value):
    """Whatever kind of number comes in, a Python float comes out."""
    for check in (checks.positive, checks.non_negative):
        assert type(check("delay", value)) is float and check("delay", value) == float(value)


def test_zero_is_not_negative_and_not_positive():
    """Zero separates the two checks."""
    assert checks.non_negative("delay", 0) == 0.0
    with pytest.raises(InputError, match=r"delay must be positive and finite, got 0 seconds"):
        checks.positive("delay", 0, "seconds")


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf, 10**400])
def test_numbers_out_of_range_are_refused(value):
    """Negative, infinite, undefined, or too large for a float."""
    with pytest.raises(InputError, match=r"^delay must be zero or more, and finite, got "):
        checks.non_negative("delay", value)


@pytest.mark.parametrize("value", ["a", "1", b"1", True, None, [1, 2], 1j, {}])
def test_what_is_no_number_is_refused(value):
    """The message says that a number is wanted and which."""
    with pytest.raises(InputError, match=r"^delay must be a number \(positive and finite\), got "):
        checks.positive("delay", value)


def test_whole_numbers_pass_as_ints():
    """A whole float is a whole number."""
    assert [checks.at_least("workers", value, 1) for value in (1, 2.0, np.int64(3))] == [1, 2, 3]
    assert type(checks.at_least("workers", np.int64(3), 1)) is int


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3", "x", None, math.nan, math.inf, [1]])
def test_what_is_no_whole_number_is_refused(value):
    """Fractions, booleans and text are refused, not rounded."""
    with pytest.raises(InputError, match=r"^workers must be a whole number, 1 or more, got "):
        checks.at_least("workers", value, 1)


def test_choices_suggest_the_nearest():
    """A misspelt choice is met with the right one; a strange one with the list."""
    assert checks.one_of("policy", "sync", ["async", "sync"]) == "sync"
    with pytest.raises(InputError, match=r'policy must be one of async, sync, got \'asinc\'; did you mean "async"\?'):
        checks.one_of("policy", "asinc", ("async", "sync"))
    with pytest.raises(InputError, match=r"got 'zzz'$"):
        checks.one_of("policy", "zzz", iter(["async", "sync"]))


def test_missing_extra_says_what_to_install():
    """The message is the remedy."""
    assert "pip install 'stalewise[ray]'" in str(MissingExtraError("ray", "ray"))
