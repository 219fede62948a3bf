"""The rows that a student is trained on: as many for every arm, drawn by seed."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from stillroom.errors import RecipeError
from stillroom.rows import content_id
from stillroom.steps.sampling import lottery
from stillroom.store.digest import column_digest, value_digest
from stillroom.store.store import Store, disk_errors, replace_text
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

    @property
    def wanted(self) -> int:
        """Rows or tokens."""
        return self.tokens or self.rows or 0


@dataclass(frozen=True)
class Drawn:
    """The rows of one student: which they are is drawn again where it is asked, and never kept.

    A study has hundreds of students, and an id for each of their rows would fill the memory.

    Attributes:
        tables: Domain to the arm's final table.
        budget: How much was drawn.
        seed: Of the order.
        there: Rows that the arm's recipe made.
        rows: Rows, repeats counted.
        distinct: Of these, different ones.
        chosen: Digest of the ids of the rows, and of how often each is there.
    """

    tables: Mapping[str, Table]
    budget: Budget
    seed: int
    there: int
    rows: int
    distinct: int
    chosen: str

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
        return value_digest([[t.digest(*COLUMNS) for t in self.tables.values()], self.chosen])

    def named(self, store: Store) -> str:
        """Return `digest`, which is worked out once in a store: it reads every row."""
        path = store.root / "drawn" / self.tables_digest
        with contextlib.suppress(FileNotFoundError):
            if found := path.read_text("utf-8"):
                return found
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, self.digest)
        return self.digest

    def copies(self) -> pl.DataFrame:
        """Return ``domain``, ``id`` and ``copies``: how often each chosen row is there.

        Two domains that draw on one source may have rows of one id.
        """
        order = _order(self.tables, self.seed)
        return _copies(order, _costs(order, self.budget), self.budget)

    def write(self, folder: Path) -> None:
        """Write the rows as Parquet parts, one at a time in memory; a folder that is there stays.

        It appears when it is whole: a kill leaves nothing that could be taken for all rows.
        """
        if folder.exists():
            return
        partial = folder.with_name(f"{folder.name}.partial")
        with disk_errors(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for number, part in enumerate(self._parts()):
                part.write_parquet(partial / f"{number:05}.parquet")
            partial.rename(folder)

    def _parts(self) -> Iterator[pl.DataFrame]:
        """Yield the rows with their repeats, shard after shard."""
        every = self.copies()
        for domain, table in self.tables.items():
            copies = every.filter(pl.col("domain") == domain).drop("domain")
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
    order = _order(tables, seed)
    costs = _costs(order, budget)
    unit = "answer tokens" if budget.tokens else "rows"
    wanted = budget.wanted
    if costs is not None and (uncounted := costs.null_count()):
        raise RecipeError(
            f"arm {arm}: {uncounted:,} of {order.height:,} rows have no token counts, because the "
            f"server that answered sent none; expected counts of all, to fill {wanted:,} answer "
            "tokens. Give the study `rows` in place of `tokens`, or ask a server that counts."
        )
    total = order.height if costs is None else int(costs.sum())
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
    copies = _copies(order, costs, budget)
    return Drawn(
        tables, budget, seed,
        there=order.height,
        rows=int(copies["copies"].sum()),
        distinct=copies.height,
        chosen=value_digest([column_digest(copies[name]) for name in copies.columns]),
    )  # fmt: skip


def _order(tables: Mapping[str, Table], seed: int) -> pl.DataFrame:
    """Put all rows of an arm in the order in which a seed takes them."""
    rows = pl.concat(
        t.scan("id", "completion_tokens").collect().with_columns(pl.lit(domain).alias("domain"))
        for domain, t in tables.items()
    )
    return rows.with_columns(lottery(seed, "student")).sort("lot", "id", "domain")


def _costs(order: pl.DataFrame, budget: Budget) -> pl.Series | None:
    """Return the answer tokens of each row, where tokens are counted."""
    return order["completion_tokens"].cast(pl.Int64) if budget.tokens else None


def _copies(order: pl.DataFrame, costs: pl.Series | None, budget: Budget) -> pl.DataFrame:
    """Take rows from the front, and go through the order again for what is still wanted."""
    total = order.height if costs is None else int(costs.sum())
    rounds, rest = divmod(budget.wanted, total)
    place = pl.Series(range(order.height)) if costs is None else costs.cum_sum() - costs
    # The row that crosses the border is in: a budget of tokens is met, not just approached.
    copies = order.select("domain", "id").with_columns(
        ((place < rest).cast(pl.Int64) + rounds).alias("copies")
    )
    return copies.filter(pl.col("copies") > 0)
