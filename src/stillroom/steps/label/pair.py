"""`pair`: which two draws of a question are the chosen and the rejected one of a preference."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from stillroom.rows import Schema
from stillroom.steps.label.measure import Plain

Which = Literal["shortest correct", "longest correct", "shortest incorrect", "longest incorrect"]


class Pair(Plain):
    """Mark one draw of each question as ``chosen`` and another as ``rejected``.

    Length is that of thinking and answer together, in characters; ties are broken by the row's id.
    A question that lacks one of the two gets no pair, and its rows are null.

    Attributes:
        chosen: Which draw is preferred.
        rejected: Which is not.

    Source: Sky-T1-Flash prefers the shortest right answer to the longest right one.
    """

    GROUPS = True

    chosen: Which
    rejected: Which

    def reads(self) -> Sequence[str]:
        """Read verdicts and texts, question by question."""
        return ("question_id", "verdict", "reasoning", "answer")

    def adds(self) -> Schema:
        """Add the mark."""
        return {"pair": pl.String()}

    def expressions(self) -> list[pl.Expr]:
        """Find both draws of each question."""
        chosen, rejected = self._first(self.chosen), self._first(self.rejected)
        both = (chosen != rejected).over("question_id")
        mark = (
            pl.when(pl.col("id") == chosen)
            .then(pl.lit("chosen"))
            .when(pl.col("id") == rejected)
            .then(pl.lit("rejected"))
        )
        return [pl.when(both).then(mark).alias("pair")]

    def _first(self, which: Which) -> pl.Expr:
        """Return the id of the draw, on every row of the question; null if there is none."""
        side, _, verdict = which.partition(" ")
        length = pl.col("answer").str.len_chars() + pl.col("reasoning").str.len_chars().fill_null(0)
        order = -length.cast(pl.Int64) if side == "longest" else length.cast(pl.Int64)
        fits = pl.col("verdict") == verdict
        ids = pl.col("id").filter(fits).sort_by(order.filter(fits), pl.col("id").filter(fits))
        return ids.first().over("question_id")
