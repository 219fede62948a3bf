"""The report of a search: what each stage promoted, why, and what it all cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillroom.study.reports.cost import cost
from stillroom.study.reports.forest import Line, forest_svg
from stillroom.study.reports.mixing import found
from stillroom.study.reports.page import Block, write
from stillroom.study.reports.race import outcome
from stillroom.study.reports.verdict import interval, points, verdict
from stillroom.study.result import Result
from stillroom.study.search.form import Search
from stillroom.study.search.stage import Stage
from stillroom.study.statistics.comparing import means, scores


def write_search_report(search: Search, stages: Sequence[Stage], folder: Path) -> list[Path]:
    """Write the report of the stages that are done.

    Args:
        search: The search.
        stages: Those of its stages that were run, in order.
        folder: Where to write; created.

    Returns:
        The files.
    """
    return write(folder, "Search", _blocks(search, stages), _facts(search, stages))


def _blocks(search: Search, stages: Sequence[Stage]) -> list[Block]:
    rule = {
        "best": "the arm of the highest mean",
        "cheapest": "the arm that asks for the fewest completions, of those that cannot be told "
        "from the best; of equally cheap ones the first, so that the control stays unless "
        "something beats it",
    }[search.rule]
    left = len(search.stages) - len(stages)
    blocks = [
        Block(heading="What a search over recipes chose"),
        Block(text=f"Promoted after each stage: {rule}. The rule was stated beforehand."),
    ]
    if left:
        blocks.append(Block(text=f"Not finished: {left} of {len(search.stages)} stages are left."))
    rows, lines = [], []
    for stage in stages:
        estimate = next(
            s.estimate
            for s in scores(stage.outcomes)
            if s.arm == stage.promoted and s.benchmark is None
        )
        name = stage.study.name
        how = "by the rule"
        if stage.because:
            how = f"by a person: {stage.because} (the rule chose {stage.chosen})"
        span = interval(estimate.low, estimate.high)
        rows.append([name, stage.promotes, points(estimate.value), span, how])
        value, low, high = 100 * estimate.value, 100 * estimate.low, 100 * estimate.high
        control = means(stage.outcomes).get(stage.study.control)
        against = None if control is None else 100 * control
        lines.append(Line(name, value, low, high, against=against))
    header = ["stage", "promoted", "right, %", "95% interval", "how"]
    blocks.append(Block(table=(header, rows)))
    title = "Percent right: the promoted arm of each stage; ticks: its control"
    blocks.append(Block(plot=("stages.svg", forest_svg(title, lines, zero=False))))
    blocks.append(
        Block(
            text="Every promoted arm was chosen because it did well on these questions, so its "
            "score flatters it a little. Held-out benchmarks, which stillroom promote opens, do "
            "not."
        )
    )
    for stage in stages:
        blocks.append(Block(heading=f"{stage.study.name}: {stage.study.question}"))
        said = found(stage.mixed)[:2] if stage.mixed else []
        if stage.raced:
            said += outcome(stage.raced)
        elif len(stage.arms) > 1 and stage.arms[0] == stage.study.control:
            said += verdict(stage.study, stage.outcomes)
        if said:
            blocks.append(Block(points=said))
        blocks.append(Block(text=f"The report is {stage.study.name}/report.md."))
    return blocks + cost([result for stage in stages for result in _results(stage)])


def _results(stage: Stage) -> list[Result]:
    if stage.raced:
        return stage.raced.results
    return [stage.mixed.random, stage.result] if stage.mixed else [stage.result]


def _facts(search: Search, stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "search": search.model_dump(mode="json"),
        "stages": [
            {
                "stage": s.study.name, "chosen": s.chosen, "promoted": s.promoted,
                "because": s.because, "ranking": list(s.ranking), "asked": dict(s.asked),
            }
            for s in stages
        ],
    }  # fmt: skip
