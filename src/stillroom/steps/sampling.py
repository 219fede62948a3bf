"""Seeded choice: which rows a draw takes, and how many of each group, the same on every machine.

An id is hashed with the seed, and rows are ordered by that hash. So the choice depends on the
rows and the seed alone: not on their order, on shards, or on a library's random numbers.

Draws for different purposes are independent, though their seeds are equal. Rows that won one draw
have small numbers in it, and how small depends on what was drawn: if a mix and the sample after it
used the same numbers, the sample would take equally from all branches, whatever their weights.
"""

import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import count
from typing import Annotated

import polars as pl
from pydantic import Field

from stillroom.kernels import _lottery
from stillroom.rows import content_id

Percent = Annotated[str, Field(pattern=r"^(100|[1-9]?\d(\.\d+)?)%$")]
Amount = Annotated[int, Field(ge=0)] | Percent
"""So many rows, or such a part of them, as in ``10%``."""


def lottery(seed: int, *purpose: str | None) -> pl.Expr:
    """Draw a number for each ``id``, as a column ``lot``; the smallest numbers win.

    The number is the keyed BLAKE2b of the id, eight bytes of it, the highest first: an unsigned
    64-bit number. The key is the seed and the hash of the purpose, 16 bytes each.

    Args:
        seed: Any integer of 128 bits.
        purpose: What the draw decides. Draws of one purpose and seed are nested, so that the first
            100 of all rows are the first 100 of their first 1,000; of two purposes, independent.
            So it names all that a row's chance depends on but for how many win.
    """
    key = seed.to_bytes(16, "little", signed=True) + bytes.fromhex(content_id(*purpose))

    def draw(ids: pl.Series) -> pl.Series:
        numbers = pl.Series([_lottery.draw(ids.__arrow_c_stream__(), key)])
        column = pl.Array(pl.UInt64, len(ids))
        return numbers.bin.reinterpret(dtype=column, endianness=sys.byteorder).explode()

    # Elementwise: a streaming query draws for several parts of the column side by side.
    lots = pl.col("id").map_batches(draw, return_dtype=pl.UInt64, is_elementwise=True)
    return lots.alias("lot")


def beyond(
    rows: pl.DataFrame, wanted: pl.Expr, order: Sequence[str], per: str | None = None
) -> pl.DataFrame:
    """Return the rows that are not among the first, in the order in which they stand.

    Args:
        rows: The rows.
        wanted: How many rows of a group are first, 0 or above, as an aggregation of the group; see
            `so_many`.
        order: Columns to order by, the smallest values first; where they are equal, the next one
            decides. The last has each value once.
        per: Each value of this column is a group; None for one group of all rows.
    """
    return rows.filter(_late(rows, wanted, order, per))


def _late(rows: pl.DataFrame, wanted: pl.Expr, order: Sequence[str], per: str | None) -> pl.Series:
    """Tell which rows are not among the first, without sorting them."""

    def each(of_group: pl.Expr) -> pl.Expr:
        return of_group.over(per) if per else of_group

    column, *rest = order
    value, limit = pl.col(column), pl.col(f"limit of {column} per {per}")
    low = value.bottom_k(wanted)
    # NaN sorts after all numbers, and is no maximum to `max`.
    highest = low.nan_max() if rows.schema[column].is_float() else low.max()
    rows = rows.with_columns(each(highest).alias(limit.meta.output_name()))
    # A group of which none is first has no limit.
    late = rows.select((value > limit).fill_null(True)).to_series()
    last = rows.filter(value == limit)
    if not (last[per].is_duplicated().any() if per else last.height > 1):
        return late  # Nothing is tied, as is usual of a draw.
    crowded = (value == limit) & each((value <= limit).sum() > wanted)
    tied = rows.select(crowded.fill_null(False)).to_series()
    if not tied.any():
        return late
    room = pl.col(f"room per {per}")
    left = each(wanted - (value < limit).sum()).alias(room.meta.output_name())
    ties = rows.with_columns(left).filter(tied)
    return late.scatter(tied.arg_true(), _late(ties, room.first(), rest, per))


def so_many(amount: Amount) -> pl.Expr:
    """Count the rows that an amount stands for, of those of a group.

    A part of a row counts as one, so that 1% of ten rows is one.
    """
    if isinstance(amount, int):
        return pl.lit(amount)
    part = Fraction(amount.removesuffix("%")) / 100
    rows = pl.len().cast(pl.Int64)
    return (rows * part.numerator + (part.denominator - 1)) // part.denominator


def at_most(amount: Amount | None, rows: int | None) -> int | None:
    """Bound what an amount of at most so many rows is; None if nothing is known."""
    if isinstance(amount, str):
        return rows
    return smallest(amount, rows)


def smallest(*numbers: int | None) -> int | None:
    """Return the smallest number that is known; None if none is."""
    return min((n for n in numbers if n is not None), default=None)


def divide(
    total: int, room: Mapping[str, int], weights: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Divide a number of rows among groups by their weights.

    A group gets no more than it has room for; what it cannot take goes to the others, by their
    weights. Parts of rows go to the largest remainders, and among equals to the first by name.

    Args:
        total: Rows to give out.
        room: Group to the rows that it can take.
        weights: Group to its weight, 0 or above; None weighs all equally.

    Returns:
        Group to rows. Their sum is the total, or all room of groups with a weight.

    >>> divide(10, {"a": 2, "b": 100, "c": 100})
    {'a': 2, 'b': 4, 'c': 4}
    """
    weigh = {g: Fraction(str(weights[g])) if weights else Fraction(1) for g in room}
    given = dict.fromkeys(room, 0)
    hungry = sorted(g for g in room if weigh[g] > 0)
    left = total
    while hungry:
        each = Fraction(left) / sum(weigh[g] for g in hungry)
        full = [g for g in hungry if each * weigh[g] >= room[g]]
        for group in full or hungry:
            given[group] = min(int(each * weigh[group]), room[group])
        left -= sum(given[g] for g in full or hungry)
        if not full:
            by_remainder = sorted(hungry, key=lambda g: (-(each * weigh[g] % 1), g))
            for group in by_remainder[:left]:
                given[group] += 1
            break
        hungry = [g for g in hungry if g not in full]
    return given


def tiled(rows: pl.DataFrame, n: int) -> pl.DataFrame:
    """Repeat rows, all of them in their order again and again, until there are n.

    Args:
        rows: ``id`` and other columns; at least one row, unless n is 0.
        n: Rows to return; fewer than there are cuts them.

    Returns:
        The columns of ``rows`` with two more: ``id`` is new for each copy, a hash of the original's
        id and of the number of the copy; ``origin`` is the row that it is a copy of, or its own id;
        ``copy_of`` is that row for copies and null for originals.
    """
    times = -(-n // max(1, rows.height))
    taken = set(rows["id"])

    def named(row_id: str, copy: int) -> str:
        # A table that was tiled before has copies already, some of them of the same number.
        tries = (content_id("copy", row_id, copy, again) for again in count())
        return next(name for name in tries if name not in taken)

    parts = [rows.head(n).with_columns(origin="id", copy_of=pl.lit(None, pl.String))]
    for copy in range(1, times):
        part = rows.head(n - copy * rows.height).with_columns(origin="id", copy_of="id")
        ids = [named(row_id, copy) for row_id in part["id"]]
        parts.append(part.with_columns(pl.Series("id", ids, dtype=pl.String)))
    return pl.concat(parts)
