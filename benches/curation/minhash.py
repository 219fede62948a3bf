"""MinHash: Stillroom against Daft, rensa and datasketch, and the true near copies that it finds.

Questions are those of data.py; shingles are runs of three words. A package that takes shingles gets
them made of the same words. Hash functions differ, so buckets cannot be equal row by row; beside
the rates stands how many of the true pairs of Indel similarity 90 or above our buckets hold.

Usage: python benches/curation/minhash.py [questions]
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))
from benches.curation.data import questions

from stillroom.kernels import indel
from stillroom.kernels.minhash import MinHash
from stillroom.kernels.ngrams_reference import words
from stillroom.text.normal import normal_form

T = TypeVar("T")
HASHES = 128
TRUE = 20_000
"""Questions among which the true pairs are sought."""


def cpu(work: Callable[[], T]) -> tuple[float, T]:
    """Return seconds of CPU, of all threads, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def shingles(text: str) -> list[str]:
    """Return the runs of three words of a text."""
    found = words(text)
    return [" ".join(found[i : i + 3]) for i in range(max(1, len(found) - 2))]


def daft_signatures(texts: Sequence[str]) -> None:
    import daft

    frame = daft.from_pydict({"text": list(texts)})
    column = daft.col("text").normalize(
        remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True
    )
    frame.select(column.minhash(num_hashes=HASHES, ngram_size=3, seed=42)).collect()


def rensa_signatures(texts: Sequence[str]) -> None:
    from rensa import RMinHash

    for text in texts:
        m = RMinHash(num_perm=HASHES, seed=42)
        m.update(shingles(text))
        m.digest()


def datasketch_signatures(texts: Sequence[str]) -> None:
    from datasketch import MinHash as Sketch

    for text in texts:
        sketch = Sketch(num_perm=HASHES)
        sketch.update_batch([s.encode() for s in shingles(text)])


def main(n: int) -> None:
    texts = questions(n)
    column = pl.Series(texts)
    print(f"{n:,} questions, {HASHES} hashes, runs of three words")
    how = MinHash(size=3, bands=16, rows=8)
    ours, _ = cpu(lambda: how.keys(column))
    both, lost = cpu(lambda: how.lost(column))
    threaded = how.lost(column, workers=4)
    assert lost.equals(threaded), "the result depends on the number of threads"
    rates = {"Stillroom, signatures": n / ours, "Stillroom, signatures and survivors": n / both}
    peers = [("daft", daft_signatures, n), ("rensa", rensa_signatures, n // 10),
             ("datasketch", datasketch_signatures, n // 20)]  # fmt: skip
    for name, sign, few in peers:
        try:
            sign(texts[:100])
        except ImportError:
            print(f"{name}: not installed; `pip install --group bench` has it")
            continue
        seconds, _ = cpu(lambda sign=sign, few=few: sign(texts[:few]))
        rates[f"{name}, signatures"] = few / seconds
    for name, rate in rates.items():
        print(f"{name:38} {rate:12,.0f} questions per CPU second "
              f"{rates['Stillroom, signatures'] / rate:6.1f}x")  # fmt: skip
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    recall(texts[:TRUE])


def recall(texts: Sequence[str]) -> None:
    """Count the true pairs, each with its best earlier partner, that share a bucket."""
    forms = sorted({normal_form(text) for text in texts})
    true = indel.dedup(forms, 90, rule="pairwise", workers=2)
    print(f"true pairs of Indel similarity 90 or above among {len(forms):,}: {true.height:,}")
    column = pl.Series(forms)
    for how in (MinHash(bands=16, rows=8), MinHash(bands=32, rows=4), MinHash(bands=64, rows=2),
                MinHash(5, "characters", 16, 8), MinHash(5, "characters", 32, 4)):  # fmt: skip
        keys, m = how.keys(column), len(forms)
        bands = [keys[b * m : (b + 1) * m].tolist() for b in range(how.bands)]
        held = sum(
            any(band[i] == band[j] != 0 for band in bands)
            for i, j in true.select("row", "witness").iter_rows()
        )
        lost = how.lost(column)
        score = how.similarity(column.gather(lost["text"]), column.gather(lost["witness"]))
        print(f"  {how.bands:3} bands x {how.rows} rows, runs of {how.size} {how.unit}: recall "
              f"{held / max(1, true.height):.0%}; drops {lost.height:,} of {m:,}, of which "
              f"{(score < 50).sum():,} share under half of their shingles")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
