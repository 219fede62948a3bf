"""N-gram overlap: which texts share a run of n words with an item, and where it stands.

A hit is a hit word by word, never by hash alone. `stillroom.kernels.ngrams_plain` says the same in
plain Python.
"""

from collections.abc import Sequence
from dataclasses import astuple

import polars as pl

from stillroom.kernels.ngrams_plain import PlainNgrams, Run, Short, Unit, words
from stillroom.rows import Schema

OVERLAP: Schema = {
    "text": pl.UInt32(),
    "item": pl.UInt32(),
    "start": pl.UInt32(),
    "length": pl.UInt32(),
    "shared": pl.UInt32(),
}
"""A text that shares a run with an item; see `stillroom.kernels.ngrams_plain.Overlap`."""


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

    >>> index = Ngrams(pl.Series(["How many legs has a red hen?"]), n=4)
    >>> found = index.find(pl.Series(["Why?", "Tell me: has a RED hen wings?"]))
    >>> found.row(0, named=True)
    {'text': 1, 'item': 0, 'start': 2, 'length': 4, 'shared': 1}
    >>> quote("Tell me: has a RED hen wings?", 2, 4)
    'has a red hen'
    """

    def __init__(self, items: pl.Series, n: int, *, short: Short = "whole") -> None:
        if n < 1:
            raise ValueError(f"n is {n}; expected 1 or above")
        self.n = n
        self._plain = PlainNgrams(_units(items), n, short=short)

    def find(self, texts: pl.Series, *, run: Run = "first", workers: int = 1) -> pl.DataFrame:
        """Find the texts that share an n-gram with an item.

        Args:
            texts: Of the same type as the items.
            run: Which run to tell: the ``first`` n-gram in the text, and the first item that has
                it; or the ``longest`` run, and of equally long ones the first.
            workers: Threads; the result does not depend on them.

        Returns:
            The columns of `OVERLAP`, one row for each text that shares one, in order of the texts.
        """
        found = [astuple(hit) for hit in self._plain.find(_units(texts), run=run)]
        return pl.DataFrame(found, schema=dict(OVERLAP), orient="row")


def quote(text: str, start: int, length: int) -> str:
    """Return the words of a run of a string, with spaces between them."""
    return " ".join(words(text)[start : start + length])


def _units(texts: pl.Series) -> list[Sequence[Unit] | None]:
    if texts.dtype == pl.String:
        return [None if text is None else words(text) for text in texts]
    return texts.to_list()
