"""Peak memory of a scan and of exports of long traces, against the limit of 1.5 GB.

    python benches/trace_memory.py [--gb 3] [--file-mb 256]

Makes a store of answers of about 30 KB, 4,096 to a shard as `answer` does. Then, each time in a
fresh process: reads every column of every row, with the questions behind them; exports all rows;
exports what is left after `keep` dropped 15 of 16. Prints the peak, its ratio to the limit, and the
rate.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import polars as pl
from tests.tables import build, keep, question_table

from stillroom.rows import ANSWER, content_id
from stillroom.steps.export.export import Export, write_dataset
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store, Workshop
from stillroom.store.table import Table

LIMIT_MB = 1_500
SHARD = 4_096
TRACE = 30_000
DRAWS = 16


def make_text() -> str:
    """Make text that compresses about as well as traces do."""
    rng = random.Random(1)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(20_000)]
    return " ".join(rng.choices(words, weights=[1 / (i + 50) for i in range(20_000)], k=2_000_000))


def make_table(store: Store, shards: int) -> None:
    """Write questions, long answers, and drops of all draws but one."""
    per_shard = SHARD // DRAWS
    questions = question_table(store, shards * per_shard, shard=per_shard)
    text = make_text()
    rng = random.Random(2)
    with store.building("answer", "bench") as shop:
        assert isinstance(shop, Workshop)
        for index, frame in enumerate(questions.frames("id")):
            ids = [(q, d) for q in frame["id"] for d in range(DRAWS)]
            starts = [rng.randrange(len(text) - TRACE) for _ in ids]
            data = pl.DataFrame(
                {
                    "id": [content_id(q, d) for q, d in ids],
                    "question_id": [q for q, _ in ids],
                    "draw": [d for _, d in ids],
                    "teacher": "bench",
                    "reasoning": [text[s : s + TRACE] for s in starts],
                    "answer": "It is \\boxed{0}.",
                    "finish_reason": "stop",
                    "prompt_tokens": 20,
                    "completion_tokens": [7_000 + s % 9_000 for s in starts],
                },
                schema=dict(ANSWER),
            )
            shop.write(index, data, rows_in=data.height, parent=index)
        artifact = shop.finish(
            version=1, fields={"model": {"name": "bench"}, "draws": DRAWS}, inputs=[],
            delta="rows", kind="answers", schema=ANSWER, n_shards=shards, measured={}, notes=[],
        )  # fmt: skip
    table = Table(artifact, parent=questions)
    verdicts = [
        frame.select("id", pl.lit("correct").alias("verdict"), pl.lit("0").alias("extracted"))
        for frame in table.frames("id")
    ]
    build(
        store, "verify", verdicts, delta="columns", schema=dict(verdicts[0].schema),
        rows_in=[v.height for v in verdicts],
    )  # fmt: skip
    keep(store, table, "draw", 0)


def open_table(store: Store, *, dropped: bool) -> Table:
    """Open what `make_table` wrote."""
    questions, answers, verdicts, drops = (
        Artifact.load(next((store.root / "artifacts" / step).iterdir()))
        for step in ("source", "answer", "verify", "keep")
    )
    return Table(answers, (verdicts,), (drops,) if dropped else (), Table(questions))


def scan(root: Path) -> None:
    """Read all columns in this process, and print what it took."""
    start = time.perf_counter()
    table = open_table(Store(root / "store"), dropped=False)
    texts = pl.col("question", "reasoning", "answer", "verdict").str.len_bytes().sum()
    sums = table.scan().select(pl.len().alias("rows"), texts).collect(engine="streaming")
    report("scan of all columns", sums["rows"].item(), time.perf_counter() - start)
    assert sums["reasoning"].item() == sums["rows"].item() * TRACE


def report(what: str, rows: int, seconds: float) -> None:
    """Print the peak of this process; stop if it is above the limit."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    raw = rows * TRACE / 1e6
    print(
        f"{what}: {rows:,} rows, {raw:,.0f} MB of traces in {seconds:.0f} s "
        f"({raw / seconds:.0f} MB/s); peak {peak:,.0f} MB, {peak / LIMIT_MB:.2f} of the limit"
    )
    if peak > LIMIT_MB:
        raise SystemExit(f"peak memory is {peak:,.0f} MB; expected at most {LIMIT_MB:,}")


def export(root: Path, file_mb: int, dropped: bool) -> None:
    """Export in this process, and print what it took."""
    start = time.perf_counter()
    summary = write_dataset(
        root / f"out{dropped}",
        name="bench",
        recipe_text="name: bench\n",
        tables={"math": open_table(Store(root / "store"), dropped=dropped)},
        story=[],
        export=Export(file_mb=file_mb),
    )
    what = "export after drops" if dropped else "export of all rows"
    report(what, summary.rows, time.perf_counter() - start)


def main() -> None:
    """Make the store in one process and export it in others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=3.0)
    parser.add_argument("--file-mb", type=int, default=256)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=["make", "scan", "all", "dropped"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job == "make":
        make_table(Store(given.root / "store"), max(1, round(given.gb * 1e9 / TRACE / SHARD)))
    elif given.job == "scan":
        scan(given.root)
    elif given.job:
        export(given.root, given.file_mb, given.job == "dropped")
    else:
        with tempfile.TemporaryDirectory() as root:
            for job in ("make", "scan", "all", "dropped"):
                subprocess.run(
                    [sys.executable, __file__, "--gb", str(given.gb), "--file-mb",
                     str(given.file_mb), "--root", root, "--job", job],
                    check=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
