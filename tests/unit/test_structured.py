"""Forms in replies: what is read, what is asked again, and what stays undecided."""

import pytest
from pydantic import Field
from tests.fakes import FakeModel

from stillroom.models.buy import buy
from stillroom.models.chat import Completion, Failure, Message, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.structured import Form, Inquiry, ask, outcomes, read_form, schema_of


class Rating(Form):
    """A form for tests."""

    level: int = Field(ge=1, le=10)
    title: str = ""


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('{"level": 3}', 3),
        ('  {"level":3,"title":"t"}\n', 3),
        ('```json\n{"level": 3}\n```', 3),
        ('Sure! Here it is: {"level": 3, "title": "a {brace} and \\"quotes\\""} Hope it helps.', 3),
        ('{"level": 3, "title": "two\nlines"}', 3),
        ('The form is {"level": 1} and I fill in {"level": 3}.', 3),
        ('{"level": 99} no: {"level": 3}', 3),
        ("{{level}} {'level': 2} {\"level\": 3}", 3),
        ('{"answer": {"level": 3}}', None),  # the form inside another object is not the form
        ('{"level": 0}', None),
        ('{"level": 11}', None),
        ('{"level": "3"}', None),
        ('{"level": true}', None),
        ('{"level": 3.5}', None),
        ('{"level": NaN}', None),
        ('{"level": 3, "level": 4}', None),
        ('{"level": 3, "extra": 1}', None),
        ('{"title": "t"}', None),
        ('{"level": 3', None),
        ("[3]", None),
        ("", None),
        ("3", None),
    ],
)
def test_form_is_found_or_is_not(text, level):
    found = read_form(text, Rating)
    assert (None if found is None else found.level) == level


@pytest.mark.parametrize("text", ['{"a":' * 200_000, "{" * 1_000_000, '{"level":[' * 100_000])
def test_hostile_text_holds_no_form_and_takes_no_time(text):
    assert read_form(text, Rating) is None


def test_schema_names_fields_and_ranges_and_no_titles_of_classes():
    assert schema_of(Rating) == (
        '{"additionalProperties":false,"properties":{'
        '"level":{"maximum":10,"minimum":1,"type":"integer"},'
        '"title":{"default":"","type":"string"}},"required":["level"],"type":"object"}'
    )


def inquiry(question="How hard?", **fields):
    return Inquiry("some/judge", (Message("user", question),), Sampling(), Rating, **fields)


def settle(ledger, model, *inquiries):
    ask(lambda: inquiries, ledger, lambda wanted: buy(wanted, model=model, ledger=ledger))
    return list(outcomes(inquiries, ledger))


def says(*texts, finish="stop"):
    """Reply with these texts, one per try; the last one stays."""
    return FakeModel(
        lambda request: Completion(
            None, texts[min(request.draw // 100_000, len(texts) - 1)], finish, 1, 1
        )
    )


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger") as opened:
        yield opened


def test_unreadable_reply_is_asked_again_and_no_try_is_bought_twice(ledger):
    model = says("hm", "{", '{"level": 5}')
    (outcome,) = settle(ledger, model, inquiry())
    assert (outcome.state, outcome.value) == ("read", Rating(level=5))
    assert model.asked.total() == 3
    settle(ledger, model, inquiry())
    assert model.asked.total() == 3


def test_last_try_unreadable_is_undecided_and_more_tries_go_on(ledger):
    model = says("hm", "hm", "hm", '{"level": 5}')
    (outcome,) = settle(ledger, model, inquiry())
    assert (outcome.state, outcome.value) == ("undecided", None)
    (outcome,) = settle(ledger, model, inquiry(tries=4))
    assert outcome.state == "read"
    assert model.asked.total() == 4


def test_draws_of_one_question_are_apart(ledger):
    model = FakeModel(
        lambda r: Completion(None, f'{{"level": {r.draw % 100_000 + 1}}}', "stop", 1, 1)
    )
    found = settle(ledger, model, *(inquiry(draw=d) for d in range(3)))
    assert [outcome.value.level for outcome in found] == [1, 2, 3]


def test_failed_request_is_told_and_asked_once_more_by_the_next_run(ledger):
    model = FakeModel(lambda request: Failure("timeout", "no reply within 600 s"))
    (outcome,) = settle(ledger, model, inquiry())
    assert (outcome.state, outcome.failure) == ("failed", "timeout: no reply within 600 s")
    assert model.asked.total() == 1
    (outcome,) = settle(ledger, says('{"level": 2}'), inquiry())
    assert outcome.state == "read"


def test_filtered_reply_is_told_apart(ledger):
    (outcome,) = settle(ledger, says("", finish="content_filter"), inquiry())
    assert outcome.state == "filtered"


def test_many_questions_are_settled_in_rounds(ledger):
    model = FakeModel(
        lambda r: Completion(
            None, '{"level": 1}' if r.draw or r.messages[0].content < "b" else "?", "stop", 1, 1
        )
    )
    questions = [inquiry(f"{'ab'[i % 2]}{i}") for i in range(3000)]
    assert {outcome.state for outcome in settle(ledger, model, *questions)} == {"read"}
    assert model.asked.total() == 4500
