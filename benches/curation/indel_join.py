"""Decontamination by Indel similarity, against the authors' form, one core each.

The authors of OpenThoughts call `process.extract` of rapidfuzz for each question, with all items of
a benchmark and a cutoff of 75. Both must find the same best item with the same score for every
sampled question; then the time of the sampled questions is extrapolated to all of them.

Usage: python benches/curation/indel_join.py [questions] [threshold] [sampled questions]
"""

import random
import resource
import sys
import time

from data import benchmark, questions
from rapidfuzz import fuzz, process

from stillroom.kernels import indel

ITEMS = 8_000


def main() -> None:
    given = [float(value) for value in sys.argv[1:]]
    rows, threshold, sampled = [*given, *(20_000, 75, 300)[len(given) :]]
    texts = questions(int(rows))
    items = benchmark() or questions(ITEMS, seed=2)
    items = random.Random(0).sample(items, min(ITEMS, len(items)))
    print(f"{len(texts):,} questions x {len(items):,} items, Indel >= {threshold:g}, one core each")

    started = time.process_time(), time.monotonic()
    found = indel.join(texts, items, threshold)
    seconds, wall = time.process_time() - started[0], time.monotonic() - started[1]
    best = {text: (item, score) for text, item, score in found.iter_rows()}

    sample = random.Random(0).sample(range(len(texts)), int(sampled))
    sample += [text for text in best if text not in sample][: int(sampled)]
    spent = 0.0
    for place, i in enumerate(sample):
        started_one = time.process_time()
        matches = process.extract(texts[i], items, scorer=fuzz.ratio, score_cutoff=threshold)
        if place < sampled:
            spent += time.process_time() - started_one
        wanted = (matches[0][2], matches[0][1]) if matches else None
        assert best.get(i) == wanted, f"question {i}: {best.get(i)} is not {wanted}"
    brute = spent * len(texts) / sampled
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"equal: the best items of {len(sample):,} questions, {len(best):,} hits in all")
    print(f"process.extract  {brute:10.1f} s, extrapolated from {int(sampled)} questions")
    rate = len(texts) * len(items) / seconds / 1e6
    print(f"indel.join       {seconds:10.1f} s ({wall:.1f} s by the clock), {rate:.0f} M pairs/s")
    print(f"peak memory      {peak:10.2f} GB, with the data")
    print(f"ratio            {brute / seconds:10.0f}")


if __name__ == "__main__":
    main()
