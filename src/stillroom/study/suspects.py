"""Which benchmark items the training data of a study ask."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillroom.errors import RecipeError
from stillroom.evaluate.contamination import Suspects, read_suspects, suspects_of
from stillroom.evaluate.grade import Exam
from stillroom.run.runner import Built
from stillroom.steps.base import Runtime
from stillroom.steps.source.files import sha256_of
from stillroom.store.store import Store
from stillroom.study.form import OWN_STEPS, Design


def suspects_among(
    study: Design,
    built: Mapping[tuple[str, int], Sequence[Built]],
    store: Store,
    beside: Path,
) -> Suspects | None:
    """Find the items that training data ask, as the study says.

    Args:
        study: Its ``contamination`` says how.
        built: The steps of every arm and seed.
        store: Where they lie.
        beside: Folder of the study.

    Raises:
        SourceError: If the report cannot be read.
        RecipeError: If no arm has a step that looks for benchmark items.
    """
    if study.contamination is None:
        return None
    if study.contamination != OWN_STEPS:
        found = read_suspects(beside / study.contamination, store)
        return dataclasses.replace(found, where=study.contamination)
    artifacts = {b.artifact.manifest.key: b.artifact for steps in built.values() for b in steps}
    own = suspects_of(artifacts.values(), "the arms' own steps")
    if own is None:
        raise RecipeError(
            f"study {study.name}: contamination is {OWN_STEPS!r}, but no arm has a `decontaminate` "
            "step; expected one. Add it, or name a report of `stillroom contamination --json`."
        )
    return own


def check_files(
    study: Design,
    built: Mapping[tuple[str, int], Sequence[Built]],
    exams: Sequence[Exam],
    rt: Runtime,
) -> None:
    """Make sure that the arms' own steps looked for items where they are sat: rows name them.

    Args:
        study: Its ``contamination`` says whether these steps count.
        built: The steps of every arm and seed.
        exams: What is sat.
        rt: Says which local files stand in.

    Raises:
        RecipeError: If a benchmark that is sat is another one of the same name.
    """
    if study.contamination != OWN_STEPS:
        return
    sat = {exam.name: exam.items.identity() for exam in exams}
    steps = {b.artifact.manifest.key: b.artifact.manifest for each in built.values() for b in each}
    for manifest in steps.values():
        searched = manifest.fields["against"] if manifest.step == "decontaminate" else {}
        for name in searched.keys() & sat.keys() - rt.sources.keys():
            if not _same(searched[name], sat[name]):
                raise RecipeError(
                    f"study {study.name}: the benchmark {name} that `decontaminate` searches is "
                    "not the one that students sit; expected the same file, because items are "
                    "known by their rows. Name one file for both, or give another name to one."
                )


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two sources have the same rows; of parts of one dataset it is supposed."""
    file, beside = one.get("file"), other.get("file")
    if file and beside and file != beside and Path(file).is_file() and Path(beside).is_file():
        return sha256_of(Path(file)) == sha256_of(Path(beside))
    places = ("file", "hub", "revision", "config", "split", "stackexchange", "shipped")
    return all(one.get(place) == other.get(place) for place in places)
