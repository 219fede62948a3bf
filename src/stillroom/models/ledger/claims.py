"""Claims: two processes of a machine that want the same completion shall not both buy it."""

import fcntl
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from stillroom.errors import StoreError
from stillroom.models.ledger.index import Index, chunks

# Locks of this process would look free to itself, because record locks belong to processes.
_buyers_here: set[str] = set()


class Claims:
    """What is being asked for at this moment, in the index, each claim by its buyer's name.

    A claim ends with its completion, ``release``, ``close`` or the end of the process, however it
    ends: a lock that the kernel holds tells whether the claimant is alive.
    """

    def __init__(self, index: Index, locks: Path) -> None:
        """Begin without claims.

        Args:
            index: Where claims are written.
            locks: A path that the names of lock files begin with.
        """
        self._index = index
        self._locks = locks
        self._buyer: tuple[str, IO[bytes]] | None = None

    def close(self) -> None:
        """Give up all claims that were made here."""
        if self._buyer is None:
            return
        name, lock = self._buyer
        with suppress(StoreError), self._index.writing() as db:
            db.execute("DELETE FROM claim WHERE buyer = ?", (name,))
        self._lock_path(name).unlink(missing_ok=True)
        lock.close()
        _buyers_here.discard(name)
        self._buyer = None

    def claim_many(self, keys: Iterable[bytes]) -> list[Literal["ours", "bought", "busy"]]:
        """Say that these keys are about to be asked for; each is given once.

        Returns:
            For each, ``ours`` when the caller should ask now, ``bought`` when the completion is
            already there, ``busy`` when another caller is asking.
        """
        found: list[Literal["ours", "bought", "busy"]] = []
        for chunk in chunks(keys):
            with self._index.writing() as db:
                bought = {k for (k,) in self._index.find("SELECT key FROM completion", chunk)}
                ours = self._take(db, [key for key in chunk if key not in bought])
            found += ["bought" if k in bought else "ours" if k in ours else "busy" for k in chunk]
        return found

    def claim_all(self, keys: Iterable[bytes]) -> list[bytes]:
        """Claim keys of what is kept elsewhere; return those that no other caller has."""
        ours: list[bytes] = []
        for chunk in chunks(keys):
            with self._index.writing() as db:
                taken = self._take(db, chunk)
            ours += [key for key in chunk if key in taken]
        return ours

    def release(self, keys: Iterable[bytes]) -> None:
        """Give up claims that were made here."""
        if self._buyer is None:
            return
        name, _ = self._buyer
        for chunk in chunks(keys):
            marks = ",".join("?" * len(chunk))
            with self._index.writing() as db:
                db.execute(
                    f"DELETE FROM claim WHERE buyer = ? AND key IN ({marks})", [name, *chunk]
                )

    def _take(self, db: sqlite3.Connection, keys: list[bytes]) -> set[bytes]:
        """Claim keys, and return those that no living buyer has."""
        buyers = dict(self._index.find("SELECT key, buyer FROM claim", keys))
        alive = {buyer for buyer in {*buyers.values()} if self._alive(buyer)}
        free = {key for key in keys if buyers.get(key) not in alive}
        if free:
            rows = [(key, self._become_buyer()) for key in sorted(free)]
            db.executemany("INSERT OR REPLACE INTO claim VALUES (?, ?)", rows)
        return free

    def _lock_path(self, buyer: str) -> Path:
        return self._locks.with_name(f"{self._locks.name}.buyer-{buyer}")

    def _become_buyer(self) -> str:
        if self._buyer is None:
            self._sweep()
            name = secrets.token_hex(8)
            lock = self._lock_path(name).open("xb")
            # A record lock, not flock: children made by fork would keep a flock alive.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _buyers_here.add(name)
            self._buyer = (name, lock)
        return self._buyer[0]

    def _sweep(self) -> None:
        """Remove the locks of buyers that were killed before they claimed anything.

        Within a transaction, as all locks are made: none is met between its making and its lock.
        """
        for path in self._locks.parent.glob(f"{self._locks.name}.buyer-*"):
            self._alive(path.name.rpartition("-")[2])

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
