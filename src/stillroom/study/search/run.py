"""Running a search: each stage on the recipe that the stages before it made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from stillroom.errors import RecipeError
from stillroom.store.store import disk_errors, replace_text
from stillroom.study.arms import read_arms, read_base
from stillroom.study.form import Mixing, Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.load import load_design
from stillroom.study.mixing.run import Mixed, run_mixing
from stillroom.study.race.run import Raced, recipes_on, run_race
from stillroom.study.reports.mixing import write_mixing_report
from stillroom.study.reports.race import write_race_report
from stillroom.study.reports.search import write_search_report
from stillroom.study.reports.study import write_report
from stillroom.study.result import Result
from stillroom.study.run import run
from stillroom.study.search.form import Entry, Search
from stillroom.study.search.stage import Stage, outcomes_of, promote
from stillroom.study.statistics.comparing import means, not_worse


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
            recipes = read_arms(name, data, design.arms)
            result = run(design, recipes, exams, lab)
            write_report(result, out / design.name)
        stage = _judge(entry, result, mixed, raced, search)
        stages.append(stage)
        data = promote(name, data, stage.changes, design.name)
        _write_promoted(out, data, stages)
        write_search_report(search, stages, out)
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
    mean = means(outcomes_of(result, arms))
    ranking = (*sorted(arms, key=lambda arm: -mean[arm]), *(a for a in study.arms if a in failed))
    chosen = ranking[0]
    if search.rule == "cheapest" and len(arms) > 1 and entry.ranks is None:
        chosen = _cheapest(study, not_worse(outcomes_of(result, arms)), asked)
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


def _write_promoted(out: Path, data: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Write the recipe that the winners so far make, with where its parts come from."""
    chain = "".join(f"# {s.study.name}: {s.promotes}\n" for s in stages)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)
        replace_text(out / "promoted.yaml", chain + text)
