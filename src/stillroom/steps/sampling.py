"""Seeded order: which rows a random choice takes, the same on every machine.

An id is hashed with the seed, and rows are ordered by that hash. So the choice depends on the
rows and the seed alone: not on their order, on shards, or on a library's random numbers.
"""

from hashlib import blake2b

import polars as pl


def lottery(ids: pl.Series, seed: int) -> pl.Series:
    """Draw a number for each id; the smallest numbers win.

    Args:
        ids: Row ids.
        seed: Any integer.

    Returns:
        Unsigned 64-bit numbers, in the order of the ids.
    """
    key = seed.to_bytes(16, "little", signed=True)
    numbers = [
        int.from_bytes(blake2b(row_id.encode(), digest_size=8, key=key).digest()) for row_id in ids
    ]
    return pl.Series("lot", numbers, dtype=pl.UInt64)


def place(per: str | None) -> pl.Expr:
    """Number rows from 0 in the order in which they stand, anew for each value of ``per``."""
    number = pl.int_range(pl.len())
    return number.over(per) if per else number


def smallest(*numbers: int | None) -> int | None:
    """Return the smallest number that is known; None if none is."""
    return min((n for n in numbers if n is not None), default=None)
