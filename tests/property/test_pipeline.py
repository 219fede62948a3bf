"""What holds for every chain of steps on every input."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.kitchen import Kitchen, rows

from stillroom.text.normal import normal_form

# Few words, so that repeats are common; some odd characters, so that text is not just ASCII.
QUESTION = st.text(alphabet="ab ?é²\n", max_size=8)
RECORD = st.fixed_dictionaries(
    {"question": QUESTION},
    optional={
        "reference": st.one_of(st.none(), st.text("01", max_size=2)),
        "n": st.one_of(st.none(), st.integers(-5, 5)),
        "kind": st.sampled_from("xyz"),
    },
)
STEP = st.sampled_from(
    [
        "- dedup: exact",
        "- take: 3",
        "- take: {n: 2, per: kind}",
        "- label: length",
        "- label: rules",
        "- keep: {where: {n: {min: 0}}}",
        "- keep: {where: {kind: [x, y]}}",
        "- keep: {top: 4, by: n}",
        "- keep: {lowest: 2, by: n, per: kind}",
        "- decontaminate: {against: bench, ngram: 2}",
    ]
)
SLOW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def kitchen(folder: str, records) -> Kitchen:
    root = Path(folder)
    lines = [json.dumps(r) + "\n" for r in records]
    (root / "questions.jsonl").write_text("".join(lines) + '{"question": "seed?"}\n')
    (root / "bench.jsonl").write_text('{"id": "1", "question": "a b"}\n')
    sources = {n: str(root / f"{n}.jsonl") for n in ("questions", "bench")}
    return Kitchen(root / "store", sources=sources)


def chain(steps) -> str:
    named = [f"{step}\n  as: s{i}" for i, step in enumerate(steps)]
    source = "- source: {file: questions.jsonl, columns: {n: integer, kind: text}}"
    return "\n".join([source, *named])


@SLOW
@given(st.lists(RECORD, max_size=12), st.lists(STEP, max_size=5))
def test_rows_in_are_rows_out_plus_drops_at_every_step(records, steps):
    with tempfile.TemporaryDirectory() as folder:
        work = kitchen(folder, records)
        table = work.chain(chain(steps))
        alive: set[str] = set()
        for built in work.built:
            manifest = built.artifact.manifest
            assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values())
            for shard in manifest.shards:
                gone = shard.data if manifest.delta == "drops" else shard.lost
                ids = _ids(built, gone)
                assert len(set(ids)) == len(ids)
                if manifest.delta == "drops":
                    assert set(ids) <= alive
                    alive -= set(ids)
                elif manifest.delta == "rows":
                    alive |= set(_ids(built, shard.data))
            assert len(alive) == manifest.rows_out
        assert {r["id"] for r in rows(table, "id")} == alive
        assert table.height == len(alive)


def _ids(built, file) -> list[str]:
    import polars as pl

    if file is None:
        return []
    return pl.read_parquet(built.artifact.path / file.name)["id"].to_list()


@SLOW
@given(st.lists(RECORD, max_size=12))
def test_exact_dedup_keeps_each_normal_form_once_and_is_idempotent(records):
    with tempfile.TemporaryDirectory() as folder:
        work = kitchen(folder, records)
        before = work.chain(chain([]))
        once = work.chain(chain(["- dedup: exact"]))
        twice = work.chain(chain(["- dedup: exact", "- dedup: exact"]))
        assert rows(once) == rows(twice)
        forms = [normal_form(r["question"]) for r in rows(once)]
        assert len(set(forms)) == len(forms)
        assert set(forms) == {normal_form(r["question"]) for r in rows(before)}
        order = [r["id"] for r in rows(before)]
        kept = [r["id"] for r in rows(once)]
        assert kept == [i for i in order if i in set(kept)]


@SLOW
@given(st.lists(RECORD, max_size=12), st.lists(STEP, max_size=4))
def test_second_run_finds_everything_and_gives_equal_rows(records, steps):
    with tempfile.TemporaryDirectory() as folder:
        work = kitchen(folder, records)
        first = rows(work.chain(chain(steps)))
        assert rows(work.chain(chain(steps))) == first
        assert work.fresh() == []


@SLOW
@given(st.lists(RECORD, min_size=1, max_size=12, unique_by=lambda r: r["question"]))
def test_samples_do_not_depend_on_the_order_of_the_source(records):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        forward = kitchen(one, records).chain(chain(["- take: 4"]))
        backward = kitchen(two, records[::-1]).chain(chain(["- take: 4"]))
        assert {r["id"] for r in rows(forward)} == {r["id"] for r in rows(backward)}


def test_keys_and_digests_do_not_depend_on_the_process():
    code = """
import sys
from pathlib import Path
from tests.kitchen import Kitchen
work = Kitchen(Path(sys.argv[1]))
work.chain('''
- mix: {a: [{source: {shipped: word_problems}}], b: [{source: {procedural: {n: 50}}}]}
- dedup: exact
- label: rules
- take: 30
''')
for b in work.built:
    print(b.path, b.artifact.manifest.key, [f.digest for f in b.artifact.files()])
"""
    outputs = set()
    for seed in ("0", "1", "2"):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", code, folder],
                env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            outputs.add(done.stdout)
    assert len(outputs) == 1
