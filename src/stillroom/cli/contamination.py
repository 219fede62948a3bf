"""`contamination`."""

import json
import os
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid
from rich.text import Text

from stillroom.benchmarks.registry import local_copies
from stillroom.cli.options import parse_sources
from stillroom.errors import RecipeError, SourceError
from stillroom.models.config import ModelsConfig
from stillroom.steps.base import Runtime
from stillroom.steps.decontaminate.decontaminate import locate
from stillroom.steps.decontaminate.items import Items, read_items
from stillroom.steps.decontaminate.report import Report, examine
from stillroom.steps.decontaminate.search import Grams, Search
from stillroom.steps.source.source import Source

FOUND = 3
"""Exit status of ``--fail`` where something was found."""


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--against", multiple=True, default=["openthoughts12_hmmt"], show_default=True,
    help="A benchmark, a set of them, or a file of items. Repeatable.",
)  # fmt: skip
@click.option("--indel", type=click.FloatRange(50, 100), default=None,
              help="Least similarity of the whole texts, in percent.")  # fmt: skip
@click.option("--ngram", type=click.IntRange(min=1), default=None,
              help="Words in a shared run.  [default, with no --indel: 75 and 13]")  # fmt: skip
@click.option("--tokenizer", default=None, metavar="FILE",
              help="Count tokens of this tokenizer.json, not words.")  # fmt: skip
@click.option("--raw", is_flag=True, help="Compare texts as they stand, not their normal forms.")
@click.option("--column", default=None, help="Column of the question.  [default: found by name]")
@click.option("--source", "sources", multiple=True, metavar="NAME=FILE",
              help="Read a benchmark from this file. Repeatable.")  # fmt: skip
@click.option("--available", is_flag=True,
              help="Leave out benchmarks that cannot be read, and say which.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--fail", is_flag=True,
              help=f"Exit with status {FOUND} if any row is contaminated.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count() or 1,
              show_default="cores", help="Threads.")  # fmt: skip
def contamination(
    dataset: Path,
    against: tuple[str, ...],
    indel: float | None,
    ngram: int | None,
    tokenizer: str | None,
    raw: bool,
    column: str | None,
    sources: tuple[str, ...],
    available: bool,
    as_json: bool,
    fail: bool,
    workers: int,
) -> None:
    """Report which benchmarks a DATASET asks: a folder or a file of questions or conversations.

    Of a conversation the first message of the user is searched. Local copies of benchmarks come
    from --source, or from the folder that STILLROOM_BENCHMARKS names.
    """
    if indel is None and ngram is None:
        indel, ngram = 75, 13
    if tokenizer and ngram is None:
        raise click.UsageError("--tokenizer goes with --ngram; expected both.")
    benchmarks = _benchmarks(against)
    given = parse_sources(sources)
    for name in given:
        if name not in benchmarks:
            raise click.BadParameter(
                f"no benchmark {name} is searched; expected one of {', '.join(benchmarks)}.",
                param_hint="--source",
            )
    rt = Runtime(ModelsConfig({}), _no_ledger, local_copies(benchmarks) | given, workers)
    items, missing = _items(benchmarks, rt, available)
    grams = Grams(n=ngram, tokenizer=tokenizer) if ngram else None
    search = Search(
        items, indel, grams, "raw" if raw else "normal",
        grams.tokenizer_file({}) if grams else None, workers,
    )  # fmt: skip
    columns = (
        SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, rate="")

        def tick(rows: int) -> None:
            progress.update(task, advance=rows)
            speed = progress.tasks[0].speed
            progress.update(task, rate=f"{speed:,.0f} rows/s" if speed else "")

        report = examine(dataset, search, column=column, tick=tick)
    report.missing = missing
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    if fail and report.contaminated:
        raise SystemExit(FOUND)


def _benchmarks(against: tuple[str, ...]) -> dict[str, Source]:
    try:
        return {
            name: Source.model_validate({**fields, "as": name})
            for name, fields in locate(list(against)).items()
        }
    except ValueError as error:  # two of one name, or a file that has none
        raise RecipeError(f"--against: {error}") from None


def _items(
    benchmarks: dict[str, Source], rt: Runtime, available: bool
) -> tuple[Items, dict[str, str]]:
    """Read all benchmarks; name every one that cannot be read at once."""
    items = Items([], [])
    missing: dict[str, str] = {}
    for name, source in benchmarks.items():
        try:
            read = read_items([source], rt)
        except SourceError as error:
            missing[name] = str(error)
        else:
            items.names.extend(read.names)
            items.texts.extend(read.texts)
    if not items.names or (missing and not available):
        raise SourceError(
            "\n".join(missing.values())
            + f"\n{len(missing)} of {len(benchmarks)} benchmarks cannot be read. Give local copies "
            "with --source NAME=FILE, or in the folder that STILLROOM_BENCHMARKS names; "
            "--available searches for the others."
        )
    return items, missing


def _print(report: Report) -> None:
    console = Console(highlight=False)
    grid = Grid(box=None, pad_edge=False)
    for name in ("benchmark", "items", "asked", "rows", "by indel", "by ngram"):
        grid.add_column(name, justify="left" if name == "benchmark" else "right")
    for name, tally in report.benchmarks.items():
        counts = (tally.items, len(tally.asked), tally.rows, *(
            tally.by_method[method] for method in ("indel", "ngram")
        ))  # fmt: skip
        grid.add_row(Text(name), *(Text(f"{count:,}") for count in counts))
    for name in report.missing:
        grid.add_row(Text(name), Text("not searched"))
    console.print(grid)
    for tally in report.benchmarks.values():
        for hit in tally.examples:
            place = f"{hit.file}:{hit.row} asks {hit.item} ({hit.method} {hit.score:.4g})"
            console.print(Text(f"\n{place}\n  {hit.question}\n  {hit.quote}"), soft_wrap=True)
    share = 100 * report.contaminated / report.rows
    unread = f"; {report.unread:,} rows hold no question" if report.unread else ""
    console.print(
        Text(
            f"\n{report.contaminated:,} of {report.rows:,} rows ({share:.3g}%) ask a benchmark's "
            f"item{unread}."
        )
    )


def _no_ledger() -> NoReturn:
    raise AssertionError("searching buys nothing")
