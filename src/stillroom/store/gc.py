"""Freeing what no recipe and no study refers to.

A recipe's record (`Store.write_record`) says what its last run used. A study uses thousands of
artifacts, so ``studies/<name>`` has a line for each, written as soon as the artifact is there; when
the study is through, the lines of its runs before go.
"""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillroom.store.store import Store, disk_errors, replace_text


@dataclass(frozen=True)
class Garbage:
    """Directories that nothing refers to.

    Attributes:
        artifacts: Finished artifacts that no last run of a recipe or a study used.
        unfinished: Workshops in which no process works, of steps and students that were never
            finished; not those of trainings that were submitted elsewhere.
    """

    artifacts: list[Path]
    unfinished: list[Path]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(size_of(path) for path in (*self.artifacts, *self.unfinished))


@contextlib.contextmanager
def using(store: Store, study: str) -> Iterator[Callable[[str, str], None]]:
    """Spare what a study uses, from the moment that it is told of a step and a key.

    Args:
        store: Where it runs.
        study: Its name.
    """
    path = store.root / "studies" / study
    used: dict[str, None] = {}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.open("a", encoding="utf-8")

    def use(step: str, key: str) -> None:
        name = f"{step}/{key}"
        if name not in used:
            used[name] = None
            with disk_errors(path):
                # The line break goes first: what a full disk tore then has a line of its own.
                lines.write(f"\n{name}")
                lines.flush()

    with lines:
        yield use
    with disk_errors(path):
        replace_text(path, "\n".join(used))


def studies(store: Store) -> dict[str, list[tuple[str, ...]]]:
    """Return the studies of a store: name to the step and the key of each artifact in use."""
    found = {}
    for path in sorted((store.root / "studies").glob("*")):
        lines = path.read_text("utf-8").splitlines()
        found[path.name] = [tuple(line.split("/")) for line in lines if line]
    return found


def find_garbage(store: Store) -> Garbage:
    """Find what can go. The ledger is never garbage: it holds what was paid for.

    Raises:
        StoreError: If a recipe's record cannot be read; nothing is guessed about it.
    """
    referred: set[tuple[str, ...]] = {
        (entry["step"], entry["key"])
        for name in store.records()
        for entry in (store.read_record(name) or {"steps": []})["steps"]
    }
    referred.update(used for study in studies(store).values() for used in study)
    artifacts = [p for p in store.artifacts() if (p.parent.name, p.name) not in referred]
    workshops = sorted((store.root / "building").glob("*"))
    return Garbage(artifacts, [p for p in workshops if not _in_use(store, p)])


def free(store: Store, garbage: Garbage) -> None:
    """Delete garbage. An artifact loses its manifest first, so that half of it is never used."""
    for path in garbage.artifacts:
        (path / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(path)
        (store.root / "checked" / path.name).unlink(missing_ok=True)
    for path in garbage.unfinished:
        if not _in_use(store, path):
            shutil.rmtree(path)


def size_of(path: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _in_use(store: Store, workshop: Path) -> bool:
    """Tell whether a process here works in it, or a job elsewhere (`stillroom.train.command`)."""
    lock = store.root / "locks" / workshop.name
    if (workshop / "submitted").exists():
        return True
    if not lock.exists():
        return False
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
