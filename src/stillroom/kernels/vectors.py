"""Many vectors compared with many, exactly, in blocks: nothing is indexed or approximated.

The work is rows * rows * width products. Scores do not depend on threads, blocks or machines.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from stillroom.kernels import _vectors
from stillroom.rows import Schema

BLOCK = 1024
"""Rows that are compared together."""

NEAR: Schema = {"query": pl.UInt32(), "item": pl.UInt32(), "score": pl.Float64()}
"""A query, an item near it, and their cosine."""


class Matrix:
    """Rows of float32, each of length 1 or, where there is nothing to compare, of length 0.

    Attributes:
        width: Numbers per row, filled up with zeros to a multiple of 8.
        data: The rows, one after another.
    """

    def __init__(self, width: int, data: bytearray | None = None) -> None:
        self.width = max(8, -(-width // 8) * 8)
        self.data = bytearray() if data is None else data

    def __len__(self) -> int:
        return len(self.data) // (4 * self.width)

    @classmethod
    def of(cls, rows: Iterable[Sequence[float] | None], width: int | None = None) -> "Matrix":
        """Stack rows and bring each to length 1; None becomes a row of zeros.

        Args:
            rows: Rows of one width.
            width: Where none may be there to tell it; the rows are filled up to it.

        Raises:
            ValueError: If rows differ in width.
        """
        found = list(rows)
        widths = {len(row) for row in found if row is not None}
        if len(widths) > 1:
            raise ValueError(f"rows of {sorted(widths)} numbers in one matrix")
        matrix = cls.zeros(len(found), width or next(iter(widths), 8))
        for place, row in enumerate(found):
            if row is not None:
                matrix.put(place, row)
        return matrix

    @classmethod
    def zeros(cls, n: int, width: int) -> "Matrix":
        """Make rows that hold nothing yet."""
        matrix = cls(width)
        matrix.data = bytearray(4 * matrix.width * n)
        return matrix

    def put(self, place: int, row: Sequence[float]) -> None:
        """Set a row, brought to length 1.

        Raises:
            ValueError: If it is wider than the matrix.
        """
        if len(row) > self.width:
            raise ValueError(f"a row of {len(row)} numbers in a matrix of {self.width}")
        here = self.rows(place, place + 1)
        here[: 4 * len(row)] = array("f", row).tobytes()
        _vectors.unit(here, self.width)

    def rows(self, start: int, stop: int) -> memoryview:
        """Return rows as they lie."""
        return memoryview(self.data)[4 * self.width * start : 4 * self.width * stop]

    def sum(self) -> "array[float]":
        """Add the rows up, in double precision."""
        values = memoryview(self.data).cast("f")
        return array("d", (sum(values[d :: self.width]) for d in range(self.width)))


def ngrams(texts: Iterable[str], width: int, *, low: int = 3, high: int = 5) -> Matrix:
    """Count the runs of characters of each text, hashed into so many places.

    A place holds the square root of what was counted in it, so that frequent runs do not drown
    the rest. The rows compare spelling, not meaning.

    Args:
        texts: Strings; an empty one gives a row of zeros.
        width: Places, a multiple of 8.
        low: Characters in the shortest runs.
        high: Characters in the longest runs.
    """
    data = _vectors.ngrams([text.encode("utf-8", "replace") for text in texts], width, low, high)
    _vectors.unit(data, width)
    return Matrix(width, data)


def nearest(
    queries: Matrix, items: Matrix, k: int, *, floor: float = -2.0, workers: int = 1
) -> pl.DataFrame:
    """Find the k items that are nearest to each query; of equally near ones the first.

    Args:
        queries: Rows.
        items: Rows of the same width.
        k: Items per query at most, 1 to 1024.
        floor: Cosine that an item must exceed.
        workers: Threads; the result does not depend on them.

    Returns:
        The columns of `NEAR`, by query, nearest first.
    """

    def block(start: int) -> pl.DataFrame:
        part = queries.rows(start, start + BLOCK)
        index, score = _vectors.top(part, items.data, queries.width, k, floor)
        frame = pl.DataFrame({"item": array("i", index), "score": array("f", score)})
        frame = frame.with_columns((pl.int_range(pl.len()) // k + start).alias("query"))
        return frame.filter(pl.col("item") >= 0).select(
            pl.col(name).cast(dtype) for name, dtype in NEAR.items()
        )

    if len(items):
        _same_width(queries, items)
    with ThreadPoolExecutor(workers) as pool:
        return pl.concat([pl.DataFrame(schema=dict(NEAR)), *pool.map(block, _blocks(len(queries)))])


def scores(rows: Matrix, direction: Sequence[float]) -> list[float]:
    """Return the dot product of each row with a direction of the same width."""
    column = array("f", direction)
    if len(column) != rows.width:
        raise ValueError(f"a direction of {len(column)} numbers for rows of {rows.width}")
    found: list[float] = []
    for start in _blocks(len(rows)):
        _, score = _vectors.top(
            rows.rows(start, start + BLOCK), column, rows.width, 1, float("-inf")
        )
        found += array("f", score)
    return found


def dedup(
    rows: Matrix,
    threshold: float,
    *,
    workers: int = 1,
    tick: Callable[[int], None] = lambda done: None,
) -> pl.DataFrame:
    """Find rows that are near a better row which stays; the rows stand in order of merit.

    A row goes if its cosine with a row before it that stays reaches the threshold. So no two of
    those that stay reach it. The matrix is used up: its memory holds the rows that stay.

    Args:
        rows: The best row first.
        threshold: Cosine, above 0 and up to 1.
        workers: Threads; the result does not depend on them.
        tick: Told how many more rows are done.

    Returns:
        ``row``, ``witness`` (UInt32, the nearest row that stays) and ``score`` (the cosine).
    """
    stay: list[int] = []
    found: list[tuple[int, int, float]] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in _blocks(len(rows)):
            stop = min(start + BLOCK, len(rows))
            size = -(-(stop - start) // workers)
            kept = rows.rows(0, len(stay))

            def part(
                at: int, stop: int = stop, size: int = size, kept: memoryview = kept
            ) -> tuple[bytes, bytes]:
                block = rows.rows(at, min(at + size, stop))
                return _vectors.top(block, kept, rows.width, 1, 0.0)

            index, score = array("i"), array("f")
            for indices, values in pool.map(part, range(start, stop, size)):
                index.frombytes(indices)
                score.frombytes(values)
            n = _vectors.sift(
                rows.rows(start, stop), rows.width, threshold, len(stay), index, score
            )
            # Where a row stays, `sift` leaves no index.
            ids = [start + i for i, best in enumerate(index) if best < 0]
            known = len(stay)
            stay += ids
            found += (
                (start + i, stay[best], score[i]) for i, best in enumerate(index) if best >= 0
            )
            if known != start:
                rows.rows(known, known + n)[:] = bytes(rows.rows(start, start + n))
            tick(stop - start)
    schema = {"row": pl.UInt32, "witness": pl.UInt32, "score": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")


def farthest(
    rows: bytearray | memoryview,
    n: int,
    k: int,
    *,
    hashes: bool = False,
    tick: Callable[[int], None] = lambda done: None,
) -> "array[int]":
    """Choose k rows, each the one that is least like its nearest among those chosen before.

    The first row is chosen first; of equally far ones the first. So the first rows of a longer
    choice are the shorter one. Rows of zeros come last. At most n * k comparisons; a row is
    compared only when it may be the farthest, which in practice takes a part of them. Memory beside
    the rows: 8 bytes a row.

    Args:
        rows: The data of a `Matrix`, compared by dot product; or `signatures`.
        n: Rows.
        k: Rows to choose, n at most.
        hashes: Whether the rows are signatures.
        tick: Told how many more rows were chosen.

    Returns:
        Places of the chosen rows, in the order of choice.

    Source: the farthest-first traversal of Gonzalez 1985, which comes within a factor of two of the
    best k centres for distances that obey the triangle inequality.
    """
    chosen = array("I", bytes(4 * k))
    states = bytearray(8 * n)
    width = len(rows) // 4 // n if n else 8
    for start in range(0, k, BLOCK):
        stop = min(start + BLOCK, k)
        _vectors.spread(rows, width, hashes, states, chosen, start, stop)
        tick(stop - start)
    return chosen


def signatures(keys: memoryview, n: int) -> bytearray:
    """Turn the keys of `stillroom.kernels.minhash.MinHash.keys` into rows to compare.

    Args:
        keys: Of n texts, one row a band; a multiple of 8 bands.
        n: Texts.

    Returns:
        For each text its hashes, 32 bits each. Two texts share about as many of them as their sets
        of shingles have in common: the Jaccard similarity. Zeros for a text without shingles.
    """
    return _vectors.signatures(keys, n)


def _blocks(n: int) -> Iterator[int]:
    return iter(range(0, n, BLOCK))


def _same_width(a: Matrix, b: Matrix) -> None:
    if a.width != b.width:
        raise ValueError(f"rows of {a.width} and of {b.width} numbers cannot be compared")
