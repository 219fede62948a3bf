"""What labellers are asked, word by word: a change of wording buys everything anew."""

import json
from pathlib import Path

import pytest

from stillroom.models.structured import schema_of
from stillroom.steps.base import ModelSpec
from stillroom.steps.decontaminate.semantic import Sameness, _worded
from stillroom.steps.label.askllm import AskLLM
from stillroom.steps.label.difficulty import Difficulty
from stillroom.steps.label.rubric import Rubric
from stillroom.verifiers.judge import Ruling, worded

GOLDEN = Path(__file__).parent / "prompts"
GRADER = ModelSpec(name="some/grader")
MEASURES = {
    "difficulty_code": Difficulty(model=GRADER, rubric="code"),
    "difficulty_math": Difficulty(model=GRADER, rubric="math"),
    "difficulty_science": Difficulty(model=GRADER, rubric="science"),
    "askllm": AskLLM(model=GRADER),
    "rubric": Rubric(
        model=GRADER,
        criteria={"rigour": "Does every step follow?", "clarity": "Is it easy to read?"},
    ),
}


@pytest.mark.parametrize("name", MEASURES)
def test_prompt_is_the_recorded_one(name):
    measure = MEASURES[name]
    messages = measure.messages({"question": "What is 2+2?", "answer": "It is four."})
    said = [f"## {message.role}\n\n{message.content}\n" for message in messages]
    schema = json.dumps(json.loads(schema_of(measure.form())), indent=1)
    assert "\n".join([*said, f"## schema\n\n{schema}\n"]) == (GOLDEN / f"{name}.md").read_text()


@pytest.mark.parametrize("name", MEASURES)
def test_prompt_names_every_field_of_its_form(name):
    measure = MEASURES[name]
    said = measure.messages({"question": "", "answer": ""})[-1].content
    assert all(f'"{field}"' in said for field in json.loads(schema_of(measure.form()))["required"])


def test_prompt_of_the_decontamination_judge_is_the_recorded_one():
    said = _worded("What is 2+2?", "What is 3+3?")
    schema = json.dumps(json.loads(schema_of(Sameness)), indent=1)
    wanted = (GOLDEN / "same_problem.md").read_text()
    assert f"{said}\n\n## schema\n\n{schema}\n" == wanted


def test_prompt_of_the_judge_is_the_recorded_one():
    said = worded("What is 2+2?", "4", "It is four. [[answer]]")
    schema = json.dumps(json.loads(schema_of(Ruling)), indent=1)
    assert f"{said}\n\n## schema\n\n{schema}\n" == (GOLDEN / "judge.md").read_text()
