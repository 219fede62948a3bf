"""How many draws a question gets, and what is asked again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import FakeModel, FakeModels, echo
from tests.kitchen import Kitchen, rows

from stillroom.errors import RecipeError, SetupError, SourceError
from stillroom.models.chat import Completion, Failure, Reply, Request
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.runner import Runner
from stillroom.sandbox import open_sandbox
from stillroom.steps.answer.draws import Known, Tally, Until, half_width

RECIPE = """\
name: test
models: {{teacher: {{name: some/model, max_tokens: 100}}}}
domains:
  math:
    - source: {{file: {file}, columns: {{n: integer}}}}
    - answer: {{{fields}}}
"""


class Cook:
    """Runs one recipe on questions with a fake model, again and again on the same ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kitchen = Kitchen(folder / "store")
        self.ledger = Ledger(folder / "ledger")
        self.kitchen.ledger = lambda: self.ledger
        self.model = FakeModel()

    def __call__(
        self, fields: str, *questions: dict[str, Any], reply: Callable[[Request], Reply] = echo
    ) -> list[dict[str, Any]]:
        self.model = FakeModel(reply)
        self.kitchen.models = FakeModels(self.model)
        file = self.folder / "q.jsonl"
        file.write_text("".join(json.dumps(q) + "\n" for q in questions))
        return rows(self.kitchen.run(self.recipe(fields))["math"])

    def recipe(self, fields: str) -> str:
        return RECIPE.format(file=self.folder / "q.jsonl", fields=fields)

    @property
    def calls(self) -> int:
        return sum(self.model.asked.values())

    @property
    def notes(self) -> list[str]:
        return self.kitchen.built[-1].artifact.manifest.notes


@pytest.fixture
def cook(tmp_path: Path) -> Iterator[Cook]:
    opened = Cook(tmp_path)
    yield opened
    opened.ledger.close()


def right_at(draw: int) -> Callable[[Request], Reply]:
    """Answer 7 at this draw of a question and 8 at all others."""

    def reply(request: Request) -> Reply:
        value = 7 if request.draw == draw else 8
        return Completion("hm", f"\\boxed{{{value}}}", "stop", 3, 5)

    return reply


# A number per row


def test_draws_by_column(cook: Cook) -> None:
    got = cook(
        "draws: {column: n}",
        {"question": "a?", "n": 3}, {"question": "b?", "n": 0}, {"question": "a?", "n": 2},
    )  # fmt: skip
    assert [(r["question"], r["draw"], r["reasoning"]) for r in got] == [
        ("a?", 0, "draw 0: count"), ("a?", 1, "draw 1: count"), ("a?", 2, "draw 2: count"),
        ("a?", 0, "draw 3: count"), ("a?", 1, "draw 4: count"),
    ]  # fmt: skip
    assert cook.calls == 5


