"""Running a study: rows for every arm and seed, a student each, and its grades.

Arms share what they have in common through the store: a step with the same fields and the same
input is one artifact, a question asked twice of a teacher is one call, a student of the same rows
is trained once. A study that was stopped goes on where it was; nothing is kept beside the store.

A *seed* is one replication. It shifts every `seed` of a step that draws at random (take, keep, mix,
minhash, a classifier's training, ...), so that other rows are drawn from the same sources; and it
orders the rows of training.
Attempts on a benchmark differ because each student is a model of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from pydantic import BaseModel

from stillroom.errors import RecipeError, StillroomError
from stillroom.evaluate.contamination import Suspects
from stillroom.evaluate.grade import Exam, Grades, grade, title_of
from stillroom.evaluate.hosting import hosted, launch_of
from stillroom.recipe.document import Document
from stillroom.recipe.form import Recipe
from stillroom.recipe.load import read_recipe, recipe_text
from stillroom.recipe.pipeline import walk
from stillroom.run.runner import At, Built, Runner, Watcher
from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import ModelSpec, Runtime, Step
from stillroom.steps.source.source import Source
from stillroom.store.digest import column_digest, value_digest
from stillroom.store.store import Store, disk_errors
from stillroom.store.table import Table
from stillroom.study.arms import NoSuchPlace, change
from stillroom.study.form import Study
from stillroom.study.rows import Budget, Drawn, draw
from stillroom.study.seals import EVERY_ARM, Opening, open_seal, openings
from stillroom.study.suspects import suspects_among
from stillroom.train.proxy import Proxy, group_size
from stillroom.train.tool import VISIBLE, devices, shares
from stillroom.train.trainer import (
    Alumnus,
    Example,
    Job,
    Pinned,
    Student,
    TrainingFailed,
    base_content,
    find,
    student_key,
    train,
    train_group,
)
from stillroom.train.trainers import trainer_of


def read_base(base: str, beside: Path) -> tuple[str, dict[str, Any]]:
    """Read the recipe that arms share, as data.

    Args:
        base: A path relative to the study file, or the name of a shipped recipe.
        beside: Folder of the study file.

    Returns:
        Its name for messages, and what the file says.

    Raises:
        RecipeError: If it cannot be read, or is no recipe.
    """
    path = beside / base
    name = str(path) if path.exists() else base
    text = recipe_text(name)
    read_recipe(text, name)  # complains about the base in its own words
    return name, Document(name).parse(text)


def arms_of(study: Study, *, beside: Path) -> dict[str, Recipe]:
    """Return the recipe of every arm.

    Args:
        study: The study.
        beside: Folder of the study file.

    Raises:
        RecipeError: If the base cannot be read, an arm does not fit it, or two arms are the same.
    """
    name, data = read_base(study.base, beside)
    recipes = {arm: read_arm(name, data, arm, changes) for arm, changes in study.arms.items()}
    for (arm, one), (other, recipe) in combinations(recipes.items(), 2):
        if one == recipe:
            raise RecipeError(
                f"arms {arm} and {other} are the same recipe, {name}; expected arms that differ. "
                "Change what one of them says."
            )
    return recipes


def made_of(study: Study, recipes: Mapping[str, Recipe]) -> str:
    """Digest how the students of some arms are made: their recipes, their size, their training.

    Args:
        study: The study.
        recipes: Arm to recipe.
    """
    size = [study.rows, study.tokens, study.shortage, study.seeds]
    steps = [recipe.model_dump(mode="json", by_alias=True) for recipe in recipes.values()]
    return value_digest([steps, study.student.model_dump(mode="json"), size])


def read_arm(name: str, base: Mapping[str, Any], arm: str, changes: Mapping[str, Any]) -> Recipe:
    """Make the recipe of one arm.

    Args:
        name: Of the base, for messages.
        base: What the base says.
        arm: Name of the arm.
        changes: Path to value; see `stillroom.study.arms`.

    Raises:
        RecipeError: If a path leads nowhere, or what comes out is no recipe.
    """
    try:
        changed = change(base, changes)
    except NoSuchPlace as error:
        raise RecipeError(f"arm {arm}: {error}. The base is {name}.") from None
    return read_recipe(yaml.safe_dump(changed, sort_keys=False), f"{name}, arm {arm}")


def replicate(recipe: Recipe, seed: int) -> dict[str, tuple[Step, ...]]:
    """Return the bound steps of one replication: every random draw shifted by the seed.

    Those of a step's parts are shifted too, such as the hash functions of `minhash` and the
    training of a classifier. What sources generate stays as it is.
    """

    def shifted(part: Any) -> Any:
        match part:
            case Source():
                return part
            case BaseModel():
                update = {name: new for name, old in part if (new := shifted(old)) != old}
                if "seed" in type(part).model_fields:
                    update["seed"] = part.seed + seed  # type: ignore[attr-defined]
                return part.model_copy(update=update)
            case Mapping():
                return {name: shifted(value) for name, value in part.items()}
            case tuple():
                return tuple(map(shifted, part))
        return part

    return {domain: shifted(steps) for domain, steps in recipe.bound().items()}


@dataclass(frozen=True)
class Sat:
    """One student: an arm and a seed, trained and graded.

    Attributes:
        arm: Its arm.
        seed: Its replication, from 0.
        student: Its key in the store; None for the base model, untrained.
        there: Rows that the arm's recipe made.
        rows: Rows that it was trained on, repeats counted.
        distinct: Of these, different ones.
        shown: Digest of what these rows say.
        trained: What training said of itself.
        seconds: Of training; 0 if it was found.
        grades: Benchmark to grades.
        likelihood: Benchmark to ``item`` and ``score``: mean log-likelihood per token of a right
            answer, in nats; empty without ``references``.
        failed: Why there are no grades, or None.
    """

    arm: str
    seed: int
    student: str | None
    there: int = 0
    rows: int = 0
    distinct: int = 0
    shown: str = ""
    trained: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    grades: Mapping[str, Grades] = field(default_factory=dict)
    likelihood: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True)
class Result:
    """A study that was run.

    Attributes:
        study: What was asked.
        sat: A student for every arm and seed, and the untrained base model.
        built: Steps of all arms, by arm and seed, for drops, keys and cost.
        openings: Of held-out benchmarks, by whatever study used this store.
        suspects: Benchmark items that training data ask, if the study says how to know them.
        graded: Steps of all sittings and references, for their cost.
    """

    study: Study
    sat: list[Sat]
    built: dict[tuple[str, int], list[Built]]
    openings: Sequence[Opening] = ()
    suspects: Suspects | None = None
    graded: Sequence[Built] = ()

    def grades(self) -> pl.DataFrame:
        """Return every attempt of every student, a row each."""
        frames = [
            g.table.select(
                pl.lit(s.arm).alias("arm"),
                pl.lit(s.seed).alias("seed"),
                pl.lit(benchmark).alias("benchmark"),
                "item", "repeat", "score", "verdict", "finish_reason", "completion_tokens",
            )
            for s in self.sat
            if s.student is not None
            for benchmark, g in s.grades.items()
        ]  # fmt: skip
        return pl.concat(frames)

    def asked(self, arm: str) -> int:
        """Count the completions that an arm's recipe asks for, found or bought."""
        here = [b for (name, _), steps in self.built.items() for b in steps if name == arm]
        return sum(asked_by(built) for built in here)

    def likelihoods(self) -> pl.DataFrame | None:
        """Return the second outcome of every student in the form of `grades`, if there is one."""
        frames = [
            table.select(
                pl.lit(s.arm).alias("arm"),
                pl.lit(s.seed).alias("seed"),
                pl.lit(benchmark).alias("benchmark"),
                "item",
                pl.lit(0).alias("repeat"),
                "score",
            )
            for s in self.sat
            if s.student is not None
            for benchmark, table in s.likelihood.items()
        ]
        return pl.concat(frames) if frames else None


