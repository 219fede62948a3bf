"""`study`: run a study and write its report; and the plan of a study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.cli.options import parse_budget, runtime_options, spending_options
from stillroom.cli.runtime import open_runtime
from stillroom.cli.tables import print_table
from stillroom.cli.teller import Teller
from stillroom.errors import SetupError
from stillroom.evaluate.grade import known_benchmark, names_of
from stillroom.recipe.form import Recipe
from stillroom.run.planner import totals
from stillroom.run.progress import duration
from stillroom.steps.base import Calls
from stillroom.store.gc import using
from stillroom.study.arms import arms_of, read_base
from stillroom.study.form import Study
from stillroom.study.laboratory import Laboratory
from stillroom.study.load import is_search, load_design
from stillroom.study.run import run

if TYPE_CHECKING:
    from stillroom.study.plan import StudyPlan, Work


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=None,
    help="Folder of the report.  [default: beside the study]",
)  # fmt: skip
@click.option(
    "--students", type=click.IntRange(min=1), default=None,
    help="Students trained at a time, each in a process of its own.  [default: one for each "
    "core of the trainer proxy, 1 of others]",
)  # fmt: skip
@spending_options
@runtime_options
def study(
    file: Path,
    out: Path | None,
    students: int | None,
    retry_failed: bool,
    budget: str | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Run the study in FILE: every arm, every seed, a student each; then write the report.

    What arms have in common is done once. A study with `race` drops arms that cannot win as it
    goes. If it stops, however it stops, the same command goes on where it was, and students that
    could not be trained are tried again.
    """
    need("scipy", "torch")
    from stillroom.study.mixing.run import run_mixing
    from stillroom.study.reports.mixing import write_mixing_report
    from stillroom.study.reports.study import write_report

    loaded = load_design(file)
    recipes = [recipe for _, arms in _parts(file) for recipe in arms.values()]
    exams = loaded.benchmarks.exams()
    console = Console(highlight=False)
    names = names_of(exams)
    folder = out or file.parent
    if isinstance(loaded, Study) and loaded.race:
        from stillroom.cli.race import race

        race(
            loaded, file, folder, students, retry_failed, budget, store_path, models_path, sources,
            workers,
        )  # fmt: skip
        return
    with (
        open_runtime(store_path, recipes, models_path, sources, workers, names, loaded.models) as (
            store,
            rt,
        ),
        using(store, loaded.name) as use,
    ):
        listener = Teller(console)
        rt = replace(rt, retry_failed=retry_failed, purse=parse_budget(budget))
        lab = Laboratory(store, rt, students, listener, file.parent, use)
        try:
            if isinstance(loaded, Study):
                arms = arms_of(loaded, beside=file.parent)
                written = write_report(run(loaded, arms, exams, lab), folder)
            else:
                name, base = read_base(loaded.base, file.parent)
                written = write_mixing_report(run_mixing(loaded, name, base, exams, lab), folder)
        finally:
            listener.stop()
    report, facts = (
        next(path for path in written if path.name == name)
        for name in ("report.md", "results.json")
    )
    verdict = json.loads(facts.read_text("utf-8")).get("verdict")
    for line in verdict or ["No arms were compared."]:
        console.print(Text(f"- {line}"))
    if listener.failed:
        console.print(
            Text(
                f"{listener.failed:,} students could not be trained; the report says why, and the "
                "same command tries them again."
            )
        )
    console.print(Text(f"The whole report is {report} and {report.with_suffix('.html')}"))


def _parts(file: Path) -> list[tuple[Study, dict[str, Recipe]]]:
    """Return the studies of a study, or of the stages of a search, with their recipes."""
    from stillroom.study.search.form import Entry, Search, load_search
    from stillroom.study.search.plan import preview

    if is_search(file):
        return preview(load_search(file), beside=file.parent)
    base = load_design(file).base
    return preview(Search(base=base, stages=(Entry(study=file.name),)), beside=file.parent)


