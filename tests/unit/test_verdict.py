"""What is said of a difference follows from its numbers, and claims nothing more."""

import pytest

from stillroom.study.reports.verdict import sentence
from stillroom.study.statistics import Difference, Estimate


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