def asked_by(built: Built) -> int:
    """Count the completions that a step asked for, found or bought.

    A run that goes on after a kill counts what was left to it; the draws of `answer` are known.
    """
    manifest = built.artifact.manifest
    counted = (manifest.measured.get("calls") or 0) + (manifest.measured.get("reused") or 0)
    return max(counted, manifest.rows_in) if manifest.step == Answer.STEP else counted


class Listener:
    """Hears what a study does. This one says nothing."""

    def step(self, arm: str, seed: int) -> Watcher:
        """Return who hears of the steps of one arm."""
        return Watcher()

    def training(self, waiting: int, found: int) -> None:
        """Hear how many students are to be trained, and how many were found."""

    def trained(self, arm: str, seed: int, alumnus: Alumnus) -> None:
        """Hear that a student is there."""

    def graded(self, sat: Sat) -> None:
        """Hear the grades of a student."""


@dataclass(frozen=True)
class Laboratory:
    """Where studies are run.

    Attributes:
        store: Where everything is found and kept.
        rt: Where and how steps run.
        students: Students trained at a time; what suits their trainer when None.
        listener: Hears of progress.
        beside: Folder in which files that the study names are looked up.
    """

    store: Store
    rt: Runtime
    students: int | None = None
    listener: Listener = field(default_factory=Listener)
    beside: Path = Path()


