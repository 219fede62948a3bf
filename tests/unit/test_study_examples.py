"""Rows on which two arms differ, as reports show them."""

import json

import pytest
from tests.kitchen import Kitchen

from stillroom.study.reports.examples import Chain, contrasts

QUESTIONS = ["one", "two and two", "three and three and three", "four", "two and two"]


@pytest.fixture
def arm(tmp_path):
    """Run one arm over the same questions, and return its steps."""
    lines = [
        json.dumps({"question": text, "id": f"q{i}"}) + "\n" for i, text in enumerate(QUESTIONS)
    ]
    (tmp_path / "asked.jsonl").write_text("".join(lines))

    def go(steps):
        kitchen = Kitchen(tmp_path / "store")
        kitchen.chain(f"- source: {tmp_path}/asked.jsonl\n- dedup: exact\n- label: length\n{steps}")
        return Chain(kitchen.built)

    return go


def test_rows_that_one_arm_dropped_and_the_other_kept(arm):
    short = arm("- keep: {lowest: 2, by: length}")
    long = arm("- keep: {top: 2, by: length}")
    (one,) = contrasts(short, long, 3)
    assert (one.reason, one.text) == ("not in the top 2", "one")
    (other,) = contrasts(long, short, 3)
    assert (other.reason, other.text) == ("not in the lowest 2", "two and two")


def test_reasons_that_tell_something_come_before_a_random_draw(arm):
    everything = arm("- keep: {top: 9, by: length}")
    some = arm("- take: 3\n- keep: {top: 2, by: length}")
    assert [one.reason for one in contrasts(everything, some, 2)] == [
        "not in the top 2",
        "not_drawn",
    ]
    assert [one.step for one in contrasts(everything, some, 1)] == ["math.keep"]
    assert contrasts(everything, everything, 3) == []
