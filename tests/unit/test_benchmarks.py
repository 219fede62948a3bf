"""Benchmarks: items as their publishers write them, sat and graded; traps that are avoided."""

import base64
import json
import os
import random
import shutil
import zlib
from collections import Counter
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.judges import honest
from tests.sittings import boxed, program, sit, sit_known, write

from stillroom.benchmarks.registry import Only, benchmarks, expand, local_copies
from stillroom.errors import SetupError, SourceError
from stillroom.evaluate.forms import LeftOut, codeelo, codeforces, jeebench, livecodebench
from stillroom.evaluate.grade import exam_of, names_of
from stillroom.evaluate.items import Items
from stillroom.evaluate.options import Choice, ordered
from stillroom.evaluate.packed import read_pack, read_pickled_text
from stillroom.sandbox import open_sandbox
from stillroom.steps.source.files import read_records
from stillroom.steps.source.source import Source

# Unpickling is banned; making pickles to be refused is what these tests are for.
dumps = __import__("pickle").dumps
LOCAL = "a local file stood in for what the recipe names (--source)."


# --- options --------------------------------------------------------------------------------------

texts = st.text("abcdefgh", min_size=1, max_size=6)
choices = st.lists(
    st.builds(
        lambda question, options: Choice(question, options[0], tuple(options[1:])),
        texts, st.lists(texts, min_size=4, max_size=4, unique=True),
    ),
    min_size=1, max_size=60, unique_by=lambda choice: choice.name,
)  # fmt: skip


@given(choices, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_right_options_stand_evenly_and_no_order_of_rows_matters(items, rng):
    found = dict(zip(items, ordered(items), strict=True))
    letters = Counter(letter for _, letter in found.values())
    assert max(letters.values()) - min(letters[letter] for letter in "ABCD") <= 1
    for choice, (options, letter) in found.items():
        assert options["ABCD".index(letter)] == choice.right
        assert sorted(options) == sorted((choice.right, *choice.wrong))
    shuffled = rng.sample(items, len(items))
    assert dict(zip(shuffled, ordered(shuffled), strict=True)) == found
    # Nor does it matter which of the wrong ones stands in which column.
    turned = [Choice(c.question, c.right, c.wrong[::-1]) for c in items]
    assert ordered(turned) == list(found.values())


def test_items_have_orders_of_their_own():
    items = [Choice(f"q{n}", "right", ("one", "two", "three")) for n in range(40)]
    assert len({options for options, _ in ordered(items)}) > 12


GPQA = [
    {
        "Record ID": f"rec{n}", "Question": f"Which is no. {n}?\n",
        "Correct Answer": f" right {n} ", "Incorrect Answer 1": f"wrong {n}",
        "Incorrect Answer 2": f"bad {n}", "Incorrect Answer 3": f"false {n}",
    }
    for n in range(24)
]  # fmt: skip


def always(letter):
    return lambda question, draw: boxed(letter)


def test_gpqa_is_worth_a_quarter_to_whoever_always_says_one_letter(tmp_path):
    for letter in "ABCD":
        folder = tmp_path / letter
        folder.mkdir()
        grades = sit_known(folder, "gpqa_diamond", GPQA, always(letter), ending="csv")
        assert grades.accuracy == 0.25
    assert grades.table.height == 24


def test_gpqa_finds_who_knows_and_does_not_take_the_article_for_a_letter(tmp_path):
    seen = []

    def knows(question, draw):
        seen.append(question)
        n = int(question.split("no. ")[1].split("?")[0])
        (letter,) = [x for x in "ABCD" if f"{x}) right {n}" in question]
        return f"A problem of Nature. Answer: {letter}\nA pleasure."

    grades = sit_known(tmp_path, "gpqa_diamond", GPQA, knows, ending="csv", repeats=2)
    assert grades.accuracy == 1.0
    assert seen[0].startswith("Problem: Which is no.")
    assert "Options:\nA) " in seen[0]
    other = tmp_path / "other"
    other.mkdir()
    silent = sit_known(other, "gpqa_diamond", GPQA, lambda q, d: "A good question.", ending="csv")
    assert set(silent.table["verdict"]) == {"unparsed"}


def test_gpqa_that_comes_in_another_order_is_the_same_exam(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    mixed = random.Random(5).sample(GPQA, len(GPQA))
    first = sit_known(one, "gpqa_diamond", GPQA, always("A"), ending="csv").table
    second = sit_known(other, "gpqa_diamond", mixed, always("A"), ending="csv").table
    assert set(first.select("item", "score").rows()) == set(second.select("item", "score").rows())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Incorrect Answer 2": "right 3"}, "row 3 has not 4 different options"),
        ({"Incorrect Answer 2": ""}, "row 3 has not 4 different options"),
        (GPQA[1], "rows 1 and 3 are the same item, 'Which is no. 1"),
    ],
)
def test_gpqa_with_a_bad_row_is_refused(tmp_path, change, words):
    rows = [*GPQA[:3], {**GPQA[3], **change}, *GPQA[4:]]
    with pytest.raises(SourceError, match=words):
        sit_known(tmp_path, "gpqa_diamond", rows, always("A"), ending="csv")


