"""What a verifier looks at: what an answer says for good, and what is known of its question.

An answer that was cut off, by its limit or by a filter, stands in the middle of its work. Its last
number is no final answer, and a program that the text ends in is no program: to call them wrong, or
right, would be a guess. What it says for good is what it closed: a box, a tag, a block of code.
"""

from typing import Literal

from stillroom.text.answers import last_boxed, last_tagged
from stillroom.text.code import closed_blocks
from stillroom.verifiers.verdict import Task

CUT = ("length", "content_filter")
"""Why an answer ended, where it did not end by itself."""


def known_in(kind: str) -> Literal["reference", "tests"]:
    """Name the column of a question that a verifier compares answers with."""
    return "tests" if kind == "code" else "reference"


def task_of(kind: str, answer: str, finish_reason: str | None, known: str | None) -> Task:
    """Return what a verifier is asked about one completion.

    Args:
        kind: The verifier.
        answer: What a reader sees.
        finish_reason: Why the completion ended.
        known: The question's value in the column of `known_in`.
    """
    said = said_for_good(answer, finish_reason, code=kind == "code")
    return Task(said, None, tests=known) if kind == "code" else Task(said, known)


def said_for_good(answer: str, finish_reason: str | None, *, code: bool = False) -> str:
    r"""Return the part of an answer that a verifier may judge: all of it, unless it was cut off.

    >>> said_for_good("So x is 1", "stop"), said_for_good("So x is 1", "length")
    ('So x is 1', '')
    >>> said_for_good(r"So \boxed{12}, but let me check 3", "length")
    '\\boxed{12}'
    """
    if finish_reason not in CUT:
        return answer
    if code:
        return closed_blocks(answer)
    if (text := last_boxed(answer)) is not None:
        return rf"\boxed{{{text}}}"
    if (text := last_tagged(answer)) is not None:
        return f"<answer>{text}</answer>"
    return ""
