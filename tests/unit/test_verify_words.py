import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import ModelSpec
from stillroom.steps.label.label import Label
from stillroom.steps.verify.stages import Stage
from stillroom.steps.verify.verify import Verify
from stillroom.verifiers import Task, key_of, verifier
from stillroom.verifiers.letters import read_letters
from stillroom.verifiers.number import NumberVerifier

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
        ("So the answer is A\nThat is all.", "A", (), "correct", "A"),
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


@pytest.mark.parametrize(
    ("answer", "reference", "outcome", "extracted"),
    [
        (r"\boxed{ABD}", "ABD", "correct", "ABD"),
        (r"\boxed{D, B and A}", "ABD", "correct", "ABD"),
        (r"\boxed{\text{(A) and (C)}}", "AC", "correct", "AC"),
        ("Answer: A, C", "A,C", "correct", "AC"),
        ("The answer is (B).", "B", "correct", "B"),
        (r"\boxed{AB}", "ABD", "incorrect", "AB"),
        (r"\boxed{12}", "ABD", "unparsed", None),
        ("A dog.", "A", "unparsed", None),
        (r"\boxed{A}", "7", "unparsed", "A"),
        (r"\boxed{A}", None, "no_reference", "A"),
    ],
)
def test_letters_are_compared_as_a_set(answer, reference, outcome, extracted):
    with verifier("letters") as letters:
        [verdict] = letters.verify([Task(answer, reference)])
    assert (verdict.outcome, verdict.extracted) == (outcome, extracted)
    assert (verdict.detail is not None) == (outcome == "unparsed")


@given(st.sets(st.sampled_from("ABCDEFGHIJ"), min_size=1), st.randoms(use_true_random=False))
def test_letters_in_any_order_and_any_clothes_are_the_same(letters, rng):
    given_letters = rng.sample(sorted(letters), len(letters))
    between = rng.choice(["", ", ", " and ", "; "])
    clothes = rng.choice(["{}", "({})", "\\text{{{}}}", "**{}**"])
    text = between.join(clothes.format(letter) for letter in given_letters)
    assert read_letters(text) == "".join(sorted(letters))


@pytest.mark.parametrize(
    ("answer", "reference", "outcome"),
    [
        (r"\boxed{2.34}", "2.35", "correct"),
        (r"\boxed{2.33}", "2.35", "incorrect"),
        (r"\boxed{\frac{47}{20}}", "2.35", "correct"),
        (r"\boxed{1.5\pi}", "4.71", "correct"),
        (r"\boxed{v = 2.350 \text{ m/s}}", "2.35", "correct"),
        (r"\boxed{about two}", "2.35", "unparsed"),
        ("nothing", "2.35", "unparsed"),
        (r"\boxed{2}", "two", "unparsed"),
        (r"\boxed{10^{999999999}}", "2", "unparsed"),
        (r"\boxed{2}", " ", "no_reference"),
    ],
)
def test_numbers_may_be_off_by_the_tolerance_and_no_more(answer, reference, outcome):
    [verdict] = NumberVerifier(within=0.01).verify([Task(answer, reference)])
    assert verdict.outcome == outcome


@given(st.integers(-(10**6), 10**6), st.integers(0, 40))
def test_the_edge_of_a_tolerance_is_decimal_and_relative_ones_grow(hundredths, off):
    value, other = hundredths / 100, (hundredths + off) / 100
    [near] = NumberVerifier(within=0.1).verify([Task(rf"\boxed{{{other:.2f}}}", f"{value:.2f}")])
    assert (near.outcome == "correct") == (off <= 10)
    [share] = NumberVerifier(relative=0.05).verify(
        [Task(rf"\boxed{{{other:.2f}}}", f"{value:.2f}")]
    )
    assert (share.outcome == "correct") == (off * 20 <= abs(hundredths))


def test_a_verifier_that_changed_has_another_key_and_the_others_keep_theirs():
    def keys(by):
        spec = ModelSpec(name="m")
        until = {"until": "correct", "by": by, "at_most": 4}
        return [
            Verify.model_validate(by).identity(),
            Verify.model_validate([by]).identity(),
            Label.model_validate({"majority": by}).identity()["majority"]["by"],
            Label.model_validate({"solve_rate": {"model": "m", "by": by}}).identity(),
            Answer(model=spec, draws=until).identity()["draws"]["by"],
            Stage.model_validate({"majority": {"by": by}}).identity()["majority"]["by"],
        ]

    for word, name in (("exact", "exact"), ("math", "math/5"), ("choice", "choice/2")):
        verify, cascade, *others = keys(word)
        assert verify == {"by": name}
        assert cascade == {"cascade": [name]}
        assert others[1]["solve_rate"]["by"] == name
        assert [others[0], *others[2:]] == [name] * 3
    for word in ("choice", "math"):
        with verifier(word) as opened:
            assert opened.name.split()[0] == key_of(word)