def run(
    study: Study, recipes: Mapping[str, Recipe], exams: Sequence[Exam], lab: Laboratory
) -> Result:
    """Run every arm with every seed.

    An arm whose training fails is marked and does not stop the others.

    Args:
        study: What is asked.
        recipes: Arm to recipe, from `arms_of`.
        exams: What students are graded on.
        lab: Where to run.

    Raises:
        StillroomError: If rows cannot be made or students cannot be graded; what was done before is
            in the store, and the same call goes on from there.
    """
    for title in {exam.name for exam in exams} - set(map(title_of, study.benchmarks.held_out)):
        open_seal(lab.store, Opening(title, study.name, EVERY_ARM))
    trainer = trainer_of(study.student.trainer)
    settings = settings_of(study.student)
    base = _base(study.student, lab.rt)
    budget = Budget(study.rows, study.tokens, study.shortage == "upsample")
    _read_items(exams, study.student.model, lab)
    built: dict[tuple[str, int], list[Built]] = {}
    drawn: dict[tuple[str, int], Drawn] = {}
    for seed in range(study.seeds):
        for arm, recipe in recipes.items():
            runner = Runner(lab.store, lab.rt, lab.listener.step(arm, seed))
            ends = walk(replicate(recipe, seed), runner)
            built[arm, seed] = runner.built
            tables: dict[str, Table] = {domain: at.table for domain, at in ends.items()}
            drawn[arm, seed] = draw(arm, tables, budget, seed)
    named = partial(
        student_key, study.student.trainer, trainer.VERSION, settings, base_content(base)
    )
    keys = {place: key_of(rows, place[1], named, lab.store) for place, rows in drawn.items()}
    graded: list[Built] = []
    right = _references(study.references, exams, lab, graded)
    alumni, failures = _train(study, settings, base, drawn, keys, lab)
    sat = [_sit_base(study.student.model, base, exams, lab, graded)]
    for place, rows in drawn.items():
        arm, seed = place
        key = keys[place]
        about = Sat(arm, seed, key, rows.there, rows.rows, rows.copies.height, rows.digest)
        if key in failures:
            one = dataclasses.replace(about, failed=failures[key])
        else:
            alumnus = alumni[key]
            one = dataclasses.replace(
                about,
                trained=dataclasses.asdict(alumnus.trained),
                seconds=alumnus.seconds,
                grades=_sit(alumnus.name, alumnus.path, exams, lab, f"{arm}.{seed}", graded),
                likelihood={
                    name: _likelihood(alumnus, answers, lab.store)
                    for name, answers in right.items()
                },
            )
        sat.append(one)
        lab.listener.graded(one)
    suspects = suspects_among(study, built, lab.store, lab.beside)
    return Result(study, sat, built, openings(lab.store), suspects, graded)


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
    return named(rows.digest, seed) if find(store, older) is None else older


