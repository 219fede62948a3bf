"""What a recipe calls its columns changes nothing: not which rows stay, and not what is in them.

But for draws: those by columns of different names are independent on purpose. So here the draw
hears the neutral names.
"""

import json
import tempfile
import unittest.mock
from pathlib import Path

import polars as pl
import pytest
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from tests.fakes import FakeModel, FakeModels
from tests.kitchen import Kitchen

from stillroom.errors import RecipeError
from stillroom.models.chat import Completion
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.recipe.make import make
from stillroom.rows import ANSWER, content_id
from stillroom.steps import sampling

# Names that steps, tables and libraries use for columns of their own, or could.
TAKEN = (
    "place", "lot", "order", "turn", "origin", "earlier", "branch", "group", "value", "chance",
    "rank", "form", "witness", "score", "reason", "text", "draws", "first", "h1", "h2", "index",
    "len", "count", "literal", "name", "rows", "shard", "half", "limit of order per None",
    "room per group", "question_id", "draw", "teacher", "verdict", "completion_tokens", "length",
    "no_reference", "pair", "data", "limit", "left", "right", "place_right", "origin_right",
    "split", "prompt", "key", "frame", "weight", "level_0", "step", "labels", "a.b", "a b",
    "conversations_", "pass_rate", "majority", "difficulty", "tests_", "finish_reason", "score_1",
)  # fmt: skip
QUESTIONS = [
    "- keep: {{top: 4, by: {n}}}",
    "- keep: {{lowest: 50%, by: {n}, per: {k}}}",
    "- keep: {{where: {{{n}: {{min: -2, max: 3}}, {k}: [x, y]}}}}",
    "- take: 3",
    "- take: {{n: 50%, per: {k}}}",
    "- take: {{n: 4, across: {k}, shares: {{x: 2, y: 1}}}}",
    "- take: {{n: 4, weight: {n}}}",
    "- take: {{n: 4, rank: {n}, half: 2, per: {k}}}",
    "- take: {{n: 3, spread: {{of: {k}, hashes: 8}}}}",
    "- dedup: exact",
    "- dedup: {{minhash: {{}}, prefer: [reference, longer]}}",
    "- dedup: {{indel: 80}}",
    "- decontaminate: {{against: bench, ngram: 2}}",
    "- label: {{length: {{of: {k}}}}}",
    "- label: rules",
    "- upsample: 9",
]
ANSWERS = [
    "- answer: {{model: teacher, draws: {{column: {n}}}}}",
    "- verify: exact",
    "- label: {{majority: {{by: exact}}}}",
    "- label: pass_rate",
    "- take: {{n: 1, per: {k}}}",
    "- keep: {{where: {{verdict: correct, {k}: [x, y, z]}}}}",
]  # fmt: skip
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "question": st.text("ab ?", max_size=6),
            "number": st.one_of(st.none(), st.integers(0, 3)),
            "kind": st.sampled_from("xyz"),
            "other": st.sampled_from(["", "1", "two"]),
        },
        optional={"reference": st.text("01", max_size=2)},
    ),
    max_size=10,
)
NEUTRAL = ("n1", "k1", "o1")


def recipe(steps: list[str], names: tuple[str, ...]) -> str:
    """Write a recipe whose three columns are called so."""
    n, k, other = (json.dumps(name) for name in names)
    kept = f"{{{n}: integer, {k}: text, {other}: text}}"
    lines = [f"{step.format(n=n, k=k)}\n      as: s{i}" for i, step in enumerate(steps)]
    # A branch of `mix` carries the columns; the second one lacks them.
    head = [
        "- mix:",
        f"    own: [{{source: {{file: questions.jsonl, columns: {kept}}}}}]",
        "    bare: [{source: {file: bare.jsonl}}]",
    ]
    body = "\n".join("    " + line for line in [*head, *lines])
    return f"name: test\nmodels: {{teacher: {{name: t}}}}\ndomains:\n  math:\n{body}\n"


