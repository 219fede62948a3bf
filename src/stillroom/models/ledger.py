"""The ledger: every completion ever paid for, kept before it is used.

Covered: a process killed at any moment loses no completion that ``put`` returned for; a power cut
loses none that ``sync`` returned for, and at most the last second otherwise; several threads
share one ledger, and several processes on one machine share one file. A torn payload is found by
its checksum and named, never used.

Not covered: network file systems. SQLite's log needs memory shared between the processes.
"""

import fcntl
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple, Self

import zstandard

from stillroom.errors import StoreError
from stillroom.models.chat import Completion, Failure, Reply, Request

SCHEMA_VERSION = 1
APPLICATION_ID = 0x5354494C  # "STIL", so that `file` and we can tell a ledger from other databases

# Narrow rows apart from payloads: looking up a million keys reads 50 MB, not the texts.
_SCHEMA = """
CREATE TABLE model (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE completion (
    key BLOB PRIMARY KEY,
    payload INTEGER NOT NULL,
    model INTEGER NOT NULL,
    finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER,      -- NULL when the server did not count
    completion_tokens INTEGER
) WITHOUT ROWID;
CREATE TABLE payload (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE failure (
    key BLOB PRIMARY KEY,
    model INTEGER NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE claim (key BLOB PRIMARY KEY, buyer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE synced (times INTEGER NOT NULL);
INSERT INTO synced VALUES (0);
"""

_KEYS_PER_QUERY = 900  # below 999, the limit on variables of older SQLite builds
_SYNC_EVERY_S = 1.0

_ADVICE = {
    sqlite3.SQLITE_FULL: (
        "the disk is full; expected room for one more completion. Free space and run again: "
        "everything committed is kept."
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk refused to read or write ({error}); expected a working disk with free space. "
        "Check space, quota and file size limit, and run again: everything committed is kept."
    ),
    sqlite3.SQLITE_READONLY: (
        "cannot be written ({error}); expected a file and folder that you may write to. "
        "Change their permissions, or name another ledger."
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened ({error}); expected a file and folder that you may write to. "
        "Change their permissions, or name another ledger."
    ),
    sqlite3.SQLITE_CORRUPT: (
        "damaged ({error}); expected a whole SQLite database. Restore it from a copy, or move it "
        "away and begin anew."
    ),
    sqlite3.SQLITE_NOTADB: (
        "not a ledger ({error}); expected a SQLite database written by Stillroom. Name another "
        "path, or restore the file from a copy."
    ),
    sqlite3.SQLITE_BUSY: (
        "locked by another process for {busy_s:g} s; expected a free moment sooner. Stop the "
        "process that holds it, and run again."
    ),
}

# Locks of this process would look free to itself, because record locks belong to processes.
_buyers_here: set[str] = set()


class Usage(NamedTuple):
    """Completions and their tokens, summed.

    Attributes:
        completions: How many.
        prompt_tokens: As the servers counted them.
        completion_tokens: As the servers counted them, thinking included.
        uncounted: How many of the completions came without token counts.
    """

    completions: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """What a ledger holds.

    Attributes:
        total: Over all models.
        by_model: By frozen model name.
        finish_reasons: Completions by finish reason.
        failures: Requests whose last outcome is a failure, by reason.
        size_bytes: Of the database and its log on disk.
    """

    total: Usage
    by_model: dict[str, Usage]
    finish_reasons: dict[str, int]
    failures: dict[str, int]
    size_bytes: int

    def __str__(self) -> str:
        tokens = self.total.prompt_tokens + self.total.completion_tokens
        return (
            f"{self.total.completions:,} completions, {tokens:,} tokens, "
            f"{sum(self.failures.values()):,} failures, {self.size_bytes / 1e6:,.1f} MB"
        )


class Torn(NamedTuple):
    """A completion that can no longer be read.

    Attributes:
        key: Of its request.
        problem: What is wrong with it.
    """

    key: bytes
    problem: str


