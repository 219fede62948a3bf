"""A search: studies in order, the winner of each going into the recipe of the next.

    base: base.yaml
    stages:
      - {study: 1-sources/study.yaml, ranks: math.mix.rank}
      - 2-mixing/study.yaml
      - 3-questions/study.yaml
    rule: best
    overrule:
      3-questions: {arm: "longest answers", because: "it grows further"}

A stage is a study file; its own `base` is not read here, because its base is what the stages before
it made. The rule is stated beforehand: `best` promotes the arm of the highest mean; `cheapest`
promotes the one that asks for the fewest completions, of the arms that cannot be told from the
best, and of equally cheap ones the first. Of a race (`stillroom.study.rounds`) the same rule
chooses among the arms that are left. A person may overrule it with a reason, and the report shows
both. A stage with `ranks` promotes the order of its arms, the best mean first, and not one arm:
sources are ranked before it is asked how many of the best to mix. A study with `mixtures` is a
stage like any other: its arms are the base's weights and those that its regression proposes.

Source: OpenThoughts, arXiv 2506.04178, section 3: six stages, each winner frozen before the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stillroom.errors import RecipeError
from stillroom.recipe.document import Document
from stillroom.recipe.form import Recipe
from stillroom.store.store import disk_errors, replace_text
from stillroom.study.arms import NoSuchPlace, change
from stillroom.study.forest import Line, forest_svg
from stillroom.study.form import Mixing, Study
from stillroom.study.load import load_design
from stillroom.study.mixing import (
    Mixed,
    confirmation,
    draw_weights,
    random_study,
    run_mixing,
    sources_of,
)
from stillroom.study.mixing_report import found, write_mixing_report
from stillroom.study.page import Block, write
from stillroom.study.race import Raced, recipes_on, run_race
from stillroom.study.race_report import outcome, write_race_report
from stillroom.study.report import cost, write_report
from stillroom.study.run import Laboratory, Result, read_arm, read_base, run, settings_of
from stillroom.study.statistics import Outcomes, means, not_worse, scores
from stillroom.study.verdict import interval, points, verdict

Rule = Literal["best", "cheapest"]


class Overruled(BaseModel):
    """A person's choice in place of the rule's.

    Attributes:
        arm: The arm to promote.
        because: Why; the report shows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    because: str = Field(min_length=1)


class Entry(BaseModel):
    """A stage of a search as its file names it.

    Attributes:
        study: A study file, relative to the search.
        ranks: Where in the recipe the names of all arms go, the best first; see
            `stillroom.study.arms`. Without it the changes of the winner go on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    ranks: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"study": value} if isinstance(value, str) else value


class Search(BaseModel):
    """Stages in order, and how winners are chosen.

    Attributes:
        base: The recipe that the first stage starts from: a path beside the search, or a shipped
            name.
        stages: Studies in order; a file name alone stands for its study.
        rule: ``best`` or ``cheapest``.
        overrule: Name of a stage to a person's choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    stages: tuple[Entry, ...] = Field(min_length=1)
    rule: Rule = "best"
    overrule: Mapping[str, Overruled] = {}


@dataclass(frozen=True)
class Stage:
    """A stage that was run.

    Attributes:
        entry: What the search says of it.
        study: Its study, on the base that the stages before it made.
        result: What came out.
        mixed: What a study with mixtures did before; None for others.
        raced: The race, of which ``study`` and ``result`` are the last round; None for others.
        ranking: All arms, the best mean first; those that could not be trained last.
        chosen: The arm that the rule chose.
        promoted: The arm that went on.
        because: Why a person overruled the rule; empty if nobody did.
        asked: Arm to completions asked for, all seeds together.
    """

    entry: Entry
    study: Study
    result: Result
    mixed: Mixed | None
    raced: Raced | None
    ranking: tuple[str, ...]
    chosen: str
    promoted: str
    because: str
    asked: Mapping[str, int]

    @property
    def changes(self) -> Mapping[str, Any]:
        """What goes into the recipe of the next stage."""
        if self.entry.ranks is None:
            return self.study.arms[self.promoted]
        first = self.promoted if self.because else self.ranking[0]
        others = [arm for arm in self.ranking if arm != first]
        return {self.entry.ranks: [first, *others]}

    @property
    def arms(self) -> list[str]:
        """The arms that were trained, control first."""
        return [arm for arm in self.study.arms if arm in self.asked]


