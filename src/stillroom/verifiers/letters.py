r"""Verify the letters of a question of which several options can be right.

The final answer is the boxed, tagged or stated one, if it holds nothing but letters A to J:
"ABD", "A, B and D", "(A)(D)", ``\text{B, C}``. Else the single letter that the rules of `choice`
find. Right are the letters of the reference, all of them and no other, in any order.
"""

import re
from collections.abc import Sequence

from stillroom.text.answers import Extracted, extract_answer, extract_choice
from stillroom.verifiers.verdict import Task, Verdict

_WRAPPERS = re.compile(r"\\(?:text(?:bf|rm|it)?|math(?:rm|bf))\b|\\[,;:! ]|[{}()\[\]$*_\"'\s.:]")
_BETWEEN = re.compile(r"(?i:\b(?:and|options?|choices?)\b)|[,;&/+]")
_LETTERS = re.compile(r"[A-J]+")


class LettersVerifier:
    """Compare sets of letters; a letter that is given twice counts once."""

    name = "letters/1"

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks."""
        return [self._verdict(task) for task in tasks]

    def _verdict(self, task: Task) -> Verdict:
        found = extract_letters(task.answer)
        letters, rule = found or (None, None)
        if task.reference is None or not task.reference.strip():
            return Verdict("no_reference", letters, rule, None, self.name)
        reference = read_letters(task.reference)
        if reference is None:
            detail = f"the reference {task.reference[:80]!r} is no row of letters"
            return Verdict("unparsed", letters, rule, detail, self.name)
        if letters is None:
            return Verdict("unparsed", None, None, "no letters in the answer", self.name)
        same = letters == reference
        return Verdict("correct" if same else "incorrect", letters, rule, None, self.name)


def extract_letters(answer: str) -> Extracted | None:
    r"""Find the letters of a visible answer, in order of the alphabet; None when there are none.

    >>> extract_letters(r"So \boxed{\text{D and A}}.")
    Extracted(text='AD', rule='boxed')
    """
    found = extract_answer(answer)
    if found and found.rule != "last_number" and (letters := read_letters(found.text)):
        return Extracted(letters, found.rule)
    return extract_choice(answer)


def read_letters(text: str) -> str | None:
    """Return the letters that a text lists, in order of the alphabet; None if it says more.

    >>> read_letters("B, (A)"), read_letters("A dog")
    ('AB', None)
    """
    bare = _WRAPPERS.sub("", _BETWEEN.sub("", text[:200]))
    return "".join(sorted(set(bare))) if _LETTERS.fullmatch(bare) else None
