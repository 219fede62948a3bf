"""`stillroom doctor`: what works on this machine, what does not, and what to do about it."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillroom.errors import StillroomError
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger
from stillroom.sandbox import try_backend
from stillroom.sandbox.choose import LOCAL
from stillroom.sandbox.processes import printable
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store, disk_errors

EXTRAS = {
    "reasoning_gym": "reasoning-gym",
    "torch": "train",
    "datasets": "hub",
    "py7zr": "stackexchange",
}
"""Module to the extra that brings it."""

LOW_DISK = 2e9
"""Bytes below which a run is likely to fill the disk."""


@dataclass(frozen=True)
class Finding:
    """One point of an examination.

    Attributes:
        what: What was looked at.
        state: ``ok``; ``absent``, for what a recipe may not need; or ``failed``.
        found: What was found.
        remedy: What to do; empty if nothing.
    """

    what: str
    state: Literal["ok", "absent", "failed"]
    found: str
    remedy: str = ""


def examine(store: Path, models: Path | None) -> Iterator[Finding]:
    """Look at everything that a run may need.

    Args:
        store: The store's folder.
        models: The user's models.toml, or None for the usual places.
    """
    yield Finding(
        "machine", "ok",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores",
    )  # fmt: skip
    yield from _extras()
    yield from _sandbox()
    yield from _models(models)
    yield from _store(store)


def _extras() -> Iterator[Finding]:
    for module, extra in EXTRAS.items():
        if importlib.util.find_spec(module):
            yield Finding(f"extra {extra}", "ok", f"{module} is installed")
        else:
            yield Finding(
                f"extra {extra}", "absent", f"{module} is not installed",
                f"if you need it: pip install 'stillroom[{extra}]'",
            )  # fmt: skip


def _sandbox() -> Iterator[Finding]:
    chosen = ""
    for name in LOCAL:
        sandbox, tried = try_backend(name, workers=1)
        if sandbox is None:
            yield Finding(f"sandbox {name}", "absent", printable(str(tried.problem).encode()))
            continue
        use = "" if chosen else "; `verify: code` uses it"
        chosen = chosen or tried.backend
        yield Finding(
            f"sandbox {name}", "ok",
            f"{tried.backend} with Python {tried.python_version} withstood the probes{use}",
        )  # fmt: skip
    if not chosen:
        yield Finding(
            "sandbox", "absent", "nothing here isolates code from models; `verify: code` refuses",
            "if you need it: apt-get install bubblewrap",
        )  # fmt: skip


def _models(path: Path | None) -> Iterator[Finding]:
    try:
        config = load_config(path)
    except StillroomError as error:
        yield Finding("models", "failed", str(error), "correct the file")
        return
    for name in config.known():
        ok, found, remedy = config.check(name)
        yield Finding(f"model {name}", "ok" if ok else "failed", found, remedy)


def _store(root: Path) -> Iterator[Finding]:
    where = root if root.exists() else root.absolute().parent
    try:
        free = shutil.disk_usage(where).free
    except OSError as error:
        yield Finding("store", "failed", f"{where}: {error.strerror}", "pass another --store")
        return
    low = free < LOW_DISK
    yield Finding(
        "disk", "failed" if low else "ok", f"{free / 1e9:.1f} GB free at {where}",
        "make room, or pass a --store on another disk" if low else "",
    )  # fmt: skip
    if not root.exists():
        yield Finding("store", "absent", f"{root} is not there yet; the first run makes it")
        return
    probe = root / f"doctor.{os.getpid()}"
    try:
        with disk_errors(probe):
            probe.write_text("")
            probe.unlink()
    except StillroomError as error:
        yield Finding("store", "failed", str(error), "fix the rights, or pass another --store")
        return
    store = Store(root)
    damaged = count = 0
    for path in store.artifacts():
        count += 1
        try:
            Artifact.load(path).verify()
        except StillroomError as error:
            damaged += 1
            yield Finding("store", "failed", str(error), f"rm -r {path}, and run the recipe again")
    if not damaged:
        yield Finding("store", "ok", f"{count} artifacts in {root}, every byte as written")
    if store.ledger_path.exists():
        try:
            ledger = Ledger(store.ledger_path)
            yield Finding("ledger", "ok", f"{ledger.stats()}")
            ledger.close()
        except StillroomError as error:
            yield Finding("ledger", "failed", str(error), "restore it from a backup")
