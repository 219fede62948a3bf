"""`ls`, `show` and `why`: looking at what a recipe made, without typing a key."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.cli.options import store_option
from stillroom.errors import StoreError
from stillroom.recipe.make import read_paths, table_at
from stillroom.run.progress import describe
from stillroom.run.runner import Built
from stillroom.run.why import LIMIT, Event, answers_to, drops_of, find_rows, story, text_of
from stillroom.store.gc import studies
from stillroom.store.store import Store


@click.command()
@click.argument("recipe", required=False)
@store_option
def ls(recipe: str | None, store_path: Path) -> None:
    """List the recipes and studies of a store, or the steps of RECIPE with rows and drops."""
    console = Console(highlight=False)
    store = Store(store_path)
    if recipe is not None:
        for built in _paths(store, recipe).values():
            console.print(Text(describe(built)), soft_wrap=True)
        return
    for name in store.records():
        console.print(Text(f"{name}: {len(read_paths(store, name))} steps"))
    there = studies(store)
    for name, used in there.items():
        console.print(Text(f"{name}: a study, {len(used):,} artifacts"))
    if not store.records() and not there:
        console.print(Text(f"{store_path}: nothing yet. Try `stillroom run quickstart`."))


@click.command()
@click.argument("recipe")
@click.argument("step")
@click.option("-n", "number", type=click.IntRange(min=1), default=5, show_default=True,
              help="Rows to print.")  # fmt: skip
@click.option("--columns", default=None, help="Columns to print, with commas between.")
@click.option("--drops", is_flag=True, help="Print what the step dropped instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@store_option
def show(
    recipe: str,
    step: str,
    number: int,
    columns: str | None,
    drops: bool,
    as_json: bool,
    store_path: Path,
) -> None:
    """Print the first rows of RECIPE as they stood after STEP, such as math.dedup."""
    store = Store(store_path)
    paths = _paths(store, recipe)
    if step not in paths:
        raise StoreError(
            f"{recipe}: no step {step} in the store; expected one of {', '.join(paths)}."
        )
    if drops:
        frame = drops_of(paths[step].artifact, number)
        there = sum(paths[step].artifact.manifest.drops.values())
    else:
        table = table_at(paths, step)
        there = table.height
        names = columns.split(",") if columns else list(table.schema)
        for name in names:
            if name not in table.schema:
                raise StoreError(
                    f"{step}: no column {name}; expected some of {', '.join(table.schema)}."
                )
        frame = table.scan(*names).head(number).collect(engine="streaming")
    console = Console(highlight=False)
    for row in frame.iter_rows(named=True):
        if as_json:
            click.echo(json.dumps(row, ensure_ascii=False, default=str))
        else:
            console.print(_grid(_told(row, list(paths.values())) if drops else row))
            console.print()
    if not as_json:
        what = "dropped rows" if drops else "rows"
        more = "; -n prints more" if frame.height < there else ""
        tells = ". `stillroom why ID` tells a row's story" if frame.height else ""
        console.print(Text(f"{frame.height:,} of {there:,} {what}{more}{tells}.", "dim"))


def _told(drop: dict[str, object], built: list[Built]) -> dict[str, object]:
    """Put the texts of a dropped row, and of what it lost to, beside their ids."""
    told: dict[str, object] = {}
    for name, value in drop.items():
        if value is not None:
            told[name] = value
        if name in ("id", "witness") and (text := text_of(built, str(value))):
            told["text" if name == "id" else "lost to"] = _short(text.strip())
    return told


@click.command()
@click.argument("what")
@click.option("--recipe", default=None, help="Look only at what this recipe made.")
@store_option
def why(what: str, recipe: str | None, store_path: Path) -> None:
    """Tell the story of the row WHAT: an id, the beginning of one, or a piece of its text."""
    console = Console(highlight=False)
    store = Store(store_path)
    names = [recipe] if recipe else store.records()
    seen = 0
    for name in names:
        built = list(_paths(store, name).values())
        ids = find_rows(built, what)
        for row_id in ids:
            seen += 1
            console.rule(Text(f"{name}: {row_id}"), align="left")
            _tell(console, built, row_id)
        if len(ids) == LIMIT:
            console.print(Text(f"More rows match than the {LIMIT} shown; give more of the text."))
    if not seen:
        rest = ""
        if studies(store):
            rest = " Rows that only studies made are not looked through: see their reports."
        raise StoreError(
            f"{what}: no row with this id or text in {store_path}; expected an id, the beginning "
            f"of one, or a piece of a question or an answer. Check the spelling and --store.{rest}"
        )


def _tell(console: Console, built: list[Built], row_id: str) -> None:
    values = _tell_one(console, built, row_id)
    if "question_id" in values:
        console.print(Text(f"  its question {values['question_id']}"))
        _tell_one(console, built, str(values["question_id"]))
    for answer_id in answers_to(built, row_id):
        console.print(Text(f"  answer {answer_id}"))
        _tell_one(console, built, answer_id)


def _tell_one(console: Console, built: list[Built], row_id: str) -> dict[str, object]:
    """Print what each step says of a row, and return all columns that it has."""
    known: dict[str, object] = {}
    gone = False
    for event in story(built, row_id):
        _print(console, event, built, known)
        known.update(event.values)
        gone = gone or event.what in ("dropped", "lost")
    if not gone:
        ending = "in the dataset" if "question_id" in known else "kept to the end"
        console.print(Text(f"    → {ending}"))
    return known


def _print(console: Console, event: Event, built: list[Built], known: dict[str, object]) -> None:
    # A mix writes the same columns again; they are printed once.
    values = {k: v for k, v in event.values.items() if v is not None and known.get(k) != v}
    if event.what in ("dropped", "lost"):
        witness = values.pop("witness", None)
        line = f"    {event.path}: {event.what}: {values.pop('reason')}"
        line += f" (score {values['score']:g})" if "score" in values else ""
        console.print(Text(line), soft_wrap=True)
        if witness:
            text = text_of(built, witness)
            shown = f"{witness} {_short(text)}" if text else witness
            console.print(Text(f"      against {shown}"), soft_wrap=True)
        return
    console.print(Text(f"    {event.path}"))
    for name, value in values.items():
        console.print(Text(f"      {name}: {_short(value)}"), soft_wrap=True)


def _paths(store: Store, recipe: str) -> dict[str, Built]:
    # `quickstart` and `recipes/quickstart.yaml` both name the recipe quickstart.
    name = Path(recipe).stem if recipe not in store.records() else recipe
    paths = read_paths(store, name)
    if not paths:
        raise StoreError(
            f"{store.root}: no run of {recipe}; expected one of "
            f"{', '.join(store.records()) or 'none yet'}. Run the recipe first, or check --store."
        )
    return paths


def _grid(row: dict[str, object]) -> Grid:
    grid = Grid(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in row.items():
        grid.add_row(Text(name), Text(_short(value, 2_000)))
    return grid


def _short(value: object, length: int = 300) -> str:
    # Control characters in source text or model output must not reach the terminal.
    text = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}"
                   for c in str(value))  # fmt: skip
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"