def pro(n, right, n_options=10):
    """Make an item as MMLU-Pro has it; its right option begins with a blank, as there."""
    options = [f"choice {n}-{place}" for place in range(n_options)]
    options["ABCDEFGHIJ".index(right)] = f" choice {n}-right"
    return {
        "question_id": n, "question": f"Question {n}? ", "options": options, "answer": right,
        "answer_index": "ABCDEFGHIJ".index(right), "cot_content": "", "category": "law",
        "src": "ori_mmlu-law",
    }  # fmt: skip


PRO = [*(pro(n, right) for n, right in enumerate("ABCDEFGHIJ")), pro(10, "C", 3)]


def test_mmlu_pro_has_ten_letters_and_every_one_of_them_can_be_right(tmp_path):
    seen = []

    def knows(question, draw):
        seen.append(question)
        n = question.split("Question ")[1].split("?")[0]
        (letter,) = [x for x in "ABCDEFGHIJ" if f"\n{x}) choice {n}-right" in question]
        return f"The answer is ({letter})."

    grades = sit_known(tmp_path, "mmlu_pro", PRO, knows, ending="parquet")
    assert (grades.table.height, grades.accuracy, grades.notes) == (11, 1.0, (LOCAL,))
    assert "\nJ) choice 0-9\n" in seen[0] + "\n"
    assert seen[0].startswith("Problem: Question 0?\n\nOptions:\nA) choice 0-right\nB) choice 0-1")
    exam = exam_of("mmlu_pro", None)
    assert (exam.repeats, exam.temperature) == (1, 0.0)


def test_mmlu_pro_by_one_letter_is_worth_how_often_it_is_right_and_silence_nothing(tmp_path):
    for letter, right in {"C": 2, "J": 1}.items():
        (tmp_path / letter).mkdir()
        grades = sit_known(tmp_path / letter, "mmlu_pro", PRO, always(letter), ending="parquet")
        assert grades.accuracy == right / 11
    (tmp_path / "none").mkdir()
    silent = sit_known(tmp_path / "none", "mmlu_pro", PRO, lambda q, d: "A good question.")
    assert (silent.accuracy, set(silent.table["verdict"])) == (0.0, {"unparsed"})


def test_mmlu_pro_leaves_repeated_items_out_and_refuses_a_letter_that_no_option_has(tmp_path):
    again = {**PRO[3], "options": PRO[3]["options"][::-1], "answer": "G"}
    grades = sit_known(tmp_path, "mmlu_pro", [*PRO, again], always("D"))
    assert grades.table.height == 11
    assert grades.notes == (LOCAL, "Left out: 1 repeats_an_item.")
    bad = {**pro(11, "B", 4), "answer": "E"}
    (tmp_path / "bad").mkdir()
    with pytest.raises(SourceError, match="row 11 has 4 options and the answer E; expected"):
        sit_known(tmp_path / "bad", "mmlu_pro", [*PRO, bad], always("D"))


# --- packed tests ---------------------------------------------------------------------------------


def pack(value, protocol=4):
    pickled = dumps(json.dumps(value), protocol)
    return base64.b64encode(zlib.compress(pickled)).decode()


@given(st.text(max_size=400), st.integers(0, 5))
@settings(max_examples=80)
def test_a_pickled_text_is_read_without_unpickling(text, protocol):
    assert read_pickled_text(dumps(text, protocol)) == text


