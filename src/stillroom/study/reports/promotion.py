"""What held-out benchmarks say of a promoted arm, in words."""

import polars as pl

from stillroom.study.marks import notes
from stillroom.study.reports.study import oddities
from stillroom.study.reports.verdict import interval, points, sentence
from stillroom.study.result import Result
from stillroom.study.statistics.comparing import differences, scores
from stillroom.study.statistics.outcomes import Outcomes


def promotion(result: Result) -> list[str]:
    """Say how the promoted arm and the control did, a sentence each.

    Args:
        result: Of the control and the arm, on the held-out benchmarks; or of the control alone.
    """
    study = result.study
    said = [f"Not trained: {s.arm}, seed {s.seed}: {s.failed}" for s in result.sat if s.failed]
    failed = {sat.arm for sat in result.sat if sat.failed}
    arms = [arm for arm in study.arms if arm not in failed]
    if arms:
        outcomes = Outcomes.of(result.grades().filter(pl.col("arm").is_in(arms)), arms)
        whole = "all together" if len(outcomes.means) > 1 else next(iter(outcomes.means))
        for score in scores(outcomes):
            own = score.estimate
            said.append(
                f"{score.arm}, {score.benchmark or whole}: {points(own.value)}% right "
                f"(95% interval {interval(own.low, own.high)})."
            )
        if arms[0] == study.control and len(arms) > 1:
            said += [
                sentence(difference, study.control, matters=study.matters)
                for difference in differences(outcomes)
            ]
    return [*said, *oddities(result), *notes(result.sat)]
