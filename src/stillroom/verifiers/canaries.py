"""Canaries: wrong answers that a judge must not accept, asked among the real ones.

Four kinds, of which nobody can say that they are right:

=========  ======================================================================================
empty      no answer at all
colon      ":", which some models take for an answer
other      the reference of another question
digit      the reference itself, its first digit changed
=========  ======================================================================================

The last two are used only where our own rules are sure that the value differs from the reference.
A question carries a canary by a hash of its text, so the choice does not depend on the order of
rows, on shards or on workers. Two of each kind are asked before anything else is paid for; and a
batch in which chance chose none carries one all the same.
"""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from stillroom.errors import ModelError
from stillroom.rows import content_id
from stillroom.verifiers.math import compare

Kind = Literal["empty", "colon", "other", "digit"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_OPENING = 2  # of each kind, before anything else is asked
MOST_FIRST = _OPENING * len(KINDS)
"""Canaries that are asked before anything else, at most."""
_POOL = 64  # questions from which these, and the references of others, are taken
_LONGEST = 200  # characters; in longer texts there are digits that decide nothing
_DIGIT = re.compile(r"[1-9]")
_LETTER = re.compile(r"\(?([A-J])[).]?")


@dataclass(frozen=True)
class Canary:
    """An answer that is wrong by construction."""

    kind: Kind
    question: str
    reference: str
    answer: str


class _Said(Protocol):
    @property
    def verdict(self) -> str: ...


class _Reply(Protocol):
    @property
    def value(self) -> "_Said | None": ...


class Canaries:
    """The canaries of one table.

    Attributes:
        share: Part of the questions that carries one, 0 to 1.
        opening: Those that are asked first.
    """

    def __init__(self, questions: Iterable[tuple[str, str | None]], share: float) -> None:
        """Choose.

        Args:
            questions: Questions of the table with their references; repeats do no harm.
            share: Part of the questions that carries one, 0 to 1.
        """
        self.share = share
        with_reference = ((q, r) for q, r in questions if r and r.strip())
        self._pool = _smallest(with_reference, _POOL)
        found: list[Canary] = []
        for kind in KINDS:
            made = (self._canary(kind, q, r) for q, r in self._pool)
            found += [canary for canary in made if canary is not None][:_OPENING]
        self.opening = found

    def riding(self, questions: Iterable[tuple[str, str]]) -> list[Canary]:
        """Choose those that ride with a batch of questions that are about to be judged."""
        lots = {content_id(q, r): (q, r) for q, r in questions}
        chosen = [lot for lot in sorted(lots) if self._carries(lot)]
        return [self._made(lot, *lots[lot]) for lot in chosen or sorted(lots)[:1]]

    def of(self, questions: Iterable[tuple[str, str | None]]) -> Iterator[Canary]:
        """Name the canaries of a whole table, should all its questions be judged."""
        yield from self.opening
        for question, reference in questions:
            if reference and reference.strip():
                lot = content_id(question, reference)
                if self._carries(lot):
                    yield self._made(lot, question, reference)

    def check(self, judge: str, canaries: Sequence[Canary], replies: Iterable[_Reply]) -> None:
        """Look at what the judge said.

        Raises:
            ModelError: If it took one for correct.
        """
        for canary, reply in zip(canaries, replies, strict=True):
            if reply.value is not None and reply.value.verdict == "correct":
                raise ModelError(
                    f"judge {judge}: it takes {_short(canary.answer)!r} for a correct answer to "
                    f"{_short(canary.question)!r}, where the reference is "
                    f"{_short(canary.reference)!r}; expected incorrect, because this is a canary "
                    f"({canary.kind}), wrong by construction. Its verdicts cannot be trusted: name "
                    "another judge."
                )

    def notes(self, judge: str, asked: Iterable[Canary]) -> list[str]:
        """Say which were asked; that none was accepted, or there would be no notes.

        Args:
            judge: Who was asked.
            asked: Those of `of` that were; repeats count once. Batches that chance spared carried
                one more each.
        """
        counts = Counter(canary.kind for canary in set(asked))
        if not counts:
            return []
        kinds = ", ".join(f"{kind} {counts[kind]:,}" for kind in KINDS if counts[kind])
        return [
            f"{counts.total():,} canaries were asked of {judge} among the answers ({kinds}; two of "
            f"each kind before all else, then {self.share:.1%} of the questions): it accepted none "
            "of these wrong answers."
        ]

    def _carries(self, lot: str) -> bool:
        return int(lot[:16], 16) < self.share * 2**64

    def _made(self, lot: str, question: str, reference: str) -> Canary:
        """Make the canary of a question: of the kind that its lot says, or the next that fits."""
        first = int(lot[16:20], 16) % len(KINDS)
        made = (
            self._canary(KINDS[(first + i) % len(KINDS)], question, reference)
            for i in range(len(KINDS))
        )
        return next(canary for canary in made if canary is not None)

    def _canary(self, kind: Kind, question: str, reference: str) -> Canary | None:
        if kind == "empty":
            return Canary(kind, question, reference, "")
        if kind == "colon":
            return Canary(kind, question, reference, ":")
        if kind == "digit":
            text = _DIGIT.sub(lambda d: str(int(d[0]) % 9 + 1), reference, count=1)
            return Canary(kind, question, reference, text) if _differ(text, reference) else None
        at = int(content_id(question, reference)[20:24], 16) % len(self._pool)
        pool = self._pool[at:] + self._pool[:at]
        others = (r for q, r in pool if q != question and _differ(r, reference))
        other = next(others, None)
        return None if other is None else Canary(kind, question, reference, other)


def _smallest(questions: Iterable[tuple[str, str]], n: int) -> list[tuple[str, str]]:
    """Return the n questions with the smallest hashes, each once; memory is bounded."""
    best: dict[str, tuple[str, str]] = {}
    for part in _parts(questions):
        best |= {content_id(q, r): (q, r) for q, r in part}
        best = {lot: best[lot] for lot in heapq.nsmallest(n, best)}
    return list(best.values())


def _parts(questions: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    part: list[tuple[str, str]] = []
    for question in questions:
        part.append(question)
        if len(part) == 4_096:
            yield part
            part = []
    yield part


def _differ(one: str, other: str) -> bool:
    """Tell whether two final answers have other values for sure.

    Words never do: two names may be of one thing.
    """
    if max(len(one), len(other)) > _LONGEST:
        return False
    letters = [_LETTER.fullmatch(text.strip()) for text in (one, other)]
    if letters[0] and letters[1]:
        return letters[0][1] != letters[1][1]
    numbers = _DIGIT.search(one) and _DIGIT.search(other)
    return bool(numbers) and getattr(compare(one, other), "outcome", None) == "incorrect"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"
