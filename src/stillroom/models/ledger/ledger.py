"""The door of the ledger."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from stillroom.errors import StoreError
from stillroom.models.chat import Completion, Failure, Reply, Request
from stillroom.models.ledger import accounts, compaction, journal, moving, verification
from stillroom.models.ledger.accounts import Counts, History, LedgerStats, Usage
from stillroom.models.ledger.claims import Claims
from stillroom.models.ledger.codec import TORN, Entry, entry
from stillroom.models.ledger.compaction import Compacted
from stillroom.models.ledger.files import Files, machine_name
from stillroom.models.ledger.folder import Folder
from stillroom.models.ledger.index import Index, chunks
from stillroom.models.ledger.verification import Torn

_KEPT_TOGETHER = 256


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
        self._files = Files(self.path, self.machine)
        self._files.make_folder()
        with ExitStack() as undo:
            self._index = Index(self.path / f"{self.machine}.sqlite", busy_s)
            undo.callback(self._index.close)
            self._claims = Claims(self._index, self.path / self.machine)
            self._folder = Folder(self._index, self._files)
            undo.pop_all()

    def close(self) -> None:
        """Give up claims and close the files; closing twice does nothing."""
        with self._index.lock:
            self._claims.close()
            with suppress(StoreError, sqlite3.ProgrammingError):  # closed before
                self.sync()
            self._index.close()
            self._files.close()

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
        for chunk, rows in self._folder.look_up("SELECT key FROM completion", keys):
            absent.update(chunk)
            absent.difference_update(key for (key,) in rows)
        return absent

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Completion]:
        """Return the completions that are there, by key.

        Raises:
            StoreError: If one of them is torn; the message names it.
        """
        found: dict[bytes, Completion] = {}
        for chunk in chunks(keys):
            try:
                found.update(self._get_chunk(chunk))
            except OSError:
                self._files.close()  # that journal was compacted a moment ago
                self.follow()
                with self._index.translated():
                    found.update(self._get_chunk(chunk))
        return found

    def _get_chunk(self, chunk: list[bytes]) -> list[tuple[bytes, Completion]]:
        query = (
            "SELECT key, name, start, completion.size FROM completion"
            " JOIN journal ON journal.id = journal"
        )
        read: list[tuple[bytes, Completion]] = []
        for _, rows in self._folder.look_up(query, chunk):
            for key, name, start, size in sorted(rows, key=lambda row: row[1:]):
                try:
                    read.append((key, self._folder.bodies.read(key, name, start, size)))
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
        for _, rows in self._folder.look_up("SELECT key, reason, message FROM failure", keys):
            found.update((key, Failure(reason, words)) for key, reason, words in rows if reason)
        return found

    def finish_reasons(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Return how the completions that are there ended, by key."""
        found: dict[bytes, str] = {}
        for _, rows in self._folder.look_up("SELECT key, finish_reason FROM completion", keys):
            found.update(rows)
        return found

    def completions(self) -> Iterator[tuple[bytes, str, int, Completion]]:
        """Yield key, model, time in nanoseconds and completion of all, journal by journal.

        Raises:
            StoreError: If one of them is torn; the message names it.
        """
        self.follow()
        with self._index.reading():
            journals = self._index.known()
        for record, _ in self._folder.counting(journals):
            [completion] = self.get_many([record.key]).values()
            yield record.key, record.facts[0], record.at_ns, completion

    def follow(self) -> None:
        """Index what other machines have written since."""
        self._folder.follow()

    # Counting

    def usage(self, keys: Iterable[bytes]) -> Usage:
        """Sum the tokens of the completions of these keys; a key given twice counts twice."""
        return accounts.usage(self._folder, keys)

    def counts(self, keys: Iterable[bytes]) -> dict[bytes, Counts]:
        """Return the tokens of the completions that are there and were counted, by key."""
        counted = accounts.counted(self._folder, keys)
        return {key: counts for key, counts in counted if counts is not None}

    def history(self, model: str) -> History | None:
        """Return what a model's counted completions took, or None if there are none."""
        return accounts.history(self._folder, model)

    def stats(self) -> LedgerStats:
        """Count what the ledger holds."""
        return accounts.stats(self._folder)

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

    def _keep(self, replies: Sequence[tuple[bytes, str, int, Reply]]) -> int:
        """Append what is new to this machine's journal, and index it."""
        encode = self._folder.bodies.encode
        encoded = [b"" if isinstance(reply, Failure) else encode(reply) for *_, reply in replies]
        with self._index.writing() as db:
            keys = [key for key, *_ in replies]
            db.executemany("DELETE FROM claim WHERE key = ?", [(key,) for key in keys])
            there = {
                key
                for chunk in chunks(keys)
                for (key,) in self._index.find("SELECT key FROM completion", chunk)
            }
            forgotten = dict(
                row
                for chunk in chunks(keys)
                for row in self._index.find("SELECT key, at FROM forgotten", chunk)
            )
            entries: list[Entry] = []
            for (key, model, at_ns, reply), body in zip(replies, encoded, strict=True):
                if key in there:
                    continue
                if not isinstance(reply, Failure):
                    there.add(key)
                    at_ns = max(at_ns, forgotten.get(key, 0) + 1)
                entries.append(entry(key, model, at_ns, reply, body))
            self._folder.append(db, entries)
        self._folder.bodies.learn_after(sum(kind == journal.COMPLETION for kind, *_ in entries))
        self._folder.sync_now_and_then()
        return len(entries)

    def sync(self) -> None:
        """Make everything committed so far safe from a power cut too.

        One wait for the disk serves all commits before it, those of other processes included, so
        that it need not be paid per reply. Call it before anything made of completions is
        published.
        """
        self._folder.sync()

    def forget(self, keys: Iterable[bytes]) -> int:
        """Drop the completions and failures of these keys, so that they are bought again.

        Their bytes stay in the journals until `compact`.

        Returns:
            How many completions were dropped.
        """
        dropped = 0
        for chunk in chunks(keys):
            absent = self.missing(chunk)
            dropped += len({*chunk} - absent)
            at_ns = time.time_ns()
            with self._index.writing() as db:
                self._folder.append(db, [(journal.FORGOTTEN, key, at_ns, [], b"") for key in chunk])
        return dropped

    def forget_failures(self, keys: Iterable[bytes]) -> None:
        """Drop the failures of these keys; completions stay."""
        forgotten = Failure("", "")
        for chunk in chunks(keys):
            at_ns = time.time_ns()
            failed = self.failures(chunk)
            with self._index.writing() as db:
                self._folder.append(db, [entry(key, "", at_ns, forgotten, b"") for key in failed])

    # Claims

    def claim_many(self, keys: Sequence[bytes]) -> list[Literal["ours", "bought", "busy"]]:
        """Say that these keys are about to be asked for, in one commit.

        A claim ends with ``put``, ``release``, ``close`` or the end of the process, however it
        ends. Claims hold among the processes of this machine.

        Args:
            keys: Each is given once.

        Returns:
            For each, ``ours`` when the caller should ask now, ``bought`` when the completion is
            already there, ``busy`` when another caller is asking.
        """
        return self._claims.claim_many(keys)

    def claim_all(self, keys: Iterable[bytes]) -> list[bytes]:
        """Claim keys of what is kept elsewhere; return those that no other caller has.

        See `claim_many`; an end of the claims is told by ``release``.
        """
        return self._claims.claim_all(keys)

    def release(self, keys: Iterable[bytes]) -> None:
        """Give up claims that were made through this ledger."""
        self._claims.release(keys)

    # Whole journals

    def verify(self) -> Iterator[Torn]:
        """Read every byte of every journal, and yield what is torn.

        Raises:
            StoreError: If the index itself is damaged.
        """
        return verification.verify(self._folder)

    def compact(self) -> Compacted:
        """Write this machine's journals anew, into one: without what was forgotten, and smaller.

        A dictionary is trained on what they hold. Other processes may go on reading and writing;
        other machines notice and read the new journal.
        """
        return compaction.compact(self._folder)

    def export(self, file: Path) -> int:
        """Write every completion into one file, which `take_in` reads anywhere.

        Returns:
            How many were written.

        Raises:
            StoreError: If the file is there already, or cannot be written.
        """
        return moving.export(self._folder, self.completions(), file)

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
        read = new = 0
        source = moving.read_elsewhere(other)
        while batch := list(islice(source, _KEPT_TOGETHER)):
            read += len(batch)
            new += self._keep(batch)
        self.sync()
        return read, new
