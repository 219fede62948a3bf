r"""Verify final answers of mathematics: our own rules first, math-verify for the rest.

Measured by kind of edit in ``docs/verification.md``.

The final answer is taken by `stillroom.text.answers`, stripped of wrappers (dollar signs, bold,
``\text``, ``\boxed``, a closing full stop, ``x =``), and compared with the reference:

1. The same text is the same answer.
2. Numbers in another base ("4210_7") are compared digit by digit and base by base.
3. Two numbers (integers, decimals, fractions, mixed and scientific notation, with thousands
   separators, currency, units) are compared exactly. Integer-like answers end here, and no
   process is started for them.
4. Words and letters are compared as words.
5. A pair in other brackets is another answer: ``(3,5)`` is a point, ``[3,5]`` an interval.
6. The common forms of expressions, tuples, intervals, lists, matrices and equations are compared
   by value; see `stillroom.verifiers.expression`.
7. Prose, on either side, is undecided: a reader that looks for mathematics in it finds a part.
8. Everything else goes to math-verify in worker processes with limits on time and memory.

Decisions that a reader may want to know:

- **Per cent.** "10%" equals "0.1", and also "10", because references of questions that ask "how
  many per cent" leave the sign out. Not so where only the answer has the sign and the reference is
  below 1: there "0.1%" is not "0.1".
- **Units.** A unit on one side is ignored. Different units on both sides are undecided: nobody
  converts here.
- **Bases.** The right digits without the base are undecided.
- **Rounding.** A decimal with six or more significant digits equals the fraction or the irrational
  number that rounds to it. Two decimals are equal only if they are the same number.
- **Order.** Lists and sets without brackets have no order, as in math-verify.
- Text that cannot be read is undecided, whichever side it is on, and so is division by zero.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from types import TracebackType
from typing import NamedTuple, Self

from stillroom.text.answers import Extracted, choice_letter, extract_answer
from stillroom.verifiers.expression import agree
from stillroom.verifiers.pool import Failure, Limits, Pool
from stillroom.verifiers.reader import read
from stillroom.verifiers.verdict import Outcome, Task, Verdict

_LONGEST = 4000  # characters of a final answer; proofs in a box are no final answers
_UNREAD = {
    "answer": "the answer cannot be read as mathematics",
    "reference": "the reference cannot be read as mathematics",
    "both": "neither side can be read as mathematics",
}


class MathVerifier:
    """Compare values; workers start when the first pair needs math-verify."""

    def __init__(self, *, workers: int = 1, limits: Limits | None = None):
        """Make a verifier.

        Args:
            workers: Processes; verdicts do not depend on their number.
            limits: What each may use.
        """
        self.name = f"math/5 math-verify {version('math-verify')}"
        self.pool = Pool("stillroom.verifiers.math_worker", workers=workers, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pool.close()

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks.

        Raises:
            VerifierError: If a worker cannot start.
        """
        found = [extract_answer(task.answer) for task in tasks]
        decisions = [_decide(one, task.reference) for one, task in zip(found, tasks, strict=True)]
        asked = [decision for decision in decisions if isinstance(decision, _Pair)]
        # Draws of one question often end in the same text.
        pairs = list(dict.fromkeys(asked))
        replies = dict(zip(pairs, self.pool.map(pairs), strict=True))
        verdicts = []
        for one, decision in zip(found, decisions, strict=True):
            if isinstance(decision, _Pair):
                decision = _judged(replies[decision])
            text, rule = one or (None, None)
            verdicts.append(Verdict(decision.outcome, text, rule, decision.detail, self.name))
        return verdicts


class _Decision(NamedTuple):
    outcome: Outcome
    detail: str | None = None


class _Pair(NamedTuple):
    """What goes to a worker."""

    answer: str
    reference: str


_CORRECT, _INCORRECT = _Decision("correct"), _Decision("incorrect")
_PROSE_DECISION = _Decision("unparsed", "words that only a reader can judge")


def _decide(found: Extracted | None, reference: str | None) -> _Decision | _Pair:
    if reference is None or not reference.strip():
        return _Decision("no_reference")
    if found is None:
        return _Decision("unparsed", "no final answer")
    if len(found.text) > _LONGEST or len(reference) > _LONGEST:
        detail = f"{max(len(found.text), len(reference))} characters; at most {_LONGEST} are read"
        return _Decision("unparsed", detail)
    return compare(found.text, reference)


