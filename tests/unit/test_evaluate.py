"""Scorecards, and scores with and without the items that training data ask."""

import dataclasses
import json
import math
from pathlib import Path

import polars as pl
import pytest
from tests.kitchen import Kitchen
from tests.sittings import sit, write
from tests.unit.test_benchmarks import OWN, own

from stillroom.errors import RecipeError, SourceError
from stillroom.evaluate.contamination import Suspects, read_suspects, suspects_of
from stillroom.evaluate.grade import Grades, exam_of, title_of
from stillroom.store.store import Store

pytest.importorskip("scipy")

from stillroom.study.form import Study
from stillroom.study.marks import notes
from stillroom.study.reports.clean import without_suspects
from stillroom.study.result import Result, Sat
from stillroom.study.scorecard import scorecard
from stillroom.study.statistics.outcomes import Outcomes
from stillroom.study.suspects import check_files, suspects_among


def grades(*items, rows=None):
    """Grades of items, each a list of (verdict, extracted) for its repeats."""
    table = [
        {
            "item": f"i{n}", "row": n, "repeat": k, "score": float(verdict == "correct"),
            "verdict": verdict, "extracted": text, "finish_reason": "stop", "completion_tokens": 3,
        }
        for n, repeats in enumerate(items)
        for k, (verdict, text) in enumerate(repeats)
    ]  # fmt: skip
    return Grades(pl.DataFrame(table), rows=len(items) if rows is None else rows)


RIGHT, WRONG, OTHER = ("correct", "4"), ("incorrect", "5"), ("incorrect", "6")
SILENT, FAILED = ("unparsed", None), ("error", None)


def exam(repeats):
    return exam_of("proxy_suite", repeats)


def test_a_scorecard_tells_both_errors_and_what_several_attempts_are_worth():
    card = scorecard(
        exam(4),
        grades(
            [RIGHT, ("correct", "4.0"), WRONG, OTHER],  # all right answers are one: the vote is won
            [WRONG, ("incorrect", " 5 "), RIGHT, SILENT],  # so is "5" and " 5 "
            [RIGHT, RIGHT, WRONG, WRONG],  # a tie is split
            [SILENT, FAILED, WRONG, OTHER],
        ),
    )
    assert (card.items, card.repeats) == (4, 4)
    assert card.score.estimate.value == 5 / 16
    assert card.any_right == 0.75
    assert card.majority == (1 + 0 + 0.5 + 0) / 4
    assert (card.silent, card.failed, card.cut, card.tokens) == (2 / 16, 1, 0.0, 3.0)
    assert card.score.sampling_se > 0
    assert card.score.question_se > 0
    assert 0 <= card.score.estimate.low < 5 / 16 < card.score.estimate.high <= 1


def test_few_attempts_have_no_vote_and_one_item_has_no_error():
    card = scorecard(exam(1), grades([RIGHT], [WRONG], [RIGHT]))
    assert card.any_right is None
    assert card.majority is None
    assert math.isnan(card.score.sampling_se)
    alone = scorecard(exam(2), grades([RIGHT, RIGHT]))
    assert math.isnan(alone.score.question_se)
    assert alone.score.estimate.low < 0.25
    sure = scorecard(exam(1), grades(*[[RIGHT]] * 30))
    assert sure.score.estimate.low == pytest.approx(0.886, abs=0.01)  # Wilson's, not 1.0


# --- contamination --------------------------------------------------------------------------------


def report(tmp_path, **tallies):
    file = tmp_path / "report.json"
    found = {name: {"items": n, "asked": asked} for name, (n, asked) in tallies.items()}
    file.write_text(json.dumps({"benchmarks": found}))
    return file


def test_a_report_takes_items_out_by_their_row(tmp_path):
    suspects = read_suspects(
        report(tmp_path, mine=(3, [1]), clear=(3, [])), Store(tmp_path / "store")
    )
    sat = grades([RIGHT], [WRONG], [RIGHT])
    assert suspects.clean("mine", sat)["row"].to_list() == [0, 2]
    assert suspects.clean("clear", sat).height == 3
    assert suspects.clean("other", sat) is None
    assert scorecard(exam(1), sat, suspects.clean("mine", sat)).score.estimate.value == 1.0


def test_a_report_on_another_file_is_refused(tmp_path):
    suspects = read_suspects(report(tmp_path, mine=(500, [1])), Store(tmp_path / "store"))
    with pytest.raises(SourceError, match="it searched 500 items of mine, but the file that is"):
        suspects.clean("mine", grades([RIGHT], [WRONG]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no report on contamination"),
        ("[]", "no report on contamination"),
        ('{"benchmarks": {"x": {"items": 3}}}', "'asked' is missing"),
        ('{"benchmarks": {"x": {"items": 3, "asked": ["a"]}}}', "invalid literal"),
        (None, "no such report or dataset"),
    ],
)
def test_a_bad_report_is_one_message(tmp_path, text, words):
    file = tmp_path / "report.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SourceError, match=words) as caught:
        read_suspects(file, Store(tmp_path / "store"))
    assert str(caught.value).startswith(f"{file}:")


