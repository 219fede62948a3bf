"""`keep`: choose rows by what was measured. Choosing is free, so it is apart from measuring."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, model_validator

from stillroom.rows import Shape, dropped
from stillroom.steps.base import Misfit, Out, Runtime, Step, write_drops
from stillroom.steps.sampling import Amount, at_most, beyond, lottery, so_many
from stillroom.store.artifact import Delta
from stillroom.store.table import Table

Scalar = bool | int | float | str


class Band(BaseModel):
    """Numbers from ``min`` to ``max``, both included; one of them may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _one_border(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("neither min nor max is given; expected at least one")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; expected it below")
        return self


Rule = Band | tuple[Scalar, ...] | Scalar


class Keep(Step):
    """Keep the rows that meet conditions, or the n rows with the highest value.

    A row whose value is unknown (null, or not a number) meets no condition and is dropped with the
    reason ``<column> unknown``, apart from those that were measured and failed.

    Attributes:
        where: Column to what it must be: a value, a list of values, or ``{min: , max: }``.
        top: Keep so many rows with the highest values of ``by``, or such a part of the rows whose
            value is known, as in ``25%``.
        lowest: Keep so many rows with the lowest values of ``by``, or such a part.
        by: Column to order by, for top and lowest; ties are broken by a seeded draw.
        per: Choose top or lowest within each value of this column, such as ``source``.
        seed: Of the draw between ties.
    """

    STEP: ClassVar[str] = "keep"
    VERSION: ClassVar[int] = 3
    DELTA: ClassVar[Delta] = "drops"

    where: Mapping[str, Rule] | None = None
    top: Amount | None = None
    lowest: Amount | None = None
    by: str | None = None
    per: str | None = None
    seed: int = 42

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [n for n in ("where", "top", "lowest") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given; expected one of where, top, lowest"
            )
        if (self.where is None) != (self.by is not None):
            raise ValueError(
                "by goes with top and lowest, and only with them; "
                f"expected {'no by' if self.by else 'by: COLUMN'}"
            )
        if self.per and self.where is not None:
            raise ValueError("per goes with top and lowest; expected no per beside where")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the fields, and where ties are drawn."""
        return super().identity() | (self.drawn_on if self.by else {})

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the columns that decide."""
        if self.where is not None:
            return tuple(self.where)
        return tuple(c for c in (self.by, self.per) if c)

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that numbers are compared with numbers."""
        shape = super().check(shapes)
        ordered = [self.by] if self.by else []
        ordered += [c for c, rule in (self.where or {}).items() if isinstance(rule, Band)]
        for column in ordered:
            if column and not shape.columns[column].is_numeric():
                raise Misfit(
                    f"keep orders by {column!r}, which is {shape.columns[column]}; "
                    "expected a column of numbers"
                )
        for column, rule in (self.where or {}).items():
            if not isinstance(rule, Band):
                _values(column, rule, shape.columns[column])
        return shape

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know that no more than the top, or the lowest, stay."""
        chosen = self.top if self.top is not None else self.lowest
        return rows[0] if self.per else at_most(chosen, rows[0])

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Drop what does not meet the rule."""
        (table,) = inputs
        drops = self._beyond(table) if self.where is None else _failing(table, self.where)
        write_drops(table, drops, out, rt)
        return []

    def _beyond(self, table: Table) -> pl.DataFrame:
        n = self.top if self.top is not None else self.lowest
        assert n is not None, "without where, top or lowest is given"
        by = str(self.by)
        # Columns get names of our own, because a recipe may call its columns what it likes.
        names = {"value": by, "group": self.per} if self.per else {"value": by}
        columns = table.scan(*dict.fromkeys(["id", *names.values()])).select("id", **names)
        lots = lottery(self.seed, "keep", by, self.per, *self.drawn_on.values())
        drawn = columns.with_columns(lots)
        rows = drawn.collect(engine="streaming").with_row_index("place")
        value = pl.col("value")
        unknown = _unknown(value, rows.schema["value"])
        known = rows.filter(~unknown)
        known = known.with_columns(order=-value if self.top is not None else value)
        group = "group" if self.per else None
        rest = beyond(known, so_many(n), ["order", "lot", "id"], group)
        side = f"not in the {'top' if self.top is not None else 'lowest'} {n}"
        score = rest["value"].cast(pl.Float64)
        drops = dropped(rest["id"], side, score=score, place=rest["place"])
        lacking = rows.filter(unknown)
        if lacking.height:
            more = dropped(lacking["id"], f"{by} unknown", place=lacking["place"])
            drops = pl.concat([drops, more]).sort("place")
        return drops


def _unknown(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Say whether a value is unknown; NaN would be above every number."""
    return value.is_null() | value.is_nan() if dtype.is_float() else value.is_null()


def _values(column: str, rule: tuple[Scalar, ...] | Scalar, dtype: pl.DataType) -> pl.Series:
    """Return the values that a column may have, in its own type.

    Raises:
        Misfit: If one of them is of another type, so that no row could ever have it.
    """
    values = rule if isinstance(rule, tuple) else (rule,)
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if dtype.is_integer():
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            fits, expected = number and whole, "a whole number"
        elif dtype.is_numeric():
            fits, expected = number, "a number"
        elif dtype == pl.Boolean():
            fits, expected = isinstance(value, bool), "true or false"
        else:
            fits, expected = isinstance(value, str), "a text, in quotes"
        if not fits:
            raise Misfit(
                f"keep compares {column!r}, which is {dtype}, with {value!r}; expected {expected}"
            )
    return pl.Series(
        [int(v) if dtype.is_integer() else v for v in values], dtype=dtype, strict=False
    )


def _failing(table: Table, where: Mapping[str, Rule]) -> pl.DataFrame:
    """Make the drops of rows that fail; the first failing condition is the reason."""
    tests: list[tuple[pl.Expr, pl.Expr, pl.Expr]] = []
    # Columns get names of our own, because a recipe may call its columns what it likes.
    names = {f"value {i}": column for i, column in enumerate(where)}
    for (name, column), rule in zip(names.items(), where.values(), strict=True):
        value, score = pl.col(name), pl.lit(None, pl.Float64)
        failures = [(_unknown(value, table.schema[column]), pl.lit(f"{column} unknown"))]
        if isinstance(rule, Band):
            score = value.cast(pl.Float64)
            if rule.min is not None:
                failures.append((value < rule.min, pl.lit(f"{column} below {rule.min:g}")))
            if rule.max is not None:
                failures.append((value > rule.max, pl.lit(f"{column} above {rule.max:g}")))
        else:
            wanted = _values(column, rule, table.schema[column])
            words = pl.format(f"{column} is {{}}", value.cast(pl.String))
            failures.append((~value.is_in(wanted.implode()), words))
        tests += [(failed, words, score) for failed, words in failures]
    reason, score = pl.lit(None, pl.String), pl.lit(None, pl.Float64)
    for failed, words, value in reversed(tests):
        reason = pl.when(failed).then(words).otherwise(reason)
        score = pl.when(failed).then(value).otherwise(score)
    witness = pl.lit(None, pl.String).alias("witness")
    fails = pl.any_horizontal(pl.lit(False), *(failed for failed, _, _ in tests))
    rows = table.scan(*dict.fromkeys(["id", *where])).select("id", **names)
    drops = (
        rows.with_row_index("place")
        .filter(fails)
        .select("place", "id", reason.alias("reason"), score.alias("score"), witness)
    )
    return drops.collect(engine="streaming")