def _judged(reply: str | Failure) -> _Decision:
    if isinstance(reply, Failure):
        return _Decision("error", f"{reply.reason}: {reply.detail}")
    if reply == "correct":
        return _CORRECT
    if reply == "incorrect":
        return _INCORRECT
    return _Decision("unparsed", _UNREAD[reply])


def compare(answer: str, reference: str) -> _Decision | _Pair:
    """Compare two final answers by the rules that need no engine, or return what to ask it."""
    one, other = bare(answer), bare(reference)
    if not one or not other:
        return _Decision("unparsed", f"the {'reference' if one else 'answer'} is empty")
    if _letters_and_signs(one) == _letters_and_signs(other):
        return _CORRECT
    one, other = _right_sides(one, other)
    if decision := _compare_bases(one, other) or _compare_numbers(one, other):
        return decision
    if decision := _compare_words(one, other) or _compare_brackets(one, other):
        return decision
    (one, unit), (other, other_unit) = _without_unit(one), _without_unit(other)
    if unit and other_unit and unit != other_unit:
        return _Decision("unparsed", f"other units: {unit} against {other_unit}")
    same = agree(one, other)
    if same is not None:
        return _CORRECT if same else _INCORRECT
    if any(_PROSE.search(_COMMAND.sub(" ", text)) for text in (one, other)):
        return _PROSE_DECISION
    return _Pair(one, other)


# --- wrappers ---------------------------------------------------------------------------------

_SYMBOLS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "⁄": "/", "π": r"\pi ",
    "∞": r"\infty ", "°": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ",
    "∩": r"\cap ", "√": r"\sqrt ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "²": "^2", "³": "^3", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "％": "%", "，": ",",
    "（": "(", "）": ")", "＋": "+", "－": "-", "＝": "=",
}  # fmt: skip
_TRANSLATION = str.maketrans(_SYMBOLS)
_SPACING = re.compile(
    r"(?<!\\)\\(?:[,;:!> ]|(?:q?quad|displaystyle|textstyle|limits)(?![A-Za-z]))|~|[\s\u200b]+"
)
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?(?=[\s()\[\]|{}\\]|$)")
_UPRIGHT_CONSTANT = re.compile(r"\\(?:mathrm|rm|text|operatorname)\s*\{\s*([ei])\s*\}")
_SHORT_FRACTION = re.compile(
    r"\\frac\s*(\d)\s*(\d)(?!\d)|\\frac\s*(\d)\s*\{([^{}]*)\}|\\frac\s*\{([^{}]*)\}\s*(\d)"
)
_BRACED_THOUSANDS = re.compile(r"\{\d{1,3}(?:,\d{3})+\}")
_WRAPPER = re.compile(
    r"\\(?:boxed|fbox|text(?:bf|it|rm|normal)?|mathrm|mathbf|mathit|bf|rm|mbox|ensuremath)\s*(?=\{)"
)
_PAIRS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))


@lru_cache(maxsize=1024)
def bare(text: str) -> str:
    r"""Return a final answer without the wrappers that do not change its value.

    >>> bare(r"$\boxed{\dfrac{1}{2}}$."), bare(r"**\text{Evelyn}**")
    ('\\frac{1}{2}', 'Evelyn')
    """
    text = text.translate(_TRANSLATION).replace(r"{,}", ",").replace(r"\!", "")
    text = _SPACING.sub(" ", text)
    text = (
        text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").replace(r"\cfrac", r"\frac")
    )
    text = _UPRIGHT_CONSTANT.sub(r"\1", _SIZES.sub("", text))
    text = _SHORT_FRACTION.sub(_long_fraction, text).strip()
    text = _BRACED_THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)
    while (inner := _unwrapped(text)) != text:
        text = inner
    return text


def _long_fraction(found: re.Match[str]) -> str:
    top, bottom = (part for part in found.groups() if part is not None)
    return rf"\frac{{{top}}}{{{bottom}}}"


def _unwrapped(text: str) -> str:
    text = text.strip()
    if text.endswith((".", ",", ";", ":")):
        text = text[:-1].rstrip()
    text = text.removesuffix("\\\\").removeprefix(r"\approx ").removeprefix("=").strip()
    for begin, end in _PAIRS:
        inner = text[len(begin) : -len(end)]
        if text.startswith(begin) and text.endswith(end) and inner.strip() and begin not in inner:
            return inner.strip()
    if found := _WRAPPER.match(text):
        text_after = text[found.end() :]
        if _closes_at_end(text_after):
            return text_after[1:-1].strip()
    if text.startswith("{") and _closes_at_end(text):
        return text[1:-1].strip()
    return text


