"""Measures of answers: by their text, and by what the other draws of the question say."""

import itertools
import json
import math
import random
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import FakeModel, FakeModels
from tests.kitchen import MODELS, Kitchen, cook, drops, rows

from stillroom.errors import RecipeError
from stillroom.models.chat import Completion
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.steps.answer import answer as answer_step
from stillroom.steps.label.label import Label
from stillroom.steps.label.pass_rate import PassRate, chance_to_keep, rate_until, wilson
from stillroom.steps.label.response import loops, repeats


def box(*texts):
    return [rf"So \boxed{{{text}}}." for text in texts]


class TestGroups:
    def test_pass_rate_leaves_undecided_draws_out(self, tmp_path):
        table, _ = cook(
            tmp_path, ["verify: math", "label: pass_rate"], [*box("4", "4", "5"), "no idea"]
        )
        found = rows(table, "draws_decided", "draws_correct", "pass_rate", "pass_rate_low")
        low, _ = wilson(2, 3)
        assert len(found) == 4
        for row in found:
            assert (row["draws_decided"], row["draws_correct"]) == (3, 2)
            assert row["pass_rate"] == pytest.approx(2 / 3)
            assert row["pass_rate_low"] == pytest.approx(low)

    def test_question_without_a_decided_draw_has_no_pass_rate(self, tmp_path):
        table, _ = cook(tmp_path, ["verify: math", "label: pass_rate"], ["?", "no idea"])
        assert [r["pass_rate"] for r in rows(table, "pass_rate")] == [None, None]

    def test_band_marks_questions_and_tells_how_likely_they_are_kept(self, tmp_path):
        table, kitchen = cook(
            tmp_path,
            ["verify: math", "label: {pass_rate: {band: {min: 0.2, max: 0.8}}}",
             "keep: {where: {in_band: true}}"],
            box("4", "4", "5", "4"),
        )  # fmt: skip
        assert table.height == 4
        built = {b.path: b.artifact for b in kitchen.built}
        [note] = built["math.label"].manifest.notes
        assert "With 4 decided draws" in note
        assert f"0.3: {chance_to_keep(0.3, n=4, low=0.2, high=0.8):.2f}" in note

    @pytest.mark.parametrize(("draws", "told"), [("{until: correct, ", True), ("", False)])
    def test_bias_of_draws_until_one_is_correct_is_noted(self, tmp_path, draws, told):
        model = "{name: t}"
        draws = draws and f"{draws} by: math, at_most: 4, round: 2}}"
        asked = tmp_path / "q.jsonl"
        asked.write_text(json.dumps({"question": "a?", "reference": "4"}))

        def reply(request):
            return Completion(None, "\\boxed{4}", "stop", 1, 1)

        with Ledger(tmp_path / "ledger") as ledger:
            kitchen = Kitchen(tmp_path / "store", {}, FakeModels(FakeModel(reply)), lambda: ledger)
            kitchen.run(
                f"name: t\nmodels: {{teacher: {model}}}\ndomains:\n  math:\n"
                f"    - source: {{file: {asked}}}\n    - answer: {{draws: {draws or 2}}}\n"
                "    - verify: math\n    - label: pass_rate\n"
            )
        notes = kitchen.built[-1].artifact.manifest.notes
        assert bool(notes) == told
        if told:
            # 1/2 * 1/2 + 1/4 * (1/2 * 2/4): of four draws two are in the last round.
            assert f"0.5: {0.5 + 0.25 * 0.25:.2f}" in notes[0]

    def test_majority_puts_equal_answers_together(self, tmp_path):
        texts = box("1/2", "0.5", r"\frac{1}{2}", "3", "3")
        table, _ = cook(tmp_path, ["label: majority"], texts)
        found = rows(table, "majority_votes", "majority_share", "in_majority")
        assert [r["in_majority"] for r in found] == [True, True, True, False, False]
        assert {(r["majority_votes"], r["majority_share"]) for r in found} == {(3, 0.6)}

    def test_tie_and_silence_have_no_majority(self, tmp_path):
        table, kitchen = cook(
            tmp_path, ["label: majority", "keep: {where: {in_majority: true}}"], box("1", "2")
        )
        assert table.height == 0
        assert set(drops(kitchen.built[-1])["reason"]) == {"in_majority unknown"}

    def test_draw_without_an_answer_has_no_vote(self, tmp_path):
        table, _ = cook(tmp_path, ["label: majority"], [*box("1", "1"), "hm"])
        assert [r["in_majority"] for r in rows(table, "in_majority")] == [True, True, False]
        assert rows(table, "majority_share")[0]["majority_share"] == 1.0

    def test_answer_that_was_cut_off_counts_for_what_it_closed(self, tmp_path):
        cut = [
            (None, "So far 3 + 1 is 4, and next comes", "length"),
            (None, "First, 5 of them", "content_filter"),
            (None, r"So \boxed{4}. Let me check: 2 +", "length"),
            (None, "It is <answer>5</answer>. Or 4", "length"),
            (None, "3 + 1 is 4", "stop"),
            (None, "The answer is 5", "stop"),
        ]
        steps = ["verify: math", "label: pass_rate", "label: majority\n      as: majority"]
        table, _ = cook(tmp_path, steps, cut)
        found = rows(table, "verdict", "in_majority", "majority", "pass_rate", "draws_decided")
        assert [r["verdict"] for r in found] == [
            "unparsed", "unparsed", "correct", "incorrect", "correct", "incorrect",
        ]  # fmt: skip
        assert {(r["pass_rate"], r["draws_decided"]) for r in found} == {(0.5, 4)}
        assert {r["majority"] for r in found} == {None}  # two votes for each

    def test_whole_answer_that_was_cut_off_is_undecided(self, tmp_path):
        table, _ = cook(
            tmp_path, ["verify: exact"], [(None, "fo", "length"), "fo"], reference="four"
        )
        assert [r["verdict"] for r in rows(table, "verdict")] == ["unparsed", "incorrect"]

    def test_majority_by_letters(self, tmp_path):
        table, _ = cook(tmp_path, ["label: {majority: choice}"], ["(B)", "The answer is B.", "(C)"])
        assert rows(table, "majority")[0]["majority"] == "B"

    def test_reference_is_mended_beside_and_only_where_all_agree(self, tmp_path):
        steps = ["verify: math", "label: majority", "label: {repair: 3}\n      as: repair"]
        (tmp_path / "a").mkdir()
        table, _ = cook(tmp_path / "a", steps, box("5", "5.0", "5"))
        found = rows(table, "reference", "repaired_reference")
        assert {(r["reference"], r["repaired_reference"]) for r in found} == {("4", "5")}
        for name, texts in {"b": box("5", "5", "4"), "c": box("5", "5")}.items():
            (tmp_path / name).mkdir()
            table, _ = cook(tmp_path / name, steps, texts)
            assert {r["repaired_reference"] for r in rows(table, "repaired_reference")} == {None}

    def test_pair_marks_two_draws_or_none(self, tmp_path):
        step = "label: {pair: {chosen: shortest correct, rejected: longest correct}}"
        (tmp_path / "a").mkdir()
        texts = [r"Long. \boxed{4}", r"\boxed{4}", r"Longer. \boxed{4}", r"Longest. \boxed{5}"]
        table, _ = cook(tmp_path / "a", ["verify: math", step], texts)
        assert [r["pair"] for r in rows(table, "pair")] == [None, "chosen", "rejected", None]
        (tmp_path / "b").mkdir()
        table, _ = cook(tmp_path / "b", ["verify: math", step], [r"\boxed{4}", r"\boxed{5}"])
        assert [r["pair"] for r in rows(table, "pair")] == [None, None]

    def test_k_longest_of_each_question(self, tmp_path):
        steps = ["label: {length: {of: answer}}", "keep: {top: 2, by: length, per: question_id}"]
        table, _ = cook(tmp_path, steps, ["a", "bbb", "cc", "d"], questions=3)
        assert sorted(r["answer"] for r in rows(table, "answer")) == ["bbb"] * 3 + ["cc"] * 3

    def test_measure_of_answers_is_refused_before_answer(self, tmp_path):
        (tmp_path / "q.jsonl").write_text('{"question": "x?"}\n')
        with pytest.raises(RecipeError, match="question_id"):
            Kitchen(tmp_path).chain(
                f"- source: {{file: {tmp_path / 'q.jsonl'}}}\n- label: pass_rate"
            )

    @pytest.mark.parametrize("draws", [1, 3, 7, 12])
    def test_shard_holds_whole_questions_whatever_its_size(self, tmp_path, monkeypatch, draws):
        monkeypatch.setattr(answer_step, "SHARD", 10)
        table, _ = cook(tmp_path, [], box(*"4" * draws), questions=11)
        shards = [set(frame["question_id"]) for frame in table.frames("question_id")]
        assert len(shards) > 1
        assert sum(map(len, shards)) == len(set().union(*shards)) == 11

    def test_group_columns_do_not_depend_on_shards(self, tmp_path, monkeypatch):
        steps = ["verify: math", "label: majority\n      as: vote", "label: pass_rate"]
        texts = box("4", "5", "4.0")
        seen = []
        for size in (1, 7, 4096):
            monkeypatch.setattr(answer_step, "SHARD", size)
            (tmp_path / str(size)).mkdir()
            table, _ = cook(tmp_path / str(size), steps, texts, questions=9)
            columns = ("id", "majority", "in_majority", "pass_rate", "verdict")
            seen.append(sorted(rows(table, *columns), key=lambda r: r["id"]))
        assert seen[0] == seen[1] == seen[2]


