"""Arms: recipes that differ from the base in named fields, and in nothing else.

A change is a path and a value. The path walks the recipe file: a domain, a step by its word or its
`as` name (through `mix` branches by their names), and then the step's fields; or `models`, a role,
and its fields. What stands at the path becomes the value:

    math.take: 7900                   the step's short form; its other fields stay as they are
    math.answer.draws: 4              one field
    models.teacher.name: other/model
    math.dedup: []                    a list stands for steps: none takes the step out
    math.filter: [{label: length}, {keep: {top: 100, by: length}}]

Changes are made on the file's data before it is read, so an arm is a recipe like any other: it is
checked, planned, run and shown as one.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from stillroom.errors import RecipeError
from stillroom.recipe.document import Document
from stillroom.recipe.form import STEPS, Recipe
from stillroom.recipe.load import read_recipe, recipe_text
from stillroom.steps.base import Step
from stillroom.steps.source.source import Source
from stillroom.store.digest import value_digest
from stillroom.study.form import Study


class NoSuchPlace(ValueError):
    """A change that speaks of something the recipe does not have."""


def read_base(base: str, beside: Path) -> tuple[str, dict[str, Any]]:
    """Read the recipe that arms share, as data.

    Args:
        base: A path relative to the study file, or the name of a shipped recipe.
        beside: Folder of the study file.

    Returns:
        Its name for messages, and what the file says.

    Raises:
        RecipeError: If it cannot be read, or is no recipe.
    """
    path = beside / base
    name = str(path) if path.exists() else base
    text = recipe_text(name)
    read_recipe(text, name)  # complains about the base in its own words
    return name, Document(name).parse(text)


def arms_of(study: Study, *, beside: Path) -> dict[str, Recipe]:
    """Return the recipe of every arm.

    Args:
        study: The study.
        beside: Folder of the study file.

    Raises:
        RecipeError: If the base cannot be read, an arm does not fit it, or two arms are the same.
    """
    name, data = read_base(study.base, beside)
    return read_arms(name, data, study.arms)


def read_arms(
    name: str, base: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]
) -> dict[str, Recipe]:
    """Make the recipes of all arms.

    Args:
        name: Of the base, for messages.
        base: What the base says.
        arms: Name of each arm to its changes.

    Raises:
        RecipeError: If an arm does not fit the base, or two arms are the same.
    """
    recipes = {arm: read_arm(name, base, arm, changes) for arm, changes in arms.items()}
    for (arm, one), (other, recipe) in combinations(recipes.items(), 2):
        if one == recipe:
            raise RecipeError(
                f"arms {arm} and {other} are the same recipe, {name}; expected arms that differ. "
                "Change what one of them says."
            )
    return recipes


def made_of(study: Study, recipes: Mapping[str, Recipe]) -> str:
    """Digest how the students of some arms are made: their recipes, their size, their training.

    Args:
        study: The study.
        recipes: Arm to recipe.
    """
    size = [study.rows, study.tokens, study.shortage, study.seeds]
    steps = [recipe.model_dump(mode="json", by_alias=True) for recipe in recipes.values()]
    return value_digest([steps, study.student.model_dump(mode="json"), size])


def read_arm(name: str, base: Mapping[str, Any], arm: str, changes: Mapping[str, Any]) -> Recipe:
    """Make the recipe of one arm.

    Args:
        name: Of the base, for messages.
        base: What the base says.
        arm: Name of the arm.
        changes: Path to value; see `stillroom.study.arms`.

    Raises:
        RecipeError: If a path leads nowhere, or what comes out is no recipe.
    """
    try:
        changed = change(base, changes)
    except NoSuchPlace as error:
        raise RecipeError(f"arm {arm}: {error}. The base is {name}.") from None
    return read_recipe(yaml.safe_dump(changed, sort_keys=False), f"{name}, arm {arm}")


def replicate(recipe: Recipe, seed: int) -> dict[str, tuple[Step, ...]]:
    """Return the bound steps of one replication: every random draw shifted by the seed.

    Those of a step's parts are shifted too, such as the hash functions of `minhash` and the
    training of a classifier. What sources generate stays as it is.
    """

    def shifted(part: Any) -> Any:
        match part:
            case Source():
                return part
            case BaseModel():
                update = {name: new for name, old in part if (new := shifted(old)) != old}
                if "seed" in type(part).model_fields:
                    update["seed"] = part.seed + seed  # type: ignore[attr-defined]
                return part.model_copy(update=update)
            case Mapping():
                return {name: shifted(value) for name, value in part.items()}
            case tuple():
                return tuple(map(shifted, part))
        return part

    return {domain: shifted(steps) for domain, steps in recipe.bound().items()}


def change(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's data with changes made; the given one stays as it was.

    Args:
        recipe: What the YAML file says.
        changes: Path to value.

    Raises:
        NoSuchPlace: If a path leads nowhere; the message says what is there.
    """
    changed = copy.deepcopy(dict(recipe))
    for path, value in changes.items():
        _change(changed, path, copy.deepcopy(value))
    return changed


