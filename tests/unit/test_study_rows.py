"""Rows of a student: the same number for every arm, drawn by seed, nested, repeated on request."""

import dataclasses

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import FakeModel, FakeModels
from tests.kitchen import Kitchen

from stillroom.errors import RecipeError
from stillroom.models.ledger import Ledger
from stillroom.study.rows import Budget, draw
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
    return drawn.copies["id"].to_list()


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
    small, large = (draw("a", tables, Budget(n, None, True), 0).copies for n in sorted((a, b)))
    both = small.join(large, on="id", how="left", suffix="_large")
    assert (both["copies"] <= both["copies_large"]).all()
    assert large["copies"].max() - large["copies"].min() <= 1
    assert small["copies"].sum() == min(a, b)


def test_too_few_rows_are_refused_unless_they_may_be_repeated(tables):
    with pytest.raises(RecipeError, match="arm a: its recipe makes 30 rows; expected 31"):
        draw("a", tables, Budget(31, None, False), 0)
    repeated = draw("a", tables, Budget(75, None, True), 0)
    assert repeated.rows == 75
    assert sorted(repeated.copies["copies"].to_list()) == [2] * 15 + [3] * 15


def test_a_budget_of_tokens_is_met_by_the_row_that_crosses_it(tables):
    tokens = dict(tables["math"].scan("id", "completion_tokens").collect().iter_rows())
    drawn = draw("a", tables, Budget(None, 20, False), 0)
    spent = [tokens[i] for i in ids(drawn)]
    assert sum(spent) >= 20 > sum(spent[:-1])


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
    wanted = narrow.join(drawn.copies, on="id")
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
    assert (drawn.there, drawn.rows, drawn.copies.height) == (60, 45, 45)
    assert len(list(Job(tmp_path, tmp_path / "rows", {}, 0).examples())) == 45


def test_a_student_is_named_by_the_rows_that_were_chosen(tables):
    # Else a student of other rows would be found in the store when the way of choosing changes.
    drawn = draw("a", tables, Budget(10, None, False), 0)
    others = draw("a", tables, Budget(10, None, False), 1).copies
    assert dataclasses.replace(drawn, copies=others).digest != drawn.digest
