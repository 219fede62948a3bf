"""Measures that a model fills into a form: asked, read, asked again, or left undecided."""

import contextlib
import importlib.resources
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count, islice
from statistics import fmean
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field

from stillroom.errors import ModelError
from stillroom.models.chat import Message
from stillroom.models.ledger import Ledger
from stillroom.models.structured import (
    TRIES,
    Form,
    Inquiry,
    Outcome,
    ask,
    outcomes,
    read_form,
    schema_of,
)
from stillroom.rows import Schema, content_id
from stillroom.steps.asking import bound, purchase, role, sampling
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise, Tick
from stillroom.steps.foretelling import estimate, estimate_at_most
from stillroom.steps.label.measure import Frames, Measure
from stillroom.store.table import Table

WHY = {
    "undecided": "no reply could be read",
    "filtered": "a content filter cut the reply off",
    "failed": "the request failed",
}

HELD = "a text holds a reply in the form that the model is asked for, so it was not shown"


class Reasons:
    """Says why rows have no value; of each kind of failure, in the words of the first."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def of(self, outcome: Outcome[Any]) -> str:
        """Say why an inquiry has no value."""
        if outcome.failure is None:
            return WHY[outcome.state]
        kind = outcome.failure.partition(":")[0]
        words = self._first.setdefault(kind, outcome.failure.rstrip("."))
        return f"{WHY['failed']}, the first one with {words}"


class Inquired(Measure):
    """What such measures share.

    A reply that cannot be read is asked for again, up to ``tries`` times in all, each try bought
    once. With several votes the value is the mean of those that could be read. A text that holds a
    reply in the form that the model is to fill in is not shown to it, and has no value.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        votes: How often each question is judged.
        tries: How often a vote is asked for at most.
        column: Name of the new column; the model's reason stands beside it, as ``COLUMN_reason``.
    """

    ASKS: ClassVar[bool] = True
    FORM: ClassVar[type[Form]]
    TEMPERATURE: ClassVar[float | None] = None

    model: str | ModelSpec = "grader"
    votes: int = Field(1, ge=1, le=1_000)
    tries: int = Field(TRIES, ge=1, le=100)
    column: str

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model."""
        return self.model_copy(update={"model": role(self.model, models, "model")})

    @abstractmethod
    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """Word the question about one row."""

    @abstractmethod
    def value(self, form: Form) -> float:
        """Return the value that a filled-in form holds."""

    def values(self, form: Form) -> Sequence[float]:
        """Return the values of the columns of `adds`, the reason left out."""
        return (self.value(form),)

    def form(self) -> type[Form]:
        """Return what the model fills in."""
        return self.FORM

    def reads(self) -> Sequence[str]:
        """Read the question."""
        return ("question",)

    def adds(self) -> Schema:
        """Add the value and the model's reason."""
        return {self.column: pl.Float64(), f"{self.column}_reason": pl.String()}

    def identity(self) -> dict[str, Any]:
        """Let the wording of the prompts, and the form, enter the key."""
        wording = content_id(*map(prompt, self.prompts()), schema_of(self.form()), "guarded")
        return {**super().identity(), "wording": wording}

    @abstractmethod
    def prompts(self) -> Sequence[str]:
        """Name the prompts that may be used."""

    def _inquiries(self, frame: pl.DataFrame) -> Iterator[Inquiry[Form]]:
        spec = bound(self.model)
        drawn, form = sampling(spec, temperature=self.TEMPERATURE), self.form()
        for row in frame.iter_rows(named=True):
            if self._holds_reply(row):
                continue
            messages = self.messages(row)
            for vote in range(self.votes):
                yield Inquiry(spec.name, messages, drawn, form, vote, self.tries)

    def _holds_reply(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a text holds the form filled in: a model that quotes it would decide so."""
        texts = [row[name] for name in self.reads() if isinstance(row[name], str)]
        return any(
            read_form(said, self.form()) is not None
            for text in texts
            if "{" in text
            for said in (text, text.replace('\\"', '"'))
        )

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Buy every vote, then read them shard by shard."""
        ledger = rt.ledger()
        rt.tick(Tick(of=self.votes * sum(frame.height for frame in frames())))
        rounds = count()

        def inquiries() -> Iterator[Inquiry[Form]]:
            return (inquiry for frame in frames() for inquiry in self._inquiries(frame))

        ask(
            inquiries,
            ledger,
            lambda requests: purchase(requests, bound(self.model), rt, again=next(rounds) > 0),
        )
        check_some(outcomes(inquiries(), ledger), bound(self.model))
        reasons = Reasons()
        yield lambda frame: self._read(frame, ledger, tally, reasons)

    def _read(
        self, frame: pl.DataFrame, ledger: Ledger, tally: Counter[str], why: Reasons
    ) -> pl.DataFrame:
        known = outcomes(self._inquiries(frame), ledger)
        rows: list[tuple[float | str | None, ...]] = []
        for row in frame.iter_rows(named=True):
            if self._holds_reply(row):
                tally[HELD] += 1
                rows.append((None,) * len(self.adds()))
                continue
            votes = list(islice(known, self.votes))
            forms = [vote.value for vote in votes if vote.value is not None]
            if forms:
                means = map(fmean, zip(*map(self.values, forms), strict=True))
                rows.append((*means, getattr(forms[0], "reasoning", None)))
            else:
                tally[why.of(votes[0])] += 1
                rows.append((None,) * len(self.adds()))
        made = pl.DataFrame(rows, schema=dict(self.adds()), orient="row")
        return made.select(frame["id"], pl.all())

    def calls(self, table: Table, rt: Runtime) -> Calls:
        """Count the votes, and those that are not settled yet."""
        ledger = rt.ledger()
        missing = 0
        for frame in table.frames("id", *self.reads()):
            known = outcomes(self._inquiries(frame), ledger)
            missing += sum(outcome.next is not None for outcome in known)
        wanted = table.height * self.votes
        return estimate(bound(self.model), rt, wanted=wanted, missing=missing)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the votes, every one of them tried to the last."""
        return estimate_at_most(bound(self.model), rt, rows * self.votes * self.tries)


def check_some(known: Iterator[Outcome[Any]], spec: ModelSpec) -> None:
    """Make sure that not every request failed: a column of nulls says nothing of the rows.

    Args:
        known: Outcomes; read up to the first that did not fail.
        spec: The model that was asked.

    Raises:
        ModelError: If all failed.
    """
    n, first = 0, ""
    for outcome in known:
        if outcome.state != "failed":
            return
        n, first = n + 1, first or str(outcome.failure).rstrip(".")
    if n:
        raise ModelError(
            f"{spec.name}: all {n:,} requests of this label failed, the first one with {first}; "
            "expected replies. Choose a model that can read the question and the label's "
            "instructions, or look after its server and run again with --retry-failed."
        )


@cache
def prompt(name: str) -> str:
    """Return the text of a prompt that comes with the package."""
    folder = importlib.resources.files("stillroom.steps.label") / "prompts"
    return (folder / f"{name}.txt").read_text(encoding="utf-8").strip()


def worded(name: str, question: str) -> str:
    """Put a question into a prompt, at the line ``[[question]]``.

    What the question says is not looked at: a mark inside it stays what it is.
    """
    before, _, after = prompt(name).partition("[[question]]")
    return f"{before}{question}{after}"
