"""`answer`: k draws of a teacher for each question.

Buying and writing are apart. First every completion that the ledger lacks is bought, in one
stream over all questions, so that a server never idles between shards. Then the rows are written
out of the ledger. A run that is killed has lost nothing: what was bought is in the ledger.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from stillroom.errors import SourceError
from stillroom.models.chat import Completion, Reply, Request
from stillroom.models.ledger import Ledger
from stillroom.rows import ANSWER, Kind, Schema, Shape, content_id, dropped
from stillroom.steps.answer.draws import MOST, Draws, DrawsIn, Tally, Until
from stillroom.steps.asking import bound, conversation, purchase, role, sampling
from stillroom.steps.base import Calls, Misfit, ModelSpec, Out, Runtime, Step, Tick
from stillroom.steps.foretelling import Measured, estimate_at_most, expect
from stillroom.store.artifact import Delta, Manifest
from stillroom.store.table import Table
from stillroom.verifiers import key_of, verifier
from stillroom.verifiers.asked import known_in, task_of

T = TypeVar("T")

SHARD = 4_096
"""Answers per shard, about: 120 MB of traces at 30 KB each."""


_TRIES = 10**9
"""Draws from here on are further tries of draws that a filter cut: draw, plus this for each try."""
_ROWS = 1_000  # questions that are worded and looked up together


class Again(BaseModel):
    """Asking again with a larger limit.

    Attributes:
        again: Completion tokens at most, the second time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    again: int = Field(ge=1)


