"""`mix`: the questions of several branches, as one table in seeded order."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from stillroom.rows import Kind, Schema, Shape, dropped
from stillroom.steps.base import Misfit, ModelSpec, Out, Runtime, Step, Tick
from stillroom.steps.sampling import lottery
from stillroom.steps.source.source import SHARD
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Mix(Step):
    """Put the questions of several branches together and shuffle them.

    Branches are chains of steps of their own, each with a source. A column that only some branches
    have is null for the others. The order depends on the ids and the seed alone, so it does not
    matter which branch is written, or finished, first.

    Attributes:
        branches: Name to chain of steps.
        seed: Of the shuffle.
    """

    STEP: ClassVar[str] = "mix"
    DELTA: ClassVar[Delta] = "rows"
    TAKES: ClassVar[Kind | None] = "questions"

    branches: Mapping[str, tuple[Any, ...]] = Field(min_length=1)
    seed: int = 42

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Leave anything else to the check of types."""
        return {"branches": value}

    def identity(self) -> dict[str, Any]:
        """Return the seed; the branches are inputs, and enter the key by their content."""
        return {"seed": self.seed}

    def bind(self, models: Mapping[str, ModelSpec]) -> "Mix":
        """Bind the models of all branches."""
        branches = {n: tuple(s.bind(models) for s in steps) for n, steps in self.branches.items()}
        return self.model_copy(update={"branches": branches})

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read every column, because rows are written anew."""
        return tuple(shape.columns)

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that branches end in questions, and agree on the types of their columns."""
        columns: dict[str, pl.DataType] = {}
        for name, shape in zip(self.branches, shapes, strict=True):
            if shape.kind != "questions":
                raise Misfit(f"branch {name} ends in answers; expected questions. Answer after mix")
            for column, dtype in shape.columns.items():
                if columns.setdefault(column, dtype) != dtype:
                    raise Misfit(
                        f"branch {name} has the column {column!r} as {dtype}, another branch as "
                        f"{columns[column]}; expected one type"
                    )
        return Shape("questions", columns)

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Write the columns of all branches."""
        return self.check(shapes).columns

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Add the branches up."""
        known = [n for n in rows if n is not None]
        return sum(known) if len(known) == len(rows) else None

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Order all ids first, then gather the rows of one shard after the other."""
        schema = self.writes([table.shape for table in inputs])
        narrow = pl.concat([table.scan("id").collect(engine="streaming") for table in inputs])
        order = narrow.with_columns(lottery(narrow["id"], self.seed)).sort("lot", "id")
        repeated = order["id"].is_duplicated() & ~order["id"].is_first_distinct()
        lost = order.filter(repeated)["id"]
        ids = order.filter(~repeated).select("id").with_row_index("place")
        wide = pl.concat([table.scan() for table in inputs], how="diagonal")
        if lost.len():
            wide = wide.unique("id", keep="first", maintain_order=True)
        rows = wide.select(list(schema)).collect(engine="streaming")
        rows = ids.select("id").join(rows, on="id", how="left", maintain_order="left")
        rows = rows.select(list(schema))
        for shard in range(max(1, -(-rows.height // SHARD))):
            part = rows.slice(shard * SHARD, SHARD)
            drops = (
                dropped(lost, "in_two_branches", witness=lost) if shard == 0 and len(lost) else None
            )
            n_in = part.height + (0 if drops is None else drops.height)
            if not out.has(shard):
                out.write(shard, part, rows_in=n_in, lost=drops)
            rt.tick(Tick(rows=n_in))
        return []
