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
        """Hash, then compare the hashes."""
        form = pl.col("form")
        forms = rows.table.scan("question").select(normal_form_expr("question").alias("form"))
        hashes = forms.select(form.hash(seed=1).alias("h1"), form.hash(seed=2).alias("h2"))
        hashed = hashes.collect(engine="streaming").with_columns(rows.rank.alias("rank"))
        witness = pl.col("rank").min().over("h1", "h2")
        # Few are left of which to make groups.
        repeats = (
            hashed.filter(pl.col("h1").is_duplicated())
            .with_columns(witness.alias("witness"))
            .filter(pl.col("rank") != pl.col("witness"))
        )
        return repeats.select(pl.col("rank").alias("row"), "witness", pl.lit(100.0).alias("score"))
