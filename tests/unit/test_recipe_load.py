"""Recipe files: what they say, and one clear message for each mistake."""

import json

import jsonschema
import pytest
import yaml

from stillroom.errors import RecipeError
from stillroom.recipe.form import STEPS, Recipe
from stillroom.recipe.load import load_recipe, read_recipe, recipe_text
from stillroom.recipe.schema import recipe_schema
from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import ModelSpec
from stillroom.steps.dedup.dedup import Dedup
from stillroom.steps.dedup.exact import Exact
from stillroom.steps.keep.keep import Band, Keep
from stillroom.steps.keep.take import Take
from stillroom.steps.label.label import Label
from stillroom.steps.label.plain import Length
from stillroom.steps.mix.mix import Mix
from stillroom.steps.source.source import Source
from stillroom.steps.verify.verify import Verify

GOOD = """\
name: small
description: Two sources, answered twice.
models:
  teacher: {name: stillroom/teacher-1, temperature: 0.9, max_tokens: 300, reasoning: true}
domains:
  math:
    - mix:
        words: [{source: {shipped: word_problems}}]
        made:
          - source: {procedural: {n: 100}}
          - label: {length: {unit: words}}
          - keep: {where: {length: {max: 60}, flaw: [near_duplicate, boilerplate]}}
    - dedup: exact
      as: first_dedup
    - take: 50
    - answer: {model: teacher, draws: 2}
    - verify: math
    - keep: {where: {verdict: correct}}
"""


