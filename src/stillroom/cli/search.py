"""`search` and `promote`: winners go on, and held-out benchmarks are opened."""

import dataclasses
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.text import Text

from stillroom.cli.options import parse_budget, runtime_options, spending_options
from stillroom.cli.runtime import open_runtime
from stillroom.cli.study import need
from stillroom.cli.teller import Teller
from stillroom.errors import RecipeError
from stillroom.evaluate.grade import names_of, title_of
from stillroom.store.gc import using
from stillroom.store.store import disk_errors, replace_text
from stillroom.study.arms import arms_of, change, made_of, read_base
from stillroom.study.laboratory import Laboratory
from stillroom.study.load import load_study
from stillroom.study.run import run
from stillroom.study.seals import Opening, open_seal


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), default=None,
    help="Folder of the reports.  [default: beside the search]",
)  # fmt: skip
@click.option(
    "--students", type=click.IntRange(min=1), default=2, show_default=True,
    help="Students trained at a time, each in a process of its own.",
)  # fmt: skip
@spending_options
@runtime_options
def search(
    file: Path,
    out: Path | None,
    students: int,
    retry_failed: bool,
    budget: str | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Run the stages of the search in FILE, each on what the winners before it made.

    Writes a report for every stage, one for the whole, and the recipe of all winners,
    promoted.yaml.
    If it stops, the same command goes on where it was.
    """
    need("scipy", "torch")
    from stillroom.study.search.form import load_search
    from stillroom.study.search.plan import preview
    from stillroom.study.search.run import run_search

    loaded = load_search(file)
    console = Console(highlight=False)
    studies = preview(loaded, beside=file.parent)
    recipes = [recipe for _, arms in studies for recipe in arms.values()]
    names = names_of([exam for study, _ in studies for exam in study.benchmarks.exams()])
    folder = out or file.parent
    asked = [name for study, _ in studies for name in study.models]
    with (
        open_runtime(store_path, recipes, models_path, sources, workers, names, asked) as (
            store,
            rt,
        ),
        using(store, f"search {file.resolve().parent.name}") as use,
    ):
        teller = Teller(console)
        rt = dataclasses.replace(rt, retry_failed=retry_failed, purse=parse_budget(budget))
        lab = Laboratory(store, rt, students, teller, use=use)
        try:
            stages = run_search(loaded, lab, beside=file.parent, out=folder)
        finally:
            teller.stop()
    for stage in stages:
        person = f", by a person: {stage.because}" if stage.because else ""
        console.print(Text(f"{stage.study.name}: {stage.promoted}{person}"))
    console.print(
        Text(f"The report is {folder / 'report.md'}; the recipe {folder / 'promoted.yaml'}")
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("arm")
@click.option("--because", default="", help="Why this arm; kept beside the recipe.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="The recipe of the winner.  [default: promoted.yaml beside the study]",
)  # fmt: skip
@runtime_options
def promote(
    file: Path,
    arm: str,
    because: str,
    out: Path | None,
    store_path: Path,
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
) -> None:
    """Promote ARM of the study in FILE: write its recipe, and open the held-out benchmarks.

    The arm and the control are graded on the benchmarks that the study holds out. Every opening is
    written down in the store, because a benchmark that was looked at before says less.
    """
    need("scipy", "torch")
    from stillroom.study.reports.promotion import promotion
    from stillroom.study.reports.verdict import times

    study = load_study(file)
    if arm not in study.arms:
        raise RecipeError(
            f"{file}: {arm} is no arm; expected one of {', '.join(study.arms)}. Correct the name."
        )
    console = Console(highlight=False)
    recipes = arms_of(study, beside=file.parent)
    _, data = read_base(study.base, file.parent)
    target = out or file.parent / "promoted.yaml"
    text = yaml.safe_dump(change(data, study.arms[arm]), sort_keys=False, allow_unicode=True)
    reason = f": {because}" if because else ""
    with disk_errors(target):
        replace_text(target, f"# {arm}, promoted by the study {study.name}{reason}\n{text}")
    console.print(Text(f"{target}: the recipe of {arm}"))
    if not study.benchmarks.held_out:
        console.print(Text("The study holds no benchmark out, so there is nothing to open."))
        return
    held = study.benchmarks.held_out
    pair = {name: recipes[name] for name in dict.fromkeys([study.control, arm])}
    exams = study.benchmarks.exams(held)
    with (
        open_runtime(
            store_path,
            list(pair.values()),
            models_path,
            sources,
            workers,
            names_of(exams),
            study.models,
        ) as (store, rt),
        using(store, f"promotion {study.name}") as use,
    ):
        made = made_of(study, pair)
        for name in map(title_of, held):
            before = open_seal(store, Opening(name, study.name, arm, made))
            often = f"opened {times(before)} before" if before else "opened for the first time"
            console.print(Text(f"{name}: {often}"))
        teller = Teller(console)
        try:
            small = study.model_copy(update={"arms": {n: study.arms[n] for n in pair}})
            result = run(small, pair, exams, Laboratory(store, rt, 2, teller, file.parent, use))
        finally:
            teller.stop()
    for line in promotion(result):
        console.print(Text(line))
