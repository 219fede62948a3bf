"""The ledger: every completion ever paid for, kept before it is used.

    ledger/
      <machine>.<n>.journal   the truth: records, only appended to, by one machine only
      <machine>.sqlite        that machine's index of all journals, and its claims

Each machine writes journals of its own and reads those of all others, so that a ledger may lie on
a network file system: nothing there needs a lock or memory shared between machines. An index is
made of the journals and can be deleted.

Covered: a process killed at any moment loses no completion that ``put`` returned for; a power cut
loses none that ``sync`` returned for, and at most the last second otherwise; threads and processes
of one machine share an index. A torn payload is found by its checksum and named, never used.

Not covered: claims reach as far as the machine, so two machines that want the same completion at
the same time both buy it; the earlier one then counts for everybody. Two machines of one name and
one ``/etc/machine-id`` would write the same journal: set ``STILLROOM_MACHINE`` on them.
"""

import errno
import fcntl
import math
import os
import re
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple, Self

import zstandard

from stillroom.errors import StoreError
from stillroom.models import journal
from stillroom.models.chat import Completion, Failure, Reply, Request
from stillroom.models.codec import (
    COMPACT_LEVEL,
    TORN,
    Codec,
    dictionary_in,
    dictionary_record,
    from_text,
    to_text,
)
from stillroom.models.elsewhere import read_elsewhere
from stillroom.models.journal import Gap, Record

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

_KEYS_PER_QUERY = 900  # below 999, the limit on variables of older SQLite builds
_SYNC_EVERY_S = 1.0
_FOLLOW_EVERY_S = 1.0
_INDEXED_TOGETHER = 20_000
_KEPT_TOGETHER = 256

_LESSONS = 512  # completions that a dictionary is trained on
_LESSON_BYTES = 8 << 20

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
        "damaged ({error}); expected a whole SQLite database. Delete it: it is only the index, "
        "and is made again of the journals."
    ),
    sqlite3.SQLITE_NOTADB: (
        "not an index of a ledger ({error}); expected a SQLite database written by Stillroom. "
        "Name another ledger, or delete the file: an index is made again of the journals."
    ),
    sqlite3.SQLITE_BUSY: (
        "locked by another process for {busy_s:g} s; expected a free moment sooner. Stop the "
        "process that holds it, and run again."
    ),
}
_ERRNO_ADVICE = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EROFS: sqlite3.SQLITE_READONLY,
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


