"""Real numbers of 80 digits, each with a bound on its error.

Two numbers whose balls do not meet are different, whatever they were computed from. Two whose
balls meet are the same only if both are known to 45 digits and nothing on the way was beyond
10^30 or below 10^-30: numbers made of few symbols do not come so near without being equal, unless
something huge was divided away, as in ``(2009!+1)/2009!``.

Two steps are no bound but of the same kind as that: what lies within 10^-40 of an integer is taken
for it where an integer is needed, and what lies within 10^-45 of zero, and cannot be told from it,
is zero. Infinity is a number here; what has no value, or none that is known well enough, raises
`Undefined`.
"""

from decimal import (
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    ROUND_UP,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    Underflow,
)
from functools import lru_cache
from math import comb, factorial
from typing import NamedTuple

SIGNALS = (InvalidOperation, DivisionByZero, Overflow, Underflow)
"""What arithmetic raises beside `Undefined`."""
_MATH = Context(prec=80, Emax=1_000_000, Emin=-1_000_000, traps=list(SIGNALS))
_FINE = Context(prec=100, Emax=1_000_000, Emin=-1_000_000, traps=list(SIGNALS))
# A bound that is too small to be written is rounded up as well.
_UP = Context(prec=6, Emax=2_000_000, Emin=-2_000_000, rounding=ROUND_UP, traps=list(SIGNALS[:-1]))
_ULP = Decimal("1e-79")  # of a result of 80 digits, relative
_LARGEST, _SMALLEST = Decimal("1e30"), Decimal("1e-30")
_KNOWN = Decimal("1e-45")
_WHOLE = Decimal("1e-40")
_NIL, _ONE, _TWO = Decimal(0), Decimal(1), Decimal(2)
_EXPONENT = 100_000
_MOST_FACTORS = 3000  # of a factorial: 9,131 digits
_LARGEST_ANGLE = 10**9
_PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534"
    "2117067982148086513"
)
_E = Decimal(
    "2.71828182845904523536028747135266249775724709369995957496696762772407663035354759457138217852"
    "5166427427466391932"
)


class Undefined(Exception):
    """There is no value, or none that is known well enough."""


class Ball(NamedTuple):
    """A value between ``mid - rad`` and ``mid + rad``; ``tame`` as told at the top of the file."""

    mid: Decimal
    rad: Decimal = _NIL
    tame: bool = True


def same(one: Ball, other: Ball) -> bool | None:
    """Tell whether two values are the same; None when they are too near to be told apart."""
    if one.mid.is_infinite() or other.mid.is_infinite():
        return one.mid == other.mid
    apart = _MATH.subtract(one.mid, other.mid).copy_abs()
    error = _UP.add(one.rad, other.rad)
    if apart > error:
        return False
    size = max(one.mid.copy_abs(), other.mid.copy_abs(), _ONE)
    return True if one.tame and other.tame and error <= _MATH.multiply(size, _KNOWN) else None


def exactly(value: Decimal | int) -> Ball:
    """Return a number that was written down, or counted."""
    return _made(Decimal(value), _NIL, tame=True, exact=True)


def _made(mid: Decimal, rad: Decimal, *, tame: bool, exact: bool = False) -> Ball:
    """Add the error of rounding to that of the arguments, and watch the size."""
    if mid.is_infinite():
        return Ball(mid, _NIL, tame)
    size = mid.copy_abs()
    if not exact:
        rad = _UP.add(rad, _UP.multiply(size, _ULP))
    if size <= rad:
        if tame and rad <= _KNOWN:
            return Ball(_NIL)
        return Ball(mid, rad, tame and not rad)
    return Ball(mid, rad, tame and _SMALLEST <= size <= _LARGEST)


def negative(one: Ball) -> Ball:
    """Return the number of the other sign."""
    # The minus sign of Decimal would round to the digits of the caller's context.
    return Ball(one.mid.copy_negate(), one.rad, one.tame)


def absolute(one: Ball) -> Ball:
    """Return the size of a number."""
    return Ball(one.mid.copy_abs(), one.rad, one.tame)


def add(one: Ball, other: Ball) -> Ball:
    """Return a sum."""
    mid = _MATH.add(one.mid, other.mid)
    return _made(mid, _UP.add(one.rad, other.rad), tame=one.tame and other.tame)


def subtract(one: Ball, other: Ball) -> Ball:
    """Return a difference."""
    return add(one, negative(other))


