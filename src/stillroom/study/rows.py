"""The rows that a student is trained on: as many for every arm, drawn by seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stillroom.errors import RecipeError
from stillroom.steps.sampling import lottery
from stillroom.store.digest import column_digest, value_digest
from stillroom.store.store import disk_errors
from stillroom.store.table import Table

COLUMNS = ("question", "reasoning", "answer")


@dataclass(frozen=True)
class Budget:
    """How much each student is trained on.

    Attributes:
        rows: Rows, or
        tokens: answer tokens, as the teacher's server counted them.
        upsample: Whether rows are repeated where there are too few.
    """

    rows: int | None
    tokens: int | None
    upsample: bool


@dataclass(frozen=True)
class Drawn:
    """The rows of one student.

    Attributes:
        tables: Domain to the arm's final table.
        copies: ``domain``, ``id`` and ``copies``: how often each chosen row is there. Two domains
            that draw on one source may have rows of one id.
        there: Rows that the arm's recipe made.
    """

    tables: Mapping[str, Table]
    copies: pl.DataFrame
    there: int

    @property
    def digest(self) -> str:
        """Name the rows by content, and which of them were chosen."""
        return value_digest([[t.digest(*COLUMNS) for t in self.tables.values()], self.shown])

    @property
    def rows(self) -> int:
        """Rows, repeats counted."""
        return int(self.copies["copies"].sum())

    @property
    def shown(self) -> str:
        """Digest of the ids of the rows, and of how often each is there."""
        return value_digest([column_digest(self.copies[name]) for name in self.copies.columns])

    def write(self, folder: Path) -> None:
        """Write the rows as Parquet parts, one at a time in memory."""
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            part = 0
            for domain, table in self.tables.items():
                copies = self.copies.filter(pl.col("domain") == domain).drop("domain")
                for frame in table.frames("id", *COLUMNS):
                    chosen = frame.join(copies, on="id", how="inner", maintain_order="left")
                    chosen = chosen.select(*COLUMNS, "copies")
                    chosen = chosen.select(pl.all().repeat_by("copies")).explode(*COLUMNS, "copies")
                    chosen.select(*COLUMNS).write_parquet(folder / f"{part:05}.parquet")
                    part += 1


def draw(arm: str, tables: Mapping[str, Table], budget: Budget, seed: int) -> Drawn:
    """Choose the rows of one student.

    Rows are put in an order that depends on their ids and the seed, and taken from the front; with
    ``upsample`` the order is gone through again. A larger budget contains a smaller one.

    Args:
        arm: For messages.
        tables: Domain to final table.
        budget: How much.
        seed: Of the order.

    Raises:
        RecipeError: If there are no rows, or too few and they may not be repeated.
    """
    for domain, table in tables.items():
        if table.kind != "answers":
            raise RecipeError(
                f"arm {arm}: domain {domain} ends in {table.kind}; expected answers to train on. "
                "Add `answer` to the base recipe."
            )
    rows = pl.concat(
        t.scan("id", "completion_tokens").collect().with_columns(pl.lit(domain).alias("domain"))
        for domain, t in tables.items()
    )
    order = rows.with_columns(lottery(seed, "student")).sort("lot", "id", "domain")
    there = order.height
    costs = order["completion_tokens"].cast(pl.Int64) if budget.tokens else None
    wanted = budget.tokens or budget.rows or 0
    unit = "answer tokens" if budget.tokens else "rows"
    total = int(costs.sum()) if costs is not None else there
    if total == 0:
        raise RecipeError(
            f"arm {arm}: its recipe makes no {unit}; expected {wanted:,}. See `stillroom why`, or "
            "the drops of each step."
        )
    if total < wanted and not budget.upsample:
        raise RecipeError(
            f"arm {arm}: its recipe makes {total:,} {unit}; expected {wanted:,}. Take more "
            "questions, ask for fewer, or set shortage: upsample."
        )
    rounds, rest = divmod(wanted, total)
    place = pl.Series(range(there)) if costs is None else costs.cum_sum() - costs
    # The row that crosses the border is in: a budget of tokens is met, not just approached.
    copies = order.select("domain", "id").with_columns(
        ((place < rest).cast(pl.Int64) + rounds).alias("copies")
    )
    return Drawn(tables, copies.filter(pl.col("copies") > 0), there)
