r"""Read the common forms of a final answer and compare their values, without an engine.

Covered: sums, products, fractions, roots, powers, factorials, binomials, logarithms with a base,
constants (``\pi``, ``e``, ``\infty``), letters, complex numbers that are linear in ``i``, tuples,
intervals and their unions, lists, sets, ``\pm``, matrices, ratios and equations. Two scalars are
equal when their values agree to 45 digits, at several points where they hold letters
(Schwartz-Zippel: two different expressions seldom agree at random points, and never at random
30-digit points by accident). Other letters make another expression, if the values differ too.

A scalar is no tuple, interval, union or matrix. Other forms of two kinds, such as a list and a
tuple, are left to the engine.

Not covered, and left to the engine as well: products and powers of ``i``, trigonometry, functions
of letters, inequalities, units, words, numbers beyond 10^30, and whatever can be read in two ways,
such as ``1/2x``. Whoever wrote the text, reading it takes linear time and little memory: text,
nesting and exponents are bounded.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from functools import lru_cache
from hashlib import blake2b
from math import comb, factorial
from typing import NamedTuple

_LONGEST, _DEEPEST, _MOST, _EXPONENT = 400, 40, 40, 1000
_MATH = Context(
    prec=80, Emax=10_000, Emin=-10_000, traps=[InvalidOperation, DivisionByZero, Overflow]
)
_LARGEST, _SMALLEST = Decimal("1e30"), Decimal("1e-30")
# Values are computed to 80 digits and stay between 1e-30 and 1e30, so that sums lose 30 at most.
_NEAR, _ZERO, _NOTHING = Decimal("1e-45"), Decimal("1e-48"), Decimal("1e-45")
_PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803"
)
_E = Decimal(
    "2.71828182845904523536028747135266249775724709369995957496696762772407663035354759457138"
)
_INFINITY = Decimal("Infinity")


class _Unread(Exception):
    """The text is no expression of a covered form."""


class _Undefined(Exception):
    """The expression has no value that can be computed here."""


Env = Mapping[str, Decimal]
Evaluate = Callable[[Env], Decimal]


class Scalar(NamedTuple):
    """An expression: its letters, how to evaluate it, and its decimals as they are written."""

    letters: frozenset[str]
    value: Evaluate
    text: str


class Several(NamedTuple):
    """Several forms in brackets, or a list or set without order when ``kind`` is ``set``.

    Attributes:
        kind: The two brackets, such as ``(]``; or ``set``, ``union``, ``row``, ``matrix``,
            ``ratio``.
        items: What stands between them.
        doubtful: Whether a comma may belong to a number: "(1,234)" has one item or two.
    """

    kind: str
    items: "tuple[Form, ...]"
    doubtful: bool = False


class Equation(NamedTuple):
    """Two sides."""

    left: Scalar
    right: Scalar


Form = Scalar | Several | Equation


def agree(one: str, other: str) -> bool | None:
    r"""Compare two bare answers by value; None when one of them is of no covered form.

    >>> agree(r"\frac{2}{\sqrt{2}}", r"\sqrt{2}"), agree("x+1", "x-1"), agree("x+1", r"\sin x")
    (True, False, None)
    """
    form, other_form = read(one), read(other)
    if form is None or other_form is None:
        return None
    try:
        return _same(form, other_form)
    except _Undefined:
        return None


def _same(one: Form, other: Form) -> bool | None:
    if _doubtful(one) or _doubtful(other):
        return _same_doubtful(one, other)
    match one, other:
        case Scalar(), Scalar():
            return _same_scalar(one, other)
        case Equation(), Equation():
            return _same_equation(one, other)
        case Several("set", items), Several("set", others):
            return _same_set(items, others)
        case Several("union", items), Several("union", others):
            return _same_set(items, others) or None  # [0,1] and (1,2] are (0,2]
        case Several("set", items), Scalar():
            return _same_set(items, (other,))
        case Scalar(), Several("set", items):
            return _same_set((one,), items)
        case Several("ratio", items), Several("ratio", others):
            same = len(items) == len(others) and _each(items, others)
            return same or None  # 2:4 is 1:2, but not where they are times
        case (Scalar() as scalar, Several("ratio", items)) | (
            Several("ratio", items),
            Scalar() as scalar,
        ):
            # 1:2 may be a half, but not a third.
            return None if len(items) == 2 and _is_share(scalar, *items) is not False else False
        case (Scalar(), Several()) | (Several(), Scalar()):
            return False
        case Several(kind, items), Several(other_kind, others) if kind == other_kind:
            return len(items) == len(others) and _each(items, others)
    return None


def _is_share(scalar: Scalar, top: Form, bottom: Form) -> bool | None:
    assert isinstance(top, Scalar)
    assert isinstance(bottom, Scalar)
    share = _binary("/", top.value, bottom.value)
    return _same_scalar(scalar, Scalar(top.letters | bottom.letters, share, ""))


def _doubtful(form: Form) -> bool:
    return isinstance(form, Several) and form.doubtful


def _same_doubtful(one: Form, other: Form) -> bool | None:
    """Compare item by item: with as many commas on both sides, it does not matter what they are."""
    match one, other:
        case Several(kind, items), Several(other_kind, others):
            if kind == other_kind and len(items) == len(others):
                same = _each(items, others)
                return same or None if kind == "set" else same
    return None


def _each(items: "tuple[Form, ...]", others: "tuple[Form, ...]") -> bool | None:
    return _all(_same(one, other) for one, other in zip(items, others, strict=True))


def _all(found: Iterator[bool | None]) -> bool | None:
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


# Three points; the last has letters of both signs, because sqrt(x^2) is not x.
def _points(letters: frozenset[str]) -> Iterator[Env]:
    for point in range(3):
        yield {
            name: _pseudo(name, point).copy_sign(
                Decimal(-1 if point == 2 and place % 2 == 0 else 1)
            )
            for place, name in enumerate(sorted(letters))
        }


@lru_cache(maxsize=256)
def _pseudo(name: str, point: int) -> Decimal:
    """Return a fixed number between 1 and 2, of 30 digits, that follows from a name."""
    digest = blake2b(f"{point}/{name}".encode(), digest_size=13).digest()
    return Decimal(f"1.{int.from_bytes(digest) % 10**30:030d}")


def _same_scalar(one: Scalar, other: Scalar) -> bool | None:
    if one.letters != other.letters and any(_WORD.search(side.text) for side in (one, other)):
        return None
    letters = one.letters | other.letters
    units = letters & {"i", "I"}
    if len(units) > 1:
        return None
    if units and not all(_linear(side, letters, *units) for side in (one, other)):
        return None
    computed = 0
    for point in _points(letters):
        values = [value_at(side, point) for side in (one, other)]
        if None in values:
            if values[0] is not values[1]:
                return None
            continue
        value, expected = values
        assert value is not None
        assert expected is not None
        if not _near(value, expected):
            return _rounded(one, other, value, expected)
        computed += 1
    return True if computed else None


def _linear(side: Scalar, letters: frozenset[str], unit: str) -> bool:
    """Tell whether a value is a + bi, so that i can be treated like any other letter."""
    point = next(_points(letters))
    at = [value_at(side, {**point, unit: Decimal(place)}) for place in (-3, 0, 2, 7)]
    found = [value for value in at if value is not None and value.is_finite()]
    if len(found) < len(at):
        return False
    low, start, middle, high = found
    slope = _MATH.divide(_MATH.subtract(high, start), Decimal(7))
    return all(
        _near(_MATH.subtract(value, start), _MATH.multiply(slope, Decimal(place)))
        for value, place in ((low, -3), (middle, 2))
    )


def value_at(side: Scalar, point: Env) -> Decimal | None:
    """Evaluate a scalar where its letters have these values; None where it has no value."""
    try:
        return side.value(point)
    except (_Undefined, InvalidOperation, DivisionByZero, Overflow):
        return None


def _near(one: Decimal, other: Decimal) -> bool:
    if one == other:
        return True
    if one.is_infinite() or other.is_infinite():
        return False
    apart = _MATH.subtract(one, other).copy_abs()
    return apart <= _ZERO or apart <= _MATH.multiply(max(one.copy_abs(), other.copy_abs()), _NEAR)


_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3}")  # "the cat" is no product
_DECIMAL = re.compile(r"-? ?\d*\.\d+")


def _rounded(one: Scalar, other: Scalar, value: Decimal, expected: Decimal) -> bool | None:
    """Accept a decimal of six digits or more for the exact value that rounds to it."""
    for short, exact in ((one, other), (other, one)):
        if "." not in short.text or "." in exact.text:
            continue
        digits = re.sub(r"\D", "", short.text).lstrip("0")
        if len(digits) < 6:
            continue
        if not _DECIMAL.fullmatch(short.text):
            return None
        place = len(short.text.partition(".")[2])
        return _MATH.subtract(value, expected).copy_abs() < Decimal(1).scaleb(-place)
    return False


def _same_equation(one: Equation, other: Equation) -> bool | None:
    """Tell whether left minus right of both are proportional: y = 2x and 2x - y = 0."""
    letters = one.left.letters | one.right.letters
    if letters != other.left.letters | other.right.letters or not letters:
        return None
    ratios = []
    for point in _points(letters):
        values = [value_at(side, point) for side in (*one, *other)]
        if None in values or any(value is None or value.is_infinite() for value in values):
            return None
        left, right, other_left, other_right = (value for value in values if value is not None)
        below = _MATH.subtract(other_left, other_right)
        if _near(below, Decimal(0)):
            return None
        ratios.append(_MATH.divide(_MATH.subtract(left, right), below))
    return all(_near(ratio, ratios[0]) for ratio in ratios) and not _near(ratios[0], Decimal(0))


# --- reading ----------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def read(text: str) -> Form | None:
    """Read a bare answer; None when it is of no covered form."""
    if len(text) > _LONGEST or text.count("$") % 2 or _ADJACENT.search(text):
        return None
    if r"\$" not in text:
        text = text.replace("$", " ")
    text = _DEGREES.sub("", text)
    try:
        return _read(text, 0)
    except (_Unread, _Undefined, InvalidOperation, DivisionByZero, Overflow):
        return None


# Dollar signs stand around the items of a list; "$2$ $3$" is none.
_ADJACENT = re.compile(r"[\w)}\]!] *\$+ *\$+ *[\w\\({\[]")
_DEGREES = re.compile(r" ?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})")
_AND = re.compile(r"\\text ?\{,? ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or|OR)(?![A-Za-z])|;")
_MATRIX = re.compile(r"\\begin ?\{([pb])matrix\}(.*)\\end ?\{\1matrix\}")
_THOUSANDS = re.compile(r"\d,\d{3}(?!\d)")
_NESTED = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def _read(text: str, depth: int) -> Form:
    text = text.strip()
    if depth > 4 or not text:
        raise _Unread
    if found := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in found[2].split("\\\\") if row.strip()]
        read_rows = tuple(Several("row", tuple(_scalar(cell) for cell in row)) for row in rows)
        return Several("matrix", read_rows)
    parts = _split(_AND.sub(",", text))
    if len(parts) > 1:
        items = tuple(_read(part, depth + 1) for part in parts if part.strip())
        return Several("set", items, _THOUSANDS.search(text) is not None)
    text = parts[0].strip()
    if r"\cup" in text:
        return Several("union", tuple(_read(part, depth + 1) for part in text.split(r"\cup")))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        items = tuple(_read(part, depth + 1) for part in _split(text[2:-2]))
        return Several("set", items, _THOUSANDS.search(text) is not None)
    if text[0] in "([" and text[-1] in ")]" and _one_bracket(text):
        inside = _split(text[1:-1])
        if len(inside) > 1:
            items = tuple(_read(part, depth + 1) for part in inside)
            return Several(text[0] + text[-1], items, _THOUSANDS.search(text) is not None)
    if ":" in text:
        return Several("ratio", tuple(_scalar(part) for part in text.split(":")))
    if "=" in text:
        left, _, right = text.partition("=")
        if "=" in right or r"\pm" in text:
            raise _Unread
        return Equation(_scalar(left), _scalar(right))
    if r"\pm" in text:
        if text.count(r"\pm") > 1:
            raise _Unread
        both = (text.replace(r"\pm", sign) for sign in "+-")
        return Several("set", tuple(_scalar(one) for one in both))
    return _scalar(text)


def _one_bracket(text: str) -> bool:
    """Tell whether the first bracket closes at the end."""
    depth = 0
    for mark in text[:-1]:
        depth += _NESTED.get(mark, 0)
        if depth == 0:
            return False
    return True


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets; brackets of intervals need not match."""
    parts, depth, start = [], 0, 0
    for place, mark in enumerate(text):
        depth += _NESTED.get(mark, 0)
        if depth < 0:
            raise _Unread
        if mark == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    if depth:
        raise _Unread
    if len(parts) > _MOST:
        raise _Unread  # sets are compared item by item
    return [*parts, text[start:]]


