r"""Read the common forms of a final answer: scalars, tuples, intervals, lists, matrices, equations.

Covered: sums, products, fractions, roots, powers, factorials, binomials, logarithms with a base,
floors and ceilings, absolute values, functions of angles, repeating decimals, constants (``\pi``,
``e``, ``\infty``), letters, ``f(x)`` of a lone letter or number, tuples, intervals, also as
inequalities, their unions, lists, sets, ``\pm``, matrices, ratios, equations and inequalities.

Not covered: units, words, sums with dots, congruences, and whatever can be read in two ways, such
as ``1/2x``. Whoever wrote the text, reading it takes linear time and little memory: text, nesting
and exponents are bounded.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from stillroom.verifiers import ball
from stillroom.verifiers.ball import SIGNALS, Ball, Undefined, exactly

_LONGEST, _DEEPEST, _MOST = 400, 40, 40


class _Unread(Exception):
    """The text is no expression of a covered form."""


Env = Mapping[str, Ball]
Evaluate = Callable[[Env], Ball]


class Scalar(NamedTuple):
    """An expression.

    Attributes:
        letters: Its letters, subscripts included; "f(x)" is one of them.
        value: How to evaluate it where letters have values.
        text: As it is written.
        steps: Whether it has a floor or a ceiling.
    """

    letters: frozenset[str]
    value: Evaluate
    text: str
    steps: bool = False


class Several(NamedTuple):
    """Several forms in brackets, or a list or set without order when ``kind`` is ``set``.

    Attributes:
        kind: The two brackets, such as ``(]``; or ``set``, ``union``, ``row``, ``matrix``,
            ``ratio``.
        items: What stands between them.
        other: The other reading, where commas may belong to numbers: "(1,234)" has two items or
            one.
        letter: What is said to lie in it: the x of "x > 3", which is the interval from 3.
    """

    kind: str
    items: "tuple[Form, ...]"
    other: "Form | None" = None
    letter: str = ""


class Equation(NamedTuple):
    """Two sides."""

    left: Scalar
    right: Scalar


class Inequality(NamedTuple):
    """Two sides of which the first is less, or not greater; no interval of a lone letter."""

    left: Scalar
    right: Scalar


Form = Scalar | Several | Equation | Inequality


@lru_cache(maxsize=1024)
def read(text: str) -> Form | None:
    """Read a bare answer; None when it is of no covered form."""
    if len(text) > _LONGEST or text.count("$") % 2 or _ADJACENT.search(text):
        return None
    if r"\$" not in text:
        text = text.replace("$", " ")
    text = _DEGREES.sub(r"\\degree " if _ANGLES.search(text) else "", text)
    try:
        return _read(text, 0)
    except (_Unread, Undefined, *SIGNALS):
        return None


# Dollar signs stand around the items of a list; "$2$ $3$" is none.
_ADJACENT = re.compile(r"[\w)}\]!] *\$+ *\$+ *[\w\\({\[]")
_DEGREES = re.compile(r" ?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})")
_ANGLES = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_AND = re.compile(r"\\text ?\{,? ?(?:and|or) ?\}|(?<![A-Za-z\\])(?:and|or|OR)(?![A-Za-z])|;")
_MATRIX = re.compile(r"\\begin ?\{([pb])matrix\}(.*)\\end ?\{\1matrix\}")
_THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:,\d{3})+(?!\d)")
_MEMBER = re.compile(r"(\\?[A-Za-z]+) ?\\in(?![A-Za-z])")
_ORDER = re.compile(r"(\\(?:le|ge|lt|gt)(?:q|qslant|slant)?(?![A-Za-z])|[<>]=?)")
_NESTED = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


def _read(text: str, depth: int) -> Form:
    found = _read_once(text, depth)
    if not isinstance(found, Several) or not _THOUSANDS.search(text):
        return found
    return found._replace(other=_read_once(_THOUSANDS.sub(_joined, text), depth))


def _joined(found: re.Match[str]) -> str:
    return found[0].replace(",", "")


def _read_once(text: str, depth: int) -> Form:
    text = text.strip()
    if depth > 4 or not text:
        raise _Unread
    if found := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in found[2].split("\\\\") if row.strip()]
        read_rows = tuple(Several("row", tuple(_scalar(cell) for cell in row)) for row in rows)
        return Several("matrix", read_rows)
    parts = _split(_AND.sub(",", text))
    if len(parts) > 1:
        items = tuple(_read_once(part, depth + 1) for part in parts if part.strip())
        if any(isinstance(i, Inequality) or (isinstance(i, Several) and i.letter) for i in items):
            raise _Unread  # "x > 1 and x < 3" is no list
        return Several("set", items)
    text = parts[0].strip()
    if found := _MEMBER.match(text):
        inside = _read_once(text[found.end() :], depth + 1)
        if not isinstance(inside, Several):
            raise _Unread
        return inside._replace(letter=found[1])
    if r"\cup" in text:
        return Several("union", tuple(_read_once(p, depth + 1) for p in text.split(r"\cup")))
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return Several("set", tuple(_read_once(p, depth + 1) for p in _split(text[2:-2])))
    if text[0] in "([" and text[-1] in ")]" and _one_bracket(text):
        parts = _split(text[1:-1])
        if len(parts) > 1 or text[0] == "[":
            items = tuple(_read_once(part, depth + 1) for part in parts)
            return Several(text[0] + text[-1], items)
    if _ORDER.search(text):
        return _inequality(text)
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


def _inequality(text: str) -> Form:
    r"""Read "x > 3" and "1 < x \le 2" as intervals, others as they are."""
    first, *rest = _ORDER.split(text)
    sides = [_scalar(side) for side in (first, *rest[1::2])]
    signs = [sign.replace(r"\lt", "<").replace(r"\gt", ">") for sign in rest[::2]]
    if len(sides) > 3 or len({"<" in sign or r"\l" in sign for sign in signs}) > 1:
        raise _Unread
    closed = [sign not in "<>" for sign in signs]
    if not ("<" in signs[0] or r"\l" in signs[0]):
        sides, closed = sides[::-1], closed[::-1]
    if len(sides) == 3:
        low, middle, high = sides
        if not _lone(middle, low, high):
            raise _Unread
        kind = "(["[closed[0]] + ")]"[closed[1]]
        return Several(kind, (low, high), letter=middle.text)
    low, high = sides
    if _lone(low, high):
        return Several("(" + ")]"[closed[0]], (_MINUS_INFINITY, high), letter=low.text)
    if _lone(high, low):
        return Several("(["[closed[0]] + ")", (low, _PLUS_INFINITY), letter=high.text)
    return Inequality(low, high)


def _lone(one: Scalar, *others: Scalar) -> bool:
    """Tell whether a side is one letter that the others lack."""
    letter = re.sub(r"[ {}]", "", one.text)
    return one.letters == {letter} and not any(one.letters & other.letters for other in others)


_MINUS_INFINITY = Scalar(frozenset(), lambda point: ball.negative(ball.INFINITY), r"-\infty")
_PLUS_INFINITY = Scalar(frozenset(), lambda point: ball.INFINITY, r"\infty")


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
_SINES = {
    r"\sin": ball.sine, r"\cos": ball.cosine, r"\tan": ball.tangent, r"\cot": ball.cotangent,
    r"\sec": ball.secant, r"\csc": ball.cosecant, r"\arcsin": ball.arcsine,
    r"\arccos": ball.arccosine, r"\arctan": ball.arctangent,
}  # fmt: skip
_COMMANDS = "|".join(
    ["frac|sqrt|binom|pi|infty|cdot|times|div|ln|log|exp|degree|[lr]floor|[lr]ceil"]
    + [name[1:] for name in _SINES]
)
_TOKEN = re.compile(
    rf"""
    (?P<repeating> \d*\.\d*\\overline\ ?\{{\ ?\d+\ ?\}} )
  | (?P<number> \d+(?:\.\d+)? | \.\d+ )
  | (?P<letter> (?: \\(?:{_GREEK})(?![A-Za-z]) | [A-Za-z](?![A-Za-z]) )
      (?: \ ?_\ ?(?: [A-Za-z0-9] | \{{[A-Za-z0-9]{{1,8}}\}} ) )? )
  | (?P<word> [A-Za-z]{{2,}} )
  | (?P<command> \\(?:{_COMMANDS})(?![A-Za-z]) )
  | (?P<mark> \*\*|[-+*/^!_(){{}}\[\]|] )
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
_CLOSERS = (r"\cdot", r"\times", r"\div", r"\rfloor", r"\rceil", r"\degree")


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
    return Scalar(letters, value, text.strip(), reader.steps)


