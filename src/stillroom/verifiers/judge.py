"""Verify final answers by asking a model: what only a reader can compare.

The judge sees the question, its reference and the final answer, never the thinking, and fills in a
verdict with a reason. It compares; it does not solve.

What is covered:

- An answer that says nothing (no letter, digit or sign of mathematics) is not shown to the judge:
  such texts win verdicts from models, and there is nothing to compare.
- Texts stand between lines with a mark that is a hash of them, so that no text can hold its own
  mark, end early, or pose as the next part.
- A text that holds a verdict in the form of a reply is not shown either: a judge that quotes it
  would be read as if it had decided so.
- A reply that cannot be read is asked for again, then it is ``error``: never wrong.
- Whether the judge can be trusted at all: see `stillroom.verifiers.canaries`.

What is not covered: a text that talks the judge round. Orders inside an answer are quoted, and the
judge is told so; whether it listens depends on the judge.

Source: reference-based judges fall for answers such as ":" or "Thought process:" (Zhao et al. 2025,
arXiv 2507.08794). The wording is our own.
"""

import importlib.resources
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from stillroom.models.chat import Message, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.structured import TRIES, Form, Inquiry, ask, outcomes
from stillroom.models.structured import Outcome as Reply
from stillroom.text.answers import extract_answer
from stillroom.text.quoting import quoted
from stillroom.verifiers.canaries import Canaries, Canary
from stillroom.verifiers.verdict import Task, Verdict

TAIL = 2_000
"""Characters of an answer that are shown where no final answer is marked, unless said otherwise."""

_REASON = 500  # characters that are kept of a reason
_WHY = {
    "undecided": "unreadable: no reply could be read",
    "filtered": "filtered: a content filter cut the reply off",
}
_VERDICT = re.compile(r'verdict\\*"\s*:')
_ESCAPED = re.compile(r"\\u00([0-7][0-9a-fA-F])")


class Ruling(Form):
    """What the judge fills in."""

    reason: str
    verdict: Literal["correct", "incorrect", "undecided"]


@dataclass(frozen=True)
class Judge:
    """Who judges, and what is shown.

    Attributes:
        model: Frozen model name.
        sampling: How tokens are drawn.
        system: System prompt; none if None.
        tries: How often a verdict is asked for at most.
        tail: Characters of an answer that are shown where no final answer is marked.
    """

    model: str
    sampling: Sampling
    system: str | None = None
    tries: int = TRIES
    tail: int = TAIL

    @property
    def name(self) -> str:
        """Name and version, as verdicts carry them."""
        return f"judge/1 {self.model}"

    def prepare(self, task: Task) -> "Inquiry[Ruling] | Verdict":
        """Word the question about an answer, or say why there is nothing to ask."""
        text, rule = final_answer(task.answer, self.tail)
        if task.reference is None or not task.reference.strip():
            return Verdict("no_reference", text or None, rule, None, self.name)
        problem = _problem(task.question, task.reference, text, self.tail)
        if problem:
            return Verdict("unparsed", text[: self.tail] or None, rule, problem, self.name)
        return self.inquiry(task.question, task.reference, text)

    def inquiry(self, question: str, reference: str, answer: str) -> Inquiry[Ruling]:
        """Ask whether an answer says what the reference says."""
        system = (Message("system", self.system),) if self.system else ()
        user = Message("user", worded(question, reference, answer))
        return Inquiry(self.model, (*system, user), self.sampling, Ruling, tries=self.tries)

    def verdict(self, task: Task, reply: Reply[Ruling]) -> Verdict:
        """Turn a reply into a verdict."""
        text, rule = final_answer(task.answer, self.tail)
        if reply.value is None:
            why = _WHY.get(reply.state) or f"failed: {reply.failure}"
            return Verdict("error", text, rule, why, self.name)
        said, reason = reply.value.verdict, reply.value.reason[:_REASON]
        if said == "undecided":
            detail = f"the judge cannot tell: {reason}"
            return Verdict("unparsed", text, rule, detail, self.name)
        return Verdict(said, text, rule, reason, self.name)


