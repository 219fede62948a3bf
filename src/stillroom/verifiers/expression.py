r"""Compare the values of final answers that our reader can read, without an engine.

Two scalars are equal when their values agree to 45 digits, at several points where they hold
letters (Schwartz-Zippel: two different expressions seldom agree at random points, and never at
random 30-digit points by accident). They are different when the values differ by more than the
bounds on their errors (`stillroom.verifiers.ball`), at one point at least. Where a form has no
value between integers, such as ``n!``, or another meaning there, such as ``\lfloor n/2 \rfloor``,
a few integers can show that two are different, and nothing that they are equal. Other letters make
another expression, if the values differ too.

A scalar is no tuple, interval, union or matrix. Other forms of two kinds, such as a list and a
tuple, are different if one holds a value that the other lacks, and else left to the engine. Left
to the engine as well: products and powers of ``i``, and whatever is too near to be told apart.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b

from stillroom.verifiers import ball
from stillroom.verifiers.ball import SIGNALS, Ball, Undefined, exactly
from stillroom.verifiers.reader import Env, Equation, Form, Inequality, Scalar, Several, read

_MOST_PAIRS = 400


def agree(one: str, other: str) -> bool | None:
    r"""Compare two bare answers by value; None when they cannot be told equal or different.

    >>> agree(r"\frac{2}{\sqrt{2}}", r"\sqrt{2}"), agree("x+1", "x-1"), agree("x+1", r"\gcd(x,1)")
    (True, False, None)
    """
    form, other_form = read(one), read(other)
    if form is None or other_form is None:
        return None
    try:
        if _doubtful(form) or _doubtful(other_form):
            return _same_doubtful(form, other_form)
        return _same(form, other_form)
    except (Undefined, *SIGNALS):
        return None


def _same(one: Form, other: Form) -> bool | None:
    match one, other:
        case Scalar(), Scalar():
            return _same_scalar(one, other)
        case Equation(), Equation():
            return _same_equation(one, other)
        case (Scalar() as scalar, Equation() as equation) | (
            Equation() as equation,
            Scalar() as scalar,
        ):
            return _is_solution(scalar, equation)
        case Several(), Several() if one.kind == other.kind:
            return _same_kind(one, other)
        case Several("union" | "()" | "(]" | "[)" | "[]"), Several(
            "union" | "()" | "(]" | "[)" | "[]"
        ):
            return _same_reach(one, other)
        case (Scalar() as scalar, Several(kind, items)) | (
            Several(kind, items),
            Scalar() as scalar,
        ):
            return _is_several(scalar, kind, items)
        case Inequality(), Inequality():
            return None
        case (Inequality(), Scalar() | Equation()) | (Scalar() | Equation(), Inequality()):
            return False
    return False if _holds_other(one, other) else None


def _same_kind(one: Several, other: Several) -> bool | None:
    items, others = one.items, other.items
    match one.kind:
        case "set":
            return _same_set(items, others)
        case "union":
            return _same_set(items, others) or _same_reach(one, other)
        case "ratio":  # 2:4 is 1:2, but not where they are times
            return (len(items) == len(others) and _each(items, others)) or None
    same = len(items) == len(others) and _each(items, others)
    # Whether "x > 3" is "n > 3" depends on the question.
    return None if same and one.letter and other.letter not in ("", one.letter) else same


def _is_several(scalar: Scalar, kind: str, items: tuple[Form, ...]) -> bool | None:
    if kind == "set":
        return _same_set((scalar,), items)
    if kind == "ratio":
        # 1:2 may be a half, but not a third.
        return None if len(items) == 2 and _is_share(scalar, *items) is not False else False
    if len(items) == 1 and kind not in ("row", "matrix"):
        return None if _same(scalar, items[0]) is not False else False  # [3]
    return False


def _is_share(scalar: Scalar, top: Form, bottom: Form) -> bool | None:
    assert isinstance(top, Scalar)
    assert isinstance(bottom, Scalar)

    def share(point: Env) -> Ball:
        return ball.divide(top.value(point), bottom.value(point))

    return _same_scalar(scalar, Scalar(top.letters | bottom.letters, share, ""))


def _is_solution(scalar: Scalar, equation: Equation) -> bool | None:
    """Tell a value from an equation unless it is one of the sides, or solves it."""
    if any(_same_scalar(scalar, side) is not False for side in equation):
        return None
    letters = equation.left.letters | equation.right.letters
    if len(letters) == 1 and not scalar.letters:
        point = dict.fromkeys(letters, scalar.value({}))
        left, right = (value_at(side, point) for side in equation)
        if left is None or right is None or ball.same(left, right) is not False:
            return None
    return False


# --- forms of several parts -------------------------------------------------------------------


def _doubtful(form: Form) -> bool:
    return isinstance(form, Several) and form.other is not None


def _same_doubtful(one: Form, other: Form) -> bool | None:
    """Compare item by item: with as many commas on both sides, it does not matter what they are."""
    match one, other:
        case Several("union"), Several("union"):
            if _same(one, other):
                return True
        case Several(kind, items), Several(other_kind, others):
            if kind == other_kind and len(items) == len(others):
                same = _each(items, others)
                return same or None if kind == "set" else same
    found = [_same(mine, yours) for mine in _readings(one) for yours in _readings(other)]
    return None if any(same is not False for same in found) else False


def _readings(form: Form) -> list[Form]:
    return [form, form.other] if isinstance(form, Several) and form.other else [form]


def _each(items: tuple[Form, ...], others: tuple[Form, ...]) -> bool | None:
    return _all(_same(one, other) for one, other in zip(items, others, strict=True))


def _all(found: Iterable[bool | None]) -> bool | None:
    known = list(found)
    return False if False in known else None if None in known else True


def _same_set(items: tuple[Form, ...], others: tuple[Form, ...]) -> bool | None:
    """Match each item with one of the other side, and the other way round."""
    doubtful = False
    for few, many in ((items, others), (others, items)):
        for item in few:
            found = [_same(item, other) for other in many]
            if True in found:
                continue
            if None not in found:
                return False
            doubtful = True
    return None if doubtful else True


def _same_reach(one: Several, other: Several) -> bool | None:
    """Tell intervals and unions from others by where they begin and end: [0,1], (1,2] is [0,2]."""
    if one.letter and other.letter and "union" not in (one.kind, other.kind):
        return False  # x > 3 is not x >= 3; of (1,2) and [1,2] the first may be a point
    ends = []
    for side in (one, other):
        leaves = list(_leaves(side))
        if any(not isinstance(leaf, Scalar) or leaf.letters for leaf in leaves):
            return None
        ends.append(sorted(leaf.value({}) for leaf in leaves if isinstance(leaf, Scalar)))
    mine, yours = ends
    return False if any(ball.same(mine[at], yours[at]) is False for at in (0, -1)) else None


def _leaves(form: Form) -> "Iterator[Scalar | Equation | Inequality]":
    if isinstance(form, Several):
        for item in form.items:
            yield from _leaves(item)
    else:
        yield form


def _holds_other(one: Form, other: Form) -> bool:
    """Tell whether one form holds a value that is different from all values of the other."""
    mine, yours = list(_leaves(one)), list(_leaves(other))
    if len(mine) * len(yours) > _MOST_PAIRS:
        return False
    return any(
        all(_same(leaf, found) is False for found in many)
        for few, many in ((mine, yours), (yours, mine))
        for leaf in few
    )


# --- scalars ----------------------------------------------------------------------------------


# Three points; the last has letters of both signs, because sqrt(x^2) is not x.
def _points(letters: frozenset[str]) -> Iterator[Env]:
    for point in range(3):
        yield {
            name: Ball(
                _pseudo(name, point).copy_sign(Decimal(-1 if point == 2 and place % 2 == 0 else 1))
            )
            for place, name in enumerate(sorted(letters))
        }


@lru_cache(maxsize=256)
def _pseudo(name: str, point: int) -> Decimal:
    """Return a fixed number between 1 and 2, of 30 digits, that follows from a name."""
    digest = blake2b(f"{point}/{name}".encode(), digest_size=13).digest()
    return Decimal(f"1.{int.from_bytes(digest) % 10**30:030d}")


_INTEGERS = (7, 4, 11, 2, 8, 5, 13, 3, 6, 9, 10, 12)


def _integer_points(letters: frozenset[str]) -> Iterator[Env]:
    for point in range(4):
        yield {
            name: exactly(_INTEGERS[(place + 2 * point + point // 2) % len(_INTEGERS)])
            for place, name in enumerate(sorted(letters))
        }


def _same_scalar(one: Scalar, other: Scalar) -> bool | None:
    letters = one.letters | other.letters
    if one.letters != other.letters and not _comparable(one, other):
        return None
    units = letters & {"i", "I"}
    if len(units) > 1:
        return None
    if units and not all(_linear(side, letters, *units) for side in (one, other)):
        return None
    computed = 0
    for point in _points(letters) if not (one.steps or other.steps) else ():
        value, expected = value_at(one, point), value_at(other, point)
        if value is None or expected is None:
            if value is not expected:
                computed = 0
                break
            continue
        same = ball.same(value, expected)
        if same is False:
            return _rounded(one, other, value, expected)
        if same is None:
            return None
        computed += 1
    if computed:
        return True
    for point in _integer_points(letters) if letters and not units else ():
        value, expected = value_at(one, point), value_at(other, point)
        if value is not None and expected is not None and ball.same(value, expected) is False:
            return False
    return None


def _comparable(one: Scalar, other: Scalar) -> bool:
    """Tell whether other letters make another expression: neither words nor f(x) beside f do."""
    if any(_WORD.search(side.text) for side in (one, other)):
        return False
    letters = one.letters | other.letters
    return not any("(" in name and name[0] in letters for name in letters)


def _linear(side: Scalar, letters: frozenset[str], unit: str) -> bool:
    """Tell whether a value is a + bi, so that i can be treated like any other letter."""
    if unit not in side.letters:
        return True
    point = next(_points(letters))
    at = [value_at(side, {**point, unit: exactly(place)}) for place in (-3, 0, 2, 7)]
    found = [value for value in at if value is not None and value.mid.is_finite()]
    if len(found) < len(at):
        return False
    low, start, middle, high = found
    slope = ball.divide(ball.subtract(high, start), exactly(7))
    return all(
        ball.same(ball.subtract(value, start), ball.multiply(slope, exactly(place)))
        for value, place in ((low, -3), (middle, 2))
    )


def value_at(side: Scalar, point: Env) -> Ball | None:
    """Evaluate a scalar where its letters have these values; None where it has no value."""
    try:
        return side.value(point)
    except (Undefined, *SIGNALS):
        return None


_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3}")  # "the cat" is no product
_DECIMAL = re.compile(r"-? ?\d*\.\d+")
_NEAR = Decimal("0.001")  # as a share; six digits on the way may lose three


def _rounded(one: Scalar, other: Scalar, value: Ball, expected: Ball) -> bool | None:
    """Accept a decimal of six digits or more for the exact value that rounds to it."""
    for short, exact in ((one, other), (other, one)):
        if "." not in short.text or "." in exact.text:
            continue
        digits = re.sub(r"\D", "", short.text).lstrip("0")
        if len(digits) < 6:
            continue
        apart = ball.subtract(value, expected).mid.copy_abs()
        if not _DECIMAL.fullmatch(short.text):
            far = apart > max(value.mid.copy_abs(), expected.mid.copy_abs()) * _NEAR
            return False if far else None
        place = len(short.text.partition(".")[2])
        return apart < Decimal(1).scaleb(-place)
    return False


def _same_equation(one: Equation, other: Equation) -> bool | None:
    """Tell whether left minus right of both are proportional: y = 2x and 2x - y = 0."""
    letters = one.left.letters | one.right.letters
    if letters != other.left.letters | other.right.letters or not letters:
        pairs = [(side, found) for side in one for found in other]
        return False if all(_same_scalar(*pair) is False for pair in pairs) else None
    ratios = []
    for point in _points(letters):
        values = [value_at(side, point) for side in (*one, *other)]
        known = [value for value in values if value is not None and value.mid.is_finite()]
        if len(known) < len(values):
            return None
        left, right, other_left, other_right = known
        ratios.append(
            ball.divide(ball.subtract(left, right), ball.subtract(other_left, other_right))
        )
    nothing = ball.same(ratios[0], exactly(0))  # x = x holds everywhere
    if nothing is not False:
        return False if nothing else None
    return _all(ball.same(ratio, ratios[0]) for ratio in ratios)