def test_long_texts_and_plain_json_are_read():
    cases = [{"input": "1\n" * 100_000, "output": "é\U0001f600"}]
    assert read_pack(pack(cases)) == read_pack(json.dumps(cases)) == cases


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path, protocol):
    marker = tmp_path / "ran"
    packed = base64.b64encode(zlib.compress(dumps(Evil(marker), protocol))).decode()
    with pytest.raises(ValueError, match=r"it holds the opcode (GLOBAL|STACK_GLOBAL|MARK)"):
        read_pack(packed)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (base64.b64encode(zlib.compress(dumps(["a"]))).decode(), "opcode EMPTY_LIST"),
        (base64.b64encode(zlib.compress(dumps(b"a", 4))).decode(), "opcode SHORT_BINBYTES"),
        (base64.b64encode(zlib.compress(dumps("[1]"))[:-8]).decode(), "cut off"),
        (base64.b64encode(zlib.compress(dumps("[1]")[:-4])).decode(), "not read"),
        (base64.b64encode(zlib.compress(b"")).decode(), "not read"),
        (base64.b64encode(b"plain").decode(), "neither JSON nor base64 of zlib"),
        ("%%%", "neither JSON nor base64 of zlib"),
        (base64.b64encode(zlib.compress(dumps("no json"))).decode(), "Expecting value"),
    ],
)  # fmt: skip
def test_a_pack_of_another_kind_is_refused_in_a_line(packed, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_pack(packed)
    assert "\n" not in str(caught.value)


def test_a_small_pack_that_unfolds_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("stillroom.evaluate.packed._MOST", 1 << 16)
    bomb = base64.b64encode(zlib.compress(b"\0" * (1 << 24))).decode()
    with pytest.raises(ValueError, match="more than 65,536 bytes"):
        read_pack(bomb)


# --- programs -------------------------------------------------------------------------------------


def lcb(n, cases, private, *, functional=False, **more):
    kind = "functional" if functional else "stdin"
    tests = [{"input": i, "output": o, "testtype": kind} for i, o in cases]
    hidden = [{"input": i, "output": o, "testtype": kind} for i, o in private]
    return {
        "question_title": f"Problem {n}", "question_content": f"Problem {n}: do it.",
        "platform": "leetcode" if functional else "atcoder", "question_id": str(n),
        "contest_date": "2023-08-21T00:00:00", "starter_code": "", "difficulty": "easy",
        "public_test_cases": json.dumps(tests), "private_test_cases": pack(hidden),
        "metadata": "{}", **more,
    }  # fmt: skip


SUM = lcb(0, [("1 2\n", "3\n")], [("5 7\n", "12\n"), ("0 0\n", "0\n")])
METHOD = lcb(
    1, [("[1, 2]\n3", "6")], [("[]\n0", "0")], functional=True,
    starter_code="class Solution:\n    def total(self, nums: List[int], more: int) -> int:\n    ",
    metadata=json.dumps({"func_name": "total"}),
)  # fmt: skip
GOOD = {
    "Problem 0": "a, b = map(int, input().split())\nprint(float(a + b))",
    "Problem 1": "class Solution:\n    def total(self, nums: List[int], more: int) -> int:\n"
    "        return sum(accumulate(nums[-1:])) + sum(nums[:-1]) + more",
}
BAD = {
    "Problem 0": "print(3)",  # what the statement shows; the private tests tell
    "Problem 1": "class Solution:\n    def total(self, nums, more):\n        return 6",
}


@pytest.fixture(scope="module")
def sandbox():
    try:
        open_sandbox()[0].close()
    except SetupError as error:
        pytest.skip(str(error))


def writes(solutions):
    def says(question, draw):
        (name,) = [name for name in solutions if name in question]
        return program(solutions[name])

    return says


def test_livecodebench_runs_public_and_private_tests_of_both_kinds(tmp_path, sandbox):
    grades = sit_known(tmp_path, "livecodebench", [SUM, METHOD], writes(GOOD))
    assert grades.accuracy == 1.0
    (tmp_path / "bad").mkdir()
    wrong = sit_known(tmp_path / "bad", "livecodebench", [SUM, METHOD], writes(BAD))
    assert wrong.accuracy == 0.0
    assert set(wrong.table["verdict"]) == {"incorrect"}


def test_heavy_tests_are_spread_over_shards_and_nothing_else_changes(
    tmp_path, sandbox, monkeypatch
):
    rows = [{**SUM, "question_content": f"Problem 0, no. {n}"} for n in range(5)]
    whole = sit_known(tmp_path, "livecodebench", rows, writes(GOOD))
    monkeypatch.setattr(Items, "HEAVY", 300)
    (tmp_path / "parts").mkdir()
    parts = sit_known(tmp_path / "parts", "livecodebench", rows, writes(GOOD))
    assert parts.table.equals(whole.table)
    assert parts.accuracy == 1.0
    assert len(whole.attempts.shards) == 1
    assert len(parts.attempts.shards) > 1


def test_livecodebench_shows_the_starter_code_and_keeps_to_its_window(tmp_path, sandbox):
    seen = []

    def says(question, draw):
        seen.append(question)
        return program("pass")

    late = {**SUM, "question_content": "Problem 2", "contest_date": "2024-06-01T00:00:00"}
    grades = sit_known(tmp_path, "livecodebench", [METHOD, late], says)
    assert grades.table.height == 1
    assert "def total(self, nums: List[int], more: int)" in seen[0]
    assert grades.notes == (LOCAL,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"private_test_cases": None}, "this copy has no tests"),
        ({"private_test_cases": base64.b64encode(zlib.compress(dumps([1]))).decode()},
         "a pickle that is not read: it holds the opcode EMPTY_LIST"),
        ({"metadata": "{}"}, "its metadata has no func_name"),
        ({"public_test_cases": '[{"input": "x", "output": "1", "testtype": "functional"}]'},
         "row 0 is no livecodebench item: Expecting value"),
    ],
)  # fmt: skip
def test_livecodebench_without_readable_tests_is_refused(tmp_path, change, words):
    with pytest.raises(SourceError, match=words):
        sit_known(tmp_path, "livecodebench", [{**METHOD, **change}], writes(GOOD))