def load_search(path: Path) -> Search:
    """Read a search from a YAML file, and its stages.

    Raises:
        RecipeError: If it cannot be read, or says something that cannot be done.
    """
    document = Document(str(path))
    try:
        data = document.parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path}: cannot be read ({error}); expected a search in YAML. Check the path."
        ) from None
    document.unknown(data, Search.model_fields, (), "field")
    try:
        search = Search.model_validate(data)
    except ValidationError as error:
        raise document.invalid(error, (), data, Search) from None
    names: list[str] = []
    for number, entry in enumerate(search.stages):
        design = load_design(path.parent / entry.study)
        if design.name in names:
            raise document.error(
                ("stages", number),
                f"is {design.name}, as a stage before it; expected another name, because reports "
                "and choices go by it",
            )
        if entry.ranks and isinstance(design, Mixing):
            raise document.error(
                ("stages", number, "ranks"),
                f"cannot be of {design.name}, which has mixtures; expected a study with arms",
            )
        if entry.ranks and isinstance(design, Study) and design.race:
            raise document.error(
                ("stages", number, "ranks"),
                f"cannot be of {design.name}, which is a race: arms that leave early are in no "
                "order; expected a study that runs all its arms",
            )
        names.append(design.name)
    for name in search.overrule:
        if name not in names:
            raise document.error(
                ("overrule", name), f"is no stage; expected one of {', '.join(names)}"
            )
    return search


def preview(search: Search, *, beside: Path) -> list[tuple[Study, dict[str, Recipe]]]:
    """Return the studies of all stages and their recipes, as if every control won.

    Nothing is run. A study with mixtures gives two: the random mixtures, and their confirmation
    with the first of them in place of the weights that would be proposed.

    Args:
        search: The search.
        beside: Folder of the search file.

    Raises:
        RecipeError: If an arm does not fit the recipe of its stage.
    """
    name, data = read_base(search.base, beside)
    studies: list[tuple[Study, dict[str, Recipe]]] = []
    for entry in search.stages:
        design = load_design(beside / entry.study)
        if isinstance(design, Study) and design.race:
            recipes_on(design, name, data)
        parts = [design] if isinstance(design, Study) else _mixing_parts(design, name, data)
        for study in parts:
            settings_of(study.student)
            recipes = {arm: read_arm(name, data, arm, ch) for arm, ch in study.arms.items()}
            studies.append((study, recipes))
        control = parts[-1].arms[parts[-1].control]
        changes = {entry.ranks: list(parts[-1].arms)} if entry.ranks else control
        data = _promote(name, data, changes, design.name)
    return studies


def _mixing_parts(mixing: Mixing, name: str, data: Mapping[str, Any]) -> list[Study]:
    sources = sources_of(mixing, read_arm(name, data, mixing.name, {}))
    weights = draw_weights(mixing, sources)
    return [random_study(mixing, sources, weights), confirmation(mixing, sources, weights[0])]


def _promote(
    name: str, data: Mapping[str, Any], changes: Mapping[str, Any], stage: str
) -> dict[str, Any]:
    """Change the recipe, and check what comes out."""
    try:
        changed = change(data, changes)
    except NoSuchPlace as error:
        raise RecipeError(f"stage {stage}: {error}. The base is {name}.") from None
    read_arm(name, changed, f"promoted by {stage}", {})
    return changed


def run_search(search: Search, lab: Laboratory, *, beside: Path, out: Path) -> list[Stage]:
    """Run the stages in order, and report each and the whole.

    Everything is in the store, so a search that was stopped goes on where it was.

    Args:
        search: Stages and rule.
        lab: Where to run.
        beside: Folder of the search file.
        out: Folder of the reports: one folder a stage, the report of the search, and
            ``promoted.yaml``, the recipe that all winners make.

    Raises:
        StillroomError: If a stage cannot be run.
    """
    name, data = read_base(search.base, beside)
    stages: list[Stage] = []
    for entry in search.stages:
        design = load_design(beside / entry.study)
        exams = design.benchmarks.exams()
        lab = replace(lab, beside=(beside / entry.study).parent)
        mixed = raced = None
        if isinstance(design, Mixing):
            mixed = run_mixing(design, name, data, exams, lab)
            result = mixed.confirmation
            write_mixing_report(mixed, out / design.name)
        elif design.race:
            raced = run_race(design, recipes_on(design, name, data), exams, lab)
            result = raced.rounds[-1].result
            write_race_report(raced, out / design.name)
        else:
            recipes = {arm: read_arm(name, data, arm, ch) for arm, ch in design.arms.items()}
            result = run(design, recipes, exams, lab)
            write_report(result, out / design.name)
        stage = _judge(entry, result, mixed, raced, search)
        stages.append(stage)
        data = _promote(name, data, stage.changes, design.name)
        _write_promoted(out, data, stages)
        write(out, "Search", _blocks(search, stages), _facts(search, stages))
    return stages


