"""A recipe that asks for programs: tests come from a column, programs run in the sandbox."""

import json

import pytest
from tests.fakes import FakeModel, FakeModels
from tests.judges import honest
from tests.kitchen import Kitchen

from stillroom.errors import SetupError
from stillroom.models.chat import Completion
from stillroom.models.ledger import Ledger
from stillroom.sandbox import choose, open_sandbox

RECIPE = """
name: programs
models: {{teacher: {{name: some/model, max_tokens: 9}}}}
domains:
  code:
    - source: {{file: {file}, tests: {{column: checks, kind: asserts, setup: setup}}}}
    - answer: {{draws: 2}}
    - verify: code
"""
QUESTIONS = [
    {"question": "Write double.", "checks": ["assert double(k) == 4"], "setup": "k = 2"},
    {"question": "Write nothing.", "checks": None},
    {"question": "Torn tests.", "checks": {"no": "list"}},
]


def reply(request):
    sign = "*" if request.draw == 0 else "+ 1 +"
    program = f"def double(x):\n    return x {sign} 2"
    return Completion("", f"```python\n{program}\n```", "stop", 1, 1)


@pytest.fixture
def kitchen_of_programs(tmp_path):
    kitchen = Kitchen(tmp_path / "store")
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    with Ledger(tmp_path / "ledger") as ledger:
        kitchen.ledger, kitchen.models = lambda: ledger, FakeModels(FakeModel(reply))
        yield kitchen


def test_recipe_runs_the_programs_of_its_answers(kitchen_of_programs, tmp_path):
    try:
        sandbox, _ = open_sandbox()
    except SetupError as error:
        pytest.skip(str(error))
    table = kitchen_of_programs.run(RECIPE.format(file=tmp_path / "q.jsonl"))["code"]
    found = table.scan("question", "draw", "verdict", "verifier").collect().rows()
    by_row = {(question, draw): verdict for question, draw, verdict, _ in found}
    assert by_row == {
        ("Write double.", 0): "correct", ("Write double.", 1): "incorrect",
        ("Write nothing.", 0): "no_reference", ("Write nothing.", 1): "no_reference",
        ("Torn tests.", 0): "no_reference", ("Torn tests.", 1): "no_reference",
    }  # fmt: skip
    assert all(sandbox.name in verifier for *_, verifier in found)


def test_judge_decides_where_there_is_nothing_to_run(kitchen_of_programs, tmp_path):
    try:
        open_sandbox()
    except SetupError as error:
        pytest.skip(str(error))
    lines = [*QUESTIONS[:1], {"question": "Name it.", "reference": "double", "checks": None}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in lines))

    def named(request):
        if request.schema is not None:
            return honest(request)
        if "Name" in request.messages[-1].content:
            return Completion("", "The answer is double.", "stop", 1, 1)
        return reply(request)

    kitchen_of_programs.models = FakeModels(FakeModel(named))
    text = RECIPE.format(file=tmp_path / "q.jsonl")
    text = text.replace("verify: code", "verify: [code, {judge: teacher}]")
    table = kitchen_of_programs.run(text)["code"]
    found = table.scan("question", "draw", "verdict", "verifier", "verdict_detail").collect().rows()
    assert {(q, draw, verdict, who.split("/")[0]) for q, draw, verdict, who, _ in found} == {
        ("Write double.", 0, "correct", "code"), ("Write double.", 1, "incorrect", "code"),
        ("Name it.", 0, "correct", "judge"), ("Name it.", 1, "correct", "judge"),
    }  # fmt: skip
    assert {d for q, *_, d in found if q == "Name it."} == {"because | code: no_reference"}


def test_recipe_stops_where_nothing_isolates(kitchen_of_programs, tmp_path, monkeypatch):
    def absent():
        raise SetupError("not installed")

    monkeypatch.setattr(choose, "LOCAL", {"bubblewrap": absent})
    with pytest.raises(SetupError, match="--allow-unsandboxed-code"):
        kitchen_of_programs.run(RECIPE.format(file=tmp_path / "q.jsonl"))
