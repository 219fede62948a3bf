"""Seeded choice: which rows a draw takes, and how many of each group, the same on every machine.

An id is hashed with the seed, and rows are ordered by that hash. So the choice depends on the
rows and the seed alone: not on their order, on shards, or on a library's random numbers.
"""

from array import array
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


def lottery(ids: pl.Series, seed: int) -> pl.Series:
    """Draw a number for each id; the smallest numbers win.

    The number is the keyed BLAKE2b of the id, eight bytes of it, the highest first.

    Args:
        ids: Row ids.
        seed: Any integer of 128 bits.

    Returns:
        Unsigned 64-bit numbers, in the order of the ids.
    """
    key = seed.to_bytes(16, "little", signed=True)
    numbers = array("Q", _lottery.draw(ids.__arrow_c_stream__(), key))
    return pl.Series("lot", numbers, dtype=pl.UInt64)


def beyond(rows: pl.DataFrame, n: int, order: Sequence[str]) -> pl.Expr:
    """Say which rows are not among the first n, without sorting them.

    Args:
        rows: The rows.
        n: Rows that are first, 0 or above.
        order: Columns to order by, the smallest values first; where they are equal, the next one
            decides. The last has each value once.
    """
    if n >= rows.height:
        return pl.lit(False)
    if n == 0:
        return pl.lit(True)
    column, *rest = order
    value = pl.col(column)
    low = rows[column].bottom_k(n)
    # NaN sorts after all numbers, and is no maximum to `max`.
    limit = low.nan_max() if low.dtype.is_float() else low.max()
    ties = rows.filter(value == limit)
    before = rows.select((value < limit).sum()).item()
    return (value > limit) | ((value == limit) & beyond(ties, n - before, rest))


def place(per: str) -> pl.Expr:
    """Number rows from 0 in the order in which they stand, anew for each value of ``per``."""
    return pl.int_range(pl.len()).over(per)


def so_many(amount: Amount, per: str | None) -> pl.Expr:
    """Count the rows that an amount stands for, of all or of each value of ``per``.

    A part of a row counts as one, so that 1% of ten rows is one.
    """
    if isinstance(amount, int):
        return pl.lit(amount)
    part = Fraction(amount.removesuffix("%")) / 100
    rows = pl.len().over(per) if per else pl.len()
    return (rows.cast(pl.Int64) * part.numerator + (part.denominator - 1)) // part.denominator


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
