"""A whole race with real students: run, killed, gone on with, reported, its winner promoted."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tests.end_to_end.test_study import BASE, command

from stillroom.cli import main

pytest.importorskip("torch")
pytest.importorskip("scipy")

# Nothing can be told apart after three steps of training; what matters is set so wide that the
# race ends at the first look of the last scale, where the cheapest of two arms wins.
RACE = """
question: How many answers?
base: base.yaml
rows: 12
shortage: upsample
arms:
  two: {math.answer.draws: 2}
  one: {math.answer.draws: 1}
student: {model: stillroom/base-1, settings: {steps: 3, tokens_per_step: 256}}
seeds: 3
matters: 0.9
benchmarks: {develop: [proxy_suite], repeats: 1}
race:
  confidence: 0.6
  scales:
    - {rows: 6, seeds: 2, settings: {steps: 2}, changes: {math.take: 12}}
    - {rows: 12, seeds: [2, 3]}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(RACE)
    items = [{"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(11, 31)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return tmp_path


def results(folder):
    facts = json.loads((folder / "results.json").read_text())
    # Training takes as long as it takes.
    for work in ("spent", "full_grid"):
        del facts[work]["seconds"]
    return facts


@pytest.mark.slow
def test_a_race_ends_reports_and_goes_on_after_a_kill(folder, capsys):
    main(command(folder, "plan"))
    planned = capsys.readouterr().out
    assert "6 students to train" in planned
    assert "drops arms worse by" in planned

    process = subprocess.Popen(
        [sys.executable, "-m", "stillroom", *command(folder, "study")],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        # Killed in the middle of the first round: some students are there, others are not.
        until = time.monotonic() + 120
        while not list((folder / "store").glob("students/*")) and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "results.json").exists()

    main(command(folder, "study"))
    said = capsys.readouterr().out
    assert "one wins (60% confidence): no arm is better than it by 90.0 points or more." in said
    first = results(folder)
    assert (first["ending"], first["winner"], first["close"]) == ("close", "one", first["close"])
    assert [(r["size"], r["seeds"]) for r in first["rounds"]] == [(6, 2), (12, 2)]
    assert (first["spent"]["students"], first["full_grid"]["students"]) == (8, 6)
    report = (folder / "report.md").read_text()
    assert "scales.svg" in report
    assert "What the arms dropped" in report

    main(command(folder, "study"))
    assert "to train" in capsys.readouterr().out
    assert results(folder) == first
    assert (folder / "report.md").read_text() == report

    # As the stage of a search it is the same race: nothing is trained for it.
    (folder / "search.yaml").write_text("base: base.yaml\nstages: [study.yaml]\nrule: cheapest\n")
    capsys.readouterr()
    searching = command(folder, "search")
    searching[1] = str(folder / "search.yaml")
    main([*searching, "--out", str(folder / "searched")])
    said = capsys.readouterr().out
    assert "4 found, 0 to train" in said
    (stage,) = json.loads((folder / "searched" / "results.json").read_text())["stages"]
    assert stage["promoted"] == "one"
    assert "one wins" in (folder / "searched" / "report.md").read_text()
    raced = folder / "searched" / stage["stage"] / "results.json"
    assert json.loads(raced.read_text())["winner"] == "one"

    main([*command(folder, "promote"), first["winner"]])
    promoted = yaml.safe_load((folder / "promoted.yaml").read_text())
    # The recipe of the last scale: what smaller scales changed is not in it.
    steps = {next(iter(s)): s for s in promoted["domains"]["math"] if isinstance(s, dict)}
    assert (steps["take"]["take"], steps["answer"]["answer"]) == (24, {"draws": 1})
