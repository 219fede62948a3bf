"""The rows that a student is trained on: as many for every arm, drawn by seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from stillroom.errors import RecipeError
from stillroom.rows import content_id
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

    @cached_property
    def digest(self) -> str:
        """Name the rows by what a student learns from, in its order, and by nothing else.

        Arms whose recipes differ, and whose rows do not, have one student.
        """
        names = (content_id(*row) for part in self._parts() for row in part.iter_rows())
        return column_digest(pl.Series(names, dtype=pl.String))

    @property
    def tables_digest(self) -> str:
        """Name the rows by the tables that they come from; no row is read.

        It tells apart what is the same. Students in older stores are named by it.
        """
        chosen = value_digest([column_digest(self.copies[name]) for name in self.copies.columns])
        return value_digest([[t.digest(*COLUMNS) for t in self.tables.values()], chosen])

    @property
    def rows(self) -> int:
        """Rows, repeats counted."""
        return int(self.copies["copies"].sum())

    def write(self, folder: Path) -> None:
        """Write the rows as Parquet parts, one at a time in memory."""
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for number, part in enumerate(self._parts()):
                part.write_parquet(folder / f"{number:05}.parquet")

    def _parts(self) -> Iterator[pl.DataFrame]:
        """Yield the rows with their repeats, shard after shard."""
        for domain, table in self.tables.items():
            copies = self.copies.filter(pl.col("domain") == domain).drop("domain")
            for frame in table.frames("id", *COLUMNS):
                chosen = frame.join(copies, on="id", how="inner", maintain_order="left")
                chosen = chosen.select(*COLUMNS, "copies")
                chosen = chosen.select(pl.all().repeat_by("copies")).explode(*COLUMNS, "copies")
                yield chosen.select(*COLUMNS)


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
    if costs is not None and (uncounted := costs.null_count()):
        raise RecipeError(
            f"arm {arm}: {uncounted:,} of {there:,} rows have no token counts, because the server "
            f"that answered sent none; expected counts of all, to fill {wanted:,} answer tokens. "
            "Give the study `rows` in place of `tokens`, or ask a server that counts."
        )
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
