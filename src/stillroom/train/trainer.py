"""The Trainer door: rows and a base model go in, a model directory comes out.

A trained student is an artifact: a directory `students/<key>` of the store, in Hugging Face form,
with a `student.json` that says how it came about. Its key speaks of the trainer, its version and
settings, the base model's content, the seed, and the content of the rows. What is covered: a kill
at any moment, two processes that want the same student. A trainer that can resume finds its own
checkpoints in the work folder that a killed run left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from stillroom.errors import ModelError, StoreError
from stillroom.store.digest import file_digest, value_digest
from stillroom.store.store import Store, disk_errors, sync, write_synced

RECORD = "student.json"
_CONTENT = (".json", ".safetensors", ".jinja", ".txt", ".model")
# Fetched from nowhere, but programs that train may read them where they lie.
_OLDER_WEIGHTS = (".bin", ".pt", ".pth")
Scalar = bool | int | float | str
Setting = Scalar | tuple[str, ...]


class Student(BaseModel):
    """What is trained, and how. Every field enters a student's key.

    Attributes:
        model: Frozen name of the base model; where it lies is in models.toml.
        revision: Commit of the model on the Hugging Face hub, 40 digits; the model then comes from
            there.
        trainer: ``proxy``: small models on the CPU. ``trl``: any model, on GPUs. ``llamafactory``,
            ``axolotl``: those programs. ``command``: a command of your own. See docs/trainers.md.
        preset: Named settings of the trainer, such as ``openthoughts-ablation``.
        settings: Settings of the trainer, in place of those of the preset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "stillroom/base-1"
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    trainer: Literal["proxy", "trl", "llamafactory", "axolotl", "command"] = "proxy"
    preset: str | None = None
    settings: Mapping[str, Setting] = Field(default_factory=dict)


class Example(NamedTuple):
    """One conversation to learn from; only the completion counts."""

    question: str
    reasoning: str | None
    answer: str


class TrainingFailed(Exception):
    """Training that ended without a student: no rows fit, the loss is no number, a tool died."""


