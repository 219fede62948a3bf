"""Reading a recipe file, strictly: every mistake is named with file, line, path and remedy."""

import importlib.resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stillroom.errors import RecipeError
from stillroom.recipe.document import Document, Place, show
from stillroom.recipe.form import STEPS, Recipe
from stillroom.steps.base import Step
from stillroom.steps.mix.mix import Mix


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe from a file, or by the name of one that comes with the package.

    Raises:
        RecipeError: If it cannot be read, or says something that cannot be done.
    """
    return read_recipe(recipe_text(name), str(name))


def recipe_text(name: str | Path) -> str:
    """Return the text of a recipe file.

    Raises:
        RecipeError: If there is no such file and no shipped recipe of that name.
    """
    path = Path(name)
    shipped = importlib.resources.files("stillroom.recipes")
    try:
        if path.suffix in (".yaml", ".yml") or path.exists():
            return path.read_text(encoding="utf-8")
        return (shipped / f"{name}.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(p.name[:-5] for p in shipped.iterdir() if p.name.endswith(".yaml"))
        raise RecipeError(
            f"{name}: no such recipe; expected a file, or one of {', '.join(known)}. "
            "Check the path."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name}: cannot be read ({error}); expected UTF-8 text.") from None


def read_recipe(text: str, where: str = "recipe") -> Recipe:
    """Read a recipe from YAML text.

    Args:
        text: YAML; values only, no anchors, tags or merges.
        where: Name for messages.

    Raises:
        RecipeError: If it is not YAML, or says something that cannot be done.
    """
    return _Reader(where).read(text)


class _Reader(Document):
    """One reading of one recipe."""

    def read(self, text: str) -> Recipe:
        data = self.parse(text)
        self.mistaken(data, "recipe")
        self.unknown(data, Recipe.model_fields, (), "field")
        content = dict(data)
        if isinstance(content.get("domains"), dict):
            content["domains"] = {
                name: self._chain(steps, ("domains", name), str(name))
                for name, steps in content["domains"].items()
            }
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise self.invalid(error, (), data, Recipe) from None

    def _chain(self, value: Any, place: Place, path: str) -> tuple[Step, ...]:
        self.steps[path] = place
        if not isinstance(value, list):
            raise self.error(place, f"is {show(value)}; expected a list of steps")
        return tuple(self._step(item, (*place, i), path) for i, item in enumerate(value))

    def _step(self, value: Any, place: Place, path: str) -> Step:
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict):
            raise self.error(place, f"is {show(value)}; expected a step, such as `dedup: exact`")
        words = [w for w in value if w != "as"]
        if len(words) != 1:
            raise self.error(
                place, f"has {len(words)} words ({', '.join(map(str, words))}); expected one step, "
                "and `as:` if it has a name"
            )  # fmt: skip
        (word,) = words
        self.unknown({word: None}, STEPS, place, "step")
        step, fields = STEPS[word], value[word]
        here = (*place, word)
        label = value.get("as") or word
        self.steps[f"{path}.{label}"] = here
        if not isinstance(fields, dict):
            fields = {} if fields is None else step.shorthand(fields)
        elif step is Mix:
            if "branches" not in fields:
                fields = {"branches": fields}
            if isinstance(fields["branches"], dict):
                at = here if "branches" not in value[word] else (*here, "branches")
                branches = {
                    name: self._chain(steps, (*at, name), f"{path}.{label}.{name}")
                    for name, steps in fields["branches"].items()
                }
                fields = {**fields, "branches": branches}
        named = {**fields, "as": value["as"]} if "as" in value else fields
        try:
            return step.model_validate(named)
        except ValidationError as error:
            raise self.invalid(error, here, named, step) from None