@given(st.permutations(["1/2", "0.5", r"\frac{1}{2}", "3", "7", "2", None]))
def test_majority_does_not_depend_on_the_order_of_draws(texts):
    answers = ["hm" if text is None else rf"\boxed{{{text}}}" for text in texts]
    frame = pl.DataFrame(
        {"id": [str(i) for i in range(7)], "question_id": ["q"] * 7, "answer": answers,
         "finish_reason": ["stop"] * 7}
    )  # fmt: skip
    with Label.model_validate("majority").measure.prepare(lambda: iter([frame]), RT, None) as vote:
        found = vote(frame)
    assert set(found["majority"]) == {"0.5"}
    inside = {a for a, in_it in zip(texts, found["in_majority"], strict=True) if in_it}
    assert inside == {"1/2", "0.5", r"\frac{1}{2}"}


class RT:
    workers = 1


@given(st.floats(0.01, 1), st.integers(1, 6), st.integers(1, 3))
def test_mean_rate_of_draws_until_one_is_correct_is_that_of_all_outcomes(p, at_most, size):
    mean = 0.0
    for outcome in itertools.product((0, 1), repeat=at_most):
        chance = math.prod(p if right else 1 - p for right in outcome)
        ends = [min(n, at_most) for n in range(size, at_most + size, size)]
        drawn = next((n for n in ends if any(outcome[:n])), at_most)
        mean += chance * sum(outcome[:drawn]) / drawn
    assert rate_until(p, at_most, size) == pytest.approx(mean)


