"""The JSON Schema of a recipe file, so that editors complete and check recipes."""

from typing import Any

from pydantic.json_schema import models_json_schema

from stillroom.recipe.form import STEPS, Recipe
from stillroom.steps.base import ModelSpec
from stillroom.steps.export.form import Export

TEXT: dict[str, Any] = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
STAGES = {"type": "array", "items": {"anyOf": [TEXT, {"$ref": "#/$defs/Stage"}]}}

SHORT: dict[str, dict[str, Any]] = {
    "source": {"type": "string"},
    "mix": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Chain"}},
    "label": {"type": "string"},
    "take": {"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9.]+%$"},
    "upsample": {"type": "integer", "minimum": 0},
    "dedup": {"type": "string"},
    "decontaminate": {"anyOf": [{"type": "string"}, {"type": "array"}]},
    "answer": {"type": "string"},
    "verify": {"anyOf": [{"type": "string"}, STAGES]},
}
"""What may stand behind a word instead of a mapping of fields."""


SHORT_FIELDS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("Source", "question"): [TEXT],
    ("Source", "reference"): [TEXT],
    ("Source", "columns"): [TEXTS],
    ("Dedup", "indel"): [{"type": "number", "minimum": 50, "maximum": 100}],
    ("Decontaminate", "against"): [TEXT, {"type": "array"}],
    ("Decontaminate", "ngram"): [{"type": "integer", "minimum": 1}],
    ("Dedup", "cosine"): [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}],
    ("Embedding", "positives"): [TEXT, TEXTS],
    ("Embedding", "negatives"): [TEXT, TEXTS],
    ("Classifier", "positives"): [TEXT, TEXTS],
    ("Classifier", "negatives"): [TEXT, TEXTS],
    ("Classifier", "of"): [TEXT],
    ("Label", "solve_rate"): [TEXT],
    ("Label", "difficulty"): [TEXT],
    ("Label", "response_length"): [TEXT],
    ("Label", "askllm"): [TEXT],
    ("Verify", "judge"): [TEXT],
    ("Verify", "cascade"): [STAGES],
    ("Stage", "number"): [{"type": "number", "minimum": 0}],
    ("Stage", "judge"): [TEXT],
    ("Stage", "majority"): [TEXT],
}
"""What may stand in a field beside what its type says."""


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe file."""
    models = [(m, "validation") for m in (*STEPS.values(), ModelSpec, Export)]
    names, top = models_json_schema(models)  # type: ignore[arg-type]  # a list of pairs
    definitions = top["$defs"]
    words = {}
    definitions["Source"]["properties"].pop("domain")
    for (model, name), more in SHORT_FIELDS.items():
        properties = definitions[model]["properties"]
        properties[name] = {"anyOf": [properties[name], *more]}
    for word, step in STEPS.items():
        reference = names[step, "validation"]["$ref"].removeprefix("#/$defs/")
        fields = definitions[reference]
        fields["properties"].pop("as", None)
        if word == "mix":
            fields["properties"]["branches"] = SHORT["mix"]
        long: dict[str, Any] = {"$ref": f"#/$defs/{reference}"}
        words[word] = {"anyOf": [long, SHORT[word]]} if word in SHORT else long
    definitions["Chain"] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Step"}}
    definitions["Step"] = {
        "type": "object",
        "properties": {**words, "as": {"type": "string"}},
        "additionalProperties": False,
        "oneOf": [{"required": [word]} for word in words],
    }
    name = Recipe.model_json_schema()["properties"]["name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stillroom recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "domains"],
        "properties": {
            "name": name,
            "description": {"type": "string"},
            "models": {"type": "object", "additionalProperties": names[ModelSpec, "validation"]},
            "domains": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"$ref": "#/$defs/Chain"},
            },
            "export": names[Export, "validation"],
        },
        "$defs": definitions,
    }
