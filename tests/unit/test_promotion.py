"""What a promotion says of held-out benchmarks, and what a report says without its control."""

import polars as pl
import pytest

pytest.importorskip("scipy")

from stillroom.evaluate.grade import Grades
from stillroom.study.form import Study
from stillroom.study.reports.promotion import promotion
from stillroom.study.reports.study import write_report
from stillroom.study.result import Result, Sat

ITEMS = 40


def grades(right):
    """Make a sitting of which the first items are right."""
    verdicts = ["correct" if item < right else "incorrect" for item in range(ITEMS)]
    table = pl.DataFrame(
        {
            "item": [f"{item:03}" for item in range(ITEMS)], "row": range(ITEMS), "repeat": 0,
            "score": [float(verdict == "correct") for verdict in verdicts], "verdict": verdicts,
            "extracted": "1", "finish_reason": "stop", "completion_tokens": 5,
        }
    )  # fmt: skip
    return Grades(table, {"verify": "0" * 32}, ("Left out: 3 without an answer.",), ITEMS)


def result(*arms, failed=()):
    changes = {arm: {"math.take": number} for number, arm in enumerate([*arms, *failed], 1)}
    if len(changes) < 2:
        changes["other"] = {"math.take": 9}
    study = Study.model_validate(
        {"name": "s", "question": "Q?", "base": "b", "rows": 1, "student": {}, "seeds": 2,
         "benchmarks": {"develop": ["gsm8k_test"], "held_out": ["bench"]}, "arms": changes}
    )  # fmt: skip
    kept = {arm: study.arms[arm] for arm in (*failed, *arms)}
    sat = [Sat("base", 0, None, grades={"bench": grades(0)})]
    for place, arm in enumerate(arms):
        sat += [Sat(arm, n, f"{arm}{n}", grades={"bench": grades(8 + 20 * place)}) for n in (0, 1)]
    sat += [Sat(arm, 0, f"{arm}0", failed="the loss is nan") for arm in failed]
    return Result(study.model_copy(update={"arms": kept}), sat, {})


def test_scores_are_told_beside_the_difference():
    said = promotion(result("plain", "better"))
    assert said[0].startswith("plain, bench: 20.0% right (95% interval ")
    assert said[1].startswith("better, bench: 70.0% right (95% interval ")
    assert said[2].startswith("better beat plain by 50.0 points")
    assert "bench: Left out: 3 without an answer." in said


def test_a_control_that_is_promoted_is_told_too():
    # Its held-out benchmarks were opened, so what they say must not be lost.
    said = promotion(result("plain"))
    assert said[0].startswith("plain, bench: 20.0% right")
    assert not any("beat" in line or "No difference" in line for line in said)


@pytest.mark.parametrize(("arms", "failed"), [(("plain",), ("better",)), ((), ("plain",))])
def test_students_that_failed_are_named(arms, failed):
    said = promotion(result(*arms, failed=failed))
    assert said[0] == f"Not trained: {failed[0]}, seed 0: the loss is nan"
    assert sum("% right" in line for line in said) == len(arms)


def test_a_report_whose_control_failed_says_so(tmp_path):
    write_report(result("one", "two", failed=["control"]), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "control, seed 0: the loss is nan" in text
    assert "The control was not trained, so no arms are compared." in text