def settings_of(student: Student) -> dict[str, Any]:
    """Return the complete settings of a student's trainer.

    Raises:
        RecipeError: If there is no such preset or setting, or a value is out of range.
    """
    try:
        return trainer_of(student.trainer).settings(student.preset, student.settings)
    except ValueError as error:
        raise RecipeError(f"student: {error}.") from None


def _base(student: Student, rt: Runtime) -> Path | Pinned:
    """Find the base model: on the hub where a revision is given, else a local directory."""
    if student.revision:
        return Pinned(student.model, student.revision)
    return rt.models.directory(student.model)


def _read_items(exams: Sequence[Exam], model: str, lab: Laboratory) -> None:
    """Read the items of all benchmarks before anything is bought or trained for them.

    Raises:
        RecipeError: If a benchmark has a single item.
        SourceError: If its items cannot be read.
    """
    for exam in exams:
        items, *_ = exam.steps(model)
        at = Runner(lab.store, lab.rt)(f"items.{exam.name}", items, [])
        if at.table.height < 2:
            raise RecipeError(
                f"benchmarks: {exam.name} has {at.table.height} item; expected 2 or more, because "
                "intervals are for new questions of the kind. Leave it out, or give it more."
            )


def _sit(
    name: str,
    where: Path | Pinned,
    exams: Sequence[Exam],
    lab: Laboratory,
    path: str,
    graded: list[Built],
) -> dict[str, Grades]:
    """Grade a model that lies in a folder, by servers of its own if it is large."""
    with hosted(lab.rt.models, name, lambda: _folder(where), lab.store.root / "serving") as models:
        rt = dataclasses.replace(lab.rt, models=models)
        return {
            exam.name: grade(
                exam, name, Runner(lab.store, rt, remember=graded.append), f"{path}.{exam.name}"
            )
            for exam in exams
        }


def _references(
    references: ModelSpec | None, exams: Sequence[Exam], lab: Laboratory, graded: list[Built]
) -> dict[str, pl.DataFrame]:
    """Return the right answers to each exam that has enough of them to compare students by.

    Raises:
        RecipeError: If references are asked for, and no exam has.
    """
    if references is None:
        return {}
    right = {exam.name: _right_answers(references, exam, lab, graded) for exam in exams}
    enough = {name: answers for name, answers in right.items() if answers.height >= 2}
    if not enough:
        found = ", ".join(f"{answers.height} of {name}" for name, answers in right.items())
        raise RecipeError(
            f"references: {references.name} answered {found} right; expected 2 items or more of a "
            "benchmark, to compare students by. Name a better model, or none."
        )
    return enough


def _right_answers(
    references: ModelSpec, exam: Exam, lab: Laboratory, graded: list[Built]
) -> pl.DataFrame:
    """Return ``item``, ``question``, ``reasoning`` and ``answer`` of the first right answers.

    The question is what students are asked, with the words that the exam puts around it.
    """
    at: list[At] = []
    runner = Runner(lab.store, lab.rt, remember=graded.append)
    items, _, verify = exam.steps(references.name)
    answer = Answer(model=references, prefix=exam.prefix, suffix=exam.suffix)
    for step in (items, answer, verify):
        at = [runner(f"references.{exam.name}.{step.label}", step, at)]
    table = at[0].table.scan("question_id", "question", "reasoning", "answer", "verdict").collect()
    right = table.filter(pl.col("verdict") == "correct").drop("verdict")
    asked = pl.concat_str(pl.lit(exam.prefix), "question", pl.lit(exam.suffix))
    right = right.with_columns(asked.alias("question"))
    return right.unique("question_id", keep="first", maintain_order=True).rename(
        {"question_id": "item"}
    )


