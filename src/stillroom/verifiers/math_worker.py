"""The process in which math-verify and sympy run; see `stillroom.verifiers.math`.

The only module that imports them: they take half a second to load, can loop in C code, and
evaluate text that nobody has read.
"""

import logging
import re
import sys
from functools import lru_cache
from typing import Any

# None of them ships types.
from latex2sympy2_extended.latex2sympy2 import (  # type: ignore[import-untyped]
    NormalizationConfig,
)
from math_verify import (  # type: ignore[import-untyped]
    LatexExtractionConfig,
    parse,
    verify,
)
from sympy import Basic, Expr, MatrixBase, Rational, nan, zoo  # type: ignore[import-untyped]

from stillroom.verifiers.pool import serve

# math-verify's removal of units takes the last letter of "a + b + c" and "2 m" for one. Units are
# removed before anything comes here.
_FORM = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
)
# Plain expressions are not looked for: of a text that is no formula they would be its last number.
_TARGETS = (LatexExtractionConfig(boxed_match_priority=0, normalization_config=_FORM),)
_FORMULA = re.compile(r"(?<!\\)\$(?:[^$\\]|\\.)*\$", re.DOTALL)
# What may stand between the formulas of a list; of other texts only a part would be parsed.
_BETWEEN = re.compile(r"(?:[\s,;]|\b(?:and|or)\b)*")
# Two numbers further apart than this share of the reference are different. math-verify rounds to
# six decimals, so that it takes 1e-7 and 2e-7 for the same.
_APART = 2e-6


# One reference is compared with many answers.
@lru_cache(maxsize=256)
def read(text: str) -> list[Any]:
    """Parse one final answer, all of it: sympy objects, then the text that was parsed."""
    # Without dollar signs only the last number of an equation would be parsed (math-verify
    # issue 60). Its own timeouts are off: they are signals, which C code does not see.
    text = text if "$" in text.replace(r"\$", "") else f"${text}$"
    if not _BETWEEN.fullmatch(_FORMULA.sub(" ", text)):
        return []
    found: list[Any] = parse(text, _TARGETS, parsing_timeout=0)
    return found


def compare(item: list[str]) -> str:
    """Return "correct", "incorrect", or what cannot be read: "answer", "reference", "both"."""
    answer_text, reference_text = item
    answer, reference = read(answer_text), read(reference_text)
    unread = [
        name
        for name, found in (("answer", answer), ("reference", reference))
        if not any(map(readable, found))
    ]
    if unread:
        return "both" if len(unread) == 2 else unread[0]
    # The last switch: "x > 3" for the reference (3, oo), as well as the other way round.
    if not verify(reference, answer, timeout_seconds=0, allow_set_relation_comp=True):
        return "incorrect"
    return "incorrect" if apart(answer, reference) else "correct"


def readable(value: Any) -> bool:
    """Return whether a parsed value means something; 1/0 does not."""
    return isinstance(value, (Basic, MatrixBase)) and not value.has(zoo, nan)


def apart(answer: list[Any], reference: list[Any]) -> bool:
    """Return whether both are numbers, and too different to be one."""
    one, other = answer[0], reference[0]
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return False
    if not (one.is_number and other.is_number):
        return False
    value, expected = one.evalf(20), other.evalf(20)
    try:
        # A reference may be a per cent, and the answer the same without the sign.
        return not any(
            abs(value * scale - expected) <= _APART * abs(expected)
            for scale in (1, 100, Rational(1, 100))
        )
    except TypeError:  # infinite, or not a number after all
        return False


def main() -> None:
    """Serve comparisons until standard input ends."""
    logging.disable()  # math-verify warns about the timeouts that are off, and quotes the text
    cpu_s, memory_mib = sys.argv[1:]
    serve(guarded, float(cpu_s), int(memory_mib))


def guarded(item: list[str]) -> str:
    """Compare; text too deeply nested to be parsed is text that cannot be read."""
    try:
        return compare(item)
    except RecursionError:
        return "both"


if __name__ == "__main__":
    main()