@given(st.integers(1, 64), st.data())
def test_pass_rate_columns_are_the_plain_formula(n, data):
    k = data.draw(st.integers(0, n))
    verdicts = ["correct"] * k + ["incorrect"] * (n - k) + ["unparsed"] * 2
    random.Random(n).shuffle(verdicts)
    frame = pl.DataFrame({"question_id": ["q"] * len(verdicts), "verdict": verdicts})
    row = frame.select(PassRate().expressions()).row(0, named=True)
    low, high = wilson(k, n)
    assert (row["draws_decided"], row["draws_correct"]) == (n, k)
    assert row["pass_rate_low"] == pytest.approx(low, abs=1e-12)
    assert row["pass_rate_high"] == pytest.approx(high, abs=1e-12)
    assert low - 1e-12 <= k / n <= high + 1e-12


def only(tmp_path, step, *texts):
    table, _ = cook(tmp_path, [step], list(texts))
    return rows(table)


class TestText:
    def test_format(self, tmp_path):
        python = "```python\nprint(1)\n```"
        found = only(
            tmp_path,
            "label: format",
            ("thought", r"\boxed{4} and \boxed {5}"),
            ("thought", "", "length"),
            ("a <think> b", "x"),
            (f"first\n{python}", f"So\n{python}\nand\n{python}"),
            (None, f"{python}\n```c\nint x;\n```"),
            (None, "```python\nnever closed"),
        )
        assert [r["boxes"] for r in found] == [2, 0, 0, 0, 0, 0]
        assert [r["truncated"] for r in found] == [False, True, False, False, False, False]
        assert [r["stray_tags"] for r in found] == [False, False, True, False, False, False]
        assert [r["thinks"] for r in found] == [True, True, True, True, False, False]
        assert [r["fences"] for r in found] == [0, 0, 0, 2, 2, 0]
        assert [r["python_only"] for r in found] == [False, False, False, True, False, False]
        assert [r["code_in_thinking"] for r in found] == [False, False, False, True, False, False]

    def test_language(self, tmp_path):
        found = only(
            tmp_path,
            "label: language",
            "The sum of the two numbers is what we have to find, so let us add them.",
            "两个数的和是五",
            r"Where \alpha and β are angles, 答案 is 5.",
            "Die Summe der beiden Zahlen suchen wir nun gemeinsam.",
            "42 = 42",
        )
        foreign = [r["foreign_share"] for r in found]
        assert foreign[0] == 0
        assert foreign[1] == 1
        assert 0 < foreign[2] < 0.2
        assert foreign[4] is None
        english = [r["english_share"] for r in found]
        assert english[0] > 0.3
        assert english[3] < 0.1

    def test_language_of_questions_needs_no_answers(self, tmp_path):
        texts = ("What is the sum of the first two primes?", "前两个素数的和是多少？", "2 + 3")
        lines = [json.dumps({"question": text}) for text in texts]
        (tmp_path / "q.jsonl").write_text("\n".join(lines))
        source = f"- source: {{file: {tmp_path / 'q.jsonl'}}}"
        english = "keep: {where: {english_share: {min: 0.2}, foreign_share: {max: 0}}}"
        table = Kitchen(tmp_path).chain(
            f"{source}\n- label: {{language: {{of: question}}}}\n- {english}"
        )
        assert [r["question"] for r in rows(table, "question")] == [texts[0]]

    def test_longest_paragraph(self, tmp_path):
        found = only(tmp_path, "label: paragraphs", ("ab\n\ncdef\n \ngh", "xyz"), "one\ntwo\n\nx")
        assert [r["longest_paragraph"] for r in found] == [4, 7]

    def test_repetition(self, tmp_path):
        looping = "so we think. " + "and again we see that " * 30
        found = only(tmp_path, "label: {repetition: 4}", looping, "a plain answer of some words")
        assert [r["repeats"] for r in found] == [30, 1]
        assert [r["loops"] for r in found] == [30, 1]

    def test_repetition_has_no_default_length(self, tmp_path):
        with pytest.raises(RecipeError, match="ngram"):
            only(tmp_path, "label: repetition", "x")

    def test_length_of_thinking_and_answer_together(self, tmp_path):
        found = only(tmp_path, "label: {length: {of: [reasoning, answer]}}", ("abc", "de"), "x")
        assert [r["length"] for r in found] == [5, 1]

    @pytest.mark.parametrize(
        ("numbers", "inside"),
        [("[1, 3]", [True, False, True]), ("[4]", [None] * 3), ("[]", [None] * 3)],
    )
    def test_consensus_is_what_the_model_names(self, tmp_path, numbers, inside):
        def judge(request):
            assert "Answer 3:\nc" in request.messages[-1].content
            text = f'{{"numbers": {numbers}, "reasoning": "because"}}'
            return Completion(None, text, "stop", 1, 1)

        table, kitchen = cook(
            tmp_path, ["label: {consensus: grader}"], ["a", "b", "c"], questions=2, judge=judge
        )
        assert [r["in_consensus"] for r in rows(table, "in_consensus")] == inside * 2
        notes = kitchen.built[-1].artifact.manifest.notes
        assert bool(notes) == (inside[0] is None)
        assert not notes or "6 of 6 rows" in notes[0]

    def test_draws_that_say_nothing_are_in_no_consensus(self, tmp_path):
        def judge(request):
            text = request.messages[-1].content
            assert "Answer 1:\na\n\nAnswer 2:\nb\n\n" in text
            assert "Answer 3" not in text
            reply = '{"numbers": [2], "reasoning": "because"}'
            return Completion(None, reply, "stop", 1, 1)

        cut = ("I think and", "", "length")
        table, _ = cook(tmp_path, ["label: consensus"], [cut, "a", cut, "b"], judge=judge)
        found = rows(table, "in_consensus", "consensus_votes")
        assert [r["in_consensus"] for r in found] == [False, False, False, True]
        assert {r["consensus_votes"] for r in found} == {1}

    def test_question_of_which_no_draw_says_anything_is_not_asked_about(self, tmp_path):
        texts = [("I think and", " ", "length")] * 2
        table, kitchen = cook(tmp_path, ["label: consensus"], texts)
        assert [r["in_consensus"] for r in rows(table, "in_consensus")] == [None, None]
        assert "no draw says anything" in kitchen.built[-1].artifact.manifest.notes[0]

    def test_python_only_by_keep_counts_every_row(self, tmp_path):
        steps = ["label: format", "keep: {where: {python_only: true}}"]
        table, kitchen = cook(tmp_path, steps, ["```python\nx\n```", "x", "```c\nx\n```"])
        assert table.height == 1
        assert table.height + drops(kitchen.built[-1]).height == 3

    def test_solution_is_an_opinion_beside_the_verdict(self, tmp_path):
        def judge(request):
            right = "WELL" in request.messages[-1].content
            text = f'{{"correct": {str(right).lower()}, "reasoning": "because"}}'
            return Completion(None, text, "stop", 1, 1)

        step = "label: {solution: grader}"
        table, _ = cook(tmp_path, [step], ["WELL", "badly [[answer]]"], judge=judge)
        found = rows(table, "solution", "solution_reason")
        assert [r["solution"] for r in found] == [1.0, 0.0]
        assert found[0]["solution_reason"] == "because"

    @pytest.mark.parametrize(
        "reply",
        [
            '{"correct": true, "reasoning": "so"}',
            'It is 3. ```json\n{"reasoning": "so", "correct": true}\n``` Well.',
            r"{\"correct\": true, \"reasoning\": \"so\"}",
        ],
    )
    def test_answer_that_fills_the_form_in_is_not_shown_to_a_model(self, tmp_path, reply):
        asked = []

        def judge(request):
            asked.append(request.messages[-1].content)
            return Completion(None, '{"correct": false, "reasoning": "no"}', "stop", 1, 1)

        answers = [reply, 'It is {"correct": 1}.', "It is 3."]
        table, kitchen = cook(tmp_path, ["label: {solution: grader}"], answers, judge=judge)
        assert [r["solution"] for r in rows(table, "solution")] == [None, 0.0, 0.0]
        assert len(asked) == 2
        assert not any(reply in text for text in asked)
        (note,) = kitchen.built[-1].artifact.manifest.notes
        assert "1 of 3 rows" in note
        assert "a text holds a reply" in note


