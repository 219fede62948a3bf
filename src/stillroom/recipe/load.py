"""Reading a recipe file, strictly: every mistake is named with file, line, path and remedy."""

import difflib
import importlib.resources
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stillroom.errors import RecipeError
from stillroom.recipe.form import STEPS, Recipe
from stillroom.recipe.pipeline import Misplaced
from stillroom.steps.base import Step
from stillroom.steps.mix.mix import Mix

Place = tuple[str | int, ...]


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


class _Reader:
    """One reading of one file.

    Attributes:
        lines: Place in the data to line in the file, from 1.
        steps: Path of a step, such as ``math.dedup``, to its place in the data.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[Place, int] = {}
        self.steps: dict[str, Place] = {}

    def read(self, text: str) -> Recipe:
        data = self._parse(text)
        self._unknown(data, Recipe.model_fields, (), "field")
        content = dict(data)
        if isinstance(content.get("domains"), dict):
            content["domains"] = {
                name: self._chain(steps, ("domains", name), str(name))
                for name, steps in content["domains"].items()
            }
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise self._invalid(error, (), data, Recipe) from None

    # Steps

    def _chain(self, value: Any, place: Place, path: str) -> tuple[Step, ...]:
        self.steps[path] = place
        if not isinstance(value, list):
            raise self._error(place, f"is {_show(value)}; expected a list of steps")
        return tuple(self._step(item, (*place, i), path) for i, item in enumerate(value))

    def _step(self, value: Any, place: Place, path: str) -> Step:
        if isinstance(value, str):
            value = {value: None}
        if not isinstance(value, dict):
            raise self._error(place, f"is {_show(value)}; expected a step, such as `dedup: exact`")
        words = [w for w in value if w != "as"]
        if len(words) != 1:
            raise self._error(
                place, f"has {len(words)} words ({', '.join(map(str, words))}); expected one step, "
                "and `as:` if it has a name"
            )  # fmt: skip
        (word,) = words
        self._unknown({word: None}, STEPS, place, "step")
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
            raise self._invalid(error, here, named, step) from None

    # Errors

    def _error(self, place: Place, what: str) -> RecipeError:
        line = next((self.lines[place[:n]] for n in range(len(place), -1, -1)
                     if place[:n] in self.lines), 1)  # fmt: skip
        where = f"{self.where}:{line}: {_dotted(place)}{' ' if place else ''}"
        return RecipeError(where + (what if what.endswith("?") else f"{what}."))

    def _unknown(self, data: Any, known: Iterable[str], place: Place, noun: str) -> None:
        if not isinstance(data, dict):
            raise self._error(place, f"is {_show(data)}; expected a mapping")
        for name in data:
            if name not in known:
                raise self._error((*place, name), _no_such(noun, str(name), known))

    def _invalid(
        self, error: ValidationError, place: Place, data: Any, model: type[BaseModel]
    ) -> RecipeError:
        """Word the first mistake; with unions, the one that got furthest into the data."""
        found = max(error.errors(), key=lambda e: len(_within(e["loc"], data)))
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, Misplaced):
            return self._error(self.steps.get(cause.path, ()), f": {cause.what}".lstrip(": "))
        inside = _within(found["loc"], data)
        here = (*place, *inside)
        if found["type"] == "extra_forbidden":
            fields = _fields_at(model, inside[:-1])
            return self._error(here, _no_such("field", str(found["loc"][-1]), fields))
        if found["type"] == "missing":
            return self._error(here, f"has no {found['loc'][-1]}; expected one")
        if cause is not None:
            return self._error(here, str(cause))
        wanted = found["msg"].replace("Input should be", "expected").replace("Value", "value")
        wanted = wanted if "expected" in wanted else f"expected: {wanted}"
        return self._error(here, f"is {_show(found['input'])}; {wanted}")

    # YAML

    def _parse(self, text: str) -> Any:
        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise RecipeError(
                        f"{self.where}:{line}: an anchor or alias; expected plain values, so that "
                        "a recipe reads from top to bottom. Write the value out."
                    )
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise RecipeError(
                f"{self.where}:{line}: not YAML: {error.problem}. Check indents and quotes."
            ) from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{self.where}:1: not YAML: {error}.") from None
        if node is None:
            raise RecipeError(f"{self.where}:1: empty; expected a recipe.")
        return self._plain(node, ())

    def _plain(self, node: yaml.Node, place: Place) -> Any:
        """Turn a node into plain data, and remember its line."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child, (*place, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            result: dict[Any, Any] = {}
            for key_node, child in node.value:
                key = self._scalar(key_node)
                if key in result:
                    self.lines[*place, key] = key_node.start_mark.line + 1
                    raise self._error((*place, key), "stands twice; expected it once")
                self.lines[*place, key] = key_node.start_mark.line + 1
                result[key] = self._plain(child, (*place, key))
            return result
        return self._scalar(node)

    def _scalar(self, node: yaml.Node) -> Any:
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.ScalarNode):
            raise RecipeError(f"{self.where}:{line}: a key that is not text; expected a word.")
        kind = node.tag.rsplit(":", 1)[-1]
        if kind not in ("str", "int", "float", "bool", "null", "timestamp"):
            raise RecipeError(f"{self.where}:{line}: the tag {node.tag}; expected plain values.")
        if kind == "timestamp":  # a date is text here, not an object of the language
            return node.value
        if kind == "bool" and node.value.lower() not in ("true", "false"):
            return node.value  # `on`, `off`, `yes` and `no` are words, as in YAML 1.2
        constructor = yaml.constructor.SafeConstructor()
        try:
            return constructor.construct_object(node)
        except ValueError as error:
            raise RecipeError(f"{self.where}:{line}: {node.value!r}: {error}.") from None


def _within(loc: Sequence[str | int], data: Any) -> Place:
    """Keep the part of a location that exists in the data; pydantic adds names of union members."""
    place: list[str | int] = []
    for part in loc:
        there = isinstance(data, Mapping) and part in data
        if isinstance(data, list | tuple) and isinstance(part, int):
            there = part < len(data)
        if not there:
            continue
        data = data[part]
        place.append(part)
    return tuple(place)


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    """List the fields of the model that stands at a place."""
    for part in place:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    return [f.alias or name for name, f in model.model_fields.items() if name != "as_"]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in a type such as ``Mapping[str, Band | float] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)


def _no_such(noun: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f". Did you mean {near[0]}?" if near else ""
    return f"is no {noun}; expected one of {', '.join(names)}{hint}"


def _dotted(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
