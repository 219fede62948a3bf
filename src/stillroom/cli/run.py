"""`run` and `plan`."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.benchmarks.registry import local_copies
from stillroom.cli.options import parse_sources, runtime_options
from stillroom.errors import RecipeError, StoreError
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger
from stillroom.recipe.form import Recipe
from stillroom.recipe.load import read_recipe, recipe_text
from stillroom.recipe.make import make
from stillroom.recipe.make import plan as make_plan
from stillroom.run.planner import Planned
from stillroom.run.progress import Progress
from stillroom.steps.base import Runtime
from stillroom.steps.decontaminate.decontaminate import Decontaminate
from stillroom.steps.mix.mix import Mix
from stillroom.steps.source.source import Source
from stillroom.store.store import Store


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
    with _runtime(store_path, loaded, models_path, sources, workers) as (store, rt):
        console.print(Text(f"{loaded.name} → {folder}, with the store {store_path}"))
        rt = replace(rt, retry_failed=retry_failed)
        try:
            made = make(loaded, text=text, store=store, rt=rt, out=folder, watcher=progress)
        finally:
            progress.stop()
    console.print(Text(f"{made.dataset.rows:,} rows in {folder}/ (its card is README.md)"))


@click.command()
@click.argument("recipe")
@runtime_options
def plan(
    recipe: str,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Say for every step of RECIPE whether it is cached, what it would buy, and why it is stale."""
    loaded = read_recipe(recipe_text(recipe), recipe)
    console = Console(highlight=False)
    with _runtime(store_path, loaded, models_path, sources, workers) as (store, rt):
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


@contextlib.contextmanager
def _runtime(
    store_path: Path,
    recipe: Recipe,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> Iterator[tuple[Store, Runtime]]:
    """Open the store, the ledger and the models, and close them again."""
    overrides = parse_sources(sources)
    known = _source_names(recipe)
    for name in overrides:
        if name not in known:
            raise RecipeError(
                f"--source {name}: the recipe has no source or benchmark of this name; "
                f"expected one of {', '.join(known)}."
            )
    overrides = local_copies(known) | overrides
    store = Store(store_path)
    with contextlib.ExitStack() as stack:
        opened: list[Ledger] = []

        def ledger() -> Ledger:
            if not opened:
                store.root.mkdir(parents=True, exist_ok=True)
                _refuse_first_form(store)
                opened.append(Ledger(store.ledger_path))
                stack.callback(opened[0].close)
            return opened[0]

        stack.enter_context(_stop_on_terminate())
        yield store, Runtime(load_config(models_path), ledger, overrides, workers)


def _refuse_first_form(store: Store) -> None:
    """Do not begin an empty ledger beside a full one, which would buy everything again."""
    old = store.root / "ledger.sqlite"
    if old.exists() and not store.ledger_path.exists():
        raise StoreError(
            f"{old}: a ledger of the first form; expected the folder {store.ledger_path}. Run "
            f"`stillroom ledger import {old} --store {store.root}` once: nothing is lost."
        )


def _source_names(recipe: Recipe) -> list[str]:
    names: dict[str, None] = {}
    steps = [step for chain in recipe.domains.values() for step in chain]
    while steps:
        step = steps.pop(0)
        if isinstance(step, Source):
            names[step.name] = None
        elif isinstance(step, Decontaminate):
            names.update(dict.fromkeys(step.files))
        elif isinstance(step, Mix):
            steps += [s for branch in step.branches.values() for s in branch]
    return list(names)


@contextlib.contextmanager
def _stop_on_terminate() -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
