"""The index: where each completion lies, and what is known of it, in one SQLite file per machine.

It holds nothing that the journals don't, but for claims; it never waits for the disk, and what the
journals lack is dropped from it.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from stillroom.errors import StoreError
from stillroom.models.ledger import advice, journal
from stillroom.models.ledger.journal import Record

SCHEMA_VERSION = 2
APPLICATION_ID = 0x5354494C  # "STIL", so that `file` and we can tell an index from other databases

_SCHEMA = """
CREATE TABLE model (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,      -- bytes that are indexed
    synced INTEGER NOT NULL     -- bytes that the disk is known to have
);
CREATE TABLE completion (
    key BLOB PRIMARY KEY,
    at INTEGER NOT NULL,        -- nanoseconds since 1970
    journal INTEGER NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    model INTEGER NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER,      -- NULL when the server did not count
    completion_tokens INTEGER
) WITHOUT ROWID;
CREATE TABLE failure (
    key BLOB PRIMARY KEY,
    at INTEGER NOT NULL,
    model INTEGER NOT NULL,
    reason TEXT NOT NULL,       -- empty when it was forgotten
    message TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE forgotten (key BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE dictionary (journal INTEGER, id INTEGER, start INTEGER, size INTEGER,
    PRIMARY KEY (journal, id)) WITHOUT ROWID;
CREATE TABLE claim (key BLOB PRIMARY KEY, buyer TEXT NOT NULL) WITHOUT ROWID
"""

KEYS_PER_QUERY = 900
"""Below 999, the limit on variables of older SQLite builds."""


class Index:
    """One machine's index of all journals of a folder.

    Attributes:
        path: The file.
        lock: Held while the index is used; threads of a process share one connection.
        undo: Set while writing, to be called should that fail, before others may write.
    """

    def __init__(self, path: Path, busy_s: float) -> None:
        """Open the index, or begin one.

        Raises:
            StoreError: If it is damaged, of a newer schema, of another program, or read-only.
        """
        self.path = path
        self.lock = threading.RLock()
        self.undo: Callable[[], None] | None = None
        self._folder = path.parent
        self._busy_s = busy_s
        self._pid = os.getpid()
        with self.translated():
            self._db = sqlite3.connect(
                path, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def translated(self, place: Path | None = None) -> AbstractContextManager[None]:
        """Turn errors of SQLite and the disk into a message with advice.

        Args:
            place: What to name in it; by default the index or its folder.
        """
        return advice.translated(
            index=place or self.path, files=place or self._folder, busy_s=self._busy_s
        )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read for a moment.

        Raises:
            RuntimeError: In a forked process.
        """
        if os.getpid() != self._pid:
            # SQLite's locks do not survive fork: carrying on would corrupt the file.
            raise RuntimeError("a ledger was used in a forked process; open it there anew")
        with self.lock, self.translated():
            yield self._db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing, while no other process of this machine writes."""
        with self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            self.undo = None
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if self.undo is not None:
                    self.undo()
                with suppress(sqlite3.Error):  # a full disk has already rolled back
                    db.execute("ROLLBACK")
                raise

    def find(self, query: str, keys: list[bytes]) -> list[tuple[Any, ...]]:
        """Return the rows that a query finds for these keys, at most ``KEYS_PER_QUERY``."""
        marks = ",".join("?" * len(keys))
        with self.reading() as db:
            return db.execute(f"{query} WHERE key IN ({marks})", keys).fetchall()

    # Called within ``reading`` or ``writing``

    def known(self) -> list[tuple[int, str, int]]:
        """Return number, name and indexed bytes of the journals."""
        return self._db.execute("SELECT id, name, size FROM journal").fetchall()

    def unsynced(self) -> list[tuple[int, str, int]]:
        """Return number, name and indexed bytes of journals that the disk was not waited for."""
        return self._db.execute("SELECT id, name, size FROM journal WHERE synced < size").fetchall()

    def begin(self, name: str) -> None:
        """Make a journal known."""
        self._db.execute(
            "INSERT OR IGNORE INTO journal (name, size, synced) VALUES (?, 0, 0)", (name,)
        )

    def clear(self) -> None:
        """Forget all journals and what they hold; claims stay."""
        for table in ("journal", "completion", "failure", "forgotten", "dictionary"):
            self._db.execute(f"DELETE FROM {table}")

    def cut(self, number: int, start: int) -> None:
        """Forget what a journal held from here on."""
        for table in ("completion", "dictionary"):
            self._db.execute(
                f"DELETE FROM {table} WHERE journal = ? AND start >= ?", (number, start)
            )
        self._db.execute("UPDATE journal SET size = ? WHERE id = ?", (start, number))

    def remove(self, number: int) -> None:
        """Forget a journal and its completions."""
        for table in ("completion", "dictionary"):
            self._db.execute(f"DELETE FROM {table} WHERE journal = ?", (number,))
        self._db.execute("DELETE FROM journal WHERE id = ?", (number,))

    def add(self, number: int, records: list[Record]) -> None:
        """Let each key's earliest completion count, its last failure, and what was forgotten."""
        db = self._db
        models: dict[str, int] = {}

        def model(name: str) -> int:
            if name not in models:
                models[name] = _model_number(db, name)
            return models[name]

        rows = []
        for record in records:
            key, at = record.key, record.at_ns
            if record.kind == journal.COMPLETION:
                name, finish, prompt, completion = record.facts
                rows.append(
                    (key, at, number, record.start, record.size, model(name), finish, prompt,
                     completion)
                )  # fmt: skip
                continue
            _add_completions(db, rows)
            rows = []
            if record.kind == journal.FAILURE:
                name, reason, words = record.facts
                db.execute(
                    f"INSERT INTO failure SELECT * FROM {_given(5)} WHERE"
                    " NOT EXISTS (SELECT 1 FROM completion WHERE key = given.key) AND"
                    f" NOT EXISTS ({_FORGOTTEN})"
                    " ON CONFLICT DO UPDATE SET at = excluded.at, model = excluded.model,"
                    " reason = excluded.reason, message = excluded.message"
                    " WHERE excluded.at >= at",
                    (key, at, model(name), reason, words),
                )
            elif record.kind == journal.FORGOTTEN:
                db.execute(
                    "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT DO UPDATE"
                    " SET at = max(at, excluded.at)",
                    (key, at),
                )
                for table in ("completion", "failure"):
                    db.execute(f"DELETE FROM {table} WHERE key = ? AND at <= ?", (key, at))
            elif record.kind == journal.DICTIONARY:
                db.execute(
                    "INSERT OR IGNORE INTO dictionary VALUES (?, ?, ?, ?)",
                    (number, record.facts[0], record.start, record.size),
                )
        _add_completions(db, rows)

    # The file

    def _prepare(self) -> None:
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL").fetchall()
                break
            except sqlite3.OperationalError as error:
                # Changing the mode does not wait as other statements do: sqlite.org/wal.html.
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        # Never waits for the disk: the journals are the truth, and what they lack is dropped.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        if self._schema_version() == SCHEMA_VERSION:
            return
        with self.writing() as db:
            if self._schema_version() == 0:  # else another process has made it meanwhile
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _schema_version(self) -> int:
        """Return the index's schema version, 0 when it is empty."""
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and tables:
            raise StoreError(
                f"{self.path}: a database of another program; expected an index written by "
                "Stillroom. Name another path."
            )
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: schema version is {version}; expected {SCHEMA_VERSION} at most. "
                "Install the newer Stillroom that wrote it."
            )
        return int(version) if tables else 0


def chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut keys into pieces that one query takes."""
    source = iter(keys)
    while chunk := list(islice(source, KEYS_PER_QUERY)):
        yield chunk


def _model_number(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT id FROM model WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    return int(db.execute("INSERT INTO model (name) VALUES (?)", (name,)).lastrowid or 0)


_FORGOTTEN = "SELECT 1 FROM forgotten WHERE key = given.key AND at >= given.since"


def _given(columns: int) -> str:
    """Name the values of a row, so that a statement can say the first two again.

    Numbered placeholders, ``?1``, take no sequence from Python 3.14 on.
    """
    return f"(SELECT ? AS key, ? AS since{', ?' * (columns - 2)}) AS given"


def _add_completions(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    rows.sort()  # by key: the index is a tree of keys
    db.executemany(
        f"INSERT INTO completion SELECT * FROM {_given(9)} WHERE NOT EXISTS ({_FORGOTTEN})"
        " ON CONFLICT DO UPDATE SET at = excluded.at, journal = excluded.journal,"
        " start = excluded.start, size = excluded.size, model = excluded.model,"
        " finish_reason = excluded.finish_reason, prompt_tokens = excluded.prompt_tokens,"
        " completion_tokens = excluded.completion_tokens WHERE excluded.at < at",
        rows,
    )
    if db.execute("SELECT EXISTS (SELECT 1 FROM failure)").fetchone() == (1,):
        db.executemany("DELETE FROM failure WHERE key = ?", [row[:1] for row in rows])
