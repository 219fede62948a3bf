"""A search: studies in order, the winner of each going into the recipe of the next.

    base: base.yaml
    stages: [1-sources/study.yaml, 2-mixing/study.yaml, ...]
    rule: best
    overrule:
      4-draws: {arm: "exact, 16 answers", because: "it grows further"}

A stage is a study file; its own `base` is not read here, because its base is what the stages before
it made. The rule is stated beforehand: `best` promotes the arm of the highest mean; `cheapest`
promotes the one that asks for the fewest completions, of the arms that cannot be told from the
best. A person may overrule it with a reason, and the report shows both.

Source: OpenThoughts, arXiv 2506.04178, section 3: six stages, each winner frozen before the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillroom.errors import RecipeError
from stillroom.evaluate.grade import exam_of
from stillroom.recipe.document import Document
from stillroom.store.store import disk_errors, replace_text
from stillroom.study.arms import change
from stillroom.study.form import Study
from stillroom.study.load import load_study
from stillroom.study.page import Block, write
from stillroom.study.report import write_report
from stillroom.study.run import Laboratory, Result, read_arm, read_base, run
from stillroom.study.statistics import Outcomes, means, not_worse
from stillroom.study.verdict import points, verdict

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


class Search(BaseModel):
    """Stages in order, and how winners are chosen.

    Attributes:
        base: The recipe that the first stage starts from: a path beside the search, or a shipped
            name.
        stages: Study files, relative to the search.
        rule: ``best`` or ``cheapest``.
        overrule: Name of a stage to a person's choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    stages: tuple[str, ...] = Field(min_length=1)
    rule: Rule = "best"
    overrule: Mapping[str, Overruled] = {}


@dataclass(frozen=True)
class Stage:
    """A stage that was run.

    Attributes:
        study: Its study, on the base that the stages before it made.
        result: What came out.
        chosen: The arm that the rule chose.
        promoted: The arm that went on.
        because: Why a person overruled the rule; empty if nobody did.
        cost: Arm to completions asked for, all seeds together.
    """

    study: Study
    result: Result
    chosen: str
    promoted: str
    because: str
    cost: Mapping[str, int]


def load_search(path: Path) -> Search:
    """Read a search from a YAML file.

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
    names = [load_study(path.parent / stage).name for stage in search.stages]
    for name in search.overrule:
        if name not in names:
            raise document.error(
                ("overrule", name), f"is no stage; expected one of {', '.join(names)}"
            )
    return search


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
    for file in search.stages:
        study = load_study(beside / file)
        recipes = {arm: read_arm(name, data, arm, ch) for arm, ch in study.arms.items()}
        exams = [exam_of(b, study.benchmarks.repeats) for b in study.benchmarks.develop]
        result = run(study, recipes, exams, lab)
        write_report(result, out / study.name)
        stage = _judge(study, result, search)
        stages.append(stage)
        data = change(data, study.arms[stage.promoted])
        _write_promoted(out, data)
        write(out, "Search", _blocks(search, stages), _facts(search, stages))
    return stages


def _judge(study: Study, result: Result, search: Search) -> Stage:
    failed = {sat.arm for sat in result.sat if sat.failed}
    arms = [arm for arm in study.arms if arm not in failed]
    if not arms:
        raise RecipeError(
            f"{study.name}: no arm was trained; expected one to promote. See its report."
        )
    cost = {arm: _asked(result, arm) for arm in arms}
    if len(arms) == 1:
        chosen = arms[0]
    else:
        outcomes = _outcomes(result, arms)
        tied = not_worse(outcomes)
        chosen = tied[0] if search.rule == "best" else min(tied, key=lambda arm: cost[arm])
    overruled = search.overrule.get(study.name)
    if overruled is None:
        return Stage(study, result, chosen, chosen, "", cost)
    if overruled.arm not in arms:
        raise RecipeError(
            f"overrule {study.name}: {overruled.arm} is no arm that was trained; expected one of "
            f"{', '.join(arms)}. Correct the search file."
        )
    return Stage(study, result, chosen, overruled.arm, overruled.because, cost)


def _outcomes(result: Result, arms: Sequence[str]) -> Outcomes:
    grades = result.grades()
    return Outcomes.of(grades.filter(grades["arm"].is_in(arms)), arms)


def _asked(result: Result, arm: str) -> int:
    """Count the completions that an arm's recipe asks for, found or bought."""
    total = 0
    for (name, _), steps in result.built.items():
        for built in steps if name == arm else ():
            measured = built.artifact.manifest.measured
            total += (measured.get("calls") or 0) + (measured.get("reused") or 0)
    return total


def _write_promoted(out: Path, data: Mapping[str, Any]) -> None:
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
        replace_text(out / "promoted.yaml", text)


def _blocks(search: Search, stages: Sequence[Stage]) -> list[Block]:
    rule = {
        "best": "the arm of the highest mean",
        "cheapest": "the arm that asks for the fewest completions, of those that cannot be told "
        "from the best",
    }[search.rule]
    blocks = [
        Block(heading="What a search over recipes chose"),
        Block(text=f"Promoted after each stage: {rule}. The rule was stated beforehand."),
    ]
    rows = []
    for stage in stages:
        arms = [arm for arm in stage.study.arms if arm in stage.cost]
        mean = means(_outcomes(stage.result, arms))[stage.promoted]
        how = f"overruled ({stage.chosen}): {stage.because}" if stage.because else "by the rule"
        rows.append([stage.study.name, stage.promoted, points(mean), how])
    blocks.append(Block(table=(["stage", "promoted", "right, %", "how"], rows)))
    for stage in stages:
        arms = [arm for arm in stage.study.arms if arm in stage.cost]
        blocks.append(Block(heading=f"{stage.study.name}: {stage.study.question}"))
        if len(arms) > 1 and arms[0] == stage.study.control:
            blocks.append(Block(points=verdict(stage.study, _outcomes(stage.result, arms))))
        blocks.append(Block(text=f"The report is {stage.study.name}/report.md."))
    return blocks


def _facts(search: Search, stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "search": search.model_dump(mode="json"),
        "stages": [
            {
                "stage": s.study.name, "chosen": s.chosen, "promoted": s.promoted,
                "because": s.because, "cost": dict(s.cost),
            }
            for s in stages
        ],
    }  # fmt: skip
