"""A frozen name stands for one content: weights that changed get no answers of older ones.

What a model answered is found again by its name, so other weights under the same name, such as
those of a second training into the same folder, would be given the scores of the first. The store
remembers the content behind the names of local models, and other content is refused. What servers
hold is not seen.
"""

import fcntl
import json
from collections.abc import Iterable
from pathlib import Path

from stillroom.errors import ModelError
from stillroom.models.config import ModelsConfig
from stillroom.store.digest import value_digest
from stillroom.store.store import Store, disk_errors, replace_text
from stillroom.train.trainer import base_content


def check_weights(store: Store, models: ModelsConfig, names: Iterable[str]) -> None:
    """Make sure that local models are those that answered under their names before.

    Args:
        store: What they answered; it remembers models that are new to it.
        models: Where they lie.
        names: Frozen names; those that come with the package, or are served, are not looked at.

    Raises:
        ModelError: If a name stands for other content than before.
        StoreError: If the store cannot be written.
    """
    here = {name: models.own_directory(name) for name in sorted(set(names))}
    there = {name: folder for name, folder in here.items() if folder}
    if not there:
        return
    path, lock = store.root / "weights.json", store.root / "locks" / "weights"
    with disk_errors(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            known = json.loads(path.read_text("utf-8")) if path.exists() else {}
            before = dict(known)
            for name, folder in there.items():
                known[name] = _looked_at(name, folder, known.get(name), store, models)
            if known != before:
                replace_text(path, json.dumps(known, indent=1) + "\n")


def _looked_at(
    name: str, folder: Path, before: dict[str, str] | None, store: Store, models: ModelsConfig
) -> dict[str, str]:
    """Return the content of a model, and the dates by which it need not be read again."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    facts = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    dates = value_digest([str(folder.resolve()), facts])
    if before and before["dates"] == dates:
        return before
    content = value_digest(base_content(folder))
    if before and before["content"] != content:
        raise ModelError(
            f"{name}: what lies in {folder} is not what answered under this name in {store.root}; "
            "expected the same content, because its answers and scores are found by the name. "
            f"Give it another name in {models.file}, or take another --store."
        )
    return {"content": content, "dates": dates}
