"""How fast a ledger opens, looks up a million keys and keeps replies, and how large it is.

    python benches/ledger.py [COMPLETIONS] [CHARACTERS] [LARGE]

Look-ups are measured on COMPLETIONS short replies, size and speed of keeping on LARGE replies of
CHARACTERS each. Compares with the bare loop, SQLite transactions of the same payloads with and
without a wait for the disk, and with zstd on each text by itself. With ``STILLROOM_DATA`` set,
real traces are the texts; each is used once with its own words, then again with its lines
numbered, so that no two are alike.
"""

import io
import itertools
import json
import os
import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zstandard

from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.ledger.codec import to_text

_PHRASES = (
    "Okay, so I need to find how many positive integers",
    "Wait, let me check that again.",
    "The sum of two odd numbers is even, therefore",
    "Hmm, but is that right? Suppose instead that x equals",
    "So the expression becomes",
    "Let me compute this step by step:",
    "Alternatively, maybe use the quadratic formula with",
    "That gives",
)


@contextmanager
def timed(what: str, n: int) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    print(f"{what:48} {seconds:8.2f} s  {n / seconds:12,.0f} /s", flush=True)


def made_traces(rng: random.Random, characters: int) -> list[str]:
    """Write phrases with numbers: zstd shrinks them to about a quarter, as it does real traces."""
    traces = []
    for _ in range(200):
        parts: list[str] = []
        length = 0
        while length < characters:
            parts.append(f"{rng.choice(_PHRASES)} {rng.randrange(10**6)}")
            length += len(parts[-1]) + 1
        traces.append(" ".join(parts))
    return traces


def real_traces() -> list[str]:
    """Read the responses of a reasoning teacher, or nothing where the data is absent."""
    folder = os.environ.get("STILLROOM_DATA")
    path = Path(folder or "") / "traces" / "kodcode_r1_code.jsonl.zst"
    if not folder or not path.exists():
        return []
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file)
        lines = io.TextIOWrapper(reader, encoding="utf-8")
        return [json.loads(line)["response"] for line in lines]


def asked(i: int) -> Request:
    return Request("m", (Message("user", f"{i}?"),), Sampling())


def measure_size(folder: Path, title: str, texts: list[str]) -> None:
    """Keep texts that all differ, and compare with zstd on each of them alone."""
    replies = [Completion(text, "4", "stop", 100, 200) for text in texts]
    raw = [to_text(reply) for reply in replies]
    n, total = len(raw), sum(map(len, raw))
    print(f"\n{title}: {n:,} texts, {total / n:,.0f} bytes in the mean")
    for level in (3, 9, 19):
        compress = zstandard.ZstdCompressor(level=level).compress
        some = raw[:: max(1, n // 300)]
        share = sum(len(compress(text)) for text in some) / sum(map(len, some))
        print(f"zstd -{level}, each alone: {share * total / n:,.0f} bytes per text")
    whole = len(zstandard.ZstdCompressor(level=19).compress(b"".join(raw)))
    print(f"zstd -19, all in one frame, which cannot be read one by one: {whole / n:,.0f} bytes")
    with Ledger(folder / title) as ledger:
        with timed("put, one by one", n):
            for i, reply in enumerate(replies):
                ledger.put(asked(i), reply)
        before = sum(ledger.stats().journals.values())
        with timed("compact", n):
            done = ledger.compact()
        with timed("export", n):
            ledger.export(folder / f"{title}.journal")
        with timed("verify", n):
            assert list(ledger.verify()) == []
    print(f"as put {before / n:,.0f}, compacted {done.after / n:,.0f} bytes per text")


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    characters = int(sys.argv[2]) if len(sys.argv) > 2 else 30_000
    large = int(sys.argv[3]) if len(sys.argv) > 3 else 3_000
    rng = random.Random(0)
    traces = made_traces(rng, characters)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        with Ledger(folder / "ledger") as ledger:
            with timed(f"put, {characters:,} characters", large):
                for i in range(large):
                    ledger.put(asked(-i), Completion(traces[i % 200], "4", "stop", 100, 200))
            with timed("claim", large):
                for i in range(large):
                    ledger.claim(asked(i).key)
            with timed("sync", 1):
                ledger.sync()
            with timed("get_many", large):
                found = ledger.get_many(asked(-i).key for i in range(large))
            assert len(found) == large
            size = ledger.stats().size_bytes / large
        print(f"{size:,.0f} bytes per completion of {characters:,} characters")
        body = bytes(rng.randbytes(int(size)))
        for mode in ("NORMAL", "FULL"):
            db = sqlite3.connect(folder / f"bare-{mode}", isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {mode}")
            db.execute("CREATE TABLE payload (id INTEGER PRIMARY KEY, body BLOB)")
            with timed(f"bare SQLite, {mode}", large):
                for _ in range(large):
                    db.execute("INSERT INTO payload (body) VALUES (?)", (body,))
            db.close()
            print(f"{(folder / f'bare-{mode}').stat().st_size / large:,.0f} bytes per payload")

        with Ledger(folder / "many") as ledger, timed("put_many by 256, short replies", n):
            numbers = iter(range(n))
            while batch := list(itertools.islice(numbers, 256)):
                short = Completion(None, "4", "stop", 100, 200)
                ledger.put_many([(asked(i), short) for i in batch])
        print(f"\n{n:,} completions, {Ledger(folder / 'many').stats()}")
        with timed("open", 1):
            ledger = Ledger(folder / "many")
        keys = [asked(i).key for i in range(n // 2, n + n // 2)]
        rng.shuffle(keys)
        with timed("missing, half of them", n):
            missing = ledger.missing(keys)
        assert len(missing) == n // 2
        with timed("usage", n):
            ledger.usage(keys)
        with timed("stats", 1):
            ledger.stats()
        ledger.close()
        with timed("open by another machine: index made", n):
            Ledger(folder / "many", machine="other").close()

        measure_size(folder, "made", made_traces(random.Random(1), characters))
        if real := real_traces():
            measure_size(folder, "real", real)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
