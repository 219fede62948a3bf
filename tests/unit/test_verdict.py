"""What is said of a difference follows from its numbers, and claims nothing more."""

import re

import numpy as np
import pytest

from stillroom.study.form import Study
from stillroom.study.reports.verdict import reach, sentence, verdict, with_more
from stillroom.study.statistics.comparing import Difference
from stillroom.study.statistics.errors import Estimate
from stillroom.study.statistics.outcomes import Outcomes


def difference(value, half, p):
    estimate = Estimate(value, half / 2, value - half, value + half, p)
    return Difference("new", None, estimate, p, measured_seeds=True)


@pytest.mark.parametrize(
    ("found", "matters", "said"),
    [
        (difference(0.041, 0.031, 0.004), 0.0,
         "new beat old by 4.1 points (95% interval 1.0 to 7.2; p = 0.004)."),
        (difference(-0.041, 0.031, 0.004), 0.0,
         "new lost to old by 4.1 points (95% interval -7.2 to -1.0; p = 0.004)."),
        (difference(0.01, 0.005, 0.004), 0.02,
         "new beat old by 1.0 points (95% interval 0.5 to 1.5; p = 0.004), which is less than the "
         "2.0 that matter."),
        (difference(0.01, 0.03, 0.6), 0.0,
         "No difference was found between new and old: 95% interval -2.0 to 4.0 points."),
        (difference(0.0, 0.01, 0.9), 0.02,
         "No difference was found between new and old: 95% interval -1.0 to 1.0 points, so any "
         "difference is smaller than the 2.0 that matter."),
        (difference(-0.037, 0.029, 0.06), 0.0,
         "No difference was found between new and old: 95% interval -6.6 to -0.8 points, which the "
         "number of comparisons takes back (p = 0.06)."),
    ],
)  # fmt: skip
def test_sentence(found, matters, said):
    assert sentence(found, "old", matters=matters) == said


def test_a_reach_says_what_more_seeds_would_see():
    assert with_more(3) == [3, 5, 10]
    assert with_more(1) == [3, 5]
    assert with_more(20) == [20]
    assert reach({3: 0.051, 5: 0.037}) == "5.1 points or more (with 5 seeds 3.7)"
    assert reach({20: 0.03}) == "3.0 points or more"


def test_no_difference_comes_with_what_students_so_noisy_can_show():
    study = Study(
        question="?", base="b", rows=1, arms={"old": {}, "new": {"math.take": 1}}, seeds=3,
        student={"model": "m"}, benchmarks="x",
    )  # fmt: skip
    rng = np.random.default_rng(1)
    said = []
    for noise in (0.01, 0.05):
        table = rng.uniform(0.4, 0.6, 300) + rng.normal(0, noise, (2, 3, 1))
        found = Outcomes(("old", "new"), (0, 1, 2), {"x": table}, {"x": np.zeros(2)})
        *_, last = verdict(study, found)
        assert last.startswith("With students as noisy as these, a study of this size usually sees")
        said.append(float(re.search(r"sees (\S+) points or more", last)[1]))
    assert said[1] > 2 * said[0]
    (*_, one) = verdict(
        study, Outcomes(("old", "new"), (0,), {"x": table[:, :1]}, {"x": np.zeros(2)})
    )
    assert one.startswith("One seed was run")
