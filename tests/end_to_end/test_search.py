"""Searches and promotion: winners go on, people may overrule, held-out benchmarks are counted."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from tests.end_to_end.test_study import BASE

from stillroom.cli import main
from stillroom.errors import RecipeError
from stillroom.store.store import Store
from stillroom.study.seals import Opening, open_seal, openings

pytest.importorskip("torch")
pytest.importorskip("scipy")

COMMON = """
base: not-read.yaml
rows: 12
shortage: upsample
student: {model: stillroom/base-1, settings: {steps: 3, tokens_per_step: 256}}
seeds: 2
benchmarks: {develop: [proxy_suite], repeats: 1}
"""
FIRST = (
    "question: Keep wrong answers?\n"
    + COMMON
    + """
arms:
  everything: {math.chosen: []}
  verified: {math.chosen: [{keep: {where: {verdict: correct}}, as: chosen}]}
"""
)
SECOND = (
    "question: How many answers?\n"
    + COMMON
    + """
arms:
  one: {math.answer.draws: 1}
  two: {math.answer.draws: 2}
"""
)
SEARCH = """
base: base.yaml
stages: [first.yaml, second.yaml]
rule: cheapest
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "base.yaml": BASE, "first.yaml": FIRST, "second.yaml": SECOND, "search.yaml": SEARCH,
        "weights.yaml": WEIGHTS,
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    items = [{"question": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(11, 23)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return tmp_path


def run(folder, *arguments):
    main([
        *arguments, "--store", str(folder / "store"),
        "--source", f"proxy_suite={folder / 'items.jsonl'}",
    ])  # fmt: skip


def command(folder, verb, file, out):
    return [
        verb, str(folder / file), "--out", str(out), "--store", str(folder / "store"),
        "--source", f"proxy_suite={folder / 'items.jsonl'}",
    ]  # fmt: skip


def killed_after_its_first_stage(folder, out):
    """Start a search, and kill it as soon as the first stage is reported."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stillroom", *command(folder, "search", "search.yaml", out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not (out / "results.json").exists() and time.monotonic() < end:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_winners_go_on_and_a_person_may_overrule(folder, capsys):
    out = folder / "out"
    early = killed_after_its_first_stage(folder, out)
    assert [stage["stage"] for stage in early["stages"]] == ["first"]
    assert "Not finished: 1 of 2 stages are left" in (out / "report.md").read_text()
    run(folder, "search", str(folder / "search.yaml"), "--out", str(out))
    assert "students: 4 found, 0 to train" in capsys.readouterr().out
    assert "Not finished" not in (out / "report.md").read_text()
    assert (out / "stages.svg").read_text() in (out / "report.html").read_text()
    facts = json.loads((out / "results.json").read_text())
    first, second = facts["stages"]
    assert first == early["stages"][0]
    # Nothing can be told apart after three steps of training: of equally cheap arms the control
    # stays, and else the cheapest wins, one draw.
    assert first["chosen"] == first["promoted"] == "everything"
    assert second["promoted"] == "one"
    promoted = yaml.safe_load((out / "promoted.yaml").read_text())
    steps = {s.get("as") or next(iter(s)): s for s in promoted["domains"]["math"]
             if isinstance(s, dict)}  # fmt: skip
    assert steps["answer"] == {"answer": {"draws": 1}}
    assert ("chosen" in steps) == (first["promoted"] == "verified")
    assert (out / "first" / "report.html").exists()

    text = SEARCH + "overrule:\n  first: {arm: verified, because: it is right}\n"
    (folder / "search.yaml").write_text(text)
    capsys.readouterr()
    run(folder, "search", str(folder / "search.yaml"), "--out", str(out))
    assert "first: verified, by a person: it is right\n" in capsys.readouterr().out
    report = (out / "report.md").read_text()
    assert "by a person: it is right (the rule chose everything)" in report
    promoted = yaml.safe_load((out / "promoted.yaml").read_text())
    assert {"keep": {"where": {"verdict": "correct"}}, "as": "chosen"} in promoted["domains"][
        "math"
    ]


MIXED = """
name: base
models:
  teacher: {name: stillroom/novice-1, temperature: 0.9, max_tokens: 120}
domains:
  math:
    - mix:
        branches:
          arithmetic: [{source: {procedural: {n: 40, families: [arithmetic]}}}]
          words: [{source: {procedural: {n: 40, families: [words]}}}]
          loops: [{source: {procedural: {n: 40, families: [loops]}}}]
        top: 3
        total: 30
      as: questions
    - take: 14
    - answer
"""
SOURCES = (
    "question: Which source?\n"
    + COMMON.replace("seeds: 2", "seeds: 1")
    + """
arms:
  loops: {math.questions: [{source: {procedural: {n: 40, families: [loops]}}, as: questions}]}
  words: {math.questions: [{source: {procedural: {n: 40, families: [words]}}, as: questions}]}
  arithmetic:
    {math.questions: [{source: {procedural: {n: 40, families: [arithmetic]}}, as: questions}]}
"""
)
WEIGHTS = (
    "question: How much of each?\n"
    + COMMON.replace("seeds: 2", "seeds: 1")
    + """
references: {name: stillroom/teacher-1, system: "Think carefully, digit by digit.", temperature: 0}
mixtures: {at: math.questions, random: 6, groups: {m: [arithmetic, words], c: [loops]}}
"""
)


@pytest.mark.slow
def test_sources_are_ranked_and_weighed(folder, capsys):
    for name, text in {
        "base.yaml": MIXED, "first.yaml": SOURCES, "weights.yaml": WEIGHTS,
        "search.yaml": "base: base.yaml\nstages: [{study: first.yaml, ranks: "
        "math.questions.rank}, weights.yaml]\noverrule: {first: {arm: words, because: so}}\n",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    run(folder, "plan", str(folder / "search.yaml"))
    said = capsys.readouterr().out
    assert "11 students to train in all" in said
    out = folder / "out"
    run(folder, "search", str(folder / "search.yaml"), "--out", str(out))
    capsys.readouterr()
    first, second = json.loads((out / "results.json").read_text())["stages"]
    ranked = ["words", *(arm for arm in first["ranking"] if arm != "words")]
    promoted = yaml.safe_load((out / "promoted.yaml").read_text())
    mix = promoted["domains"]["math"][0]["mix"]
    assert mix["rank"] == ranked
    assert second["ranking"][0] == second["promoted"]
    facts = json.loads((out / "weights" / "results.json").read_text())["mixtures"]
    assert set(facts["regressions"]) == {"accuracy", "likelihood"}
    assert sum(map(len, facts["mixtures"])) == 6
    assert len(facts["weights"]) == len(facts["mixtures"])
    if second["promoted"] == "proposed weights":
        shares = [mix["weights"]["arithmetic"] + mix["weights"]["words"], mix["weights"]["loops"]]
        assert shares == pytest.approx(facts["proposed"], abs=1e-3)
    else:
        assert "weights" not in mix
    report = (out / "weights" / "report.md").read_text()
    assert "Confirmation by new students" in report
    for plot in ("weights.svg", "predicted.svg"):
        assert (out / "weights" / plot).read_text() in (out / "weights/report.html").read_text()


@pytest.mark.slow
def test_promotion_opens_held_out_benchmarks_and_counts(folder, capsys):
    text = FIRST.replace("not-read.yaml", "base.yaml").replace(
        "{develop: [proxy_suite], repeats: 1}",
        "{develop: [gsm8k_test], held_out: [proxy_suite], repeats: 1}",
    )
    (folder / "first.yaml").write_text(text)
    run(folder, "promote", str(folder / "first.yaml"), "verified", "--because", "so")
    said = capsys.readouterr().out
    assert "proxy_suite: opened for the first time" in said
    assert (folder / "promoted.yaml").read_text().startswith("# verified, promoted by")
    run(folder, "promote", str(folder / "first.yaml"), "everything")
    assert "proxy_suite: opened once before" in capsys.readouterr().out


def test_a_seal_is_opened_once_for_each_arm(tmp_path):
    store = Store(tmp_path)
    assert openings(store) == []
    assert open_seal(store, Opening("aime25", "s", "a")) == 0
    assert open_seal(store, Opening("aime25", "s", "a")) == 0
    assert open_seal(store, Opening("aime25", "s", "b")) == 1
    assert open_seal(store, Opening("hmmt_feb25", "s", "b")) == 0
    assert len(openings(store)) == 3
    # The same arm, made otherwise.
    assert open_seal(store, Opening("aime25", "s", "a", "4096 rows")) == 2
    assert len(openings(store)) == 4


def test_openings_at_one_time_are_all_written_down(tmp_path):
    store = Store(tmp_path)
    looks = [Opening("aime25", "s", str(n)) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda look: open_seal(store, look), looks))
    assert set(openings(store)) == set(looks)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rule: cheapest", "rule: luckiest", "rule"),
        ("rule: cheapest", "rules: best", "rules is no field"),
        ("rule: cheapest", "overrule: {third: {arm: a, because: b}}", "third is no stage"),
        ("second.yaml", "none.yaml", "none.yaml: no such study"),
        ("second.yaml", "first.yaml", "is first, as a stage before it"),
        ("second.yaml", "{study: second.yaml, rank: a.b}", "rank is no field; expected one of"),
        ("second.yaml", "{study: weights.yaml, ranks: a.b}", "which has mixtures"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(folder, old, new, words):
    from stillroom.study.search.form import load_search

    path = folder / "search.yaml"
    path.write_text(SEARCH.replace(old, new))
    with pytest.raises(RecipeError, match=words):
        load_search(path)