class _Reader:
    """Reads tokens into nested functions; every method leaves `at` behind what it read."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = False
        self.letters: set[str] = set()
        self.steps = False

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
            total = _of(ball.negative, total)
        while sign := self.take("+", "-"):
            if sign == "+" and self.take("-"):
                sign = "-"  # a + -b
            if self.here in ("+", "-"):
                raise _Unread
            total = _of(ball.add if sign == "+" else ball.subtract, total, self.product())
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
                total = _of(ball.multiply, total, self.power())
                continue
            minus = self.take("-")
            factor = self.power()
            divided = sign in ("/", r"\div")
            factor = _of(ball.negative, factor) if minus else factor
            total = _of(ball.divide if divided else ball.multiply, total, factor)
        return total

    def starts_factor(self) -> bool:
        token = self.here
        if token is None or token in _CLOSERS:
            return False
        return token[0] in "({.\\" or token[0].isalnum() or (token == "|" and not self.bars)

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
            base = _of(ball.rising, base)
            if self.here == "!":
                raise _Unread
        if self.take("^"):
            base = _of(ball.power, base, self.argument())
            if self.here in ("^", "!"):
                raise _Unread
        elif base_token in _FUNCTIONS and self.here == "(":
            raise _Unread
        return self.with_degree(base)

    def with_degree(self, value: Evaluate) -> Evaluate:
        return _of(ball.multiply, value, _constant(ball.DEGREE)) if self.take(r"\degree") else value

    def argument(self) -> Evaluate:
        token = self.here
        if token == "{":
            return self.primary()
        if token is not None and token.isdigit() and len(token) > 1:
            raise _Unread  # x^23 is x^{23} to one writer and x^2 3 to another
        if token == "-":
            self.at += 1
            return _of(ball.negative, self.argument())
        if token is None or not (token.isalnum() or token in ("(", r"\pi", r"\frac", r"\sqrt")):
            raise _Unread
        return self.primary()

    def primary(self) -> Evaluate:
        token = self.here
        if token is None:
            raise _Unread
        self.at += 1
        if r"\overline" in token:
            return _constant(_repeating(token))
        if token[0].isdigit() or token[0] == ".":
            return _constant(exactly(Decimal(token)))
        if token in _CLOSED_BY:
            return self.bracketed(token)
        if token == r"\frac":
            top = self.argument()
            return _of(ball.divide, top, self.argument())
        if token == r"\sqrt":
            degree = _constant(exactly(2))
            if self.take("["):
                degree = self.sum()
                self.expect("]")
            return _of(ball.root, self.argument(), degree)
        if token == r"\binom":
            top = self.argument()
            return _of(ball.choose, top, self.argument())
        if token == r"\ln":
            return _of(ball.logarithm, self.lone())
        if token == r"\exp":
            return _of(ball.power, _constant(ball.E), self.lone())
        if token == r"\log":
            self.expect("_")
            base = self.argument()
            return _of(ball.logarithm, self.lone(), base)
        if token in _SINES:
            return self.sine(_SINES[token])
        if token in _CONSTANTS:
            return _constant(_CONSTANTS[token])
        if token[0].isalpha() or (token[0] == "\\" and token not in _CLOSERS):
            return self.letter(self.called(token))
        raise _Unread

    def bracketed(self, opened: str) -> Evaluate:
        if opened == "|":
            if self.bars:
                raise _Unread  # which of them open, and which close?
            self.bars = True
        inside = self.sum()
        self.expect(_CLOSED_BY[opened])
        if opened == "|":
            self.bars = False
            return _of(ball.absolute, inside)
        if opened in (r"\lfloor", r"\lceil"):
            self.steps = True
            return _of(ball.floor if opened == r"\lfloor" else ball.ceiling, inside)
        return inside

    def letter(self, name: str) -> Evaluate:
        self.letters.add(name)
        return lambda point: point[name]

    def called(self, token: str) -> str:
        """Read "(x)" after f, so that f(x) is a letter of its own."""
        call = self.tokens[self.at : self.at + 3]
        if token not in _FUNCTIONS or len(call) < 3 or (call[0], call[2]) != ("(", ")"):
            return token
        if not (call[1].isalnum() or call[1].startswith("\\")):
            return token
        self.at += 3
        if self.here == "(":
            raise _Unread  # f(x)(y)
        return f"{token}({call[1]})"

    def lone(self) -> Evaluate:
        """Read the argument of a function: one factor, with nothing that might belong to it."""
        bracket = self.here in ("(", "{")
        found = self.primary()
        if self.here == "^" or (not bracket and self.starts_factor()):
            raise _Unread
        return found

    def sine(self, function: Callable[[Ball], Ball]) -> Evaluate:
        r"""Read what follows \sin: a power of it, then "(x)", "3x", "13 degrees"."""
        times: Evaluate | None = None
        if self.take("^"):
            if not (self.here or "").isdigit():
                raise _Unread  # \sin^{-1}
            times = self.argument()
        if self.here in ("(", "{"):
            angle = self.primary()
            if self.here in ("^", r"\degree", "!"):
                raise _Unread
        else:
            angle = self.angle()
        found = _of(function, angle)
        return _of(ball.power, found, times) if times else found

    def angle(self) -> Evaluate:
        """Read factors up to the first letter, which must be the last."""
        total: Evaluate | None = None
        while (token := self.here) is not None:
            first = total is None and (token[0].isdigit() or token in (r"\frac", r"\sqrt"))
            letter = token not in _SINES and token.removeprefix("\\").isalpha()
            if not first and (token != r"\pi") and (not letter or token in _NO_LETTERS):
                break
            factor = self.with_degree(self.primary())
            total = _of(ball.multiply, total, factor) if total else factor
            if letter and token not in _CONSTANTS and not first:
                break
        if total is None or self.here in ("^", "/", "!", "(", "[", "_", "|"):
            raise _Unread
        if self.starts_factor() and self.here not in _SINES:
            raise _Unread
        return total


_CLOSED_BY = {"(": ")", "{": "}", "|": "|", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_CONSTANTS = {r"\pi": ball.PI, "e": ball.E, r"\infty": ball.INFINITY}
_NO_LETTERS = frozenset(
    [*_CLOSERS, r"\frac", r"\sqrt", r"\binom", r"\ln", r"\log", r"\exp", r"\lfloor", r"\lceil"]
)


def _constant(value: Ball) -> Evaluate:
    return lambda point: value


def _of(function: Callable[..., Ball], *arguments: Evaluate) -> Evaluate:
    if len(arguments) == 1:
        (one,) = arguments
        return lambda point: function(one(point))
    one, other = arguments
    return lambda point: function(one(point), other(point))


def _repeating(token: str) -> Ball:
    r"""Return the value of "1.2\overline{34}": digits, then those that repeat for ever."""
    written, _, repeated = token.partition(r"\overline")
    digits = re.sub(r"\D", "", repeated)
    place = len(written.partition(".")[2])
    start, end = int("0" + written.replace(".", "")), int("0" + written.replace(".", "") + digits)
    return ball.divide(exactly(end - start), exactly(10**place * (10 ** len(digits) - 1)))
