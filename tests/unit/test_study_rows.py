"""Rows of a student: the same number for every arm, drawn by seed, nested, repeated on request."""

import dataclasses
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import FakeModel, FakeModels, echo
from tests.kitchen import Kitchen

from stillroom.errors import RecipeError, StoreError
from stillroom.models.ledger import Ledger
from stillroom.store.store import Store
from stillroom.study.rows import Budget, draw
from stillroom.study.run import key_of
from stillroom.train.trainer import Job

RECIPE = """
name: test
models: {teacher: {name: some/model, max_tokens: 9}}
domains:
  math:
    - source: {procedural: {n: 30}}
    - answer
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    with Ledger(folder / "ledger.sqlite") as ledger:
        yield Kitchen(folder / "store", {}, FakeModels(FakeModel()), lambda: ledger).run(RECIPE)


def ids(drawn):
    return drawn.copies()["id"].to_list()


def test_as_many_rows_as_asked_for_by_seed(tables):
    ten = draw("a", tables, Budget(10, None, False), 0)
    again = draw("a", tables, Budget(10, None, False), 0)
    other = draw("a", tables, Budget(10, None, False), 1)
    assert ten.rows == 10
    assert ten.there == 30
    assert (ids(ten), ten.digest) == (ids(again), again.digest)
    assert set(ids(ten)) != set(ids(other))
    assert ten.digest != other.digest


@settings(max_examples=20)
@given(st.integers(1, 90), st.integers(1, 90))
def test_a_larger_budget_holds_a_smaller_one(tables, a, b):
    small, large = (draw("a", tables, Budget(n, None, True), 0).copies() for n in sorted((a, b)))
    both = small.join(large, on="id", how="left", suffix="_large")
    assert (both["copies"] <= both["copies_large"]).all()
    assert large["copies"].max() - large["copies"].min() <= 1
    assert small["copies"].sum() == min(a, b)


def test_too_few_rows_are_refused_unless_they_may_be_repeated(tables):
    with pytest.raises(RecipeError, match="arm a: its recipe makes 30 rows; expected 31"):
        draw("a", tables, Budget(31, None, False), 0)
    repeated = draw("a", tables, Budget(75, None, True), 0)
    assert repeated.rows == 75
    assert sorted(repeated.copies()["copies"].to_list()) == [2] * 15 + [3] * 15


def test_a_budget_of_tokens_is_met_by_the_row_that_crosses_it(tables):
    tokens = dict(tables["math"].scan("id", "completion_tokens").collect().iter_rows())
    drawn = draw("a", tables, Budget(None, 20, False), 0)
    spent = [tokens[i] for i in ids(drawn)]
    assert sum(spent) >= 20 > sum(spent[:-1])


def test_a_budget_of_tokens_is_not_filled_with_rows_that_nobody_counted(tmp_path):
    def half(request):
        return dataclasses.replace(echo(request), counted=len(request.messages[0].content) % 2 == 0)

    with Ledger(tmp_path / "ledger") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(FakeModel(half)), lambda: ledger)
        mixed = kitchen.run(RECIPE)
        kept = kitchen.run(RECIPE + "    - keep: {where: {completion_tokens: {max: 1000}}}\n")
    unknown = mixed["math"].scan("completion_tokens").collect()["completion_tokens"].null_count()
    assert 0 < unknown < 30
    assert kept["math"].height == 30 - unknown
    for upsample in (True, False):
        with pytest.raises(RecipeError, match=f"arm a: {unknown} of 30 rows have no token counts"):
            draw("a", mixed, Budget(None, 20, upsample), 0)
    assert draw("a", mixed, Budget(20, None, False), 0).rows == 20
    assert draw("a", kept, Budget(None, 20, False), 0).rows > 0


def test_questions_are_nothing_to_train_on(tmp_path):
    table = Kitchen(tmp_path).chain("- source: {procedural: {n: 3}}")
    with pytest.raises(RecipeError, match="domain math ends in questions; expected answers"):
        draw("a", {"math": table}, Budget(1, None, False), 0)


def test_rows_are_written_with_their_repeats(tables, tmp_path):
    drawn = draw("a", tables, Budget(75, None, True), 0)
    drawn.write(tmp_path / "rows")
    written = list(Job(tmp_path, tmp_path / "rows", {}, 0).examples())
    assert len(written) == 75
    narrow = tables["math"].scan("id", "question").collect()
    wanted = narrow.join(drawn.copies(), on="id")
    counts = pl.Series([e.question for e in written]).value_counts()
    assert sum(counts["count"]) == wanted["copies"].sum()


def test_domains_that_draw_on_one_source_have_no_more_rows_than_asked_for(tmp_path):
    chain = ["    - source: {procedural: {n: 30}}", "    - answer"]
    recipe = "\n".join([RECIPE.rstrip(), "  more:", *chain])
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(FakeModel()), lambda: ledger)
        both = kitchen.run(recipe)
        drawn = draw("a", both, Budget(45, None, False), 0)
        drawn.write(tmp_path / "rows")
    assert (drawn.there, drawn.rows, drawn.distinct) == (60, 45, 45)
    assert len(list(Job(tmp_path, tmp_path / "rows", {}, 0).examples())) == 45


@pytest.mark.parametrize(
    "twin",
    [
        RECIPE.replace("{procedural: {n: 30}}", "{procedural: {n: 30}}\n      as: other"),
        RECIPE.replace("- source: {procedural: {n: 30}}", "- source: FILE"),
        RECIPE.replace("- source: {procedural: {n: 30}}", "- source: FILE").replace("math", "sums"),
    ],
    ids=["another name", "a file", "another domain"],
)
def test_rows_that_say_the_same_make_one_student_wherever_they_come_from(tables, tmp_path, twin):
    file = tmp_path / "same.jsonl"
    tables["math"].scan("question").collect().write_ndjson(file)
    with Ledger(tmp_path / "ledger") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(FakeModel()), lambda: ledger)
        other = draw("b", kitchen.run(twin.replace("FILE", str(file))), Budget(30, None, False), 0)
        fewer = draw("b", other.tables, Budget(29, None, False), 0)
    one = draw("a", tables, Budget(30, None, False), 0)
    assert one.tables_digest != other.tables_digest
    assert one.digest == other.digest != fewer.digest


def test_students_that_older_stores_name_by_their_tables_are_found(tables, tmp_path):
    def named(rows, seed):
        return f"{rows}-{seed}"

    store, rows = Store(tmp_path), draw("a", tables, Budget(10, None, False), 0)
    assert key_of(rows, 3, named, store) == f"{rows.digest}-3"
    home = tmp_path / "students" / f"{rows.tables_digest}-3"
    (home / "model").mkdir(parents=True)
    (home / "student.json").write_text('{"files": {}, "trained": {"rows": 10}, "seconds": 1}')
    assert key_of(rows, 3, named, store) == home.name
    assert key_of(rows, 4, named, store) == f"{rows.digest}-4"


def test_a_student_is_named_by_the_rows_that_were_chosen(tables):
    # Else a student of other rows would be found in the store when the way of choosing changes.
    drawn = draw("a", tables, Budget(10, None, False), 0)
    assert dataclasses.replace(drawn, seed=1).digest != drawn.digest


def test_rows_are_read_once_in_a_store_for_their_name(tables, tmp_path, monkeypatch):
    drawn = draw("a", tables, Budget(10, None, False), 0)
    assert drawn.named(Store(tmp_path)) == drawn.digest
    monkeypatch.setattr(type(drawn), "_parts", None)
    again = draw("b", tables, Budget(10, None, False), 0)
    assert again.named(Store(tmp_path)) == drawn.digest


def test_rows_appear_whole_in_the_process_that_trains(tables, tmp_path, monkeypatch):
    drawn = ForkingPickler.loads(
        ForkingPickler.dumps(draw("a", tables, Budget(20, None, False), 0))
    )
    job = Job(tmp_path, Path(), {}, 0, write=drawn.write)

    def torn(frame, path):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", torn)
        with pytest.raises(StoreError, match="No space left"):
            job.begun(tmp_path / "work")
    assert not (tmp_path / "work" / "rows").exists()
    begun = job.begun(tmp_path / "work")
    assert begun.rows == tmp_path / "work" / "rows"
    assert len(list(begun.examples())) == 20
    # A submitted job that outlived its study may be reading them.
    before = {p: p.stat().st_ino for p in begun.rows.iterdir()}
    job.begun(tmp_path / "work")
    assert {p: p.stat().st_ino for p in begun.rows.iterdir()} == before
