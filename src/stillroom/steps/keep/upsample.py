"""`upsample`: exactly n rows of a source that may have fewer, by repeating them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from stillroom.errors import SourceError
from stillroom.rows import Kind, Schema, Shape, dropped
from stillroom.steps.base import Out, Runtime, Step, Tick
from stillroom.steps.sampling import lottery, tiled
from stillroom.steps.source.source import SHARD
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Upsample(Step):
    """Make n rows of those that there are: shuffle them, repeat them as often as it takes, cut.

    As OpenThoughts brings short sources to size (its `upsample_dataset`). Each copy is a row of its
    own with an id of its own, so the copies of a question get different draws of a teacher. Steps
    that compare questions, such as `dedup`, belong before it. Of more than n rows, n are drawn.

    The column ``copy_of`` names the row that a copy repeats; for all others it is null.

    Attributes:
        n: Rows to make.
        seed: Of the shuffle; 42 as in OpenThoughts.
    """

    STEP: ClassVar[str] = "upsample"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "rows"
    TAKES: ClassVar[Kind | None] = "questions"

    n: int = Field(ge=0)
    seed: int = 42

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare number as n."""
        return {"n": value}

    def identity(self) -> dict[str, Any]:
        """Return the fields, and where the rows are drawn."""
        return super().identity() | self.drawn_on

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read every column, because rows are written anew."""
        return tuple(shape.columns)

    def adds(self, shape: Shape) -> Schema:
        """Add what a row is a copy of."""
        return {"copy_of": pl.String()}

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Write all columns."""
        return self.check(shapes).columns

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that n rows come out."""
        return self.n

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Order all ids first, then gather the rows of one shard after the other."""
        (table,) = inputs
        narrow = table.scan("id").collect(engine="streaming")
        if self.n and not narrow.height:
            raise SourceError(
                f"{self.label}: no rows to repeat; expected at least one. "
                "See what the steps before it dropped"
            )
        lots = lottery(self.seed, "upsample", *self.drawn_on.values())
        shuffled = narrow.with_columns(lots).sort("lot", "id")
        write_copies(
            tiled(shuffled.select("id"), self.n),
            dropped(shuffled["id"][self.n :], "not_drawn"),
            table.scan(), self.writes([table.shape]), out, rt,
        )  # fmt: skip
        return []


def write_copies(
    order: pl.DataFrame,
    lost: pl.DataFrame,
    wide: pl.LazyFrame,
    schema: Schema,
    out: Out,
    rt: Runtime,
) -> None:
    """Write rows in a given order, some of them more than once.

    Args:
        order: ``id``, ``origin`` and ``copy_of``; see `stillroom.steps.sampling.tiled`.
        lost: Rows that were not chosen; they are written with the first shard.
        wide: The originals with all their columns, each once.
        schema: Columns to write; ``copy_of`` may be left out.
        out: Where shards go.
        rt: Hears of progress.
    """
    rows = wide.select(n for n in wide.collect_schema().names() if n in schema)
    originals = rows.collect(engine="streaming")
    # Rows are gathered by their places: names of columns are the recipe's own.
    at = originals.select(origin="id").with_row_index("place")
    found = originals[order.join(at, on="origin", how="left", maintain_order="left")["place"]]
    copy_of = order["copy_of"]
    if "copy_of" in found.columns:  # a copy of a copy names the row that both repeat
        copy_of = found["copy_of"].zip_with(found["copy_of"].is_not_null(), copy_of)
    found = found.with_columns(order["id"], copy_of).select(list(schema))
    for shard in range(max(1, -(-found.height // SHARD))):
        part = found.slice(shard * SHARD, SHARD)
        drops = lost if shard == 0 and lost.height else None
        # Copies come out and never went in.
        first = order["copy_of"].slice(shard * SHARD, SHARD).null_count()
        n_in = first + (0 if drops is None else drops.height)
        if not out.has(shard):
            out.write(shard, part, rows_in=n_in, lost=drops)
        rt.tick(Tick(rows=n_in))
