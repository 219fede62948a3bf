"""`eval`: grade any model on benchmarks, without a study."""

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.benchmarks.registry import expand
from stillroom.cli.options import runtime_options, sandbox_options
from stillroom.cli.runtime import open_runtime
from stillroom.errors import SetupError
from stillroom.evaluate.grade import exams_of, grade
from stillroom.run.progress import Progress
from stillroom.run.runner import Runner
from stillroom.steps.base import ModelSpec
from stillroom.store.store import disk_errors


@click.command(name="eval")
@click.argument("model")
@click.argument("benchmark", nargs=-1, required=True)
@click.option("--repeats", type=click.IntRange(min=1), help="Attempts per item.")
@click.option("--judge", metavar="MODEL", help="Who judges, where a model does.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="Write a row for each attempt to this Parquet file.",
)  # fmt: skip
@runtime_options
@sandbox_options
def evaluate(
    model: str,
    benchmark: tuple[str, ...],
    repeats: int | None,
    judge: str | None,
    out: Path | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
    sandbox: str,
    allow_unsandboxed: bool,
) -> None:
    """Grade MODEL, a name in models.toml or an embedded one, on each BENCHMARK or set of them.

    Attempts are kept in the ledger: asking again, or for more repeats, buys only what is missing.
    The error is that of other questions of the same kind, not of other attempts at these.
    """
    try:
        import polars as pl

        from stillroom.study.statistics import Outcomes, scores
    except ImportError as error:
        raise SetupError(
            f"eval: {error.name} is not installed; expected the extra. "
            "Run pip install 'stillroom[study]'."
        ) from error
    names = list(dict.fromkeys(name for given in benchmark for name in expand(given)))
    spec = ModelSpec(name=judge, temperature=0) if judge else None
    exams = exams_of(names, repeats, spec)
    names = [exam.name for exam in exams]
    console = Console(highlight=False)
    progress = Progress(console)
    tables = []
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("benchmark")
    for title in ("right, %", "95% interval", "cut, %", "no answer, %", "attempts"):
        grid.add_column(title, justify="right")
    notes = []
    with open_runtime(store_path, [], models_path, sources, workers, names) as (store, rt):
        rt = replace(rt, sandbox=sandbox, allow_unsandboxed=allow_unsandboxed)
        for exam in exams:
            try:
                grades = grade(exam, model, Runner(store, rt, progress), "eval")
            finally:
                progress.stop()
            table = grades.table.with_columns(
                pl.lit(model).alias("arm"), pl.lit(0).alias("seed"),
                pl.lit(exam.name).alias("benchmark"),
            )  # fmt: skip
            tables.append(table)
            notes += [f"{exam.name}: {note}" for note in grades.notes]
            (score,) = scores(Outcomes.of(table, [model]))
            estimate = score.estimate
            grid.add_row(
                Text(exam.name),
                f"{100 * estimate.value:.1f}",
                f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}",
                f"{100 * grades.share('finish_reason', 'length'):.1f}",
                f"{100 * grades.share('verdict', 'unparsed'):.1f}",
                f"{table.height:,}",
            )
    console.print(grid)
    for note in notes:
        console.print(Text(note))
    if out:
        with disk_errors(out):
            pl.concat(tables).drop("arm", "seed").write_parquet(out)
        console.print(Text(f"{sum(t.height for t in tables):,} attempts in {out}"))
