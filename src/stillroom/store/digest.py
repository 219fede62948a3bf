"""Digests of content: of values, of columns, of sets of ids, of files.

All are BLAKE2b, which is in the standard library and safe against accidents and attackers alike.
A digest speaks of values only: not of file layout, compression, paths or library versions.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from itertools import repeat
from pathlib import Path

import polars as pl

from stillroom.kernels import _digests

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
    """Digest the values of a column, in order, nulls told apart from empty values.

    What is hashed: the name of the type; a byte per value that says whether it is null, unless none
    is; and the values. Those of strings are their lengths in bytes, 32 bits each, and then all
    their bytes; numbers and booleans are 64 bits each; other types are written as JSON.
    """
    state = blake2b(str(column.dtype).encode(), digest_size=SIZE)
    if column.dtype == pl.String:
        nulls, *values = _digests.texts(column.__arrow_c_stream__())
    elif column.dtype.is_integer() or column.dtype == pl.Boolean:
        nulls, *values = _digests.numbers(column.cast(pl.Int64).__arrow_c_stream__())
    elif column.dtype.is_float():
        nulls, *values = _digests.numbers(column.cast(pl.Float64).__arrow_c_stream__())
    else:
        nulls = bytes(column.is_null().to_list())
        values = [json.dumps(column.to_list(), default=str).encode()]
    if column.null_count():
        state.update(nulls)
    for part in values:
        state.update(part)
    return state.hexdigest()


def id_digest(ids: pl.Series) -> str:
    """Digest a set of ids; see `add_ids`.

    Args:
        ids: Hexadecimal ids, each once.

    Raises:
        ValueError: If one is not hexadecimal.
    """
    number = int.from_bytes(_digests.sum(ids.__arrow_c_stream__()), "little")
    return _named(number)


def add_ids(total: str, ids: Iterable[str]) -> str:
    """Add ids, or digests of sets of ids, to the digest of a set of ids.

    Ids are hashes already, so their sum names the set whatever the order, and two disjoint sets
    add up: dropping a then b gives the same digest as dropping b then a.

    Args:
        total: Digest so far; ``""`` for the empty set.
        ids: Hexadecimal ids that are not in the set yet.
    """
    return _named((int(total or "0", 16) + sum(map(int, ids, repeat(16)))) % _MODULUS)


def _named(number: int) -> str:
    return f"{number:0{2 * SIZE}x}" if number else ""


def file_digest(path: Path) -> str:
    """Digest the bytes of a file."""
    state = blake2b(digest_size=SIZE)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()
