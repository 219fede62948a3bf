"""Numbers with a bound on their error: the true value, known to 300 digits, is always within it."""

from decimal import Decimal

import mpmath
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stillroom.verifiers import ball
from stillroom.verifiers.ball import Ball, Undefined, exactly, same


def root_of(degree):
    return lambda one: mpmath.sign(one) * mpmath.root(abs(one), degree)


ONE = {
    "sine": (ball.sine, mpmath.sin),
    "cosine": (ball.cosine, mpmath.cos),
    "tangent": (ball.tangent, mpmath.tan),
    "cotangent": (ball.cotangent, mpmath.cot),
    "secant": (ball.secant, mpmath.sec),
    "cosecant": (ball.cosecant, mpmath.csc),
    "arctangent": (ball.arctangent, mpmath.atan),
    "arcsine": (ball.arcsine, mpmath.asin),
    "arccosine": (ball.arccosine, mpmath.acos),
    "logarithm": (ball.logarithm, mpmath.log),
    "square root": (lambda one: ball.root(one, exactly(2)), mpmath.sqrt),
    "fifth root": (lambda one: ball.root(one, exactly(5)), root_of(5)),
    "power": (
        lambda one: ball.power(one, exactly(Decimal("2.3"))),
        lambda one: mpmath.power(one, mpmath.mpf("2.3")),
    ),
    "far power": (lambda one: ball.power(one, exactly(-70)), lambda one: one**-70),
    "absolute": (ball.absolute, abs),
    "negative": (ball.negative, lambda one: -one),
    "floor": (ball.floor, mpmath.floor),
    "ceiling": (ball.ceiling, mpmath.ceil),
}
TWO = {
    "add": (ball.add, lambda one, other: one + other),
    "subtract": (ball.subtract, lambda one, other: one - other),
    "multiply": (ball.multiply, lambda one, other: one * other),
    "divide": (ball.divide, lambda one, other: one / other),
}
NUMBERS = st.decimals("-1e12", "1e12", allow_nan=False, places=9).map(lambda one: ("number", one))
TREES = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(st.sampled_from(sorted(ONE)), inner)
        | st.tuples(st.sampled_from(sorted(TWO)), inner, inner)
    ),
    max_leaves=5,
)


def both(tree):
    """Return a value as a ball, and as mpmath computes it."""
    name, *arguments = tree
    if name == "number":
        return exactly(arguments[0]), mpmath.mpf(str(arguments[0]))
    mine, theirs = (ONE | TWO)[name]
    found = [both(argument) for argument in arguments]
    return mine(*(one for one, _ in found)), theirs(*(true for _, true in found))


@given(TREES)
def test_ball_holds_the_true_value(tree):
    with mpmath.workdps(300):
        try:
            found, true = both(tree)
        except (Undefined, *ball.SIGNALS, ZeroDivisionError, ValueError, OverflowError):
            assume(False)
        assert abs(mpmath.mpf(str(found.mid)) - true) <= mpmath.mpf(str(found.rad)) + mpmath.mpf(
            "1e-250"
        )


@given(st.integers(0, 400), st.integers(0, 400))
def test_ball_counts(top, bottom):
    found = [ball.rising(exactly(top)), ball.choose(exactly(top), exactly(bottom))]
    true = [mpmath.fac(top), mpmath.binomial(top, bottom)]
    with mpmath.workdps(1000):
        true = [mpmath.fac(top), mpmath.binomial(top, bottom)]
        for one, expected in zip(found, true, strict=True):
            assert abs(mpmath.mpf(str(one.mid)) - expected) <= mpmath.mpf(str(one.rad))


def test_ball_same_needs_numbers_that_nothing_huge_was_divided_away_from():
    huge = ball.rising(exactly(2009))
    almost = ball.divide(ball.add(huge, exactly(1)), huge)
    assert same(almost, exactly(1)) is None
    assert same(almost, exactly(2)) is False
    assert same(ball.divide(exactly(1), exactly(3)), exactly(Decimal("0.3"))) is False
    third = ball.divide(exactly(1), exactly(3))
    assert same(ball.multiply(third, exactly(3)), exactly(1)) is True


def test_ball_what_is_left_of_equal_values_is_zero_and_no_divisor():
    two = exactly(2)
    nothing = ball.subtract(ball.multiply(ball.root(two, two), ball.root(two, two)), two)
    assert nothing == Ball(Decimal(0))
    with pytest.raises(Undefined):
        ball.divide(two, nothing)


def test_ball_near_an_integer_is_that_integer_where_one_is_needed():
    three = ball.logarithm(exactly(8), exactly(2))
    assert ball.floor(three).mid == ball.ceiling(three).mid == 3
    assert ball.rising(three).mid == 6
    with pytest.raises(Undefined):
        ball.rising(exactly(Decimal("2.5")))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (ball.power, (0, 0)),
        (ball.power, (-2, "0.5")),
        (ball.power, (2, 1_000_000)),
        (ball.root, (-4, 2)),
        (ball.root, (4, 101)),
        (ball.logarithm, (0,)),
        (ball.rising, (-1,)),
        (ball.rising, (3001,)),
        (ball.sine, ("1e12",)),
        (ball.divide, (1, 0)),
        (ball.tangent, ("Infinity",)),
    ],
)
def test_ball_no_value_is_undefined(function, arguments):
    with pytest.raises((Undefined, *ball.SIGNALS)):
        function(*(Ball(Decimal(one)) for one in arguments))