CODEFORCES = {
    "id": "1/A", "title": "Echo", "time_limit": 1.0, "memory_limit": 64.0,
    "editorial": "Just print", "description": "Print n.", "input_format": "n",
    "output_format": "n", "interaction_format": None,
    "note": "Easy.", "examples": [{"input": "1", "output": "1"}], "input_mode": "stdio",
    "official_tests": [{"input": "1\n", "output": "1\n"}, {"input": "2\n", "output": "2"}],
    "generated_checker": None,
}  # fmt: skip


def test_codeforces_keeps_the_editorial_back_and_leaves_out_what_needs_more(tmp_path, sandbox):
    seen = []

    def says(question, draw):
        seen.append(question)
        return program("print(' ', input(), '\\n\\n')")

    rows = [
        CODEFORCES,
        {**CODEFORCES, "title": "a", "interaction_format": "Ask."},
        {**CODEFORCES, "title": "b", "generated_checker": "def check(): ..."},
        {**CODEFORCES, "title": "c", "input_mode": "file"},
        {**CODEFORCES, "title": "d", "official_tests": []},
    ]
    grades = sit_known(tmp_path, "codeforces", rows, says)
    assert (grades.table.height, grades.accuracy) == (1, 1.0)
    assert "Just print" not in seen[0]
    assert "Example\n\nInput:\n1\n\nOutput:\n1\n\nNote\n\nEasy." in seen[0]
    assert grades.notes == (
        LOCAL,
        "Left out: 1 interactive, 1 needs_a_checker, 1 no_tests, 1 reads_files.",
    )
    assert grades.rows == 5


def test_limits_are_those_of_the_problem():
    item = codeforces({**CODEFORCES, "time_limit": 3.5, "memory_limit": 512})
    assert item.tests.limits.cpu_s == 3.5
    assert item.tests.limits.memory_mib == 512
    many = [{"input": "1", "output": "1"}] * 100
    assert codeforces({**CODEFORCES, "official_tests": many}).tests.limits.whole_cpu_s == 100
    assert livecodebench(SUM).tests.limits.cpu_s == 6


def test_codeelo_is_called_what_it_is(tmp_path, sandbox):
    row = {
        "title": "Echo", "description": "Print n.", "input": "n", "output": "n", "note": None,
        "time_limit_ms": 1000, "memory_limit_mb": 256, "interaction": None,
        "examples": [["1\n", "1\n"], ["2\n", "2\n"]],
    }  # fmt: skip
    assert codeelo({**row, "interaction": "Ask."}) == LeftOut("interactive")
    grades = sit_known(tmp_path, "codeelo", [row], lambda q, d: program("print(input())"))
    assert grades.accuracy == 1.0
    assert "a rate of passed samples" in grades.notes[1]


# --- olympiads ------------------------------------------------------------------------------------