class Counts(NamedTuple):
    """Tokens of one completion, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


class History(NamedTuple):
    """What the completions of one model took.

    Attributes:
        completions: How many were counted.
        prompt_tokens: In the mean.
        completion_tokens: In the mean.
        deviation: Standard deviation of the completion tokens.
    """

    completions: int
    prompt_tokens: float
    completion_tokens: float
    deviation: float


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """What a ledger holds.

    Attributes:
        total: Over all models.
        by_model: By frozen model name.
        finish_reasons: Completions by finish reason.
        failures: Requests whose last outcome is a failure, by reason.
        size_bytes: Of the journals and this machine's index on disk.
        journals: Bytes by journal.
    """

    total: Usage
    by_model: dict[str, Usage]
    finish_reasons: dict[str, int]
    failures: dict[str, int]
    size_bytes: int
    journals: dict[str, int]

    def __str__(self) -> str:
        tokens = self.total.prompt_tokens + self.total.completion_tokens
        return (
            f"{self.total.completions:,} completions, {tokens:,} tokens, "
            f"{sum(self.failures.values()):,} failures, {self.size_bytes / 1e6:,.1f} MB"
        )


class Torn(NamedTuple):
    """Something that can no longer be read.

    Attributes:
        key: Of the completion's request; None for bytes that belong to no record.
        problem: What is wrong with it.
    """

    key: bytes | None
    problem: str


class Compacted(NamedTuple):
    """What a compaction did.

    Attributes:
        completions: That this machine's journals hold now.
        before: Bytes of its journals before.
        after: Bytes of them after.
        torn: Completions that could not be read, and are gone.
    """

    completions: int
    before: int
    after: int
    torn: int


class Ledger:
    """Completions by the key of their request, in one folder.

    A completion never changes: the earliest one kept for a key stays. A failure is kept only to be
    reported; it is never served as an answer, and its request counts as missing.
    """

    def __init__(self, path: Path | str, *, busy_s: float = 60.0, machine: str | None = None):
        """Open a ledger, or begin one.

        Args:
            path: The folder; made if need be.
            busy_s: How long to wait for another process that is writing.
            machine: Name of this machine; see `machine_name`.

        Raises:
            StoreError: If the folder cannot be used, or its index is damaged, of a newer schema,
                or read-only.
        """
        self.path = Path(path)
        self.machine = machine or machine_name()
        self._busy_s = busy_s
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._buyer: tuple[str, IO[bytes]] | None = None
        self._last_sync = time.monotonic()
        self._last_follow = 0.0
        self._files: dict[str, int] = {}
        self._codec = Codec()
        self._puts = 0
        self._appending: tuple[int, int] | None = None  # file, and its size before this commit
        self._make_folder()
        index = self.path / f"{self.machine}.sqlite"
        self._index = index
        with self._translated(), ExitStack() as undo:
            self._db = sqlite3.connect(
                index, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
            undo.callback(self._db.close)
            self._prepare()
            self._recover()
            self.follow()
            undo.pop_all()

    def _make_folder(self) -> None:
        if self.path.is_file():
            raise StoreError(
                f"{self.path}: a file; expected a folder of journals. Name another place, or read "
                "the file's completions in with `stillroom ledger import`."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.path}: its folder cannot be made ({error.strerror}); expected a place "
                "that you may write to. Name another path."
            ) from error

    def close(self) -> None:
        """Give up claims and close the files; closing twice does nothing."""
        with self._lock:
            if self._buyer is not None:
                name, lock = self._buyer
                with suppress(StoreError), self._writing() as db:
                    db.execute("DELETE FROM claim WHERE buyer = ?", (name,))
                self._lock_path(name).unlink(missing_ok=True)
                lock.close()
                _buyers_here.discard(name)
                self._buyer = None
            with suppress(StoreError, sqlite3.ProgrammingError):  # closed before
                self.sync()
            self._db.close()
            self._close_files()

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
        for chunk in _chunks(keys):
            try:
                found.update(self._get_chunk(chunk))
            except OSError:
                self._close_files()  # that journal was compacted a moment ago
                self.follow()
                with self._translated():
                    found.update(self._get_chunk(chunk))
        return found

    def _get_chunk(self, chunk: list[bytes]) -> list[tuple[bytes, Completion]]:
        query = (
            "SELECT key, name, start, completion.size FROM completion"
            " JOIN journal ON journal.id = journal"
        )
        read: list[tuple[bytes, Completion]] = []
        for _, rows in self._look_up(query, chunk):
            for key, name, start, size in sorted(rows, key=lambda row: row[1:]):
                try:
                    read.append((key, self._read(key, name, start, size)))
                except TORN as error:
                    raise StoreError(
                        f"{self.path / name}: completion {key.hex()} is torn ({error}); expected "
                        "what was written. Restore the journal from a copy, or run `stillroom "
                        f"ledger forget {key.hex()}` and buy it again."
                    ) from error
        return read

    def failures(self, keys: Iterable[bytes]) -> dict[bytes, Failure]:
        """Return the failures of those keys that have one and no completion."""
        found: dict[bytes, Failure] = {}
        for _, rows in self._look_up("SELECT key, reason, message FROM failure", keys):
            found.update((key, Failure(reason, words)) for key, reason, words in rows if reason)
        return found

    def finish_reasons(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Return how the completions that are there ended, by key."""
        found: dict[bytes, str] = {}
        for _, rows in self._look_up("SELECT key, finish_reason FROM completion", keys):
            found.update(rows)
        return found

    def usage(self, keys: Iterable[bytes]) -> Usage:
        """Sum the tokens of the completions of these keys; a key given twice counts twice."""
        sums = [0, 0, 0, 0]
        for chunk in _chunks(keys):
            by_key = dict(self._counted(chunk))
            for counts in (by_key[key] for key in chunk if key in by_key):
                sums[0] += 1
                sums[1] += counts.prompt_tokens if counts else 0
                sums[2] += counts.completion_tokens if counts else 0
                sums[3] += counts is None
        return Usage(*sums)

    def counts(self, keys: Iterable[bytes]) -> dict[bytes, Counts]:
        """Return the tokens of the completions that are there and were counted, by key."""
        return {key: counts for key, counts in self._counted(keys) if counts is not None}

    def _counted(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Counts | None]]:
        query = "SELECT key, prompt_tokens, completion_tokens FROM completion"
        for _, rows in self._look_up(query, keys):
            for key, prompt, completion in rows:
                yield key, None if prompt is None else Counts(prompt, completion)

    def history(self, model: str) -> "History | None":
        """Return what a model's counted completions took, or None if there are none."""
        with self._reading() as db:
            n, prompt, completion, squares = db.execute(
                "SELECT count(completion_tokens), avg(prompt_tokens), avg(completion_tokens),"
                " avg(1.0 * completion_tokens * completion_tokens)"
                " FROM completion JOIN model ON id = model WHERE name = ?",
                (model,),
            ).fetchone()
        if not n:
            return None
        return History(n, prompt, completion, math.sqrt(max(0.0, squares - completion**2)))

    def stats(self) -> LedgerStats:
        """Count what the ledger holds."""
        self.follow()
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
                db.execute(
                    "SELECT reason, count(*) FROM failure WHERE reason <> '' GROUP BY 1 ORDER BY 1"
                ).fetchall()
            )
            journals = dict(db.execute("SELECT name, size FROM journal ORDER BY name").fetchall())
        sums = [sum(column) for column in zip((0, 0, 0, 0), *by_model.values(), strict=True)]
        beside = [self._index, self._index.with_name(self._index.name + "-wal")]
        size = sum(journals.values()) + sum(f.stat().st_size for f in beside if f.exists())
        return LedgerStats(Usage(*sums), by_model, finish_reasons, failures, size, journals)

    def verify(self) -> Iterator[Torn]:
        """Read every byte of every journal, and yield what is torn.

        Raises:
            StoreError: If the index itself is damaged.
        """
        self.follow()
        with self._reading() as db:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            journals = db.execute("SELECT id, name, size FROM journal ORDER BY name").fetchall()
        if verdict != "ok":
            raise StoreError(
                f"{self._index}: " + _ADVICE[sqlite3.SQLITE_CORRUPT].format(error=verdict)
            )
        for number, name, size in journals:
            yield from self._verify_journal(number, name, size)

    def _verify_journal(self, number: int, name: str, size: int) -> Iterator[Torn]:
        for record in journal.scan(self._file(name), 0, size):
            if isinstance(record, Gap):
                yield Torn(None, f"{name}: bytes {record.start:,} to {record.end:,} are no record")
        whole = 0
        for record, _ in self._counting([(number, name, size)]):
            whole += 1
            try:
                completion = self._read(record.key, name, record.start, record.size)
            except TORN as error:
                yield Torn(record.key, str(error))
                continue
            counts = record.facts[2:]
            if counts != [None, None] and counts != [
                completion.prompt_tokens,
                completion.completion_tokens,
            ]:
                yield Torn(record.key, "token counts of header and payload differ")
        with self._reading() as db:
            rows = db.execute(
                "SELECT start, key FROM completion WHERE journal = ?", (number,)
            ).fetchall()
        if len(rows) > whole:
            for start, key in rows:
                found = journal.unpack(os.pread(self._file(name), journal.HEAD, start))
                if found is None or found.key != key:
                    yield Torn(key, "its record is gone")

    def completions(self) -> Iterator[tuple[bytes, str, int, Completion]]:
        """Yield key, model, time in nanoseconds and completion of all, journal by journal.

        Raises:
            StoreError: If one of them is torn; the message names it.
        """
        self.follow()
        with self._reading() as db:
            journals = self._known(db)
        for record, _ in self._counting(journals):
            [completion] = self.get_many([record.key]).values()
            yield record.key, record.facts[0], record.at_ns, completion

    def _counting(self, journals: list[tuple[int, str, int]]) -> Iterator[tuple[Record, str]]:
        """Yield the records of completions that count, and the journal of each."""
        for number, name, size in journals:
            records = (
                record
                for record in journal.scan(self._file(name), 0, size)
                if isinstance(record, Record) and record.kind == journal.COMPLETION
            )
            while batch := list(islice(records, _KEYS_PER_QUERY)):
                marks = ",".join("?" * len(batch))
                with self._reading() as db:
                    places = dict(
                        db.execute(
                            "SELECT key, start FROM completion"
                            f" WHERE journal = ? AND key IN ({marks})",
                            [number, *(record.key for record in batch)],
                        )
                    )
                yield from ((r, name) for r in batch if places.get(r.key) == r.start)

    # Writing

    def put(self, request: Request, reply: Reply) -> bool:
        """Keep a reply; it is committed when this returns.

        Committed means safe from a killed process. Safe from a power cut is what ``sync``
        returned for, which happens here about once a second.

        Returns:
            Whether the ledger has changed; False when it already holds a completion of this key.
        """
        return self.put_many([(request, reply)]) == 1

    def put_many(self, replies: Sequence[tuple[Request, Reply]]) -> int:
        """Keep replies in one commit, as `put` does.

        Returns:
            How many were new.
        """
        return self._keep([(r.key, r.model, time.time_ns(), reply) for r, reply in replies])

    def _keep(self, entries: Sequence[tuple[bytes, str, int, Reply]]) -> int:
        """Append what is new to this machine's journal, and index it."""
        bodies = [
            b"" if isinstance(reply, Failure) else self._encode(reply) for *_, reply in entries
        ]
        with self._writing() as db:
            keys = [entry[0] for entry in entries]
            db.executemany("DELETE FROM claim WHERE key = ?", [(key,) for key in keys])
            there = {
                key
                for key in keys
                if db.execute("SELECT 1 FROM completion WHERE key = ?", (key,)).fetchone()
            }
            records: list[tuple[int, bytes, int, list[Any], bytes]] = []
            for (key, model, at, reply), body in zip(entries, bodies, strict=True):
                if key in there:
                    continue
                if isinstance(reply, Failure):
                    words = reply.message.encode("utf-8", "replace").decode()
                    records.append((journal.FAILURE, key, at, [model, reply.reason, words], b""))
                    continue
                there.add(key)
                at = max(at, self._forgotten_at(db, key) + 1)
                counted = reply.counted
                tokens = [reply.prompt_tokens, reply.completion_tokens] if counted else [None, None]
                facts = [model, reply.finish_reason, *tokens]
                records.append((journal.COMPLETION, key, at, facts, body))
            self._append(db, records)
        self._puts += sum(record[0] == journal.COMPLETION for record in records)
        if self._puts >= _LESSONS and not self._codec.settled:
            self._codec.learn(self._lessons(self._ours()))
        if time.monotonic() - self._last_sync > _SYNC_EVERY_S:
            self.sync()
        return len(records)

    def _forgotten_at(self, db: sqlite3.Connection, key: bytes) -> int:
        row = db.execute("SELECT at FROM forgotten WHERE key = ?", (key,)).fetchone()
        return -1 if row is None else int(row[0])

    def sync(self) -> None:
        """Make everything committed so far safe from a power cut too.

        One wait for the disk serves all commits before it, those of other processes included, so
        that it need not be paid per reply. Call it before anything made of completions is
        published.
        """
        with self._lock, self._translated():
            rows = self._db.execute(
                "SELECT id, name, size FROM journal WHERE synced < size"
            ).fetchall()
            ours = [row for row in rows if self._is_ours(row[1])]
            for _, name, _ in ours:
                with suppress(FileNotFoundError):
                    os.fsync(self._file(name, write=True))
            if ours:
                _sync_folder(self.path)
                with self._writing() as db:
                    db.executemany(
                        "UPDATE journal SET synced = max(synced, ?) WHERE id = ?",
                        [(size, number) for number, _, size in ours],
                    )
            self._last_sync = time.monotonic()

    def forget(self, keys: Iterable[bytes]) -> int:
        """Drop the completions and failures of these keys, so that they are bought again.

        Their bytes stay in the journals until `compact`.

        Returns:
            How many completions were dropped.
        """
        dropped = 0
        for chunk in _chunks(keys):
            absent = self.missing(chunk)
            dropped += len({*chunk} - absent)
            at = time.time_ns()
            with self._writing() as db:
                self._append(db, [(journal.FORGOTTEN, key, at, [], b"") for key in chunk])
        return dropped

    def forget_failures(self, keys: Iterable[bytes]) -> None:
        """Drop the failures of these keys; completions stay."""
        for chunk in _chunks(keys):
            at = time.time_ns()
            failed = self.failures(chunk)
            with self._writing() as db:
                self._append(db, [(journal.FAILURE, key, at, ["", "", ""], b"") for key in failed])

    # Moving

    def export(self, file: Path) -> int:
        """Write every completion into one file, which `take_in` reads anywhere.

        Returns:
            How many were written.

        Raises:
            StoreError: If the file is there already, or cannot be written.
        """
        if file.exists():
            raise StoreError(f"{file}: is there already; expected a new file. Name another.")
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        with self._translated(partial):
            codec = Codec()
            codec.learn(self._lessons([number for number, _, _ in self._known(self._db)]))
            try:
                done = self._write_journal(partial, codec, self.completions())
                partial.rename(file)
                _sync_folder(file.parent)
            finally:
                partial.unlink(missing_ok=True)
        return done

    def take_in(self, other: Path) -> tuple[int, int]:
        """Take over the completions that are kept elsewhere.

        Args:
            other: Folder of another ledger, a file that `export` wrote, or a ledger of the first
                form, which was one SQLite file.

        Returns:
            Completions read, and how many of them were new here.

        Raises:
            StoreError: If there is nothing to read, or a completion is torn; those before it are
                kept.
        """
        if not other.exists():
            raise StoreError(f"{other}: no such file; expected an exported ledger. Name another.")
        if other.is_dir() and not any(other.glob("*.journal")):
            raise StoreError(f"{other}: holds no journals; expected a ledger. Name another folder.")
        read = new = 0
        source = read_elsewhere(other)
        while batch := list(islice(source, _KEPT_TOGETHER)):
            read += len(batch)
            new += self._keep(batch)
        self.sync()
        return read, new

    def compact(self) -> Compacted:
        """Write this machine's journals anew, into one: without what was forgotten, and smaller.

        A dictionary is trained on what they hold. Other processes may go on reading and writing;
        other machines notice and read the new journal.
        """
        with self._lock, self._translated():
            self._recover()
            with self._writing() as db:
                old = [row for row in self._known(db) if self._is_ours(row[1])]
                after = max((self._number(name) for _, name, _ in old), default=0)
                # From here on everybody appends to a journal that is not touched.
                self._begin(db, f"{self.machine}.{after + 2}.journal")
            texts = self._lessons([number for number, _, _ in old])
            codec = Codec(COMPACT_LEVEL)
            codec.learn(texts)
            target = self.path / f"{self.machine}.{after + 1}.journal"
            partial = target.with_name(target.name + ".partial")
            torn: list[bytes] = []
            try:
                self._write_journal(partial, codec, self._whole(old, torn))
                self._swap(old, partial, target)
                if torn:
                    self._make_index()  # another machine may hold what is torn here
            finally:
                partial.unlink(missing_ok=True)
            self._codec = Codec()
            self._puts = 0
            with self._reading() as db:
                (kept,) = db.execute(
                    "SELECT count(*) FROM completion JOIN journal j ON j.id = journal"
                    " WHERE j.name = ?", (target.name,)
                ).fetchone()  # fmt: skip
            before = sum(size for _, _, size in old)
            return Compacted(kept, before, target.stat().st_size, len(torn))

    def _whole(
        self, journals: list[tuple[int, str, int]], torn: list[bytes]
    ) -> Iterator[tuple[bytes, str, int, Reply]]:
        """Yield all failures, and the completions of journals; name those that are torn."""
        for record, name in self._counting(journals):
            try:
                completion = self._read(record.key, name, record.start, record.size)
            except TORN:
                torn.append(record.key)
                continue
            yield record.key, record.facts[0], record.at_ns, completion
        with self._reading() as db:
            failures = db.execute(
                "SELECT key, name, at, reason, message FROM failure JOIN model ON id = model"
                " WHERE reason <> ''"
            ).fetchall()
        for key, model, at, reason, message in failures:
            yield key, model, at, Failure(reason, message)

    def _swap(self, old: list[tuple[int, str, int]], partial: Path, target: Path) -> None:
        """Put a new journal in the place of old ones, in the folder and in the index."""
        with self._writing() as db:
            # What was forgotten elsewhere stays forgotten: other journals may hold it still.
            with partial.open("ab") as file:
                for key, at in db.execute("SELECT key, at FROM forgotten").fetchall():
                    file.write(journal.pack(journal.FORGOTTEN, key, at, [], b""))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
            _sync_folder(self.path)
            for number, _, _ in old:
                db.execute("DELETE FROM completion WHERE journal = ?", (number,))
                db.execute("DELETE FROM dictionary WHERE journal = ?", (number,))
                db.execute("DELETE FROM journal WHERE id = ?", (number,))
            self._begin(db, target.name)
            self._index_new(db, target.name, target.stat().st_size)
            db.execute("UPDATE journal SET synced = size WHERE name = ?", (target.name,))
            for _, name, _ in old:
                self._forget_file(name)
                (self.path / name).unlink(missing_ok=True)

    def _lessons(self, journals: list[int]) -> list[bytes]:
        """Return texts of journals to train a dictionary on."""
        marks = ",".join("?" * len(journals))
        with self._reading() as db:
            rows = db.execute(
                "SELECT key, name, start, completion.size FROM completion"
                f" JOIN journal ON journal.id = journal WHERE journal IN ({marks})"
                " ORDER BY key LIMIT ?",  # keys are hashes: these are as good as drawn by chance
                (*journals, 4 * _LESSONS),
            ).fetchall()
        texts: list[bytes] = []
        room = _LESSON_BYTES
        for key, name, start, size in rows:
            with suppress(*TORN):
                texts.append(to_text(self._read(key, name, start, size)))
                room -= len(texts[-1])
            if room < 0:
                break
        return texts

    def _write_journal(
        self, path: Path, codec: Codec, entries: Iterable[tuple[bytes, str, int, Reply]]
    ) -> int:
        """Write a journal that is not in use yet; return its completions."""
        done = 0
        with path.open("wb") as file:
            if codec.dictionary is not None:
                file.write(dictionary_record(codec.dictionary))
            for key, model, at, reply in entries:
                if isinstance(reply, Failure):
                    facts = [model, reply.reason, reply.message]
                    file.write(journal.pack(journal.FAILURE, key, at, facts, b""))
                    continue
                counted = reply.counted
                tokens = [reply.prompt_tokens, reply.completion_tokens] if counted else [None, None]
                facts = [model, reply.finish_reason, *tokens]
                body = codec.compress(to_text(reply))
                file.write(journal.pack(journal.COMPLETION, key, at, facts, body))
                done += 1
            file.flush()
            os.fsync(file.fileno())
        return done

    # Claims: two processes that want the same completion shall not both buy it.

    def claim(self, key: bytes) -> Literal["ours", "bought", "busy"]:
        """Say that this key is about to be asked for.

        A claim ends with ``put``, ``release``, ``close`` or the end of the process, however it
        ends: a lock that the kernel holds tells whether the claimant is alive. Claims hold among
        the processes of this machine.

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

    def claim_all(self, keys: Iterable[bytes]) -> list[bytes]:
        """Claim keys of what is kept elsewhere; return those that no other caller has.

        See `claim`; an end of the claims is told by ``release``.
        """
        ours: list[bytes] = []
        for chunk in _chunks(keys):
            with self._writing() as db:
                for key in chunk:
                    row = db.execute("SELECT buyer FROM claim WHERE key = ?", (key,)).fetchone()
                    if row is not None and self._alive(row[0]):
                        continue
                    db.execute(
                        "INSERT OR REPLACE INTO claim VALUES (?, ?)", (key, self._become_buyer())
                    )
                    ours.append(key)
        return ours

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
        return self.path / f"{self.machine}.buyer-{buyer}"

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

    # Journals

    def follow(self) -> None:
        """Index what other machines have written since."""
        with self._lock, self._translated():
            self._last_follow = time.monotonic()
            if not any(self._news(self._db)):
                return
            with self._writing() as db:
                gone, grown = self._news(db)  # another process may have done it meanwhile
                if gone:
                    # A machine compacted: what it wrote anew may be what others hold too.
                    self._index_all(db)
                    return
                for name, size in grown.items():
                    self._begin(db, name)
                    self._index_new(db, name, size)

    def _news(self, db: sqlite3.Connection) -> tuple[set[str], dict[str, int]]:
        """Name the journals that are gone, and those of other machines that changed."""
        known = {name: size for _, name, size in self._known(db)}
        there = self._journals_there()
        changed = {
            name: size
            for name, size in sorted(there.items())
            if size != known.get(name, 0) and not self._is_ours(name)
        }
        return known.keys() - there.keys(), changed

    def _make_index(self) -> None:
        with self._writing() as db:
            self._index_all(db)

    def _index_all(self, db: sqlite3.Connection) -> None:
        for table in ("journal", "completion", "failure", "forgotten", "dictionary"):
            db.execute(f"DELETE FROM {table}")
        self._close_files()
        for name, size in sorted(self._journals_there().items()):
            self._begin(db, name)
            self._index_new(db, name, size)

    def _recover(self) -> None:
        """Index what a killed process appended, and cut off what it did not finish."""
        if not self._unfinished(self._db):
            return  # nothing is written, so that a ledger on a full disk can be read
        with self._writing() as db:
            for name, (start, size) in self._unfinished(db).items():
                self._begin(db, name)
                (number,) = db.execute("SELECT id FROM journal WHERE name = ?", (name,)).fetchone()
                if start is not None:
                    self._unindex(db, number, start)
                    self._cut(name, start)
                self._mend(db, name, size if start is None else start)

    def _unfinished(self, db: sqlite3.Connection) -> dict[str, tuple[int | None, int]]:
        """Return this machine's journals that index and file disagree on.

        For each, where the first torn record begins among those that the disk was not waited for
        (None if all are whole), and the size of the file.
        """
        known = {
            name: (indexed, synced)
            for name, indexed, synced in db.execute("SELECT name, size, synced FROM journal")
        }
        found: dict[str, tuple[int | None, int]] = {}
        for name, size in self._journals_there().items():
            if self._is_ours(name):
                indexed, synced = known.get(name, (0, 0))
                torn = self._first_torn(name, synced, indexed)
                if torn is not None or indexed != size:
                    found[name] = torn, size
        return found

    def _first_torn(self, name: str, start: int, end: int) -> int | None:
        for record in journal.scan(self._file(name), start, end):
            if isinstance(record, Gap):
                return record.start
            if record.kind == journal.COMPLETION:
                try:
                    self._read(record.key, name, record.start, record.size)
                except TORN:
                    return record.start
        return None

    def _unindex(self, db: sqlite3.Connection, number: int, start: int) -> None:
        """Forget what a journal held from here on."""
        for table in ("completion", "dictionary"):
            db.execute(f"DELETE FROM {table} WHERE journal = ? AND start >= ?", (number, start))
        db.execute("UPDATE journal SET size = ? WHERE id = ?", (start, number))

    def _mend(self, db: sqlite3.Connection, name: str, size: int) -> None:
        end = self._index_new(db, name, size)
        if end < size:
            self._cut(name, end)

    def _cut(self, name: str, size: int) -> None:
        os.ftruncate(self._file(name, write=True), size)

    def _journals_there(self) -> dict[str, int]:
        """Return the size of every journal in the folder."""
        sizes = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.endswith(".journal"):
                    with suppress(FileNotFoundError):
                        sizes[entry.name] = entry.stat().st_size
        return sizes

    def _known(self, db: sqlite3.Connection) -> list[tuple[int, str, int]]:
        return db.execute("SELECT id, name, size FROM journal").fetchall()

    def _is_ours(self, name: str) -> bool:
        return re.fullmatch(re.escape(self.machine) + r"\.\d+\.journal", name) is not None

    @staticmethod
    def _number(name: str) -> int:
        return int(name.split(".")[-2])

    def _begin(self, db: sqlite3.Connection, name: str) -> None:
        db.execute("INSERT OR IGNORE INTO journal (name, size, synced) VALUES (?, 0, 0)", (name,))

    def _append(
        self, db: sqlite3.Connection, records: list[tuple[int, bytes, int, list[Any], bytes]]
    ) -> None:
        """Write records to the end of this machine's journal, and index them; all or nothing."""
        if not records:
            return
        ours = [name for _, name, _ in self._known(db) if self._is_ours(name)]
        name = max(ours, key=self._number, default=f"{self.machine}.1.journal")
        self._begin(db, name)
        file = self._file(name, write=True)
        end = os.fstat(file).st_size
        (indexed,) = db.execute("SELECT size FROM journal WHERE name = ?", (name,)).fetchone()
        if end != indexed:
            self._mend(db, name, end)
            end = os.fstat(file).st_size
        data = b"".join([*self._codec.news(name), *(journal.pack(*record) for record in records)])
        self._appending = file, end
        while data:
            data = data[os.write(file, data) :]
        self._index_new(db, name, os.fstat(file).st_size)
        self._codec.told(name)

    def _index_new(self, db: sqlite3.Connection, name: str, end: int) -> int:
        """Index a journal's records from where the index ends; return where the last one ends."""
        row = db.execute("SELECT id, size FROM journal WHERE name = ?", (name,)).fetchone()
        number, done = int(row[0]), int(row[1])
        if done > end:  # its writer cut off what it had not finished
            self._unindex(db, number, end)
            return end
        records: list[Record] = []
        for record in journal.scan(self._file(name), done, end):
            if isinstance(record, Gap):
                if record.end == end:
                    break  # being written, or torn
                continue
            records.append(record)
            done = record.end
            if len(records) == _INDEXED_TOGETHER:
                self._index_records(db, number, records)
                records = []
        self._index_records(db, number, records)
        db.execute("UPDATE journal SET size = ? WHERE id = ?", (done, number))
        return done

    def _index_records(self, db: sqlite3.Connection, number: int, records: list[Record]) -> None:
        """Let each key's earliest completion count, its last failure, and what was forgotten."""
        models: dict[str, int] = {}

        def model(name: str) -> int:
            if name not in models:
                models[name] = self._model_number(db, name)
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
            _index_completions(db, rows)
            rows = []
            if record.kind == journal.FAILURE:
                name, reason, words = record.facts
                db.execute(
                    "INSERT INTO failure SELECT ?1, ?2, ?3, ?4, ?5 WHERE"
                    " NOT EXISTS (SELECT 1 FROM completion WHERE key = ?1) AND"
                    " NOT EXISTS (SELECT 1 FROM forgotten WHERE key = ?1 AND at >= ?2)"
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
        _index_completions(db, rows)

    def _file(self, name: str, *, write: bool = False) -> int:
        """Return the descriptor of a journal; ours are opened for writing."""
        if name not in self._files:
            path = self.path / name
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT if write else os.O_RDONLY
            if not write and self._is_ours(name):
                flags = os.O_RDWR | os.O_APPEND
            self._files[name] = os.open(path, flags | os.O_CLOEXEC, 0o644)
        return self._files[name]

    def _forget_file(self, name: str) -> None:
        if name in self._files:
            os.close(self._files.pop(name))

    def _close_files(self) -> None:
        for name in list(self._files):
            self._forget_file(name)

    # Bodies

    def _encode(self, completion: Completion) -> bytes:
        with self._lock:  # zstandard objects serve one thread at a time
            if self._codec.fresh:
                self._codec.fresh = False
                self._adopt()
            return self._codec.compress(to_text(completion))

    def _read(self, key: bytes, name: str, start: int, size: int) -> Completion:
        """Read a completion.

        Raises:
            One of ``TORN``: If it is not what was written.
        """
        with self._lock:
            data = os.pread(self._file(name), size, start)
            record = journal.unpack(data)
            if record is None or len(data) != size or record.key != key:
                raise ValueError("its record is damaged")
            body = data[size - record.body_size :]
            number = zstandard.get_frame_parameters(body).dict_id
            if not self._codec.knows(name, number):
                self._codec.meet(name, number, self._dictionary(name, number))
            return from_text(self._codec.decompress(name, number, body))

    def _dictionary(self, name: str, number: int) -> bytes:
        row = self._db.execute(
            "SELECT start, d.size FROM dictionary d JOIN journal j ON j.id = journal"
            " WHERE name = ? AND d.id = ?",
            (name, number),
        ).fetchone()
        if row is None:
            raise ValueError(f"its dictionary {number} is gone")
        data = os.pread(self._file(name), row[1], row[0])
        return dictionary_in(data)

    def _adopt(self) -> None:
        """Take the newest dictionary of this machine, if it has one."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, d.id FROM dictionary d JOIN journal j ON j.id = journal"
            ).fetchall()
            ours = [row for row in rows if self._is_ours(row[0])]
            if ours:
                name, number = max(ours, key=lambda row: self._number(row[0]))
                with suppress(*TORN):
                    self._codec.take(self._dictionary(name, number), name)

    def _ours(self) -> list[int]:
        with self._reading() as db:
            return [number for number, name, _ in self._known(db) if self._is_ours(name)]

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
        # Never waits for the disk: the journals are the truth, and what they lack is dropped.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        if self._schema_version() == SCHEMA_VERSION:
            return
        with self._writing() as db:
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
                f"{self._index}: a database of another program; expected an index written by "
                "Stillroom. Name another path."
            )
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._index}: schema version is {version}; expected {SCHEMA_VERSION} at most. "
                "Install the newer Stillroom that wrote it."
            )
        return int(version) if tables else 0

    def _model_number(self, db: sqlite3.Connection, name: str) -> int:
        row = db.execute("SELECT id FROM model WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return int(row[0])
        return int(db.execute("INSERT INTO model (name) VALUES (?)", (name,)).lastrowid or 0)

    def _look_up(
        self, query: str, keys: Iterable[bytes]
    ) -> Iterator[tuple[list[bytes], list[tuple[Any, ...]]]]:
        """Yield chunks of keys, each with the rows that the query finds for it."""
        for chunk in _chunks(keys):
            if time.monotonic() - self._last_follow > _FOLLOW_EVERY_S:
                self.follow()
            marks = ",".join("?" * len(chunk))
            with self._reading() as db:
                rows = db.execute(f"{query} WHERE key IN ({marks})", chunk).fetchall()
            yield chunk, rows

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
                self._appending = None
            except BaseException:
                if self._appending is not None:
                    with suppress(OSError):  # else whoever opens the ledger next sees to it
                        os.ftruncate(*self._appending)
                    self._appending = None
                with suppress(sqlite3.Error):  # a full disk has already rolled back
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self, place: Path | None = None) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            raise StoreError(f"{place or self._index}: {self._advice(code, error)}") from error
        except FileNotFoundError:
            raise
        except OSError as error:
            code = _ERRNO_ADVICE.get(error.errno or 0, sqlite3.SQLITE_IOERR)
            words = error.strerror or str(error)
            raise StoreError(f"{place or self.path}: {self._advice(code, words)}") from error

    def _advice(self, code: int, error: object) -> str:
        advice = _ADVICE.get(code, "{error}; expected a working ledger. Check file and disk.")
        return advice.format(error=error, busy_s=self._busy_s)


def machine_name() -> str:
    """Name this machine: ``$STILLROOM_MACHINE``, or its host name and a hash of its machine id."""
    if named := os.environ.get("STILLROOM_MACHINE"):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named):
            raise StoreError(
                f"STILLROOM_MACHINE is {named!r}; expected up to 64 letters, digits, - and _. "
                "Set it again."
            )
        return named
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40] or "machine"
    try:
        number = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        number = b""
    return f"{host}-{blake2b(number, digest_size=3).hexdigest()}" if number else host


def _index_completions(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
    if not rows:
        return
    rows.sort()  # by key: the index is a tree of keys
    db.executemany(
        "INSERT INTO completion SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9"
        " WHERE NOT EXISTS (SELECT 1 FROM forgotten WHERE key = ?1 AND at >= ?2)"
        " ON CONFLICT DO UPDATE SET at = excluded.at, journal = excluded.journal,"
        " start = excluded.start, size = excluded.size, model = excluded.model,"
        " finish_reason = excluded.finish_reason, prompt_tokens = excluded.prompt_tokens,"
        " completion_tokens = excluded.completion_tokens WHERE excluded.at < at",
        rows,
    )
    db.executemany("DELETE FROM failure WHERE key = ?", [row[:1] for row in rows])


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _chunks(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(keys)
    while chunk := list(islice(source, _KEYS_PER_QUERY)):
        yield chunk