def made(folder: Path, records, steps: list[str], names: tuple[str, ...]):
    """Run the recipe and return its rows and its dataset, under neutral names."""
    folder.mkdir()
    ours = ("number", "kind", "other")
    renamed = [
        {names[ours.index(key)] if key in ours else key: value for key, value in record.items()}
        for record in [*records, {"question": "seed?", "number": 1, "kind": "x", "other": ""}]
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    (folder / "bare.jsonl").write_text('{"question": "bare a b?"}\n')
    (folder / "bench.jsonl").write_text('{"question": "a b"}\n')
    sources = {name: str(folder / f"{name}.jsonl") for name in ("questions", "bare", "bench")}
    text = recipe(steps, names)
    model = FakeModel(lambda request: Completion(None, str(request.draw % 2), "stop", 1, 1))
    with Ledger(folder / "ledger") as ledger:
        kitchen = Kitchen(folder / "store", sources, FakeModels(model), lambda: ledger)
        table = kitchen.run(text)["math"]
        back = dict(zip(names, NEUTRAL, strict=True))
        frame = table.scan().collect()
        written = pl.DataFrame()
        if frame.height:
            loaded, out = read_recipe(text), folder / "out"
            make(loaded, text=text, store=kitchen.store, rt=kitchen.runtime, out=out)
            written = pl.read_parquet(out / "data" / "*.parquet")
    found: list[pl.DataFrame] = []
    for one in (frame, written):
        columns = {name: back.get(name, name) for name in one.columns}
        found.append(one.rename(columns).select(sorted(columns.values())))
    return found


def _purposes(name, neutral):
    yield name, neutral
    for use in ("per", "across", "weight", "rank"):
        yield f"{use} {name}", f"{use} {neutral}"


def assert_alike(records, names, steps):
    said = {a: b for pair in zip(names, NEUTRAL, strict=True) for a, b in _purposes(*pair)}

    def heard(*parts):
        return content_id(*(said.get(part, part) for part in parts))

    with tempfile.TemporaryDirectory() as folder:
        plain = made(Path(folder) / "plain", records, steps, NEUTRAL)
        with unittest.mock.patch.object(sampling, "content_id", heard):
            odd = made(Path(folder) / "odd", records, steps, names)
    for one, other in zip(plain, odd, strict=True):
        assert one.equals(other)


# Not shrunk: names are opaque, and each try runs two recipes.
FEW = settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
NAMES = st.permutations(TAKEN).map(lambda names: tuple(names[:3]))
ROWS = [{"question": "a", "number": 2, "kind": kind, "other": "1"} for kind in "xxy"]


@FEW
@given(records=RECORDS, names=NAMES, steps=st.lists(st.sampled_from(QUESTIONS), max_size=4))
@example(
    ROWS, ("place", "lot", "turn"),
    ["- keep: {{top: 1, by: {n}, per: {k}}}", "- take: {{n: 1, rank: {n}, per: {k}}}"],
)  # fmt: skip
@example(
    ROWS, ("origin", "earlier", "order"),
    ["- upsample: 9", "- upsample: 12", "- take: {{n: 3, weight: {n}, across: {k}}}"],
)  # fmt: skip
@example(ROWS, ("completion_tokens", "question_id", "verdict"), ["- label: rules"])
def test_names_of_columns_change_nothing_for_questions(records, names, steps):
    # The label hides a column of its name.
    assume("length" not in names or not any("length" in step for step in steps))
    assert_alike(records, names, steps)


@FEW
@given(records=RECORDS, names=NAMES, steps=st.lists(st.sampled_from(ANSWERS[1:]), unique=True))
@example(ROWS, ("first", "h1", "draws"), [ANSWERS[4]])
@example(ROWS, ("majority_votes", "pair", "rows"), ANSWERS[1:])
def test_names_of_columns_change_nothing_for_answers(records, names, steps):
    # Those of answers, and of labels that this recipe makes, hide the question's own.
    hidden = {*ANSWER, "verdict", "length", "pass_rate", "majority", "majority_votes"}
    assume(not hidden & set(names))
    ordered = [step for step in ANSWERS if step in steps or step == ANSWERS[0]]
    verified = ANSWERS[1] in ordered
    wanted = [s for s in ordered if verified or ("verdict" not in s and "pass_rate" not in s)]
    full = [{**record, "number": record["number"] or 0} for record in records]
    assert_alike(full, names, ["- keep: {{where: {{{n}: {{min: 0}}}}}}", *wanted])


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("[{source: {file: q, columns: [copy_of]}}]", "copy_of, which `upsample` and `mix` write"),
        ("[{source: {file: q, columns: [question]}}]", "question, which every question has"),
        ("[{source: {file: q, columns: ['*']}}]", r"'\*'; expected the name of one column"),
        ("[{source: {file: q, columns: ['^a$']}}]", "expected the name of one column"),
        ("[{source: q}, {label: {length: {column: id}}}]", "'id', which every row has already"),
        ("[{source: q}, {label: {length: {column: '*'}}}]", "expected the name of one column"),
    ],
)  # fmt: skip
def test_names_that_mean_something_else_are_refused(steps, words):
    with pytest.raises(RecipeError, match=words):
        read_recipe(f"name: test\ndomains: {{math: {steps}}}\n")
