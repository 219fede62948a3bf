"""The folder of a ledger: its journals, and an index that agrees with them.

Whatever happens to the folder is put right here: what this machine appends, what others wrote
meanwhile, what a killed process left half done, and what a compaction took away.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from stillroom.models.ledger import journal
from stillroom.models.ledger.bodies import Bodies
from stillroom.models.ledger.codec import TORN, Entry
from stillroom.models.ledger.files import Files, sync_folder
from stillroom.models.ledger.index import KEYS_PER_QUERY, Index, chunks
from stillroom.models.ledger.journal import Gap, Record

FOLLOW_EVERY_S = 1.0
SYNC_EVERY_S = 1.0

_INDEXED_TOGETHER = 20_000


class Folder:
    """Journals and index of one folder, in agreement.

    Attributes:
        index: Where completions lie.
        files: The journals.
        bodies: What lies there.
    """

    def __init__(self, index: Index, files: Files) -> None:
        """Index what is new, and cut off what a killed process of this machine left half done."""
        self.index = index
        self.files = files
        self.bodies = Bodies(index, files)
        self._last_sync = time.monotonic()
        self._last_follow = 0.0
        self.recover()
        self.follow()

    # Reading

    def look_up(
        self, query: str, keys: Iterable[bytes]
    ) -> Iterator[tuple[list[bytes], list[tuple[Any, ...]]]]:
        """Yield chunks of keys, each with the rows that the query finds for it."""
        for chunk in chunks(keys):
            if time.monotonic() - self._last_follow > FOLLOW_EVERY_S:
                self.follow()
            yield chunk, self.index.find(query, chunk)

    def counting(self, journals: list[tuple[int, str, int]]) -> Iterator[tuple[Record, str]]:
        """Yield the records of completions that count, and the journal of each."""
        for number, name, size in journals:
            records = (
                record
                for record in journal.scan(self.files.get(name), 0, size)
                if isinstance(record, Record) and record.kind == journal.COMPLETION
            )
            while batch := list(islice(records, KEYS_PER_QUERY)):
                marks = ",".join("?" * len(batch))
                with self.index.reading() as db:
                    places = dict(
                        db.execute(
                            "SELECT key, start FROM completion"
                            f" WHERE journal = ? AND key IN ({marks})",
                            [number, *(record.key for record in batch)],
                        )
                    )
                yield from ((r, name) for r in batch if places.get(r.key) == r.start)

    # Writing

    def append(self, db: sqlite3.Connection, entries: list[Entry]) -> None:
        """Write entries to the end of this machine's journal, and index them.

        Called within the index's ``writing``; if that fails, the entries are cut off.
        """
        if not entries:
            return
        ours = [name for _, name, _ in self.index.known() if self.files.is_ours(name)]
        name = max(ours, key=self.files.number, default=self.files.name(1))
        self.index.begin(name)
        file = self.files.get(name, write=True)
        end = os.fstat(file).st_size
        number, indexed = db.execute(
            "SELECT id, size FROM journal WHERE name = ?", (name,)
        ).fetchone()
        if end != indexed:
            self._mend(db, name, end)
            end = os.fstat(file).st_size
        codec = self.bodies.codec
        pieces, records, start = [], [], end
        for entry in [*codec.news(name), *entries]:
            kind, key, at_ns, facts, body = entry
            piece = journal.pack(kind, key, at_ns, facts, body)
            pieces.append(piece)
            records.append(Record(kind, key, at_ns, facts, start, len(piece), len(body)))
            start += len(piece)
        data = b"".join(pieces)

        def cut_off() -> None:
            with suppress(OSError):  # else whoever opens the ledger next sees to it
                os.ftruncate(file, end)

        self.index.undo = cut_off
        while data:
            data = data[os.write(file, data) :]
        self.index.add(number, records)
        db.execute("UPDATE journal SET size = ? WHERE id = ?", (start, number))
        codec.told(name)

    def sync_now_and_then(self) -> None:
        """Wait for the disk about once a second, as `sync` does."""
        if time.monotonic() - self._last_sync > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Make everything committed so far safe from a power cut too."""
        with self._translated():
            rows = self.index.unsynced()
            ours = [row for row in rows if self.files.is_ours(row[1])]
            for _, name, _ in ours:
                with suppress(FileNotFoundError):
                    os.fsync(self.files.get(name, write=True))
            if ours:
                sync_folder(self.files.folder)
                with self.index.writing() as db:
                    db.executemany(
                        "UPDATE journal SET synced = max(synced, ?) WHERE id = ?",
                        [(size, number) for number, _, size in ours],
                    )
            self._last_sync = time.monotonic()

    # What others wrote

    def follow(self) -> None:
        """Index what other machines have written since."""
        with self._translated():
            self._last_follow = time.monotonic()
            if not any(self._news()):
                return
            with self.index.writing() as db:
                gone, grown = self._news()  # another process may have done it meanwhile
                if gone:
                    # A machine compacted: what it wrote anew may be what others hold too.
                    self.index_all(db)
                    return
                for name, size in grown.items():
                    self.index.begin(name)
                    self.index_new(db, name, size)

    def _news(self) -> tuple[set[str], dict[str, int]]:
        """Name the journals that are gone, and those of other machines that changed."""
        known = {name: size for _, name, size in self.index.known()}
        there = self.files.sizes()
        changed = {
            name: size
            for name, size in sorted(there.items())
            if size != known.get(name, 0) and not self.files.is_ours(name)
        }
        return known.keys() - there.keys(), changed

    def index_all(self, db: sqlite3.Connection) -> None:
        """Make the index again of all journals."""
        self.index.clear()
        self.files.close()
        for name, size in sorted(self.files.sizes().items()):
            self.index.begin(name)
            self.index_new(db, name, size)

    def index_new(self, db: sqlite3.Connection, name: str, end: int) -> int:
        """Index a journal's records from where the index ends; return where the last one ends."""
        row = db.execute("SELECT id, size FROM journal WHERE name = ?", (name,)).fetchone()
        number, done = int(row[0]), int(row[1])
        if done > end:  # its writer cut off what it had not finished
            self.index.cut(number, end)
            return end
        records: list[Record] = []
        for record in journal.scan(self.files.get(name), done, end):
            if isinstance(record, Gap):
                if record.end == end:
                    break  # being written, or torn
                continue
            records.append(record)
            done = record.end
            if len(records) == _INDEXED_TOGETHER:
                self.index.add(number, records)
                records = []
        self.index.add(number, records)
        db.execute("UPDATE journal SET size = ? WHERE id = ?", (done, number))
        return done

    # What a killed process left

    def recover(self) -> None:
        """Index what a killed process appended, and cut off what it did not finish."""
        with self._translated():
            with self.index.reading() as db:
                if not self._unfinished(db):
                    return  # nothing is written, so that a ledger on a full disk can be read
            with self.index.writing() as db:
                for name, (start, size) in self._unfinished(db).items():
                    self.index.begin(name)
                    (number,) = db.execute(
                        "SELECT id FROM journal WHERE name = ?", (name,)
                    ).fetchone()
                    if start is not None:
                        self.index.cut(number, start)
                        self.files.cut(name, start)
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
        for name, size in self.files.sizes().items():
            if self.files.is_ours(name):
                indexed, synced = known.get(name, (0, 0))
                torn = self._first_torn(name, synced, indexed)
                if torn is not None or indexed != size:
                    found[name] = torn, size
        return found

    def _first_torn(self, name: str, start: int, end: int) -> int | None:
        for record in journal.scan(self.files.get(name), start, end):
            if isinstance(record, Gap):
                return record.start
            if record.kind == journal.COMPLETION:
                try:
                    self.bodies.read(record.key, name, record.start, record.size)
                except TORN:
                    return record.start
        return None

    def _mend(self, db: sqlite3.Connection, name: str, size: int) -> None:
        end = self.index_new(db, name, size)
        if end < size:
            self.files.cut(name, end)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with self.index.lock, self.index.translated():
            yield
