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
from typing import Any

from stillroom.recipe.form import STEPS


class NoSuchPlace(ValueError):
    """A change that speaks of something the recipe does not have."""


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
