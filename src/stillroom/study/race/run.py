"""Running a race: arms in rounds, at growing scales and over more seeds, until one can be chosen.

Each round is a study of the arms that are still in, so a race is resumed as a study is: everything
is in the store, and the same looks are made again in the same order. Nothing that a round needs
depends on the clock or on what was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from stillroom.errors import RecipeError
from stillroom.evaluate.grade import Exam
from stillroom.recipe.form import Recipe
from stillroom.study.arms import NoSuchPlace, change, read_arm, read_base
from stillroom.study.form import Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.race.elimination import Look, Rule, look
from stillroom.study.race.rounds import Race, Round
from stillroom.study.result import Result
from stillroom.study.run import run
from stillroom.study.statistics.noise import by_seed, training_noise
from stillroom.study.statistics.outcomes import Outcomes
from stillroom.study.students import settings_of

Ending = Literal["best", "close", "open", "alone", "none"]
"""How a race ended: one arm is the best; one is within what matters of it; rounds are used up and
several arms are left; all other arms could not be trained; no arm could be."""


@dataclass(frozen=True)
class Ran:
    """A round that was run.

    Attributes:
        round: Where and when.
        margin: Of the round.
        arms: Arms that ran.
        failed: Arm to why it could not be trained; it leaves without being judged.
        outcomes: Grades of the arms that were trained; None with fewer than two.
        look: What was seen; None with fewer than two arms to compare.
        left: Arms that go on, best first.
        result: The grades.
    """

    round: Round
    margin: float
    arms: tuple[str, ...]
    failed: Mapping[str, str]
    outcomes: Outcomes | None
    look: Look | None
    left: tuple[str, ...]
    result: Result

    def without(self, known: Set[str | None]) -> Result:
        """Return the result without students that are known, and without what was built for them.

        Rounds of one scale go on with the same students.
        """
        sat = [one for one in self.result.sat if one.student and one.student not in known]
        places = {(one.arm, one.seed) for one in sat}
        built = {place: steps for place, steps in self.result.built.items() if place in places}
        return replace(self.result, sat=sat, built=built)


@dataclass(frozen=True)
class Raced:
    """A race that ended.

    Attributes:
        study: What was asked.
        rule: What was promised.
        rounds: What was run.
        ending: How it ended.
        left: Arms that were not out at the end, best first.
        winner: The arm to choose; None if several are left that may differ by what matters.
        asked: Arm to completions that its recipe asks for, by the last round it ran.
    """

    study: Study
    rule: Rule
    rounds: tuple[Ran, ...]
    ending: Ending
    left: tuple[str, ...]
    winner: str | None
    asked: Mapping[str, int]

    @property
    def results(self) -> list[Result]:
        """What each round added: students that no round before it had."""
        known: set[str | None] = set()
        added = []
        for ran in self.rounds:
            added.append(ran.without(known))
            known |= {sat.student for sat in added[-1].sat}
        return added


def race_of(study: Study) -> Race:
    """Return the race of a study that has one."""
    if study.race is None:
        raise ValueError(f"{study.name} is no race")
    return study.race


def recipes_of(study: Study, *, beside: Path) -> list[dict[str, Recipe]]:
    """Return the recipe of every arm at every scale, and check the settings of each.

    Args:
        study: A study with a race.
        beside: Folder of the study file.

    Raises:
        RecipeError: If the base cannot be read, or an arm, a scale or its settings do not fit.
    """
    return recipes_on(study, *read_base(study.base, beside))


def recipes_on(study: Study, name: str, data: Mapping[str, Any]) -> list[dict[str, Recipe]]:
    """Return the recipe of every arm at every scale on a given base, and check the settings.

    Args:
        study: A study with a race.
        name: Of the base, for messages.
        data: What the base says.

    Raises:
        RecipeError: If an arm, a scale or its settings do not fit.
    """
    recipes = []
    for place, scale in enumerate(race_of(study).scales):
        where = f"{study.name}: race.scales[{place}]"
        try:
            base = change(data, scale.changes)
        except NoSuchPlace as error:
            raise RecipeError(f"{where}: {error}. The base is {name}.") from None
        recipes.append(
            {arm: read_arm(name, base, arm, changes) for arm, changes in study.arms.items()}
        )
        given = study.student.model_copy(
            update={"settings": {**study.student.settings, **scale.settings}}
        )
        try:
            settings_of(given)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from None
    return recipes


def round_of(study: Study, look: Round, arms: Sequence[str]) -> Study:
    """Return the study that a round is.

    Args:
        study: The whole.
        look: The round.
        arms: Arms that are still in.
    """
    settings = {**study.student.settings, **look.scale.settings}
    return study.model_copy(
        update={
            "arms": {arm: study.arms[arm] for arm in study.arms if arm in arms},
            "rows": look.scale.rows,
            "tokens": look.scale.tokens,
            "seeds": look.seeds,
            "student": study.student.model_copy(update={"settings": settings}),
            "race": None,
        }
    )


def rule_of(study: Study) -> Rule:
    """Return what the race of a study promises."""
    race = race_of(study)
    return Rule(len(study.arms), len(race.rounds), race.confidence, study.matters)


def run_race(
    study: Study,
    recipes: Sequence[Mapping[str, Recipe]],
    exams: Sequence[Exam],
    lab: Laboratory,
    heard: Callable[[Ran], None] = lambda ran: None,
) -> Raced:
    """Run rounds until an arm can be chosen, or rounds are used up.

    Args:
        study: A study with a race.
        recipes: Arm to recipe at each scale, from `recipes_of`.
        exams: What students are graded on.
        lab: Where to run.
        heard: Called after each round.

    Raises:
        StillroomError: If rows cannot be made or students cannot be graded; what was done before is
            in the store, and the same call goes on from there.
    """

    def run_round(one: Round, small: Study) -> Result:
        return run(small, {arm: recipes[one.place][arm] for arm in small.arms}, exams, lab)

    return hold(study, run_round, heard)


def hold(
    study: Study,
    run_round: Callable[[Round, Study], Result],
    heard: Callable[[Ran], None] = lambda ran: None,
) -> Raced:
    """Hold a race, wherever its rounds are run.

    Args:
        study: A study with a race.
        run_round: Runs a round, which is a study of the arms that are still in.
        heard: Called after each round.
    """
    race, rule = race_of(study), rule_of(study)
    left = tuple(study.arms)
    rounds: list[Ran] = []
    asked: dict[str, int] = {}
    seen: dict[int, dict[str, list[float]]] = {}
    for one in race.rounds:
        result = run_round(one, round_of(study, one, left))
        asked |= {arm: result.asked(arm) for arm in left}
        ran = _judge(race, rule, one, result, seen.setdefault(one.place, {}))
        rounds.append(ran)
        heard(ran)
        left = ran.left
        if len(left) < 2 or (ran.look and ran.look.close):
            break
    ending, winner = _end(rounds, asked)
    return Raced(study, rule, tuple(rounds), ending, left, winner, asked)


def _judge(race: Race, rule: Rule, one: Round, result: Result, seen: dict[str, list[float]]) -> Ran:
    """Judge a round; ``seen`` holds what each arm got on each seed of this scale."""
    arms = tuple(result.study.arms)
    failed = {sat.arm: sat.failed for sat in result.sat if sat.failed}
    margin = race.margin_at(one)
    trained = [arm for arm in arms if arm not in failed]
    if len(trained) < 2:
        return Ran(one, margin, arms, failed, None, None, tuple(trained), result)
    grades = result.grades().filter(pl.col("arm").is_in(trained))
    outcomes = Outcomes.of(grades, trained)
    seen |= by_seed(outcomes)
    last = one.place == len(race.scales) - 1
    judged = look(outcomes, rule, training_noise(seen), margin=margin, last=last)
    return Ran(one, margin, arms, failed, outcomes, judged, judged.left, result)


def _end(rounds: Sequence[Ran], asked: Mapping[str, int]) -> tuple[Ending, str | None]:
    """Say how a race ended, and which arm to choose."""
    end = rounds[-1]
    if not end.left:
        return "none", None
    if len(end.left) == 1:
        judged = any(ran.look and ran.look.lost for ran in rounds)
        return ("best" if judged else "alone"), end.left[0]
    if end.look and end.look.close:
        return "close", min(end.look.close, key=lambda arm: asked[arm])
    return "open", None