ADD_GRADER = """
#include "add.h"
#include <cstdio>
int main() { int a, b; scanf("%d%d", &a, &b); printf("OK\\n%d\\n", add(a, b)); }
"""
# One less than expected is worth half.
ADD_CHECKER = """
#include <fstream>
#include <iostream>
int main(int, char** names) {
  std::string ok; int expected, got;
  std::ifstream(names[2]) >> ok >> expected;
  std::ifstream(names[3]) >> ok >> got;
  std::cout << (got == expected ? 1.0 : got == expected - 1 ? 0.5 : 0.0);
}
"""
GRADERS = [
    ["graders/grader.cpp", ADD_GRADER], ["graders/add.h", "int add(int a, int b);\n"],
    ["graders/grader_config.json", "{}"], ["graders/empty.h", ""],
]  # fmt: skip
IOI_TESTS = {"0-01": (1, 1), "1-01": (2, 3), "1-02": (4, 4), "2-01": (50, 50), "3-01": (-7, 2)}


def subtask(task, number, points, names, **more):
    """Make a row as open-r1/ioi has it."""
    return {
        "year": 2024, "name": task.title(), "id": task, "day": "day1",
        "subtask": f"{number:02}-some", "statement": f"Add two numbers, task {task}.",
        "score": points, "time_limit": 1.0, "memory_limit": 256 << 20, "score_precision": 2,
        "task_type": "Batch", "test_names": names, "starting_code": "int add(int a, int b) {\n}",
        "grader_files": GRADERS, "problem": "You are an expert", **more,
    }  # fmt: skip


def ioi_task(task, **more):
    subtasks = [(0, ["0-01"]), (20, ["1-01", "1-02"]), (30, ["1-01", "2-01"]),
                (50, ["1-01", "1-02", "2-01", "3-01"])]  # fmt: skip
    return [subtask(task, n, points, names, **more) for n, (points, names) in enumerate(subtasks)]


def ioi_tests(*tasks):
    return [
        {"year": 2024, "day": "day1", "problem_name": task.title(), "problem_id": task,
         "test_name": name, "test_input": f"{a} {b}\n", "test_output": f"OK\n{a + b}\n"}
        for task in tasks for name, (a, b) in IOI_TESTS.items()
    ]  # fmt: skip


def cpp(text):
    return f"Here:\n```cpp\n{text}\n```\n"


def sit_ioi(folder, rows, says, tests=None, repeats=1):
    folder.mkdir(exist_ok=True)
    places = {
        "ioi": write(folder / "ioi.parquet", rows),
        "ioi_tests": write(folder / "tests.parquet", tests or ioi_tests("one", "two", "checked")),
    }
    exam = exam_of("ioi", repeats)
    return sit(folder, exam, says, {name: str(path) for name, path in places.items()})


WRONG_BELOW_0 = "int add(int a, int b) { return a < 0 ? 0 : a + b; }"
WRONG_AT_50 = '#include "add.h"\nint add(int a, int b) { return a == 50 ? 0 : a + b; }'
ONE_LESS_BELOW_0 = "int add(int a, int b) { return a + b - (a < 0); }"


@pytest.mark.skipif(not shutil.which("g++", path="/usr/bin"), reason="g++ is not installed")
def test_ioi_counts_the_points_of_subtasks_and_leaves_out_what_needs_a_manager(tmp_path, sandbox):
    seen = []

    def says(question, draw):
        seen.append(question)
        if "task checked" in question:
            return cpp(ONE_LESS_BELOW_0)
        return cpp(WRONG_BELOW_0 if "task one" in question else WRONG_AT_50)

    rows = [
        *ioi_task("one"),
        *ioi_task("talks", task_type="Communication"),
        *ioi_task("two"),
        *ioi_task("checked", grader_files=[*GRADERS, ["checker/checker.cpp", ADD_CHECKER]]),
    ]
    grades = sit_ioi(tmp_path, rows, says)
    table = grades.table.sort("row")
    assert table["row"].to_list() == [0, 8, 12]
    # one: all but the last subtask, 20 + 30. two: the first alone, 20. checked: 20 + 30 + 50 / 2.
    assert table["score"].to_list() == [0.5, 0.2, 0.75]
    assert table["verdict"].to_list() == ["incorrect"] * 3
    assert grades.accuracy == pytest.approx(1.45 / 3)
    assert "Left out: 1 needs_a_manager." in grades.notes
    assert any("share of points, over the tasks that are sat" in note for note in grades.notes)
    assert "int add(int a, int b) {\n}" in seen[0]
    assert "1 s, 256 MiB" in seen[0]
    assert len(seen) == 3


