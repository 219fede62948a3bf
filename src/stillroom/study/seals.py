"""Held-out benchmarks stay sealed until a winner is promoted; each opening is written down.

A benchmark that was looked at while recipes were chosen says less about the winner. So every look
of a study is recorded in the store, and reports say how often a benchmark was opened before: by
promotions, and by studies that decide by it. What is not recorded: what `stillroom eval` was asked.
"""

import fcntl
import json
from dataclasses import dataclass

from stillroom.store.store import Store, disk_errors, replace_text

EVERY_ARM = "every arm"
"""Of a study that decides by the benchmark."""


@dataclass(frozen=True)
class Opening:
    """One time that a benchmark was looked at.

    Attributes:
        benchmark: Its name.
        study: For which study.
        arm: For which arm.
        made: Names how its students were made; the same arm made otherwise is another look.
    """

    benchmark: str
    study: str
    arm: str
    made: str = ""


def openings(store: Store) -> list[Opening]:
    """List what was opened, first to last."""
    path = store.root / "seals.json"
    if not path.exists():
        return []
    return [Opening(**entry) for entry in json.loads(path.read_text("utf-8"))]


def open_seal(store: Store, opening: Opening) -> int:
    """Write an opening down, once for each study, arm and way to make its students.

    Returns:
        How often the benchmark had been opened otherwise before.
    """
    path, lock = store.root / "seals.json", store.root / "locks" / "seals"
    with disk_errors(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            known = openings(store)
            if opening not in known:
                entries = [vars(o) for o in [*known, opening]]
                replace_text(path, json.dumps(entries, indent=1) + "\n")
    return sum(o.benchmark == opening.benchmark and o != opening for o in known)
