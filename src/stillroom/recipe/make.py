"""Making a dataset from a recipe, and planning it: the two ways to walk the pipeline."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stillroom.errors import PilotDone
from stillroom.recipe.form import Recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.planner import Planned, Planner
from stillroom.run.runner import At, Built, Runner, Watcher, after
from stillroom.steps.base import Runtime
from stillroom.steps.export.export import Summary, write_dataset
from stillroom.steps.export.facts import Stage
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store
from stillroom.store.table import Table


@dataclass(frozen=True)
class Made:
    """A finished run.

    Attributes:
        built: All steps, in order.
        dataset: What was written.
    """

    built: list[Built]
    dataset: Summary


def make(
    recipe: Recipe,
    *,
    text: str,
    store: Store,
    rt: Runtime,
    out: Path,
    watcher: Watcher | None = None,
) -> Made:
    """Run a recipe to a finished dataset folder.

    What the store has already is not built again. A run that was killed goes on where it was.

    Args:
        recipe: What to make.
        text: The recipe's own text, for the dataset card.
        store: Where results are found and kept.
        rt: Where and how steps run.
        out: The dataset folder.
        watcher: Hears of progress.

    Raises:
        StillroomError: If a step cannot be done; what was done before is in the store.
    """
    runner, ends = _build(recipe, text, store, rt, watcher)
    stages = [Stage(b.path, b.artifact.manifest.step, b.artifact.manifest) for b in runner.built]
    summary = write_dataset(
        out,
        name=recipe.name,
        description=recipe.description,
        recipe_text=text,
        models=recipe.models,
        tables={domain: at.table for domain, at in ends.items()},
        story=stages,
        export=recipe.export,
    )
    return Made(runner.built, summary)


def pilot(
    recipe: Recipe,
    *,
    size: int,
    text: str,
    store: Store,
    rt: Runtime,
    watcher: Watcher | None = None,
) -> str:
    """Buy some answers of the first step that lacks more, so that a plan can foretell the rest.

    The steps before it are done, and what they lack is bought; no dataset is written.

    Args:
        recipe: What would be made.
        size: Answers of the step that the ledger shall hold, 1 or above.
        text: The recipe's own text, for the store's record.
        store: Where results are found and kept.
        rt: Where and how steps run.
        watcher: Hears of progress.

    Returns:
        What was bought, in a sentence.

    Raises:
        StillroomError: If a step cannot be done; what was done before is in the store.
    """
    try:
        _build(recipe, text, store, replace(rt, pilot=size), watcher)
    except PilotDone as done:
        return str(done)
    return f"No step lacks more than {size:,} answers; what they lacked was bought."


def plan(recipe: Recipe, *, store: Store, rt: Runtime) -> list[Planned]:
    """Say what a run would do, without doing it."""
    manifests = {path: b.artifact.manifest for path, b in read_paths(store, recipe.name).items()}
    planner = Planner(store, rt, manifests)
    walk(recipe.bound(), planner)
    return planner.planned


def _build(
    recipe: Recipe, text: str, store: Store, rt: Runtime, watcher: Watcher | None
) -> tuple[Runner, dict[str, At]]:
    """Do all steps; return what each domain ends in."""
    # Until the run is through, the record holds what the last run used and what this one has made.
    seen = read_paths(store, recipe.name)

    def remember(built: Built) -> None:
        seen[built.path] = built
        store.write_record(recipe.name, _record(text, seen.values()))

    runner = Runner(store, rt, watcher or Watcher(), remember)
    ends = walk(recipe.bound(), runner)
    store.write_record(recipe.name, _record(text, runner.built))
    return runner, ends


def _record(text: str, built: Iterable[Built]) -> dict[str, object]:
    steps = [
        {
            "path": b.path,
            "step": b.artifact.manifest.step,
            "key": b.artifact.manifest.key,
            "inputs": list(b.inputs),
        }
        for b in built
    ]
    return {"recipe": text, "steps": steps}


def read_paths(store: Store, recipe: str) -> dict[str, Built]:
    """Return what the recipe last used at each path; artifacts that are gone are left out."""
    record = store.read_record(recipe)
    found: dict[str, Built] = {}
    for entry in record["steps"] if record else []:
        path = store.path(entry["step"], entry["key"])
        if path.is_dir():
            artifact = Artifact.load(path)
            found[entry["path"]] = Built(entry["path"], artifact, tuple(entry["inputs"]), True)
    return found


def table_at(paths: Mapping[str, Built], path: str) -> Table:
    """Return the table as it stood after the step at a path."""
    built = paths[path]
    return after([table_at(paths, p) for p in built.inputs], built.artifact)