def _silent(share: float, loss: float) -> None:
    """Report nothing; a lambda could not go to another process."""


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        base: Directory of the base model.
        rows: Folder of Parquet parts with ``question``, ``reasoning`` and ``answer``.
        settings: The trainer's settings, complete.
        seed: Of the order of rows and of whatever else is random.
        folder: Work folder; a killed run left its checkpoints here. The finished model goes to
            ``folder / "model"``.
        report: Called with progress, 0 to 1, and the last loss.
        write: Writes the rows into a folder that it makes, when training begins: a study has
            hundreds of students, and rows of each take gigabytes. None if they are in ``rows``.
    """

    base: Path
    rows: Path
    settings: Mapping[str, Any]
    seed: int
    folder: Path = Path()
    report: Callable[[float, float], None] = _silent
    write: Callable[[Path], None] | None = None

    def begun(self, folder: Path) -> Job:
        """Return the job with a work folder, and with its rows there if nobody wrote them yet."""
        if self.write is None:
            return replace(self, folder=folder)
        self.write(folder / "rows")
        return replace(self, folder=folder, rows=folder / "rows")

    def examples(self) -> Iterator[Example]:
        """Read the rows in order, part by part."""
        for part in sorted(self.rows.glob("*.parquet")):
            for question, reasoning, answer in pl.read_parquet(part).iter_rows():
                yield Example(question, reasoning, answer)


@dataclass(frozen=True)
class Trained:
    """What a training run says of itself.

    Attributes:
        rows: Rows that were learnt from, however often each.
        truncated: Of these, rows that were cut to fit.
        skipped: Rows that could not be used at all.
        unseen: Rows that could be used, but training ended before their turn.
        tokens: Tokens seen, repeats counted, padding not.
        losses: Mean loss in nats per learnt token, over the run.
        details: Anything else that a reader of the student should know.
    """

    rows: int
    truncated: int = 0
    skipped: int = 0
    unseen: int = 0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """One way to train.

    Attributes:
        VERSION: Raised whenever the same job gives another student.
    """

    VERSION: int

    @property
    def TOGETHER(self) -> int:
        """Students that train well at a time on one machine."""
        ...

    def settings(self, preset: str | None, given: Mapping[str, Setting]) -> dict[str, Any]:
        """Complete the settings.

        Raises:
            ValueError: If there is no such preset or setting, or a value is out of range.
        """
        ...

    def train(self, job: Job) -> Trained:
        """Train, and write the model to ``job.folder / "model"``.

        Raises:
            TrainingFailed: If there is no student at the end.
            SetupError: If the machine lacks what the trainer needs.
        """
        ...


@dataclass(frozen=True)
class Alumnus:
    """A trained student in the store.

    Attributes:
        key: Its key.
        path: The model directory, in Hugging Face form.
        trained: What the run said of itself.
        seconds: How long it took.
    """

    key: str
    path: Path
    trained: Trained
    seconds: float

    @property
    def name(self) -> str:
        """The frozen name under which its answers are kept in the ledger."""
        return f"student/{self.key}"


@dataclass(frozen=True)
class Pinned:
    """A base model on the Hugging Face hub, at a commit: its content can never change.

    Attributes:
        name: ``owner/name``.
        revision: The commit, 40 digits.
    """

    name: str
    revision: str

    def fetch(self) -> Path:
        """Bring it to the local disk, or find it there.

        Raises:
            ModelError: If the hub cannot be reached, or has no such model.
        """
        from huggingface_hub import snapshot_download

        try:
            found = snapshot_download(
                self.name,
                revision=self.revision,
                allow_patterns=[f"*{ending}" for ending in _CONTENT],
            )
        except Exception as error:  # the hub's client raises errors of several libraries
            raise ModelError(
                f"hub {self.name}@{self.revision[:12]}: cannot be fetched ({error}); expected a "
                "model on the Hugging Face hub. Check name, revision and network, or download it "
                'and name its folder in models.toml with engine = "local", without `revision`.'
            ) from error
        return Path(found)


def base_content(base: Path | Pinned) -> dict[str, str]:
    """Name a base model by what it is: a directory by its content, not its place; or a commit."""
    if isinstance(base, Pinned):
        return {"hub": base.name, "revision": base.revision}
    return {
        path.name: file_digest(path)
        for path in sorted(base.iterdir())
        if path.is_file()
        and path.suffix in (*_CONTENT, *_OLDER_WEIGHTS)
        and path.name != "training.json"
    }


def folder_of(base: Path | Pinned) -> Path:
    """Return the directory of a base model, which is fetched if it is on the hub.

    Raises:
        ModelError: If it cannot be fetched.
    """
    return base.fetch() if isinstance(base, Pinned) else base


def student_key(
    trainer: str,
    version: int,
    settings: Mapping[str, Any],
    base: Mapping[str, str],
    rows: str,
    seed: int,
) -> str:
    """Name a student by what goes into it.

    Args:
        trainer: Name of the trainer.
        version: Its ``VERSION``.
        settings: Its settings, complete.
        base: What the base model is; see `base_content`.
        rows: Digest of the rows in their order.
        seed: Of the run.
    """
    return value_digest(["student", trainer, version, dict(settings), dict(base), rows, seed])


def find(store: Store, key: str) -> Alumnus | None:
    """Look a student up.

    Raises:
        StoreError: If it is there but torn.
    """
    home = store.root / "students" / key
    if not home.is_dir():
        return None
    try:
        record = json.loads((home / RECORD).read_text("utf-8"))
        for name, size in record["files"].items():
            if (home / "model" / name).stat().st_size != size:
                raise ValueError(f"{name} has another size")
        return Alumnus(key, home / "model", Trained(**record["trained"]), record["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{home}: torn or edited ({error}); expected a finished student. "
            "Delete the folder and run again."
        ) from None


def usual_seconds(
    store: Store, trainer: str, base: str, settings: Mapping[str, Any]
) -> tuple[float, int] | None:
    """Tell how long students like this one took before, in this store.

    Args:
        store: Where students are kept.
        trainer: Name of the trainer.
        base: Name of the base model.
        settings: Of the trainer, complete.

    Returns:
        The median, in seconds of all devices together, and how many students it is of; None if
        there was no such student.
    """
    took = []
    wanted = {"trainer": trainer, "base": base, "settings": dict(settings)}
    for path in sorted((store.root / "students").glob(f"*/{RECORD}")):
        try:
            record = json.loads(path.read_text("utf-8"))
            devices = record["trained"]["details"].get("devices", 1)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # `find` complains of it where it is wanted
        if {name: record.get(name) for name in wanted} == wanted:
            took.append(float(record["seconds"]) * devices)
    return (statistics.median(took), len(took)) if took else None


def train(store: Store, key: str, trainer: Trainer, job: Job, about: Mapping[str, Any]) -> Alumnus:
    """Return the student of a key, trained now unless it is there.

    Another process that trains the same student is waited for.

    Args:
        store: Where students are kept.
        key: See `student_key`.
        trainer: Trains it.
        job: What to train; its folder is chosen here.
        about: What else `student.json` should say.

    Raises:
        TrainingFailed: If training ends without a student; nothing is kept but checkpoints.
        SetupError: If the machine lacks what the trainer needs.
        StoreError: If the disk is full or cannot be written.
    """
    with _alone(_lock(store, key)):
        done = find(store, key)
        if done is not None:
            return done
        folder = _work_folder(store, key)
        with disk_errors(folder):
            started = time.monotonic()
            trained = trainer.train(job.begun(folder))
            return _publish(store, key, trained, time.monotonic() - started, job, about)


class GroupTrainer(Protocol):
    """A trainer that trains many students in one process."""

    def train_many(self, jobs: Sequence[Job]) -> list[Trained | TrainingFailed]:
        """Train, and write each model to its job's ``folder / "model"``."""
        ...


