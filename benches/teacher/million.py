"""A ledger of a million completions of 30 KB: how fast it opens and looks up, and how large it is.

    python benches/teacher/million.py FOLDER [--completions 1000000] [--characters 30000]
        [--texts 200000] [--seconds 240]

Fills the ledger in FOLDER for so many seconds; the same command goes on where it stopped, and
measures once all are there. Beyond ``--texts`` different texts, completions are those of before
under new keys, appended as they are: what opening and looking up cost does not hang on it.

Look-ups are compared with the bare limit: the same keys asked of the index's table by a loop over
SQLite alone. Sizes are compared with zstd -19 of each text alone.

The texts are pieces of real traces (``STILLROOM_DATA``), of 2 KB each, with other digits, in an
order of their own.
"""

import argparse
import io
import itertools
import json
import os
import random
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import zstandard

from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.ledger import Ledger, journal
from stillroom.models.ledger.codec import to_text
from stillroom.models.ledger.journal import Record

PIECE = 2_000
SAMPLE = 2_000  # completions whose size is compared
DIGITS = "0123456789"
VARIANTS = 16


def asked(i: int) -> Request:
    return Request("teacher", (Message("user", f"{i}?"),), Sampling(1.0, None, 32_000))


class Texts:
    """Traces by number: the same number gives the same trace."""

    def __init__(self, characters: int) -> None:
        path = Path(os.environ["STILLROOM_DATA"]) / "traces" / "kodcode_r1_code.jsonl.zst"
        with path.open("rb") as file:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
            text = "\n".join(json.loads(line)["response"] for line in lines)
        draw = random.Random(0)
        self.pieces = []
        for start in range(0, len(text) - PIECE, PIECE):
            for _ in range(VARIANTS):
                digits = str.maketrans(DIGITS, "".join(draw.sample(DIGITS, 10)))
                self.pieces.append(text[start : start + PIECE].translate(digits))
        self.each = characters // PIECE

    def __getitem__(self, i: int) -> Completion:
        parts = random.Random(i).choices(self.pieces, k=self.each)
        return Completion("".join(parts), f"The answer is {i}.", "stop", 200, 9_000)


@contextmanager
def timed(what: str, n: int = 1) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rate = f"{n / wall:12,.0f} /s" if n > 1 else ""
    print(f"{what:52} {wall:8.2f} s, {cpu:8.2f} s of CPU {rate}", flush=True)


def fill(path: Path, texts: Texts, completions: int, distinct: int, seconds: float) -> bool:
    """Go on filling; return whether all are there."""
    give_up_at = time.monotonic() + seconds
    with Ledger(path) as ledger:
        done = ledger.stats().total.completions
        start = done
        with timed("filling", 2):
            while done < distinct and time.monotonic() < give_up_at:
                numbers = range(done, min(distinct, done + 256))
                ledger.put_many([(asked(i), texts[i]) for i in numbers])
                done = numbers.stop
            if done >= distinct:
                done = copy(ledger, done, completions, give_up_at)
    print(f"{start:,} → {done:,} of {completions:,} completions", flush=True)
    return done >= completions


def copy(ledger: Ledger, done: int, completions: int, give_up_at: float) -> int:
    """Append what is there again, under new keys; return how many completions there are."""
    [place] = ledger.path.glob("*.journal")
    size = place.stat().st_size
    with place.open("rb") as opened:
        file = opened.fileno()
        records = (
            record
            for _ in itertools.count()
            for record in journal.scan(file, 0, size)
            if isinstance(record, Record) and record.kind == journal.COMPLETION
        )
        while done < completions and time.monotonic() < give_up_at:
            entries = [
                (
                    journal.COMPLETION,
                    asked(i).key,
                    time.time_ns(),
                    record.facts,
                    os.pread(file, record.body_size, record.end - record.body_size),
                )
                for i, record in zip(
                    range(done, min(completions, done + 1000)), records, strict=False
                )
            ]
            with ledger._index.writing() as db:
                ledger._folder.append(db, entries)
            done += len(entries)
    return done


def measure(path: Path, texts: Texts, completions: int, distinct: int) -> None:
    with timed("open"):
        ledger = Ledger(path)
    with ledger:
        stats = ledger.stats()
        print(f"{stats}; index {ledger._index.path.stat().st_size / 1e6:,.0f} MB")
        draw = random.Random(0)
        keys = [asked(i).key for i in range(completions // 2, completions * 3 // 2)]
        draw.shuffle(keys)
        with timed("missing: keys looked up, half of them there", len(keys)):
            missing = ledger.missing(keys)
        assert len(missing) == completions // 2
        with timed("usage: keys looked up and tokens summed", len(keys)):
            assert ledger.usage(keys).completions == completions - completions // 2
        with closing(sqlite3.connect(ledger._index.path)) as db, timed("bare SQLite", len(keys)):
            found = 0
            for start in range(0, len(keys), 900):
                chunk = keys[start : start + 900]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT key FROM completion WHERE key IN ({marks})"
                found += len(db.execute(query, chunk).fetchall())
        assert found == len(keys) - len(missing)
        some = draw.sample(range(completions), min(completions, SAMPLE))
        with timed("get_many: read, of all places in the journal", len(some)):
            got = ledger.get_many(asked(i).key for i in some)
        assert all(got[asked(i).key] == texts[i] for i in some if i < distinct)
    raw = [to_text(texts[i]) for i in some]
    total = sum(map(len, raw))
    kept = stats.size_bytes / completions
    print(f"{total / len(raw):,.0f} bytes per text; {kept:,.0f} in the ledger, index included")
    for level in (3, 19):
        packed = zstandard.ZstdCompressor(level=level)
        size = sum(len(packed.compress(text)) for text in raw[:300]) / min(300, len(raw))
        print(f"zstd -{level}, each alone: {size:,.0f} bytes; the ledger {kept / size:.2f} of it")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--completions", type=int, default=1_000_000)
    parser.add_argument("--characters", type=int, default=30_000)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=240.0)
    given = parser.parse_args()
    texts = Texts(given.characters)
    n, distinct = given.completions, min(given.texts, given.completions)
    if fill(given.folder, texts, n, distinct, given.seconds):
        measure(given.folder, texts, n, distinct)


if __name__ == "__main__":
    main()
