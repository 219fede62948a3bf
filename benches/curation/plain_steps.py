"""The plain steps of a recipe against bare Polars queries that do the same.

A million questions lie in a store as shards of Parquet. Each step reads what it needs of them and
keeps its outcome: which rows are dropped, with reason, score and witness. Polars does the same in
three ways, and both read the same files and wait until the disk has what they wrote:

- drops: the same rows with the same columns as the step, to one file of the same compression. The
  limit is 1.5 times this query. Both must drop the same rows, which is checked first.
- ids: the ids of the rows that are kept, and no word about the others.
- rows: the rows that are kept, in full, as a script does that goes on with a new file.

The step also digests what it writes, counts its reasons, goes on after a kill, and looks for the
outcome in its store first.

A step's seeded draw hashes ids with BLAKE2b, so that it is the same on every machine and for any
version of Polars; the bare query gets the order of that draw from its file of rows, as a column,
and what it costs to make is shown on a line of its own.

Usage: python benches/curation/plain_steps.py [rows [folder to keep the questions in]]
"""

import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

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
from stillroom.store.store import Store, sync
from stillroom.store.table import Table
from stillroom.text.normal import normal_form_expr

LIMIT = 1.5
TIMES = 9
LOTS = {
    "lot": ("take",),
    "lot_of_source": ("take", "per source"),
    "lot_of_top": ("keep", "length", None),
}  # column to the purpose of its draw
SCHEMA = {**QUESTION, "length": pl.Int64(), **dict.fromkeys(LOTS, pl.Int64())}


def table(store: Store, n: int) -> Table:
    """Write n questions of word salad, one in ten a repeat, with a length and the draw."""
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    recent: list[str] = []
    with store.building("source", content_id(n, *SCHEMA)) as shop:
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
            schema = {name: dtype for name, dtype in SCHEMA.items() if name not in LOTS}
            frame = pl.DataFrame(rows, schema=schema, orient="row")
            lots = [lottery(42, *of).alias(name) for name, of in LOTS.items()]
            # Digests of a store know signed numbers only; the order stays.
            frame = frame.with_columns(lots).with_columns(
                (pl.col(name).cast(pl.Int128) - 2**63).cast(pl.Int64) for name in LOTS
            )
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
    ordered = rows.select("id", "length", "lot_of_top")
    ordered = ordered.sort("length", "lot_of_top", descending=[True, False])
    score = pl.col("length").cast(pl.Float64)
    return drops(ordered.slice(n), f"not in the top {n}", score, NO_WITNESS)


def sample(rows: pl.LazyFrame, n: int, per: str | None = None) -> pl.LazyFrame:
    """Drop all but the first n of the draw, of all rows or of each group."""
    lot = "lot_of_source" if per else "lot"
    ordered = rows.select("id", lot, *([per] if per else [])).sort(lot)
    place = pl.int_range(pl.len())
    late = ordered.filter((place.over(per) if per else place) >= n)
    return drops(late, "not_drawn", NO_SCORE, NO_WITNESS)


