"""Which benchmark items the training data of a study ask."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillroom.errors import RecipeError
from stillroom.evaluate.contamination import Suspects, read_suspects, suspects_of
from stillroom.run.runner import Built
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
