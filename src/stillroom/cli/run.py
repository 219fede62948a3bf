"""`run` and `plan`."""

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.cli.options import (
    parse_budget,
    runtime_options,
    sandbox_options,
    spending_options,
)
from stillroom.cli.runtime import open_runtime
from stillroom.cli.study import show_plan
from stillroom.cli.tables import print_table
from stillroom.recipe.load import read_recipe, recipe_text
from stillroom.recipe.make import make, pilot
from stillroom.recipe.make import plan as make_plan
from stillroom.run.planner import Planned, amount, totals
from stillroom.run.progress import Progress
from stillroom.study.load import is_search, is_study


@click.command()
@click.argument("recipe")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None,
    help="Folder of the dataset.  [default: datasets/<name>]",
)  # fmt: skip
@click.option("--replay", is_flag=True, help="Buy nothing: only the ledger answers.")
@spending_options
@sandbox_options
@runtime_options
def run(
    recipe: str,
    out: Path | None,
    retry_failed: bool,
    replay: bool,
    budget: str | None,
    sandbox: str,
    allow_unsandboxed: bool,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Make a dataset from RECIPE: a file, or the name of a shipped recipe such as quickstart.

    What the store holds is not made again. If a run stops, however it stops, the same command
    goes on where it was.
    """
    text = recipe_text(recipe)
    loaded = read_recipe(text, recipe)
    console = Console(highlight=False, stderr=False)
    progress = Progress(console)
    folder = out or Path("datasets") / loaded.name
    with open_runtime(store_path, [loaded], models_path, sources, workers, models=()) as (
        store,
        rt,
    ):
        console.print(Text(f"{loaded.name} → {folder}, with the store {store_path}"))
        rt = replace(
            rt,
            retry_failed=retry_failed,
            replay=replay,
            purse=parse_budget(budget),
            sandbox=sandbox,
            allow_unsandboxed=allow_unsandboxed,
        )
        try:
            made = make(loaded, text=text, store=store, rt=rt, out=folder, watcher=progress)
        finally:
            progress.stop()
    console.print(Text(f"{made.dataset.rows:,} rows in {folder}/ (its card is README.md)"))


@click.command()
@click.argument("recipe", metavar="RECIPE|STUDY")
@click.option("--pilot", "pilot_size", metavar="N", type=click.IntRange(min=1), default=None,
              help="First buy N answers of the first step that lacks more, and do the steps "
              "before it; the estimate is made of them.")  # fmt: skip
@sandbox_options
@runtime_options
def plan(
    recipe: str,
    pilot_size: int | None,
    sandbox: str,
    allow_unsandboxed: bool,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Say for every step of RECIPE whether it is cached, what it would buy, and why it is stale.

    What answers will take is told from those that the ledger holds, with an interval.
    For a study: what its arms share, what it would buy, and what difference it could see. For a
    search: that of each of its stages.
    """
    if is_study(Path(recipe)) or is_search(Path(recipe)):
        if pilot_size is not None:
            raise click.UsageError(
                f"--pilot: {recipe} is no recipe; expected one. Plan the base of a study with "
                "--pilot: the arms share the answers."
            )
        show_plan(Path(recipe), store_path, models_path, sources, workers)
        return
    text = recipe_text(recipe)
    loaded = read_recipe(text, recipe)
    console = Console(highlight=False)
    with open_runtime(store_path, [loaded], models_path, sources, workers) as (store, rt):
        rt = replace(rt, sandbox=sandbox, allow_unsandboxed=allow_unsandboxed)
        if pilot_size is not None:
            progress = Progress(console)
            try:
                said = pilot(
                    loaded, size=pilot_size, text=text, store=store, rt=rt, watcher=progress
                )
            finally:
                progress.stop()
            console.print(Text(said), soft_wrap=True)
        planned = make_plan(loaded, store=store, rt=rt)
    _print_plan(planned, console)


def _print_plan(planned: list[Planned], console: Console) -> None:
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("step", no_wrap=True)
    grid.add_column("state", no_wrap=True)
    for name in ("rows", "calls to buy", "tokens"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("why", overflow="fold", min_width=40)
    for step in planned:
        grid.add_row(*(Text(cell) for cell in _cells(step)))
    print_table(grid, console)
    todo = [p for p in planned if p.state != "cached"]
    for line in totals(planned):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(f"{len(planned) - len(todo)} of {len(planned)} steps are in the store."))


def _cells(planned: Planned) -> tuple[str, str, str, str, str, str]:
    rows = "" if planned.rows is None else f"{planned.rows:,}"
    if planned.rows is None and planned.at_most is not None:
        rows = f"≤{planned.at_most:,}"
    calls = tokens = ""
    if planned.calls is not None:
        calls = f"{planned.calls.missing:,} of {planned.calls.wanted:,}"
        if planned.state == "waiting":
            calls = f"≤{planned.calls.wanted:,}"
        tokens = amount(planned.calls)
    return planned.path, planned.state, rows, calls, tokens, "; ".join(planned.why)
