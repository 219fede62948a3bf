"""`perplexity`: how much a text surprises a model."""

import contextlib
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from stillroom.models.likelihoods import Likelihood, Passage
from stillroom.models.vectors import Vectors, vector_key
from stillroom.rows import Schema
from stillroom.steps.asking import bound, role
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise, Tick
from stillroom.steps.label.measure import Frames, Measure
from stillroom.store.table import Table

PART = 256
"""Texts that are looked up, scored and kept together."""

BETWEEN = "\n\n"
"""Stands between what is given and what is scored."""


class Perplexity(Measure):
    """How much the text surprises a model: the perplexity, 1 or above; low is expected.

    It is exp of minus the mean natural logarithm of the probabilities of the text's tokens, each
    under all that stands before it. The text is read as it stands, without a chat template. With
    ``given``, that column stands before the text, with an empty line between, and is not scored;
    without, the first token is not. Scores are kept beside the ledger, each text once for a model;
    a text that is longer than the model's context has none.

    The model is an embedded one, a folder of weights, or behind a server that scores prompts, as
    vLLM and SGLang do (``/v1/completions`` with ``echo`` and ``logprobs``).

    Attributes:
        model: Role of the model in the recipe's ``models``.
        of: Column to measure, such as ``answer``.
        given: Column that stands before it, such as ``question``.
        column: Name of the new column; ``COLUMN_tokens`` counts the tokens that were scored.
    """

    ASKS: ClassVar[bool] = True

    model: str | ModelSpec = "scorer"
    of: str = "question"
    given: str | None = None
    column: str = "perplexity"

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model; how it samples has no say."""
        spec = role(self.model, models, "model")
        return self.model_copy(update={"model": ModelSpec(name=spec.name)})

    def reads(self) -> Sequence[str]:
        """Read the text, and what is given."""
        return (self.of, self.given) if self.given else (self.of,)

    def adds(self) -> Schema:
        """Add the perplexity, and the tokens that it is over."""
        return {self.column: pl.Float64(), f"{self.column}_tokens": pl.Int64()}

    def calls(self, table: Table, rt: Runtime) -> Calls:
        """Count the texts, and those that were not scored."""
        keys = {
            self._key(passage)
            for frame in table.frames("id", *self.reads())
            for passage in self._passages(frame)
        }
        known = 0
        if _kept(rt).exists():
            with Vectors(_kept(rt)) as scores:
                known = len(scores.get_many(keys))
        return Calls(bound(self.model).name, len(keys), len(keys) - known, unit="texts")

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the texts."""
        return Calls(bound(self.model).name, rows, rows, bound=True, unit="texts")

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Load the model once; score and keep a part of a shard at a time."""
        scorer = rt.models.scorer(bound(self.model).name)
        rt.tick(Tick(of=sum(frame.height for frame in frames())))
        names = list(self.adds())
        with Vectors(_kept(rt)) as scores:

            def measure(frame: pl.DataFrame) -> pl.DataFrame:
                rows: list[tuple[float | None, int | None]] = []
                for part in frame.iter_slices(PART):
                    passages = self._passages(part)
                    keys = [self._key(passage) for passage in passages]
                    known = scores.get_many(keys)
                    lacking = {k: p for k, p in zip(keys, passages, strict=True) if k not in known}
                    said: dict[bytes, str] = {}
                    for key, found in zip(lacking, scorer.score(lacking.values()), strict=True):
                        if isinstance(found, Likelihood):
                            known[key] = array("d", [found.total, found.tokens]).tobytes()
                        else:
                            said[key] = found
                    scores.put({key: known[key] for key in lacking if key in known})
                    for key in keys:
                        tally.update([said[key]] if key in said else [])
                        rows.append(_perplexity(known.get(key)))
                    rt.tick(Tick(rows=part.height))
                columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
                data = {name: pl.Series(name, columns.get(name, ()), dtype=dtype)
                        for name, dtype in self.adds().items()}  # fmt: skip
                return pl.DataFrame({"id": frame["id"], **data})

            yield measure

    def _passages(self, frame: pl.DataFrame) -> list[Passage]:
        texts = frame[self.of].fill_null("").to_list()
        if self.given is None:
            return [Passage(text) for text in texts]
        before = frame[self.given].fill_null("").to_list()
        return [Passage(t, f"{b}{BETWEEN}") for t, b in zip(texts, before, strict=True)]

    def _key(self, passage: Passage) -> bytes:
        text = f"{len(passage.given)} {passage.given}{passage.text}"
        return vector_key(bound(self.model).name, text)


def _perplexity(kept: bytes | None) -> tuple[float | None, int | None]:
    if kept is None:
        return None, None
    total, tokens = memoryview(kept).cast("d")
    return math.exp(-total / tokens), int(tokens)


def _kept(rt: Runtime) -> Path:
    return rt.ledger().path.with_name("likelihoods.sqlite")
