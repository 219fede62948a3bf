"""Reading a YAML file strictly: every mistake is named with file, line, path and remedy."""

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stillroom.errors import RecipeError
from stillroom.recipe.pipeline import Misplaced

Place = tuple[str | int, ...]

TELLING = {"domains": "recipe", "arms": "study", "mixtures": "study", "stages": "search"}
"""Fields that only one kind of file has."""

VERBS = {"recipe": "run", "study": "study", "search": "search"}


class Document:
    """One reading of one file.

    Attributes:
        where: The file's name, for messages.
        lines: Place in the data to line in the file, from 1.
        steps: Path of a step, such as ``math.dedup``, to its place in the data.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[Place, int] = {}
        self.steps: dict[str, Place] = {}

    def error(self, place: Place, what: str) -> RecipeError:
        """Word a mistake at a place in the data, or at the nearest one that has a line."""
        line = next((self.lines[place[:n]] for n in range(len(place), -1, -1)
                     if place[:n] in self.lines), 1)  # fmt: skip
        where = f"{self.where}:{line}: {_dotted(place)}{' ' if place else ''}"
        return RecipeError(where + (what if what.endswith("?") else f"{what}."))

    def mistaken(self, data: Any, kind: str) -> None:
        """Raise if this is plainly a file of another kind: a recipe given as a study, and so on."""
        if not isinstance(data, dict) or any(TELLING.get(name) == kind for name in data):
            return
        for field, other in TELLING.items():
            if field in data:
                line = self.lines.get((field,), 1)
                raise RecipeError(
                    f"{self.where}:{line}: it has {field}, so it is a {other}; expected a {kind}. "
                    f"Use it by `stillroom {VERBS[other]} {self.where}`."
                )

    def unknown(self, data: Any, known: Iterable[str], place: Place, noun: str) -> None:
        """Raise if a mapping has a name that is not known."""
        if not isinstance(data, dict):
            raise self.error(place, f"is {show(data)}; expected a mapping")
        for name in data:
            if name not in known:
                raise self.error((*place, name), _no_such(noun, str(name), known))

    def invalid(
        self, error: ValidationError, place: Place, data: Any, model: type[BaseModel]
    ) -> RecipeError:
        """Word the first mistake; with unions, the one that got furthest into the data."""
        found = max(error.errors(), key=lambda e: len(_within(e["loc"], data)))
        cause = found.get("ctx", {}).get("error")
        if isinstance(cause, Misplaced):
            return self.error(self.steps.get(cause.path, ()), f": {cause.what}".lstrip(": "))
        inside = _within(found["loc"], data)
        here = (*place, *inside)
        if found["type"] == "extra_forbidden":
            fields = _fields_at(model, inside[:-1])
            return self.error(here, _no_such("field", str(found["loc"][-1]), fields))
        if found["type"] == "missing":
            return self.error(here, f"has no {found['loc'][-1]}; expected one")
        if cause is not None:
            return self.error(here, str(cause))
        if found["type"] == "too_short":
            least = found["ctx"]["min_length"]
            have = found["ctx"]["actual_length"]
            return self.error(here, f"holds {have}; expected {least} or more")
        if found["type"] in ("int_type", "int_parsing", "int_from_float"):
            return self.error(here, f"is {show(found['input'])}; expected a whole number")
        wanted = found["msg"].replace("Input should be", "expected").replace("Value", "value")
        wanted = wanted if "expected" in wanted else f"expected: {wanted}"
        return self.error(here, f"is {show(found['input'])}; {wanted}")

    def parse(self, text: str) -> Any:
        """Read plain data.

        Raises:
            RecipeError: If the text is not YAML, or holds more than values.
        """
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
            raise RecipeError(f"{self.where}:1: empty; expected a mapping.")
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
                    raise self.error((*place, key), "stands twice; expected it once")
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


def show(value: Any) -> str:
    """Write a value for a message, shortened."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
