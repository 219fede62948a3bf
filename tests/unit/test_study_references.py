"""Right answers that students are scored on: asked as the exam asks, and enough of them."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.fakes import FakeModel, FakeModels
from tests.kitchen import Kitchen

from stillroom.errors import ModelError, RecipeError
from stillroom.evaluate.grade import exam_of
from stillroom.models.chat import Completion
from stillroom.models.ledger import Ledger
from stillroom.steps.base import ModelSpec
from stillroom.study.laboratory import Laboratory
from stillroom.study.sitting import references_of
from stillroom.train.likelihood import log_likelihood
from stillroom.train.trainer import Example

EMBEDDED = Path(__file__).parents[2] / "src/stillroom/models/embedded"
BENCHMARK = """
title: Sums
about: Sums.
domain: math
licence: none
file: items.jsonl
question: q
reference: a
sitting: {verify: math, max_tokens: 40, prefix: "Problem: ", suffix: " Box it."}
"""


def boxes_if_told(request):
    """Answer right where the exam's own words are there, and 0 where they are not."""
    asked = request.messages[-1].content
    first = asked.removeprefix("Problem: What is ").split("+")[0]
    told = asked.startswith("Problem: ") and asked.endswith(" Box it.")
    answer = f"\\boxed{{{2 * int(first) if told else 0}}}"
    return Completion(None, answer, "stop", 5, 5)


def references(tmp_path, reply):
    (tmp_path / "sums.yaml").write_text(BENCHMARK)
    items = [{"q": f"What is {n}+{n}?", "a": str(2 * n)} for n in (11, 12, 13)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    graded = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(FakeModel(reply)), lambda: ledger)
        lab = Laboratory(kitchen.store, kitchen.runtime)
        exam = exam_of(str(tmp_path / "sums.yaml"), None)
        right = references_of(ModelSpec(name="some/model"), [exam], lab, graded)
    return right, graded


def test_references_are_asked_and_scored_in_the_words_of_the_exam(tmp_path):
    right, graded = references(tmp_path, boxes_if_told)
    assert sorted(right["sums"]["question"]) == [
        f"Problem: What is {n}+{n}? Box it." for n in (11, 12, 13)
    ]
    assert [built.artifact.manifest.step for built in graded] == ["items", "answer", "verify"]


def test_references_of_which_too_few_are_right_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(RecipeError, match="some/model answered 1 of sums right; expected 2 items"):
        references(tmp_path, lambda request: Completion(None, "\\boxed{22}", "stop", 5, 5))


def test_references_that_are_longer_than_a_student_reads_are_named():
    long = Example("What is 1+1?", None, "and so on " * 2000)
    with pytest.raises(ModelError, match=r"'What is 1\+1\?' and its answer have .* expected 1,024"):
        log_likelihood(EMBEDDED / "base-1", [long])