@pytest.mark.skipif(not shutil.which("g++", path="/usr/bin"), reason="g++ is not installed")
def test_ioi_full_marks_need_every_test_and_nothing_comes_of_no_program(tmp_path, sandbox):
    def says(question, draw):
        return cpp("int add(int a, int b) { return a + b; }") if draw else "I do not know."

    grades = sit_ioi(tmp_path, ioi_task("one")[::-1], says, repeats=2)
    assert dict(grades.table.select("repeat", "score").rows()) == {0: 0.0, 1: 1.0}
    assert dict(grades.table.select("repeat", "verdict").rows()) == {0: "unparsed", 1: "correct"}


@pytest.mark.parametrize(
    ("rows", "tests", "words"),
    [
        (ioi_task("one"), ioi_tests("one")[:-1],
         "row 0 is no ioi item: test '3-01' of 2024 one is not among the tests. Check"),
        (ioi_task("one", grader_files=[]), None, "grader_files of 2024 one has no .*grader.cpp"),
        (ioi_task("one", score=0), None, r"could be read \(1 no_points, 3 not_sat\)"),
        ([{k: v for k, v in row.items() if k != "grader_files"} for row in ioi_task("one")], None,
         "row 0 is no ioi item: 'grader_files' is missing"),
    ],
)  # fmt: skip
def test_ioi_that_is_not_whole_is_refused(tmp_path, rows, tests, words):
    with pytest.raises(SourceError, match=words):
        sit_ioi(tmp_path, rows, lambda q, d: "", tests)


def test_ioi_has_another_key_when_its_tests_are_others(tmp_path, monkeypatch):
    exam = exam_of("ioi", 1)
    assert exam.items.named() == ("ioi", "ioi_tests")
    rows = write(tmp_path / "ioi.jsonl", ioi_task("one"))
    seen = set()
    for n, tests in enumerate((ioi_tests("one"), ioi_tests("one", "two"))):
        file = write(tmp_path / f"tests{n}.jsonl", tests)
        rt = SimpleNamespace(sources={"ioi": str(rows), "ioi_tests": str(file)})
        seen.add(exam.items.outside(rt))
    assert len(seen) == 2
    monkeypatch.setenv("STILLROOM_BENCHMARKS", str(tmp_path))
    (tmp_path / "ioi_tests.jsonl").touch()
    assert set(local_copies(names_of([exam]))) == {"ioi", "ioi_tests"}


# --- letters, numbers, judges ---------------------------------------------------------------------

JEE = [
    {"question": "Pick. (A) 1 (B) 2", "type": "MCQ", "gold": "B"},
    {"question": "Pick all.", "type": "MCQ(multiple)", "gold": "ABD"},
    {"question": "How many?", "type": "Integer", "gold": "7"},
    {"question": "How much?", "type": "Numeric", "gold": "2.35"},
]


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        (("B", "A, B and D", "7", "2.35"), [1, 1, 1, 1]),
        (("(B)", "DBA", "7.0", "2.345"), [1, 1, 1, 1]),
        (("A", "AD", "8", "2.37"), [0, 0.5, 0, 0]),
        (("A, B", "B", "-7", r"\frac{47}{20} \text{ J}"), [0, 0.25, 0, 1]),
        (("B", "AC", "seven", "2.3"), [1, 0, 0, 0]),
        (("B", "ABCD", r"\sqrt{49}", "235/100"), [1, 0, 1, 1]),
    ],
)
def test_jeebench_gives_the_credit_of_its_authors(tmp_path, answers, scores):
    by_question = dict(zip((row["question"] for row in JEE), answers, strict=True))

    def says(question, draw):
        return boxed(next(text for asked, text in by_question.items() if asked in question))

    grades = sit_known(tmp_path, "jeebench", JEE, says)
    assert grades.table["score"].to_list() == scores
    assert grades.accuracy == sum(scores) / 4


def test_jeebench_asks_by_type():
    assert "letters of all" in jeebench(JEE[1]).question
    with pytest.raises(ValueError, match="type is 'Essay'"):
        jeebench({**JEE[0], "type": "Essay"})


HLE = [
    {"question": "Pick.\nA. x\nB. y", "answer": "B", "answer_type": "multipleChoice", "image": ""},
    {"question": "See.", "answer": "A", "answer_type": "multipleChoice", "image": "data:..."},
    {"question": "Name it.", "answer": "Curie", "answer_type": "exactMatch", "image": None},
    {"question": "Pick k.", "answer": "K", "answer_type": "multipleChoice", "image": ""},
]


