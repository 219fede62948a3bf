"""How the students of a study are graded: on benchmarks, and by the likelihood of right answers."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from stillroom.errors import RecipeError
from stillroom.evaluate.grade import Exam, Grades, grade
from stillroom.evaluate.hosting import hosted, launch_of
from stillroom.run.runner import At, Built
from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import ModelSpec
from stillroom.store.digest import column_digest, value_digest
from stillroom.store.store import Store, disk_errors
from stillroom.study.form import Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.result import Sat
from stillroom.train.trainer import Alumnus, Example, Pinned, folder_of


def read_items(exams: Sequence[Exam], model: str, lab: Laboratory) -> None:
    """Read the items of all benchmarks before anything is bought or trained for them.

    Raises:
        RecipeError: If a benchmark has a single item.
        SourceError: If its items cannot be read.
    """
    for exam in exams:
        items, *_ = exam.steps(model)
        at = lab.runner()(f"items.{exam.name}", items, [])
        if at.table.height < 2:
            raise RecipeError(
                f"benchmarks: {exam.name} has {at.table.height} item; expected 2 or more, because "
                "intervals are for new questions of the kind. Leave it out, or give it more."
            )


def sit(
    name: str,
    where: Path | Pinned,
    exams: Sequence[Exam],
    lab: Laboratory,
    path: str,
    graded: list[Built],
) -> dict[str, Grades]:
    """Grade a model that lies in a folder, by servers of its own if it is large."""
    with hosted(
        lab.rt.models, name, lambda: folder_of(where), lab.store.root / "serving"
    ) as models:
        here = dataclasses.replace(lab, rt=dataclasses.replace(lab.rt, models=models))
        return _grade(name, exams, here, path, graded)


def _grade(
    name: str, exams: Sequence[Exam], lab: Laboratory, path: str, graded: list[Built]
) -> dict[str, Grades]:
    """Let a model that can be asked sit all exams."""
    watcher = lab.listener.grading(path)
    return {
        exam.name: grade(
            exam, name, lab.runner(graded=graded, watcher=watcher), f"{path}.{exam.name}"
        )
        for exam in exams
    }


def references_of(
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
    runner = lab.runner(graded=graded)
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


def likelihood(alumnus: Alumnus, answers: pl.DataFrame, store: Store) -> pl.DataFrame:
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


def sit_base(
    model: str, base: Path | Pinned, exams: Sequence[Exam], lab: Laboratory, graded: list[Built]
) -> Sat:
    """Grade the untrained base model: what students are to be better than."""
    models = lab.rt.models
    here = isinstance(base, Path) and launch_of(base, models.students) is None
    if here or (isinstance(base, Pinned) and model in models.known()):
        grades = _grade(model, exams, lab, "base", graded)
    else:
        grades = sit(model, base, exams, lab, "base", graded)
    sat = Sat(model, 0, None, grades=grades)
    lab.listener.graded(sat)
    return sat


def check_hosting(study: Study, folder: Path, lab: Laboratory) -> None:
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
