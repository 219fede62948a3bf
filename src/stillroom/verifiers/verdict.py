"""What a verifier is given and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["correct", "incorrect", "unparsed", "no_reference", "error"]


@dataclass(frozen=True, slots=True)
class Task:
    """One answer to verify.

    Attributes:
        answer: What a reader sees, without the thinking.
        reference: The known answer; None or blank when there is none.
        choices: The texts of the options, in the order of their letters; empty when the question
            is no multiple choice or only the letter counts.
        tests: For programs, how to find out whether they are right: JSON, as described in
            `stillroom.verifiers.code_tests`; None when there are none.
        question: The question, for a judge.
        question_id: Names the question, where its draws vote.
    """

    answer: str
    reference: str | None
    choices: tuple[str, ...] = ()
    tests: str | None = None
    question: str = ""
    question_id: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier found.

    Only ``correct`` is correct and only ``incorrect`` is wrong; the other three are undecided.

    Attributes:
        outcome: ``unparsed``: the answer or the reference cannot be read, or they cannot be
            compared. ``no_reference``: there is nothing to compare with. ``error``: the
            comparison was cut off; `detail` begins with "timeout", "memory" or "crashed", or, of a
            judge, with "failed", "filtered" or "unreadable".
        extracted: The final answer that was found; None when there is none.
        rule: The rule that found it.
        detail: Why the answer is undecided, in words. Of programs the result of every test, of
            a judge its reason; of a cascade also what other stages said. Else None.
        verifier: Name and version of the verifier, and of the engine beneath it.
    """

    outcome: Outcome
    extracted: str | None
    rule: str | None
    detail: str | None
    verifier: str

    @property
    def open(self) -> bool:
        """Whether nothing is decided."""
        return self.outcome not in ("correct", "incorrect")


class Verifier(Protocol):
    """A way to decide whether answers are right."""

    @property
    def name(self) -> str:
        """Name and version, as verdicts carry them."""
        ...

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks."""
        ...
