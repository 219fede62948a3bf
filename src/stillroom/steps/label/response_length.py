"""`response_length`: how long a model's answer to a question is."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import polars as pl

from stillroom.models.chat import Completion, Failure, Request
from stillroom.models.ledger import Ledger
from stillroom.rows import Schema
from stillroom.steps.asking import bound, conversation, purchase, role, sampling
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise, Tick
from stillroom.steps.foretelling import estimate, estimate_at_most
from stillroom.steps.label.measure import Frames, Measure
from stillroom.store.table import Table


class ResponseLength(Measure):
    """How long a model's answer is when it is asked the question and nothing else.

    Hard questions get long answers. Answers that a content filter cut off give no value; those
    that reached ``max_tokens`` count as long as they are, but that one that was cut off while the
    model still thought has no visible answer to measure. Where the model's temperature is left
    open, it is 1.0. A draw that `answer` bought of the same model is used, and the other way round.

    Source: OpenThoughts, section on question filtering: the winning filter of math and science.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        unit: ``characters`` of the visible answer, or ``tokens`` of the whole completion as the
            server counted them.
        column: Name of the new column.
    """

    ASKS: ClassVar[bool] = True

    model: str | ModelSpec = "prober"
    unit: Literal["characters", "tokens"] = "characters"
    column: str = "response_length"

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model."""
        return self.model_copy(update={"model": role(self.model, models, "model")})

    def identity(self) -> dict[str, Any]:
        """Tell lengths from those of before, when an answer that never began had 0 characters."""
        return {"cut": "unknown"}

    def reads(self) -> Sequence[str]:
        """Read the question."""
        return ("question",)

    def adds(self) -> Schema:
        """Add one column of integers."""
        return {self.column: pl.Int64()}

    def _requests(self, frame: pl.DataFrame) -> list[Request]:
        spec = bound(self.model)
        drawn = sampling(spec, temperature=1.0)
        return [Request(spec.name, conversation(spec, q), drawn) for q in frame["question"]]

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Buy every answer, then measure them shard by shard."""
        rt.tick(Tick(of=sum(frame.height for frame in frames())))
        wanted = (request for frame in frames() for request in self._requests(frame))
        purchase(wanted, bound(self.model), rt)
        ledger = rt.ledger()
        yield lambda frame: self._lengths(frame, ledger, tally)

    def _lengths(self, frame: pl.DataFrame, ledger: Ledger, tally: Counter[str]) -> pl.DataFrame:
        lengths: list[int | None] = []
        for part in frame.iter_slices(1024):
            keys = [request.key for request in self._requests(part)]
            found = ledger.get_many(keys)
            lengths += [self._length(found.get(key), tally) for key in keys]
        data = {"id": frame["id"], self.column: lengths}
        return pl.DataFrame(data, schema_overrides=dict(self.adds()))

    def _length(self, reply: Completion | Failure | None, tally: Counter[str]) -> int | None:
        if not isinstance(reply, Completion):
            tally["the request failed"] += 1
        elif reply.finish_reason == "content_filter":
            tally["a content filter cut the reply off"] += 1
        elif self.unit == "characters" and reply.finish_reason == "length" and not reply.answer:
            tally["the reply was cut off before its visible answer began"] += 1
        elif self.unit == "characters":
            return len(reply.answer)
        elif reply.counted:
            return reply.completion_tokens
        else:
            tally["the server did not count tokens"] += 1
        return None

    def calls(self, table: Table, rt: Runtime) -> Calls:
        """Count the answers, and those that the ledger lacks."""
        missing = 0
        for frame in table.frames("id", "question"):
            missing += len(rt.ledger().missing(r.key for r in self._requests(frame)))
        return estimate(bound(self.model), rt, wanted=table.height, missing=missing)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the answers."""
        return estimate_at_most(bound(self.model), rt, rows)