def _change(recipe: dict[str, Any], path: str, value: Any) -> None:
    first, *rest = path.split(".")
    if first == "models":
        models = recipe.setdefault("models", {})
        if not rest or rest[0] not in models:
            raise NoSuchPlace(f"{path}: no such role; expected one of {_names(models)}")
        _set(models, rest, value, path)
        return
    domains = recipe.get("domains", {})
    if first not in domains:
        raise NoSuchPlace(
            f"{path}: no domain {first}; expected one of {_names(domains)}, or models"
        )
    _change_chain(domains[first], rest, value, path)


def _change_chain(chain: list[Any], rest: Sequence[str], value: Any, path: str) -> None:
    """Change a step of a chain, or what is inside it."""
    places = {_label(step): index for index, step in enumerate(chain)}
    if not rest or rest[0] not in places:
        raise NoSuchPlace(f"{path}: no such step; expected one of {_names(places)} there")
    index = places[rest[0]]
    if len(rest) == 1 and isinstance(value, list):
        chain[index : index + 1] = value
        return
    step = chain[index] = _long(chain[index])
    word = next(w for w in step if w != "as")
    if word == "mix" and len(rest) > 1:
        branches = step[word].get("branches", step[word])
        if rest[1] in branches:
            _change_chain(branches[rest[1]], rest[2:], value, path)
            return
        if rest[1] not in STEPS[word].model_fields:
            raise NoSuchPlace(f"{path}: no branch {rest[1]}; expected one of {_names(branches)}")
    _set(step, [word, *rest[1:]], value, path, STEPS.get(word))


def _set(
    data: dict[str, Any], keys: Sequence[str], value: Any, path: str, step: Any = None
) -> None:
    """Set a field, and turn a short form on the way into fields."""
    *way, last = keys
    for key in way:
        inside = data.get(key)
        if inside is None:
            inside = {}
        elif not isinstance(inside, dict):
            inside = step.shorthand(inside) if step else inside
        if not isinstance(inside, dict):
            raise NoSuchPlace(f"{path}: {key} is {inside!r}, which has no field {last}")
        data[key] = inside
        data = inside
    old = data.get(last)
    if step is not None and not way and isinstance(old, dict) and not isinstance(value, dict):
        value = {**old, **step.shorthand(value)}
    data[last] = value


def _label(step: Any) -> str:
    if not isinstance(step, dict):
        return str(step)
    return str(step.get("as") or next(iter(w for w in step if w != "as"), ""))


def _long(step: Any) -> dict[str, Any]:
    """Write a bare word, such as ``source``, as a mapping."""
    return dict(step) if isinstance(step, dict) else {step: None}


def _names(names: Any) -> str:
    return ", ".join(map(str, names)) or "none"
