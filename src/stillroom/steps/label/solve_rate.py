"""`solve_rate`: how often a model answers a question correctly."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field

from stillroom.models.chat import Request
from stillroom.models.ledger import Ledger
from stillroom.rows import Schema
from stillroom.steps.answer.answer import Answer
from stillroom.steps.asking import bound, purchase, role
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise, Tick
from stillroom.steps.foretelling import estimate, estimate_at_most
from stillroom.steps.label.measure import Frames, Measure
from stillroom.store.table import Table
from stillroom.verifiers import Kind, Verifier, key_of, verifier
from stillroom.verifiers.asked import known_in, task_of

ROWS = 256
"""Questions that are read back and verified together; bounds memory."""


class SolveRate(Measure):
    """How often a model answers the question correctly: correct draws among the decided ones.

    Draws that failed, whose answer could not be read, or that were cut off before they gave one,
    are undecided: neither right nor wrong. A question without a reference, or without tests where
    programs are run, is not asked, and has no value; nor has one of which no draw was decided.

    Draws are those that `answer` would buy with the same model, prefix and suffix, so they are
    shared with it: 64 draws here contain the 16 there. So the answers to questions that were kept
    for their rate are the draws that it was measured on, and say nothing new about it. Where the
    draws are rows already, the measure `pass_rate` counts their verdicts.

    Few draws say little: a question that a model solves three times in ten is missed four times in
    a row with a chance of 24 percent.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        draws: Draws per question, n.
        by: The verifier: ``math``, ``choice``, ``letters``, ``exact`` or ``code``; see `verify`.
        prefix: Text before the question.
        suffix: Text after the question.
        column: Name of the new column. Beside it stand ``COLUMN_correct`` and ``COLUMN_decided``,
            the counts, and ``COLUMN_by``: model, draws, temperature and verifier.
    """

    ASKS: ClassVar[bool] = True

    model: str | ModelSpec = "prober"
    draws: int = Field(8, ge=1, le=10_000)
    by: Kind = "math"
    prefix: str = ""
    suffix: str = ""
    column: str = "solve_rate"

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model."""
        return self.model_copy(update={"model": role(self.model, models, "model")})

    def identity(self) -> dict[str, Any]:
        """Let a changed verifier change the key, and that cut answers are undecided."""
        return {"by": key_of(self.by), "cut": "undecided"}

    def reads(self) -> Sequence[str]:
        """Read the question, and its reference or its tests."""
        return ("question", known_in(self.by))

    def adds(self) -> Schema:
        """Add the rate, the counts, and how they were found."""
        name = self.column
        counts = {f"{name}_correct": pl.Int32(), f"{name}_decided": pl.Int32()}
        return {name: pl.Float64(), **counts, f"{name}_by": pl.String()}

    def _asked(self, frame: pl.DataFrame) -> Iterator[list[Request]]:
        """Word the draws of each row; none where nothing is known to compare them with."""
        answer = Answer(model=self.model, prefix=self.prefix, suffix=self.suffix)
        for question, known in frame.select("question", known_in(self.by)).iter_rows():
            yield answer.requests(question, 0, self.draws) if (known or "").strip() else []

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Buy every draw, then verify them shard by shard."""
        asked = sum(self._askable(frame) for frame in frames())
        rt.tick(Tick(of=asked * self.draws))
        wanted = (r for frame in frames() for requests in self._asked(frame) for r in requests)
        purchase(wanted, bound(self.model), rt)
        opened = verifier(
            self.by,
            workers=rt.workers,
            sandbox=rt.sandbox,
            allow_unsandboxed=rt.allow_unsandboxed,
        )
        with opened as judge:
            yield lambda frame: self._rates(frame, rt.ledger(), judge, tally)

    def _rates(
        self, frame: pl.DataFrame, ledger: Ledger, judge: Verifier, tally: Counter[str]
    ) -> pl.DataFrame:
        spec = bound(self.model)
        heat = "left to the server" if spec.temperature is None else f"{spec.temperature:g}"
        rows: list[tuple[float | None, int | None, int | None, str | None]] = []
        asked = zip(self._asked(frame), frame[known_in(self.by)], strict=True)
        while part := list(islice(asked, ROWS)):
            replies = ledger.get_many(r.key for requests, _ in part for r in requests)
            tasks = [
                task_of(self.by, reply.answer, reply.finish_reason, known)
                for requests, known in part
                for request in requests
                if (reply := replies.get(request.key))
            ]
            verdicts = iter(judge.verify(tasks))
            for requests, _ in part:
                if not requests:
                    tally[f"no {known_in(self.by)}"] += 1
                    rows.append((None, None, None, None))
                    continue
                own = list(islice(verdicts, sum(r.key in replies for r in requests)))
                correct = sum(v.outcome == "correct" for v in own)
                decided = correct + sum(v.outcome == "incorrect" for v in own)
                tally["no draw was decided"] += not decided
                who = own[0].verifier if own else self.by
                how = f"{spec.name}, {self.draws} draws, temperature {heat}, {who}"
                rows.append((correct / decided if decided else None, correct, decided, how))
        made = pl.DataFrame(rows, schema=dict(self.adds()), orient="row")
        return made.select(frame["id"], pl.all())

    def calls(self, table: Table, rt: Runtime) -> Calls:
        """Count the draws, and those that the ledger lacks."""
        wanted = missing = 0
        for frame in table.frames("id", *self.reads()):
            keys = [r.key for requests in self._asked(frame) for r in requests]
            wanted += len(keys)
            missing += len(rt.ledger().missing(keys))
        return estimate(bound(self.model), rt, wanted=wanted, missing=missing)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the draws."""
        return estimate_at_most(bound(self.model), rt, rows * self.draws)

    def _askable(self, frame: pl.DataFrame) -> int:
        """Count the rows of which enough is known."""
        return int((frame[known_in(self.by)].fill_null("").str.strip_chars() != "").sum())
