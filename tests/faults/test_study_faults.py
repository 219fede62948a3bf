"""What goes wrong in a study is marked, and what is finished stays."""

import dataclasses
import fcntl
import json
import math
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import polars as pl
import pytest

from stillroom.cli import main
from stillroom.errors import RecipeError, StoreError
from stillroom.evaluate.grade import Grades
from stillroom.store.gc import find_garbage
from stillroom.store.store import Store
from stillroom.study.load import load_study

pytest.importorskip("torch")
pytest.importorskip("scipy")

from stillroom.study import students as running
from stillroom.study.arms import arms_of
from stillroom.study.laboratory import Laboratory
from stillroom.study.marks import marks, notes, twins
from stillroom.study.reports.study import oddities
from stillroom.study.result import Sat
from stillroom.train.trainer import Student, TrainingFailed

BASE = """
name: base
models:
  teacher: {name: stillroom/novice-1, temperature: 0.9, max_tokens: 60}
domains:
  math:
    - source: {procedural: {n: 20}}
    - dedup: exact
    - take: 6
    - answer
"""
STUDY = """
question: Does it survive?
base: base.yaml
rows: 6
shortage: upsample
arms:
  control: {math.take: 6}
  stops: {math.take: 4}
  dies: {math.take: 3}
  other: {math.take: 5}
student: {model: stillroom/base-1, trainer: command, settings: {command: COMMAND}}
seeds: 1
benchmarks: [BENCHMARK]
"""
SCRIPT = """
import json, os, shutil, signal, sys
rows = {line for line in open(os.environ["STILLROOM_ROWS"])}
if len(rows) == 4:
    print("step 7")
    sys.exit("CUDA out of memory")
if len(rows) == 3:
    os.kill(os.getppid(), signal.SIGKILL)  # the process of ours that trains
shutil.copytree(os.environ["STILLROOM_BASE"], os.environ["STILLROOM_OUT"])
"""
BENCHMARK = """
title: Sums
about: Sums.
domain: math
licence: none
file: items.jsonl
question: q
reference: a
sitting: {verify: math, max_tokens: 40}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sums.yaml").write_text(BENCHMARK)
    items = [{"q": f"What is {n}+{n}?", "a": str(2 * n)} for n in range(11, 16)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    line = json.dumps([sys.executable, str(tmp_path / "script.py")])
    text = STUDY.replace("COMMAND", line).replace("BENCHMARK", str(tmp_path / "sums.yaml"))
    (tmp_path / "study.yaml").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_arms_whose_trainers_fail_or_die_are_marked_and_the_others_stay(folder, capsys):
    command = ["study", str(folder / "study.yaml"), "--store", str(folder / "store")]
    main(command)
    said = " ".join(capsys.readouterr().out.split())
    print(said)
    assert "! stops, seed 0: " in said
    assert "CUDA out of memory" in said
    assert "! dies, seed 0: the process that trains died, and once more when it was alone" in said
    # What was found comes last, and then what can be done about those that failed.
    assert "between other and control" in said.split("= other, seed 0")[1]
    assert "2 students could not be trained; the report says why, and the same command" in said
    report = (folder / "report.md").read_text()
    assert "2 arms are in no comparison, because students were not trained:" in report
    assert "stops, seed 0" in report
    facts = json.loads((folder / "results.json").read_text())
    assert [d["arm"] for d in facts["differences"]] == ["other"]
    # What is finished is found; what failed is tried again.
    (folder / "script.py").write_text(SCRIPT.replace("len(rows) == 4", "False"))
    main(command)
    said = capsys.readouterr().out
    assert "students: 2 found, 2 to train" in said
    facts = json.loads((folder / "results.json").read_text())
    assert [d["arm"] for d in facts["differences"]] == ["stops", "other"]
    assert find_garbage(Store(folder / "store")).artifacts == []


def test_benchmark_of_one_item_is_refused_before_anything_is_made(folder, capsys):
    (folder / "items.jsonl").write_text('{"q": "What is 1+1?", "a": "2"}\n')
    store = folder / "store"
    with pytest.raises(SystemExit):
        main(["study", str(folder / "study.yaml"), "--store", str(store)])
    said = " ".join(capsys.readouterr().err.split())
    assert "benchmarks: sums has 1 item; expected 2 or more" in said
    assert not (store / "students").exists()
    assert not (folder / "report.md").exists()


class Trained:
    """Stands for a pool: each job ends as its key says."""

    def __init__(self, ends):
        self.ends = ends
        self.pools = []

    def __call__(self, together, jobs):
        jobs = list(jobs)
        self.pools.append((together, [key for key, _ in jobs]))
        for key, given in jobs:
            future = Future()
            end = self.ends[key].pop(0)
            (future.set_exception if isinstance(end, Exception) else future.set_result)(end)
            yield key, given, future


def trained(monkeypatch, tmp_path, ends):
    pool = Trained(ends)
    monkeypatch.setattr(running, "_trained_in", pool)
    monkeypatch.setattr(running, "find", lambda store, key: None)
    drawn = {
        (key, 0): SimpleNamespace(write=lambda folder: None, named=lambda store: "d")
        for key in ends
    }
    lab = Laboratory(SimpleNamespace(root=tmp_path), None, students=2)
    keys = {place: place[0] for place in drawn}
    monkeypatch.setattr(running, "check_hosting", lambda study, folder, lab: None)
    study = SimpleNamespace(student=Student())
    return running.train_students(study, {}, tmp_path, drawn, keys, lab), pool


ALUMNUS = SimpleNamespace(seconds=1.0)


def test_a_process_that_died_takes_no_other_arm_with_it(monkeypatch, tmp_path):
    broken = running.BrokenProcessPool
    (alumni, failures), pool = trained(monkeypatch, tmp_path, {
        "good": [ALUMNUS], "unlucky": [broken(), ALUMNUS], "deadly": [broken(), broken()],
        "diverged": [TrainingFailed("the loss is nan at step 3 of 9; lower the learning rates")],
        "odd": [RuntimeError("CUDA error: device-side assert\nmore lines")],
    })  # fmt: skip
    assert set(alumni) == {"good", "unlucky"}
    assert failures["deadly"].startswith("the process that trains died, and once more")
    assert failures["diverged"].startswith("the loss is nan at step 3")
    assert failures["odd"] == "training broke down: RuntimeError: CUDA error: device-side assert"
    assert pool.pools[1:] == [(1, ["unlucky"]), (1, ["deadly"])]


def test_a_second_study_of_the_same_students_does_not_follow_the_first(monkeypatch, tmp_path):
    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / "student-a").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        _, pool = trained(monkeypatch, tmp_path, {key: [ALUMNUS] for key in "abcd"})
    assert pool.pools == [(2, ["c", "d", "a", "b"])]
    _, pool = trained(monkeypatch, tmp_path, {key: [ALUMNUS] for key in "abcd"})
    assert pool.pools == [(2, ["a", "b", "c", "d"])]


def test_trouble_of_the_machine_stops_the_study(monkeypatch, tmp_path):
    with pytest.raises(StoreError, match="disk"):
        trained(monkeypatch, tmp_path, {"a": [StoreError("disk full")], "b": [ALUMNUS]})


def test_two_arms_that_are_the_same_recipe_are_refused(folder):
    text = (
        (folder / "study.yaml")
        .read_text()
        .replace("other: {math.take: 5}", "other: {math.take: 6}")
    )
    (folder / "study.yaml").write_text(text)
    with pytest.raises(RecipeError, match="arms control and other are the same recipe"):
        arms_of(load_study(folder / "study.yaml"), beside=folder)


# --- marks ----------------------------------------------------------------------------------------


def sat(losses=(2.0, 1.5, 1.0), verdict="correct", finish="stop", **trained):
    verdicts = [verdict] * 4 if isinstance(verdict, str) else verdict
    table = pl.DataFrame({"score": [0.0] * 4, "verdict": verdicts, "finish_reason": finish})
    details = {"losses": list(losses), "rows": 100, "skipped": 0, "truncated": 0, **trained}
    return Sat("arm", 0, "key", trained=details, grades={"bench": Grades(table)})


@pytest.mark.parametrize(
    ("student", "said"),
    [
        (sat(), []),
        (sat(losses=[]), []),
        (sat(losses=[2.0] * 30), ["it learnt nothing: its loss went from 2 to 2"]),
        (sat(losses=[1.0, 1.4]), ["it learnt nothing: its loss went from 1 to 1.4"]),
        (sat(losses=[1.0, math.nan]), ["it learnt nothing: its loss went from 1 to nan"]),
        # One bad step among the last does not hide that it learnt.
        (sat(losses=[2.0] * 30 + [1.0] * 29 + [2.5]), []),
        (sat(skipped=50), ["50 of 150 rows were too long to learn from"]),
        (sat(skipped=5, truncated=5), []),
        (sat(truncated=60), ["60 of 100 rows were cut to fit"]),
        (sat(rows=400, unseen=800), ["training ended before 800 of 1,200 rows were seen"]),
        (sat(unseen=10), []),
        (sat(finish="length"), ["on bench the limit of tokens cut every answer"]),
        (sat(verdict="unparsed"), ["on bench no answer could be read"]),
        (sat(verdict="error"), ["on bench no attempt got a reply or a verdict"]),
        (
            sat(verdict=["error", "correct", "correct", "correct"]),
            ["on bench 25.0% of attempts got no reply or no verdict, and count as wrong"],
        ),
    ],
)
def test_odd_students_are_marked(student, said):
    assert marks(student) == said


def test_a_mark_of_many_students_is_said_once():
    def seeds(n, **trained):
        return [dataclasses.replace(sat(**trained), seed=seed) for seed in range(n)]

    few = oddities(SimpleNamespace(sat=seeds(2, truncated=60)))
    assert few == [f"arm, seed {seed}: 60 of 100 rows were cut to fit" for seed in (0, 1)]
    students = [*seeds(5, truncated=60), *seeds(1, truncated=70), *seeds(1, losses=[1.0, 1.4])]
    assert oddities(SimpleNamespace(sat=students)) == [
        "6 of 7 students, such as arm, seed 0: 60 of 100 rows were cut to fit",
        "arm, seed 0: it learnt nothing: its loss went from 1 to 1.4",
    ]


def test_arms_that_show_their_students_the_same_rows_are_named():
    shown = {"a": "xy", "b": "xz", "c": "xy", "d": "xy", "e": "yx"}
    students = [Sat("base", 0, None)]
    students += [Sat(arm, n, "k", shown=rows[n]) for n in (0, 1) for arm, rows in shown.items()]
    (said,) = twins(students)
    assert said.startswith("a, c and d: trained on the same rows")


def test_notes_of_benchmarks_are_gathered_once():
    table = pl.DataFrame({"score": [1.0]})
    one = Sat("a", 0, "k", grades={"codeelo": Grades(table, notes=("A score here is odd.",))})
    other = Sat("b", 0, "l", grades={"codeelo": Grades(table, notes=("A score here is odd.",))})
    assert notes([one, other]) == ["codeelo: A score here is odd."]
