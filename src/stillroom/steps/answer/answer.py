"""`answer`: k draws of a teacher for each question.

Buying and writing are apart. First every completion that the ledger lacks is bought, in one
stream over all questions, so that a server never idles between shards. Then the rows are written
out of the ledger. A run that is killed has lost nothing: what was bought is in the ledger.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field

from stillroom.models.chat import Request
from stillroom.models.ledger import Ledger
from stillroom.rows import ANSWER, Kind, Schema, Shape, content_id, dropped
from stillroom.steps.asking import (
    bound,
    conversation,
    estimate,
    estimate_at_most,
    purchase,
    role,
    sampling,
)
from stillroom.steps.base import Calls, ModelSpec, Out, Runtime, Step, Tick
from stillroom.store.artifact import Delta
from stillroom.store.table import Table

SHARD = 4_096
"""Answers per shard, about: 120 MB of traces at 30 KB each."""


class Answer(Step):
    """Ask a teacher, k times for each question.

    Draws are numbered from 0 and named by their content, so asking for 16 after 4 buys 12.

    Attributes:
        model: Role of the teacher in the recipe's ``models``.
        draws: Answers per question, k.
        prefix: Text before the question.
        suffix: Text after the question, such as a request for a boxed answer.
    """

    STEP: ClassVar[str] = "answer"
    VERSION: ClassVar[int] = 1
    DELTA: ClassVar[Delta] = "rows"
    TAKES: ClassVar[Kind | None] = "questions"

    model: str | ModelSpec = "teacher"
    draws: int = Field(1, ge=1, le=10_000)
    prefix: str = ""
    suffix: str = ""

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model."""
        return self.model_copy(update={"model": role(self.model, models, "answer.model")})

    @property
    def spec(self) -> ModelSpec:
        """The teacher."""
        return bound(self.model)

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question."""
        return ("question",)

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Turn questions into answers; the question's columns can still be read."""
        columns = super().check(shapes).columns
        behind = {n: t for n, t in columns.items() if n not in ANSWER}
        return Shape("answers", {**ANSWER, **behind})

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Write the columns of an answer."""
        return ANSWER

    def requests(self, question: str, earlier: int = 0) -> list[Request]:
        """Word the question for the teacher, once per draw.

        Args:
            question: Its text.
            earlier: Rows before this one that ask the same; their draws are left to them.
        """
        spec = self.spec
        messages = conversation(spec, f"{self.prefix}{question}{self.suffix}")
        return [
            Request(spec.name, messages, sampling(spec), earlier * self.draws + draw)
            for draw in range(self.draws)
        ]

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls:
        """Count the draws, those that the ledger lacks, and the tokens to expect of them."""
        (table,) = inputs
        ledger = rt.ledger()
        copies = self._copies(table)
        missing = 0
        for frame in table.frames("id", "question"):
            keys = [r.key for i, q in frame.iter_rows() for r in self.requests(q, copies.get(i, 0))]
            missing += len(ledger.missing(keys))
        return estimate(self.spec, rt, wanted=table.height * self.draws, missing=missing)

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that each question gets its draws at most."""
        return None if rows[0] is None else rows[0] * self.draws

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the draws of so many questions."""
        return estimate_at_most(self.spec, rt, rows * self.draws)

    def _parts(self, table: Table) -> Iterator[tuple[int, int, int]]:
        """Split shards of questions into parts of about `SHARD` answers: shard, start, length."""
        size = max(1, SHARD // self.draws)
        for index in range(len(table.shards)):
            height = table.shard(index, "id").select(pl.len()).collect().item()
            for start in range(0, height, size):
                yield index, start, min(size, height - start)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Buy what is missing, then write the rows."""
        (table,) = inputs
        parts = list(self._parts(table))
        todo = [(part, place) for part, place in enumerate(parts) if not out.has(part)]
        rt.tick(Tick(of=table.height * self.draws))
        ledger = rt.ledger()
        copies = self._copies(table)

        def wanted() -> Iterator[Request]:
            for _, (index, start, n) in todo:
                frame = table.frame(index, "id", "question").slice(start, n)
                for row_id, question in frame.iter_rows():
                    yield from self.requests(question, copies.get(row_id, 0))

        purchase(wanted(), self.spec, rt)
        for part, (index, start, n) in todo:
            frame = table.frame(index, "id", "question").slice(start, n)
            rows, lost = self._rows(frame, copies, ledger)
            out.write(part, rows, rows_in=n * self.draws, lost=lost, parent=index)
        return []

    def _copies(self, table: Table) -> dict[str, int]:
        """Count, for each row, the earlier rows with the same question; rows with none left out.

        A recipe may keep repeats, or repeat questions on purpose. Each copy gets draws of its
        own: the second of two copies takes the draws after those of the first.
        """
        text = pl.col("question")
        hashed = [
            frame.select("id", text.hash(seed=1).alias("h1"), text.hash(seed=2).alias("h2"))
            for frame in table.frames("id", "question")
        ]
        if not hashed:
            return {}
        number = pl.int_range(pl.len()).over("h1", "h2").alias("earlier")
        counted = pl.concat(hashed).select("id", number).filter(pl.col("earlier") > 0)
        return dict(counted.iter_rows())

    def _rows(
        self, frame: pl.DataFrame, copies: Mapping[str, int], ledger: Ledger
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Write answers out of the ledger; draws that failed for good become drops."""
        asked = [
            (row_id, draw, request)
            for row_id, question in frame.iter_rows()
            for draw, request in enumerate(self.requests(question, copies.get(row_id, 0)))
        ]
        keys = [request.key for _, _, request in asked]
        completions = ledger.get_many(keys)
        failures = ledger.failures([k for k in keys if k not in completions])
        rows: list[tuple[Any, ...]] = []
        lost: list[tuple[str, str, str]] = []
        for question_id, draw, request in asked:
            row_id = content_id("answer", question_id, request.key.hex())
            reply = completions.get(request.key)
            if reply is None:
                failure = failures[request.key]
                lost.append((row_id, failure.reason, f"{question_id} {failure.message}"))
                continue
            rows.append(
                (
                    row_id,
                    question_id,
                    draw,
                    request.model,
                    _writable(reply.reasoning),
                    _writable(reply.answer),
                    reply.finish_reason,
                    reply.prompt_tokens,
                    reply.completion_tokens,
                )
            )
        ids, reasons, words = zip(*lost, strict=True) if lost else ((), (), ())
        return (
            pl.DataFrame(rows, schema=dict(ANSWER), orient="row"),
            dropped(list(ids), list(reasons), witness=list(words)),
        )


def _writable(text: str | None) -> str | None:
    """Show half a surrogate pair, which a model can emit, as a question mark: UTF-8 has none."""
    return None if text is None else text.encode("utf-8", "replace").decode()
