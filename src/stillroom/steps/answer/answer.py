"""`answer`: k draws of a teacher for each question.

Buying and writing are apart. First every completion that the ledger lacks is bought, in one
stream over all questions, so that a server never idles between shards. Then the rows are written
out of the ledger. A run that is killed has lost nothing: what was bought is in the ledger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field

from stillroom.models.buy import buy
from stillroom.models.chat import ChatModel, Failure, Message, Reply, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.rows import ANSWER, Kind, Schema, Shape, content_id, dropped
from stillroom.steps.base import Calls, Misfit, ModelSpec, Out, Runtime, Step, Tick
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
        if isinstance(self.model, ModelSpec):
            return self
        if self.model not in models:
            raise Misfit(
                f"answer.model is {self.model!r}, which is not a role in models; "
                f"the roles are {', '.join(models) or 'none'}"
            )
        return self.model_copy(update={"model": models[self.model]})

    @property
    def spec(self) -> ModelSpec:
        """The teacher."""
        assert isinstance(self.model, ModelSpec), "an answer step runs after `bind`"
        return self.model

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
        system = (Message("system", spec.system),) if spec.system else ()
        messages = (*system, Message("user", f"{self.prefix}{question}{self.suffix}"))
        sampling = Sampling(spec.temperature, spec.top_p, spec.max_tokens)
        return [
            Request(spec.name, messages, sampling, earlier * self.draws + draw)
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
        return self._calls(table.height * self.draws, missing, rt)

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that each question gets its draws at most."""
        return None if rows[0] is None else rows[0] * self.draws

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the draws of so many questions."""
        return replace(self._calls(rows * self.draws, rows * self.draws, rt), bound=True)

    def _calls(self, wanted: int, missing: int, rt: Runtime) -> Calls:
        """Estimate tokens and price by what the model wrote before, or bound them."""
        past = rt.ledger().stats().by_model.get(self.spec.name)
        each: float | None = self.spec.max_tokens
        if past and past.completions > past.uncounted:
            each = past.completion_tokens / (past.completions - past.uncounted)
        tokens = None if each is None else round(each * missing)
        price = rt.models.prices(self.spec.name) if missing else None
        return Calls(
            model=self.spec.name,
            wanted=wanted,
            missing=missing,
            tokens=tokens,
            usd=price.usd(0, tokens) if price and tokens is not None else None,
            bound=not past,
        )

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

        def tell(request: Request, reply: Reply) -> None:
            if isinstance(reply, Failure):
                rt.tick(Tick(rows=1, failed=1))
            else:
                price = rt.models.prices(self.spec.name)
                usd = price.usd(reply.prompt_tokens, reply.completion_tokens) if price else None
                rt.tick(Tick(rows=1, calls=1, tokens=reply.completion_tokens, usd=usd))

        bought = buy(
            wanted(),
            model=_OnFirstUse(lambda: rt.models.open(self.spec.name)),
            ledger=ledger,
            on_reply=tell,
            reasoning=bool(self.spec.reasoning),
        )
        rt.tick(Tick(rows=bought.reused + bought.settled, reused=bought.reused))
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


class _OnFirstUse:
    """A model that is opened when it is first asked: answers in the ledger need no server."""

    def __init__(self, open_model: Callable[[], ChatModel]) -> None:
        self._open = open_model

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Open the model if there is a request, and hand it on."""
        iterator = iter(requests)
        for first in iterator:
            yield from self._open().complete(chain([first], iterator))


def _writable(text: str | None) -> str | None:
    """Show half a surrogate pair, which a model can emit, as a question mark: UTF-8 has none."""
    return None if text is None else text.encode("utf-8", "replace").decode()