def _closes_at_end(text: str) -> bool:
    depth = 0
    for place, mark in enumerate(text):
        if mark in "{}" and text[place - 1 : place] != "\\":
            depth += 1 if mark == "{" else -1
            if depth == 0:
                return place == len(text) - 1
    return False


_LOOSE_SPACE = re.compile(r"(?<![0-9A-Za-z]) +| +(?![0-9A-Za-z])")


def _letters_and_signs(text: str) -> str:
    # Space between digits or letters stays: "1 1/2" is not "11/2".
    return _LOOSE_SPACE.sub("", text)


_LEFT_SIDE = re.compile(
    r"(?P<name>\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([A-Za-z]\))?) ?= ?(?P<value>[^=<>]+)"
)


def _right_sides(one: str, other: str) -> tuple[str, str]:
    """Drop "x =" where only one side has it, or both have the same."""
    named, also_named = _LEFT_SIDE.fullmatch(one), _LEFT_SIDE.fullmatch(other)
    if named and also_named:
        if named["name"] == also_named["name"]:
            return named["value"], also_named["value"]
    elif named and "=" not in other:
        return named["value"], other
    elif also_named and "=" not in one:
        return one, also_named["value"]
    return one, other


# --- number bases -----------------------------------------------------------------------------

_BASE = re.compile(
    r"(?P<digits>-?[0-9A-Z][0-9A-Z, ]*(?:\.[0-9A-Z]+)?) ?_ ?"
    r"\{? ?(?:\\text ?\{)?\(?(?P<base>\w+)\)?\}*"
)
_NUMERALS = re.compile(r"-?[0-9A-Z][0-9A-Z, ]*(?:\.[0-9A-Z]+)?")
_BASE_WORDS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip


def _compare_bases(one: str, other: str) -> _Decision | None:
    based, also_based = _BASE.fullmatch(one), _BASE.fullmatch(other)
    if not based and not also_based:
        return None
    digits = [
        re.sub(r"[, ]", "", found["digits"] if found else text)
        for found, text in ((based, one), (also_based, other))
    ]
    if based and also_based:
        bases = [_BASE_WORDS.get(found["base"], found["base"]) for found in (based, also_based)]
        return _CORRECT if digits[0] == digits[1] and bases[0] == bases[1] else _INCORRECT
    if digits[0] == digits[1]:
        return _Decision("unparsed", "only one side names its base")
    if all(_NUMERALS.fullmatch(text) for text in digits):
        return _INCORRECT
    found, text = (based, other) if based else (also_based, one)
    value = _in_base_ten(found) if found else None
    return _INCORRECT if value is not None and agree(str(value), text) is False else None


def _in_base_ten(found: re.Match[str]) -> int | None:
    base = _BASE_WORDS.get(found["base"], found["base"])
    try:
        return int(re.sub(r"[, ]", "", found["digits"]), int(base))
    except ValueError:  # a digit that the base lacks, a fraction, or a base that is no number
        return None


