"""`take`: a random sample of a fixed size."""

from collections.abc import Sequence
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from stillroom.rows import Shape, dropped
from stillroom.steps.base import Out, Runtime, Step, write_drops
from stillroom.steps.sampling import lottery, place, smallest
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Take(Step):
    """Keep n rows, drawn at random.

    A larger n with the same seed keeps all that a smaller one kept. If fewer rows are there, all
    stay, and the dataset card says so.

    Attributes:
        n: Rows to keep.
        seed: Of the draw; 42 as in OpenThoughts.
        per: Draw n rows of each value of this column, such as ``source``.
    """

    STEP: ClassVar[str] = "take"
    DELTA: ClassVar[Delta] = "drops"

    n: int = Field(ge=0)
    seed: int = 42
    per: str | None = None

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare number as n."""
        return {"n": value}

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the column to group by."""
        return (self.per,) if self.per else ()

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that no more than n stay."""
        return smallest(rows[0], None if self.per else self.n)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Draw a number for each row and keep the smallest n."""
        (table,) = inputs
        rows = table.scan("id", *self.reads(table.shape)).collect(engine="streaming")
        rows = rows.with_columns(lottery(rows["id"], self.seed))
        rest = rows.sort("lot", "id").filter(place(self.per) >= self.n)
        write_drops(table, dropped(rest["id"], "not_drawn"), out, rt)
        groups = rows.group_by(self.per).len() if self.per else rows.select(pl.len())
        short = groups.filter(pl.col("len") < self.n)
        if not short.height:
            return []
        there = ", ".join(f"{n:,}" for n in short["len"].sort())
        return [f"take wanted {self.n:,} rows, but only {there} were there; all of them stay."]
