"""Keys, reuse, early cut-off, and plans that say why."""

import json
import os
import shutil

import pytest
from tests.kitchen import Kitchen, drops, rows

from stillroom.errors import StoreError
from stillroom.recipe.load import read_recipe
from stillroom.recipe.make import make
from stillroom.run.runner import Built, Watcher
from stillroom.store.gc import find_garbage, using
from stillroom.store.store import Store

QUESTIONS = [
    {"question": "What is 2+2?", "reference": "4", "level": 1},
    {"question": "what is  2+2?", "reference": "4", "level": 2},
    {"question": "What is 3*5?", "reference": "15", "level": 3},
    {"question": "Name a prime above 100.", "reference": None, "level": 4},
]


@pytest.fixture
def kitchen(tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS))
    return Kitchen(tmp_path / "store", sources={"questions": str(file)})


SOURCE = "- source: {file: questions.jsonl, columns: {level: integer}}\n"


def recipe(*steps: str) -> str:
    lines = "".join(f"    {line}\n" for step in [SOURCE.strip(), *steps] for line in [step])
    return f"name: test\ndomains:\n  math:\n{lines}"


def test_second_run_builds_nothing_and_gives_the_same_rows(kitchen):
    first = rows(kitchen.run(recipe("- dedup: exact"))["math"])
    second = rows(kitchen.run(recipe("- dedup: exact"))["math"])
    assert kitchen.fresh() == []
    assert first == second
    assert [r["question"] for r in first] == [QUESTIONS[i]["question"] for i in (0, 2, 3)]


def test_changed_field_rebuilds_its_step_and_what_reads_it(kitchen):
    steps = ["- keep: {where: {level: {max: 3}}}", "- dedup: exact"]
    kitchen.run(recipe(*steps))
    kitchen.run(recipe("- keep: {where: {level: {max: 2}}}", "- dedup: exact"))
    assert kitchen.fresh() == ["math.keep", "math.dedup"]


def test_change_that_leaves_rows_as_they_were_cuts_off_early(kitchen):
    kitchen.run(recipe("- keep: {where: {level: {max: 4}}}", "- dedup: exact"))
    kitchen.run(recipe("- keep: {where: {level: {max: 99}}}", "- dedup: exact"))
    assert kitchen.fresh() == ["math.keep"]


def test_new_column_upstream_leaves_steps_that_do_not_read_it(kitchen):
    kitchen.run(recipe("- dedup: exact"))
    kitchen.run(recipe("- label: length", "- dedup: exact"))
    assert kitchen.fresh() == ["math.label"]


def test_order_of_drops_does_not_matter_to_what_follows(kitchen):
    low, high = "- keep: {where: {level: {min: 2}}}", "- keep: {where: {level: {max: 3}}}"
    label = "- label: length"
    kitchen.run(recipe(low, high.replace("keep:", "keep:") + "\n      as: second", label))
    kitchen.run(recipe(high, low + "\n      as: second", label))
    assert "math.label" not in kitchen.fresh()


def test_store_can_be_moved(kitchen, tmp_path):
    kitchen.run(recipe("- dedup: exact"))
    shutil.move(kitchen.root, tmp_path / "elsewhere")
    moved = Kitchen(tmp_path / "elsewhere", sources=kitchen.sources)
    moved.run(recipe("- dedup: exact"))
    assert moved.fresh() == []


def test_changed_file_is_seen_by_its_content_not_its_time(kitchen, tmp_path):
    kitchen.run(recipe())
    file = tmp_path / "questions.jsonl"
    file.touch()
    kitchen.run(recipe())
    assert kitchen.fresh() == []
    file.write_text(file.read_text() + '{"question": "What is 1+1?"}\n')
    kitchen.run(recipe())
    assert kitchen.fresh() == ["math.source"]


def test_drops_name_reason_and_witness(kitchen):
    table = kitchen.run(recipe("- dedup: exact"))["math"]
    (drop,) = drops(kitchen.built[-1]).iter_rows(named=True)
    survivor = rows(table, "id", "question")[0]
    assert drop["reason"] == "duplicate"
    assert drop["witness"] == survivor["id"]
    assert survivor["question"] == "What is 2+2?"


