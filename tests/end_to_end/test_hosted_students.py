"""A study whose students are too large for this process: each is served, graded, and ended."""

import json
import os
import sys

import pytest

from stand_in_vllm import STAND_IN, alive
from stillroom.cli import main

pytest.importorskip("torch")
pytest.importorskip("scipy")

BASE = """
name: base
models:
  teacher: {name: stillroom/novice-1, temperature: 0.9, max_tokens: 60}
domains:
  math:
    - source: {procedural: {n: 20}}
    - answer
    - keep: {where: {finish_reason: [stop, length]}}
      as: chosen
"""
STUDY = """
question: Do fewer rows do?
hypothesis: They do.
base: base.yaml
rows: 8
shortage: upsample
arms:
  all: {math.chosen: []}
  whole: {math.chosen: [{keep: {where: {finish_reason: stop}}, as: chosen}]}
student: {model: stillroom/base-1, settings: {steps: 2, tokens_per_step: 128}}
seeds: 2
benchmarks: {develop: [proxy_suite], repeats: 1}
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    executable = [sys.executable, str(tmp_path / "stand_in.py"), str(tmp_path)]
    students = f'engine = "vllm"\nstart_timeout_s = 60\nexecutable = {json.dumps(executable)}\n'
    (tmp_path / "models.toml").write_text("[students]\n" + students)
    items = [{"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(6)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return [
        "study", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "store"),
        "--models", str(tmp_path / "models.toml"),
        "--source", f"proxy_suite={tmp_path / 'items.jsonl'}",
    ]  # fmt: skip


@pytest.mark.slow
def test_each_student_is_served_once_graded_and_ended(tmp_path, command):
    main(command)
    facts = json.loads((tmp_path / "results.json").read_text())
    assert len(facts["students"]) == 4
    served = [line.split() for line in (tmp_path / "served").read_text().splitlines()]
    students = {str(p / "model") for p in (tmp_path / "store" / "students").iterdir()}
    # The base model too is graded as its students are.
    assert len(served) == len(students) + 1
    assert students < {model for _, model, *_ in served}
    assert not any(alive(int(pid)) for pid, *_ in served)
    main(command)
    assert len((tmp_path / "served").read_text().splitlines()) == len(served)


def test_what_cannot_be_graded_is_not_trained(tmp_path, command, capsys):
    models = (tmp_path / "models.toml").read_text()
    (tmp_path / "models.toml").write_text('[students]\nengine = "vllm"\nexecutable = ["no-vllm"]\n')
    with pytest.raises(SystemExit):
        main(command)
    assert "no-vllm: no such program; expected vllm" in capsys.readouterr().err
    (tmp_path / "models.toml").write_text(models)
    with (tmp_path / "study.yaml").open("a") as file:
        file.write("references: {name: stillroom/teacher-1, temperature: 0}\n")
    with pytest.raises(SystemExit):
        main(command)
    assert "are served by vllm, and likelihoods are scored by" in capsys.readouterr().err
    assert not (tmp_path / "store" / "students").exists()
    assert not (tmp_path / "served").exists()
