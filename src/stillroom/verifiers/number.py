r"""Verify numbers that may be off by a little, as examinations with a stated tolerance do.

Plain numbers, fractions, powers of ten and expressions such as ``\sqrt{2}`` are read; units are
not compared. A value is right if it differs from the reference by at most `within`, or by at most
`relative` times the reference.
"""

from collections.abc import Sequence
from fractions import Fraction

from stillroom.text.answers import extract_answer
from stillroom.verifiers.expression import value_at
from stillroom.verifiers.math import bare, number
from stillroom.verifiers.reader import Scalar, read
from stillroom.verifiers.verdict import Task, Verdict

_LONGEST = 400


class NumberVerifier:
    """Compare two numbers within a tolerance."""

    def __init__(self, *, within: float = 0.0, relative: float = 0.0) -> None:
        """Make a verifier.

        Args:
            within: Largest difference, 0 or above.
            relative: Largest difference as a share of the reference, 0 or above.
        """
        self.name = f"number/1 within {within:g} relative {relative:g}"
        # The decimal that is written, and not the binary number beside it, is the tolerance.
        self._within, self._relative = Fraction(str(within)), Fraction(str(relative))

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks."""
        return [self._verdict(task) for task in tasks]

    def _verdict(self, task: Task) -> Verdict:
        found = extract_answer(task.answer)
        text, rule = found or (None, None)
        if task.reference is None or not task.reference.strip():
            return Verdict("no_reference", text, rule, None, self.name)
        reference = read_value(task.reference)
        if reference is None:
            detail = f"the reference {task.reference[:80]!r} is no number"
            return Verdict("unparsed", text, rule, detail, self.name)
        value = read_value(text) if text else None
        if value is None:
            return Verdict("unparsed", text, rule, "no number in the answer", self.name)
        off = abs(value - reference)
        right = off <= self._within or off <= self._relative * abs(reference)
        return Verdict("correct" if right else "incorrect", text, rule, None, self.name)


def read_value(text: str) -> Fraction | None:
    r"""Read a number; None if the text is none.

    >>> read_value("1,250.5 J"), read_value(r"\frac{3}{4}"), read_value("about two")
    (Fraction(2501, 2), Fraction(3, 4), None)
    """
    if len(text) > _LONGEST:
        return None
    text = bare(text).rpartition("=")[2].strip()
    if (plain := number(text)) is not None:
        return plain.value
    form = read(text)
    if not isinstance(form, Scalar) or form.letters:
        return None
    value = value_at(form, {})
    if value is None or not value.tame or value.mid.is_infinite():
        return None
    return Fraction(value.mid)
