"""What a study would do: what arms share, what is there, and what it could see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from stillroom.evaluate.grade import Exam
from stillroom.recipe.form import Recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.planner import Planned, Planner
from stillroom.steps.base import Calls, Runtime, Step
from stillroom.steps.foretelling import add_up
from stillroom.store.digest import value_digest
from stillroom.store.store import Store
from stillroom.study.arms import replicate
from stillroom.study.form import Study
from stillroom.study.mixing.run import RandomMixtures
from stillroom.study.reports.verdict import with_more
from stillroom.study.statistics.foresight import detectable
from stillroom.study.students import settings_of
from stillroom.train.trainer import usual_seconds


@dataclass(frozen=True)
class Work:
    """Steps and calls.

    Attributes:
        steps: Steps.
        cached: Of these, steps that are in the store.
        asked: What the others would ask of models.
    """

    steps: int = 0
    cached: int = 0
    asked: tuple[Calls, ...] = ()

    def plus(self, planned: Planned) -> "Work":
        """Add a step."""
        asked = () if planned.calls is None or planned.state == "cached" else (planned.calls,)
        return Work(
            self.steps + 1, self.cached + (planned.state == "cached"), (*self.asked, *asked)
        )

    @property
    def calls(self) -> Calls:
        """Completions to buy, with tokens and price and their intervals, as far as known."""
        return add_up(self.asked)


@dataclass(frozen=True)
class StudyPlan:
    """What a study would do.

    Attributes:
        arms: Arm to its own work: what no other arm does, over all seeds.
        shared: Work that two or more arms have in common.
        naive: Work if nothing were shared or cached.
        students: Students to train.
        training: Device seconds that such a student took before in this store, and how many there
            were; None if there was none.
        attempts: Attempts on benchmarks that students would make, without those of ``uncounted``.
        uncounted: Benchmarks whose items are not known before they are fetched.
        seen: Number of seeds to the smallest difference that would probably be seen, 0 to 1; first
            the study's own, unless it has one, which shows no noise. Empty where no benchmark's
            items are known, and where no arms are compared.
        fewest: Items that each of ``uncounted`` is taken to have for that: as many as the smallest
            of the others.
        compares: Whether arms are compared with each other.
        planned: Arm and seed to the plan of its steps.
        different: Every step once, whichever arms it is for, by a name that speaks of it and of all
            before it.
        short: Arms that make fewer rows than the study wants, and may not repeat them, to the most
            that they can make.
    """

    arms: Mapping[str, Work]
    shared: Work
    naive: Work
    students: int
    training: tuple[float, int] | None
    attempts: int
    uncounted: Sequence[str]
    seen: Mapping[int, float]
    fewest: int
    compares: bool
    planned: Mapping[tuple[str, int], Sequence[Planned]]
    different: Mapping[str, Planned]
    short: Mapping[str, int]


def plan_study(
    study: Study,
    recipes: Mapping[str, Recipe],
    exams: Sequence[tuple[Exam, int | None]],
    *,
    store: Store,
    rt: Runtime,
) -> StudyPlan:
    """Plan a study without doing any of it.

    Args:
        study: What is asked.
        recipes: Arm to recipe.
        exams: Each exam with its number of items, as far as known.
        store: Where results would be found and kept.
        rt: Where and how steps would run.
    """
    planned: dict[tuple[str, int], list[Planned]] = {}
    owners: dict[str, set[str]] = {}
    once = _Once(Planner(store, rt, {}))
    naive = Work()
    short: dict[str, int] = {}
    wanted = study.rows if study.rows and study.shortage == "refuse" else 0
    for seed in range(study.seeds):
        for arm, recipe in recipes.items():
            here, ends = once.plan(replicate(recipe, seed))
            bounds = [end.at_most if end.rows is None else end.rows for end in ends]
            makes = sum(bound or 0 for bound in bounds)
            if None not in bounds and makes < wanted:
                short[arm] = min(makes, short.get(arm, makes))
            planned[arm, seed] = [one for _, one in here]
            for name, one in here:
                owners.setdefault(name, set()).add(arm)
                naive = naive.plus(one)
    arms = dict.fromkeys(recipes, Work())
    shared = Work()
    for name, one in once.known.items():
        if len(owners[name]) > 1:
            shared = shared.plus(one)
        else:
            (arm,) = owners[name]
            arms[arm] = arms[arm].plus(one)
    known = [size for _, size in exams if size is not None]
    fewest = min(known, default=0)
    students = len(recipes) * study.seeds
    compares = not isinstance(study, RandomMixtures)
    return StudyPlan(
        arms=arms,
        shared=shared,
        naive=naive,
        students=students,
        training=usual_seconds(
            store, study.student.trainer, study.student.model, settings_of(study.student)
        ),
        attempts=sum(exam.repeats * size * students for exam, size in exams if size is not None),
        uncounted=[exam.name for exam, size in exams if size is None],
        seen={
            n: detectable([size or fewest for _, size in exams], n, arms=len(recipes))
            for n in with_more(study.seeds)
            if compares and known
        },
        fewest=fewest,
        compares=compares,
        planned=planned,
        different=once.known,
        short=short,
    )


@dataclass
class _Once:
    """Plans a step once for all arms and seeds: it may ask the hub, or read a large file.

    Attributes:
        planner: Plans a step.
        known: What was planned, by `_identities`.
    """

    planner: Planner
    known: dict[str, Planned] = field(default_factory=dict)

    def plan(
        self, domains: Mapping[str, Sequence[Step]]
    ) -> tuple[list[tuple[str, Planned]], list[Planned]]:
        """Return the plan of each step of a pipeline with its identity, and of each last step."""
        names = _identities(domains)
        here: list[tuple[str, Planned]] = []

        def one(path: str, step: Step, inputs: Sequence[Planned]) -> Planned:
            name = names[path]
            if name not in self.known:
                self.known[name] = self.planner(path, step, inputs)
            here.append((name, replace(self.known[name], path=path)))
            return here[-1][1]

        ends = walk(domains, one)
        return here, list(ends.values())


def _identities(domains: Mapping[str, Sequence[Step]]) -> dict[str, str]:
    """Name each step by itself and all before it: equal names are one piece of work."""
    names: dict[str, str] = {}

    def name(path: str, step: Step, inputs: Sequence[str]) -> str:
        names[path] = value_digest([step.STEP, step.VERSION, step.identity(), list(inputs)])
        return names[path]

    walk(domains, name)
    return names