RECIPE = """
name: test
domains:
  math:
    - source: {{file: {pool}}}
    - decontaminate: {{against: {{bench: {{file: {bench}}}, other: {{file: {bench}}}}}, ngram: 4}}
"""


@pytest.fixture
def cooked(tmp_path):
    """A recipe that dropped a question which asks row 1 of a benchmark."""
    pool, bench = tmp_path / "pool.jsonl", tmp_path / "bench.jsonl"
    asked = ["one two three four five", "nothing of the kind is here", "six seven eight nine"]
    pool.write_text("".join(json.dumps({"question": q}) + "\n" for q in asked))
    items = ["plain words without any pair", "two three four five; other:9 “x” six"]
    bench.write_text("".join(json.dumps({"question": q}) + "\n" for q in items))
    kitchen = Kitchen(tmp_path / "store")
    kitchen.run(RECIPE.format(pool=pool, bench=bench))
    return kitchen


def test_the_drops_of_a_recipe_name_items_too(cooked):
    found = suspects_of([built.artifact for built in cooked.built], "here")
    # The words of the item that look like a witness name nothing.
    assert found.rows == {"bench": frozenset({1}), "other": frozenset()}
    assert suspects_of([cooked.built[0].artifact], "here") is None


def test_benchmarks_with_odd_names_are_found_among_the_drops(tmp_path):
    pool, bench = tmp_path / "pool.jsonl", tmp_path / "my (own) bench.jsonl"
    for path in (pool, bench):
        path.write_text(json.dumps({"question": "one two three four five"}) + "\n")
    kitchen = Kitchen(tmp_path / "store")
    recipe = RECIPE.replace("bench: {{", "my (own) bench: {{").format(pool=pool, bench=bench)
    kitchen.run(recipe)
    found = suspects_of([built.artifact for built in kitchen.built], "here")
    assert found.rows["my (own) bench"] == frozenset({0})


def dataset(tmp_path, stages):
    folder = tmp_path / "dataset"
    folder.mkdir(exist_ok=True)
    (folder / "stillroom.json").write_text(json.dumps({"stages": stages}))
    return folder


def test_a_dataset_of_ours_tells_what_its_recipe_found(tmp_path, cooked):
    key = cooked.built[1].artifact.manifest.key
    stage = {"step": "decontaminate", "key": key}
    found = read_suspects(dataset(tmp_path, [stage]), cooked.store)
    assert found.rows["bench"] == {1}
    with pytest.raises(SourceError, match="1 of its decontaminate steps are not in the store"):
        read_suspects(dataset(tmp_path, [stage]), Store(tmp_path / "elsewhere"))
    with pytest.raises(SourceError, match="its recipe does not decontaminate"):
        read_suspects(dataset(tmp_path, []), cooked.store)
    with pytest.raises(SourceError, match=r"no stillroom.json that tells its steps"):
        read_suspects(tmp_path, cooked.store)


STUDY = {
    "name": "s", "question": "?", "base": "b", "rows": 1, "student": {}, "benchmarks": "bench",
    "arms": {"control": {"a.b": 1}, "arm": {"a.b": 2}},
}  # fmt: skip


def sat(arm, seed, values):
    table = [[("correct" if value else "incorrect", "x")] for value in values]
    return Sat(arm, seed, f"{arm}{seed}", grades={"bench": grades(*table)})


def test_a_study_compares_on_clean_items_beside_all(tmp_path):
    study = Study.model_validate({**STUDY, "contamination": "report.json"})
    students = [
        Sat("base", 0, None, grades={"bench": grades(*[[WRONG]] * 4)}),
        *(sat("control", seed, [0, 0, 1, 1]) for seed in range(2)),
        *(sat("arm", seed, [1, 1, 1, 1]) for seed in range(2)),
    ]
    report(tmp_path, bench=(4, [0, 1]))
    suspects = suspects_among(study, {}, Store(tmp_path / "store"), tmp_path)
    assert suspects.where == "report.json"
    result = Result(study, students, {}, suspects=suspects)
    outcomes = Outcomes.of(result.grades(), ["control", "arm"])
    blocks = without_suspects(result, outcomes)
    assert blocks[2].points == ["bench: 2 of 4 items are asked."]
    header, rows = blocks[3].table
    assert header[2:4] == ["all items, %", "clean items, %"]
    assert [row[2:4] for row in rows] == [["50.0", "100.0"], ["100.0", "100.0"]]
    assert rows[1][5] == "0.0"
    assert without_suspects(Result(study, students, {}), outcomes) == []


