"""Writing a dataset folder: rows, forms, replacement, and what is refused."""

import json
from dataclasses import replace

import datasets
import polars as pl
import pytest
from datasets import load_dataset
from tests.tables import (
    TEACHER,
    answer_table,
    keep,
    question_table,
    store_in,
    story_of,
    verify,
)

from stillroom.errors import ExportError
from stillroom.rows import Shape, dropped
from stillroom.steps.base import Misfit
from stillroom.steps.export.export import Export, write_dataset
from stillroom.steps.export.record import Record

RECIPE = "name: sums\ndomains:\n  math: []\n"


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


@pytest.fixture
def load(tmp_path):
    datasets.disable_progress_bars()

    def load(path, *args, **options):
        return load_dataset(path, *args, cache_dir=str(tmp_path / "hf"), **options)["train"]

    return load


def write(folder, tables, *, recipe=RECIPE, story=None, **export):
    if not isinstance(tables, dict):
        tables = {"math": tables}
    return write_dataset(
        folder,
        name="sums",
        recipe_text=recipe,
        tables=tables,
        story=story_of(tables) if story is None else story,
        export=Export(**export),
    )


def read(folder):
    return pl.read_parquet(folder / "data" / "*.parquet")


def content(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def verified(store, n=6, *, shard=4, **options):
    return verify(store, answer_table(store, question_table(store, n, shard=shard), **options))


def test_export_writes_columns_in_order_and_keeps_labels(store, tmp_path):
    questions = question_table(store, extra={"difficulty": (pl.Int64(), 7)})
    table = verify(store, answer_table(store, questions))
    summary = write(tmp_path / "out", table)
    rows = read(tmp_path / "out")
    assert rows.columns == [
        "id", "question_id", "domain", "source", "licence", "row", "teacher", "draw",
        "finish_reason", "prompt_tokens", "completion_tokens", "reference", "verdict", "extracted",
        "difficulty", "conversations",
    ]  # fmt: skip
    assert rows["id"].to_list() == table.scan("id").collect()["id"].to_list()
    assert rows["difficulty"].unique().to_list() == [7]
    assert summary.rows == rows.height == 12
    assert summary.written
    assert summary.bytes == sum(len(b) for n, b in content(summary.folder).items()) - len(
        (summary.folder / "stillroom.json").read_bytes()
    )


def test_export_sharegpt_holds_the_words_that_were_asked(store, tmp_path):
    table = verified(store, prefix="Solve.\n", suffix="\nBox it.")
    write(tmp_path / "out", table)
    assert read(tmp_path / "out")["conversations"][0].to_list() == [
        {"from": "human", "value": "Solve.\nWhat is 0 + 0?\nBox it."},
        {"from": "gpt", "value": "<think>\nI add.\n</think>\n\nIt is \\boxed{0}."},
    ]


def test_export_messages_with_reasoning_in_a_field(store, tmp_path):
    write(tmp_path / "out", verified(store), format="messages", think="field")
    assert read(tmp_path / "out")["messages"][0].to_list() == [
        {"role": "user", "content": "What is 0 + 0?", "reasoning_content": None},
        {"role": "assistant", "content": "It is \\boxed{0}.", "reasoning_content": "I add."},
    ]


def test_export_sharegpt_with_reasoning_in_a_column(store, tmp_path):
    write(tmp_path / "out", verified(store), think="field")
    rows = read(tmp_path / "out")
    assert rows["reasoning"].to_list() == ["I add."] * 12
    assert rows["conversations"][0][1] == {"from": "gpt", "value": "It is \\boxed{0}."}


@pytest.mark.parametrize("think", ["tags", "none"])
def test_export_of_an_answer_without_reasoning_has_no_tags(store, tmp_path, think):
    write(tmp_path / "out", verified(store, reasoning=None), format="messages", think=think)
    assert read(tmp_path / "out")["messages"][0][1]["content"] == "It is \\boxed{0}."


def test_export_none_leaves_the_reasoning_out(store, tmp_path):
    write(tmp_path / "out", verified(store), think="none")
    assert "I add" not in str(read(tmp_path / "out")["conversations"].to_list())


@pytest.mark.parametrize(("system", "speakers"), [(True, 3), (False, 2)])
def test_export_writes_the_system_prompt_only_when_asked(store, tmp_path, system, speakers):
    table = verified(store, model=TEACHER | {"system": "Be brief."})
    write(tmp_path / "out", table, system=system)
    turns = read(tmp_path / "out")["conversations"][0].to_list()
    assert len(turns) == speakers
    assert (turns[0] == {"from": "system", "value": "Be brief."}) is system


def test_export_of_questions_alone(store, tmp_path, load):
    write(tmp_path / "out", question_table(store))
    rows = load(str(tmp_path / "out"))
    assert rows.column_names == [
        "id", "domain", "source", "licence", "question", "reference", "row",
    ]  # fmt: skip
    assert rows[0]["question"] == "What is 0 + 0?"
    assert not (tmp_path / "out" / "lengths.svg").exists()


def test_export_leaves_dropped_rows_out(store, tmp_path):
    table = keep(store, verified(store), "verdict", "correct")
    write(tmp_path / "out", table)
    assert read(tmp_path / "out")["verdict"].unique().to_list() == ["correct"]


@pytest.mark.parametrize("form", ["sharegpt", "messages"])
def test_datasets_loads_the_folder_with_plain_types(store, tmp_path, load, form):
    labels = {"tags": (pl.List(pl.String), ["a"]), "hard": (pl.Boolean(), True)}
    table = verify(store, answer_table(store, question_table(store, extra=labels)))
    write(tmp_path / "out", table, format=form, think="field")
    rows = load(str(tmp_path / "out"))
    assert len(rows) == 12
    types = {name: str(feature) for name, feature in rows.features.items()}
    assert types["id"] == types["reference"] == "Value('string')"
    assert types["draw"] == "Value('int32')"
    assert types["hard"] == "Value('bool')"
    assert types["tags"] == "List(Value('string'))"
    turns = rows[0]["conversations" if form == "sharegpt" else "messages"]
    assert [list(turn.values())[1] for turn in turns] == ["What is 0 + 0?", "It is \\boxed{0}."]


def test_datasets_loads_the_bare_files(store, tmp_path, load):
    write(tmp_path / "out", verified(store))
    rows = load("parquet", data_files=str(tmp_path / "out" / "data" / "*.parquet"))
    assert len(rows) == 12
    assert rows[0]["conversations"][0] == {"from": "human", "value": "What is 0 + 0?"}


def test_export_joins_domains_and_fills_columns_that_one_lacks(store, tmp_path, load):
    science = question_table(store, 3, domain="science", source="camels")
    tables = {
        "math": verified(store),
        "science": answer_table(store, science, model=TEACHER | {"name": "other"}),
    }
    write(tmp_path / "out", tables)
    rows = load(str(tmp_path / "out"))
    assert rows["domain"][:] == ["math"] * 12 + ["science"] * 6
    assert set(rows["verdict"][12:]) == {None}
    assert set(rows["teacher"][12:]) == {"other"}


def test_export_splits_files_by_size_in_row_order(store, tmp_path):
    table = verified(store, 200, shard=60, pad=20_000)
    write(tmp_path / "one", table)
    write(tmp_path / "many", table, file_mb=1)
    names = sorted(p.name for p in (tmp_path / "many" / "data").iterdir())
    assert names == [f"train-{i:05}-of-00008.parquet" for i in range(8)]
    assert read(tmp_path / "many").equals(read(tmp_path / "one"))
    sizes = [
        pl.read_parquet(p)["conversations"].list.eval(
            pl.element().struct.field("value").str.len_bytes()
        ).list.sum().sum()
        for p in sorted((tmp_path / "many" / "data").iterdir())
    ]  # fmt: skip
    assert all(900_000 < size < 1_100_000 for size in sizes[:-1])


def test_export_is_the_same_byte_for_byte_in_another_store(tmp_path):
    for name in ("a", "b"):
        table = keep(store_in(tmp_path / name), verified(store_in(tmp_path / name)), "draw", 1)
        # What was measured differs from run to run, and must not show.
        stages = [
            replace(s, manifest=replace(s.manifest, measured={"seconds": name, "usd": 1.0}))
            for s in story_of({"math": table})
        ]
        write(tmp_path / name / "out", table, story=stages)
    first, second = content(tmp_path / "a" / "out"), content(tmp_path / "b" / "out")
    assert first == second
    assert set(first) == {
        "README.md", "data/train-00000-of-00001.parquet", "lengths.svg", "recipe.yaml",
        "stillroom.json",
    }  # fmt: skip
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_export_twice_writes_nothing(store, tmp_path):
    table = verified(store)
    first = write(tmp_path / "out", table)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    second = write(tmp_path / "out", table)
    assert replace(second, written=True) == first
    assert not second.written
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == times


@pytest.mark.parametrize(
    "change", [{"recipe": RECIPE + "# more\n"}, {"think": "none"}, {"title": "Sums"}]
)
def test_export_replaces_a_dataset_when_something_changed(store, tmp_path, change):
    table = verified(store)
    first = write(tmp_path / "out", table)
    second = write(tmp_path / "out", table, **change)
    assert second.written
    assert second.digest != first.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "store"]