def _judge(
    entry: Entry, result: Result, mixed: Mixed | None, raced: Raced | None, search: Search
) -> Stage:
    study = result.study
    failed = {sat.arm for sat in result.sat if sat.failed}
    arms = [arm for arm in study.arms if arm not in failed]
    if not arms:
        raise RecipeError(
            f"{study.name}: no arm was trained; expected one to promote. See its report."
        )
    asked = {arm: result.asked(arm) for arm in arms}
    mean = means(_outcomes(result, arms))
    ranking = (*sorted(arms, key=lambda arm: -mean[arm]), *(a for a in study.arms if a in failed))
    chosen = ranking[0]
    if search.rule == "cheapest" and len(arms) > 1 and entry.ranks is None:
        chosen = _cheapest(study, not_worse(_outcomes(result, arms)), asked)
    if raced:
        # The last round is the only one that all its arms are compared in.
        chosen = raced.left[0]
        if search.rule == "cheapest":
            tied = [raced.winner] if raced.winner else raced.left
            chosen = _cheapest(raced.study, tied, raced.asked)
    overruled = search.overrule.get(study.name)
    if overruled is None:
        return Stage(entry, study, result, mixed, raced, ranking, chosen, chosen, "", asked)
    if overruled.arm not in arms:
        raise RecipeError(
            f"overrule {study.name}: {overruled.arm} is no arm that was trained; expected one of "
            f"{', '.join(arms)}. Correct the search file."
        )
    because = overruled.because
    return Stage(entry, study, result, mixed, raced, ranking, chosen, overruled.arm, because, asked)


def _cheapest(study: Study, tied: Sequence[str], asked: Mapping[str, int]) -> str:
    """Choose the cheapest arm; of equally cheap ones the first, so that the control may stay."""
    return min((arm for arm in study.arms if arm in tied), key=lambda arm: asked[arm])


def _outcomes(result: Result, arms: Sequence[str]) -> Outcomes:
    grades = result.grades()
    return Outcomes.of(grades.filter(grades["arm"].is_in(arms)), arms)


def _write_promoted(out: Path, data: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Write the recipe that the winners so far make, with where its parts come from."""
    chain = "".join(f"# {s.study.name}: {_promoted(s)}\n" for s in stages)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
        replace_text(out / "promoted.yaml", chain + text)


def _promoted(stage: Stage) -> str:
    if stage.entry.ranks is None:
        return stage.promoted
    return "ranked: " + ", ".join(next(iter(stage.changes.values())))


def _blocks(search: Search, stages: Sequence[Stage]) -> list[Block]:
    rule = {
        "best": "the arm of the highest mean",
        "cheapest": "the arm that asks for the fewest completions, of those that cannot be told "
        "from the best; of equally cheap ones the first, so that the control stays unless "
        "something beats it",
    }[search.rule]
    left = len(search.stages) - len(stages)
    blocks = [
        Block(heading="What a search over recipes chose"),
        Block(text=f"Promoted after each stage: {rule}. The rule was stated beforehand."),
    ]
    if left:
        blocks.append(Block(text=f"Not finished: {left} of {len(search.stages)} stages are left."))
    rows, lines = [], []
    for stage in stages:
        estimate = next(
            s.estimate
            for s in scores(_outcomes(stage.result, stage.arms))
            if s.arm == stage.promoted and s.benchmark is None
        )
        name = stage.study.name
        how = "by the rule"
        if stage.because:
            how = f"by a person: {stage.because} (the rule chose {stage.chosen})"
        span = interval(estimate.low, estimate.high)
        rows.append([name, _promoted(stage), points(estimate.value), span, how])
        value, low, high = 100 * estimate.value, 100 * estimate.low, 100 * estimate.high
        control = means(_outcomes(stage.result, stage.arms)).get(stage.study.control)
        against = None if control is None else 100 * control
        lines.append(Line(name, value, low, high, against=against))
    header = ["stage", "promoted", "right, %", "95% interval", "how"]
    blocks.append(Block(table=(header, rows)))
    title = "Percent right: the promoted arm of each stage; ticks: its control"
    blocks.append(Block(plot=("stages.svg", forest_svg(title, lines, zero=False))))
    blocks.append(
        Block(
            text="Every promoted arm was chosen because it did well on these questions, so its "
            "score flatters it a little. Held-out benchmarks, which stillroom promote opens, do "
            "not."
        )
    )
    for stage in stages:
        blocks.append(Block(heading=f"{stage.study.name}: {stage.study.question}"))
        said = found(stage.mixed)[:2] if stage.mixed else []
        if stage.raced:
            said += outcome(stage.raced)
        elif len(stage.arms) > 1 and stage.arms[0] == stage.study.control:
            said += verdict(stage.study, _outcomes(stage.result, stage.arms))
        if said:
            blocks.append(Block(points=said))
        blocks.append(Block(text=f"The report is {stage.study.name}/report.md."))
    return blocks + cost([result for stage in stages for result in _results(stage)])


def _results(stage: Stage) -> list[Result]:
    if stage.raced:
        return stage.raced.results
    return [stage.mixed.random, stage.result] if stage.mixed else [stage.result]


def _facts(search: Search, stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "search": search.model_dump(mode="json"),
        "stages": [
            {
                "stage": s.study.name, "chosen": s.chosen, "promoted": s.promoted,
                "because": s.because, "ranking": list(s.ranking), "asked": dict(s.asked),
            }
            for s in stages
        ],
    }  # fmt: skip
