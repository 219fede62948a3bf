"""What a study prints, on a terminal and elsewhere."""

import io
import os
from pathlib import Path

import polars as pl
from rich.console import Console

from stillroom.cli.teller import Teller
from stillroom.evaluate.grade import Grades
from stillroom.steps.base import Tick
from stillroom.steps.keep.take import Take
from stillroom.study.result import Sat
from stillroom.train.trainer import Alumnus, Trained


def sat(arm, seed, *scores, failed=None):
    grades = (
        {
            "bench": Grades(
                pl.DataFrame({"score": list(scores), "finish_reason": "stop", "verdict": "correct"})
            )
        }
        if scores
        else {}
    )
    return Sat(arm, seed, "key", grades=grades, failed=failed)


def told(*, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80, highlight=False)
    teller = Teller(console)
    for arm in ("one", "two"):
        teller.step(arm, 0)
    teller.training(2, 0)
    trained = Trained(rows=3, losses=[2.0, 1.25])
    teller.trained("one", 0, Alumnus("key", Path(os.devnull), trained, seconds=2.5))
    teller.graded(sat("one", 0, 1.0, 0.0, 0.0, 1.0))
    teller.graded(sat("two", 0, failed="loss is nan"))
    teller.stop()
    return out.getvalue()


def test_lines_where_there_is_no_terminal():
    assert told(terminal=False).splitlines() == [
        "one, seed 0",
        "two, seed 0",
        "students: 0 found, 2 to train",
        "+ one, seed 0: 2.5 s, loss 1.250",
        "= one, seed 0: bench 50.0%",
        "! two, seed 0: loss is nan",
    ]


def test_one_table_on_a_terminal_stays_at_the_end():
    last = told(terminal=True).split("arm")[-1]
    assert "50.0%" in last
    assert "failed" in last


def test_the_next_study_begins_a_table_of_its_own():
    out = io.StringIO()
    teller = Teller(Console(file=out, force_terminal=True, width=80))
    teller.step("old", 0)
    teller.graded(sat("old", 0, 1.0))
    teller.step("old", 0)
    teller.step("new", 0)
    teller.stop()
    assert "100.0%" in out.getvalue()
    assert "100.0%" not in out.getvalue().split("arm")[-1]


def screen(arms, height):
    """Return the last screen of a study of many arms, and what is left when it ends."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=height, highlight=False)
    teller = Teller(console)
    for number in range(arms):
        teller.step(f"arm {number:02}", 0)
    teller.training(arms, 0)
    for number in range(arms // 2):
        teller.graded(sat(f"arm {number:02}", 0, 1.0))
    teller.graded(sat("arm 59", 0, failed="no"))
    live = out.getvalue().count("")
    with console.capture() as shown:
        console.print(teller._live.renderable)
    teller.stop()
    return shown.get(), out.getvalue()[live:]


def test_of_more_arms_than_lines_those_are_shown_that_moved_last():
    shown, left = screen(60, 20)
    lines = shown.splitlines()
    assert len(lines) <= 20
    assert "60 arms, 31 of them graded, 1 students failed; shown are those that moved last" in shown
    assert "arm 29" in shown
    assert "arm 59" in shown
    assert "arm 01" not in shown
    assert all(f"arm {number:02}" in left for number in range(60))


def test_sittings_are_heard_under_the_table_and_now_and_then_elsewhere():
    out = io.StringIO()
    teller = Teller(Console(file=out, force_terminal=True, width=80))
    teller.step("one", 0)
    watcher = teller.grading("one.0")
    watcher.start("one.0.bench.answer", Take(n=1), 30)
    watcher.tick(Tick(rows=12, warning="the server refuses calls"))
    assert "one.0.bench.answer" in teller._below.plain
    assert "12 of 30 rows" in teller._below.plain
    assert "the server refuses calls" in out.getvalue()
    teller.stop()
    plain = io.StringIO()
    watcher = Teller(Console(file=plain)).grading("one.0")
    watcher.start("one.0.bench.answer", Take(n=1), 30)
    watcher.tick(Tick(rows=12, warning="the server refuses calls"))
    assert plain.getvalue() == "  warning: the server refuses calls\n"
