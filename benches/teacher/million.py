"""A ledger of a million completions of 30 KB: how fast it opens and looks up, and how large it is.

    python benches/teacher/million.py FOLDER [--completions 1000000] [--characters 30000]
        [--seconds 240]

Fills the ledger in FOLDER for so many seconds; the same command goes on where it stopped, and
measures once all are there. Look-ups are compared with the bare limit: the same keys asked of the
index's table by a loop over SQLite alone. Sizes are compared with zstd -19 of each text alone.

The texts are pieces of real traces (``STILLROOM_DATA``), of 2 KB each, with other digits, in an
order of their own.
"""

import argparse
import io
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
from stillroom.models.ledger import Ledger
from stillroom.models.ledger.codec import to_text

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


def fill(path: Path, texts: Texts, completions: int, seconds: float) -> bool:
    """Go on filling; return whether all are there."""
    give_up_at = time.monotonic() + seconds
    with Ledger(path) as ledger:
        done = ledger.stats().total.completions
        start = done
        with timed("filling", 2):
            while done < completions and time.monotonic() < give_up_at:
                numbers = range(done, min(completions, done + 256))
                ledger.put_many([(asked(i), texts[i]) for i in numbers])
                done = numbers.stop
    print(f"{start:,} → {done:,} of {completions:,} completions", flush=True)
    return done >= completions


def measure(path: Path, texts: Texts, completions: int) -> None:
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
        assert all(got[asked(i).key] == texts[i] for i in some)
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
    parser.add_argument("--seconds", type=float, default=240.0)
    given = parser.parse_args()
    texts = Texts(given.characters)
    if fill(given.folder, texts, given.completions, given.seconds):
        measure(given.folder, texts, given.completions)


if __name__ == "__main__":
    main()
