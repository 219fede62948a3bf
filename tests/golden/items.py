"""Fixed rows of benchmarks, as their publishers write them, and the items that are made of them."""

import json
from pathlib import Path
from typing import Any

from tests.kitchen import Kitchen
from tests.sittings import write

from stillroom.evaluate.grade import exam_of
from stillroom.evaluate.items import Items
from stillroom.store.artifact import Artifact

PLAIN: list[dict[str, Any]] = [
    {"question": "What is 2+2?", "answer": 4, "kind": "sum"},
    {"question": "What is 2*2?", "answer": "4", "kind": "product"},
    {"question": " What is 2+2? ", "answer": "4", "kind": "sum"},
    {"question": "Wie groß ist ½ von x²?", "answer": None, "kind": "sum"},
]
GPQA = [
    {
        "Question": f"Which is no. {n}?", "Correct Answer": f"right {n}",
        **{f"Incorrect Answer {k}": f"wrong {n}.{k} " for k in (1, 2, 3)},
    }
    for n in range(5)
]  # fmt: skip
PRO = [
    {"question": f"Question {n}? ", "options": [f" choice {n}-{k}" for k in range(size)],
     "answer": answer, "category": "law"}
    for n, (size, answer) in enumerate([(10, "J"), (3, "C"), (4, "A")])
]  # fmt: skip
LCB = [
    {
        "question_title": f"Problem {n}", "question_content": f"Problem {n}: do it.",
        "platform": "leetcode" if code else "atcoder", "question_id": str(n),
        "contest_date": "2023-08-21T00:00:00", "starter_code": code, "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": a, "output": b, "testtype": kind}]),
        "private_test_cases": json.dumps([{"input": b, "output": a, "testtype": kind}]),
        "metadata": json.dumps({"func_name": "total"}) if code else "{}",
    }
    for n, (code, kind, a, b) in enumerate([
        ("", "stdin", "1 2\n", "3\n"),
        ("class Solution:\n    def total(self, n: int) -> int:\n    ", "functional", "1", "2"),
    ])
]  # fmt: skip
_CODEFORCES = {
    "id": "1/A", "title": "Echo", "time_limit": 1.0, "memory_limit": 64.0,
    "editorial": "Just print", "description": "Print n.", "input_format": "n",
    "output_format": "n", "interaction_format": None, "note": "Easy.",
    "examples": [{"input": "1", "output": "1"}], "input_mode": "stdio",
    "official_tests": [{"input": "1\n", "output": "1\n"}], "generated_checker": None,
}  # fmt: skip
CODEFORCES = [_CODEFORCES, {**_CODEFORCES, "title": "Talk", "interaction_format": "Ask."}]
JEE = [
    {"index": n, "subject": "phy", "description": "JEE", "type": kind, "question": f"Q{n}",
     "gold": gold}
    for n, (kind, gold) in enumerate(
        [("MCQ", "B"), ("MCQ(multiple)", "ACD"), ("Integer", "7"), ("Numeric", "0.25")]
    )
]  # fmt: skip
IOI = [
    {
        "year": 2024, "name": task.title(), "id": task, "day": "day1", "subtask": f"0{n}-some",
        "statement": f"Add two numbers, task {task}.", "score": points, "time_limit": 1.0,
        "memory_limit": 256 << 20, "score_precision": 2, "task_type": kind, "test_names": names,
        "starting_code": "int add(int a, int b) {\n}",
        "grader_files": [["graders/grader.cpp", "int main() {}"], ["graders/add.h", "int add();"]],
    }
    for task, kind in (("one", "Batch"), ("two", "Communication"))
    for n, (points, names) in enumerate([(0, ["0-01"]), (100, ["0-01", "1-01"])])
]  # fmt: skip
IOI_TESTS = [
    {"year": 2024, "day": "day1", "problem_name": task.title(), "problem_id": task,
     "test_name": name, "test_input": f"{name}\n", "test_output": f"OK {name}\n"}
    for task in ("one", "two") for name in ("0-01", "1-01")
]  # fmt: skip
ITEMS = {
    "items": None, "items_gpqa_diamond": GPQA, "items_mmlu_pro": PRO, "items_livecodebench": LCB,
    "items_codeforces": CODEFORCES, "items_jeebench": JEE, "items_ioi": IOI,
}  # fmt: skip


def made_of(case: str, folder: Path) -> Artifact:
    """Make the items of a case."""
    _, _, name = case.partition("_")
    if not name:
        write(folder / "plain.jsonl", PLAIN)
        fields = {"file": str(folder / "plain.jsonl"), "reference": "answer", "once": True}
        step = Items.model_validate({**fields, "where": {"kind": {"is": ["sum"]}}})
        return Kitchen(folder / "store").step("items", step)
    files = {name: ITEMS[case], "ioi_tests": IOI_TESTS}
    sources = {n: str(write(folder / f"{n}.parquet", rows or [])) for n, rows in files.items()}
    return Kitchen(folder / "store", sources).step("items", exam_of(name, 1).steps("m")[0])
