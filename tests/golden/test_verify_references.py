"""Real references verify against themselves, survive edits that keep the value, and no others."""

import json

import pytest
import zstandard
from tests.answer_edits import cases

from stillroom.text.answers import last_boxed, last_number
from stillroom.verifiers import Task, verifier
from stillroom.verifiers.expression import agree
from stillroom.verifiers.math import bare
from stillroom.verifiers.pool import Pool

pytestmark = pytest.mark.data

READ_BY_BOTH = {
    "factor pulled inside", "root below", "terms turned", "minus taken out", "twice a half",
    "list turned", "union turned", "pair with braces", "radicand one more", "term lost",
    "sign of a term", "pair swapped", "end moved", "one of a list lost", "exponent one more",
    "coefficient one more", "polynomial times one", "interval with spaces",
}  # fmt: skip


@pytest.fixture(scope="module")
def maths():
    with verifier("math", workers=2) as opened:
        yield opened


def references(data, name):
    with zstandard.open(data / "fixtures" / f"{name}.jsonl.zst", "rt") as lines:
        found = [json.loads(line)["answer"] for line in lines]
    return [answer for answer in found if answer]  # two rows of math_train have none


@pytest.mark.parametrize("name", ["gsm8k_train", "math_train"])
def test_math_every_real_reference_verifies_against_itself(maths, data, name):
    answers = references(data, name)
    verdicts = maths.verify([Task(rf"so \boxed{{{answer}}}.", answer) for answer in answers])
    failed = [
        (answer, verdict)
        for answer, verdict in zip(answers, verdicts, strict=True)
        if verdict.outcome != "correct"
    ]
    assert failed == []


@pytest.mark.slow
def test_math_edits_that_keep_the_value_are_accepted_and_others_are_not(maths, data):
    made = list(cases(data, each=30))
    verdicts = maths.verify([Task(case.answer, case.reference) for case in made])
    accepted = [verdict.outcome == "correct" for verdict in verdicts]
    judged = list(zip(made, accepted, strict=True))
    for keeps, kinds, wrong_at_most in ((True, 90, 0.01), (False, 55, 0.01)):
        of_this = [(case, found) for case, found in judged if case.keeps is keeps]
        assert len({case.kind for case, _ in of_this}) >= kinds
        wrong = [case for case, found in of_this if found is not keeps]
        assert len(wrong) <= wrong_at_most * len(of_this), wrong


def test_math_own_reading_of_real_references_agrees_with_the_engine(data):
    """Where our reader decides, the engine has decided the same on the same pair."""
    pairs = [
        (bare(last_boxed(case.answer) or ""), bare(case.reference))
        for case in cases(data, each=6)
        if case.kind in READ_BY_BOTH
    ]
    decided = [(pair, agree(*pair)) for pair in pairs]
    decided = [(pair, same) for pair, same in decided if same is not None]
    assert len(decided) > 60
    with Pool("stillroom.verifiers.math_worker", workers=2) as pool:
        replies = pool.map([pair for pair, _ in decided])
    differ = [
        (pair, same, reply)
        for (pair, same), reply in zip(decided, replies, strict=True)
        if reply != ("correct" if same else "incorrect")
    ]
    assert differ == []


def test_math_solutions_in_prose_are_not_right_by_their_last_number(maths, data):
    with zstandard.open(data / "fixtures/gsm8k_train.jsonl.zst", "rt", encoding="utf-8") as lines:
        solutions = [json.loads(line)["solution"].rpartition("####")[0] for line in lines][:300]
    ends = [(text, last_number(text)) for text in solutions]
    tasks = [Task(rf"\boxed{{{number}}}", text) for text, number in ends if number]
    assert len(tasks) > 290
    assert {verdict.outcome for verdict in maths.verify(tasks)} == {"unparsed"}
