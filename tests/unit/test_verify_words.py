import pytest

from stillroom.verifiers import Task, verifier

OPTIONS = ("12 apples", "15 pears", "The cell", "None")


@pytest.fixture(scope="module")
def choice():
    with verifier("choice") as opened:
        yield opened


@pytest.fixture(scope="module")
def exact():
    with verifier("exact") as opened:
        yield opened


@pytest.mark.parametrize(
    ("answer", "reference", "choices", "outcome", "extracted"),
    [
        ("The answer is (B).", "B", (), "correct", "B"),
        ("The answer is (B).", "C", (), "incorrect", "B"),
        ("The answer is (B).", "(b)", (), "correct", "B"),
        (r"\boxed{C}", "The cell", OPTIONS, "correct", "C"),
        ("The answer is the cell.", "C", OPTIONS, "correct", "C"),
        (r"\boxed{15 pears}", "B", OPTIONS, "correct", "B"),
        ("none", "D", OPTIONS, "correct", "D"),
        ("The answer is (H).", "B", OPTIONS, "unparsed", "H"),
        ("I do not know.", "B", OPTIONS, "unparsed", None),
        ("The answer is (B).", "oak", OPTIONS, "unparsed", "B"),
        ("The answer is (B).", None, OPTIONS, "no_reference", "B"),
        ("The answer is same.", "A", ("same", "same"), "unparsed", None),
    ],
)
def test_choice_case_gives_outcome(choice, answer, reference, choices, outcome, extracted):
    [verdict] = choice.verify([Task(answer, reference, choices)])
    assert (verdict.outcome, verdict.extracted) == (outcome, extracted)
    assert (verdict.detail is not None) == (outcome == "unparsed")


@pytest.mark.parametrize(
    ("answer", "reference", "outcome", "rule"),
    [
        ("Paris", "paris", "correct", "whole"),
        ("The answer is **Paris**.", "Paris", "correct", "stated"),
        (r"\boxed{ Paris }", "Paris", "correct", "boxed"),
        ("New\u00a0 York", "New York", "correct", "whole"),
        ("Rome", "Paris", "incorrect", "whole"),
        ("there are 3", "3", "incorrect", "whole"),
        ("", "Paris", "unparsed", None),
        ("Paris", None, "no_reference", "whole"),
    ],
)
def test_exact_case_gives_outcome(exact, answer, reference, outcome, rule):
    [verdict] = exact.verify([Task(answer, reference)])
    assert (verdict.outcome, verdict.rule) == (outcome, rule)
