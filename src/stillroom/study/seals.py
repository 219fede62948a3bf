"""Held-out benchmarks stay sealed until a winner is promoted; each opening is written down.

A benchmark that was looked at while recipes were chosen says less about the winner. So every grade
on a held-out benchmark is recorded in the store, and reports say how often it was opened before.
"""

import json
from dataclasses import dataclass

from stillroom.store.store import Store, disk_errors, replace_text


@dataclass(frozen=True)
class Opening:
    """One time that a held-out benchmark was looked at.

    Attributes:
        benchmark: Its name.
        study: For which study.
        arm: For which arm.
    """

    benchmark: str
    study: str
    arm: str


def openings(store: Store) -> list[Opening]:
    """List what was opened, first to last."""
    path = store.root / "seals.json"
    if not path.exists():
        return []
    return [Opening(**entry) for entry in json.loads(path.read_text("utf-8"))]


def open_seal(store: Store, opening: Opening) -> int:
    """Write an opening down, once for each study and arm.

    Returns:
        How often the benchmark had been opened before, by other studies and arms.
    """
    known = openings(store)
    if opening not in known:
        path = store.root / "seals.json"
        with disk_errors(path):
            store.root.mkdir(parents=True, exist_ok=True)
            entries = [vars(o) for o in [*known, opening]]
            replace_text(path, json.dumps(entries, indent=1) + "\n")
    return sum(o.benchmark == opening.benchmark and o != opening for o in known)
