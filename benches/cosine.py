"""How fast are exact nearest neighbours by cosine, beside numpy's matrix product on one thread?

Both find, for each of the first queries of a real set of questions, the nearest of all items, in
vectors of the package's own embedder, in blocks of the same size. numpy's BLAS may fuse multiply
and add, and sums in an order of its own; the kernel may not, so that scores are the same on every
machine.

    STILLROOM_DATA=... python benches/cosine.py [QUERIES]
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import zstandard

from stillroom.kernels.vectors import BLOCK, Matrix, nearest, ngrams

WIDTH = 512
file = Path(os.environ["STILLROOM_DATA"]) / "fixtures" / "deepscaler_40k.jsonl.zst"
with zstandard.open(file, "rt") as lines:
    records = [json.loads(line) for line in lines]
column = next(name for name in ("problem", "question") if name in records[0])
items = ngrams([record[column] for record in records], WIDTH)
n = int(sys.argv[1]) if len(sys.argv) > 1 else 4096
queries = Matrix(WIDTH, bytearray(items.rows(0, n)))


def plain() -> list[float]:
    """Multiply block by block and take the highest of each row."""
    all_items = np.frombuffer(items.data, np.float32).reshape(-1, WIDTH)
    found: list[float] = []
    for start in range(0, n, BLOCK):
        block = np.frombuffer(queries.rows(start, start + BLOCK), np.float32).reshape(-1, WIDTH)
        best = np.full(len(block), -2.0, np.float32)
        for at in range(0, len(all_items), BLOCK):
            best = np.maximum(best, (block @ all_items[at : at + BLOCK].T).max(1))
        found += best.tolist()
    return found


times: dict[str, list[float]] = {"ours": [], "numpy": []}
for _ in range(3):
    start = time.perf_counter()
    ours = nearest(queries, items, 1)["score"].to_list()
    times["ours"].append(time.perf_counter() - start)
    start = time.perf_counter()
    theirs = plain()
    times["numpy"].append(time.perf_counter() - start)
assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-5
best = {name: min(values) for name, values in times.items()}
products = n * len(items) * WIDTH
print(f"{n:,} queries, {len(items):,} items, {products:.1e} products")
print(f"ours {best['ours']:.2f} s, numpy {best['numpy']:.2f} s: {best['ours'] / best['numpy']:.2f}")
