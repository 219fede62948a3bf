r"""Runs of letters, for Chinese and Japanese, which put no spaces between words.

A clause would be one word there, and two texts that share it whole would share one word. So each
Chinese character and each kana is a unit here, and so is each word or number between them. A run of
n words elsewhere is one of 2n units: words of two characters are the most frequent kind.

Thai, Lao, Khmer and Burmese need none of this: vowel signs part their letters into short words.

Only items that hold `LEAST` such letters are looked for so, and only in texts that hold as many:
nothing else is found otherwise than by words.
"""

from collections.abc import Iterator
from functools import cached_property

import polars as pl

from stillroom.kernels.ngrams import Ngrams
from stillroom.kernels.ngrams_reference import Short
from stillroom.text.normal import normal_form_expr

LEAST = 8
"""Letters in a text that are more than a name."""

PER_WORD = 2

_LETTERS = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_UNIT = rf"[{_LETTERS}]|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_LETTERS}]]+"


class Letters:
    """Items in Chinese or Japanese, and texts that share a run of their letters.

    Args:
        items: Texts, among others.
        n: Words in a run.
        short: As in `stillroom.kernels.ngrams.Ngrams`.
    """

    def __init__(self, items: pl.Series, n: int, short: Short) -> None:
        self._places = _where(items)
        self._items = items.gather(self._places)
        self._n, self._short = PER_WORD * n, short

    def find(self, texts: pl.Series, workers: int) -> Iterator[tuple[int, int, int, str]]:
        """Yield text, item, units in the longest run that both share, and the run."""
        if not len(self._places):
            return
        here = _where(texts)
        found = _units(texts.gather(here))
        hits = self._index.find(self._named(found), run="longest", workers=workers)
        units = found.to_list() if hits.height else []
        for text, item, start, length in hits.select("text", "item", "start", "length").iter_rows():
            run = units[text][start : start + length]
            shared = "".join(f" {unit} " if unit < "\u3000" else unit for unit in run)
            yield here[text], self._places[item], length, shared

    @cached_property
    def _index(self) -> Ngrams:
        return Ngrams(self._named(_units(self._items)), self._n, short=self._short)

    @cached_property
    def _known(self) -> pl.Series:
        return _units(self._items).explode().drop_nulls().unique(maintain_order=True)

    def _named(self, units: pl.Series) -> pl.Series:
        """Number the units; one that no item has is 0."""
        numbers = pl.Series(range(1, len(self._known) + 1), dtype=pl.UInt32)
        numbered = pl.element().replace_strict(
            self._known, numbers, default=0, return_dtype=pl.UInt32
        )
        return units.list.eval(numbered)


def _where(texts: pl.Series) -> pl.Series:
    return (texts.str.count_matches(f"[{_LETTERS}]") >= LEAST).fill_null(False).arg_true()


def _units(texts: pl.Series) -> pl.Series:
    form = normal_form_expr("text").str.extract_all(_UNIT)
    return texts.to_frame("text").select(form).to_series()
