"""Measures that ask a model, with a real server on a loopback port."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl
import pytest
from tests.kitchen import Kitchen, rows
from tests.servers import TeacherServer, answer, in_turn, raw, refusal, rejecting

from stillroom.errors import ModelError, RecipeError
from stillroom.models.config import ModelsConfig, OpenAIEntry
from stillroom.models.ledger import Ledger
from stillroom.steps.base import ModelSpec
from stillroom.steps.label.difficulty import Difficulty

ROLES = "models: {grader: {name: some/grader}, prober: {name: some/grader}}"


@contextmanager
def serving(tmp_path, behave, questions=("How many?", "Why?", "Prove it.")) -> Iterator[tuple]:
    """Serve a grader; give the server, a kitchen, and a function that runs a label."""
    lines = [json.dumps(q if isinstance(q, dict) else {"question": q}) for q in questions]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    with TeacherServer(behave) as server, Ledger(tmp_path / "ledger") as ledger:
        entry = OpenAIEntry(engine="openai", base_url=server.url, concurrency=4)
        models = ModelsConfig({"some/grader": entry})
        kitchen = Kitchen(tmp_path / "store", {"q": str(tmp_path / "q.jsonl")}, models,
                          lambda: ledger)  # fmt: skip

        def label(fields, domain="math"):
            steps = f"[{{source: {{file: q.jsonl}}}}, {{label: {fields}}}]"
            kitchen.text = f"name: t\n{ROLES}\ndomains: {{{domain}: {steps}}}"
            return rows(kitchen.run(kitchen.text)[domain])

        yield server, kitchen, label


def rating(value, name="difficulty"):
    return answer(json.dumps({name: value, "reasoning": f"because {value}"}))


def notes(kitchen):
    return kitchen.built[-1].artifact.manifest.notes


def test_difficulty_is_asked_with_schema_and_rubric_and_kept(tmp_path):
    with serving(tmp_path, rating(7)) as (server, kitchen, label):
        found = label("{difficulty: grader}")
        assert [r["difficulty"] for r in found] == [7.0] * 3
        assert found[0]["difficulty_reason"] == "because 7"
        body = server.bodies[0]
        assert body["response_format"]["json_schema"]["schema"]["required"] == [
            "difficulty", "reasoning"]  # fmt: skip
        assert [m["role"] for m in body["messages"]] == ["system", "user"]
        assert "Art of Problem Solving" in body["messages"][1]["content"]
        assert "temperature" not in body
        assert notes(kitchen) == []
        assert kitchen.built[-1].artifact.manifest.measured["calls"] == 3


@pytest.mark.parametrize(
    ("domain", "word"), [("code", "Collegiate"), ("science", "olympiads"), ("math", "AMC")]
)
def test_rubric_follows_the_domain(tmp_path, domain, word):
    with serving(tmp_path, rating(7), ["x?"]) as (server, _, label):
        label("{difficulty: grader}", domain)
        assert word in server.bodies[0]["messages"][1]["content"]


def test_domain_without_rubric_is_one_message(tmp_path):
    with serving(tmp_path, rating(7)) as (server, _, label):
        with pytest.raises(RecipeError, match="'law', which has no rubric; expected code, math"):
            label("{difficulty: grader}", "law")
        assert server.total == 0
        assert label("{difficulty: {model: grader, rubric: science}}", "law")


def test_garbage_is_asked_again_then_null_and_noted(tmp_path):
    def good_or_garbage(seen, request):
        question = seen.body["messages"][1]["content"]
        return (rating(4) if "Why?" in question else answer("It is hard."))(seen, request)

    with serving(tmp_path, good_or_garbage) as (server, kitchen, label):
        found = label("{difficulty: grader}")
        assert [r["difficulty"] for r in found] == [None, 4.0, None]
        assert server.total == 2 * 3 + 1
        assert notes(kitchen) == [
            "2 of 3 rows have no value in difficulty: no reply could be read."
        ]


@pytest.mark.parametrize(
    "behave",
    [
        rejecting("response_format", "response_format json_schema is not supported", rating(4)),
        answer('Well.\n```json\n{"difficulty": 4, "reasoning": "r"}\n```'),
        answer('<think>{"difficulty": 9</think>{"difficulty": 4, "reasoning": "r"}'),
        in_turn(raw(b'{"choices": [{"mess'), rating(4)),
    ],
)
def test_server_without_schema_prose_or_half_a_body_still_gives_the_value(tmp_path, behave):
    with serving(tmp_path, behave, ["x?"]) as (_, _, label):
        assert label("{difficulty: grader}")[0]["difficulty"] == 4.0


def test_half_an_object_is_tried_again_with_another_seed(tmp_path):
    def behave(seen, request):
        first = seen.number == 0
        text = '{"difficulty": 8, "reas' if first else '{"difficulty": 4, "reasoning": ""}'
        return answer(text, finish="length" if first else "stop")(seen, request)

    with serving(tmp_path, behave, ["x?"]) as (server, _, label):
        assert label("{difficulty: grader}")[0]["difficulty"] == 4.0
        assert len({body["seed"] for body in server.bodies}) == 2


def test_votes_are_averaged(tmp_path):
    values = iter([2, 5, 8])

    def behave(seen, request):
        return rating(next(values))(seen, request)

    with serving(tmp_path, behave, ["x?"]) as (_, _, label):
        assert label("{difficulty: {model: grader, votes: 3}}")[0]["difficulty"] == 5.0


def test_refused_question_is_null_and_told_apart(tmp_path):
    def behave(seen, request):
        said = seen.body["messages"][-1]["content"]
        return (refusal(400, "no") if "Why?" in said else rating(3))(seen, request)

    with serving(tmp_path, behave) as (_, kitchen, label):
        assert [r["difficulty"] for r in label("{difficulty: grader}")] == [3.0, None, 3.0]
        (note,) = notes(kitchen)
        said = "1 of 3 rows have no value in difficulty: the request failed, the first one with r"
        assert note.startswith(said)


def test_model_that_fails_on_every_row_stops_the_run_with_its_words(tmp_path):
    with serving(tmp_path, refusal(400, "too many words")) as (_, kitchen, label):
        for _ in range(2):
            with pytest.raises(ModelError, match="all 3 requests of this label failed") as caught:
                label("{difficulty: grader}")
            assert "too many words" in str(caught.value)
        assert [run.artifact.manifest.step for run in kitchen.built] == ["source"]


def test_prompt_beyond_the_context_of_the_embedded_teacher_says_so(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "How many?"}))
    with Ledger(tmp_path / "ledger") as ledger:
        kitchen = Kitchen(tmp_path / "store", {"q": str(tmp_path / "q.jsonl")},
                          ModelsConfig({}), lambda: ledger)  # fmt: skip
        with pytest.raises(ModelError, match=r"too_long: the prompt has \d+ tokens; .*1023"):
            kitchen.run(
                "name: t\nmodels: {grader: {name: stillroom/teacher-1}}\ndomains: {math: "
                "[{source: {file: q.jsonl}}, {label: {difficulty: {model: grader}}}]}"
            )


def test_plan_counts_what_is_not_settled(tmp_path):
    with serving(tmp_path, answer("garbage")) as (server, kitchen, label):
        label("{length: {}}")
        text = kitchen.text.replace("length: {}", "difficulty: grader")
        calls = kitchen.plan(text)[-1].calls
        assert (calls.wanted, calls.missing) == (3, 3)
        server.behave = refusal(401, "no")
        with pytest.raises(ModelError):
            kitchen.run(text)
        server.behave = rating(1)
        kitchen.run(text)
        assert kitchen.plan(text)[-1].state == "cached"
        waiting = text.replace(", {label", ", {dedup: exact}, {label")
        bound = kitchen.plan(waiting)[-1].calls
        assert (bound.wanted, bound.bound) == (9, True)  # 3 rows, 3 tries


def test_askllm_draws_at_temperature_one_and_keeps_a_decimal(tmp_path):
    with serving(tmp_path, rating(62.5, "score"), ["x?"]) as (server, _, label):
        assert label("{askllm: grader}")[0]["askllm"] == 62.5
        assert server.bodies[0]["temperature"] == 1.0
        assert len(server.bodies[0]["messages"]) == 1


def test_response_length_asks_the_question_alone_and_counts_characters(tmp_path):
    with serving(tmp_path, answer("<think>hm</think>ab½𝒳"), ["x?"]) as (server, _, label):
        assert label("{response_length: prober}")[0]["response_length"] == 4
        assert server.bodies[0]["messages"] == [{"role": "user", "content": "x?"}]
        assert server.bodies[0]["temperature"] == 1.0


def test_response_length_in_tokens_is_what_the_server_counted(tmp_path):
    with serving(tmp_path, answer("ab"), ["x?"]) as (_, _, label):
        found = label("{response_length: {model: prober, unit: tokens}}")
        assert found[0]["response_length"] == 11


def test_filtered_answers_have_no_length(tmp_path):
    def behave(seen, request):
        filtered = "Why?" in seen.body["messages"][-1]["content"]
        return answer("abc", finish="content_filter" if filtered else "stop")(seen, request)

    with serving(tmp_path, behave) as (_, kitchen, label):
        assert [r["response_length"] for r in label("{response_length: prober}")] == [3, None, 3]
        assert notes(kitchen) == [
            "1 of 3 rows have no value in response_length: a content filter cut the reply off."
        ]


def test_question_that_holds_the_mark_of_the_prompt_is_shown_as_it_is(tmp_path):
    with serving(tmp_path, rating(1), ["What is [[question]] for?"]) as (server, _, label):
        label("{difficulty: grader}")
        said = server.bodies[0]["messages"][1]["content"]
        assert said.count("What is [[question]] for?") == 1
        assert said.count("[[question]]") == 1


def test_run_that_was_stopped_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("stillroom.steps.source.source.SHARD", 5)
    questions = [f"Question {i}?" for i in range(17)]

    def dies(seen, request):
        return (rating(2) if seen.number < 9 else refusal(401, "key expired"))(seen, request)

    with serving(tmp_path, dies, questions) as (server, kitchen, label):
        with pytest.raises(ModelError, match="key"):
            label("{difficulty: grader}")
        server.behave = rating(2)
        answered = len(kitchen.ledger().get_many(keys(questions)))
        assert 0 < answered <= 9
        before = server.total
        found = label("{difficulty: grader}")
        assert [r["difficulty"] for r in found] == [2.0] * 17
        assert server.total - before == 17 - answered
        assert len(kitchen.built[-1].artifact.manifest.shards) == 4


def keys(questions):
    """The ledger's keys of the first try of each question."""
    measure = Difficulty(model=ModelSpec(name="some/grader"), rubric="math")
    frame = pl.DataFrame({"question": questions})
    return [inquiry.requests()[0].key for inquiry in measure._inquiries(frame)]