def train_group(
    store: Store, trainer: GroupTrainer, members: Mapping[str, tuple[Job, Mapping[str, Any]]]
) -> dict[str, Alumnus | TrainingFailed]:
    """Return the students of some keys, trained together now unless they are there.

    Args:
        store: Where students are kept.
        trainer: Trains them.
        members: Key to job, and to what else `student.json` should say.

    Returns:
        Key to student, or to the reason why there is none.

    Raises:
        SetupError: If the machine lacks what the trainer needs.
        StoreError: If the disk is full or cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for key in sorted(members):  # in one order, so that two groups cannot wait for each other
            stack.enter_context(_alone(_lock(store, key)))
        found: dict[str, Alumnus | TrainingFailed] = {}
        for key in members:
            done = find(store, key)
            if done is not None:
                found[key] = done
        todo = [key for key in members if key not in found]
        with disk_errors(store.root / "building"):
            jobs = [members[key][0].begun(_work_folder(store, key)) for key in todo]
            started = time.monotonic()
            outcomes = trainer.train_many(jobs) if jobs else []
            seconds = (time.monotonic() - started) / max(1, len(jobs))
            for key, outcome in zip(todo, outcomes, strict=True):
                if isinstance(outcome, TrainingFailed):
                    found[key] = outcome
                else:
                    found[key] = _publish(store, key, outcome, seconds, *members[key])
    return found


def being_trained(store: Store, key: str) -> bool:
    """Tell whether some process trains a student right now."""
    try:
        handle = _lock(store, key).open("r")
    except FileNotFoundError:
        return False
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock(store: Store, key: str) -> Path:
    return store.root / "locks" / f"student-{key}"


def _work_folder(store: Store, key: str) -> Path:
    folder = store.root / "building" / f"student-{key}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _publish(
    store: Store, key: str, trained: Trained, seconds: float, job: Job, about: Mapping[str, Any]
) -> Alumnus:
    """Turn a work folder with a finished model into a student, by one rename."""
    folder, home = _work_folder(store, key), store.root / "students" / key
    model = folder / "model"
    sizes = {p.name: p.stat().st_size for p in sorted(model.iterdir()) if p.is_file()}
    record = {
        "key": key, **about, "seed": job.seed, "settings": dict(job.settings),
        "trained": asdict(trained), "seconds": round(seconds, 3), "files": sizes,
    }  # fmt: skip
    for path in folder.iterdir():
        if path.name != "model":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_synced(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    sync(folder)
    home.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(home)
    sync(home.parent)
    return Alumnus(key, home / "model", trained, seconds)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    with disk_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