class Tries(BaseModel):
    """Asking again for another sample.

    Attributes:
        again: Further tries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    again: int = Field(ge=1, le=16)


class Asked(NamedTuple):
    """One question and the draws that are asked for.

    Attributes:
        id: Of its row.
        question: Its text.
        known: Its known answer or its tests, where draws depend on verdicts.
        first: Number of its first draw; above 0 where rows before it ask the same.
        draws: How many draws, at most.
    """

    id: str
    question: str
    known: str | None
    first: int
    draws: int


class Answer(Step):
    """Ask a teacher, k times for each question.

    Draws are numbered from 0 and named by their content, so asking for 16 after 4 buys 12.

    Attributes:
        model: Role of the teacher in the recipe's ``models``.
        draws: Answers per question: a number; ``{column: n}``, as many as a column says; or
            ``{until: correct, by: math, at_most: 16}``, in rounds until the verdicts suffice.
        prefix: Text before the question.
        suffix: Text after the question, such as a request for a boxed answer.
        on_length: Ask again with a larger limit, ``{again: 64000}``, where ``max_tokens`` cut an
            answer; the second answer takes its place.
        on_content_filter: Ask again for another sample, ``{again: 2}`` times at most, where a
            filter cut an answer.
    """

    STEP: ClassVar[str] = "answer"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "rows"
    TAKES: ClassVar[Kind | None] = "questions"

    model: str | ModelSpec = "teacher"
    draws: Draws = 1
    prefix: str = ""
    suffix: str = ""
    on_length: Again | None = None
    on_content_filter: Tries | None = None

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model."""
        spec = role(self.model, models, "answer.model")
        if self.on_length and self.on_length.again <= (spec.max_tokens or 0):
            raise Misfit(
                f"answer.on_length.again is {self.on_length.again}, but {spec.name} has max_tokens "
                f"{spec.max_tokens} already; expected more. Raise it"
            )
        return self.model_copy(update={"model": spec})

    def identity(self) -> dict[str, Any]:
        """Leave out options that are not used, so that they change no key."""
        optional = ("on_length", "on_content_filter")
        fields = super().identity()
        if isinstance(self.draws, Until):
            fields["draws"]["by"] = key_of(self.draws.by)
            fields["draws"]["cut"] = "undecided"  # so that what was drawn before they were is not
        return {k: v for k, v in fields.items() if v is not None or k not in optional}

    @property
    def spec(self) -> ModelSpec:
        """The teacher."""
        return bound(self.model)

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question, and what its number of draws depends on."""
        if isinstance(self.draws, DrawsIn):
            return ("question", self.draws.column)
        known = (known_in(self.draws.by),) if isinstance(self.draws, Until) else ()
        return ("question", *known)

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Turn questions into answers; the question's columns can still be read."""
        columns = super().check(shapes).columns
        if isinstance(self.draws, DrawsIn) and not columns[self.draws.column].is_integer():
            raise Misfit(
                f"answer.draws.column is {self.draws.column!r}, which holds "
                f"{columns[self.draws.column]}; expected whole numbers. Name another column"
            )
        behind = {n: t for n, t in columns.items() if n not in ANSWER}
        return Shape("answers", {**ANSWER, **behind})

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Write the columns of an answer."""
        return ANSWER

    def requests(self, question: str, first: int = 0, draws: int = 1) -> list[Request]:
        """Word the question for the teacher, once per draw.

        Args:
            question: Its text.
            first: Number of its first draw.
            draws: How many.
        """
        spec = self.spec
        messages = conversation(spec, f"{self.prefix}{question}{self.suffix}")
        return [
            Request(spec.name, messages, sampling(spec), draw)
            for draw in range(first, first + draws)
        ]

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls:
        """Count the draws, those that the ledger lacks, and the tokens to expect of them."""
        (table,) = inputs
        firsts = self._firsts(table)
        measured = Measured()
        for frame in table.frames("id", *self.reads(table.shape)):
            for batch in _batches(self._asked(frame, firsts)):
                requests = [r for q in batch for r in self.requests(q.question, q.first, q.draws)]
                measured.add(requests, rt.ledger())
        found = expect(self.spec, rt, measured)
        return replace(found, bound=True) if isinstance(self.draws, Until) else found

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that each question gets its draws at most."""
        return None if rows[0] is None or self._most is None else rows[0] * self._most

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the draws of so many questions."""
        return estimate_at_most(self.spec, rt, rows * (self._most or MOST))

    @property
    def _most(self) -> int | None:
        """Draws per question at most, where that does not depend on the rows."""
        if isinstance(self.draws, DrawsIn):
            return None
        return self.draws.at_most if isinstance(self.draws, Until) else self.draws

    def _parts(self, table: Table) -> Iterator[tuple[int, int, int]]:
        """Split shards of questions into parts of about `SHARD` answers: shard, start, length.

        A part holds whole questions, however many draws they have: what looks at all draws of a
        question may go shard by shard.
        """
        for index in range(len(table.shards)):
            frame = table.frame(index, "id", *self.reads(table.shape))
            most = self._most or max((q.draws for q in self._asked(frame, {})), default=1)
            size = max(1, SHARD // max(1, most))
            for start in range(0, frame.height, size):
                yield index, start, min(size, frame.height - start)

    def _asked(self, frame: pl.DataFrame, firsts: Mapping[str, int]) -> Iterator[Asked]:
        """Read questions, with the draws that each may get."""
        known_of: Iterable[str | None] = [None] * frame.height
        if isinstance(self.draws, Until):
            known_of = frame[known_in(self.draws.by)]
        if isinstance(self.draws, DrawsIn):
            draws = frame[self.draws.column].to_list()
        else:
            draws = [self._most] * frame.height
        for row_id, question, known, n in zip(
            frame["id"], frame["question"], known_of, draws, strict=True
        ):
            if n is None or not 0 <= n <= MOST:
                assert isinstance(self.draws, DrawsIn)
                raise SourceError(
                    f"answer.draws: row {row_id} has {'nothing' if n is None else n} in "
                    f"{self.draws.column!r}; expected a number from 0 to {MOST:,}. Correct the "
                    "column, or drop the row before."
                )
            yield Asked(row_id, question, known, firsts.get(row_id, 0), n)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Buy what is missing, then write the rows."""
        (table,) = inputs
        todo = [(part, at) for part, at in enumerate(self._parts(table)) if not out.has(part)]
        firsts = self._firsts(table)
        columns = ("id", *self.reads(table.shape))

        def questions() -> Iterator[Asked]:
            for _, (index, start, n) in todo:
                yield from self._asked(table.frame(index, *columns).slice(start, n), firsts)

        notes: list[str] = []
        drawn: Mapping[str, int] | None = None
        if isinstance(self.draws, Until):
            drawn, notes = self._buy_in_rounds(self.draws, questions, rt)
        else:
            rt.tick(Tick(of=sum(q.draws for q in questions())))
            self._buy(lambda: _every(self._all_of(q) for q in questions()), rt)
        for part, (index, start, n) in todo:
            asked = list(self._asked(table.frame(index, *columns).slice(start, n), firsts))
            if drawn is not None:
                asked = [q._replace(draws=drawn[q.id]) for q in asked]
            rows, lost = self._rows(asked, rt.ledger())
            out.write(part, rows, rows_in=sum(q.draws for q in asked), lost=lost, parent=index)
        return notes

    def failed(self, manifest: Manifest) -> int:
        """Count the draws that got no answer."""
        return sum(manifest.drops.values())

    def _all_of(self, asked: Asked) -> list[Request]:
        return self.requests(asked.question, asked.first, asked.draws)

    def _buy(self, requests: Callable[[], Iterable[Request]], rt: Runtime) -> None:
        """Buy requests, and whatever is to be asked again after them."""
        purchase(requests(), self.spec, rt)
        passes = (self.on_length is not None) + (
            self.on_content_filter.again if self.on_content_filter else 0
        )
        for _ in range(passes):
            purchase(self._further(requests(), rt.ledger()), self.spec, rt, again=True)

    def _buy_in_rounds(
        self, rule: Until, questions: Callable[[], Iterator[Asked]], rt: Runtime
    ) -> tuple[dict[str, int], list[str]]:
        """Buy rounds of draws for all questions whose verdicts do not suffice yet.

        Returns:
            How many draws each question got, and notes on what that saved.
        """
        tallies = {q.id: Tally() for q in questions()}
        ledger = rt.ledger()

        def unsettled() -> Iterator[tuple[Asked, list[Request]]]:
            for q in questions():
                tally = tallies[q.id]
                if not tally.closed:
                    n = min(rule.round, rule.at_most - tally.drawn)
                    yield q, self.requests(q.question, q.first + tally.drawn, n)

        opened = verifier(
            rule.by,
            workers=rt.workers,
            sandbox=rt.sandbox,
            allow_unsandboxed=rt.allow_unsandboxed,
        )
        with opened as judge:
            while not all(tally.closed for tally in tallies.values()):
                self._buy(lambda: _every(requests for _, requests in unsettled()), rt)
                for batch in _batches(unsettled(), max(1, _ROWS // rule.round)):
                    replies = self._replies([r for _, requests in batch for r in requests], ledger)
                    tasks = [
                        (q.id, task_of(rule.by, reply.answer, reply.finish_reason, q.known))
                        for q, requests in batch
                        for r in requests
                        if isinstance(reply := replies[r.key][1], Completion)
                    ]
                    verdicts = judge.verify([task for _, task in tasks])
                    outcomes: dict[str, list[Any]] = {q.id: [] for q, _ in batch}
                    for (row_id, _), verdict in zip(tasks, verdicts, strict=True):
                        outcomes[row_id].append(verdict.outcome)
                    for row_id, found in outcomes.items():
                        tallies[row_id].add(rule, found)
        drawn = {row_id: tally.drawn for row_id, tally in tallies.items()}
        most, taken = rule.at_most * len(drawn), sum(drawn.values())
        early = sum(n < rule.at_most for n in drawn.values())
        saved = f", {(most - taken) / most:.0%}" if most else ""
        note = (
            f"Draws were asked for in rounds until verdicts sufficed: {taken:,} of at most "
            f"{most:,}; {early:,} of {len(drawn):,} questions needed fewer than {rule.at_most:,}, "
            f"which saved {most - taken:,} draws{saved}."
        )
        return drawn, [note] if drawn else []

    def _next(self, request: Request, finish: str | None) -> Request | None:
        """Return what to ask after an answer that was cut, if this step says so."""
        if finish == "length" and self.on_length:
            limit = self.on_length.again
            if request.sampling.max_tokens != limit:
                return replace(request, sampling=replace(request.sampling, max_tokens=limit))
        tries = self.on_content_filter.again if self.on_content_filter else 0
        if finish == "content_filter" and request.draw // _TRIES < tries:
            return replace(request, draw=request.draw + _TRIES)
        return None

    def _follow(self, requests: Sequence[Request], ledger: Ledger) -> list[Request]:
        """Follow each request to the last that was answered after it."""
        current = list(requests)
        while self.on_length or self.on_content_filter:
            ended = ledger.finish_reasons(r.key for r in current)
            following = [self._next(r, ended.get(r.key)) for r in current]
            there = ledger.finish_reasons(r.key for r in following if r)
            moved = [
                after if after and after.key in there else request
                for request, after in zip(current, following, strict=True)
            ]
            if moved == current:
                break
            current = moved
        return current

    def _further(self, requests: Iterable[Request], ledger: Ledger) -> Iterator[Request]:
        """Yield what is to be asked after the answers that there are."""
        for batch in _batches(requests):
            last = self._follow(batch, ledger)
            ended = ledger.finish_reasons(r.key for r in last)
            yield from (after for r in last if (after := self._next(r, ended.get(r.key))))

    def _replies(
        self, requests: Sequence[Request], ledger: Ledger
    ) -> dict[bytes, tuple[Request, Reply]]:
        """Return the reply that counts for each request, and the request that it answers."""
        last = self._follow(requests, ledger)
        completions = ledger.get_many(r.key for r in last)
        failures = ledger.failures(r.key for r in last if r.key not in completions)
        return {
            request.key: (after, completions.get(after.key) or failures[after.key])
            for request, after in zip(requests, last, strict=True)
        }

    def _firsts(self, table: Table) -> dict[str, int]:
        """Number the first draw of each row after those of earlier rows that ask the same.

        A recipe may keep repeats, or repeat questions on purpose. Each copy gets draws of its
        own: the second of two copies takes the draws after those of the first. Rows that begin
        at 0 are left out.
        """
        text = pl.col("question")
        most = pl.lit(self._most) if self._most else pl.col(self.reads(table.shape)[1])
        hashed = [
            frame.select(
                "id", text.hash(seed=1).alias("h1"), text.hash(seed=2).alias("h2"),
                most.cast(pl.Int64).alias("draws"),
            )
            for frame in table.frames("id", *self.reads(table.shape))
        ]  # fmt: skip
        if not hashed:
            return {}
        first = (pl.col("draws").cum_sum() - pl.col("draws")).over("h1", "h2").alias("first")
        counted = pl.concat(hashed).select("id", first).filter(pl.col("first") > 0)
        return dict(counted.iter_rows())

    def _rows(self, asked: Sequence[Asked], ledger: Ledger) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Write answers out of the ledger; draws that failed for good become drops."""
        draws = [(q, draw, r) for q in asked for draw, r in enumerate(self._all_of(q))]
        replies = self._replies([request for _, _, request in draws], ledger)
        rows: list[tuple[Any, ...]] = []
        lost: list[tuple[str, str, str]] = []
        for question, draw, first in draws:
            request, reply = replies[first.key]
            row_id = content_id("answer", question.id, request.key.hex())
            if not isinstance(reply, Completion):
                lost.append((row_id, reply.reason, f"{question.id} {reply.message}"))
                continue
            rows.append(
                (
                    row_id,
                    question.id,
                    draw,
                    request.model,
                    _writable(reply.reasoning),
                    _writable(reply.answer),
                    reply.finish_reason,
                    reply.prompt_tokens if reply.counted else None,
                    reply.completion_tokens if reply.counted else None,
                )
            )
        ids, reasons, words = zip(*lost, strict=True) if lost else ((), (), ())
        return (
            pl.DataFrame(rows, schema=dict(ANSWER), orient="row"),
            dropped(list(ids), list(reasons), witness=list(words)),
        )


def _every(lists: Iterable[Iterable[Request]]) -> Iterator[Request]:
    return chain.from_iterable(lists)


def _batches(items: Iterable[T], size: int = _ROWS) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def _writable(text: str | None) -> str | None:
    """Show half a surrogate pair, which a model can emit, as a question mark: UTF-8 has none."""
    return None if text is None else text.encode("utf-8", "replace").decode()