def test_a_study_whose_arms_look_for_nothing_cannot_say_what_is_clean(tmp_path, cooked):
    study = Study.model_validate({**STUDY, "contamination": "recipe"})
    store = Store(tmp_path / "store")
    with pytest.raises(RecipeError, match="no arm has a `decontaminate` step"):
        suspects_among(study, {("control", 0): cooked.built[:1]}, store, Path())
    found = suspects_among(study, {("control", 0): cooked.built}, store, Path())
    assert found.rows["bench"] == {1}


def test_items_that_are_all_asked_leave_nothing_to_compare():
    study = Study.model_validate(STUDY)
    students = [
        Sat("base", 0, None, grades={"bench": grades([WRONG], [WRONG])}),
        sat("control", 0, [0, 1]), sat("arm", 0, [1, 1]),
    ]  # fmt: skip
    suspects = Suspects("r", {"bench": frozenset({0, 1})})
    result = Result(study, students, {}, suspects=suspects)
    blocks = without_suspects(result, Outcomes.of(result.grades(), ["control", "arm"]))
    assert blocks[-1].points == ["bench: 2 of 2 items are asked."]


def test_questions_that_two_benchmarks_ask_are_told(tmp_path):
    rows = [{"q": f"{n} + {n}?", "a": str(2 * n)} for n in range(6)]
    sat = {}
    for name, part in (("one", rows[:4]), ("two", rows[3:]), ("three", rows[5:])):
        (tmp_path / name).mkdir()
        exam = own(tmp_path / name, part, OWN).model_copy(update={"name": name})
        sat[name] = sit(tmp_path / name, exam, lambda question, draw: "\\boxed{2}")
    said = notes([Sat("base", 0, None, grades=sat), Sat("arm", 0, "k", grades=sat)])
    assert [line for line in said if "are asked by" in line] == [
        f"1 of {n} questions of {one} are asked by {other} too: they count in each, and intervals "
        "over all benchmarks take them for different questions."
        for n, one, other in ((4, "one", "two"), (3, "two", "three"))
    ]


def test_items_that_were_searched_in_another_file_than_is_sat_are_refused(tmp_path):
    asks = "How many {} are left of {} when a third of them is sold and five are given away?"
    rows = [
        {"q": asks.format(what, n), "a": str(n)} for n, what in enumerate(["cart", "lamp", "ship"])
    ]
    exam = own(tmp_path, rows, OWN)
    study = Study.model_validate({**STUDY, "contamination": "recipe"})

    def searched(name, items):
        write(tmp_path / name, items)
        write(tmp_path / "train.jsonl", [{"question": rows[0]["q"], "reference": "0"}])
        kitchen = Kitchen(tmp_path)
        against = f"{{mine: {{file: {tmp_path}/{name}, question: q}}}}"
        kitchen.chain(
            f"- source: {{file: {tmp_path}/train.jsonl}}\n"
            f"- decontaminate: {{against: {against}, indel: 90}}"
        )
        return kitchen, {("control", 0): kitchen.built}

    kitchen, built = searched("copy.jsonl", rows)
    check_files(study, built, [exam], kitchen.runtime)
    kitchen, built = searched("turned.jsonl", rows[::-1])
    with pytest.raises(RecipeError, match="mine that `decontaminate` searches is not the one"):
        check_files(study, built, [exam], kitchen.runtime)
    # A file that stands in for the name is read by both.
    there = dataclasses.replace(kitchen.runtime, sources={"mine": str(tmp_path / "copy.jsonl")})
    check_files(study, built, [exam], there)
    check_files(Study.model_validate(STUDY), built, [exam], kitchen.runtime)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("sets/my-items (2).yaml", "my_items_2_"),
        ("2025.yaml", "items_2025"),
        ("日本.yml", "items_"),
        ("math500", "math500"),
    ],
)
def test_a_benchmark_of_any_file_name_can_be_sat(tmp_path, name, title):
    assert title_of(name) == title
    if title == name:
        return
    file = tmp_path / Path(name).name
    text = (
        "title: Mine\nabout: Sums.\ndomain: math\nlicence: mine\nfile: items.jsonl\n"
        "question: q\nreference: a\nsitting: {verify: math, repeats: 1, temperature: 0.7}\n"
    )
    file.write_text(text)
    assert exam_of(str(file), None).name == title
    file.write_text(text.replace("repeats: 1", "repeats: 0"))
    with pytest.raises(
        SourceError, match=r"repeats is 0; expected greater than or equal to 1"
    ) as caught:
        exam_of(str(file), None)
    assert str(caught.value).startswith(str(file))
    for old, new, words in [
        ("verify: math", "verify: maths", "sitting.verify is 'maths'; expected 'math'"),
        ("sitting:", "siting:", "siting is no field"),
        ("title: Mine", "", "title is missing"),
    ]:
        file.write_text(text.replace(old, new))
        with pytest.raises(SourceError, match=words):
            exam_of(str(file), None)
