"""N-gram overlap: which texts share a run of n words with an item, and where it stands.

A hit is a hit word by word, never by hash alone. `stillroom.kernels.ngrams_reference` says the same
in plain Python.
"""

from array import array
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from stillroom.kernels import _grams
from stillroom.kernels.ngrams_reference import Run, Short
from stillroom.kernels.texts import columns
from stillroom.rows import Schema
from stillroom.text.normal import normal_form

OVERLAP: Schema = {
    "text": pl.UInt32(),
    "item": pl.UInt32(),
    "start": pl.UInt32(),
    "length": pl.UInt32(),
    "shared": pl.UInt32(),
}
"""A text that shares a run with an item; see `stillroom.kernels.ngrams_reference.Overlap`."""

PART = 50_000
"""Texts that a thread reads at a time."""


class Ngrams:
    """The n-grams of items, such as the questions of a benchmark.

    Items and texts are either strings, compared word by word (`words`), or lists of token ids,
    compared token by token. A null has no n-grams.

    Args:
        items: Strings, or lists of UInt32.
        n: Words, or tokens, in a run; 1 or above.
        short: What becomes of texts and items with fewer than n words: ``whole`` takes them as one
            run, so that a short text is found if it is all of a short item; ``none`` leaves them
            out, as OpenThoughts does.

    Raises:
        ValueError: If n is below 1.
        TypeError: If the items are of another type.

    >>> index = Ngrams(pl.Series(["How many legs has a red hen?"]), n=4)
    >>> found = index.find(pl.Series(["Why?", "Tell me: has a RED hen wings?"]))
    >>> found.row(0, named=True)
    {'text': 1, 'item': 0, 'start': 2, 'length': 4, 'shared': 1}
    """

    def __init__(self, items: pl.Series, n: int, *, short: Short = "whole") -> None:
        self._index = _grams.Ngrams(*columns(items), n, short == "whole")

    def find(self, texts: pl.Series, *, run: Run = "first", workers: int = 1) -> pl.DataFrame:
        """Find the texts that share an n-gram with an item.

        Args:
            texts: Of the same type as the items.
            run: Which run to tell: the ``first`` n-gram in the text, and the first item that has
                it; or the ``longest`` run, and of equally long ones the first.
            workers: Threads; the result does not depend on them.

        Returns:
            The columns of `OVERLAP`, one row for each text that shares one, in order of the texts.

        Raises:
            TypeError: If the texts are of another type than the items.
        """

        def part(start: int) -> pl.DataFrame:
            these = columns(texts.slice(start, PART))
            found = array("I", self._index.find(*these, run == "longest"))
            frame = pl.DataFrame(
                {name: found[i :: len(OVERLAP)] for i, name in enumerate(OVERLAP)},
                schema=dict(OVERLAP),
            )
            return frame.with_columns(pl.col("text") + start)

        with ThreadPoolExecutor(workers) as pool:
            return pl.concat(pool.map(part, range(0, max(1, len(texts)), PART)))


def quote(text: str, start: int, length: int) -> str:
    """Return the words of a run of a string, with spaces between them.

    >>> quote("Tell me: has a RED hen wings?", 2, 4)
    'has a red hen'
    """
    return " ".join(words(text)[start : start + length])


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters, digits and ``_`` of its normal form.

    Letters and digits are those of Unicode 14.0, whatever the version of Python.

    >>> words("Find  2² + X!")
    ['find', '2', '2', 'x']
    """
    return _grams.words(normal_form(text))
