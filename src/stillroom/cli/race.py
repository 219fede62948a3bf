"""Races: what `study` and `plan` do with a study that has `race`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.cli.options import parse_budget
from stillroom.cli.runtime import open_runtime
from stillroom.cli.teller import Teller
from stillroom.evaluate.grade import known_benchmark, names_of
from stillroom.run.progress import duration
from stillroom.store.gc import using
from stillroom.study.form import Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.race.run import Ran, recipes_of, run_race
from stillroom.study.reports.verdict import points

if TYPE_CHECKING:
    from stillroom.study.plan import StudyPlan


def race(
    study: Study,
    file: Path,
    out: Path,
    students: int | None,
    retry_failed: bool,
    budget: str | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Run the race of a study, print a table after each round, and write the report.

    Args:
        study: A study with a race.
        file: Where it was read from.
        out: Folder of the report.
        students: Students trained at a time.
        retry_failed: Whether to ask again for answers that failed for good.
        budget: What it may spend, if not anything.
        store_path: The store.
        models_path: Where models are.
        sources: Local copies of sources.
        workers: Processes for steps.
    """
    from stillroom.study.reports.race import outcome, write_race_report

    recipes = recipes_of(study, beside=file.parent)
    exams = study.benchmarks.exams()
    names = names_of(exams)
    console = Console(highlight=False)
    every = [recipe for scale in recipes for recipe in scale.values()]
    with (
        open_runtime(store_path, every, models_path, sources, workers, names, study.models) as (
            store,
            rt,
        ),
        using(store, study.name) as use,
    ):
        teller = Teller(console)
        rt = replace(rt, retry_failed=retry_failed, purse=parse_budget(budget))
        lab = Laboratory(store, rt, students, teller, file.parent, use)

        def heard(ran: Ran) -> None:
            teller.stop()
            _print_round(console, ran)

        try:
            raced = run_race(study, recipes, exams, lab, heard)
        finally:
            teller.stop()
    report = next(p for p in write_race_report(raced, out) if p.name == "report.md")
    for line in outcome(raced):
        console.print(Text(line))
    if raced.winner:
        console.print(Text(f"Promote it by: stillroom promote {file} '{raced.winner}'"))
    console.print(Text(f"The whole report is {report} and {report.with_suffix('.html')}"))


def _print_round(console: Console, ran: Ran) -> None:
    grid = Grid(box=None, pad_edge=False)
    grid.add_column(f"round {ran.round.number}")
    for name in ("right, %", "from the first", "interval", ""):
        grid.add_column(name, justify="right" if name else "left")
    if ran.look:
        lost = {one.arm: one.to for one in ran.look.lost}
        for arm, mean in ran.look.means.items():
            by = ran.look.behind.get(arm)
            state = f"out, lost to {lost[arm]}" if arm in lost else "in"
            state = "close" if arm in ran.look.close else state
            value = f"{100 * by.value:+.1f}" if by else ""
            span = f"{100 * by.low:+.1f} to {100 * by.high:+.1f}" if by else ""
            grid.add_row(Text(arm), f"{100 * mean:.1f}", value, span, Text(state))
    for arm in ran.failed:
        grid.add_row(Text(arm), "", "", "", "out, not trained")
    console.print(grid)


def plan_rounds(study: Study, whole: StudyPlan, console: Console) -> None:
    """Print what the rounds of a race would do, below the plan of the full grid."""
    from stillroom.study.race.plan import SPREAD, plan_race

    if not whole.fewest:
        console.print(
            Text("That is the full grid. The rounds are planned once its benchmarks are fetched.")
        )
        return
    sizes = [known_benchmark(name).sat or whole.fewest for name in study.benchmarks.develop]
    plan = plan_race(study, sizes)
    console.print(Text("That is the full grid. It is a race, in these rounds:"))
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("")
    for name in ("size", "seeds", "students at most", "expected", "drops arms worse by"):
        grid.add_column(name, justify="right")
    for one in plan.rounds:
        grid.add_row(
            f"round {one.round.number}", one.round.scale.words, str(one.round.seeds),
            f"{one.most:,}", f"{one.expected:,.1f}", f"{100 * one.drops:.1f} points",
        )  # fmt: skip
    console.print(grid)
    took = ""
    if whole.training:
        seconds = whole.training[0] * whole.students
        took = f" ({duration(seconds * plan.worst)} and {duration(seconds * plan.expected)})"
    console.print(
        Text(
            f"It learns from at most {100 * plan.worst:.0f}% of the full grid's data, and from "
            f"{100 * plan.expected:.0f}% on average{took}, if arms differ by a standard deviation "
            f"of {100 * SPREAD:.0f} points; then {100 * plan.named:.0f}% of races name a winner."
        )
    )
    if plan.width > study.matters:
        console.print(
            Text(
                f"The last round's intervals will be about ±{100 * plan.width:.1f} points, more "
                f"than the {points(study.matters)} that matter: arms closer than that may be left "
                "together. More questions narrow them most."
            )
        )