class Ledger:
    """Completions by the key of their request, in one SQLite file.

    A completion never changes: the first one kept for a key stays. A failure is kept only to be
    reported; it is never served as an answer, and its request counts as missing.
    """

    def __init__(self, path: Path | str, *, busy_s: float = 60.0):
        """Open a ledger, or begin one.

        Args:
            path: The database file; its folder is made if need be.
            busy_s: How long to wait for another process that is writing.

        Raises:
            StoreError: If the file is not a ledger, is damaged, of a newer schema, or read-only.
        """
        self.path = Path(path)
        self._busy_s = busy_s
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._buyer: tuple[str, IO[bytes]] | None = None
        self._last_sync = time.monotonic()
        self._compress = zstandard.ZstdCompressor(level=3, write_checksum=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        with self._translated():
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{self.path}: its folder cannot be made ({error.strerror}); expected a place "
                    "that you may write to. Name another path."
                ) from error
            self._db = sqlite3.connect(
                self.path, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Give up claims and close the file; closing twice does nothing."""
        with self._lock:
            if self._buyer is not None:
                name, lock = self._buyer
                with suppress(StoreError), self._writing() as db:
                    db.execute("DELETE FROM claim WHERE buyer = ?", (name,))
                self._lock_path(name).unlink(missing_ok=True)
                lock.close()
                _buyers_here.discard(name)
                self._buyer = None
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Reading

    def missing(self, keys: Iterable[bytes]) -> set[bytes]:
        """Return those keys that have no completion."""
        absent: set[bytes] = set()
        for chunk, rows in self._look_up("SELECT key FROM completion", keys):
            absent.update(chunk)
            absent.difference_update(key for (key,) in rows)
        return absent

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Completion]:
        """Return the completions that are there, by key.

        Raises:
            StoreError: If one of them is torn; the message names it.
        """
        found: dict[bytes, Completion] = {}
        query = "SELECT key, body FROM completion LEFT JOIN payload ON id = payload"
        for _, rows in self._look_up(query, keys):
            for key, body in rows:
                try:
                    found[key] = self._decode(body)
                except _TORN as error:
                    raise StoreError(
                        f"{self.path}: completion {key.hex()} is torn ({error}); expected what was "
                        "written. Restore the ledger from a copy, or forget the completion and "
                        "buy it again."
                    ) from error
        return found

    def failures(self, keys: Iterable[bytes]) -> dict[bytes, Failure]:
        """Return the failures of those keys that have one and no completion."""
        found: dict[bytes, Failure] = {}
        for _, rows in self._look_up("SELECT key, reason, message FROM failure", keys):
            found.update((key, Failure(reason, message)) for key, reason, message in rows)
        return found

    def usage(self, keys: Iterable[bytes]) -> Usage:
        """Sum the tokens of the completions of these keys; a key given twice counts twice."""
        sums = [0, 0, 0, 0]
        query = "SELECT key, prompt_tokens, completion_tokens FROM completion"
        for chunk, rows in self._look_up(query, keys):
            by_key = {key: counts for key, *counts in rows}
            for prompt, completion in (by_key[key] for key in chunk if key in by_key):
                sums[0] += 1
                sums[1] += prompt or 0
                sums[2] += completion or 0
                sums[3] += prompt is None
        return Usage(*sums)

    def stats(self) -> LedgerStats:
        """Count what the ledger holds."""
        with self._reading() as db:
            by_model = {
                name: Usage(*sums)
                for name, *sums in db.execute(
                    "SELECT name, count(*), coalesce(sum(prompt_tokens), 0),"
                    " coalesce(sum(completion_tokens), 0), sum(prompt_tokens IS NULL)"
                    " FROM completion JOIN model ON id = model GROUP BY name ORDER BY name"
                )
            }
            finish_reasons = dict(
                db.execute(
                    "SELECT finish_reason, count(*) FROM completion GROUP BY 1 ORDER BY 1"
                ).fetchall()
            )
            failures = dict(
                db.execute("SELECT reason, count(*) FROM failure GROUP BY 1 ORDER BY 1").fetchall()
            )
        sums = [sum(column) for column in zip((0, 0, 0, 0), *by_model.values(), strict=True)]
        log = self.path.with_name(self.path.name + "-wal")
        size = sum(file.stat().st_size for file in (self.path, log) if file.exists())
        return LedgerStats(Usage(*sums), by_model, finish_reasons, failures, size)

    def verify(self) -> Iterator[Torn]:
        """Read every completion, and yield those that are torn.

        Raises:
            StoreError: If the database itself is damaged, so that it cannot be read through.
        """
        with self._reading() as db:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(
                f"{self.path}: " + _ADVICE[sqlite3.SQLITE_CORRUPT].format(error=verdict)
            )
        after = b""
        while True:
            with self._reading() as db:
                rows = db.execute(
                    "SELECT key, body, prompt_tokens, completion_tokens FROM completion"
                    " LEFT JOIN payload ON id = payload WHERE key > ? ORDER BY key LIMIT 256",
                    (after,),
                ).fetchall()
            if not rows:
                return
            for key, body, *counts in rows:
                try:
                    completion = self._decode(body)
                except _TORN as error:
                    yield Torn(key, str(error))
                    continue
                if counts != [None, None] and counts != [
                    completion.prompt_tokens,
                    completion.completion_tokens,
                ]:
                    yield Torn(key, "token counts of index and payload differ")
            after = rows[-1][0]

    # Writing

    def put(self, request: Request, reply: Reply) -> bool:
        """Keep a reply; it is committed when this returns.

        Committed means safe from a killed process. Safe from a power cut is what ``sync``
        returned for, which happens here about once a second.

        Returns:
            Whether the ledger has changed; False when it already holds a completion of this key.
        """
        key = request.key
        body = b"" if isinstance(reply, Failure) else self._encode(reply)
        with self._writing() as db:
            db.execute("DELETE FROM claim WHERE key = ?", (key,))
            if db.execute("SELECT 1 FROM completion WHERE key = ?", (key,)).fetchone():
                return False
            model = self._model_number(request.model)
            if isinstance(reply, Failure):
                db.execute(
                    "INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?)",
                    (key, model, reply.reason, reply.message.encode("utf-8", "replace").decode()),
                )
            else:
                counted = reply.counted
                tokens = (reply.prompt_tokens, reply.completion_tokens) if counted else (None, None)
                payload = db.execute("INSERT INTO payload (body) VALUES (?)", (body,)).lastrowid
                db.execute(
                    "INSERT INTO completion VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        key,
                        payload,
                        model,
                        reply.finish_reason,
                        *tokens,
                    ),
                )
                db.execute("DELETE FROM failure WHERE key = ?", (key,))
        if time.monotonic() - self._last_sync > _SYNC_EVERY_S:
            self.sync()
        return True

    def sync(self) -> None:
        """Make everything committed so far safe from a power cut too.

        One wait for the disk serves all commits before it, so that it need not be paid per reply.
        Call it before anything made of completions is published.
        """
        with self._lock, self._translated():
            # Committing with FULL waits for the whole log, the commits of others included.
            self._db.execute("PRAGMA synchronous = FULL")
            try:
                with self._writing() as db:
                    db.execute("UPDATE synced SET times = times + 1")
            finally:
                self._db.execute("PRAGMA synchronous = NORMAL")
            self._last_sync = time.monotonic()

    def forget(self, keys: Iterable[bytes]) -> int:
        """Drop the completions and failures of these keys, so that they are bought again.

        Returns:
            How many completions were dropped.
        """
        dropped = 0
        for chunk in _chunks(keys):
            marks = ",".join("?" * len(chunk))
            with self._writing() as db:
                db.execute(
                    "DELETE FROM payload WHERE id IN"
                    f" (SELECT payload FROM completion WHERE key IN ({marks}))",
                    chunk,
                )
                dropped += db.execute(
                    f"DELETE FROM completion WHERE key IN ({marks})", chunk
                ).rowcount
                db.execute(f"DELETE FROM failure WHERE key IN ({marks})", chunk)
        return dropped

    def forget_failures(self, keys: Iterable[bytes]) -> None:
        """Drop the failures of these keys; completions stay."""
        for chunk in _chunks(keys):
            marks = ",".join("?" * len(chunk))
            with self._writing() as db:
                db.execute(f"DELETE FROM failure WHERE key IN ({marks})", chunk)

    # Claims: two processes that want the same completion shall not both buy it.

    def claim(self, key: bytes) -> Literal["ours", "bought", "busy"]:
        """Say that this key is about to be asked for.

        A claim ends with ``put``, ``release``, ``close`` or the end of the process, however it
        ends: a lock that the kernel holds tells whether the claimant is alive.

        Returns:
            ``ours`` when the caller should ask now, ``bought`` when the completion is already
            there, ``busy`` when another caller is asking.
        """
        with self._writing() as db:
            if db.execute("SELECT 1 FROM completion WHERE key = ?", (key,)).fetchone():
                return "bought"
            row = db.execute("SELECT buyer FROM claim WHERE key = ?", (key,)).fetchone()
            if row is not None and self._alive(row[0]):
                return "busy"
            db.execute("INSERT OR REPLACE INTO claim VALUES (?, ?)", (key, self._become_buyer()))
            return "ours"

    def release(self, keys: Iterable[bytes]) -> None:
        """Give up claims that were made through this ledger."""
        if self._buyer is None:
            return
        name, _ = self._buyer
        for chunk in _chunks(keys):
            marks = ",".join("?" * len(chunk))
            with self._writing() as db:
                db.execute(
                    f"DELETE FROM claim WHERE buyer = ? AND key IN ({marks})", [name, *chunk]
                )

    def _lock_path(self, buyer: str) -> Path:
        return self.path.with_name(f"{self.path.name}.buyer-{buyer}")

    def _become_buyer(self) -> str:
        if self._buyer is None:
            name = secrets.token_hex(8)
            lock = self._lock_path(name).open("xb")
            # A record lock, not flock: children made by fork would keep a flock alive.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _buyers_here.add(name)
            self._buyer = (name, lock)
        return self._buyer[0]

    def _alive(self, buyer: str) -> bool:
        if buyer in _buyers_here:
            return True
        path = self._lock_path(buyer)
        try:
            with path.open("r+b") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        path.unlink(missing_ok=True)
        return False

    # SQLite

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
        # NORMAL: a commit is safe from kill -9; the wait for the disk is left to sync().
        self._db.execute("PRAGMA synchronous = NORMAL")
        # 16 MB: a checkpoint waits for the disk, so not every 400 replies.
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        if self._schema_version() == SCHEMA_VERSION:
            return
        with self._writing() as db:
            version = self._schema_version()  # another process may have made it meanwhile
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _schema_version(self) -> int:
        """Return the file's schema version, 0 when it is empty."""
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and tables:
            raise StoreError(
                f"{self.path}: a database of another program; expected a ledger written by "
                "Stillroom. Name another path."
            )
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: schema version is {version}; expected {SCHEMA_VERSION} at most. "
                "Install the newer Stillroom that wrote it."
            )
        return int(version) if tables else 0

    def _model_number(self, name: str) -> int:
        row = self._db.execute("SELECT id FROM model WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return int(row[0])
        return int(self._db.execute("INSERT INTO model (name) VALUES (?)", (name,)).lastrowid or 0)

    def _look_up(
        self, query: str, keys: Iterable[bytes]
    ) -> Iterator[tuple[list[bytes], list[tuple[Any, ...]]]]:
        """Yield chunks of keys, each with the rows that the query finds for it."""
        for chunk in _chunks(keys):
            marks = ",".join("?" * len(chunk))
            with self._reading() as db:
                rows = db.execute(f"{query} WHERE key IN ({marks})", chunk).fetchall()
            yield chunk, rows

    def _encode(self, completion: Completion) -> bytes:
        fields = {k: v for k, v in asdict(completion).items() if v is not None}
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair, which a model can emit, has no UTF-8 form otherwise.
        with self._lock:  # zstandard objects serve one thread at a time
            return self._compress(text.encode("utf-8", "surrogatepass"))

    def _decode(self, body: bytes | None) -> Completion:
        if body is None:
            raise ValueError("its payload is gone")
        with self._lock:
            text = self._decompress(body).decode("utf-8", "surrogatepass")
        fields = {"reasoning": None, **json.loads(text)}
        return Completion(**fields)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if os.getpid() != self._pid:
            # SQLite's locks do not survive fork: carrying on would corrupt the file.
            raise RuntimeError("a ledger was used in a forked process; open it there anew")
        with self._lock, self._translated():
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has already rolled back
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, "{error}; expected a working ledger. Check file and disk.")
            advice = advice.format(error=error, busy_s=self._busy_s)
            raise StoreError(f"{self.path}: {advice}") from error


_TORN = (zstandard.ZstdError, ValueError, TypeError, MemoryError)


def _chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(keys)
    while chunk := list(islice(source, _KEYS_PER_QUERY)):
        yield chunk
