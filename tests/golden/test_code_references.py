"""Real programs and their tests: references pass, and recorded outcomes come out again."""

import io
import json

import pytest
import zstandard

from stillroom.errors import SetupError
from stillroom.verifiers import Task, verifier
from stillroom.verifiers.code_tests import Tests

pytestmark = [pytest.mark.data, pytest.mark.slow]


def rows(path):
    with path.open("rb") as file:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        return [json.loads(line) for line in text]


def verdicts(programs, tests):
    tasks = [
        Task(f"`````python\n{program}\n`````", None, tests=Tests(**one).text())
        for program, one in zip(programs, tests, strict=True)
    ]
    try:
        with verifier("code", workers=4) as code:
            return code.verify(tasks)
    except SetupError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["fixtures/mbpp_train_val", "benchmarks/mbpp_test"])
def test_every_reference_of_mbpp_passes(data, name):
    found = rows(data / f"{name}.jsonl.zst")
    tests = [{"kind": "asserts", "entries": r["tests"], "setup": r["setup"] or ""} for r in found]
    judged = verdicts([r["solution"] for r in found], tests)
    assert {r["id"]: v.detail for r, v in zip(found, judged, strict=True)
            if v.outcome != "correct"} == {}  # fmt: skip


def test_recorded_outcomes_of_r1_come_out_again(data):
    found = rows(data / "traces" / "kodcode_r1_code.jsonl.zst")
    tests = [{"kind": "pytest", "entries": (r["tests"],)} for r in found]
    judged = verdicts([r["extracted_code"] for r in found], tests)
    other, missing = [], []
    for row, verdict in zip(found, judged, strict=True):
        if verdict.outcome == "error":
            missing.append((row["id"], verdict.detail))
        elif (verdict.outcome == "correct") != row["passed"]:
            other.append((row["id"], row["trial"], verdict))
    assert other == []
    assert {detail for _, detail in missing} == {
        'missing: {"tests":"?","first":"test 1: numpy"}'
    }  # fmt: skip
    assert len(missing) == 6