_GREEK = (
    "alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|omega"
)
_TOKEN = re.compile(
    rf"""
    (?P<number> \d+(?:\.\d+)? | \.\d+ )
  | (?P<letter> (?: \\(?:{_GREEK})(?![A-Za-z]) | [A-Za-z](?![A-Za-z]) )
      (?: \ ?_\ ?(?: [A-Za-z0-9] | \{{[A-Za-z0-9]{{1,8}}\}} ) )? )
  | (?P<word> [A-Za-z]{{2,}} )
  | (?P<command> \\(?:frac|sqrt|binom|pi|infty|cdot|times|div|ln|log)(?![A-Za-z]) )
  | (?P<mark> \*\*|[-+*/^!_(){{}}\[\]] )
  | \ +
    """,
    re.VERBOSE,
)
_WORDS = {"pi": r"\pi", "sqrt": r"\sqrt", "infinity": r"\infty", "inf": r"\infty"}
# Short words that are no product of letters: units, functions, small words of a sentence.
_NO_PRODUCT = re.compile(
    r"(?i)an|as|at|be|by|cm|cos|cot|csc|deg|do|exp|ft|gal|gcd|hr|if|in|is|it|kg|km|lb|lcm|ln|log|max"
    r"|min|mi|mg|ml|mm|mod|no|nm|of|on|or|oz|pm|qt|sec|sin|so|tan|to|up|we|yd"
)
# A letter before a bracket is a factor, unless it is how functions are called.
_FUNCTIONS = frozenset("fghFGHPQpqT")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise _Unread
        place = found.end()
        if word := found["word"]:
            if word in _WORDS:
                tokens.append(_WORDS[word])
            elif len(word) > 3 or _NO_PRODUCT.fullmatch(word):
                raise _Unread
            else:
                tokens.extend(word)
        elif letter := found["letter"]:
            tokens.append(re.sub(r"[ {}]", "", letter))
        elif token := found[0].strip():
            tokens.append("^" if token == "**" else token)
    return tokens


