"""`run` and `plan`."""

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.cli.options import runtime_options
from stillroom.cli.runtime import open_runtime
from stillroom.cli.study import show_plan
from stillroom.recipe.load import read_recipe, recipe_text
from stillroom.recipe.make import make
from stillroom.recipe.make import plan as make_plan
from stillroom.run.planner import Planned
from stillroom.run.progress import Progress
from stillroom.study.load import is_study


@click.command()
@click.argument("recipe")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None,
    help="Folder of the dataset.  [default: datasets/<name>]",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True,
              help="Ask again for answers that failed for good before.")  # fmt: skip
@runtime_options
def run(
    recipe: str,
    out: Path | None,
    retry_failed: bool,
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
    with open_runtime(store_path, [loaded], models_path, sources, workers) as (store, rt):
        console.print(Text(f"{loaded.name} → {folder}, with the store {store_path}"))
        rt = replace(rt, retry_failed=retry_failed)
        try:
            made = make(loaded, text=text, store=store, rt=rt, out=folder, watcher=progress)
        finally:
            progress.stop()
    console.print(Text(f"{made.dataset.rows:,} rows in {folder}/ (its card is README.md)"))


@click.command()
@click.argument("recipe", metavar="RECIPE|STUDY")
@runtime_options
def plan(
    recipe: str,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Say for every step of RECIPE whether it is cached, what it would buy, and why it is stale.

    For a study: what its arms share, what it would buy, and what difference it could see.
    """
    if is_study(Path(recipe)):
        show_plan(Path(recipe), store_path, models_path, sources, workers)
        return
    loaded = read_recipe(recipe_text(recipe), recipe)
    console = Console(highlight=False)
    with open_runtime(store_path, [loaded], models_path, sources, workers) as (store, rt):
        planned = make_plan(loaded, store=store, rt=rt)
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("step", overflow="fold")
    grid.add_column("state")
    for name in ("rows", "calls to buy", "tokens"):
        grid.add_column(name, justify="right")
    grid.add_column("why", overflow="fold")
    for step in planned:
        grid.add_row(*(Text(cell) for cell in _cells(step)))
    console.print(grid)
    todo = [p for p in planned if p.state != "cached"]
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
        sign = "≤" if planned.calls.bound else "~"
        if planned.calls.tokens is not None:
            tokens = f"{sign}{planned.calls.tokens:,}"
        if planned.calls.usd:
            tokens += f" {sign}${planned.calls.usd:,.2f}"
    return planned.path, planned.state, rows, calls, tokens, "; ".join(planned.why)
