"""Several verifiers in a row: the first that can decide does.

A stage looks at what the stages before it left open (``unparsed``, ``no_reference``, ``error``),
and, where it was told to, at what they found incorrect. It decides or it does not: an undecided
word never takes back a decided one. Among undecided verdicts an ``error`` stands before
``unparsed``, and that before ``no_reference``; among equals the first. The verdict names the stage
that gave it, and its detail what the others said.

An answer on which a rule breaks down, or a request of a judge that fails, is an ``error`` of that
stage, and the next may decide. What is wrong with the machine or the setting (no sandbox, no
server, no money) stops the run instead: it says nothing about answers, and later stages may cost
money.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from stillroom.errors import StillroomError
from stillroom.verifiers.verdict import Task, Verdict, Verifier

_RANK = ("error", "unparsed", "no_reference")
_SAID = 120  # characters that are kept of what another stage said


class Stage(Protocol):
    """One step of a cascade."""

    @property
    def word(self) -> str:
        """What recipes call it."""
        ...

    def look(self, tasks: Sequence[Task], verdicts: Sequence[Verdict | None]) -> dict[int, Verdict]:
        """Look at the tasks that concern it, and return their verdicts by place.

        Args:
            tasks: All answers of a batch, every draw of a question among them.
            verdicts: What stands so far; None before the first stage.
        """
        ...


@dataclass(frozen=True)
class Alone:
    """A stage that looks at each answer by itself.

    Attributes:
        word: What recipes call it.
        verifier: Who looks.
        also_incorrect: Whether it looks again at what was found incorrect.
    """

    word: str
    verifier: Verifier
    also_incorrect: bool = False

    def look(self, tasks: Sequence[Task], verdicts: Sequence[Verdict | None]) -> dict[int, Verdict]:
        """Verify what is open."""
        places = [
            place
            for place, before in enumerate(verdicts)
            if before is None
            or before.open
            or (self.also_incorrect and before.outcome == "incorrect")
        ]
        found = self.verifier.verify([tasks[place] for place in places])
        return dict(zip(places, found, strict=True))


@dataclass(frozen=True)
class Sturdy:
    """A verifier that goes on: an answer on which it breaks down is an ``error``, and no other is.

    Attributes:
        verifier: Who verifies.
    """

    verifier: Verifier

    @property
    def name(self) -> str:
        """The verifier's own name."""
        return self.verifier.name

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task; those that break the verifier are found by halves.

        Raises:
            StillroomError: If the verifier cannot work at all.
        """
        if not tasks:
            return []
        try:
            return self.verifier.verify(tasks)
        except StillroomError:
            raise
        except Exception as error:
            if len(tasks) > 1:
                half = len(tasks) // 2
                return self.verify(tasks[:half]) + self.verify(tasks[half:])
            words = f"crashed: {type(error).__name__}: {error}"[:300]
            return [Verdict("error", None, None, words, self.name)]


class Cascade:
    """Ask stage after stage."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Make a cascade of at least one stage."""
        self._stages = stages

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks.

        Raises:
            StillroomError: If a stage cannot work at all.
        """
        said: list[list[tuple[str, Verdict]]] = [[] for _ in tasks]
        standing: list[Verdict | None] = [None] * len(tasks)
        for stage in self._stages:
            for place, verdict in stage.look(tasks, standing).items():
                said[place].append((stage.word, verdict))
                standing[place] = _standing(said[place])[1]
        return [_with_the_others(words) for words in said]


def _standing(said: Sequence[tuple[str, Verdict]]) -> tuple[str, Verdict]:
    """Choose what counts: the last decided word, or else the gravest of the undecided ones."""
    decided = [one for one in said if not one[1].open]
    return decided[-1] if decided else min(said, key=lambda one: _RANK.index(one[1].outcome))


def _with_the_others(said: Sequence[tuple[str, Verdict]]) -> Verdict:
    stands = _standing(said)
    own = stands[1].detail
    others = [_short(word, verdict) for word, verdict in said if verdict is not stands[1]]
    detail = " | ".join(([own] if own else []) + others)
    return replace(stands[1], detail=detail or None)


def _short(word: str, verdict: Verdict) -> str:
    detail = verdict.detail or ""
    if len(detail) > _SAID:
        detail = f"{detail[: _SAID - 1]}…"
    return f"{word}: {verdict.outcome}" + (f", {detail}" if detail else "")
