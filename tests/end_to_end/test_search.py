"""Searches and promotion: winners go on, people may overrule, held-out benchmarks are counted."""

import json

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


@pytest.mark.slow
def test_winners_go_on_and_a_person_may_overrule(folder, capsys):
    out = folder / "out"
    run(folder, "search", str(folder / "search.yaml"), "--out", str(out))
    facts = json.loads((out / "results.json").read_text())
    first, second = facts["stages"]
    assert first["chosen"] == first["promoted"]
    # Nothing can be told apart after three steps of training, so the cheapest arm wins: one draw.
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
    report = (out / "report.md").read_text()
    assert "it is right" in report
    promoted = yaml.safe_load((out / "promoted.yaml").read_text())
    assert {"keep": {"where": {"verdict": "correct"}}, "as": "chosen"} in promoted["domains"][
        "math"
    ]


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


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rule: cheapest", "rule: luckiest", "rule"),
        ("rule: cheapest", "rules: best", "rules is no field"),
        ("rule: cheapest", "overrule: {third: {arm: a, because: b}}", "third is no stage"),
        ("second.yaml", "none.yaml", "none.yaml: no such study"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(folder, old, new, words):
    from stillroom.study.search import load_search

    path = folder / "search.yaml"
    path.write_text(SEARCH.replace(old, new))
    with pytest.raises(RecipeError, match=words):
        load_search(path)
