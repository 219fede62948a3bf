"""`study`: run a study and write its report; and the plan of a study."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.benchmarks.registry import benchmarks
from stillroom.cli.options import runtime_options
from stillroom.cli.runtime import open_runtime
from stillroom.cli.teller import Teller
from stillroom.errors import SetupError
from stillroom.evaluate.grade import exam_of
from stillroom.study.load import load_study
from stillroom.study.run import Laboratory, arms_of, run, settings_of


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=None,
    help="Folder of the report.  [default: beside the study]",
)  # fmt: skip
@click.option(
    "--students", type=click.IntRange(min=1), default=None,
    help="Students trained at a time, each in a process of its own.  [default: 2 of the trainer "
    "proxy, 1 of others]",
)  # fmt: skip
@runtime_options
def study(
    file: Path,
    out: Path | None,
    students: int | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Run the study in FILE: every arm, every seed, a student each; then write the report.

    What arms have in common is done once. If it stops, however it stops, the same command goes on
    where it was.
    """
    need("scipy", "torch")
    from stillroom.study.report import write_report

    loaded = load_study(file)
    settings_of(loaded.student)
    recipes = arms_of(loaded, beside=file.parent)
    exams = [exam_of(name, loaded.benchmarks.repeats) for name in loaded.benchmarks.develop]
    console = Console(highlight=False)
    names = [exam.name for exam in exams]
    with open_runtime(store_path, list(recipes.values()), models_path, sources, workers, names) as (
        store,
        rt,
    ):
        listener = Teller(console)
        try:
            result = run(loaded, recipes, exams, Laboratory(store, rt, students, listener))
        finally:
            listener.stop()
    folder = out or file.parent
    written = write_report(result, folder)
    report = next(path for path in written if path.name == "report.md")
    console.print(Text(report.read_text("utf-8").split("\n\n")[1]))
    console.print(Text(f"The whole report is {report} and {report.with_suffix('.html')}"))


def show_plan(
    file: Path, store_path: Path, models_path: Path | None, sources: tuple[str, ...], workers: int
) -> None:
    """Print what a study would do."""
    need("scipy", "torch")
    from stillroom.study.plan import Work, plan_study

    loaded = load_study(file)
    settings_of(loaded.student)
    recipes = arms_of(loaded, beside=file.parent)
    names = list(loaded.benchmarks.develop)
    exams = [(exam_of(n, loaded.benchmarks.repeats), benchmarks()[n].items) for n in names]
    with open_runtime(store_path, list(recipes.values()), models_path, sources, workers, names) as (
        store,
        rt,
    ):
        planned = plan_study(loaded, recipes, exams, store=store, rt=rt)
    console = Console(highlight=False)
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("")
    for name in ("steps", "in the store", "calls to buy", "tokens", "USD"):
        grid.add_column(name, justify="right")

    def row(name: str, work: Work) -> None:
        cells = (work.steps, work.cached, work.calls, work.tokens)
        usd = f"{work.usd:,.2f}" if work.usd else ""
        grid.add_row(Text(name), *(f"{cell:,}" for cell in cells), usd)

    row("shared by arms", planned.shared)
    for arm, work in planned.arms.items():
        row(f"{arm} alone", work)
    row("if nothing were shared", planned.naive)
    console.print(grid)
    attempts = "" if planned.attempts is None else f", {planned.attempts:,} attempts on benchmarks"
    console.print(Text(f"{planned.students} students to train{attempts}."))
    if planned.detectable is not None:
        console.print(
            Text(
                f"It would usually see a difference of {100 * planned.detectable:.1f} points or "
                "more, if students vary as small ones do (docs/statistics.md)."
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