@pytest.mark.parametrize(("n", "found"), [(None, "nothing"), (-1, "-1"), (10_001, "10001")])
def test_draws_by_column_that_is_no_number_names_the_row(
    cook: Cook, n: int | None, found: str
) -> None:
    with pytest.raises(SourceError, match=rf"has {found} in 'n'; expected a number from 0 to"):
        cook("draws: {column: n}", {"question": "a?", "n": 1}, {"question": "b?", "n": n})
    assert cook.calls == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("draws: {column: m}", "reads the column 'm', which is not there"),
        ("draws: {column: question}", "holds String; expected whole numbers"),
        ("draws: 0", "draws"),
        ("draws: {until: correct, by: math}", "has no at_most"),
        ("draws: {until: sometimes, by: math, at_most: 4}", "until"),
        ("on_length: {again: 100}", "max_tokens 100 already; expected more"),
    ],
)
def test_mistakes_in_draws_are_told_before_anything_is_bought(
    cook: Cook, fields: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        cook(fields, {"question": "a?", "n": 1})


# Until verified


UNTIL = "draws: {until: correct, by: math, at_most: 8, round: 2}"


def test_until_correct_stops_each_question_after_its_round(cook: Cook) -> None:
    def reply(request: Request) -> Reply:
        first_right = {"a?": 0, "b?": 3, "c?": 99}[request.messages[-1].content]
        return right_at(first_right)(request)

    questions = [{"question": q, "reference": "7"} for q in ("a?", "b?", "c?")]
    got = cook(UNTIL, *questions, reply=reply)
    counts = {q: sum(r["question"] == q for r in got) for q in ("a?", "b?", "c?")}
    assert counts == {"a?": 2, "b?": 4, "c?": 8}
    assert cook.calls == 14
    assert cook.notes == [
        "Draws were asked for in rounds until verdicts sufficed: 14 of at most 24; 2 of 3 "
        "questions needed fewer than 8, which saved 10 draws, 42%."
    ]


def test_until_correct_gives_the_same_rows_whatever_the_ledger_held_before(
    cook: Cook, tmp_path: Path
) -> None:
    questions = [{"question": q, "reference": "7"} for q in ("a?", "b?")]
    expected = cook(UNTIL, *questions, reply=right_at(2))
    (tmp_path / "other").mkdir()
    other = Cook(tmp_path / "other")
    other("draws: 8", *questions, reply=right_at(2))
    assert other(UNTIL, *questions, reply=right_at(2)) == expected
    assert other.calls == 0
    other.ledger.close()


def test_until_correct_without_reference_buys_one_round(cook: Cook) -> None:
    assert len(cook(UNTIL, {"question": "a?"})) == 2


def test_until_correct_goes_on_after_draws_that_failed(cook: Cook) -> None:
    def reply(request: Request) -> Reply:
        return Failure("refused", "no") if request.draw < 2 else right_at(2)(request)

    got = cook(UNTIL, {"question": "a?", "reference": "7"}, reply=reply)
    assert [r["draw"] for r in got] == [2, 3]
    assert cook.kitchen.built[-1].artifact.manifest.drops == {"refused": 2}


def test_until_correct_goes_on_after_an_answer_that_was_cut_off(cook: Cook) -> None:
    def reply(request: Request) -> Reply:
        words = "So far 3 + 4 = 7, and" if request.draw < 4 else "\\boxed{7}"
        return Completion(None, words, "length" if request.draw < 4 else "stop", 3, 5)

    got = cook(UNTIL, {"question": "a?", "reference": "7"}, reply=reply)
    assert [r["draw"] for r in got] == [0, 1, 2, 3, 4, 5]


PROGRAMS = """\
name: test
models: {{teacher: {{name: some/model, max_tokens: 100}}}}
domains:
  code:
    - source: {{file: {file}, tests: {{column: tests, kind: asserts}}}}
    - {step}
"""


@pytest.fixture
def programs(cook: Cook) -> Callable[[str], list[dict[str, Any]]]:
    """Run a step on a question of which every fourth program is right, and one without tests."""
    try:
        open_sandbox()
    except SetupError as error:
        pytest.skip(str(error))

    def reply(request: Request) -> Reply:
        value = "x" if request.draw % 4 == 3 else "0"
        return Completion(None, f"```python\ndef f(x):\n    return {value}\n```", "stop", 3, 5)

    def run(step: str) -> list[dict[str, Any]]:
        cook.kitchen.models = FakeModels(FakeModel(reply))
        asked = [{"question": "f?", "tests": ["assert f(1) == 1"]}, {"question": "g?"}]
        file = cook.folder / "q.jsonl"
        file.write_text("".join(json.dumps(q) + "\n" for q in asked))
        return rows(cook.kitchen.run(PROGRAMS.format(file=file, step=step))["code"])

    return run


def test_until_a_program_passes_its_tests(programs: Callable[[str], list[dict[str, Any]]]) -> None:
    got = programs("answer: {draws: {until: correct, by: code, at_most: 8}}")
    assert [(r["question"], r["draw"]) for r in got] == [
        ("f?", 0), ("f?", 1), ("f?", 2), ("f?", 3), ("g?", 0),
    ]  # fmt: skip


def test_solve_rate_of_programs(programs: Callable[[str], list[dict[str, Any]]]) -> None:
    got = programs("label: {solve_rate: {model: teacher, by: code, draws: 8}}")
    assert [(r["solve_rate"], r["solve_rate_decided"]) for r in got] == [(0.25, 8), (None, None)]


def half_right(request: Request) -> Reply:
    right = request.draw % 2 or request.messages[-1].content == "easy?"
    return right_at(request.draw if right else -1)(request)


def test_until_the_pass_rate_is_known(cook: Cook) -> None:
    got = cook(
        "draws: {until: {within: 0.2, confidence: 0.9}, by: math, at_most: 64, round: 4}",
        {"question": "easy?", "reference": "7"}, {"question": "hard?", "reference": "7"},
        reply=half_right,
    )  # fmt: skip
    easy, hard = (sum(r["question"] == q for r in got) for q in ("easy?", "hard?"))
    assert easy < hard < 64
    assert half_width(hard // 2, hard, 0.9) <= 0.2 < half_width(hard // 2 - 2, hard - 4, 0.9)


def test_plan_bounds_adaptive_draws(cook: Cook) -> None:
    cook(UNTIL, {"question": "a?", "reference": "7"}, reply=right_at(0))
    (cook.folder / "q.jsonl").write_text(
        "".join(json.dumps({"question": q, "reference": "7"}) + "\n" for q in ("a?", "b?"))
    )
    # A source must be built before the step after it can be planned.
    cook.kitchen.run(cook.recipe("draws: 1").rsplit("\n", 2)[0] + "\n")
    planned = cook.kitchen.plan(cook.recipe(UNTIL))[-1]
    assert planned.calls is not None
    assert (planned.calls.wanted, planned.calls.missing, planned.calls.bound) == (16, 14, True)
    assert planned.at_most == 16


@given(st.lists(st.sampled_from(["correct", "incorrect", "unparsed", "error"]), max_size=40))
def test_tally_closes_at_the_first_round_that_suffices(outcomes: list[Any]) -> None:
    rule = Until(until=Known(within=0.15), by="math", at_most=30, round=3)
    tally = Tally()
    while not tally.closed:
        tally.add(rule, outcomes[tally.drawn : tally.drawn + 3])
    seen = outcomes[: tally.drawn]
    known = half_width(
        seen.count("correct"), sum(o in ("correct", "incorrect") for o in seen), 0.95
    )
    assert known <= 0.15 or tally.drawn == 30
    before = seen[:-3]
    if len(seen) > 3:
        decided = sum(o in ("correct", "incorrect") for o in before)
        assert half_width(before.count("correct"), decided, 0.95) > 0.15


# Asking again


def cut_below(limit: int) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        if (request.sampling.max_tokens or 0) < limit:
            return Completion("so far", "", "length", 3, 100)
        return echo(request)

    return reply


def test_cut_answers_are_asked_again_only_when_told(cook: Cook) -> None:
    question = {"question": "a?"}
    assert [r["finish_reason"] for r in cook("draws: 2", question, reply=cut_below(500))] == [
        "length", "length"
    ]  # fmt: skip
    got = cook("draws: 2, on_length: {again: 500}", question, reply=cut_below(500))
    assert [(r["finish_reason"], r["draw"]) for r in got] == [("stop", 0), ("stop", 1)]
    assert cook.calls == 2
    assert cook("draws: 2, on_length: {again: 500}", question) == got
    assert cook.calls == 0


def test_cut_answer_stays_where_the_larger_limit_fails(cook: Cook) -> None:
    def reply(request: Request) -> Reply:
        return Failure("too_long", "no") if request.sampling.max_tokens == 500 else cut(request)

    cut = cut_below(500)
    got = cook("on_length: {again: 500}", {"question": "a?"}, reply=reply)
    assert [r["finish_reason"] for r in got] == ["length"]


@pytest.mark.parametrize(("tries", "finish", "calls"), [(1, "content_filter", 2), (3, "stop", 3)])
def test_filtered_answers_are_asked_again_so_often(
    cook: Cook, tries: int, finish: str, calls: int
) -> None:
    def reply(request: Request) -> Reply:
        filtered = request.draw < 2 * 10**9
        return replace(echo(request), finish_reason="content_filter") if filtered else echo(request)  # type: ignore[type-var]

    got = cook(f"on_content_filter: {{again: {tries}}}", {"question": "a?"}, reply=reply)
    assert [(r["finish_reason"], r["draw"]) for r in got] == [(finish, 0)]
    assert cook.calls == calls


def test_options_that_are_not_used_change_no_key(cook: Cook) -> None:
    cook("draws: 1", {"question": "a?"})
    fields = cook.kitchen.built[-1].artifact.manifest.fields
    assert sorted(fields) == ["draws", "model", "prefix", "suffix"]


# Asking again what failed


def test_retry_failed_asks_again_for_failures_and_for_nothing_else(
    cook: Cook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(request: Request) -> Reply:
        return Failure("refused", "no") if request.draw == 1 else echo(request)

    question = {"question": "a?"}
    assert len(cook("draws: 3", question, reply=reply)) == 2
    assert len(cook("draws: 3", question)) == 2
    assert cook.calls == 0
    runtime = replace(cook.kitchen.runtime, retry_failed=True)
    monkeypatch.setattr(Kitchen, "runtime", runtime.__class__(**{
        f: getattr(runtime, f) for f in runtime.__dataclass_fields__
    }))  # fmt: skip
    model = cook.model = FakeModel()
    runtime.models.model = model  # type: ignore[attr-defined]
    assert len(rows(cook.kitchen.run(cook.recipe("draws: 3"))["math"])) == 3
    assert cook.calls == 1
    assert len(rows(cook.kitchen.run(cook.recipe("draws: 3"))["math"])) == 3
    assert cook.calls == 1


def test_what_failed_once_more_is_not_asked_for_by_the_next_runner_of_a_command(
    tmp_path: Path,
) -> None:
    text = """
name: r
models: {teacher: {name: some/model, max_tokens: 9}}
domains: {math: [{source: {procedural: {n: 3}}}, {answer: {draws: 2}}]}
"""

    def reply(request: Request) -> Reply:
        return Failure("refused", "no") if request.draw == 1 else echo(request)

    model, tried = FakeModel(reply), set[str]()
    with Ledger(tmp_path / "ledger") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(model), lambda: ledger)
        kitchen.run(text)
        before = model.asked.total()
        for _ in range(3):  # arms of a study that share their answers
            rt = replace(kitchen.runtime, retry_failed=True)
            walk(read_recipe(text).bound(), Runner(kitchen.store, rt, tried=tried))
        assert model.asked.total() - before == 3
