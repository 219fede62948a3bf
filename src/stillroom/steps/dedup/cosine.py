"""`dedup: {cosine: ...}`: questions that say the same in other words."""

from collections.abc import Mapping
from typing import ClassVar, Self

import polars as pl
from pydantic import Field

from stillroom.kernels.vectors import Matrix, dedup
from stillroom.steps.base import Calls, ModelSpec, Runtime, Tick
from stillroom.steps.dedup.method import REPEATS, Method, Ranked
from stillroom.steps.vectors import embed, embedder_role, vectors_at_most, wanted_vectors
from stillroom.store.table import Table


class Cosine(Method):
    """Two questions are the same if the cosine of their vectors reaches a threshold.

    A row goes if it is near a better row that stays; no two rows that stay reach the threshold.
    All pairs are compared, exactly. That takes rows * rows * width / 2 products, and 4 * rows *
    width bytes of memory: 200,000 questions in vectors of 512 numbers are 10^13 products and 400
    MB. A question without a vector, because it is empty or the embedder refused it, stays.

    Attributes:
        threshold: Cosine, above 0 and up to 1. What is the same depends on the embedder: look at
            the drops.
        model: Role of the embedder in the recipe's ``models``, or ``stillroom/ngrams-1``, which
            comes with the package and compares spelling, not meaning.
    """

    REASON: ClassVar[str] = "same_meaning"
    BARE: ClassVar[str | None] = "threshold"

    threshold: float = Field(0.9, gt=0, le=1)
    model: str | ModelSpec = "embedder"

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the embedder."""
        return self.model_copy(update={"model": embedder_role(self.model, models, "cosine.model")})

    def calls(self, table: Table, rt: Runtime) -> Calls | None:
        """Count the vectors."""
        texts = (text for frame in table.frames("question") for text in frame["question"])
        return wanted_vectors(texts, self.model, rt)

    def calls_at_most(self, rows: int) -> Calls | None:
        """Bound the vectors."""
        return vectors_at_most(rows, self.model)

    def find(self, rows: Ranked, rt: Runtime) -> pl.DataFrame:
        """Embed the questions in the order of the table, and compare them in that of rank."""
        texts = (text for frame in rows.frames("question") for text in frame["question"])
        matrix = Matrix(8)
        for rank, vector in zip(rows.rank, embed(texts, self.model, rt), strict=True):
            if vector is not None:
                if not len(matrix):
                    matrix = Matrix.zeros(len(rows.rank), len(vector))
                matrix.put(rank, vector)
        found = dedup(
            matrix,
            self.threshold,
            workers=rt.workers,
            tick=lambda done: rt.tick(Tick(rows=done)),
        )
        return found.select(pl.col(name).cast(dtype) for name, dtype in REPEATS.items())
