"""MinHash: which texts are probably alike, without comparing every pair.

A text is the set of its shingles: runs of words, or of characters of its normal form. Texts that
share a bucket are taken to be alike. With b bands of r rows, two texts whose sets have the Jaccard
similarity s share a bucket with probability 1 - (1 - s^r)^b.

What it is not: an exact join. Two edits in a question of seventy words touch six of its word
trigrams on either side, and in a question of ten words nearly all of them. So many pairs that
differ by few edits are missed, more of short texts than of long ones; `stillroom.kernels.indel`
finds all.

`stillroom.kernels.minhash_reference` says the same in plain Python.
"""

from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import polars as pl

from stillroom.kernels import _minhash
from stillroom.kernels.texts import columns

Unit = Literal["words", "characters"]
Rule = Literal["greedy", "chains"]

MOST_HASHES = 4096
PART = 20_000
"""Texts that a thread reads at a time."""
NONE = 2**32 - 1


@dataclass(frozen=True)
class MinHash:
    """A way to hash texts into buckets.

    Attributes:
        size: Words or characters in a shingle. A text with fewer is one shingle; a text without
            any is in no bucket.
        unit: ``words``, or ``characters`` of the normal form, spaces among them.
        bands: Chances to share a bucket.
        rows: Hashes that must all agree in a band; bands * rows is 4,096 at most.
        seed: Of the hash functions, 0 or above.

    Raises:
        ValueError: If a number is out of range.
    """

    size: int = 3
    unit: Unit = "words"
    bands: int = 16
    rows: int = 8
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("size", "bands", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or above")
        if self.bands * self.rows > MOST_HASHES:
            raise ValueError(
                f"bands * rows is {self.bands * self.rows}; expected {MOST_HASHES} at most"
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; expected 0 or above, below 2^64")

    def keys(self, texts: pl.Series, *, workers: int = 1) -> memoryview:
        """Hash texts into buckets.

        Args:
            texts: Strings.
            workers: Threads; the keys do not depend on them.

        Returns:
            Unsigned 64-bit numbers, band after band: texts with equal numbers in a band share a
            bucket; 0 is no bucket.
        """
        n = len(texts)
        keys = bytearray(8 * self.bands * n)

        def part(start: int) -> None:
            _minhash.keys(
                *columns(texts.slice(start, PART)), keys, start, n, self.unit == "words",
                self.size, self.bands, self.rows, self.seed,
            )  # fmt: skip

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(part, range(0, n, PART)))
        return memoryview(keys).cast("Q")

    def lost(self, texts: pl.Series, *, rule: Rule = "greedy", workers: int = 1) -> pl.DataFrame:
        """Find the texts that are like an earlier one.

        Args:
            texts: Strings, those that are to survive first.
            rule: ``greedy``: a text goes if it shares a bucket with an earlier one that stays.
                ``chains``: of all texts that are linked by shared buckets, the first stays.
            workers: Threads; the result does not depend on them.

        Returns:
            ``text`` and ``witness`` (UInt32, places; the witness stays and is the first that there
            is), in order of the texts.
        """
        firsts = self._firsts(texts, workers)
        lost_to = array("I", _minhash.lost_to(firsts, self.bands, rule == "chains"))
        found = pl.DataFrame({"witness": lost_to}, schema={"witness": pl.UInt32})
        return found.with_row_index("text").filter(pl.col("witness") != NONE)

    def similarity(self, texts: pl.Series, others: pl.Series) -> pl.Series:
        """Compare the shingles of texts, pair by pair.

        Returns:
            Jaccard similarity of each pair, in percent; 0 if neither has shingles.
        """
        shares = _minhash.similarity(
            *columns(texts), *columns(others), self.unit == "words", self.size
        )
        return pl.Series("similarity", array("d", shares), dtype=pl.Float64) * 100

    def _firsts(self, texts: pl.Series, workers: int) -> memoryview:
        """Tell, in the lower half of each key's place, the first text of its bucket."""
        keys = self.keys(texts, workers=workers)
        n = len(texts)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(_minhash.buckets, (keys[b * n : (b + 1) * n] for b in range(self.bands))))
        return keys
