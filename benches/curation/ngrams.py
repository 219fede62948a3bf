"""N-gram overlap: Stillroom against a Python set of tuples, as most recipes write it.

Questions are those of data.py, the items the real benchmarks of STILLROOM_DATA. All three find the
same texts, items and runs, which is checked first. Times are of this process on one CPU, tokenising
among them; what the threads of one core pair give is timed by the clock.

Usage: python benches/curation/ngrams.py [questions] [n]
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))
from benches.curation.data import benchmark, questions

from stillroom.kernels.ngrams import Ngrams
from stillroom.kernels.ngrams_reference import PlainNgrams, words

T = TypeVar("T")
PLAIN = 20_000
"""Questions that plain Python reads; its time per question does not depend on their number."""


def timed(work: Callable[[], T]) -> tuple[float, float, T]:
    """Return seconds of CPU, seconds by the clock, and the result."""
    cpu, clock = time.process_time(), time.perf_counter()
    result = work()
    return time.process_time() - cpu, time.perf_counter() - clock, result


def main(n: int, size: int) -> None:
    texts, items = questions(n), benchmark() or questions(8_000, seed=2)
    column = pl.Series(texts)
    mb = column.str.len_bytes().sum() / 1e6
    print(f"{n:,} questions ({mb:.0f} MB), {len(items):,} items, runs of {size} words")
    build, _, index = timed(lambda: Ngrams(pl.Series(items), size))
    few = texts[:PLAIN]

    def tuples() -> set[int]:
        grams = {run for item in items for run in runs(words(item), size)}
        return {i for i, t in enumerate(few) if any(r in grams for r in runs(words(t), size))}

    plain, _, found = timed(tuples)
    reference = PlainNgrams([words(item) for item in items], size).find([words(t) for t in few])
    ours = index.find(column.head(PLAIN))
    same = ours.rows() == [(o.text, o.item, o.start, o.length, o.shared) for o in reference]
    print(
        f"equal to the reference on {len(few):,}: {same}; to the set: {set(ours['text']) == found}"
    )
    assert same
    assert set(ours["text"]) == found

    cpu, _, hits = timed(lambda: index.find(column))
    _, pair, both = timed(lambda: index.find(column, workers=2))
    assert hits.equals(both)
    per_plain = plain / len(few)
    rows = [
        ("set of tuples, index included", 1 / per_plain, 1.0),
        ("Stillroom, CPU time of one thread", n / cpu, per_plain / (cpu / n)),
        ("Stillroom, two threads, by the clock", n / pair, per_plain / (pair / n)),
    ]
    for name, rate, ratio in rows:
        print(f"{name:38} {rate:12,.0f} questions/s {ratio:7.1f}x")
    print(f"index: {build:.2f} s; {hits.height:,} questions share a run")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def runs(text: list[str], size: int) -> list[tuple[str, ...]]:
    """Return the runs of words of a text; a short one is one run."""
    if len(text) < size:
        return [tuple(text)] if text else []
    return [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]


if __name__ == "__main__":
    main(*(int(a) for a in [*sys.argv[1:], *["200000", "13"][len(sys.argv) - 1 :]]))