def show_plan(
    file: Path, store_path: Path, models_path: Path | None, sources: tuple[str, ...], workers: int
) -> None:
    """Print what a study would do, or the studies of a search if every control won."""
    need("scipy", "torch")
    from stillroom.study.plan import plan_study

    parts = _parts(file)
    console = Console(highlight=False)
    recipes = [recipe for _, arms in parts for recipe in arms.values()]
    exams = [exam for study, _ in parts for exam in study.benchmarks.exams()]
    names = names_of(exams)
    with open_runtime(store_path, recipes, models_path, sources, workers, names) as (store, rt):
        plans = []
        for study, arms in parts:
            sizes = [known_benchmark(name).sat for name in study.benchmarks.develop]
            sat = list(zip(study.benchmarks.exams(), sizes, strict=True))
            plans.append(plan_study(study, arms, sat, store=store, rt=rt))
    for (study, _), plan in zip(parts, plans, strict=True):
        if len(parts) > 1:
            console.print(Text(f"{study.name}: {study.question}", style="bold"))
        _print_plan(plan, study.rows or 0, console)
        if study.race:
            from stillroom.cli.race import plan_rounds

            plan_rounds(study, plan, console)
    if len(parts) > 1:
        students = sum(plan.students for plan in plans)
        console.print(
            Text(
                f"{students} students to train in all, if the control of every study won; what "
                "winners share with it is done once."
            )
        )
        steps = {name: step for plan in plans for name, step in plan.different.items()}
        for line in totals(list(steps.values())):
            console.print(Text(f"In all, {line}"), soft_wrap=True)


def _print_plan(planned: StudyPlan, rows: int, console: Console) -> None:
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("")
    for name in ("steps", "in the store", "calls at most", "tokens", "USD"):
        grid.add_column(name, justify="right", no_wrap=True)

    def row(name: str, work: Work) -> None:
        calls = work.calls
        cells = [f"{cell:,}" for cell in (work.steps, work.cached, calls.missing)]
        grid.add_row(Text(name), *cells, *_expected(calls))

    row("shared by arms", planned.shared)
    for arm, work in planned.arms.items():
        row(f"{arm} alone", work)
    row("if nothing were shared", planned.naive)
    print_table(grid, console)
    for line in totals(list(planned.different.values())):
        console.print(Text(line), soft_wrap=True)
    for arm, most in planned.short.items():
        console.print(
            Text(
                f"Too few: {arm} makes {most:,} rows at most, and the study wants {rows:,}. There "
                "it will stop; take more questions, ask for fewer rows, or set shortage: upsample."
            )
        )
    _print_students(planned, console)
    if not planned.compares:
        console.print(
            Text(
                "These students are not compared with each other: a regression on all of them "
                "proposes weights (docs/search.md)."
            )
        )
    if planned.seen:
        from stillroom.study.reports.verdict import reach

        seeds = len({seed for _, seed in planned.planned})
        least = next(iter(planned.seen))
        it = "It" if seeds > 1 else f"One seed does not show what training varies. With {least} it"
        taken = ""
        if planned.uncounted:
            taken = f", with {planned.fewest} items for each that is not counted"
        console.print(
            Text(
                f"{it} would usually see a difference of {reach(planned.seen)}{taken}, if students "
                "vary as small ones do (docs/statistics.md)."
            )
        )


def _expected(calls: Calls) -> tuple[str, str]:
    """Word tokens and dollars, each with its 95% interval where there is one.

    >>> usd = {"usd": 1.5, "usd_range": (1.0, 2.0)}
    >>> _expected(Calls("", 9, 9, tokens=1200, tokens_range=(1152, 1300), **usd))
    ('1,200 (1,152 to 1,300)', '1.50 (1.00 to 2.00)')
    >>> _expected(Calls("", 9, 9, tokens=1200, bound=True))
    ('≤1,200', 'unknown')
    """
    sign = "≤" if calls.bound and calls.missing else ""
    tokens = "unknown" if calls.tokens is None else f"{sign}{calls.tokens:,}"
    usd = "unknown" if calls.usd is None else f"{sign}{calls.usd:,.2f}" if calls.usd else ""
    if calls.tokens and calls.tokens_range:
        tokens += " ({:,} to {:,})".format(*calls.tokens_range)
    if calls.usd and calls.usd_range:
        usd += " ({:,.2f} to {:,.2f})".format(*calls.usd_range)
    return tokens, usd


def _print_students(planned: StudyPlan, console: Console) -> None:
    attempts = f", {planned.attempts:,} attempts on benchmarks" if planned.attempts else ""
    if planned.uncounted:
        names = ", ".join(planned.uncounted)
        attempts += f"; those on {names} are counted once the items are fetched"
    console.print(Text(f"{planned.students} students to train{attempts}."))
    if planned.training is None:
        console.print(Text("How long one trains is not known before one was trained here."))
        return
    each, known = planned.training
    console.print(
        Text(
            f"{duration(each)} of one device each, {duration(each * planned.students)} in all, "
            f"as {known} of the kind took here."
        )
    )


def need(*modules: str) -> None:
    """Check that an extra is installed, without importing it.

    Raises:
        SetupError: If a module is missing.
    """
    import importlib.util

    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise SetupError(
                f"study: {module} is not installed; expected the extra. "
                "Run pip install 'stillroom[study]'."
            )