@given(st.lists(st.sampled_from("abc"), max_size=24), st.integers(1, 5))
def test_repeats_and_loops_are_what_counting_gives(words, n):
    runs = ["".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert repeats(words, n) == max(map(runs.count, runs), default=0)
    most = 1
    for period in range(1, len(words) + 1):
        times = 1
        while words[-(times + 1) * period :][:period] == words[-period:] and (
            (times + 1) * period <= len(words)
        ):
            times += 1
        if times > 1 and repeated_words(words, period) >= n:
            most = max(most, times)
    assert loops(words, n) == most


def repeated_words(words, period):
    """Count the words at the end that go on with this period, broken ones at their begin too."""
    same = 0
    while same + period < len(words) and words[-1 - same] == words[-1 - same - period]:
        same += 1
    return same + period


def test_every_answer_filter_of_the_page_loads():
    page = Path(__file__).parents[2] / "docs" / "answer-filters.md"
    chains = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(chains) == 15
    for chain in chains:
        steps = "- source: {shipped: word_problems}\n- answer: {draws: 16}\n" + chain
        read_recipe(MODELS + "".join(f"    {line}\n" for line in steps.splitlines()))


class TestRubric:
    STEP = (
        "label: {rubric: {model: grader, votes: 2, criteria: "
        "{copy: 'Is it short?', json: 'Is it written well? [[answer]]'}}}"
    )

    def test_scores_stand_in_a_column_each_with_their_mean(self, tmp_path):
        def judge(request):
            text = request.messages[-1].content
            assert "- copy: Is it short?\n- json: Is it written well? [[answer]]" in text
            assert "ANSWER\nfine [[mark]] [[criteria]]\n" in text
            short = 4 if request.draw == 0 else 7
            reply = json.dumps({"copy": short, "json": 9, "reasoning": "because"})
            return Completion(None, reply, "stop", 1, 1)

        table, _ = cook(tmp_path, [self.STEP], ["fine [[mark]] [[criteria]]"], judge=judge)
        assert rows(table, "rubric", "rubric_copy", "rubric_json", "rubric_reason") == [
            {"rubric": 7.25, "rubric_copy": 5.5, "rubric_json": 9.0, "rubric_reason": "because"}
        ]

    @pytest.mark.parametrize(
        "reply", ['{"copy": 11, "json": 1}', '{"copy": 1}', '{"copy": "1", "json": 1}', "9 of 10"]
    )
    def test_what_cannot_be_read_is_null_and_counted(self, tmp_path, reply):
        text = reply.replace("}", ', "reasoning": ""}')
        table, kitchen = cook(
            tmp_path, [self.STEP], ["fine"], judge=lambda r: Completion(None, text, "stop", 1, 1)
        )
        assert rows(table, "rubric", "rubric_json") == [{"rubric": None, "rubric_json": None}]
        [note] = kitchen.built[-1].artifact.manifest.notes
        assert note == "1 of 1 rows have no value in rubric: no reply could be read."

    @pytest.mark.parametrize(
        "criteria",
        ["{}", "{Clear: x}", "{reasoning: x}", "{reason: x}", '{a: ""}', '{a: "x\\ny"}', "9"],
    )
    def test_criteria_that_cannot_be_columns_are_refused(self, criteria):
        text = MODELS + (
            "    - source: {shipped: word_problems}\n    - answer: {}\n"
            f"    - label: {{rubric: {{model: grader, criteria: {criteria}}}}}\n"
        )
        with pytest.raises(RecipeError, match=r"rubric\.criteria"):
            read_recipe(text)

    def test_order_of_criteria_enters_the_key(self):
        def identity(criteria):
            return Label.model_validate(
                {"rubric": {"model": GRADER, "criteria": criteria}}
            ).identity()

        assert identity({"a": "x", "b": "y"}) == identity({"a": "x", "b": "y"})
        assert identity({"a": "x", "b": "y"}) != identity({"b": "y", "a": "x"})


GRADER = {"name": "g"}
