"""Freeing what no recipe refers to."""

import fcntl
import shutil
from dataclasses import dataclass
from pathlib import Path

from stillroom.store.store import Store


@dataclass(frozen=True)
class Garbage:
    """Directories that nothing refers to.

    Attributes:
        artifacts: Finished artifacts that no recipe's last run used.
        unfinished: Workshops in which no process works, of steps that were never finished.
    """

    artifacts: list[Path]
    unfinished: list[Path]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(size_of(path) for path in (*self.artifacts, *self.unfinished))


def find_garbage(store: Store) -> Garbage:
    """Find what can go. The ledger is never garbage: it holds what was paid for.

    Raises:
        StoreError: If a recipe's record cannot be read; nothing is guessed about it.
    """
    referred = {
        (entry["step"], entry["key"])
        for name in store.records()
        for entry in (store.read_record(name) or {"steps": []})["steps"]
    }
    artifacts = [p for p in store.artifacts() if (p.parent.name, p.name) not in referred]
    workshops = sorted((store.root / "building").glob("*"))
    return Garbage(artifacts, [p for p in workshops if not _held(store, p.name)])


def free(store: Store, garbage: Garbage) -> None:
    """Delete garbage. An artifact loses its manifest first, so that half of it is never used."""
    for path in garbage.artifacts:
        (path / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(path)
        (store.root / "checked" / path.name).unlink(missing_ok=True)
    for path in garbage.unfinished:
        if not _held(store, path.name):
            shutil.rmtree(path)


def size_of(path: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _held(store: Store, key: str) -> bool:
    lock = store.root / "locks" / key
    if not lock.exists():
        return False
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
