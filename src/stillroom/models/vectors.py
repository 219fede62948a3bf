"""Vectors that were computed or paid for, by model and text, in one SQLite file.

Covered: what ``put`` returned for survives a killed process; several processes share one file, and
claims in the ledger keep them from asking for the same vectors (`stillroom.models.embeddings`).
Not covered: network file systems, since SQLite's log needs memory shared between the processes.
"""

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from stillroom.errors import StoreError

_KEYS_PER_QUERY = 900  # below 999, the limit on variables of older SQLite builds


def vector_key(model: str, text: str) -> bytes:
    """Name the vector of a text: sixteen bytes."""
    content = f"{len(model)} {model} {text}".encode("utf-8", "surrogatepass")
    return blake2b(content, digest_size=16, person=b"vector").digest()


class Vectors:
    """Rows of float32 by key. A vector never changes: the first one kept for a key stays."""

    def __init__(self, path: Path | str) -> None:
        """Open the file, or begin one.

        Raises:
            StoreError: If it cannot be used.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60.0, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, body BLOB NOT NULL)"
            )
            self._db.commit()
        except (OSError, sqlite3.Error) as error:
            raise self._trouble(error) from error

    def __enter__(self) -> "Vectors":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the vectors that are there."""
        found: dict[bytes, bytes] = {}
        waiting = iter(dict.fromkeys(keys))
        while chunk := list(islice(waiting, _KEYS_PER_QUERY)):
            marks = ",".join("?" * len(chunk))
            try:
                with self._lock:
                    rows = self._db.execute(
                        f"SELECT key, body FROM vector WHERE key IN ({marks})", chunk
                    ).fetchall()
            except sqlite3.Error as error:
                raise self._trouble(error) from error
            found.update(rows)
        return found

    def put(self, vectors: Mapping[bytes, bytes]) -> None:
        """Keep vectors; they are committed when this returns."""
        try:
            with self._lock, self._db:
                self._db.executemany("INSERT OR IGNORE INTO vector VALUES (?, ?)", vectors.items())
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> StoreError:
        return StoreError(
            f"{self.path}: vectors cannot be kept there ({error}); expected a SQLite database and "
            "room on the disk. Repair or move the file, and run again: what is in it is kept."
        )