def test_export_mends_a_dataset_that_lost_a_file(store, tmp_path):
    table = verified(store)
    write(tmp_path / "out", table)
    whole = content(tmp_path / "out")
    (tmp_path / "out" / "data" / "train-00000-of-00001.parquet").unlink()
    assert write(tmp_path / "out", table).written
    assert content(tmp_path / "out") == whole


def test_export_without_an_atomic_swap_gives_the_same(store, tmp_path, monkeypatch):
    monkeypatch.setattr("stillroom.steps.export.export._exchange", lambda one, other: False)
    write(tmp_path / "out", verified(store))
    write(tmp_path / "out", verified(store, 3))
    assert read(tmp_path / "out").height == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "store"]


def test_export_takes_back_a_dataset_that_a_kill_left_aside(store, tmp_path):
    table = verified(store)
    write(tmp_path / "out", table)
    (tmp_path / "out").rename(tmp_path / "out.replaced")
    assert not write(tmp_path / "out", table).written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "store"]


def test_export_through_a_link_replaces_what_it_points_at(store, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write(tmp_path / "out", verified(store))
    write(tmp_path / "out", verified(store, 3))
    assert (tmp_path / "out").is_symlink()
    assert read(tmp_path / "real").height == 6


def test_export_refuses_a_folder_that_is_not_its_own(store, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(ExportError, match=r"photos: no stillroom\.json in it; expected a dataset"):
        write(tmp_path / "photos", verified(store))
    assert content(tmp_path / "photos") == {"cat.jpg": b"cat"}
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"file: no stillroom\.json"):
        write(tmp_path / "file", verified(store))


def test_export_refuses_to_remove_files_of_others(store, tmp_path):
    write(tmp_path / "out", verified(store))
    (tmp_path / "out" / "notes.md").write_text("mine")
    with pytest.raises(ExportError, match=r"notes\.md is no part of the dataset"):
        write(tmp_path / "out", verified(store, 3))
    assert (tmp_path / "out" / "notes.md").exists()


def test_export_refuses_an_unreadable_record(store, tmp_path):
    write(tmp_path / "out", verified(store))
    (tmp_path / "out" / "stillroom.json").write_text("{")
    with pytest.raises(ExportError, match=r"stillroom\.json: unreadable"):
        write(tmp_path / "out", verified(store))


def test_export_of_no_rows_says_where_the_last_went(store, tmp_path):
    table = keep(store, verified(store), "verdict", "proved")
    with pytest.raises(ExportError) as caught:
        write(tmp_path / "out", table)
    assert str(caught.value) == (
        "sums: no rows are left to export. The last 12 rows went at math.keep (verdict is correct "
        "6, verdict is incorrect 4, verdict is unparsed 2). Loosen that step, or give it more rows."
    )
    assert not (tmp_path / "out").exists()


def test_export_clears_the_workplaces_of_killed_processes(store, tmp_path):
    litter = tmp_path / "out.partial-0123456789ab"
    (litter / "data").mkdir(parents=True)
    (litter / "data" / "00000.parquet").write_bytes(b"half")
    write(tmp_path / "out", verified(store))
    assert not litter.exists()


def test_export_columns_that_clash_are_a_misfit():
    answers = Shape("answers", {"id": pl.String(), "level": pl.Int64()})
    with pytest.raises(Misfit, match="column 'level' as String, another domain as Int64"):
        Export().columns({"a": answers, "b": Shape("answers", {"level": pl.String()})})
    with pytest.raises(Misfit, match="different kinds of rows"):
        Export().columns({"a": answers, "b": Shape("questions", {})})
    taken = answers.plus({"messages": pl.String()})
    assert "messages" in Export().columns({"a": taken})
    with pytest.raises(Misfit, match="'messages', which `export` writes itself"):
        Export(format="messages").columns({"a": taken})


def test_record_lists_digests_counts_and_keys(store, tmp_path):
    table = keep(store, verified(store), "verdict", "correct")
    write(tmp_path / "out", table)
    record = json.loads((tmp_path / "out" / "stillroom.json").read_text())
    assert record["verdicts"] == {"correct": 6}
    assert record["verdicts_of_all_answers"] == {"correct": 6, "incorrect": 4, "unparsed": 2}
    assert record["licences"] == [{"source": "sums", "licence": "mit", "rows": 6}]
    assert [stage["key"] for stage in record["stages"]] == [
        s.manifest.key for s in story_of({"math": table})
    ]
    read_back = Record.read(tmp_path / "out")
    assert not list(read_back.changed(tmp_path / "out"))
    assert read_back.digest == record["digest"]


def test_export_drops_of_sources_are_told(store, tmp_path):
    lost = dropped(["ab" * 16], "broken_json", witness="x.jsonl:3")
    table = verify(store, answer_table(store, question_table(store, lost=lost)))
    write(tmp_path / "out", table)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `math.source` | 7 | 6 | 1 `broken_json` |" in card
