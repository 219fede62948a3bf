"""A whole study with real students: run, stop, go on, report."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from stillroom.cli import main
from stillroom.errors import StoreError
from stillroom.store.store import Store
from stillroom.study.seals import openings
from stillroom.train.proxy import Proxy
from stillroom.train.trainer import Job, TrainingFailed, base_content, find, student_key, train

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from safetensors.torch import load_file  # noqa: E402

from stillroom.study.students import _train_group, _trained_in_groups  # noqa: E402

EMBEDDED = Path(__file__).parents[2] / "src/stillroom/models/embedded"

BASE = """
name: base
models:
  teacher: {name: stillroom/novice-1, temperature: 0.9, max_tokens: 120}
domains:
  math:
    - source: {procedural: {n: 60}}
    - dedup: exact
    - take: 24
    - answer
    - verify: math
    - keep: {where: {finish_reason: stop}}
      as: chosen
"""
STUDY = """
question: Does <b>verification</b> help | or not?
hypothesis: It does.
base: base.yaml
rows: 12
shortage: upsample
arms:
  everything: {math.chosen: []}
  verified: {math.chosen: [{keep: {where: {verdict: correct}}, as: chosen}]}
student: {model: stillroom/base-1, settings: {steps: 4, tokens_per_step: 256}}
seeds: 2
benchmarks: {develop: [proxy_suite], held_out: [aime25], repeats: 2}
references: {name: stillroom/teacher-1, system: "Think carefully, digit by digit.", temperature: 0}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(STUDY)
    items = [{"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(11, 31)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return tmp_path


def command(folder, *verb):
    return [
        *verb, str(folder / "study.yaml"), "--store", str(folder / "store"),
        "--source", f"proxy_suite={folder / 'items.jsonl'}",
    ]  # fmt: skip


class Text(HTMLParser):
    """Collects tags and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.slow
def test_a_study_runs_reports_and_runs_again_for_nothing(folder, capsys):
    main(command(folder, "plan"))
    planned = capsys.readouterr().out
    assert "4 students to train, 4,800 attempts" in planned
    assert "not known before one was trained here" in planned
    main(command(folder, "study"))
    said = capsys.readouterr().out
    assert "students: 0 found, 4 to train" in said
    first = {f.name: f.read_text() for f in folder.glob("report.*")}
    report = first["report.md"]
    assert r"Does \<b\>verification\</b\> help \| or not?" in report
    assert "aime25 is sealed" in report
    # A later study that holds it out is told of this one.
    assert [o.benchmark for o in openings(Store(folder / "store"))] == ["proxy_suite"]
    assert "chosen: verdict is incorrect" in report.replace("\\", "")
    assert "Likelihood of right answers" in report
    facts = json.loads((folder / "results.json").read_text())
    assert [d["arm"] for d in facts["differences"]] == ["verified"]
    assert {s["seed"] for s in facts["students"]} == {0, 1}
    page = Text()
    page.feed(first["report.html"])
    assert not {"b", "script", "link", "img"} & {tag for tag, _ in page.tags}
    assert "Does <b>verification</b> help | or not?" in page.text
    assert (folder / "difference.svg").read_text() in first["report.html"]

    main(command(folder, "plan"))
    assert "as 4 of the kind took here" in capsys.readouterr().out
    main(command(folder, "study"))
    assert "students: 4 found, 0 to train" in capsys.readouterr().out
    assert {f.name: f.read_text() for f in folder.glob("report.*")} == first


@pytest.mark.slow
def test_a_killed_study_goes_on_and_ends_the_same(folder, tmp_path_factory):
    calm = tmp_path_factory.mktemp("calm")
    for name in ("base.yaml", "study.yaml", "items.jsonl"):
        (calm / name).write_text((folder / name).read_text())
    main(command(calm, "study"))
    killed = 0
    for wait in (4.0, 6.0, 8.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "stillroom", *command(folder, "study")],
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(wait)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    main(command(folder, "study"))
    wanted, found = (json.loads((f / "results.json").read_text()) for f in (calm, folder))
    # The folder's name is that of the study.
    wanted["study"]["name"] = found["study"]["name"]
    assert found == wanted
    assert killed


def examples(folder, n=6):
    folder.mkdir()
    rows = [(f"What is {i}+1?", f"{i}+1={i + 1}", f"\\boxed{{{i + 1}}}") for i in range(n)]
    pl.DataFrame(rows, schema=["question", "reasoning", "answer"], orient="row").write_parquet(
        folder / "00000.parquet"
    )
    return folder


def job(tmp_path, **settings):
    full = Proxy().settings(None, {"steps": 2, "tokens_per_step": 128, **settings})
    return Job(EMBEDDED / "base-1", examples(tmp_path / "rows"), full, seed=0)


def test_a_student_is_found_again_and_a_torn_one_is_refused(tmp_path):
    store, work = Store(tmp_path / "store"), job(tmp_path)
    key = student_key("proxy", 1, work.settings, base_content(work.base), "rows", 0)
    assert find(store, key) is None
    alumnus = train(store, key, Proxy(), work, {"base": "b"})
    assert alumnus.trained.rows == 4
    assert find(store, key) == alumnus or find(store, key).path == alumnus.path
    assert not (tmp_path / "store/building" / f"student-{key}").exists()
    with (alumnus.path / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match="torn or edited"):
        find(store, key)


def test_a_key_speaks_of_everything_that_makes_a_student(tmp_path):
    base = base_content(EMBEDDED / "base-1")
    keys = [
        student_key("proxy", 1, {"steps": 2}, base, "rows", 0),
        student_key("proxy", 2, {"steps": 2}, base, "rows", 0),
        student_key("proxy", 1, {"steps": 3}, base, "rows", 0),
        student_key("proxy", 1, {"steps": 2}, base_content(EMBEDDED / "novice-1"), "rows", 0),
        student_key("proxy", 1, {"steps": 2}, base, "others", 0),
        student_key("proxy", 1, {"steps": 2}, base, "rows", 1),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == student_key("proxy", 1, {"steps": 2}, base, "rows", 0)
    other = tmp_path / "base"
    other.mkdir()
    for content in (b"one", b"two"):
        (other / "pytorch_model.bin").write_bytes(content)
        keys.append(student_key("proxy", 1, {"steps": 2}, base_content(other), "rows", 0))
    assert len(set(keys)) == len(keys)


def test_training_that_diverges_is_one_message_and_no_student(tmp_path, monkeypatch):
    import stillroom.train.loop as loop

    def broken(model, rows, settings, report):
        report(1, math.nan, 0.0)

    monkeypatch.setattr(loop, "train", broken)
    store, work = Store(tmp_path / "store"), job(tmp_path)
    with pytest.raises(TrainingFailed, match="the loss is nan at step 1 of 2; lower"):
        train(store, "k", Proxy(), work, {})
    assert find(store, "k") is None


def test_rows_that_do_not_fit_are_counted(tmp_path):
    work = job(tmp_path)
    long = pl.DataFrame({"question": ["x " * 3000], "reasoning": [None], "answer": ["y"]})
    long.with_columns(pl.col("reasoning").cast(pl.String)).write_parquet(
        work.rows / "00001.parquet"
    )
    alumnus = train(Store(tmp_path / "store"), "k", Proxy(), work, {})
    trained = alumnus.trained
    assert (trained.rows + trained.unseen, trained.skipped) == (6, 1)
    assert trained.unseen == 2  # two steps of 128 tokens are over before
    (work.rows / "00000.parquet").unlink()
    with pytest.raises(TrainingFailed, match="no row fits: 1 of 1"):
        train(Store(tmp_path / "other"), "k", Proxy(), work, {})


def test_a_row_that_is_repeated_is_not_taken_for_unseen(tmp_path):
    work = job(tmp_path, steps=8)
    again = pl.read_parquet(work.rows / "00000.parquet")
    again.write_parquet(work.rows / "00001.parquet")
    trained = train(Store(tmp_path / "store"), "k", Proxy(), work, {}).trained
    assert (trained.rows, trained.unseen) == (2 * again.height, 0)


def test_a_group_gives_the_students_of_processes_of_their_own(tmp_path):
    """As on a GPU; one that cannot be trained does not stop the others."""
    members = {}
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        work = job(tmp_path / str(seed), steps=4)
        members[f"k{seed}"] = (replace(work, seed=seed), {"base": "b"})
    for path in members["k1"][0].rows.iterdir():
        pl.read_parquet(path).with_columns(question=pl.lit("x " * 3000)).write_parquet(path)
    store, other = Store(tmp_path / "store"), Store(tmp_path / "alone")
    apart = {key: train(other, key, Proxy(), members[key][0], {}) for key in ("k0", "k2")}
    group = [(store.root, key, "proxy", *given) for key, given in members.items()]
    found = _train_group(group)
    assert isinstance(found["k1"], TrainingFailed)
    for key, alone in apart.items():
        assert found[key].trained.details["device"] == "cpu"
        assert find(store, key).path == found[key].path
        assert found[key].trained.tokens == alone.trained.tokens
        assert found[key].trained.losses == pytest.approx(alone.trained.losses, abs=0.02)
        weights = [load_file(one.path / "model.safetensors") for one in (alone, found[key])]
        for name, tensor in weights[0].items():
            assert torch.allclose(tensor.float(), weights[1][name].float(), atol=0.02), name
    again = _train_group([group[0], group[2]])
    assert [one.seconds for one in again.values()] == [
        json.loads((store.root / "students" / key / "student.json").read_text())["seconds"]
        for key in ("k0", "k2")
    ]


@pytest.mark.slow
def test_students_are_trained_group_after_group(tmp_path):
    root, jobs = tmp_path / "store", {}
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        work = replace(job(tmp_path / str(seed)), seed=seed)
        jobs[f"k{seed}"] = (root, f"k{seed}", "proxy", work, {})
    yielded, notes = [], []
    for key, alumnus in _trained_in_groups(2, jobs, notes.append):
        del jobs[key]
        yielded.append(key)
        assert find(Store(root), key).path == alumnus.path
    assert (yielded, jobs, notes) == (["k0", "k1", "k2"], {}, [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"step": 3}, "step is no setting; expected one of steps"),
        ({"steps": 0}, "steps is 0; expected a whole number, 1 to"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number"),
        ({"muon_lr": -1}, "muon_lr is -1; expected a number, 0 to 1"),
        ({"decay": "steep"}, "decay is 'steep'; expected linear or cosine"),
    ],
)
def test_settings_are_checked(given, words):
    with pytest.raises(ValueError, match=words):
        Proxy().settings(None, given)
    with pytest.raises(ValueError, match="preset is 'x'; expected one of quick, thorough"):
        Proxy().settings("x", {})
    assert Proxy().settings("quick", {"steps": 7})["steps"] == 7


def test_likelihood_prefers_what_the_teacher_would_say():
    from stillroom.train.likelihood import log_likelihood
    from stillroom.train.trainer import Example

    right = Example("What is 12+7?", "12+7: 2+7=9, 1=1 -> 19", "The answer is \\boxed{19}.")
    wrong = Example("What is 12+7?", "12+7: 2+7=9, 1=1 -> 19", "The answer is \\boxed{84}.")
    longer = Example("What is 12+7?", None, "x" * 60)
    scored = log_likelihood(EMBEDDED / "teacher-1", [right, longer, wrong])
    assert scored[0].answer > scored[2].answer
    assert scored[0].completion > scored[1].completion
    # A score does not depend on what is scored beside it.
    (alone,) = log_likelihood(EMBEDDED / "teacher-1", [right])
    assert alone == scored[0]


def test_eval_grades_a_model_and_keeps_every_attempt(folder, capsys):
    arguments = [
        "eval", "stillroom/novice-1", "proxy_suite", "--store", str(folder / "store"),
        "--source", f"proxy_suite={folder / 'items.jsonl'}", "--repeats", "3",
        "--out", str(folder / "attempts.parquet"),
    ]  # fmt: skip
    main(arguments)
    said = capsys.readouterr().out
    attempts = pl.read_parquet(folder / "attempts.parquet")
    assert attempts.height == 60
    assert attempts.group_by("item").len()["len"].to_list() == [3] * 20
    share = 100 * attempts["score"].sum() / 60
    assert f"{share:.1f}" in said
    arguments[-3] = "2"
    report = folder / "report.json"
    asked = {"benchmarks": {"proxy_suite": {"items": 20, "asked": [0, 3, 7]}}}
    report.write_text(json.dumps(asked))
    more = ["--contamination", str(report), "--inspect", str(folder / "logs")]
    main([*arguments, *more])
    said = capsys.readouterr().out
    assert "reused" in said
    assert "17 × 2" in said
    assert "3 of 20 items are asked by training data" in " ".join(said.split())
    (log,) = (folder / "logs").iterdir()
    assert log.suffix == ".eval"
    fewer = pl.read_parquet(folder / "attempts.parquet")
    both = fewer.join(attempts, on=["item", "repeat"], suffix="_before")
    assert both.height == 40
    assert (both["score"] == both["score_before"]).all()
