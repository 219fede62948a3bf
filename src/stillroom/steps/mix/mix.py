"""`mix`: the questions of several branches, as one table in seeded order."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from stillroom.errors import SourceError
from stillroom.rows import Kind, Schema, Shape, dropped
from stillroom.steps.base import Misfit, ModelSpec, Out, Runtime, Step
from stillroom.steps.keep.upsample import write_copies
from stillroom.steps.sampling import divide, lottery, smallest, tiled
from stillroom.steps.source.source import Source
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Mix(Step):
    """Put the questions of several branches together and shuffle them.

    Branches are chains of steps of their own, each with a source. A column that only some branches
    have is null for the others. The order depends on the ids and the seed alone, so it does not
    matter which branch is written, or finished, first.

    With ``total``, so many rows are drawn: the same number from each branch, or by ``weights``.

    Attributes:
        branches: Name to chain of steps.
        top: Mix the best so many branches only; the others are not run.
        rank: The names of all branches, the best first, for ``top``. Without it, the order in which
            they stand.
        total: Rows to draw in all. Parts of rows go to the largest remainders.
        weights: Branch to its weight, above 0, for all branches that are mixed; only their
            proportions matter.
        caps: Branch to the most rows that it may give; what it cannot take of ``total`` goes to the
            others.
        short: What to do if a branch has fewer rows than its share of ``total``: ``refuse``;
            ``take`` what is there, and the dataset card says so; or ``upsample``, repeat its rows
            as the step of that name does.
        seed: Of the shuffle and of the draw.
    """

    STEP: ClassVar[str] = "mix"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "rows"
    TAKES: ClassVar[Kind | None] = "questions"

    branches: Mapping[str, tuple[Any, ...]] = Field(min_length=1)
    top: int | None = Field(None, ge=1)
    rank: tuple[str, ...] | None = None
    total: int | None = Field(None, ge=0)
    weights: Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    caps: Mapping[str, Annotated[int, Field(ge=0)]] | None = None
    short: Literal["refuse", "take", "upsample"] = "refuse"
    seed: int = 42

    @model_validator(mode="after")
    def _fits_its_branches(self) -> Self:
        names = ", ".join(self.branches)
        if self.top is not None and self.top > len(self.branches):
            raise ValueError(
                f"top is {self.top}; expected {len(self.branches)} at most, the branches"
            )
        if self.rank is not None and self.top is None:
            raise ValueError("rank goes with top, and only with it; expected top: N")
        if self.rank is not None and sorted(self.rank) != sorted(self.branches):
            raise ValueError(f"rank names {', '.join(self.rank)}; expected each of {names} once")
        for field in ("weights", "caps"):
            unknown = [n for n in getattr(self, field) or () if n not in self.branches]
            if unknown:
                raise ValueError(
                    f"{field} names {unknown[0]}, which is no branch; expected {names}"
                )
        if self.weights is not None:
            if self.total is None:
                raise ValueError("weights goes with total, and only with it; expected total: ROWS")
            missing = [name for name in self.mixed if name not in self.weights]
            if missing:
                raise ValueError(f"weights leaves out {missing[0]}; expected one for each branch")
        if self.total is not None and self.caps is not None:
            room = sum(self.caps.get(name, self.total) for name in self.mixed)
            if room < self.total:
                raise ValueError(f"the caps add up to {room:,}; expected total, {self.total:,}")
        if self.short != "refuse" and self.total is None:
            raise ValueError("short goes with total, and only with it; expected total: ROWS")
        return self

    @property
    def mixed(self) -> Mapping[str, tuple[Any, ...]]:
        """The branches that are mixed; all, or the best of them."""
        best = (self.rank or tuple(self.branches))[: self.top]
        return {name: steps for name, steps in self.branches.items() if name in best}

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Leave anything else to the check of types."""
        return {"branches": value}

    def identity(self) -> dict[str, Any]:
        """Return the seed and the draw; the branches are inputs, and enter by their content."""
        if self.total is None and self.caps is None:
            return {"seed": self.seed, **self.drawn_on}
        drawn = {"total": self.total, "weights": self.weights, "caps": self.caps}
        return {
            "seed": self.seed,
            "branches": list(self.mixed),
            # Names the draw, so that arms that mix fewer branches draw the same rows of those.
            "of": sorted(self.branches),
            "short": self.short,
            **{name: value for name, value in drawn.items() if value is not None},
            **self.drawn_on,
        }

    def bind(self, models: Mapping[str, ModelSpec]) -> "Mix":
        """Bind the models of all branches."""
        branches = {n: tuple(s.bind(models) for s in steps) for n, steps in self.branches.items()}
        return self.model_copy(update={"branches": branches})

    def named(self) -> Sequence[str]:
        """Name what the branches do."""
        return [name for steps in self.branches.values() for s in steps for name in s.named()]

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read every column, because rows are written anew."""
        return tuple(shape.columns)

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that branches end in questions, and agree on names and types of their columns."""
        self._check_names()
        columns: dict[str, pl.DataType] = {}
        for name, shape in zip(self.mixed, shapes, strict=True):
            if shape.kind != "questions":
                raise Misfit(f"branch {name} ends in answers; expected questions. Answer after mix")
            for column, dtype in shape.columns.items():
                if columns.setdefault(column, dtype) != dtype:
                    raise Misfit(
                        f"branch {name} has the column {column!r} as {dtype}, another branch as "
                        f"{columns[column]}; expected one type"
                    )
        if self.short == "upsample":
            columns["copy_of"] = pl.String()
        return Shape("questions", columns)

    def _check_names(self) -> None:
        """Make sure that no two files go by one name: their rows could not be told apart."""
        files: dict[str, str] = {}
        for source in _sources(self.mixed):
            known = files.setdefault(source.name, str(source.file))
            if source.file and known != source.file:
                raise Misfit(
                    f"{known} and {source.file} would both be called {source.name!r} in the column "
                    "source; expected a name for each. Write `as: NAME` beside one of them"
                )

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Write the columns of all branches."""
        return self.check(shapes).columns

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Add the branches up, as far as they may give."""
        if self.short == "upsample":
            return self.total
        caps = [(self.caps or {}).get(name) for name in self.mixed]
        each = [smallest(*pair) for pair in zip(rows, caps, strict=True)]
        known = [n for n in each if n is not None]
        return smallest(sum(known) if len(known) == len(each) else None, self.total)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Order all ids first, then gather the rows of one shard after the other."""
        schema = self.writes([table.shape for table in inputs])
        narrow = pl.concat(
            table.scan("id").collect(engine="streaming").with_columns(branch=pl.lit(name))
            for name, table in zip(self.mixed, inputs, strict=True)
        )
        first = narrow.unique("id", keep="first", maintain_order=True)
        repeated = narrow.filter(narrow["id"].is_duplicated() & ~narrow["id"].is_first_distinct())
        lots = lottery(self.seed, "mix", *sorted(self.branches), *self.drawn_on.values())
        order = first.with_columns(lots).sort("lot", "id")
        mixed, notes = self._drawn(order)
        undrawn = order.join(mixed, left_on="id", right_on="origin", how="anti")["id"]
        lost = pl.concat(
            [
                dropped(repeated["id"], "in_two_branches", witness=repeated["id"]),
                dropped(undrawn, "not_drawn"),
            ]
        )
        wide = pl.concat([table.scan() for table in inputs], how="diagonal")
        if repeated.height:
            wide = wide.unique("id", keep="first", maintain_order=True)
        write_copies(mixed, lost, wide, schema, out, rt)
        return notes

    def _drawn(self, order: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
        """Draw each branch's share of rows, and shuffle what was drawn.

        Args:
            order: ``id`` and ``branch``, in the order of the draw.
        """
        there = dict.fromkeys(self.mixed, 0) | dict(order["branch"].value_counts().iter_rows())
        shares = self._shares(there)
        parts, notes = [], []
        for name, share in shares.items():
            rows = order.filter(pl.col("branch") == name)
            short = f"branch {name} has {rows.height:,} rows"
            if rows.height < share and (self.short == "refuse" or not rows.height):
                raise SourceError(
                    f"{self.label}: {short}; expected {share:,}, its share of total. Give it more "
                    "rows, lower total, or say `short: take` or `short: upsample`"
                )
            if rows.height < share and self.short == "take":
                notes.append(f"{short}, fewer than its share of {share:,}; all of them stay.")
                share = rows.height
            parts.append(tiled(rows.select("id"), share))
        mixed = pl.concat(parts)
        lots = lottery(self.seed, "order of a mix", *self.drawn_on.values())
        return mixed.with_columns(lots).sort("lot", "id").drop("lot"), notes

    def _shares(self, there: Mapping[str, int]) -> dict[str, int]:
        """Count the rows that each branch is to give."""
        caps = self.caps or {}
        if self.total is None:
            return {name: min(rows, caps.get(name, rows)) for name, rows in there.items()}
        room = {name: caps.get(name, self.total) for name in there}
        return divide(self.total, room, self.weights)


def _sources(branches: Mapping[str, tuple[Any, ...]]) -> Iterator[Source]:
    """List the sources of branches, and of those inside them."""
    for step in chain.from_iterable(branches.values()):
        if isinstance(step, Mix):
            yield from _sources(step.mixed)
        elif isinstance(step, Source):
            yield step
