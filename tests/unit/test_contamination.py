"""The verb `contamination`: datasets of every form, benchmarks at hand or not, and its report."""

import json

import polars as pl
import pytest
from click.testing import CliRunner

from stillroom.cli import cli
from stillroom.errors import StillroomError
from stillroom.steps.decontaminate import report

ITEMS = [
    "A train leaves at noon and goes 60 km/h; how far is it at three o'clock?",
    "A hen lays an egg and a half in a day and a half. How many eggs in a week?",
]
CLEAN = "What is the capital of the country in which the river Rhine begins its way?"
TWIN = "A train leaves at noon and goes 75 km/h; how far is it at four o'clock?"


@pytest.fixture
def bench(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in ITEMS))
    return path


@pytest.fixture
def look(bench):
    """Run the verb on a dataset, and return its JSON."""

    def go(dataset, *more, status=0, against=bench):
        arguments = ["contamination", str(dataset), "--against", str(against), "--json", *more]
        result = CliRunner().invoke(cli, arguments)
        if isinstance(result.exception, StillroomError):
            raise result.exception
        assert result.exit_code == status, result.output
        return json.loads(result.stdout)

    return go


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(question, role="from", text="value"):
    words = {"from": ("system", "human", "gpt"), "role": ("system", "user", "assistant")}[role]
    said = zip(words, ("Think.", question, ITEMS[0]), strict=True)
    return [{role: r, text: t} for r, t in said]


def test_report_counts_rows_items_and_methods_and_quotes_both_sides(look, tmp_path):
    data = lines(tmp_path / "d.jsonl", *({"question": q} for q in (CLEAN, TWIN, ITEMS[0], TWIN)))
    found = look(data)
    assert (found["rows"], found["contaminated"], found["unread"]) == (4, 3, 0)
    bench = found["benchmarks"]["bench"]
    assert (bench["items"], bench["items_asked"], bench["rows"]) == (2, 1, 3)
    assert bench["by_method"] == {"indel": 3, "ngram": 1}
    best = bench["examples"][0]
    assert (best["row"], best["score"], best["item"]) == (2, 100.0, "bench:0")
    assert best["question"] == best["quote"] == ITEMS[0]


