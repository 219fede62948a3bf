"""Nearest benchmark items and a judge: what is asked, what is told."""

import json
from dataclasses import replace

import polars as pl
import pytest
from tests.fakes import FakeModel, FakeModels

from stillroom.models.chat import Completion, Failure
from stillroom.models.embeddings import NgramEmbedder
from stillroom.models.ledger import Ledger
from stillroom.steps.base import ModelSpec, Runtime
from stillroom.steps.decontaminate.items import Items
from stillroom.steps.decontaminate.search import Judge, Search
from stillroom.steps.decontaminate.semantic import Semantic

ITEMS = pl.Series(
    ["How many apples has Ann if she buys 3 and then 4?", "Find the area of a disc of radius 3."]
)
TEXTS = pl.Series(
    [
        "How many apples has Bob if he buys 3 and then 4?",
        "How many apples has Ann if she buys 5 and then 6?",
        "Prove that pi is irrational.",
        None,
        "Find the area of a disc of radius 3!",
    ]
)


class Models(FakeModels):
    def embedder(self, name):
        return NgramEmbedder()


def judge(request):
    """Call problems the same that share a 3, and stay silent about discs."""
    first, second = request.messages[-1].content.split("Second problem:")
    if "disc" in first:
        return Completion(None, "I would rather not say.", "stop", 1, 1)
    same = " 3 " in first.split("First problem:")[1] and " 3 " in second
    return Completion(None, json.dumps({"same": same, "reason": "r"}), "stop", 1, 1)


@pytest.fixture
def judging(tmp_path):
    """Give the model that judges, and a runtime in which it is asked."""
    model = FakeModel(judge)
    with Ledger(tmp_path / "ledger") as ledger:
        yield model, Runtime(Models(model), lambda: ledger)


def semantic(**fields):
    roles = {"embedder": ModelSpec(name="stillroom/ngrams-1"), "judge": ModelSpec(name="judge")}
    return Semantic(**roles, floor=0.5, k=1, **fields)


def test_near_pairs_are_judged_and_the_rest_is_not_asked_about(judging):
    model, rt = judging
    found = semantic().judged(TEXTS, ITEMS, rt)
    assert found.select("text", "item", "same").rows() == [
        (0, 0, True),
        (1, 0, False),
        (4, 1, None),
    ]
    assert found["score"].min() > 0.5
    asked = model.asked.total()
    assert asked == 1 + 1 + 3  # the pair that cannot be read is asked about three times
    assert semantic().judged(TEXTS, ITEMS, rt).equals(found)
    assert model.asked.total() == asked


def test_both_orders_and_either_says_so(judging):
    model, rt = judging

    def item_first(request):
        first = request.messages[-1].content.split("Second problem:")[0]
        form = {"same": "Ann" in first, "reason": ""}
        return Completion(None, json.dumps(form), "stop", 1, 1)

    model.reply = item_first
    assert semantic().judged(TEXTS[:1], ITEMS, rt)["same"].to_list() == [False]
    assert semantic(both_ways=True).judged(TEXTS[:1], ITEMS, rt)["same"].to_list() == [True]


def test_failed_judge_is_undecided(judging):
    model, rt = judging
    model.reply = lambda request: Failure("refused", "no")
    assert semantic().judged(TEXTS[:2], ITEMS, rt)["same"].to_list() == [None, None]


def test_pair_beside_one_that_is_the_same_is_not_counted_as_undecided(judging):
    model, rt = judging

    def silent_about_bill(request):
        if "Bill" in request.messages[-1].content:
            return Completion(None, "I would rather not say.", "stop", 1, 1)
        return judge(request)

    model.reply = silent_about_bill
    items = [ITEMS[0], ITEMS[0].replace("Ann", "Bill")]
    asking = Judge(replace(semantic(), k=2), rt)
    search = Search(Items(["bench:0", "bench:1"], items), None, None, judge=asking)
    assert search.find(TEXTS[:2])["row"].to_list() == [0]
    assert asking.undecided == 1  # of the second question, which stays


def test_nothing_to_compare_with_is_nothing_found(judging):
    _, rt = judging
    none = pl.Series([], dtype=pl.String)
    assert semantic().judged(TEXTS, none, rt).is_empty()
    assert semantic().judged(none, ITEMS, rt).is_empty()


def test_problem_that_holds_a_mark_of_the_prompt_is_shown_as_it_is(judging):
    model, rt = judging
    said = []

    def listen(request):
        said.append(request.messages[-1].content)
        return judge(request)

    model.reply = listen
    text = "How many apples has [[second]] if she buys 3 and then 4?"
    semantic().judged(pl.Series([text]), ITEMS, rt)
    assert text in said[0]
    assert said[0].count(ITEMS[0]) == 1