def test_yaml_and_python_give_the_same_object():
    made = (
        Source(procedural={"n": 100}),
        Label(length=Length(unit="words")),
        Keep(where={"length": Band(max=60), "flaw": ("near_duplicate", "boilerplate")}),
    )
    spec = ModelSpec(name="stillroom/teacher-1", temperature=0.9, max_tokens=300, reasoning=True)
    recipe = Recipe(
        name="small",
        description="Two sources, answered twice.",
        models={"teacher": spec},
        domains={
            "math": (
                Mix(branches={"words": (Source(shipped="word_problems"),), "made": made}),
                Dedup(exact=Exact(), as_="first_dedup"),
                Take(n=50),
                Answer(model="teacher", draws=2),
                Verify(by="math"),
                Keep(where={"verdict": "correct"}),
            )
        },
    )
    assert read_recipe(GOOD) == recipe


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            edited("dedup: exact", "dedupe: exact"),
            "r.yaml:13: domains.math[1].dedupe is no step; expected one of source, mix, label, "
            "keep, take, upsample, dedup, decontaminate, answer, verify. Did you mean dedup?",
        ),
        (
            edited("draws: 2", "drawz: 2"),
            "r.yaml:16: domains.math[3].answer.drawz is no field; expected one of model, "
            "draws, prefix, suffix, on_length, on_content_filter. Did you mean draws?",
        ),
        (
            edited("draws: 2", "draws: 0"),
            "r.yaml:16: domains.math[3].answer.draws is 0; expected greater than or equal to 1.",
        ),
        (
            edited("dedup: exact", "dedup: fuzzy"),
            "r.yaml:13: domains.math[1].dedup.fuzzy is no field; expected one of exact, indel, "
            "minhash, cosine, prefer.",
        ),
        (
            edited("dedup: exact", "dedup: {indel: 40}"),
            "r.yaml:13: domains.math[1].dedup.indel is 40; expected greater than or equal to 50.",
        ),
        (
            edited("dedup: exact", "dedup: {indel: 90, exact: null}"),
            "r.yaml:13: domains.math[1].dedup exact and indel given; expected one of exact, indel, "
            "minhash, cosine.",
        ),
        (
            edited("dedup: exact", "dedup: {indel: {rule: clever}}"),
            "r.yaml:13: domains.math[1].dedup.indel.rule is 'clever'; expected 'greedy', "
            "'pairwise' or 'pairwise_limit_5'.",
        ),
        (
            edited("unit: words", "unit: words, off: question"),
            "r.yaml:11: domains.math[0].mix.made[1].label.length.off is no field; expected one of "
            "of, unit, column. Did you mean of?",
        ),
        (
            edited("model: teacher, draws", "model: oracle, draws"),
            "r.yaml:16: domains.math[3].answer answer.model is 'oracle', which is not a role in "
            "models; the roles are teacher.",
        ),
        (
            edited("    - take: 50\n    - answer: {model: teacher, draws: 2}\n    - verify: math",
                   "    - take: 50\n    - verify: math"),
            "r.yaml:16: domains.math[3].verify verify works on answers, but here the rows are "
            "questions; expected it after `answer`. Move it.",
        ),
        (
            edited("verdict: correct", "verdikt: correct"),
            "r.yaml:18: domains.math[5].keep keep reads the column 'verdikt', which is not there; "
            "expected one of id, ",
        ),
        (
            edited("    - take: 50", "    - take: 50\n    - take: 40"),
            "r.yaml:16: domains.math[3].take a second step of the name take; expected one. "
            "Name it with `as:`, beside its word.",
        ),
        (
            edited("max: 60", "maxx: 60"),
            "r.yaml:12: domains.math[0].mix.made[2].keep.where.length.maxx is no field; expected "
            "one of min, max. Did you mean max?",
        ),
        (
            edited("name: small", "nam: small"),
            "r.yaml:1: nam is no field; expected one of name, description, models, domains, "
            "export. Did you mean name?",
        ),
        (
            edited("name: small\n", ""),
            "r.yaml:1: has no name; expected one.",
        ),
        (
            edited("temperature: 0.9", "temperature: hot"),
            "r.yaml:4: models.teacher.temperature is 'hot'; expected a valid number, unable to "
            "parse string as a number.",
        ),
        (
            edited("shipped: word_problems", "shipped: word_problems, file: x.jsonl"),
            "r.yaml:8: domains.math[0].mix.words[0].source file and shipped of file, hub, "
            "stackexchange, procedural, gym, shipped given; expected one.",
        ),
        (
            edited("n: 100", "n: 100, families: [arithmetik]"),
            "r.yaml:10: domains.math[0].mix.made[0].source.procedural ",
        ),
        (GOOD + "  math: []\n", "r.yaml:19: domains.math stands twice; expected it once."),
        (edited("name: small", "name: &x small"), "r.yaml:1: an anchor or alias; "),
        (edited("name: small", "name: !!python/object:os.system small"), "r.yaml:1: the tag "),
        (edited("name: small", "name: [small"), "r.yaml:2: not YAML: "),
        ("", "r.yaml:1: empty; expected a mapping."),
        ("- a\n- b\n", "r.yaml:1: is ['a', 'b']; expected a mapping."),
        ("name: x\ndomains: {math: []}\n",
         "r.yaml:2: domains.math no steps; expected at least a source."),
        ("name: x\ndomains: {math: [{dedup: exact}]}\n",
         "r.yaml:2: domains.math[0].dedup dedup has no rows to work on; expected a source before "
         "it."),
        ("name: x\ndomains: {math: [{source: a.jsonl}, {source: b.jsonl, as: b}]}\n",
         "r.yaml:2: domains.math[1].source source stands after other steps; expected it first."),
        ("name: x\ndomains: {math: [{source: {hub: a/b, revision: main, files: '*'}}]}\n",
         "r.yaml:2: domains.math[0].source revision is 'main'; expected the 40 digits of a commit"),
        ("name: x\ndomains: {math: [{source: a.jsonl, keep: {top: 3}}]}\n",
         "r.yaml:2: domains.math[0] has 2 words (source, keep); expected one step"),
        ("name: x\ndomains: {math: [{source: a.jsonl}, {keep: {top: 3, by: question}}]}\n",
         "r.yaml:2: domains.math[1].keep keep orders by 'question', which is String; expected a "
         "column of numbers."),
    ],
)  # fmt: skip
def test_mistake_names_file_line_path_and_remedy(text, message):
    with pytest.raises(RecipeError) as caught:
        read_recipe(text, "r.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_unknown_recipe_names_the_shipped_ones():
    with pytest.raises(RecipeError, match="no such recipe; expected a file, or one of"):
        load_recipe("quickstrat")


def test_schema_covers_every_step_and_field():
    schema = json.loads(json.dumps(recipe_schema()))
    words = schema["$defs"]["Step"]["properties"]
    assert set(words) == {*STEPS, "as"}
    assert set(schema["properties"]) == set(Recipe.model_fields)


@pytest.mark.parametrize("name", ["quickstart", "real_math"])
def test_schema_accepts_shipped_recipes(name):
    jsonschema.validate(yaml.safe_load(recipe_text(name)), recipe_schema())


def test_schema_accepts_the_good_recipe():
    jsonschema.validate(yaml.safe_load(GOOD), recipe_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(edited("draws: 2", "drawz: 2")), recipe_schema())


@pytest.mark.parametrize(
    "verify",
    ["math", "[math, judge]", "{judge: grader}", "{judge: {model: grader, tail: 99}}",
     "[math, code, {judge: {model: grader, also_incorrect: true}}, {majority: {votes: 4}}]",
     "{cascade: [{by: math}, {judge: grader}, {majority: exact}]}"],
)  # fmt: skip
def test_schema_knows_the_forms_of_verify(verify):
    chain = f"[{{source: a.jsonl}}, answer: {{}}, {{verify: {verify}}}]"
    recipe = yaml.safe_load(f"{{name: a, domains: {{math: {chain}}}}}")
    jsonschema.validate(recipe, recipe_schema())
    wrong = {"verify": {"cascade": [{"jugde": "grader"}]}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "a", "domains": {"math": [wrong]}}, recipe_schema())
