"""How fast a ledger opens, looks up a million keys, and keeps replies.

    python benches/ledger.py [COMPLETIONS] [CHARACTERS]

Compares with the bare loop: SQLite transactions of the same payloads, without encoding, and with
a wait for the disk at each commit (FULL), which is what ``sync`` saves.
"""

import random
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.ledger import Ledger

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


def trace(rng: random.Random, characters: int) -> str:
    """Write phrases with numbers: zstd shrinks them to about a quarter, as it does real traces."""
    parts: list[str] = []
    length = 0
    while length < characters:
        parts.append(f"{rng.choice(_PHRASES)} {rng.randrange(10**6)}")
        length += len(parts[-1]) + 1
    return " ".join(parts)


def asked(i: int) -> Request:
    return Request("m", (Message("user", f"{i}?"),), Sampling())


def fill(path: Path, n: int, body: bytes) -> None:
    """Write rows as ``put`` does, but in one transaction: the lookups are what is measured."""
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO model (name) VALUES ('m')")
        db.executemany("INSERT INTO payload VALUES (?, ?)", ((i, body) for i in range(n)))
        rows = sorted((asked(i).key, i) for i in range(n))
        db.executemany("INSERT INTO completion VALUES (?, ?, 1, 'stop', 100, 200)", rows)
    db.close()


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    characters = int(sys.argv[2]) if len(sys.argv) > 2 else 30_000
    rng = random.Random(0)
    traces = [trace(rng, characters) for _ in range(200)]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "ledger.sqlite"
        puts = 3000
        with Ledger(path) as ledger:
            with timed(f"put, {characters:,} characters", puts):
                for i in range(puts):
                    completion = Completion(traces[i % 200], "4", "stop", 100, 200)
                    ledger.put(asked(-i), completion)
            with timed("claim", puts):
                for i in range(puts):
                    ledger.claim(asked(i).key)
            with timed("sync", 1):
                ledger.sync()
            with timed("get_many", puts):
                found = ledger.get_many(asked(-i).key for i in range(puts))
            assert len(found) == puts
            size = ledger.stats().size_bytes / puts
        print(f"{size:,.0f} bytes per completion of {characters:,} characters")
        body = bytes(rng.randbytes(int(size)))
        for mode in ("NORMAL", "FULL"):
            db = sqlite3.connect(Path(folder) / f"bare-{mode}", isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {mode}")
            db.execute("CREATE TABLE payload (id INTEGER PRIMARY KEY, body BLOB)")
            with timed(f"bare SQLite, {mode}", puts):
                for _ in range(puts):
                    db.execute("INSERT INTO payload (body) VALUES (?)", (body,))
            db.close()

        path = Path(folder) / "large.sqlite"
        fill(path, n, body[:1000])
        print(f"{n:,} completions, {path.stat().st_size / 1e6:,.0f} MB")
        with timed("open", 1):
            ledger = Ledger(path)
        keys = [asked(i).key for i in range(n // 2, n + n // 2)]
        rng.shuffle(keys)
        with timed("missing, half of them", n):
            missing = ledger.missing(keys)
        assert len(missing) == n // 2
        with timed("usage", n):
            ledger.usage(keys)
        ledger.close()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
