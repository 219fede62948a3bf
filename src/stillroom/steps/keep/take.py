"""`take`: a random sample of a fixed size."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Annotated, Any, ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from stillroom.rows import Shape, dropped
from stillroom.steps.base import Calls, Misfit, ModelSpec, Out, Runtime, Step, write_drops
from stillroom.steps.keep.spread import Spread
from stillroom.steps.sampling import Amount, at_most, beyond, divide, lottery, so_many
from stillroom.store.artifact import Delta
from stillroom.store.table import Table

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Take(Step):
    """Keep n rows, drawn at random.

    A larger n with the same seed keeps all that a smaller one kept, unless ``across`` divides it.
    If fewer rows are there, all stay, and the dataset card says so.

    Rows are drawn with equal chances, or with chances by a column of numbers, ``weight`` or
    ``rank``; a row whose number is unknown is then dropped as ``<column> unknown``. A draw is
    without replacement, one row after the other, each with its chance among those that are left
    (Efraimidis and Spirakis 2006).

    Attributes:
        n: Rows to keep, or such a part of them, as in ``10%``.
        seed: Of the draw; 42 as in OpenThoughts.
        per: Draw n rows of each value of this column, such as ``source``.
        across: Draw n rows in all, divided among the values of this column; a value with fewer rows
            than its share gives all, and the others give more.
        shares: How ``across`` divides: ``equal``; ``proportional`` to the rows of each value; or
            value to weight, where a value that is not named gives nothing.
        weight: A row's chance is proportional to this column. Rows with 0 are drawn last.
        rank: A row's chance falls with its place when rows are ordered by this column, the highest
            first: it halves every ``half`` places, as in s1 with the length of traces (Muennighoff
            et al. 2025, section 2.2).
        half: Places after which the chance of ``rank`` is one half; 1 as in s1.
        spread: Keep rows that are unlike each other: the first of the draw, and then again and
            again the row whose nearest kept row is the least like it.
    """

    STEP: ClassVar[str] = "take"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "drops"

    n: Amount
    seed: int = 42
    per: str | None = None
    across: str | None = None
    shares: Literal["equal", "proportional"] | Mapping[str, Weight] = "equal"
    weight: str | None = None
    rank: str | None = None
    half: float = Field(1.0, gt=0, allow_inf_nan=False)
    spread: Spread | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.per and self.across:
            raise ValueError("per and across given; expected one of them")
        if self.across and isinstance(self.n, str):
            raise ValueError(f"n is {self.n} beside across; expected a number, or per")
        if self.weight and self.rank:
            raise ValueError("weight and rank given; expected one of them")
        if self.spread and (other := self.per or self.across or self.weight or self.rank):
            raise ValueError(
                f"{other} given beside spread; expected no per, across, weight or rank with it"
            )
        for field, owner in (("shares", "across"), ("half", "rank")):
            if field in self.model_fields_set and not getattr(self, owner):
                raise ValueError(f"{field} goes with {owner}, and only with it")
        if isinstance(self.shares, Mapping) and not any(self.shares.values()):
            raise ValueError("all shares are 0; expected one above 0")
        return self

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare number, or percent, as n."""
        return {"n": value}

    def identity(self) -> dict[str, Any]:
        """Return the fields that have a say."""
        unused = {n for n in ("across", "weight", "rank", "spread") if getattr(self, n) is None}
        unused |= {n for n, owner in (("shares", "across"), ("half", "rank")) if owner in unused}
        used = {n: v for n, v in super().identity().items() if n not in unused}
        return used | self.drawn_on | ({"ties": "drawn apart"} if self.rank else {})

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the columns to group by and to weigh by."""
        of = self.spread.of if self.spread else None
        return tuple(c for c in (self.per, self.across, self.weight, self.rank, of) if c)

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Bind the embedder of ``spread``."""
        return self.model_copy(update={"spread": self.spread.bind(models)}) if self.spread else self

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that chances are numbers."""
        shape = super().check(shapes)
        column = self.weight or self.rank
        if column and not shape.columns[column].is_numeric():
            raise Misfit(
                f"take draws by {column!r}, which is {shape.columns[column]}; "
                "expected a column of numbers"
            )
        return shape

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls | None:
        """Count the vectors that ``spread`` compares."""
        return self.spread.calls(inputs[0], rt) if self.spread else None

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound the vectors that ``spread`` compares."""
        return self.spread.calls_at_most(rows) if self.spread else None

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that no more than n stay."""
        return rows[0] if self.per else at_most(self.n, rows[0])

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Order the rows by their draw and keep the first n."""
        (table,) = inputs
        if self.spread:
            return self._spread(table, self.spread, out, rt)
        # Columns get names of our own, because a recipe may call its columns what it likes.
        given = {"group": self.per or self.across, "chance": self.weight or self.rank}
        names = {ours: name for ours, name in given.items() if name}
        columns = table.scan(*dict.fromkeys(["id", *names.values()])).select("id", **names)
        lots = [lottery(self.seed, *self._purpose())]
        if self.rank:
            # Of equal rows one goes first by chance, but not by the chance that then draws them.
            lots.append(lottery(self.seed, *self._purpose(), "ties").alias("tie"))
        drawn = columns.with_columns(lots)
        rows = drawn.collect(engine="streaming").with_row_index("place")
        known, unknown = self._known(rows)
        turn = self._turn()
        known = known.with_columns(turn)
        order = [*(["turn"] if turn else []), "lot", "id"]
        wanted, notes = self._wanted(known)
        rest = beyond(known, wanted, order, "group" if given["group"] else None)
        drops = dropped(rest["id"], "not_drawn", place=rest["place"])
        if unknown.height:
            drops = pl.concat([drops, unknown]).sort("place")
        write_drops(table, drops, out, rt)
        return notes

    def _spread(self, table: Table, spread: Spread, out: Out, rt: Runtime) -> list[str]:
        """Choose from the rows in the order of their draw."""
        rows = table.scan("id").collect(engine="streaming").with_row_index("place")
        order = rows.with_columns(lottery(self.seed, *self._purpose())).sort("lot", "id")
        n = min(order.select(so_many(self.n)).item(), rows.height)
        kept = order["place"].gather(spread.choose(table, order["place"], n, rt))
        rest = rows.filter(~pl.col("place").is_in(kept.implode()))
        write_drops(table, dropped(rest["id"], "not_drawn", place=rest["place"]), out, rt)
        return self._wanted(rows)[1]

    def _purpose(self) -> list[str]:
        """Name what a row's chance depends on."""
        groups = {"per": self.per, "across": self.across}
        chances = {"weight": self.weight, "rank": self.rank}
        if self.rank:
            chances["half"] = str(self.half)
        named = [f"{n} {v}" for n, v in (groups | chances).items() if v is not None]
        return ["take", *(["spread"] if self.spread else named), *self.drawn_on.values()]

    def _known(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Part the rows that have a chance from those whose chance is unknown."""
        column = self.weight or self.rank
        if column is None:
            return rows, dropped([], [], place=rows["place"].clear())
        value = pl.col("chance")
        bad = rows.filter(value.is_null() | value.is_nan())
        below = rows.filter(value < 0) if self.weight else rows.clear()
        drops = [
            dropped(bad["id"], f"{column} unknown", place=bad["place"]),
            dropped(
                below["id"], f"{column} below 0",
                score=below["chance"].cast(pl.Float64), place=below["place"],
            ),
        ]  # fmt: skip
        gone = pl.concat(drops)
        return rows.join(gone, on="id", how="anti", maintain_order="left"), gone

    def _turn(self) -> list[pl.Expr]:
        """Say when a row is drawn: by the logarithm of an exponential draw over its chance."""
        if not (self.weight or self.rank):
            return []
        uniform = (pl.col("lot").cast(pl.Float64) + 0.5) / 2.0**64
        draw = (-uniform.log()).log()
        if self.weight:
            return [(draw - pl.col("chance").cast(pl.Float64).log()).alias("turn")]
        order = pl.struct(-pl.col("chance").cast(pl.Float64), "tie", "id")
        places = order.rank("ordinal")
        places = places.over("group") if self.per or self.across else places
        return [(draw + places.cast(pl.Float64) * (log(2) / self.half)).alias("turn")]

    def _wanted(self, rows: pl.DataFrame) -> tuple[pl.Expr, list[str]]:
        """Count the rows to keep of each group, and note where there are too few."""
        wanted, notes = so_many(self.n), list[str]()
        if isinstance(self.n, str):
            return wanted, notes
        if self.across is None:
            groups = rows.group_by("group").len() if self.per else rows.select(pl.len())
            short = groups.filter(pl.col("len") < self.n)["len"].sort().to_list()
            there = ", ".join(f"{n:,}" for n in short)
        else:
            # A null is a group of its own; no text is equal to its name.
            name = pl.col("group").cast(pl.String).fill_null("\0")
            room = dict(rows.select(name).to_series().value_counts().iter_rows())
            weights = self._weights(room)
            given = divide(self.n, room, weights)
            wanted = name.first().replace_strict(given, return_dtype=pl.Int64) if given else wanted
            there = f"{sum(given.values()):,}" if sum(given.values()) < self.n else ""
            notes += self._absent(room)
        if there:
            notes.append(
                f"take wanted {self.n:,} rows, but only {there} were there; all of them stay."
            )
        return wanted, notes

    def _absent(self, room: Mapping[str, int]) -> list[str]:
        """Say which values have a share and no rows: one may be misspelt."""
        named = self.shares if isinstance(self.shares, Mapping) else {}
        absent = [value for value, share in named.items() if share and value not in room]
        if not absent:
            return []
        return [f"take found no rows with {self.across} {', '.join(absent)}; the others gave more."]

    def _weights(self, room: Mapping[str, int]) -> Mapping[str, float] | None:
        if self.shares == "equal":
            return None
        if self.shares == "proportional":
            return dict(room)
        assert isinstance(self.shares, Mapping)
        return {name: self.shares.get(name, 0.0) for name in room}