def first_forms(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep the first of equal normal forms."""
    forms = rows.with_columns(form=normal_form_expr("question"))
    return forms.unique("form", keep="first", maintain_order=True).drop("form")


def inside(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Keep what is neither too short nor too long."""
    return rows.filter(pl.col("length").is_between(200, 600))


def longest(rows: pl.LazyFrame, n: int) -> pl.LazyFrame:
    """Keep the n longest."""
    return rows.sort("length", "lot_of_top", descending=[True, False]).head(n)


def drawn(rows: pl.LazyFrame, n: int, per: str | None = None) -> pl.LazyFrame:
    """Keep the first n of the draw, of all rows or of each group."""
    ordered = rows.sort("lot_of_source" if per else "lot")
    if per is None:
        return ordered.head(n)
    return ordered.filter(pl.int_range(pl.len()).over(per) < n)


def keep_file(query: pl.LazyFrame, to: Path) -> None:
    """Run a query, write what it gives, and wait until the disk has it."""
    query.sink_parquet(to, compression="zstd", compression_level=1)
    sync(to)
    sync(to.parent)


def step(text: str) -> Step:
    """Return a step as a recipe writes it."""
    recipe = read_recipe(
        "name: bench\ndomains:\n  math:\n"
        f"    - source: {{file: x, columns: {{length: integer}}}}\n    - {text}\n"
    )
    return recipe.domains["math"][1]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock, and seconds of CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


Query = Callable[[pl.LazyFrame], pl.LazyFrame]


def main(n: int, folder: str | None = None) -> None:
    """Print a line per step: seconds by the clock, and those of CPU in brackets."""
    cases: list[tuple[str, str, Query, Query]] = [
        ("exact dedup", "dedup: {exact: , prefer: [first]}", exact, first_forms),
        ("filter", "keep: {where: {length: {min: 200, max: 600}}}", band, inside),
        ("top", f"keep: {{top: {n // 2}, by: length}}",
         lambda r: top(r, n // 2), lambda r: longest(r, n // 2)),
        ("sample", f"take: {n // 10}",
         lambda r: sample(r, n // 10), lambda r: drawn(r, n // 10)),
        ("sample per source", f"take: {{n: {n // 100}, per: source}}",
         lambda r: sample(r, n // 100, "source"), lambda r: drawn(r, n // 100, "source")),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name, "ledger")) as ledger:
        rows = table(Store(Path(folder or name, "rows")), n)
        files = [rows.rows.path / s.data.name for s in rows.shards if s.data]
        size = sum(f.stat().st_size for f in files) / 1e9
        print(f"{n:,} questions, {size:.2f} GB of Parquet; best of {TIMES}, by the clock (CPU)")
        ids = rows.scan("id").collect()
        draw = partial(ids.select, lottery(42, "take"))
        print(f"{'seeded draw for all rows':20} {timed(draw)[0]:.3f} s")
        everything = pl.scan_parquet(files)
        for label, text, query, kept in cases:
            made = step(text)
            ways = {
                "drops": query(everything),
                "ids": kept(everything).select("id"),
                "rows": kept(everything).select(n for n in SCHEMA if n not in LOTS),
            }
            took: dict[str, list[tuple[float, float]]] = {"": [], **{way: [] for way in ways}}
            for i in range(TIMES):
                runner = Runner(Store(Path(name, f"{label}{i}")),
                                Runtime(load_config(), lambda: ledger))  # fmt: skip
                took[""].append(timed(partial(runner, label, made, [At("source", rows)])))
                for way, bare in ways.items():
                    took[way].append(timed(partial(keep_file, bare, Path(name, f"{way}.parquet"))))
            check(runner.built[-1].artifact, *(Path(name, f"{way}.parquet") for way in ways))
            best = {way: min(seconds) for way, seconds in took.items()}
            clock, cpu = best.pop("")
            print(f"{label:18} {clock:6.3f} s ({cpu:6.3f})", end="")
            for way, (bare_clock, bare_cpu) in best.items():
                print(f"   {way} {bare_clock:6.3f} s ({bare_cpu:6.3f}), ratio "
                      f"{clock / bare_clock:4.2f} ({cpu / bare_cpu:4.2f})", end="")  # fmt: skip
            print(f"   limit {LIMIT}", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def check(at: Artifact, drops: Path, ids: Path, whole: Path) -> None:
    """Make sure that the step and the three queries agree on every row."""
    found, expected = at.scan_all().sort("id").collect(), pl.read_parquet(drops).sort("id")
    assert found.equals(expected), "the step drops other rows than the bare query"
    kept = {*pl.read_parquet(ids)["id"]}
    assert kept.isdisjoint(found["id"]), "the bare query keeps a row that the step drops"
    assert len(kept) == at.manifest.rows_out, "the bare query keeps fewer rows, or more"
    assert kept == {*pl.read_parquet(whole, columns=["id"])["id"]}, "ids and rows differ"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, *sys.argv[2:3])
