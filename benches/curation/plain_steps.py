"""The plain steps of a recipe against bare Polars queries that drop the same rows.

A million questions lie in a store as shards of Parquet. Each step reads what it needs of them and
writes its drops, with reason, score and witness, as Parquet. The bare query reads the same columns
and writes the same drops to one file of the same compression, without digests, manifest, resume or
fsync. Both must drop the same rows, which is checked first. The limit is 1.5 times the bare query.
What the step waits in fsync is measured beside it.

A step's seeded draw hashes ids with BLAKE2b, so that it is the same on every machine and for any
version of Polars; the bare query gets the order of that draw from its file of rows, as a column,
and what it costs to make is shown on a line of its own.

Usage: python benches/curation/plain_steps.py [rows [folder to keep the questions in]]
"""

import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))

from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.rows import QUESTION, content_id
from stillroom.run.runner import At, Runner
from stillroom.steps.base import Runtime, Step
from stillroom.steps.sampling import lottery
from stillroom.steps.source.source import SHARD
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store
from stillroom.store.table import Table
from stillroom.text.normal import normal_form_expr

T = TypeVar("T")
LIMIT = 1.5
TIMES = 3
SCHEMA = {**QUESTION, "length": pl.Int64(), "lot": pl.Int64()}


def table(store: Store, n: int) -> Table:
    """Write n questions of word salad, one in ten a repeat, with a length and the draw."""
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    recent: list[str] = []
    with store.building("source", f"{n:032}") as shop:
        if isinstance(shop, Artifact):
            return Table(shop)
        for shard, start in enumerate(range(0, n, SHARD)):
            rows = []
            for i in range(start, min(start + SHARD, n)):
                if recent and i % 10 == 0:
                    text = rng.choice(recent).upper()
                else:
                    text = " ".join(rng.choices(vocabulary, k=rng.randint(20, 120)))
                    recent = [*recent[-999:], text]
                source = f"s{rng.randrange(8)}"
                rows.append((content_id(i), "math", source, "mit", text, None, i, len(text)))
            schema = {name: dtype for name, dtype in SCHEMA.items() if name != "lot"}
            frame = pl.DataFrame(rows, schema=schema, orient="row")
            frame = frame.with_columns(lottery(frame["id"], 42))
            # Digests of a store know signed numbers only; the order stays.
            frame = frame.with_columns((pl.col("lot").cast(pl.Int128) - 2**63).cast(pl.Int64))
            shop.write(shard, frame, rows_in=frame.height)
        artifact = shop.finish(
            version=1, fields={}, inputs=[], delta="rows", kind="questions", schema=SCHEMA,
            n_shards=shard + 1, measured={}, notes=[],
        )  # fmt: skip
    return Table(artifact)


def drops(rows: pl.LazyFrame, reason: str, score: pl.Expr, witness: pl.Expr) -> pl.LazyFrame:
    """Shape rows as drops."""
    reasons = pl.lit(reason).alias("reason")
    return rows.select("id", reasons, score.alias("score"), witness.alias("witness"))


NO_SCORE, NO_WITNESS = pl.lit(None, pl.Float64), pl.lit(None, pl.String)


