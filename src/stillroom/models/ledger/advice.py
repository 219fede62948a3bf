"""What a user can do when the disk or SQLite refuses."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillroom.errors import StoreError

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
_OTHER = "{error}; expected a working ledger. Check file and disk."
_BY_ERRNO = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EROFS: sqlite3.SQLITE_READONLY,
}


def damaged(index: Path, verdict: str) -> StoreError:
    """Say that an index is damaged."""
    return StoreError(f"{index}: " + _ADVICE[sqlite3.SQLITE_CORRUPT].format(error=verdict))


@contextmanager
def translated(*, index: Path, files: Path, busy_s: float) -> Iterator[None]:
    """Turn errors of SQLite and the disk into a message with advice.

    Args:
        index: The place to name when SQLite fails.
        files: The place to name when a file fails.
        busy_s: How long SQLite waits for another process.

    Raises:
        StoreError: Instead of those errors, but for a file that is not there.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        words = _ADVICE.get(code, _OTHER).format(error=error, busy_s=busy_s)
        raise StoreError(f"{index}: {words}") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        code = _BY_ERRNO.get(error.errno or 0, sqlite3.SQLITE_IOERR)
        words = _ADVICE[code].format(error=error.strerror or str(error), busy_s=busy_s)
        raise StoreError(f"{files}: {words}") from error
