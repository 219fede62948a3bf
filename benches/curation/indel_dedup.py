"""Dedup by Indel similarity, against brute force by rapidfuzz's `cdist`, one core each.

First the two must agree: for sampled questions, all partners that reach the threshold, with equal
scores; and no two kept questions among the sampled ones, every dropped one with a kept witness.
Brute force is timed on the sampled rows and extrapolated to half of all pairs. The kernel runs in a
process of its own, so its peak memory is its own.

Usage: python benches/curation/indel_dedup.py [rows] [threshold] [sampled rows]
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from data import questions
from rapidfuzz import fuzz
from rapidfuzz.process import cdist

from stillroom.kernels import indel

KERNEL = """
import json, resource, sys, time
import polars as pl
from stillroom.kernels import indel
texts = pl.read_parquet(sys.argv[1])["question"]
started = time.process_time(), time.monotonic()
found = indel.dedup(texts, float(sys.argv[2]))
spent = time.process_time() - started[0], time.monotonic() - started[1]
found.write_parquet(sys.argv[3])
print(json.dumps([*spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6]))
"""


def main() -> None:
    given = [float(value) for value in sys.argv[1:]]
    rows, threshold, sampled = [*given, *(50_000, 90, 20)[len(given) :]]
    texts = questions(int(rows))
    print(f"{len(texts):,} questions, Indel >= {threshold:g}, one core each")
    with tempfile.TemporaryDirectory() as name:
        table, found = Path(name, "texts.parquet"), Path(name, "found.parquet")
        pl.DataFrame({"question": texts}).write_parquet(table)
        done = subprocess.run(
            [sys.executable, "-c", KERNEL, str(table), str(threshold), str(found)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds, wall, peak = json.loads(done.stdout)
        fate = {row: (witness, score) for row, witness, score in pl.read_parquet(found).iter_rows()}

    sample = sorted(random.Random(0).sample(range(len(texts)), int(sampled)))
    started = time.process_time()
    scores = cdist(
        [texts[i] for i in sample], texts, scorer=fuzz.ratio, score_cutoff=threshold,
        dtype="float64", workers=1,
    )  # fmt: skip
    brute = (time.process_time() - started) * len(texts) / len(sample) / 2
    partners = {
        i: {int(j): float(line[j]) for j in line.nonzero()[0]}
        for i, line in zip(sample, scores, strict=True)
    }
    check(texts, threshold, sample, partners, fate)

    gigabytes = f"peak {peak:.2f} GB"
    print(f"equal: partners, scores and fates of {len(sample)} sampled questions")
    print(f"rapidfuzz cdist  {brute:10.1f} s, extrapolated from {len(sample)} rows")
    print(f"indel.dedup      {seconds:10.1f} s ({seconds / 60:.1f} core-minutes, "
          f"{wall:.1f} s by the clock), {gigabytes}, {len(fate):,} dropped")  # fmt: skip
    print(f"ratio            {brute / seconds:10.0f}")


def check(
    texts: list[str],
    threshold: float,
    sample: list[int],
    partners: dict[int, dict[int, float]],
    fate: dict[int, tuple[int, float]],
) -> None:
    """Stop unless the kernel found for the sampled questions what brute force found."""
    joined = indel.join([texts[i] for i in sample], texts, threshold, limit=len(texts))
    found: dict[int, dict[int, float]] = {i: {} for i in sample}
    for at, partner, score in joined.iter_rows():
        found[sample[at]][partner] = score
    for i in sample:
        assert found[i] == partners[i], f"question {i}: {found[i]} is not {partners[i]}"
        kept = [j for j in partners[i] if j < i and j not in fate]
        assert (i in fate) == bool(kept), f"question {i}: {fate.get(i)}, kept partners {kept}"
        assert i not in fate or (fate[i][0] in kept and fate[i][1] == partners[i][fate[i][0]])


if __name__ == "__main__":
    main()