def test_hle_sits_choices_without_an_image_and_names_what_it_cannot_read(tmp_path):
    grades = sit_known(tmp_path, "hle", HLE, lambda q, d: "Answer: B")
    assert grades.table["score"].to_list() == [1.0, 0.0]
    assert grades.notes == (
        LOCAL,
        "1 items have an answer that is no letter A to J, and count as wrong: row 3 ('K').",
    )
    assert grades.table["row"].to_list() == [0, 3]


def test_hle_text_is_judged_and_needs_a_judge(tmp_path):
    with pytest.raises(SourceError, match="hle_text: a model judges its answers, and none"):
        exam_of("hle_text", 1)
    right = {"Pick.": "B", "Name it.": "Curie", "Pick k.": "J"}

    def says(question, draw):
        return boxed(next(text for start, text in right.items() if question.startswith(start)))

    grades = sit_known(tmp_path, "hle_text", HLE, says, judge=honest)
    assert grades.table["verdict"].to_list() == ["correct", "correct", "incorrect"]


# --- items ----------------------------------------------------------------------------------------

OWN = """
title: Mine
about: Sums.
domain: math
licence: mine
file: items.jsonl
question: q
reference: a
sitting: {verify: math, repeats: 2, max_tokens: 64, suffix: " Go."}
"""
SUMS = [{"q": f"{n} + {n}?", "a": str(2 * n)} for n in range(5)]


def own(folder, rows, text=OWN):
    write(folder / "items.jsonl", rows)
    (folder / "mine.yaml").write_text(text)
    return exam_of(str(folder / "mine.yaml"), None)


def adds(question, draw):
    return boxed(str(2 * int(question.split()[0])) if draw == 0 else "1")


def test_a_benchmark_of_ones_own_is_a_yaml_file(tmp_path):
    grades = sit(tmp_path, own(tmp_path, SUMS), adds)
    by_repeat = grades.table.group_by("repeat").agg(pl.col("score").mean()).sort("repeat")
    assert by_repeat["score"].to_list() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("verify: math", "verify: magic", "mine.yaml: sitting.verify is 'magic'; expected 'math'"),
        ("domain: math", "domain: cooking", "mine.yaml: domain is 'cooking'; expected 'math'"),
        (
            "file: items.jsonl",
            "",
            "mine.yaml: the benchmark: .*expected one of hub with files, file and shipped",
        ),
        ("title: Mine", "title: [", "mine.yaml: cannot be read"),
        ("repeats: 2", "repeat: 2", "sitting.repeat is no field"),
    ],
)
def test_a_bad_benchmark_file_is_one_message(tmp_path, old, new, words):
    with pytest.raises(SourceError, match=words):
        own(tmp_path, SUMS, OWN.replace(old, new))


def test_a_repeated_item_is_refused_or_left_out(tmp_path):
    rows = [*SUMS, {"q": " 3 + 3? ", "a": "6"}]
    with pytest.raises(SourceError, match=r"mine: rows 3 and 5 are the same item, '3 \+ 3\?'"):
        sit(tmp_path, own(tmp_path, rows), adds)
    once = OWN.replace("verify: math", "verify: math, once: true")
    grades = sit(tmp_path, own(tmp_path, rows, once), adds)
    assert grades.table.height == 10
    assert "Left out: 1 repeats_an_item." in grades.notes


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*SUMS, {"q": "9 + 9?", "a": None}], "1 of 6 items have no reference .* row 5"),
        ([{"q": "1 + 1?"}], "no column a"),
        ([], "no rows"),
    ],
)
def test_items_that_cannot_be_graded_are_refused(tmp_path, rows, words):
    with pytest.raises(SourceError, match=words):
        sit(tmp_path, own(tmp_path, rows), adds)


def test_a_torn_line_is_refused_because_the_score_would_be_another(tmp_path):
    exam = own(tmp_path, SUMS)
    with (tmp_path / "items.jsonl").open("a") as file:
        file.write('{"q": "5 +')
    with pytest.raises(SourceError, match=r"items.jsonl:6 cannot be read \(broken_json\)"):
        sit(tmp_path, exam, adds)


def test_repeats_that_are_all_alike_are_told(tmp_path):
    alike = sit(tmp_path, own(tmp_path, SUMS), lambda q, d: boxed("1"))
    assert any("All 2 repeats of every item are the same text" in note for note in alike.notes)
    other = tmp_path / "other"
    other.mkdir()
    assert not sit(other, own(other, SUMS), adds).notes


