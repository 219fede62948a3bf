"""`stillroom doctor`: what works on this machine, what does not, and what to do about it."""

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True)
class Extra:
    """An optional part of the installation.

    Attributes:
        modules: What it brings.
        use: What it is for.
    """

    modules: tuple[str, ...]
    use: str


EXTRAS: Mapping[str, Extra] = {
    "study": Extra(("scipy",), "`study`, `search` and `eval`"),
    "train": Extra(
        ("torch", "safetensors", "numpy"), "small students, trained here; `study` brings it"
    ),
    "trl": Extra(
        ("trl", "transformers", "accelerate", "peft"), "students of any other model, `trainer: trl`"
    ),
    "reasoning-gym": Extra(("reasoning_gym",), "`source: gym`"),
    "fasttext": Extra(("floret",), "`label: classifier`"),
    "stackexchange": Extra(("py7zr",), "`source: stackexchange`"),
    "hub": Extra(("datasets",), "reading exports with `datasets.load_dataset`"),
}
"""Every extra of the package."""

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
    for name, extra in EXTRAS.items():
        lacking = [module for module in extra.modules if not _is_there(module)]
        if lacking:
            yield Finding(
                f"extra {name}", "absent", f"no {', '.join(lacking)}; for {extra.use}",
                f"if you need it: pip install 'stillroom[{name}]'",
            )  # fmt: skip
        else:
            yield Finding(f"extra {name}", "ok", f"{', '.join(extra.modules)}; for {extra.use}")


def _is_there(module: str) -> bool:
    # A plain folder can be imported too, and a run leaves one that is called datasets.
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


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
        yield Finding(
            f"model {name}", "ok" if ok else "failed", found.removeprefix(f"{name}: "), remedy
        )


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
