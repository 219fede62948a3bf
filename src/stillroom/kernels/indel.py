"""Exact joins by Indel similarity: which texts are nearly the same.

The similarity of two texts, in percent, is 100 * 2 * LCS / (|a| + |b|): the longest common
subsequence, counted in Unicode code points. Two empty texts are 100% similar. It is the value of
``fuzz.ratio`` of rapidfuzz, the measure of the OpenThoughts paper (arXiv 2506.04178).

Every join is exact: it finds what comparing all pairs would find, for any threshold from 50 to
100, and the same rows whatever the number of workers. A threshold is compared as the decimal that
was written, never as a rounded score. `stillroom.kernels.indel_reference` says the same in plain
Python.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

import polars as pl

from stillroom.kernels import indel_reference

Rule = Literal["greedy", "pairwise", "pairwise_limit_5"]
Texts = pl.Series | Sequence[str]

STEPS = 10_000
"""Thresholds are exact to a ten-thousandth of 1%."""


def similarity(a: str, b: str) -> float:
    """Return the Indel similarity of two texts in percent, 0 to 100.

    >>> similarity("abcd", "xbzd")
    50.0
    """
    return indel_reference.percent(indel_reference.common(a, b), len(a) + len(b))


def join(
    texts: Texts,
    items: Texts,
    threshold: float,
    *,
    limit: int = 1,
    workers: int = 1,
    tick: Callable[[int], None] = lambda done: None,
) -> pl.DataFrame:
    """Find for each text the most similar items.

    Args:
        texts: Any number of texts.
        items: Texts to compare them with; may be the same object.
        threshold: Percent, 50 to 100, both included; at most four decimals.
        limit: Items per text at most; the best ones, and among equals the lower ones.
        workers: Threads.
        tick: Called now and then with the number of texts done since.

    Returns:
        One row for each find, ordered by text, then best first: ``text`` and ``item`` (UInt32,
        places in the arguments) and ``score`` (Float64, percent).

    Raises:
        ValueError: If the threshold is out of range or finer than that, or a text holds a lone
            surrogate.
    """
    check(threshold)
    a, b = (column(x).to_list() for x in (texts, items))
    rows = indel_reference.join(a, b, threshold, limit=limit)
    tick(len(texts))
    return _frame(rows, "text", "item")


def dedup(
    texts: Texts,
    threshold: float,
    *,
    rule: Rule = "greedy",
    workers: int = 1,
    tick: Callable[[int], None] = lambda done: None,
) -> pl.DataFrame:
    """Find the texts that repeat an earlier one.

    Args:
        texts: The better one of two first.
        threshold: As for `join`.
        rule: ``greedy``: a text repeats an earlier one that was not dropped itself. ``pairwise``:
            it repeats any earlier one. ``pairwise_limit_5``: the same, but each of the different
            texts sees its five best matches only, itself included.
        workers: As for `join`.
        tick: As for `join`.

    Returns:
        One row for each dropped text, in order: ``row`` and ``witness`` (UInt32, places) and
        ``score`` (Float64, percent). The witness is an earlier text that reaches the threshold;
        by the greedy rule one that was kept.

    Raises:
        ValueError: As for `join`.
    """
    check(threshold)
    plain = column(texts).to_list()
    dropped = indel_reference.dedup(plain, threshold, rule=rule)
    tick(len(plain))
    rows = [(j, min(who), similarity(plain[j], plain[min(who)])) for j, who in dropped.items()]
    return _frame(rows, "row", "witness")


def column(texts: Texts) -> pl.Series:
    """Return texts as a column; polars holds valid Unicode only."""
    try:
        return pl.Series("text", texts, dtype=pl.String)
    except UnicodeEncodeError as error:
        raise ValueError(f"a text is no valid Unicode: {error}") from error


def check(threshold: float) -> int:
    """Return the threshold in ten-thousandths of 1%."""
    exact = Fraction(str(threshold)) * STEPS
    if not 50 <= threshold <= 100 or exact.denominator != 1:
        raise ValueError(
            f"threshold is {threshold}; expected percent, 50 to 100, with four decimals at most"
        )
    return int(exact)


def _frame(rows: list[tuple[int, int, float]], first: str, second: str) -> pl.DataFrame:
    schema = {first: pl.UInt32, second: pl.UInt32, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")