def _likelihood(alumnus: Alumnus, answers: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Score right answers under a student, once."""
    wanted = value_digest(
        ["engine", alumnus.key, [column_digest(answers[c]) for c in answers.columns]]
    )
    path = store.root / "scores" / f"{wanted}.parquet"
    if path.exists():
        return pl.read_parquet(path)
    from stillroom.train.likelihood import log_likelihood

    examples = [Example(*row) for row in answers.drop("item").iter_rows()]
    scored = log_likelihood(alumnus.path, examples)
    table = answers.select("item").with_columns(
        pl.Series("score", [s.completion for s in scored], dtype=pl.Float64),
        pl.Series("answer_score", [s.answer for s in scored], dtype=pl.Float64),
    )
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        table.write_parquet(partial)
        partial.replace(path)
    return table


def _sit_base(
    model: str, base: Path | Pinned, exams: Sequence[Exam], lab: Laboratory, graded: list[Built]
) -> Sat:
    """Grade the untrained base model: what students are to be better than."""
    models = lab.rt.models
    here = isinstance(base, Path) and launch_of(base, models.students) is None
    if here or (isinstance(base, Pinned) and model in models.known()):
        runner = Runner(lab.store, lab.rt, remember=graded.append)
        grades = {exam.name: grade(exam, model, runner, f"base.{exam.name}") for exam in exams}
    else:
        grades = _sit(model, base, exams, lab, "base", graded)
    sat = Sat(model, 0, None, grades=grades)
    lab.listener.graded(sat)
    return sat


def _folder(base: Path | Pinned) -> Path:
    return base.fetch() if isinstance(base, Pinned) else base


def _check_hosting(study: Study, folder: Path, lab: Laboratory) -> None:
    """Look before anything is trained whether students of this base can be graded.

    Raises:
        SetupError: If the program that would serve them is missing.
        RecipeError: If their likelihoods are asked for, and the local engine cannot score them.
    """
    launch = launch_of(folder, lab.rt.models.students)
    if launch is None:
        return
    launch.check()
    if study.references is not None:
        raise RecipeError(
            f"references: students of {study.student.model} are served by {launch.program}, and "
            "likelihoods are scored by the local engine alone; expected no references here. "
            "Remove them, or take a smaller student."
        )


def _train(
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

    folder = _folder(base)
    _check_hosting(study, folder, lab)

    def jobs() -> Iterator[tuple[str, tuple[Any, ...]]]:
        for key, at in todo.items():
            rows = lab.store.root / "building" / f"rows-{key}"
            drawn[at].write(rows)
            job = Job(folder, rows, settings, at[1])
            about = {"trainer": student.trainer, "base": student.model, "rows": drawn[at].digest}
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
        for key, outcome in _trained_in_groups(many, alone):
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
    size: int, jobs: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, Alumnus | TrainingFailed]]:
    """Train many students in one process, a group after the other; yield each as its group ends.

    A group that dies, or finds no memory on the GPU, yields nothing: its students, and those of
    later groups, are left to be trained one by one.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, _ended_together():
        waiting = list(jobs.values())
        for first in range(0, len(waiting), size):
            try:
                found = pool.submit(_train_group, waiting[first : first + size]).result()
            except RuntimeError:  # of torch, or a BrokenProcessPool
                return
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
    alumnus = train(Store(root), key, trainer_of(trainer), job, about)
    shutil.rmtree(job.rows, ignore_errors=True)
    return alumnus


def _train_group(group: Sequence[tuple[Any, ...]]) -> dict[str, Alumnus | TrainingFailed]:
    members = {key: (job, about) for _, key, _, job, about in group}
    found = train_group(Store(group[0][0]), Proxy(), members)
    for key, outcome in found.items():
        if isinstance(outcome, Alumnus):
            shutil.rmtree(members[key][0].rows, ignore_errors=True)
    return found