# --- numbers ----------------------------------------------------------------------------------

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_POWER = r"10\ ?\^\ ?(?:\{\ ?[-+]?\d{1,3}\ ?\}|-?\d)(?!\d)"
_VALUE = re.compile(
    rf"""
    (?P<before> \\?\$ )? \ ? (?P<sign>[-+])? \ ? (?P<after> \\?\$ )? \ ?
    (?: (?P<power>{_POWER})
      | (?: (?P<mixed>\d+) \ ? )?
        \\frac\ ? \{{\ ? (?P<over>-?\d+) \ ?\}}\ ? \{{\ ? (?P<under>-?\d+) \ ?\}}
      | (?: (?P<mixed_plain>\d+) \  )? (?P<over_plain>{_PLAIN}) \ ?/\ ? (?P<under_plain>{_PLAIN})
      | (?P<decimal>{_PLAIN})
        (?: [eE] (?P<exponent>[-+]?\d{{1,3}}) | \ ?(?:\\times|\\cdot|\*|x)\ ? (?P<times>{_POWER}) )?
    )
    (?P<rest>.*)
    """,
    re.VERBOSE,
)
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?![\d])(?! ?/)")
_TEXT = re.compile(r"\\(?:text|mathrm|textrm|textnormal|mbox|hbox|rm|operatorname)\ ?\{([^{}]*)\}")
_UNIT_WORD = r"[A-Za-z]+(?: ?\^ ?(?:-?\d|\{ ?-?\d ?\}))?"
_UNIT_WORDS = re.compile(rf"{_UNIT_WORD}(?:\.?[ /·-]+{_UNIT_WORD})*\.?")
_PERCENT = re.compile(r"\\?%|per ?cents?|percentage|percentage points?")
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# What may follow a number and is no unit.
_NOT_UNIT = re.compile(
    r"and|or|to|pi|e|i|sqrt|root|sin|cos|tan|log|ln|exp|mod|base|times|plus|minus|over|choose|if|is|"
    r"where|when|with|hundreds?|dozens?|half|halves|thirds?|quarters?|tenths?|infinity|factorial|"
    r"squared|cubed",
    re.IGNORECASE,
)
_SHORT_UNIT = re.compile(
    r"[cmnk]m|[km]?g|k?V|eV|k?W|k?J|[mk]?L|ml|ft|in|mi|lbs?|oz|Hz|hrs?|[ap]m|sq"
)
_SAME_UNITS = {"$": "dollar", "usd": "dollar", "circ": "degree", "deg": "degree", "sq": "square"}


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written.

    Attributes:
        value: Its exact value; of "10%" it is 10.
        digits: Significant digits of a decimal; 0 for integers and fractions.
        place: Digits after the point.
        percent: Whether a per cent sign follows.
        unit: Its unit in plain letters; empty when there is none.
    """

    value: Fraction
    digits: int
    place: int
    percent: bool
    unit: str


@lru_cache(maxsize=1024)
def number(text: str) -> Number | None:
    r"""Read a bare final answer as a number; None when it is anything else.

    >>> number(r"1\frac{1}{2} \text{ cups}").value, number("1,250.50").value, number("2x")
    (Fraction(3, 2), Fraction(2501, 2), None)
    """
    text = _SPACED_THOUSANDS.sub(lambda found: found.group().replace(" ", ""), text)
    found = _VALUE.fullmatch(text)
    if found is None:
        return None
    rest = _rest(found["rest"])
    if rest is None:
        return None
    percent, scale, unit = rest
    if found["before"] or found["after"]:
        unit = unit or "dollar"
    digits = place = 0
    for power in (found["times"], found["power"]):
        scale += int(re.sub(r"10 ?\^|[{} ]", "", power)) if power else 0
    if found["decimal"]:
        value = _fraction(found["decimal"])
        scale += int(found["exponent"] or 0)
        if places := found["decimal"].partition(".")[2]:
            digits = len(re.sub(r"[.,]", "", found["decimal"]).lstrip("0"))
            place = len(places) - scale
    elif over := found["over"] or found["over_plain"]:
        under = _fraction(found["under"] or found["under_plain"])
        if under == 0:
            return None
        value = int(found["mixed"] or found["mixed_plain"] or 0) + _fraction(over) / under
    else:
        value = Fraction(1)
    value *= Fraction(10) ** scale
    return Number(-value if found["sign"] == "-" else value, digits, place, percent, unit)


def _fraction(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", "").removesuffix("."))


def _rest(text: str) -> tuple[bool, int, str] | None:
    """Read what follows a number: per cent, power of ten, unit; None for mathematics."""
    if not text.strip():
        return False, 0, ""
    written = _TEXT.search(text) is not None
    text = " ".join(_TEXT.sub(r" \1 ", text).split()).removesuffix(".")
    if text in (r"^\circ", r"^{\circ}", r"^ \circ", r"^ {\circ}", r"\degree"):
        return False, 0, "degree"
    if _PERCENT.fullmatch(text):
        return True, 0, ""
    if text in ("$", r"\$"):
        return False, 0, "dollar"
    first, _, after = text.partition(" ")
    if scale := _SCALES.get(first, 0):
        rest = _rest(after)
        return None if rest is None else (rest[0], rest[1] + scale, rest[2])
    if not _UNIT_WORDS.fullmatch(text):
        return None
    words = re.findall(r"[A-Za-z]+", text)
    if any(_NOT_UNIT.fullmatch(word) for word in words):
        return None
    if not written and not all(len(word) > 2 or _SHORT_UNIT.fullmatch(word) for word in words):
        return None  # "2x", "3 ab": letters that are multiplied
    names = (word if len(word) < 3 else word.lower().removesuffix("s") for word in words)
    unit = "".join(_SAME_UNITS.get(name, name) for name in names)
    return False, 0, unit + "".join(re.findall(r"\d", text))


_LETTER_UNIT = re.compile(r"(?<=[\d}]) ([mgshLNJWVACKF])$")
_UNIT_AT_END = re.compile(
    r"(?P<value>.*\S) ?"
    r"(?P<unit>\\(?:text|mathrm|textrm|mbox|hbox) ?\{[^{}]*\}(?: ?\^ ?\{?-?\d\}?)?)"
)


def _without_unit(text: str) -> tuple[str, str]:
    r"""Split "5\sqrt{2} \text{ cm}"; units that are not marked as text stay."""
    found = _UNIT_AT_END.fullmatch(text)
    rest = _rest(found["unit"]) if found else None
    return (found["value"], rest[2]) if found and rest and rest[2] else (text, "")


def _compare_numbers(one: str, other: str) -> _Decision | None:
    # "5 m": a lone letter after the number that the reference is can only be a unit.
    answer, reference = number(_LETTER_UNIT.sub(r" \\text{\1}", one)), number(other)
    if answer is None or reference is None:
        return None
    if answer.unit and reference.unit and answer.unit != reference.unit:
        return _Decision("unparsed", f"other units: {answer.unit} against {reference.unit}")
    if _equal(answer, reference):
        return _CORRECT
    hundredth = Fraction(1, 100)
    if answer.percent and not reference.percent:
        if abs(reference.value) < 1 or answer.value != reference.value:
            return _CORRECT if answer.value * hundredth == reference.value else _INCORRECT
    elif reference.percent and not answer.percent and answer.value == reference.value * hundredth:
        return _CORRECT
    return _INCORRECT


def _equal(answer: Number, reference: Number) -> bool:
    if answer.percent and not reference.percent and abs(reference.value) < 1:
        return False
    if answer.value == reference.value:
        return True
    # "0.333333" for 1/3: six digits, rounded or cut off. Two decimals are never rounded, nor an
    # integer, whose digits are all known.
    for short, exact in ((answer, reference), (reference, answer)):
        if short.digits >= 6 and exact.digits == 0 and exact.value.denominator > 1:
            return abs(short.value - exact.value) < Fraction(1, 10) ** short.place
    return False


# --- words and brackets -----------------------------------------------------------------------

_WORDS = re.compile(r"(?i:no)|[^\W\d_]{3,}(?:[ '’-]+[^\W\d_]+)*")
# Of words math-verify multiplies the letters, and of a sentence it reads a part.
_PROSE = re.compile(r"[A-Za-z]{4,}|[A-Za-z]{2,}(?: [A-Za-z]{2,})+")
_COMMAND = re.compile(
    r"\\(?:begin|end|operatorname)\*? ?\{[^{}]*\}|\\[A-Za-z]+"
    r"|a(?:rc)?(?:sin|cos|tan)|sqrt|infinity|sinh|cosh"
)
_TRUE = {"true": "yes", "yes": "yes", "false": "no", "no": "no"}
_FUNCTIONS = frozenset({"sin", "cos", "tan", "log", "exp", "sqrt", "inf", "infinity"})


def _compare_words(one: str, other: str) -> _Decision | None:
    one, other = (" ".join(_TEXT.sub(r"\1", text).split()) for text in (one, other))
    if other.startswith("(") and (letter := choice_letter(other)):
        chosen = choice_letter(one)
        if chosen:
            return _CORRECT if chosen == letter else _INCORRECT
        return None
    if not (_WORDS.fullmatch(one) and _WORDS.fullmatch(other)):
        return _compare_word_with_mathematics(one, other)
    one, other = one.casefold(), other.casefold()
    if one in _FUNCTIONS or other in _FUNCTIONS:
        return None
    if _TRUE.get(one, one) == _TRUE.get(other, other):
        return _CORRECT
    if sorted(one) == sorted(other):
        return None  # "abc" and "bca" may be products
    if " " in one or " " in other:
        return _Decision("unparsed", "the words differ, but may mean the same")
    return _INCORRECT


def _compare_word_with_mathematics(one: str, other: str) -> _Decision | None:
    for word, text in ((one, other), (other, one)):
        # "four" is no number here, but a reader knows; "pi" and "infinity" are read.
        is_word = _WORDS.fullmatch(word) and _PROSE.search(word) and read(word) is None
        if is_word and read(text) is not None:
            return _PROSE_DECISION
    return None


_OUTER = re.compile(r"([(\[])[^()\[\]]*,[^()\[\]]*([)\]])")


def _compare_brackets(one: str, other: str) -> _Decision | None:
    pair, other_pair = _OUTER.fullmatch(one), _OUTER.fullmatch(other)
    if pair and other_pair and pair.groups() != other_pair.groups():
        return _INCORRECT
    return None
