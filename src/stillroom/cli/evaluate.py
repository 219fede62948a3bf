"""`eval`: grade any model on benchmarks, without a study."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from stillroom.benchmarks.registry import expand
from stillroom.cli.options import runtime_options, sandbox_options
from stillroom.cli.runtime import open_runtime
from stillroom.cli.tables import print_table
from stillroom.errors import SetupError
from stillroom.evaluate.contamination import Suspects, read_suspects
from stillroom.evaluate.grade import Exam, Grades, exams_of, grade, names_of
from stillroom.evaluate.inspect_log import write_inspect_log
from stillroom.run.progress import Progress
from stillroom.run.runner import Runner
from stillroom.steps.base import ModelSpec
from stillroom.store.store import disk_errors

if TYPE_CHECKING:
    from stillroom.study.scorecard import Scorecard

COLUMNS = ("items", "right, %", "95% interval", "± draws", "± items", "pass@k", "vote")
LEGEND = (
    "± draws: other attempts at these items. ± items: other items of the kind, as the interval. "
    "vote: the most usual answer of an item's attempts."
)


@click.command(name="eval")
@click.argument("model")
@click.argument("benchmark", nargs=-1, required=True)
@click.option("--repeats", type=click.IntRange(min=1), help="Attempts per item.")
@click.option("--judge", metavar="MODEL", help="Who judges, where a model does.")
@click.option(
    "--contamination", type=click.Path(path_type=Path), default=None, metavar="REPORT",
    help="Score without the items that training data ask, too: what `contamination --json` "
    "printed, or the folder of a dataset of yours.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="Write a row for each attempt to this Parquet file.",
)  # fmt: skip
@click.option(
    "--inspect", "inspect_folder", type=click.Path(path_type=Path, file_okay=False), default=None,
    metavar="FOLDER", help="Write a log of Inspect (inspect-ai) for each benchmark to this folder.",
)  # fmt: skip
@runtime_options
@sandbox_options
def evaluate(
    model: str,
    benchmark: tuple[str, ...],
    repeats: int | None,
    judge: str | None,
    contamination: Path | None,
    out: Path | None,
    inspect_folder: Path | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
    sandbox: str,
    allow_unsandboxed: bool,
) -> None:
    """Grade MODEL, a name in models.toml or an embedded one, on each BENCHMARK or set of them.

    A benchmark is a name (docs/reference-benchmarks.md) or a YAML file of your own. Attempts are
    kept in the ledger: asking again, or for more repeats, buys only what is missing. The interval
    is for other questions of the same kind; the errors beside it are those of other attempts at
    the same items, and of other items.
    """
    try:
        import polars as pl

        from stillroom.study.scorecard import scorecard
    except ImportError as error:
        raise SetupError(
            f"eval: {error.name} is not installed; expected the extra. "
            "Run pip install 'stillroom[study]'."
        ) from error
    names = list(dict.fromkeys(name for given in benchmark for name in expand(given)))
    exams = exams_of(names, repeats, ModelSpec(name=judge, temperature=0) if judge else None)
    console = Console(highlight=False)
    progress = Progress(console)
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("benchmark", no_wrap=True)
    for title in COLUMNS:
        grid.add_column(title, justify="right", no_wrap=True)
    tables, notes = [], list[str]()
    titles = names_of(exams)
    asked = [model, *([judge] if judge else [])]
    with open_runtime(store_path, [], models_path, sources, workers, titles, asked) as (store, rt):
        rt = replace(rt, sandbox=sandbox, allow_unsandboxed=allow_unsandboxed)
        suspects = read_suspects(contamination, store) if contamination else None
        for exam in exams:
            try:
                grades = grade(exam, model, Runner(store, rt, progress), "eval")
            finally:
                progress.stop()
            tables.append(grades.table.with_columns(pl.lit(exam.name).alias("benchmark")))
            card = scorecard(exam, grades)
            grid.add_row(Text(exam.name), *_cells(card))
            notes += [f"{exam.name}: {note}" for note in (*grades.notes, *_about(card))]
            if inspect_folder:
                errors = {"stderr": card.score.question_se, "stderr_draws": card.score.sampling_se}
                known = {name: value for name, value in errors.items() if value == value}
                log = write_inspect_log(inspect_folder, exam, model, grades, known)
                notes.append(f"{exam.name}: log of Inspect in {log}")
            if suspects:
                clean, words = _without(suspects, exam, grades)
                if clean:
                    grid.add_row(Text("  clean items"), *_cells(clean))
                notes.append(f"{exam.name}: {words}")
    print_table(grid, console)
    console.print(Text(LEGEND, "dim"))
    for note in notes:
        console.print(Text(note))
    if out:
        with disk_errors(out):
            pl.concat(tables).write_parquet(out)
        console.print(Text(f"{sum(t.height for t in tables):,} attempts in {out}"))


def _cells(card: "Scorecard") -> list[str]:
    score = card.score
    sampling = score.sampling_se
    return [
        f"{card.items:,} × {card.repeats}",
        f"{100 * score.estimate.value:.1f}",
        f"{100 * score.estimate.low:.1f} to {100 * score.estimate.high:.1f}",
        f"{100 * sampling:.1f}" if sampling == sampling else "",
        f"{100 * score.question_se:.1f}" if score.question_se == score.question_se else "",
        f"{100 * card.any_right:.1f} @{card.repeats}" if card.any_right is not None else "",
        f"{100 * card.majority:.1f}" if card.majority is not None else "",
    ]


def _about(card: "Scorecard") -> list[str]:
    """Say how attempts ended, where they did not end with an answer."""
    said = []
    if card.cut:
        said.append(f"{100 * card.cut:.1f}% of attempts were cut by the limit of tokens")
    if card.silent:
        said.append(f"{100 * card.silent:.1f}% had no final answer that could be read")
    if card.failed:
        said.append(f"{card.failed:,} got no reply or no verdict")
    return [f"{'; '.join(said)}. They count as wrong."] if said else []


def _without(suspects: Suspects, exam: Exam, grades: Grades) -> tuple["Scorecard | None", str]:
    """Score the items that training data do not ask, and say how many those are."""
    from stillroom.study.scorecard import scorecard

    clean = suspects.clean(exam.name, grades)
    if clean is None:
        return None, f"{suspects.where} did not search for its items."
    items = grades.table["item"].n_unique()
    left = clean["item"].n_unique()
    words = f"{items - left:,} of {items:,} items are asked by training data ({suspects.where})."
    return (scorecard(exam, grades, clean) if left else None), words
