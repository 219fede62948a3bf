"""Logs of Inspect: a sample for each attempt, and Inspect itself reads them."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import polars as pl
import pytest
from tests.fakes import FakeModel, FakeModels
from tests.sittings import write
from tests.unit.test_benchmarks import OWN, SUMS, own

from stillroom.evaluate.grade import exam_of, grade
from stillroom.evaluate.inspect_log import write_inspect_log
from stillroom.models.chat import Completion, Failure
from stillroom.models.ledger import Ledger
from stillroom.run.runner import Runner
from stillroom.steps.base import Runtime
from stillroom.store.store import Store

INSPECT = os.environ.get("STILLROOM_INSPECT_PYTHON")
"""A Python with inspect-ai (dependency group `inspect`), where the tests' own lacks it."""


def reply(request):
    if "4 + 4" in request.messages[-1].content and request.draw == 1:
        return Failure("timeout", "no reply")
    finish = "length" if request.draw else "stop"
    text = "\\boxed{2}" if request.draw == 0 else "I \ud800 stop here…"
    return Completion("thinking <b>hard</b>" if request.draw == 0 else None, text, finish, 7, 11)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sat")
    exam = own(folder, SUMS, OWN.replace("max_tokens: 64", "max_tokens: 64, prefix: 'Do: '"))
    with Ledger(folder / "ledger") as ledger:
        rt = Runtime(FakeModels(FakeModel(reply)), lambda: ledger, {}, workers=1)
        grades = grade(exam, "my/model", Runner(Store(folder / "store"), rt), "eval")
    file = write_inspect_log(folder / "logs", exam, "my/model", grades, {"stderr": 0.1})
    return exam, grades, file


def read(file):
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def test_a_log_has_a_sample_for_each_item_and_repeat(log):
    _, grades, file = log
    found = read(file)
    samples = {name: one for name, one in found.items() if name.startswith("samples/")}
    assert set(samples) == {f"samples/{n}_epoch_{k}.json" for n in range(5) for k in (1, 2)}
    header = found["header.json"]
    assert header["eval"]["dataset"]["samples"] == 5
    assert header["eval"]["config"]["epochs"] == 2
    (score,) = header["results"]["scores"]
    assert score["metrics"]["accuracy"]["value"] == grades.accuracy == 0.1
    assert score["metrics"]["stderr"]["value"] == 0.1
    # Whoever takes the mean over samples gets our score.
    values = [one["scores"]["math"]["value"] for one in samples.values()]
    assert sum(values) / len(values) == grades.accuracy
    assert (score["scored_samples"], score["unscored_samples"]) == (10, 0)
    assert header["results"]["completed_samples"] == 9
    assert header["eval"]["metadata"]["keys"] == grades.keys
    assert header["stats"]["model_usage"]["my/model"]["output_tokens"] == 99
    assert found["_journal/start.json"]["eval"] == header["eval"]
    assert len(found["summaries.json"]) == 10


def test_a_sample_tells_messages_thinking_usage_and_verdict(log):
    file = log[2]
    found = read(file)
    one = found["samples/1_epoch_1.json"]
    assert one["input"] == one["messages"][0]["content"] == "Do: 1 + 1? Go."
    thinking, text = one["messages"][1]["content"]
    assert thinking == {"type": "reasoning", "reasoning": "thinking <b>hard</b>"}
    assert text["text"] == r"\boxed{2}"
    score = one["scores"]["math"]
    assert (score["value"], score["answer"], one["target"]) == (1.0, "2", "2")
    assert score["metadata"]["verdict"] == "correct"
    assert one["output"]["usage"]["total_tokens"] == 18
    cut = found["samples/1_epoch_2.json"]
    assert cut["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert [part["type"] for part in cut["messages"][1]["content"]] == ["text"]
    assert cut["scores"]["math"]["metadata"]["verdict"] == "unparsed"
    lost = found["samples/4_epoch_2.json"]
    assert lost["error"]["message"] == "The model gave no reply."
    score = lost["scores"]["math"]
    assert (score["value"], score["metadata"]["verdict"]) == (0.0, "error")
    assert lost["input"] == "Do: 4 + 4? Go."


def test_the_same_sitting_is_the_same_log(log):
    exam, grades, file = log
    before = file.read_bytes()
    again = write_inspect_log(file.parent, exam, "my/model", grades, {"stderr": 0.1})
    assert again == file
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


READ = """
import json, sys
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries
log = read_eval_log(sys.argv[1])
sample = next(s for s in log.samples if s.id == 1 and s.epoch == 1)
print(json.dumps({
    "status": log.status, "task": log.eval.task, "model": log.eval.model,
    "epochs": log.eval.config.epochs, "samples": len(log.samples),
    "accuracy": log.results.scores[0].metrics["accuracy"].value,
    "parts": [part.type for part in sample.messages[-1].content],
    "score": sample.scores["math"].as_float(), "answer": sample.output.completion,
    "stops": sorted({s.output.stop_reason for s in log.samples if s.output.choices}),
    "usage": log.stats.model_usage["my/model"].total_tokens,
    "errors": [s.id for s in log.samples if s.error],
    "summaries": len(read_eval_log_sample_summaries(sys.argv[1])),
    "listed": [info.task for info in list_eval_logs(sys.argv[2])],
}))
"""


def test_inspect_reads_it(log):
    file = log[2]
    python = sys.executable if find_spec("inspect_ai") else INSPECT
    if python is None:
        pytest.skip("inspect-ai is not installed, and STILLROOM_INSPECT_PYTHON names no Python")
    done = subprocess.run(
        [python, "-c", READ, str(file), str(file.parent)],
        capture_output=True, text=True, timeout=120, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "status": "success", "task": "mine", "model": "my/model", "epochs": 2, "samples": 10,
        "accuracy": 0.1, "parts": ["reasoning", "text"], "score": 1.0, "answer": r"\boxed{2}",
        "stops": ["max_tokens", "stop"], "usage": 162, "errors": [4], "summaries": 10,
        "listed": ["mine"],
    }  # fmt: skip


def test_part_credit_and_cascades_are_told(tmp_path):
    rows = [{"question": "Pick all.", "type": "MCQ(multiple)", "gold": "ABD"}]
    file = write(tmp_path / "jeebench.jsonl", rows)
    exam = exam_of("jeebench", 1)
    model = FakeModel(lambda request: Completion(None, r"\boxed{AB}", "stop", 1, 1))
    with Ledger(tmp_path / "ledger") as ledger:
        rt = Runtime(FakeModels(model), lambda: ledger, {"jeebench": str(file)}, workers=1)
        grades = grade(exam, "m", Runner(Store(tmp_path / "store"), rt), "eval")
    found = read(write_inspect_log(tmp_path / "logs", exam, "m", grades, {}))
    (score,) = found["samples/0_epoch_1.json"]["scores"].items()
    assert score[0] == "letters_number"
    assert score[1]["value"] == 0.5
    assert pl.Series(grades.table["score"]).to_list() == [0.5]
