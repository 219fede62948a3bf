"""`embedding`: how much nearer a question is to good examples than to bad ones."""

import contextlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import add, sub
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from stillroom.errors import ModelError
from stillroom.kernels.vectors import Matrix, scores
from stillroom.rows import Schema, content_id
from stillroom.steps.asking import bound
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise, Tick
from stillroom.steps.label import examples
from stillroom.steps.label.measure import Frames, Measure
from stillroom.steps.source.source import Source
from stillroom.steps.vectors import embed, embedder_role, vectors_at_most, wanted_vectors
from stillroom.store.table import Table

PART = 2048
"""Texts whose vectors are in memory together."""


class Embedding(Measure):
    """How much nearer the text is to the positives than to the negatives, -2 to 2.

    The value is the mean dot product with all positives minus that with all negatives, of vectors
    of length 1. An empty text has a vector of zeros, and so the value 0; a text that the embedder
    refuses has none.

    Source: OpenThoughts, section on question filtering, where the embedder is OpenAI's
    text-embedding-3-large.

    Attributes:
        model: Role of the embedder in the recipe's ``models``, or ``stillroom/ngrams-1``, which
            comes with the package and compares spelling, not meaning.
        positives: Good examples: sources by name, a path, or a list of paths.
        negatives: Bad examples.
        of: Column to measure.
        column: Name of the new column.
    """

    ASKS: ClassVar[bool] = True

    model: str | ModelSpec = "embedder"
    positives: Mapping[str, Source] = Field(min_length=1)
    negatives: Mapping[str, Source] = Field(min_length=1)
    of: str = "question"
    column: str = "embedding"

    @model_validator(mode="before")
    @classmethod
    def _sets(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        sets = {n: examples.named(value[n]) for n in ("positives", "negatives") if n in value}
        return {**value, **sets}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the embedder."""
        return self.model_copy(update={"model": embedder_role(self.model, models, "model")})

    def identity(self) -> dict[str, Any]:
        """Let only what is said of the examples enter the key."""
        return {n: examples.identity(getattr(self, n)) for n in ("positives", "negatives")}

    def outside(self, rt: Runtime) -> str:
        """Digest the examples."""
        return content_id(*(examples.digest(s, rt) for s in (self.positives, self.negatives)))

    def named(self) -> Sequence[str]:
        """Name the examples."""
        return [*self.positives, *self.negatives]

    def reads(self) -> Sequence[str]:
        """Read the text."""
        return (self.of,)

    def adds(self) -> Schema:
        """Add one column of numbers."""
        return {self.column: pl.Float64()}

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Find the direction from the negatives to the positives."""
        good, bad = self._mean("positives", rt), self._mean("negatives", rt)
        towards = array("d", map(sub, good, bad))

        def measure(frame: pl.DataFrame) -> pl.DataFrame:
            values: list[float | None] = []
            for part in frame.iter_slices(PART):
                texts = part[self.of].fill_null("").to_list()
                vectors = list(embed(texts, self.model, rt))
                near = scores(Matrix.of(vectors, len(towards)), towards)
                for text, vector, value in zip(texts, vectors, near, strict=True):
                    refused = vector is None and bool(text.strip())
                    tally["the embedder refused the text"] += refused
                    values.append(None if refused else value)
                rt.tick(Tick(rows=part.height))
            data = {"id": frame["id"], self.column: values}
            return pl.DataFrame(data, schema_overrides=dict(self.adds()))

        yield measure

    def calls(self, table: Table, rt: Runtime) -> Calls | None:
        """Count the vectors of the texts and of the examples."""
        texts = (text or "" for frame in table.frames(self.of) for text in frame[self.of])
        return wanted_vectors(chain(self._examples(rt), texts), self.model, rt)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound the vectors of the texts; examples are counted when the texts are there."""
        return vectors_at_most(rows, self.model)

    def _examples(self, rt: Runtime) -> Iterator[str]:
        sets = (self.positives, self.negatives)
        return chain.from_iterable(examples.texts(s, rt) for s in sets)

    def _mean(self, which: Literal["positives", "negatives"], rt: Runtime) -> "array[float]":
        """Average the vectors of all examples."""
        sums, n = array("d"), 0
        found = embed(examples.texts(getattr(self, which), rt), self.model, rt)
        while part := list(islice(found, PART)):
            vectors = [vector for vector in part if vector is not None]
            if vectors:
                here = Matrix.of(vectors).sum()
                sums = array("d", map(add, sums or array("d", bytes(8 * len(here))), here))
                n += len(vectors)
        if not n:
            raise ModelError(
                f"{bound(self.model).name}: refuses every one of the {which}; expected vectors. "
                "See whether the texts are too long for it."
            )
        return array("d", (value / n for value in sums))
