"""Exact joins by Indel similarity: which texts are nearly the same.

The similarity of two texts, in percent, is 100 * 2 * LCS / (|a| + |b|): the longest common
subsequence, counted in Unicode code points. Two empty texts are 100% similar. It is the value of
``fuzz.ratio`` of rapidfuzz, the measure of the OpenThoughts paper (arXiv 2506.04178).

Every join is exact: it finds what comparing all pairs would find, for any threshold from 50 to
100, and the same rows whatever the number of workers. A threshold is compared as the decimal that
was written, never as a rounded score. `stillroom.kernels.indel_reference` says the same in plain
Python; ``docs/indel.md`` says how it is fast.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Literal

import polars as pl

from stillroom.kernels import _indel
from stillroom.kernels.indel_reference import percent

Rule = Literal["greedy", "pairwise", "pairwise_limit_5"]
Texts = pl.Series | Sequence[str]
Tick = Callable[[int], object]

STEPS = 10_000
"""Thresholds are exact to a ten-thousandth of 1%."""

PART = 50_000
"""Texts of a join, or of a block of pairs, that are read at a time."""

LIMIT = 5
"""Matches that ``process.extract`` of rapidfuzz returns unless it is told otherwise."""


def _quiet(done: int) -> None:
    """Tell nobody."""


def similarity(a: str, b: str) -> float:
    """Return the Indel similarity of two texts in percent, 0 to 100.

    Raises:
        UnicodeEncodeError: If a text holds a lone surrogate.

    >>> similarity("abcd", "xbzd")
    50.0
    """
    return percent(_indel.common(a, b), len(a) + len(b))


def join(
    texts: Texts,
    items: Texts,
    threshold: float,
    *,
    limit: int = 1,
    workers: int = 1,
    tick: Tick = _quiet,
    kernels: str | None = None,
) -> pl.DataFrame:
    """Find for each text the most similar items.

    Args:
        texts: Any number of texts.
        items: Texts to compare them with; may be the same object.
        threshold: Percent, 50 to 100, both included; at most four decimals.
        limit: Items per text at most; the best ones, and among equals the lower ones.
        workers: Threads.
        tick: Called now and then with the number of texts done since.
        kernels: ``bitalg``, ``avx512``, ``avx2`` or ``plain``, as the machine allows; the best one
            by default. All give the same rows.

    Returns:
        One row for each find, ordered by text, then best first: ``text`` and ``item`` (UInt32,
        places in the arguments) and ``score`` (Float64, percent).

    Raises:
        ValueError: If the threshold is out of range or finer than that, or a text is null or holds
            a lone surrogate.

    >>> join(["two red hens", "a cow"], ["two red pens", "two hens"], 75).rows()
    [(0, 0, 91.66666666666666)]
    """
    t, rows, partners = check(threshold), column(texts), column(items)
    parts = []
    for start in range(0, len(rows), PART):
        part = rows.slice(start, PART).__arrow_c_stream__()
        items_ = partners.__arrow_c_stream__()
        found = _frame(_indel.join(part, items_, t, limit, workers, tick, kernels), "text", "item")
        parts.append(found.with_columns(pl.col("text") + start))
    return pl.concat(parts) if parts else _frame((b"", b"", b""), "text", "item")


def dedup(
    texts: Texts,
    threshold: float,
    *,
    rule: Rule = "greedy",
    order: pl.Series | None = None,
    workers: int = 1,
    tick: Tick = _quiet,
    kernels: str | None = None,
) -> pl.DataFrame:
    """Find the texts that repeat an earlier one.

    Args:
        texts: The better one of two first.
        threshold: As for `join`.
        rule: ``greedy``: a text repeats an earlier one that was not dropped itself. ``pairwise``:
            it repeats any earlier one. ``pairwise_limit_5``: the same, but each of the different
            texts sees its five best matches only, itself included, as ``process.extract`` of
            rapidfuzz does.
        order: Places of the texts, the best one first, where they do not stand in that order. Rows
            and witnesses are then places in this order.
        workers: As for `join`.
        tick: As for `join`.
        kernels: As for `join`.

    Returns:
        One row for each dropped text, in order: ``row`` and ``witness`` (UInt32, places) and
        ``score`` (Float64, percent). The witness is an earlier text that reaches the threshold,
        and by the greedy rule one that was kept: any of several, not always the first or the best,
        but the same one whatever the workers and kernels.

    Raises:
        ValueError: As for `join`.

    >>> dedup(["two red hens", "a cow", "two red pens"], 90).rows()
    [(2, 0, 91.66666666666666)]
    """
    t, rows = check(threshold), column(texts)
    if rule == "pairwise_limit_5":
        rows = rows if order is None else rows.gather(order)
        return _dedup_limited(rows, threshold, workers=workers, tick=tick, kernels=kernels)
    places = None if order is None else array("I", order)
    greedy = rule == "greedy"
    found = _indel.dedup(rows.__arrow_c_stream__(), places, t, greedy, workers, tick, kernels)
    return _frame(found, "row", "witness")


def _dedup_limited(
    texts: pl.Series, threshold: float, *, workers: int, tick: Tick, kernels: str | None
) -> pl.DataFrame:
    rows = pl.DataFrame({"text": texts}).with_row_index("row")
    firsts = rows.group_by("text", maintain_order=True).agg(pl.col("row").first())
    copies = rows.join(firsts, on="text", how="left", suffix="_first", maintain_order="left")
    copies = copies.filter(pl.col("row") != pl.col("row_first")).select(
        "row", pl.col("row_first").alias("witness"), pl.lit(100.0).alias("score")
    )
    different = firsts["text"]
    found = join(
        different, different, threshold, limit=LIMIT, workers=workers, tick=tick, kernels=kernels
    )
    near = found.filter(pl.col("text") != pl.col("item")).select(
        pl.max_horizontal("text", "item").alias("row"),
        pl.min_horizontal("text", "item").alias("witness"),
        "score",
    )
    near = near.sort("row", "witness").unique("row", keep="first", maintain_order=True)
    near = near.with_columns(firsts["row"].gather(near[c]).alias(c) for c in ("row", "witness"))
    return pl.concat([copies, near]).sort("row")


def pairs(
    texts: Texts,
    threshold: float,
    *,
    workers: int = 1,
    tick: Tick = _quiet,
    kernels: str | None = None,
) -> Iterator[pl.DataFrame]:
    """Find all pairs of texts that reach a threshold, block after block.

    Args:
        texts: As for `join`.
        threshold: As for `join`.
        workers: As for `join`.
        tick: As for `join`.
        kernels: As for `join`.

    Yields:
        Each pair once: ``first`` and ``second`` (UInt32, places, the lower one first) and
        ``score`` (Float64, percent), in no order that means anything, but always the same one.

    Raises:
        ValueError: As for `join`.
    """
    t, rows = check(threshold), column(texts)
    held = _indel.sorted(rows.__arrow_c_stream__())
    for start in range(0, len(rows), PART):
        found = _indel.pairs(held, start, start + PART, t, workers, tick, kernels)
        yield _frame(found, "second", "first").select("first", "second", "score")


def column(texts: Texts) -> pl.Series:
    """Return texts as a column; polars holds valid Unicode only."""
    try:
        rows = pl.Series("text", texts, dtype=pl.String)
    except UnicodeEncodeError as error:
        raise ValueError(f"a text is no valid Unicode: {error}") from error
    if rows.null_count():
        raise ValueError(f"text {rows.is_null().arg_max()} is null; expected texts only")
    return rows


def check(threshold: float) -> int:
    """Return the threshold in ten-thousandths of 1%."""
    exact = Fraction(str(threshold)) * STEPS
    if not 50 <= threshold <= 100 or exact.denominator != 1:
        raise ValueError(
            f"threshold is {threshold}; expected percent, 50 to 100, with four decimals at most"
        )
    return int(exact)


def _frame(found: tuple[bytes, bytes, bytes], first: str, second: str) -> pl.DataFrame:
    rows, witnesses, scores = found
    return pl.DataFrame(
        {first: array("I", rows), second: array("I", witnesses), "score": array("d", scores)},
        schema={first: pl.UInt32, second: pl.UInt32, "score": pl.Float64},
    )
