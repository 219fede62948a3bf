"""Reading questions: formats, broken records, references, ids, overrides."""

import gzip
import json

import polars as pl
import pytest
import zstandard
from tests.kitchen import Kitchen, rows

from stillroom.errors import SourceError
from stillroom.steps.source import files, generators
from stillroom.steps.source.files import sha256_of
from stillroom.steps.source.source import Source

ROWS = [
    {"problem": "What is 2+2?", "solution": "2+2 is \\boxed{4}", "n": "7", "lic": "mit"},
    {"problem": "What is 3+3?", "solution": "#### 6", "n": "x", "lic": "cc0-1.0"},
]


def source(file, **fields):
    return "- source: " + json.dumps({"file": str(file), "question": "problem", **fields})


def jsonl(content=ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in content).encode()


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "store")


def write(path, suffix):
    """Write ROWS in the format of an ending."""
    file = path / f"questions{suffix}"
    match suffix:
        case ".jsonl":
            file.write_bytes(jsonl())
        case ".jsonl.gz":
            file.write_bytes(gzip.compress(jsonl()))
        case ".jsonl.zst":
            file.write_bytes(zstandard.compress(jsonl()))
        case ".json":
            file.write_text(json.dumps(ROWS))
        case ".csv":
            pl.DataFrame(ROWS).write_csv(file)
        case ".parquet":
            pl.DataFrame(ROWS).write_parquet(file)
    return file


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".csv", ".parquet"]
)
def test_every_format_gives_the_same_rows(kitchen, tmp_path, suffix):
    file = write(tmp_path, suffix)
    table = kitchen.chain(source(file, reference="solution", reference_in="last_boxed"))
    (tmp_path / "again").mkdir()
    plain = kitchen.chain(
        source(write(tmp_path / "again", ".jsonl"), reference="solution", reference_in="last_boxed")
    )
    assert rows(table) == rows(plain)
    assert rows(table, "question", "reference", "row")[0] == {
        "question": "What is 2+2?",
        "reference": "4",
        "row": 0,
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_column_reference_is_read_in_every_format_without_being_named(kitchen, tmp_path, suffix):
    frame = pl.DataFrame({"problem": ["What is 2+2?"], "reference": ["4"]})
    file = tmp_path / f"q{suffix}"
    writers = {
        ".jsonl": frame.write_ndjson,
        ".csv": frame.write_csv,
        ".parquet": frame.write_parquet,
    }
    writers[suffix](file)
    assert [r["reference"] for r in rows(kitchen.chain(source(file)))] == ["4"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_list_with_one_answer_is_that_answer_and_of_several_none_is_taken(
    kitchen, tmp_path, suffix
):
    known = [["\\frac{1}{2}"], ["2", "3"], [], None]
    frame = pl.DataFrame({"problem": [f"{i}?" for i in range(4)], "final": known})
    file = tmp_path / f"q{suffix}"
    (frame.write_parquet if suffix == ".parquet" else frame.write_ndjson)(file)
    table = kitchen.chain(source(file, reference="final"))
    assert [r["reference"] for r in rows(table)] == ["\\frac{1}{2}", None, None, None]
    assert kitchen.built[-1].artifact.manifest.notes == [
        "1 values of the column reference are not of type text or a list of one; they are null."
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    "fields", [{"columns": ["n", "levle"]}, {"licence": {"column": "levle"}}], ids=str
)
def test_column_that_a_table_lacks_is_an_error(kitchen, tmp_path, suffix, fields):
    with pytest.raises(SourceError, match="no row has a column levle"):
        kitchen.chain(source(write(tmp_path, suffix), **fields))


def test_column_that_objects_lack_is_null_there(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(jsonl([{"problem": "a?"}, {"problem": "b?", "level": "2"}]))
    table = kitchen.chain(source(file, columns=["level"]))
    assert [r["level"] for r in rows(table, "level")] == [None, "2"]


def test_lists_and_mappings_become_json(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(
        jsonl([{"problem": "a?", "x": [True, None]}, {"problem": "b?", "x": {"ä": 1}}])
    )
    table = kitchen.chain(source(file, columns=["x"]))
    assert [r["x"] for r in rows(table, "x")] == ["[true, null]", '{"ä": 1}']


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("integer", ["3", "3.0", '"4"', "true"], [3, 3, 4, 1]),
        ("integer", ["3.7", "1e400", "NaN", "1" * 30, '"x"', "null"], [None] * 6),
        ("number", ["3", '"0.5"', "1e400"], [3.0, 0.5, float("inf")]),
        ("number", ["NaN", '"nan"', '"x"'], [None] * 3),
    ],
)
def test_number_that_is_not_of_its_type_is_null_and_counted(
    kitchen, tmp_path, kind, written, expected
):
    file = tmp_path / "q.jsonl"
    lines = [f'{{"problem": "{i}?", "n": {value}}}\n' for i, value in enumerate(written)]
    file.write_text("".join(lines))
    table = kitchen.chain(source(file, columns={"n": kind}))
    assert [r["n"] for r in rows(table, "n")] == expected
    n = sum(e is None and w != "null" for e, w in zip(expected, written, strict=True))
    assert kitchen.built[-1].artifact.manifest.notes == (
        [f"{n} values of the column n are not of type {kind}; they are null."] if n else []
    )


def test_reference_after_hashes(kitchen, tmp_path):
    file = write(tmp_path, ".jsonl")
    table = kitchen.chain(source(file, reference="solution", reference_in="after_hashes"))
    assert [r["reference"] for r in rows(table)] == ["2+2 is \\boxed{4}", "6"]


def test_first_column_that_is_there_is_taken(kitchen, tmp_path):
    file = write(tmp_path, ".jsonl")
    table = kitchen.chain(
        source(file).replace('"question": "problem"', '"question": ["q", "problem"]')
    )
    assert table.height == 2


def test_licence_per_row_and_typed_columns(kitchen, tmp_path):
    file = write(tmp_path, ".jsonl")
    table = kitchen.chain(source(file, licence={"column": "lic"}, columns={"n": "integer"}))
    assert rows(table, "licence", "n") == [
        {"licence": "mit", "n": 7},
        {"licence": "cc0-1.0", "n": None},
    ]
    (note,) = kitchen.built[-1].artifact.manifest.notes
    assert note == "1 values of the column n are not of type integer; they are null."


def test_broken_records_become_counted_drops(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(
        jsonl() + b"{torn\n" + b'{"problem": "\xff"}\n' + b"[1]\n\n" + b'{"problem": " "}\n'
    )
    kitchen.chain(source(file))
    manifest = kitchen.built[-1].artifact.manifest
    assert manifest.drops == {
        "broken_json": 1,
        "invalid_utf8": 1,
        "no_question": 1,
        "not_an_object": 1,
    }
    assert manifest.rows_in == manifest.rows_out + sum(manifest.drops.values()) == 6


def test_repeated_rows_get_ids_of_their_own(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(jsonl([ROWS[0]] * 3))
    ids = [r["id"] for r in rows(kitchen.chain(source(file)))]
    assert len(set(ids)) == 3


def test_ids_do_not_depend_on_the_order_of_other_rows(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(jsonl())
    forward = {r["question"]: r["id"] for r in rows(kitchen.chain(source(file)))}
    file.write_bytes(jsonl(ROWS[::-1]))
    backward = {r["question"]: r["id"] for r in rows(kitchen.chain(source(file)))}
    assert forward == backward


def test_ten_megabyte_question_passes(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(jsonl([{"problem": "x" * 10_000_000}, ROWS[0]]))
    assert [len(r["question"]) for r in rows(kitchen.chain(source(file)))] == [10_000_000, 12]


def test_lone_surrogate_is_shown_as_a_question_mark(kitchen, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b'{"problem": "bad \\ud800 text"}\n')
    assert rows(kitchen.chain(source(file)))[0]["question"] == "bad ? text"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "no rows"),
        ("broken.parquet", b"PAR1 not really", "cannot be read as .parquet"),
        ("torn.jsonl.gz", gzip.compress(jsonl())[:-12], "cannot be read as .jsonl"),
        ("torn.jsonl.zst", zstandard.compress(jsonl())[:-3], "ends inside a Zstandard frame"),
        ("bad.jsonl", b"nonsense\n", "none of 1 rows could be read"),
        ("list.json", b'{"a": 1}', "expected a list of objects"),
        ("file.txt", b"hello", "unknown ending '.txt'"),
        ("other.jsonl", b'{"text": "hi"}\n', "no column problem; its columns are text"),
    ],
)
def test_unreadable_source_is_one_clear_message(kitchen, tmp_path, name, content, message):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        kitchen.chain(source(file))


def test_changed_file_is_refused_where_its_sum_is_pinned(kitchen, tmp_path):
    file = write(tmp_path, ".jsonl")
    with pytest.raises(SourceError, match="but the recipe pins 0000"):
        kitchen.chain(source(file, sha256="0" * 64))


def test_override_stands_in_for_a_hub_source(tmp_path):
    file = write(tmp_path, ".jsonl")
    kitchen = Kitchen(tmp_path / "store", sources={"gsm": str(file)})
    hub = {"hub": "a/b", "revision": "0" * 40, "files": "*.parquet", "question": "problem"}
    table = kitchen.chain("- source: " + json.dumps(hub) + "\n  as: gsm")
    assert {r["source"] for r in rows(table)} == {"gsm"}
    assert kitchen.built[-1].artifact.manifest.notes == [
        "gsm: a local file stood in for what the recipe names (--source)."
    ]


def test_file_that_stands_in_for_our_own_rows_is_not_under_our_licence(tmp_path):
    own = "- source: {shipped: word_problems}\n  as: words"
    assert {r["licence"] for r in rows(Kitchen(tmp_path / "one").chain(own))} == {"apache-2.0"}
    file = write(tmp_path, ".jsonl")
    kitchen = Kitchen(tmp_path / "two", sources={"words": str(file)})
    columns = "- source: {shipped: word_problems, question: problem}\n  as: words"
    assert {r["licence"] for r in rows(kitchen.chain(columns))} == {None}


def test_procedural_questions_are_of_the_recipes_domain(kitchen):
    table = kitchen.chain("- source: {procedural: {n: 60}}", domain="science")
    from stillroom.families import FAMILIES

    assert {FAMILIES[r["family"]].domain for r in rows(table)} == {"science"}
    assert all(r["reference"] for r in rows(table))


def test_shipped_questions_are_of_the_recipes_domain(kitchen):
    counts = {
        domain: kitchen.chain("- source: {shipped: word_problems}", domain=domain).height
        for domain in ("math", "science", "code", "everything")
    }
    assert counts == {"math": 120, "science": 50, "code": 30, "everything": 200}


def test_reasoning_gym_task(kitchen):
    pytest.importorskip("reasoning_gym")
    table = kitchen.chain("- source: {gym: {task: chain_sum, n: 5, seed: 1}}")
    assert table.height == 5
    with pytest.raises(SourceError, match="no_such_task"):
        kitchen.chain("- source: {gym: {task: no_such_task, n: 5}}")


def test_question_of_a_conversation_is_the_users_first_message(tmp_path):
    turns = [[("system", "Think."), ("user", "Why?"), ("user", "And now?")], [("assistant", "So.")]]
    path = tmp_path / "chat.jsonl"
    chats = [[{"role": r, "content": c} for r, c in chat] for chat in turns]
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    pl.read_ndjson(path).write_parquet(tmp_path / "chat.parquet")
    for file in (path, tmp_path / "chat.parquet"):
        kitchen = Kitchen(tmp_path / file.suffix)
        table = kitchen.chain(f"- source: {{file: {file}, question: messages}}")
        assert [row["question"] for row in rows(table)] == ["Why?"]
        assert kitchen.built[0].artifact.manifest.drops == {"no_question": 1}


def test_another_release_of_a_generator_is_another_source(kitchen, monkeypatch):
    runtime = kitchen.runtime
    made = [Source(procedural={"n": 1}), Source(gym={"task": "chain_sum", "n": 1})]
    before = [source.outside(runtime) for source in made]
    monkeypatch.setattr(generators, "VERSION", generators.VERSION + 1)
    monkeypatch.setattr(generators, "version", lambda name: "another")
    after = [source.outside(runtime) for source in made]
    assert None not in before
    assert not set(before) & set(after)


def test_a_large_file_is_digested_once_until_it_changes(tmp_path, monkeypatch):
    file, read = tmp_path / "large", []
    digest = files._digest
    monkeypatch.setattr(files, "_digest", lambda path: read.append(path) or digest(path))
    file.write_bytes(b"a" * (1 << 20))
    first = sha256_of(file)
    assert sha256_of(file) == first
    assert len(read) == 1
    with file.open("ab") as end:
        end.write(b"b")
    assert sha256_of(file) != first
    small = tmp_path / "small"
    small.write_bytes(b"a")
    assert sha256_of(small) == sha256_of(small)
    assert len(read) == 4
