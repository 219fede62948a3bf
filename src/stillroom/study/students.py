"""Training the students of a study: each once, several at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from stillroom.errors import RecipeError, StillroomError
from stillroom.steps.base import Runtime
from stillroom.store.store import Store
from stillroom.study.form import Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.rows import Drawn
from stillroom.study.sitting import check_hosting
from stillroom.train.proxy import Proxy, group_size
from stillroom.train.tool import VISIBLE, devices, shares
from stillroom.train.trainer import (
    Alumnus,
    Job,
    Pinned,
    Student,
    TrainingFailed,
    being_trained,
    find,
    folder_of,
    train,
    train_group,
)
from stillroom.train.trainers import trainer_of


def settings_of(student: Student) -> dict[str, Any]:
    """Return the complete settings of a student's trainer.

    Raises:
        RecipeError: If there is no such preset or setting, or a value is out of range.
    """
    try:
        return trainer_of(student.trainer).settings(student.preset, student.settings)
    except ValueError as error:
        raise RecipeError(f"student: {error}.") from None


def base_of(student: Student, rt: Runtime) -> Path | Pinned:
    """Find the base model: on the hub where a revision is given, else a local directory."""
    if student.revision:
        return Pinned(student.model, student.revision)
    return rt.models.directory(student.model)


def key_of(rows: Drawn, seed: int, named: Callable[[str, int], str], store: Store) -> str:
    """Return the key of a student: by what it learns from.

    Where the store has it under the older name, by tables, hours of training are not spent again.

    Args:
        rows: What it learns from.
        seed: Of its training.
        named: Makes a key of a digest of rows and a seed.
        store: Where students are kept.
    """
    older = named(rows.tables_digest, seed)
    return named(rows.named(store), seed) if find(store, older) is None else older


def train_students(
    study: Study,
    settings: Mapping[str, Any],
    base: Path | Pinned,
    drawn: Mapping[tuple[str, int], Drawn],
    keys: Mapping[tuple[str, int], str],
    lab: Laboratory,
) -> tuple[dict[str, Alumnus], dict[str, str]]:
    """Train the students that are not there yet, some at a time, each in a process of its own."""
    student = study.student
    alumni: dict[str, Alumnus] = {}
    failures: dict[str, str] = {}
    todo: dict[str, tuple[str, int]] = {}
    for place, key in keys.items():
        done = find(lab.store, key)
        if done is not None:
            alumni[key] = done
        else:
            todo.setdefault(key, place)
    lab.listener.training(len(todo), len(alumni))
    if not todo:
        return alumni, failures
    if being_trained(lab.store, next(iter(todo))):
        # By another study of the same students: behind it, this one would only wait.
        half = len(todo) // 2
        todo = dict([*list(todo.items())[half:], *list(todo.items())[:half]])

    folder = folder_of(base)
    check_hosting(study, folder, lab)

    def jobs() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for key, at in todo.items():
            job = Job(folder, Path(), settings, at[1], write=drawn[at].write)
            rows = drawn[at].named(lab.store)
            about = {"trainer": student.trainer, "base": student.model, "rows": rows}
            if student.revision:
                about["revision"] = student.revision
            yield key, (lab.store.root, key, student.trainer, job, about)

    def take(key: str, training: Future[Alumnus]) -> None:
        arm, seed = todo[key]
        try:
            alumni[key] = training.result()
            lab.listener.trained(arm, seed, alumni[key])
        except TrainingFailed as error:
            failures[key] = str(error)
        except (StillroomError, BrokenProcessPool):
            raise
        except Exception as error:  # of whatever library trains: it says nothing of other arms
            words = (str(error) or "no reason given").splitlines()[0][:300]
            failures[key] = f"training broke down: {type(error).__name__}: {words}"

    waiting = jobs()
    many = group_size() if student.trainer == "proxy" else 1
    if many > 1:
        alone = dict(waiting)
        for key, outcome in _trained_in_groups(many, alone, lab.listener.note):
            del alone[key]
            if isinstance(outcome, TrainingFailed):
                failures[key] = str(outcome)
            else:
                alumni[key] = outcome
                lab.listener.trained(*todo[key], outcome)
        waiting = iter(alone.items())
    together = lab.students or trainer_of(student.trainer).TOGETHER
    died: dict[str, tuple[Any, ...]] = {}
    for key, given, training in _trained_in(together, waiting):
        try:
            take(key, training)
        except BrokenProcessPool:
            died[key] = given
    # A process that dies takes the others of its pool with it; alone, each answers for itself.
    for key, given in died.items():
        for _, _, training in _trained_in(1, [(key, given)]):
            try:
                take(key, training)
            except BrokenProcessPool:
                failures[key] = (
                    "the process that trains died, and once more when it was alone; most often "
                    "memory is too small: see the system's log, or train a smaller batch"
                )
    return alumni, failures


def _trained_in(
    together: int, jobs: Iterable[tuple[str, tuple[Any, ...]]]
) -> Iterator[tuple[str, tuple[Any, ...], Future[Alumnus]]]:
    """Train some students at a time in processes of their own; yield each as it ends.

    GPUs are divided among the processes. One that trains alone has all of them.
    """
    running: dict[Future[Alumnus], tuple[str, tuple[Any, ...]]] = {}
    context = get_context("spawn")
    own = context.SimpleQueue()
    there = devices() if together > 1 else []
    for share in shares(there, together) if there else [""] * together:
        own.put(share)
    pool = ProcessPoolExecutor(
        together, mp_context=context, initializer=_use_devices, initargs=(own,)
    )
    with pool, _ended_together():
        for key, given in jobs:
            try:
                training = pool.submit(_train_one, *given)
            except BrokenProcessPool as error:  # an earlier one died while these were written
                training = Future()
                training.set_exception(error)
            running[training] = key, given
        for training in as_completed(running):
            yield *running[training], training


def _trained_in_groups(
    size: int, jobs: Mapping[str, tuple[Any, ...]], note: Callable[[str], None]
) -> Iterator[tuple[str, Alumnus | TrainingFailed]]:
    """Train many students in one process, a group after the other; yield each as its group ends.

    A group that dies, as one does without room on the GPU for a single student, yields nothing:
    its students, and those of later groups, are left to be trained one by one.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, _ended_together():
        waiting = list(jobs.values())
        for first in range(0, len(waiting), size):
            try:
                found = pool.submit(_train_group, waiting[first : first + size]).result()
            except RuntimeError as error:  # of torch, or a BrokenProcessPool
                words = (str(error) or type(error).__name__).splitlines()[0][:300]
                left = len(waiting) - first
                note(f"students at once: {words}; {left} students are trained one by one instead")
                return
            trained = [one.trained for one in found.values() if isinstance(one, Alumnus)]
            for words in {one.details["note"] for one in trained if "note" in one.details}:
                note(words)
            yield from found.items()


@contextlib.contextmanager
def _ended_together() -> Iterator[None]:
    """End the processes that train when this one is told to stop: students take hours."""
    try:
        yield
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.terminate()
        raise


def _use_devices(own: SimpleQueue[str]) -> None:
    """Let this process, and all that it starts, see its own GPUs alone."""
    if share := own.get():
        os.environ[VISIBLE] = share


def _train_one(root: Path, key: str, trainer: str, job: Job, about: Mapping[str, Any]) -> Alumnus:
    return train(Store(root), key, trainer_of(trainer), job, about)


def _train_group(group: Sequence[tuple[Any, ...]]) -> dict[str, Alumnus | TrainingFailed]:
    members = {key: (job, about) for _, key, _, job, about in group}
    return train_group(Store(group[0][0]), Proxy(), members)