def multiply(one: Ball, other: Ball) -> Ball:
    """Return a product."""
    mid = _MATH.multiply(one.mid, other.mid)
    tame = one.tame and other.tame
    if mid.is_infinite():
        return Ball(mid, _NIL, tame)
    rad = _UP.fma(one.mid.copy_abs(), other.rad, _NIL)
    rad = _UP.fma(_UP.add(other.mid.copy_abs(), other.rad), one.rad, rad)
    return _made(mid, rad, tame=tame)


def divide(one: Ball, other: Ball) -> Ball:
    """Return a quotient."""
    size = other.mid.copy_abs()
    if other.mid.is_infinite() or size <= other.rad:
        raise Undefined
    mid = _MATH.divide(one.mid, other.mid)
    tame = one.tame and other.tame
    if mid.is_infinite():
        return Ball(mid, _NIL, tame)
    below = _MATH.subtract(size, other.rad)
    rad = _UP.divide(_UP.fma(mid.copy_abs(), other.rad, one.rad), below)
    return _made(mid, _UP.multiply(rad, Decimal("1.001")), tame=tame)


def _whole(one: Ball) -> Decimal | None:
    """Return the integer that a value is, if it is one."""
    if one.mid.is_infinite() or one.mid.adjusted() > 70:
        return None
    nearest = one.mid.to_integral_value(ROUND_HALF_EVEN)
    apart = _MATH.subtract(one.mid, nearest).copy_abs()
    if apart == one.rad == 0:
        return nearest
    return nearest if one.tame and apart <= _WHOLE and one.rad <= _WHOLE else None


def _count(one: Ball, most: int) -> int:
    whole = _whole(one)
    if whole is None or not 0 <= whole <= most:
        raise Undefined
    return int(whole)


def power(base: Ball, exponent: Ball) -> Ball:
    """Return a power; a base below zero takes whole exponents only, and 0^0 is undefined."""
    size = base.mid.copy_abs()
    times = _whole(exponent)
    if base.mid.is_infinite() or exponent.mid.is_infinite():
        raise Undefined
    if exponent.mid.copy_abs() > _EXPONENT or (times is None and base.mid <= base.rad):
        raise Undefined
    if size <= base.rad:
        if base.rad or times is None or times <= 0:
            raise Undefined
        return base
    tame = base.tame and exponent.tame
    above = exponent.mid if times is None else times
    share = _UP.multiply(above.copy_abs(), _UP.divide(base.rad, size))
    if times is None:
        share = _UP.fma(_MATH.ln(size).copy_abs(), exponent.rad, share)
    if share > Decimal("0.001"):
        raise Undefined
    mid = _MATH.power(base.mid, above)
    # Twice the first-order term; and the last digit of a power may be wrong by one.
    rad = _UP.multiply(mid.copy_abs(), _UP.fma(_TWO, share, _ULP))
    return _made(mid, rad, tame=tame)


def root(one: Ball, degree: Ball) -> Ball:
    """Return a real root; degrees are 2 to 100."""
    times = _whole(degree)
    if times is None or not 2 <= times <= 100 or one.mid.is_infinite():
        raise Undefined
    size = one.mid.copy_abs()
    if size <= one.rad:
        if one.rad:
            raise Undefined
        return one
    if one.mid < 0 and times % 2 == 0:
        raise Undefined
    share = _UP.divide(one.rad, size)
    if share > Decimal("0.001"):
        raise Undefined
    if times == 2:
        mid = _MATH.sqrt(size)
    else:
        mid = _MATH.plus(_FINE.power(size, _FINE.divide(_ONE, times)))
    rad = _UP.multiply(mid, _UP.fma(_TWO, share, _ULP))
    return _made(mid.copy_sign(one.mid), rad, tame=one.tame)


def logarithm(one: Ball, base: Ball | None = None) -> Ball:
    """Return a logarithm, the natural one without a base."""
    if one.mid <= one.rad or one.mid.is_infinite():
        raise Undefined
    share = _UP.divide(one.rad, one.mid)
    if share > Decimal("0.001"):
        raise Undefined
    found = _made(_MATH.ln(one.mid), _UP.multiply(_TWO, share), tame=one.tame)
    return divide(found, logarithm(base)) if base else found


@lru_cache(maxsize=64)
def _factorial(count: int) -> Decimal:
    return _MATH.plus(Decimal(factorial(count)))