def test_which_rows_are_sat_is_told_by_columns():
    date = Only.model_validate({"from": "2023-05-01", "before": "2024-06-01"})
    assert date.fits("2024-05-31T00:00:00")
    assert not date.fits("2024-06-01T00:00:00")
    assert not date.fits(None)
    assert Only.model_validate({"is": [""]}).fits(None)


def test_every_benchmark_of_the_paper_can_be_sat_as_the_paper_does():
    names = [*expand("openthoughts_develop"), *expand("openthoughts_held_out")]
    assert len(names) == 12
    judge = None
    repeats = {name: exam_of(name, None, judge).repeats for name in names}
    assert repeats == {
        "aime24": 10, "amc23": 10, "math500": 1, "codeelo": 3, "codeforces": 3, "livecodebench": 6,
        "gpqa_diamond": 3, "jeebench": 3, "aime25": 10, "hmmt_feb25": 10, "hle": 3,
        "livecodebench_24_25": 6,
    }  # fmt: skip
    for name in names:
        exam, known = exam_of(name, None), benchmarks()[name]
        assert (exam.temperature, exam.max_tokens) == (0.7, 32_768)
        assert known.protocol
        role = "develop" if name in expand("openthoughts_develop") else "held_out"
        assert known.role == role


def test_items_of_before_keep_their_keys():
    exam = exam_of("proxy_suite", None)
    fields = {"form", "options", "where", "once"}
    assert not fields & set(exam.items.identity())
    assert set(exam.items.identity()) == set(
        Source(shipped="proxy_suite", reference=("answer",)).identity()
    )


# --- real items -----------------------------------------------------------------------------------


def real(data, name):
    return read_records(data / "benchmarks" / f"{name}.jsonl.zst", ())


@pytest.mark.data
def test_real_jeebench_gives_full_marks_to_its_own_key_and_a_quarter_for_each_letter(
    tmp_path, data
):
    rows = list(real(data, "jeebench"))
    key = {str(row["question"]).strip(): row["answer"] for row in rows}

    def knows(question, draw):
        gold = key[question.removeprefix("Problem: ").rpartition("\n\n")[0]]
        return boxed(gold if draw == 0 or gold.isdigit() else gold[0])

    exam = exam_of("jeebench", 2)
    file = str(data / "benchmarks/jeebench.jsonl.zst")
    grades = sit(tmp_path, exam, knows, {"jeebench": file})
    full = grades.table.filter(pl.col("repeat") == 0)
    assert (full.height, full["score"].sum()) == (515, 515.0)
    part = grades.table.filter(pl.col("repeat") == 1)
    several = sum(len(row["answer"]) > 1 and row["answer"].isalpha() for row in rows)
    assert part.filter(pl.col("score") == 0.25).height == several


@pytest.mark.data
def test_real_windows_and_years_select_what_the_paper_sits(data):
    before = exam_of("livecodebench", None).items.where["contest_date"]
    dates = [row["contest_date"] for row in real(data, "livecodebench_questions")]
    assert (len(dates), sum(map(before.fits, dates))) == (880, 512)
    year = exam_of("amc23", None).items.where["url"]
    assert sum(year.fits(row["url"]) for row in real(data, "amc23")) == 40


@pytest.mark.data
@pytest.mark.parametrize("name", ["aime24", "aime25", "amc23", "hmmt_feb25", "math500"])
def test_real_items_are_whole_and_their_own_answers_are_right(tmp_path, data, name):
    key = {row["question"].strip(): row["answer"] for row in real(data, name)}

    def knows(question, draw):
        return boxed(key[question.removeprefix("Problem: ").rpartition("\n\n")[0].strip()])

    file = str(data / "benchmarks" / f"{name}.jsonl.zst")
    grades = sit(tmp_path, exam_of(name, 1), knows, {name: file})
    assert grades.table.height == {"amc23": 40, "math500": 500}.get(name, 30)
    assert grades.table["verdict"].to_list() == ["correct"] * grades.table.height


@pytest.mark.data
def test_real_reference_programs_pass_their_own_tests(tmp_path, data, sandbox):
    rows = [row for row in real(data, "mbpp_test") if row["setup"] == ""][:40]
    text = OWN.replace("question: q\nreference: a", "question: question").replace(
        "verify: math", "verify: code, tests: {column: tests, kind: asserts}"
    )
    exam = own(tmp_path, rows, text)
    solutions = {row["question"]: row["solution"] for row in rows}
    grades = sit(tmp_path, exam, lambda q, d: program(solutions[q.removesuffix(" Go.")]))
    assert grades.accuracy == 1.0