@pytest.mark.parametrize(
    "record",
    [
        {"question": ITEMS[0]},
        {"problem": ITEMS[0], "messages": []},
        {"messages": turns(ITEMS[0], "role", "content")},
        {"conversations": turns(ITEMS[0])},
        {"prompt": turns(ITEMS[0], "role", "content")[1:2]},
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_question_is_found_in_every_usual_form(look, tmp_path, record, form):
    folder = tmp_path / "set"
    folder.mkdir()
    name = next(iter(record))
    clean = {k: CLEAN if isinstance(v, str) else turns(CLEAN, *list(v[0])[:2]) if v else []
             for k, v in record.items()}  # fmt: skip
    if form == "jsonl":
        lines(folder / "d.jsonl", record, clean)
    else:
        pl.DataFrame([record, clean]).select(name).write_parquet(folder / "d.parquet")
    found = look(folder)
    assert (found["rows"], found["contaminated"]) == (2, 1)
    assert found["benchmarks"]["bench"]["examples"][0]["file"] == f"d.{form}"


def test_answers_that_quote_an_item_do_not_count(look, tmp_path):
    data = lines(tmp_path / "d.jsonl", {"conversations": turns(CLEAN)})
    assert look(data)["contaminated"] == 0


def test_folder_of_ours_is_read_from_its_data(look, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "stillroom.json").write_text("{}")
    pl.DataFrame({"question": [ITEMS[1]]}).write_parquet(tmp_path / "data" / "train-0.parquet")
    assert look(tmp_path)["contaminated"] == 1


def test_batches_do_not_change_the_report(look, tmp_path, monkeypatch):
    rows = [{"question": [CLEAN, TWIN, *ITEMS][i % 4]} for i in range(23)]
    data = lines(tmp_path / "d.jsonl", *rows)
    whole = look(data)
    monkeypatch.setattr(report, "BATCH", 5)
    assert look(data) == whole
    pl.DataFrame(rows).write_parquet(tmp_path / "d.parquet")
    other = look(tmp_path / "d.parquet")
    assert other["contaminated"] == whole["contaminated"] == 17
    assert [e["row"] for e in other["benchmarks"]["bench"]["examples"]] == [2, 3, 6]


def test_row_that_asks_two_benchmarks_counts_for_both(look, tmp_path):
    lines(tmp_path / "more.jsonl", {"question": ITEMS[0] + " Say."})
    data = lines(tmp_path / "d.jsonl", {"question": ITEMS[0]})
    found = look(data, "--against", f"{tmp_path}/more.jsonl")
    assert found["contaminated"] == 1
    assert {n: b["rows"] for n, b in found["benchmarks"].items()} == {"bench": 1, "more": 1}


def test_rows_without_a_question_are_counted_apart(look, tmp_path):
    data = lines(
        tmp_path / "d.jsonl", {"question": ITEMS[0]}, {"question": None}, {"question": " "}
    )
    data.write_text(data.read_text() + "{torn\n")
    found = look(data)
    assert (found["rows"], found["unread"]) == (1, 3)


def test_fail_has_its_own_status(look, tmp_path):
    look(lines(tmp_path / "d.jsonl", {"question": ITEMS[0]}), "--fail", status=3)
    look(lines(tmp_path / "d.jsonl", {"question": CLEAN}), "--fail", status=0)


def test_methods_are_those_that_are_asked_for(look, tmp_path):
    data = lines(tmp_path / "d.jsonl", {"question": TWIN})
    assert look(data, "--indel", "75")["contaminated"] == 1
    assert look(data, "--indel", "99")["contaminated"] == 0
    assert look(data, "--ngram", "13")["contaminated"] == 0
    assert look(data, "--ngram", "5")["contaminated"] == 1


def test_text_report_is_readable_and_shows_no_control_characters(bench, tmp_path):
    data = lines(tmp_path / "d.jsonl", {"question": ITEMS[0] + "\x1b[31m"})
    result = CliRunner().invoke(cli, ["contamination", str(data), "--against", str(bench)])
    assert "1 of 1 rows (100%) ask a benchmark's item" in result.stdout
    assert "d.jsonl:0 asks bench:0 (indel" in result.stdout
    assert "\x1b" not in result.stdout


def test_local_copy_of_a_known_benchmark(look, tmp_path, bench, monkeypatch):
    data = lines(tmp_path / "d.jsonl", {"question": ITEMS[0]})
    found = look(data, "--source", f"aime24={bench}", against="aime24")
    assert found["benchmarks"]["aime24"]["rows"] == 1
    (tmp_path / "copies").mkdir()
    bench.rename(tmp_path / "copies" / "math500.jsonl")
    monkeypatch.setenv("STILLROOM_BENCHMARKS", f"{tmp_path}/copies")
    assert look(data, against="math500")["benchmarks"]["math500"]["rows"] == 1


def test_benchmarks_that_are_out_of_reach_are_all_named(look, tmp_path, bench):
    data = lines(tmp_path / "d.jsonl", {"question": ITEMS[0]})
    gone = ["--against", f"{tmp_path}/gone.jsonl", "--against", f"{tmp_path}/lost.jsonl"]
    with pytest.raises(StillroomError, match=r"(?s)gone\.jsonl.*lost\.jsonl.*2 of 3 benchmarks"):
        look(data, *gone)
    found = look(data, *gone, "--available")
    assert set(found["missing"]) == {"gone", "lost"}
    assert found["contaminated"] == 1


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (lambda p: p / "gone", (), "gone: no such file or folder"),
        (lambda p: p, (), "no files of rows"),
        (lambda p: lines(p / "d.jsonl", {"text": "x"}), (), "no column question or problem"),
        (lambda p: lines(p / "d.jsonl", {"question": "x"}), ("--column", "ask"), "no column ask"),
        (lambda p: lines(p / "d.jsonl", {"question": ""}), (), "no questions in 1 rows"),
        (lambda p: lines(p / "d.txt", {"question": "x"}), (), r"unknown ending '\.txt'"),
    ],
)
def test_bad_datasets_get_one_clear_message(look, tmp_path, make, more, message):
    (tmp_path / "set").mkdir()
    with pytest.raises(StillroomError, match=message):
        look(make(tmp_path / "set"), *more)


def test_broken_and_odd_parquet_are_named(look, tmp_path):
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StillroomError, match=r"d\.parquet: cannot be read as Parquet"):
        look(tmp_path / "d.parquet")
    pl.DataFrame({"question": [[1, 2]]}).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(StillroomError, match=r"expected texts, or lists of messages"):
        look(tmp_path / "e.parquet")


@pytest.mark.data
def test_real_mix_asks_real_benchmarks(look, data):
    mix = data / "fixtures" / "deepscaler_40k.jsonl.zst"
    copy = f"math500={data}/benchmarks/math500.jsonl.zst"
    found = look(mix, "--ngram", "13", "--source", copy, against="math500")
    assert found["rows"] == 39_808
    assert 7 <= found["contaminated"] < 4_000
