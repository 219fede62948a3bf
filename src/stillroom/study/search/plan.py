"""The studies of a search and their recipes, as if every control won."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillroom.recipe.form import Recipe
from stillroom.study.arms import read_arm, read_arms, read_base
from stillroom.study.form import Mixing, Study
from stillroom.study.load import load_design
from stillroom.study.mixing.run import confirmation, draw_weights, random_study, sources_of
from stillroom.study.race.run import recipes_on
from stillroom.study.search.form import Search
from stillroom.study.search.stage import promote
from stillroom.study.students import settings_of


def preview(search: Search, *, beside: Path) -> list[tuple[Study, dict[str, Recipe]]]:
    """Return the studies of all stages and their recipes, as if every control won.

    Nothing is run. A study with mixtures gives two: the random mixtures, and their confirmation
    with the first of them in place of the weights that would be proposed.

    Args:
        search: The search.
        beside: Folder of the search file.

    Raises:
        RecipeError: If an arm does not fit the recipe of its stage, or two arms are the same.
    """
    name, data = read_base(search.base, beside)
    studies: list[tuple[Study, dict[str, Recipe]]] = []
    for entry in search.stages:
        design = load_design(beside / entry.study)
        if isinstance(design, Study) and design.race:
            recipes_on(design, name, data)
        parts = [design] if isinstance(design, Study) else _mixing_parts(design, name, data)
        for study in parts:
            settings_of(study.student)
            studies.append((study, read_arms(name, data, study.arms)))
        control = parts[-1].arms[parts[-1].control]
        changes = {entry.ranks: list(parts[-1].arms)} if entry.ranks else control
        data = promote(name, data, changes, design.name)
    return studies


def _mixing_parts(mixing: Mixing, name: str, data: Mapping[str, Any]) -> list[Study]:
    sources = sources_of(mixing, read_arm(name, data, mixing.name, {}))
    weights = draw_weights(mixing, sources)
    return [random_study(mixing, sources, weights), confirmation(mixing, sources, weights[0])]