def test_plan_tells_cached_to_build_and_waiting(kitchen):
    kitchen.run(recipe("- dedup: exact"))
    changed = recipe("- keep: {where: {level: {min: 2}}}", "- dedup: exact", "- take: 1")
    states = [(p.path, p.state, p.rows) for p in kitchen.plan(changed)]
    assert states == [
        ("math.source", "cached", 4),
        ("math.keep", "to build", None),
        ("math.dedup", "waiting", None),
        ("math.take", "waiting", None),
    ]


def test_plan_names_the_field_that_changed(kitchen):
    kitchen.run(recipe("- take: 3"))
    (*_, planned) = kitchen.plan(recipe("- take: {n: 2, seed: 1}"))
    assert planned.why == ("n 3 → 2", "seed 42 → 1")


def test_plan_names_the_input_that_changed(kitchen, tmp_path):
    kitchen.run(recipe())
    (tmp_path / "questions.jsonl").write_text('{"question": "Other?"}\n')
    (planned,) = kitchen.plan(recipe())
    assert planned.state == "to build"
    assert planned.why == ("its input has other rows",)


def test_torn_shard_is_named_and_not_used(kitchen):
    kitchen.run(recipe())
    (shard,) = (kitchen.root / "artifacts" / "source").glob("*/*.parquet")
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(StoreError, match=str(shard)):
        kitchen.run(recipe())


def test_edited_shard_of_the_same_size_is_named_and_not_used(kitchen):
    kitchen.run(recipe())
    (shard,) = (kitchen.root / "artifacts" / "source").glob("*/*.parquet")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="torn or was edited"):
        kitchen.run(recipe())


def test_missing_manifest_is_named(kitchen):
    kitchen.run(recipe())
    (manifest,) = (kitchen.root / "artifacts" / "source").glob("*/manifest.json")
    manifest.unlink()
    with pytest.raises(StoreError, match=r"no manifest\.json in a committed artifact"):
        kitchen.run(recipe())


def test_gc_spares_what_a_run_under_way_has_made(tmp_path):
    text = "name: r\ndomains: {math: [{source: {shipped: word_problems}}, {dedup: exact}]}\n"
    work = Kitchen(tmp_path / "store")
    garbage = []

    class Collector(Watcher):
        def done(self, built: Built) -> None:
            garbage.extend(find_garbage(work.store).artifacts)

    make(
        read_recipe(text), text=text, store=work.store, rt=work.runtime, out=tmp_path / "out",
        watcher=Collector(),
    )  # fmt: skip
    assert garbage == []
    assert len(list(work.store.artifacts())) == 2


def stopped(store, name, *used):
    """Stop a study that used some artifacts."""
    with using(store, name) as use:
        for step, key in used:
            use(step, key)
        raise KeyboardInterrupt


def test_gc_spares_what_studies_used_and_trainings_that_were_submitted(tmp_path):
    store = Store(tmp_path)
    keys = [("answer", letter) for letter in "abcd"]
    for step, key in keys:
        store.path(step, key).mkdir(parents=True)
    assert len(find_garbage(store).artifacts) == 4
    with pytest.raises(KeyboardInterrupt):
        stopped(store, "one", keys[0])
    with using(store, "one") as use:
        use(*keys[1])
        use(*keys[1])
        # Until the study is through, what its last run made is spared too.
        assert [path.name for path in find_garbage(store).artifacts] == ["c", "d"]
    with using(store, "two") as use:
        use(*keys[2])
    assert [path.name for path in find_garbage(store).artifacts] == ["a", "d"]
    for name in ("student-a", "student-b"):
        (store.root / "building" / name).mkdir(parents=True)
    (store.root / "building" / "student-a" / "submitted").touch()
    assert [path.name for path in find_garbage(store).unfinished] == ["student-b"]


def test_kill_before_the_artifact_is_published_keeps_its_shards(kitchen, monkeypatch):
    def killed(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.rename", lambda s, t: killed(s, t) if s.is_dir() else
                      os.rename(s, t))  # noqa: PTH104  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            kitchen.run(recipe())
    (workshop,) = (kitchen.root / "building").iterdir()
    shards = {p.name: p.stat().st_mtime_ns for p in workshop.glob("*.parquet")}
    kitchen.run(recipe())
    (artifact,) = (kitchen.root / "artifacts" / "source").iterdir()
    assert {p.name: p.stat().st_mtime_ns for p in artifact.glob("*.parquet")} == shards
    assert sorted(p.suffix for p in artifact.iterdir() if p.name != "manifest.json") == [".parquet"]
