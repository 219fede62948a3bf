"""`dedup`: one row of those that ask the same."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import polars as pl

from stillroom.rows import Kind, Shape, dropped
from stillroom.steps.base import Out, Runtime, Step, write_drops
from stillroom.store.artifact import Delta
from stillroom.store.table import Table
from stillroom.text.normal import normal_form_expr


class Dedup(Step):
    """Drop questions that repeat another one.

    ``exact``: two questions are the same if their normal forms are (`stillroom.text.normal`). Of
    each group one survives: the first that has a reference, or the first of all. Every dropped
    row names the survivor as its witness.

    Normal forms are compared by two independent 64-bit hashes; among 10 million questions the
    chance that two different ones agree in both is below 1 in 10^24.

    Attributes:
        method: ``exact``.
    """

    STEP: ClassVar[str] = "dedup"
    VERSION: ClassVar[int] = 1
    DELTA: ClassVar[Delta] = "drops"
    TAKES: ClassVar[Kind | None] = "questions"

    method: Literal["exact"]

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the method."""
        return {"method": value}

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question, and the reference for the choice of the survivor."""
        return ("question", "reference")

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Hash shard by shard, then compare the hashes."""
        (table,) = inputs
        form = normal_form_expr("question")
        hashed = [
            frame.select(
                "id",
                form.hash(seed=1).alias("h1"),
                form.hash(seed=2).alias("h2"),
                pl.col("reference").is_null().alias("unreferenced"),
            )
            for frame in table.frames("id", "question", "reference")
        ]
        if not hashed:
            return []
        rows = pl.concat(hashed).with_row_index("place")
        ranked = rows.sort("h1", "h2", "unreferenced", "place").with_columns(
            pl.col("id").first().over("h1", "h2").alias("survivor")
        )
        repeats = ranked.filter(pl.col("id") != pl.col("survivor")).sort("place")
        drops = dropped(repeats["id"], "duplicate", score=100.0, witness=repeats["survivor"])
        write_drops(table, drops, out, rt)
        return []
