"""Running a study: rows for every arm and seed, a student each, and its grades.

Arms share what they have in common through the store: a step with the same fields and the same
input is one artifact, a question asked twice of a teacher is one call, a student of the same rows
is trained once. A study that was stopped goes on where it was; nothing is kept beside the store.

A *seed* is one replication. It shifts every `seed` of a step that draws at random (take, keep, mix,
minhash, a classifier's training, ...), so that other rows are drawn from the same sources; and it
orders the rows of training.
Attempts on a benchmark differ because each student is a model of its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

from stillroom.evaluate.grade import Exam, title_of
from stillroom.recipe.form import Recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.runner import Built
from stillroom.store.table import Table
from stillroom.study.arms import replicate
from stillroom.study.form import Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.result import Result, Sat
from stillroom.study.rows import Budget, Drawn, draw
from stillroom.study.seals import EVERY_ARM, Opening, open_seal, openings
from stillroom.study.sitting import likelihood, read_items, references_of, sit, sit_base
from stillroom.study.students import base_of, key_of, settings_of, train_students
from stillroom.study.suspects import check_files, suspects_among
from stillroom.train.trainer import base_content, student_key
from stillroom.train.trainers import trainer_of


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
    base = base_of(study.student, lab.rt)
    budget = Budget(study.rows, study.tokens, study.shortage == "upsample")
    read_items(exams, study.student.model, lab)
    built: dict[tuple[str, int], list[Built]] = {}
    drawn: dict[tuple[str, int], Drawn] = {}
    for seed in range(study.seeds):
        for arm, recipe in recipes.items():
            runner = lab.runner(watcher=lab.listener.step(arm, seed))
            ends = walk(replicate(recipe, seed), runner)
            built[arm, seed] = runner.built
            tables: dict[str, Table] = {domain: at.table for domain, at in ends.items()}
            drawn[arm, seed] = draw(arm, tables, budget, seed)
    check_files(study, built, exams, lab.rt)
    named = partial(
        student_key, study.student.trainer, trainer.VERSION, settings, base_content(base)
    )
    keys = {place: key_of(rows, place[1], named, lab.store) for place, rows in drawn.items()}
    graded: list[Built] = []
    right = references_of(study.references, exams, lab, graded)
    alumni, failures = train_students(study, settings, base, drawn, keys, lab)
    sat = [sit_base(study.student.model, base, exams, lab, graded)]
    for place, rows in drawn.items():
        arm, seed = place
        key = keys[place]
        shown = rows.named(lab.store)
        about = Sat(arm, seed, key, rows.there, rows.rows, rows.distinct, shown)
        if key in failures:
            one = dataclasses.replace(about, failed=failures[key])
        else:
            alumnus = alumni[key]
            one = dataclasses.replace(
                about,
                trained=dataclasses.asdict(alumnus.trained),
                seconds=alumnus.seconds,
                grades=sit(alumnus.name, alumnus.path, exams, lab, f"{arm}.{seed}", graded),
                likelihood={
                    name: likelihood(alumnus, answers, lab.store) for name, answers in right.items()
                },
            )
        sat.append(one)
        lab.listener.graded(one)
    suspects = suspects_among(study, built, lab.store, lab.beside)
    return Result(study, sat, built, openings(lab.store), suspects, graded)
