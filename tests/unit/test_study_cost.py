"""What a study cost: bought once, and what it would have cost if arms had shared nothing."""

from types import SimpleNamespace

import pytest

pytest.importorskip("scipy")

from stillroom.run.runner import Built
from stillroom.study.reports.cost import cost
from stillroom.study.result import Result, Sat


def built(path, key, calls=0, reused=0, tokens=0, usd=None, rows_in=0):
    measured = {"calls": calls, "reused": reused, "completion_tokens": tokens, "usd": usd}
    step, measured["seconds"] = path.rpartition(".")[2], 1.0
    manifest = SimpleNamespace(key=key, step=step, rows_in=rows_in, measured=measured)
    return Built(path, SimpleNamespace(manifest=manifest), (), False)


def table(*results):
    _, figures, *said = cost(list(results))
    rows = {row[0]: row[1:] for row in figures.table[1]}
    return rows | {"note": " ".join(block.text for block in said)}


def result(steps, graded=()):
    sat = [Sat(arm, seed, f"{arm}{seed}", seconds=2.0) for arm, seed in steps]
    return Result(None, sat, steps, graded=graded)


def test_completions_that_arms_share_through_the_ledger_would_have_been_bought_twice():
    found = table(result({
        ("a", 0): [built("math.label", "l", 1000, 0, 1000, 0.1),
                   built("math.answer", "x", 100, 0, 50_000, 5.0)],
        ("b", 0): [built("math.label", "l", 1000, 0, 1000, 0.1),
                   built("math.answer", "y", 50, 100, 25_000, 2.5)],
    }))  # fmt: skip
    assert found["completions bought"] == ["1,150", "2,250"]
    assert found["completion tokens bought"] == ["76,000", "about 127,000"]
    assert found["US dollars"] == ["7.60", "about 12.70"]
    assert found["seconds of steps"] == ["3", "4"]


def test_what_nobody_shared_is_exact_and_grading_counts_each_sitting_once():
    judge = built("a.0.hle.verify", "v", 10, 0, 10, 0.5)
    one = result({("a", 0): [built("math.answer", "x", 4, 0, 8, 1.0)]}, [judge])
    found = table(one, result({}, [judge, built("b.0.hle.verify", "w", 10, 0, 10, 0.25)]))
    assert found["US dollars"] == ["1.00", "1.00"]
    assert found["note"] == ""
    assert found["US dollars of grading, judges and references"] == ["0.75", ""]


def test_completions_that_were_all_there_cost_nothing():
    found = table(result({("a", 0): [built("math.answer", "x", 0, 9)]}))
    assert found["completions bought"] == ["0", "9"]
    assert "a run that was stopped" in found["note"]
    assert "US dollars" not in found


def test_a_kill_makes_no_arm_cheaper():
    whole = result({("a", 0): [built("math.answer", "x", 100, 0, rows_in=100)]})
    # It was killed while rows were written, and went on with the last forty.
    again = result({("a", 0): [built("math.answer", "x", 0, 40, rows_in=100)]})
    assert whole.asked("a") == again.asked("a") == 100