@lru_cache(maxsize=1024)
def _scalar(text: str) -> Scalar:
    reader = _Reader(_tokens(text))
    value = reader.sum()
    if reader.here is not None:
        raise _Unread
    letters = frozenset(reader.letters)
    if not letters:
        constant = value({})
        return Scalar(letters, lambda point: constant, text.strip())
    return Scalar(letters, value, text.strip())


class _Reader:
    """Reads tokens into nested functions; every method leaves `at` behind what it read."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.letters: set[str] = set()

    @property
    def here(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, *wanted: str) -> str | None:
        token = self.here
        if token is None or token not in wanted:
            return None
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise _Unread

    def sum(self) -> Evaluate:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Unread
        sign = self.take("+", "-")
        total = self.product()
        if sign == "-":
            total = _unary(total)
        while sign := self.take("+", "-"):
            if sign == "+" and self.take("-"):
                sign = "-"  # a + -b
            if self.here in ("+", "-"):
                raise _Unread
            total = _binary(sign, total, self.product())
        self.depth -= 1
        return total

    def product(self) -> Evaluate:
        total = self.power()
        divided = False
        while self.here is not None:
            sign = self.take("*", r"\cdot", r"\times", "/", r"\div")
            if sign is None:
                if not self.starts_factor():
                    break
                if divided or (self.tokens[self.at - 1][-1].isdigit() and self.mixed()):
                    raise _Unread  # 1/2x, 1 1/2
                total = _binary("*", total, self.power())
                continue
            minus = self.take("-")
            factor = self.power()
            divided = sign in ("/", r"\div")
            total = _binary("/" if divided else "*", total, _unary(factor) if minus else factor)
        return total

    def starts_factor(self) -> bool:
        token = self.here
        return token is not None and (token[0] in "({." or token[0].isalnum() or token[0] == "\\")

    def mixed(self) -> bool:
        r"""Tell whether an integer before this place may belong to a mixed number: 1\frac{1}{2}."""
        token = self.here or ""
        if token[0].isdigit():
            return True
        bottom = self.tokens[self.at + 1 : self.at + 7]
        return token == r"\frac" and all(part[0] in "{}" or part.isdigit() for part in bottom)

    def power(self) -> Evaluate:
        base_token = self.here or ""
        base = self.primary()
        if self.take("!"):
            base = _factorial(base)
            if self.here == "!":
                raise _Unread
        if self.take("^"):
            base = _power(base, self.argument())
            if self.here in ("^", "!"):
                raise _Unread
        elif base_token in _FUNCTIONS and self.here == "(":
            raise _Unread
        return base

    def argument(self) -> Evaluate:
        token = self.here
        if token == "{":
            return self.primary()
        if token is not None and token.isdigit() and len(token) > 1:
            raise _Unread  # x^23 is x^{23} to one writer and x^2 3 to another
        if token == "-":
            self.at += 1
            return _unary(self.argument())
        if token is None or not (token.isalnum() or token in ("(", r"\pi", r"\frac", r"\sqrt")):
            raise _Unread
        return self.primary()

    def primary(self) -> Evaluate:
        token = self.here
        if token is None:
            raise _Unread
        self.at += 1
        if token[0].isdigit() or token[0] == ".":
            number = _bounded(Decimal(token))
            return lambda point: number
        if token in ("(", "{"):
            inside = self.sum()
            self.expect(")" if token == "(" else "}")
            return inside
        if token == r"\frac":
            top = self.argument()
            return _binary("/", top, self.argument())
        if token == r"\sqrt":
            root: Evaluate = lambda point: Decimal(2)  # noqa: E731 - one of three alike
            if self.take("["):
                root = self.sum()
                self.expect("]")
            return _root(self.argument(), root)
        if token == r"\binom":
            top = self.argument()
            return _binomial(top, self.argument())
        if token == r"\ln":
            return _logarithm(self.lone(), None)
        if token == r"\log":
            self.expect("_")
            base = self.argument()
            return _logarithm(self.lone(), base)
        if token in _CONSTANTS:
            constant = _CONSTANTS[token]
            return lambda point: constant
        if token[0].isalpha() or (token[0] == "\\" and token not in (r"\cdot", r"\times", r"\div")):
            self.letters.add(token)
            return lambda point: point[token]
        raise _Unread

    def lone(self) -> Evaluate:
        """Read the argument of a function: one factor, with nothing that might belong to it."""
        bracket = self.here in ("(", "{")
        found = self.primary()
        if self.here == "^" or (not bracket and self.starts_factor()):
            raise _Unread
        return found


_CONSTANTS = {r"\pi": _PI, "e": _E, r"\infty": _INFINITY}


def _bounded(value: Decimal) -> Decimal:
    if value.is_finite() and value and not _SMALLEST <= value.copy_abs() <= _LARGEST:
        # What is left of a difference of equal values is zero; other small numbers are not known
        # to enough digits.
        if value.copy_abs() <= _NOTHING:
            return Decimal(0)
        raise _Undefined
    return value


def _unary(value: Evaluate) -> Evaluate:
    # The minus sign of Decimal would round to the digits of the caller's context.
    return lambda point: value(point).copy_negate()


_OPERATIONS = {"+": _MATH.add, "-": _MATH.subtract, "*": _MATH.multiply, "/": _MATH.divide}


def _binary(sign: str, one: Evaluate, other: Evaluate) -> Evaluate:
    operation = _OPERATIONS[sign]
    if sign == "/":

        def divide(point: Env) -> Decimal:
            below = other(point)
            if not below or below.is_infinite():
                raise _Undefined
            return _bounded(operation(one(point), below))

        return divide
    return lambda point: _bounded(operation(one(point), other(point)))


def _power(base: Evaluate, exponent: Evaluate) -> Evaluate:
    def power(point: Env) -> Decimal:
        value, times = base(point), exponent(point)
        if times.copy_abs() > _EXPONENT or value.is_infinite():
            raise _Undefined
        if value < 0 and times != times.to_integral_value():
            raise _Undefined
        if not value and times <= 0:
            raise _Undefined
        return _bounded(_MATH.power(value, times))

    return power


def _root(value: Evaluate, root: Evaluate) -> Evaluate:
    def take(point: Env) -> Decimal:
        inside, degree = value(point), root(point)
        if degree == 2 and inside >= 0:
            return _bounded(_MATH.sqrt(inside))
        if not (2 <= degree <= 100 and degree == int(degree)) or inside.is_infinite():
            raise _Undefined
        if inside < 0 and degree % 2 == 0:
            raise _Undefined
        size = (
            _MATH.power(inside.copy_abs(), _MATH.divide(Decimal(1), degree)) if inside else inside
        )
        return _bounded(size.copy_sign(inside))

    return take


def _whole(value: Decimal) -> int:
    if not value.is_finite() or value != value.to_integral_value() or not 0 <= value <= 28:
        raise _Undefined  # 28! is the last below 10^30
    return int(value)


def _factorial(value: Evaluate) -> Evaluate:
    return lambda point: _bounded(Decimal(factorial(_whole(value(point)))))


def _binomial(top: Evaluate, bottom: Evaluate) -> Evaluate:
    return lambda point: Decimal(comb(_whole(top(point)), _whole(bottom(point))))


def _logarithm(value: Evaluate, base: Evaluate | None) -> Evaluate:
    def take(point: Env) -> Decimal:
        inside = value(point)
        below = _MATH.ln(base(point)) if base and base(point) > 0 else Decimal(1)
        if inside <= 0 or inside.is_infinite() or not below or (base and base(point) <= 0):
            raise _Undefined
        return _bounded(_MATH.divide(_MATH.ln(inside), below))

    return take