def exact(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Drop all but the first of equal normal forms."""
    form = rows.select("id", form=normal_form_expr("question")).select(
        "id", h1=pl.col("form").hash(1), h2=pl.col("form").hash(2)
    )
    survivor = form.with_row_index("place").with_columns(
        pl.col("id").first().over("h1", "h2", order_by="place").alias("first")
    )
    repeats = survivor.filter(pl.col("id") != pl.col("first")).sort("place")
    return drops(repeats, "duplicate", pl.lit(100.0), pl.col("first"))


def band(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Drop what is too short or too long."""
    length = pl.col("length")
    bad = rows.filter((length < 200) | (length > 600))
    reason = pl.when(length < 200).then(pl.lit("length below 200")).otherwise(
        pl.lit("length above 600")
    )  # fmt: skip
    return bad.select(
        "id", reason.alias("reason"), length.cast(pl.Float64).alias("score"),
        NO_WITNESS.alias("witness"),
    )  # fmt: skip


def top(rows: pl.LazyFrame, n: int) -> pl.LazyFrame:
    """Drop all but the n longest; ties go by the draw."""
    ordered = rows.select("id", "length", "lot").sort("length", "lot", descending=[True, False])
    score = pl.col("length").cast(pl.Float64)
    return drops(ordered.slice(n), f"not in the top {n}", score, NO_WITNESS)


def sample(rows: pl.LazyFrame, n: int, per: str | None = None) -> pl.LazyFrame:
    """Drop all but the first n of the draw, of all rows or of each group."""
    ordered = rows.select("id", "lot", *([per] if per else [])).sort("lot")
    place = pl.int_range(pl.len())
    late = ordered.filter((place.over(per) if per else place) >= n)
    return drops(late, "not_drawn", NO_SCORE, NO_WITNESS)


def step(text: str) -> Step:
    """Return a step as a recipe writes it."""
    recipe = read_recipe(
        "name: bench\ndomains:\n  math:\n"
        f"    - source: {{file: x, columns: {{length: integer}}}}\n    - {text}\n"
    )
    return recipe.domains["math"][1]


waited: list[float] = []


def measured_fsync(handle: int, fsync: Callable[[int], None] = os.fsync) -> None:
    """Wait until the disk has a file, and note for how long."""
    started = time.perf_counter()
    fsync(handle)
    waited.append(time.perf_counter() - started)


def timed(work: Callable[[], T]) -> tuple[float, float, T]:
    """Return seconds by the clock, seconds of CPU, and the result."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - clock, time.process_time() - cpu, result


def main(n: int, folder: str | None = None) -> None:
    cases: list[tuple[str, str, Callable[[pl.LazyFrame], pl.LazyFrame]]] = [
        ("exact dedup", "dedup: {exact: , prefer: [first]}", exact),
        ("filter", "keep: {where: {length: {min: 200, max: 600}}}", band),
        ("top", f"keep: {{top: {n // 2}, by: length}}", lambda r: top(r, n // 2)),
        ("sample", f"take: {n // 10}", lambda r: sample(r, n // 10)),
        ("sample per source", f"take: {{n: {n // 100}, per: source}}",
         lambda r: sample(r, n // 100, "source")),
    ]  # fmt: skip
    os.fsync = measured_fsync
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name, "ledger")) as ledger:
        rows = table(Store(Path(folder or name, "rows")), n)
        files = [rows.rows.path / s.data.name for s in rows.shards if s.data]
        size = sum(f.stat().st_size for f in files) / 1e9
        print(f"{n:,} questions, {size:.2f} GB of Parquet; best of {TIMES}, by the clock (CPU)")
        ids = rows.scan("id").collect()["id"]
        print(f"{'seeded draw for all rows':20} {timed(lambda: lottery(ids, 42))[0]:7.2f} s")
        for label, text, query in cases:
            ours: list[tuple[float, float, float]] = []
            bare = []
            for i in range(TIMES):
                store = Store(Path(name, f"{label}{i}"))
                runner = Runner(store, Runtime(load_config(), lambda: ledger))
                made = step(text)
                waited.clear()
                took = timed(partial(runner, label, made, [At("source", rows)]))[:2]
                ours.append((*took, sum(waited)))
                to = Path(name, f"{label}{i}.parquet")

                def write(to: Path = to, query: Callable[..., pl.LazyFrame] = query) -> None:
                    frame = query(pl.scan_parquet(files)).collect(engine="streaming")
                    frame.write_parquet(to, compression="zstd", compression_level=1)

                bare.append(timed(write))
                at = runner.built[-1].artifact
                shards = [at.path / s.data.name for s in at.manifest.shards if s.data]
                found, expected = (pl.read_parquet(p).sort("id") for p in (shards, to))
                assert found.equals(expected), f"{label} drops other rows than the bare query"
            a, b = min(ours, key=lambda t: t[0]), min(bare, key=lambda t: t[0])
            print(f"{label:20} {a[0]:7.2f} s ({a[1]:6.2f}; {a[2]:5.2f} in fsync)   "
                  f"bare {b[0]:7.2f} s ({b[1]:6.2f})   {a[0] / b[0]:5.2f} of the bare query, "
                  f"{(a[0] - a[2]) / b[0]:5.2f} without fsync, {a[1] / b[1]:5.2f} in CPU; "
                  f"limit {LIMIT}", flush=True)  # fmt: skip
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, *sys.argv[2:3])