class JudgeVerifier:
    """Buy what the judge says of a batch of answers, canaries among them, and read it back."""

    def __init__(
        self,
        judge: Judge,
        *,
        ledger: Ledger,
        purchase: Callable[[Iterator[Request]], object],
        canaries: Canaries,
    ) -> None:
        """Make a verifier.

        Args:
            judge: Who judges.
            ledger: Where replies are kept.
            purchase: Buys a stream of requests into the ledger.
            canaries: What tries the judge.
        """
        self.name = judge.name
        self._judge = judge
        self._ledger = ledger
        self._purchase = purchase
        self._canaries = canaries
        self._tried = False

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks.

        Raises:
            ModelError: If the judge accepts a canary, or cannot be asked.
        """
        prepared = [self._judge.prepare(task) for task in tasks]
        shown = [t for t, p in zip(tasks, prepared, strict=True) if isinstance(p, Inquiry)]
        if not shown:
            return [p for p in prepared if isinstance(p, Verdict)]
        if not self._tried:  # before anything else is paid for
            self._ask(self._canaries.opening, [])
            self._tried = True
        asked = [p for p in prepared if isinstance(p, Inquiry)]
        self._ask(self._canaries.riding((t.question, t.reference or "") for t in shown), asked)
        replies = outcomes(asked, self._ledger)
        return [
            p if isinstance(p, Verdict) else self._judge.verdict(task, next(replies))
            for task, p in zip(tasks, prepared, strict=True)
        ]

    def _ask(self, canaries: Sequence[Canary], asked: Sequence[Inquiry[Ruling]]) -> None:
        wanted = [*canary_inquiries(self._judge, canaries), *asked]
        ask(lambda: wanted, self._ledger, self._purchase)
        said = outcomes(wanted[: len(canaries)], self._ledger)
        self._canaries.check(self._judge.model, canaries, said)


def canary_inquiries(judge: Judge, canaries: Sequence[Canary]) -> list[Inquiry[Ruling]]:
    """Word canaries as answers are worded."""
    return [judge.inquiry(c.question, c.reference, c.answer) for c in canaries]


def final_answer(answer: str, tail: int = TAIL) -> tuple[str, str]:
    """Return what the judge is shown of an answer, and the rule that found it.

    The final answer is the boxed, tagged or stated one. Where none is marked it is the ``whole``
    visible answer, or its ``tail``. The last number of a text is not taken: what is left to a
    judge is usually no number.

    >>> final_answer("The answer is **the second law**.")
    ('the second law', 'stated')
    """
    found = extract_answer(answer)
    if found and found.rule != "last_number":
        return found.text, found.rule
    text = answer.strip()
    return (text, "whole") if len(text) <= tail else (text[-tail:], "tail")


def worded(question: str, reference: str, answer: str) -> str:
    """Put three texts into the prompt, under a mark that stands in none of them."""
    texts = {"question": question, "reference": reference, "answer": answer}
    return quoted(prompt(), texts)


@cache
def prompt() -> str:
    """Return the text that comes with the package."""
    folder = importlib.resources.files("stillroom.verifiers") / "prompts"
    return (folder / "judge.txt").read_text(encoding="utf-8").strip()


def _problem(question: str, reference: str, answer: str, tail: int) -> str | None:
    """Say why an answer is not shown to a judge; None if it is."""
    if not any(map(_says_something, answer)):
        return "no answer" if not answer else "nothing in the answer to compare"
    if len(answer) > tail:
        return f"{len(answer)} characters in a final answer; at most {tail} are shown"
    for name, text in (("answer", answer), ("question", question), ("reference", reference)):
        if _VERDICT.search(_ESCAPED.sub(lambda code: chr(int(code[1], 16)), text)):
            return f"the {name} holds a verdict in the form of a judge's reply"
    return None


def _says_something(character: str) -> bool:
    """Tell letters, digits and signs such as ∞ or ∅ from punctuation."""
    return character.isalnum() or unicodedata.category(character) in ("Sm", "So")
