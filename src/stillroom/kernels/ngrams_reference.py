"""N-gram overlap in plain Python: what `stillroom.kernels.ngrams` computes, word by word.

It is the reference that the kernel is tested against, and slow.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.text.normal import normal_form

WORD = re.compile(r"\w+")
Unit = str | int
Run = Literal["first", "longest"]
Short = Literal["whole", "none"]


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters, digits and ``_`` of its normal form.

    >>> words("Find  2² + X!")
    ['find', '2', '2', 'x']
    """
    return WORD.findall(normal_form(text))


@dataclass(frozen=True, slots=True)
class Overlap:
    """A run of words that a text shares with an item.

    Attributes:
        text: Place of the text.
        item: Place of the item; the first that has the run.
        start: Words of the text before the run.
        length: Words in the run.
        shared: N-grams of the text, counted where they stand, that some item has.
    """

    text: int
    item: int
    start: int
    length: int
    shared: int


class PlainNgrams:
    """The n-grams of items; see `stillroom.kernels.ngrams.Ngrams`."""

    def __init__(
        self, items: Iterable[Sequence[Unit] | None], n: int, *, short: Short = "whole"
    ) -> None:
        self.n, self.short = n, short
        self.items = [tuple(item or ()) for item in items]
        self.places: dict[tuple[Unit, ...], list[tuple[int, int]]] = {}
        for number, item in enumerate(self.items):
            for start, gram in enumerate(self._grams(item)):
                self.places.setdefault(gram, []).append((number, start))

    def _grams(self, units: tuple[Unit, ...]) -> list[tuple[Unit, ...]]:
        if len(units) < self.n:
            return [units] if units and self.short == "whole" else []
        return [units[i : i + self.n] for i in range(len(units) - self.n + 1)]

    def find(self, texts: Iterable[Sequence[Unit] | None], *, run: Run = "first") -> list[Overlap]:
        """Find the texts that share an n-gram with an item, in order."""
        found = []
        for number, text in enumerate(texts):
            units = tuple(text or ())
            hits = [(i, g) for i, g in enumerate(self._grams(units)) if g in self.places]
            if not hits:
                continue
            start, gram = hits[0]
            item, length = self.places[gram][0][0], len(gram)
            if run == "longest" and len(units) >= self.n:
                item, start, length = self._longest(units, hits)
            found.append(Overlap(number, item, start, length, len(hits)))
        return found

    def _longest(
        self, units: tuple[Unit, ...], hits: list[tuple[int, tuple[Unit, ...]]]
    ) -> tuple[int, int, int]:
        """Extend every hit in every item; of equally long runs the first in the text counts."""
        best = (0, 0, 0)
        for start, gram in hits:
            for item, at in self.places[gram]:
                length = self.n
                ours, theirs = units[start + length :], self.items[item][at + length :]
                for a, b in zip(ours, theirs, strict=False):
                    if a != b:
                        break
                    length += 1
                if length > best[2]:
                    best = (item, start, length)
        return best
