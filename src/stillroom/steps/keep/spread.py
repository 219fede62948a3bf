"""`take: {spread: ...}`: rows that are unlike each other, the farthest first."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.kernels.minhash import MOST_HASHES, MinHash
from stillroom.kernels.vectors import Matrix, farthest, signatures
from stillroom.steps.base import Calls, Misfit, ModelSpec, Runtime
from stillroom.steps.vectors import embed, embedder_role, vectors_at_most, wanted_vectors
from stillroom.store.table import Table


class Spread(BaseModel):
    """How alike rows are, for a choice of rows that are not.

    ``words``: by the runs of words, the shingles, that two texts have in common (their estimated
    Jaccard similarity), without a model. ``vectors``: by the cosine of their vectors. The choice is
    exact for either, and takes rows * n comparisons at most. Memory is 4 * ``hashes`` bytes a row,
    or 4 bytes for each number of its vector. A text that is blank, or has no vector, is chosen
    last.

    Attributes:
        by: ``words`` or ``vectors``.
        of: Column to compare.
        ngram: Words in a shingle.
        hashes: Hashes of ``words``, a multiple of 8; more tell finer differences apart.
        model: Role of the embedder in the recipe's ``models``, or ``stillroom/ngrams-1``, which
            comes with the package and compares spelling, not meaning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["words", "vectors"] = "words"
    of: str = "question"
    ngram: int = Field(3, ge=1)
    hashes: int = Field(128, ge=8, le=MOST_HASHES, multiple_of=8)
    model: str | ModelSpec = "embedder"

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the embedder, where one is needed.

        Raises:
            Misfit: If the recipe has no such role.
        """
        if self.by == "words":
            return self
        try:
            return self.model_copy(update={"model": embedder_role(self.model, models, "model")})
        except Misfit as error:
            raise Misfit(f"take.spread.{error}") from None

    def calls(self, table: Table, rt: Runtime) -> Calls | None:
        """Count the vectors; None where no model is asked."""
        texts = (text or "" for frame in table.frames(self.of) for text in frame[self.of])
        return wanted_vectors(texts, self.model, rt) if self.by == "vectors" else None

    def calls_at_most(self, rows: int) -> Calls | None:
        """Bound the vectors; None where no model is asked."""
        return vectors_at_most(rows, self.model) if self.by == "vectors" else None

    def choose(self, table: Table, order: pl.Series, n: int, rt: Runtime) -> list[int]:
        """Choose n rows that are unlike each other.

        Args:
            table: The rows.
            order: Places of the rows in the table, in an order that breaks ties.
            n: Rows to choose, as many as there are at most.
            rt: Where the embedder is.

        Returns:
            Places in ``order``.
        """
        rank = order.arg_sort()
        if self.by == "vectors":
            matrix = Matrix(8)
            texts = (t or "" for frame in table.frames(self.of) for t in frame[self.of])
            for place, vector in zip(rank, embed(texts, self.model, rt), strict=True):
                if vector is not None:
                    if not len(matrix):
                        matrix = Matrix.zeros(len(rank), len(vector))
                    matrix.put(place, vector)
            if not len(matrix):  # nothing to tell rows apart by
                return list(range(n))
            return farthest(matrix.data, len(rank), n).tolist()
        frames = (frame[self.of].fill_null("") for frame in table.frames(self.of))
        texts_ = pl.concat([pl.Series([], dtype=pl.String), *frames]).gather(order)
        keys = MinHash(self.ngram, "words", self.hashes, 1).keys(texts_, workers=rt.workers)
        rows = signatures(keys.cast("B"), len(texts_))
        return farthest(rows, len(texts_), n, hashes=True).tolist()
