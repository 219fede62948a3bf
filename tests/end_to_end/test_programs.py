"""LLaMA-Factory and axolotl themselves, on the CPU: the same rows give the student of TRL.

They run where STILLROOM_LLAMAFACTORY and STILLROOM_AXOLOTL name the programs; both live in
environments of their own. Seen with LLaMA-Factory 0.9.5 and axolotl 0.19.0.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tests.end_to_end.test_hosted_students import BASE

from stillroom.cli import main
from stillroom.store.store import Store
from stillroom.train.trainer import Example, Job, TrainingFailed, train
from stillroom.train.trainers import TRAINERS
from tiny_checkpoints import write_checkpoint

NAMED = {
    name: os.environ.get(TRAINERS[name].NAMED) for name in ("llamafactory", "axolotl")
}  # as it was before tests clean the environment
ROWS = [
    Example(f"What is {i}+{i}?", f"{i}+{i}={2 * i}" if i % 5 else None, f"\\boxed{{{2 * i}}}")
    for i in range(24)
]
ROWS += [Example("Long?", "t " * 200, "end"), Example("<image> {{content}}?", "x", "[1, [2]]")]
# A pass is a whole step: axolotl weighs passes alike, where the others weigh tokens.
TINY = {
    "learning_rate": 1e-2, "global_batch": 4, "per_device_batch": 4, "epochs": 2, "max_length": 192,
    "schedule": "cosine", "warmup_ratio": 0.1, "weight_decay": 0.1, "adam_beta2": 0.95,
    "precision": "float32", "gradient_checkpointing": False,
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(params=list(NAMED))
def program(request, monkeypatch):
    return named(request.param, monkeypatch)


@pytest.fixture
def llamafactory(monkeypatch):
    return named("llamafactory", monkeypatch)


def named(name, monkeypatch):
    variable = TRAINERS[name].NAMED
    if not NAMED[name]:
        pytest.skip(f"{variable} names no program")
    monkeypatch.setenv(variable, NAMED[name])
    return name


@pytest.fixture
def work(tmp_path):
    base = write_checkpoint(tmp_path / "base", dtype="BF16", torch_dtype="bfloat16")
    rows = tmp_path / "rows"
    rows.mkdir()
    frame = pl.DataFrame(ROWS, schema=["question", "reasoning", "answer"], orient="row")
    frame.write_parquet(rows / "00000.parquet")
    return Job(base, rows, {}, seed=0)


def trained(work, place, name, **more):
    one = TRAINERS[name]
    job = replace(work, settings=one.settings(None, {**TINY, **more}))
    return train(Store(place), "k", one, job, {})


def weights(alumnus):
    return load_file(alumnus.path / "model.safetensors")


def test_its_student_is_that_of_trl(tmp_path, work, program):
    ours, theirs = (trained(work, tmp_path / name, name) for name in ("trl", program))
    assert theirs.trained.losses == pytest.approx(ours.trained.losses, abs=2e-4)
    said = (theirs.trained, ours.trained)
    for field in ("rows", "truncated", "skipped", "unseen", "tokens"):
        one, other = (getattr(each, field) for each in said)
        assert one == other, field
    assert theirs.trained.details["steps"] == ours.trained.details["steps"] == 14
    assert theirs.trained.details["otherwise"] == 0
    wanted, found = weights(ours), weights(theirs)
    assert wanted.keys() <= found.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype == torch.bfloat16
        # Float noise, and then a last digit of bfloat16.
        assert torch.allclose(found[name].float(), value.float(), rtol=1 / 128, atol=1e-4), name
    names = {path.name for path in work.base.iterdir()}
    assert {path.name for path in theirs.path.iterdir()} == names


KILLED = """
import json, pathlib, sys
from stillroom.store.store import Store
from stillroom.train.trainer import Job, train
from stillroom.train.trainers import TRAINERS
name, base, rows, place, settings = json.loads(sys.argv[1])
job = Job(pathlib.Path(base), pathlib.Path(rows), settings, 0)
train(Store(pathlib.Path(place)), "k", TRAINERS[name], job, {})
"""


def test_a_killed_training_goes_on_at_its_checkpoint(tmp_path, work, program):
    more = {"epochs": 12}
    calm = trained(work, tmp_path / "calm", program, **more)
    settings = TRAINERS[program].settings(None, {**TINY, **more})
    told = [program, str(work.base), str(work.rows), str(tmp_path / "store"), settings]
    out = tmp_path / "store/building/student-k/out"
    process = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps(told)])
    try:
        while not list(out.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    # Linux ends the program with it. A checkpoint that was being written is left torn.
    (out / "checkpoint-9999").mkdir()
    again = trained(work, tmp_path / "store", program, **more)
    assert again.trained.losses == calm.trained.losses
    wanted, found = weights(calm), weights(again)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_rows_that_it_packs_do_not_see_each_other(tmp_path, work, llamafactory):
    """The first loss of all rows together is the same, packed or not."""
    losses = []
    for packing, batch in ((False, 26), (True, 3)):
        more = {"packing": packing, "global_batch": batch, "per_device_batch": 1, "max_steps": 1}
        place = tmp_path / str(packing)
        student = trained(work, place, llamafactory, **more, max_length=640)
        losses += student.trained.losses
        assert student.trained.details["lines"] == batch
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_a_template_that_asks_otherwise_is_refused(tmp_path, work, llamafactory):
    with pytest.raises(TrainingFailed, match=r"would ask .*You are Qwen, created by Alibaba Cloud"):
        trained(work, tmp_path / "store", llamafactory, template="qwen")


STUDY = """
question: Do fewer rows do?
hypothesis: They do.
base: base.yaml
rows: 8
shortage: upsample
arms:
  all: {math.chosen: []}
  whole: {math.chosen: [{keep: {where: {finish_reason: stop}}, as: chosen}]}
student:
  model: stillroom/base-1
  trainer: TRAINER
  settings:
    {learning_rate: 1.0e-4, global_batch: 4, epochs: 2, max_length: 256, precision: float32}
seeds: 1
benchmarks: {develop: [proxy_suite], repeats: 1}
"""


def test_its_students_are_graded_in_a_study(tmp_path, program):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(STUDY.replace("TRAINER", program))
    items = [{"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(6)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    main([
        "study", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "store"),
        "--source", f"proxy_suite={tmp_path / 'items.jsonl'}",
    ])  # fmt: skip
    facts = json.loads((tmp_path / "results.json").read_text())
    students = facts["students"]
    assert len(students) == 2
    for record in (tmp_path / "store" / "students").glob("*/student.json"):
        told = json.loads(record.read_text())
        assert (told["trainer"], told["trained"]["details"]["steps"]) == (program, 4)
        assert told["trained"]["rows"] == 8