def rising(one: Ball) -> Ball:
    """Return a factorial."""
    count = _count(one, _MOST_FACTORS)
    return _made(_factorial(count), _NIL, tame=True, exact=count < 50)


def choose(top: Ball, bottom: Ball) -> Ball:
    """Return a binomial coefficient."""
    found = Decimal(comb(_count(top, 2 * _MOST_FACTORS), _count(bottom, 2 * _MOST_FACTORS)))
    return _made(_MATH.plus(found), _NIL, tame=True, exact=found < _LARGEST)


def floor(one: Ball) -> Ball:
    """Return the integer at or below a value."""
    whole = _whole(one)
    if whole is None:
        low, high = _MATH.subtract(one.mid, one.rad), _MATH.add(one.mid, one.rad)
        if not one.mid.is_finite() or high.adjusted() > 70:
            raise Undefined
        whole = low.to_integral_value(ROUND_FLOOR)
        if whole != high.to_integral_value(ROUND_FLOOR):
            raise Undefined
    return _made(whole, _NIL, tame=one.tame, exact=True)


def ceiling(one: Ball) -> Ball:
    """Return the integer at or above a value."""
    return negative(floor(negative(one)))


# --- angles -----------------------------------------------------------------------------------


def sine(angle: Ball) -> Ball:
    """Return the sine of an angle in radians."""
    if angle.mid.copy_abs() > _LARGEST_ANGLE or angle.rad > _WHOLE:
        raise Undefined
    turns = _FINE.divide(angle.mid, PI.mid).to_integral_value(ROUND_HALF_EVEN)
    rest = _FINE.subtract(angle.mid, _FINE.multiply(turns, PI.mid))
    total = term = rest
    square = _FINE.multiply(rest, rest)
    n = 1
    while term and term.adjusted() > -95:
        term = _FINE.divide(_FINE.multiply(term, square), Decimal(-(n + 1) * (n + 2)))
        total = _FINE.add(total, term)
        n += 2
    mid = total.copy_negate() if turns % 2 else total
    return _made(_MATH.plus(mid), _UP.add(angle.rad, Decimal("1e-85")), tame=angle.tame)


def cosine(angle: Ball) -> Ball:
    """Return the cosine of an angle in radians."""
    return sine(subtract(QUARTER, angle))


def tangent(angle: Ball) -> Ball:
    """Return the tangent of an angle in radians."""
    return divide(sine(angle), cosine(angle))


def cotangent(angle: Ball) -> Ball:
    """Return the cotangent of an angle in radians."""
    return divide(cosine(angle), sine(angle))


def secant(angle: Ball) -> Ball:
    """Return one over the cosine."""
    return divide(exactly(1), cosine(angle))


def cosecant(angle: Ball) -> Ball:
    """Return one over the sine."""
    return divide(exactly(1), sine(angle))


def arctangent(one: Ball) -> Ball:
    """Return the angle, between minus and plus a quarter turn, that has a tangent."""
    if one.mid.is_infinite() or one.rad > _WHOLE:
        raise Undefined
    rest = one.mid
    for _ in range(5):  # half the angle, five times: its tangent is below 0.05
        rest = _FINE.divide(
            rest, _FINE.add(_ONE, _FINE.sqrt(_FINE.add(_ONE, _FINE.multiply(rest, rest))))
        )
    total = term = rest
    square = _FINE.multiply(rest, rest).copy_negate()
    n = 1
    while term and term.adjusted() > -95:
        term = _FINE.multiply(term, square)
        n += 2
        total = _FINE.add(total, _FINE.divide(term, Decimal(n)))
    mid = _MATH.multiply(total, Decimal(32))
    return _made(mid, _UP.add(one.rad, Decimal("1e-85")), tame=one.tame)


def arcsine(one: Ball) -> Ball:
    """Return the angle, between minus and plus a quarter turn, that has a sine."""
    other = subtract(exactly(1), multiply(one, one))
    if not other.mid:
        return QUARTER if one.mid > 0 else negative(QUARTER)
    return arctangent(divide(one, root(other, exactly(2))))


def arccosine(one: Ball) -> Ball:
    """Return the angle, between nothing and half a turn, that has a cosine."""
    return subtract(QUARTER, arcsine(one))


INFINITY = Ball(Decimal("Infinity"))
PI, E = Ball(_PI, Decimal("1e-110")), Ball(_E, Decimal("1e-110"))
QUARTER = divide(PI, exactly(2))
"""A quarter turn in radians."""
DEGREE = divide(PI, exactly(180))
