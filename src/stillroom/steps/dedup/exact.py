"""`dedup: exact`: questions with the same normal form."""

from typing import ClassVar

import polars as pl

from stillroom.steps.base import Runtime
from stillroom.steps.dedup.method import Method, Ranked
from stillroom.text.normal import normal_form_expr


class Exact(Method):
    """Two questions are the same if their normal forms are (`stillroom.text.normal`).

    Normal forms are compared by two independent 64-bit hashes; among 10 million questions the
    chance that two different ones agree in both is below 1 in 10^24.
    """

    REASON: ClassVar[str] = "duplicate"

    def find(self, rows: Ranked, rt: Runtime) -> pl.DataFrame:
        """Hash shard by shard, then compare the hashes."""
        form = normal_form_expr("question")
        hashed = pl.concat(
            frame.select(form.alias("form"), "rank").select(
                pl.col("form").hash(seed=1).alias("h1"),
                pl.col("form").hash(seed=2).alias("h2"),
                "rank",
            )
            for frame in rows.frames("question")
        )
        witness = pl.col("rank").min().over("h1", "h2")
        repeats = hashed.with_columns(witness.alias("witness")).filter(
            pl.col("rank") != pl.col("witness")
        )
        return repeats.select(pl.col("rank").alias("row"), "witness", pl.lit(100.0).alias("score"))
