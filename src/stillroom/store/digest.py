"""Digests of content: of values, of columns, of sets of ids, of files.

All are BLAKE2b, which is in the standard library and safe against accidents and attackers alike.
A digest speaks of values only: not of file layout, compression, paths or library versions.
"""

import json
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from itertools import repeat
from pathlib import Path

import polars as pl

SIZE = 16
_MODULUS = 1 << (8 * SIZE)


def value_digest(value: object) -> str:
    """Digest a value made of JSON types; the order of keys in objects does not matter.

    Raises:
        TypeError: If the value holds something that JSON cannot say, such as a function or a set.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=SIZE).hexdigest()


def column_digest(column: pl.Series) -> str:
    """Digest the values of a column, in order, nulls told apart from empty values."""
    state = blake2b(str(column.dtype).encode(), digest_size=SIZE)
    if column.null_count():
        state.update(bytes(column.is_null().to_list()))
    if column.dtype == pl.String:
        state.update(array("I", column.str.len_bytes().fill_null(0).to_list()).tobytes())
        state.update(column.str.join("").item().encode() if len(column) else b"")
    elif column.dtype.is_integer() or column.dtype == pl.Boolean:
        state.update(array("q", column.cast(pl.Int64).fill_null(0).to_list()).tobytes())
    elif column.dtype.is_float():
        state.update(array("d", column.cast(pl.Float64).fill_null(0.0).to_list()).tobytes())
    else:
        state.update(json.dumps(column.to_list(), default=str).encode())
    return state.hexdigest()


def add_ids(total: str, ids: Iterable[str]) -> str:
    """Add ids to the digest of a set of ids.

    Ids are hashes already, so their sum names the set whatever the order, and two disjoint sets
    add up: dropping a then b gives the same digest as dropping b then a.

    Args:
        total: Digest so far; ``""`` for the empty set.
        ids: Hexadecimal ids that are not in the set yet.
    """
    number = (int(total or "0", 16) + sum(map(int, ids, repeat(16)))) % _MODULUS
    return f"{number:0{2 * SIZE}x}" if number else ""


def file_digest(path: Path) -> str:
    """Digest the bytes of a file."""
    state = blake2b(digest_size=SIZE)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
