"""How far the paper's own small runs predict its large ones; write the tables of docs/racing.md.

Usage: python scripts/check_scales.py [--write]

The numbers are means over the paper's eight development benchmarks, in percent, one run each. Small
scales: the evaluations that the authors published for each run (Hugging Face data sets
mlfoundations-dev/RUN_SCALE_eval_*). Large ones: tables of arXiv 2506.04178, at 31,600 rows, but for
`d1_math_all_large` (63,200); `d1_math_all` is taken to be the row "Random" there. Three more runs
at 10,000 rows are left out, because their large scores are not published. Rules are those of
`stillroom.study.race.elimination`.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from scipy import stats

from stillroom.study.race.elimination import Look, Rule, judge
from stillroom.study.statistics.comparing import decision_accuracy
from stillroom.study.statistics.errors import Estimate

PAGE = Path(__file__).parents[1] / "docs" / "racing.md"
START, END = "<!-- measured by scripts/check_scales.py -->", "<!-- end -->"

SMALL = {
    1_000: {
        "b1_code_top_2": 33.0, "b1_code_top_16": 32.5,
        "d1_math_all_large": 34.7, "d1_math_all": 35.0,
    },
    3_160: {"b1_code_top_2": 36.6, "b1_code_top_16": 33.6, "d1_math_all_large": 37.5},
    10_000: {
        "b1_code_top_16": 34.3, "b2_code_difficulty": 38.0, "b2_code_length_gpt41nano": 39.6,
        "d1_math_all_large": 39.1, "d1_math_all": 39.3,
    },
}  # fmt: skip
LARGE = {
    "b1_code_top_2": 41.3, "b1_code_top_16": 36.4, "b2_code_difficulty": 43.0,
    "b2_code_length_gpt41nano": 42.2, "d1_math_all_large": 41.9, "d1_math_all": 41.6,
}  # fmt: skip
QUESTIONS = (
    ("b1_code_top_2", "b1_code_top_16"),
    ("b2_code_difficulty", "b2_code_length_gpt41nano"),
    ("d1_math_all_large", "d1_math_all"),
)
"""Pairs of one stage: the winner at the large scale first."""

ERROR = 0.4
"""Standard error of one run's mean over benchmarks, in points, as printed in the paper. It knows
nothing of training: the paper has one run of each."""

MARGINS = (0.0, 1.0, 2.0, 4.0)


def race(means: dict[str, float], margin: float) -> Look:
    """Judge a scale as the first of three rounds."""
    rule = Rule(len(means), 3, 0.95, 0.02)
    half = float(stats.norm.ppf(0.5 + rule.level / 2)) * ERROR * math.sqrt(2)
    return judge(means, partial(_compare, means, half), rule, margin=margin, last=False)


def _compare(means: dict[str, float], half: float, a: str, b: str) -> Estimate:
    value = means[a] - means[b]
    return Estimate(value, math.nan, value - half, value + half, math.nan)


def halving(means: dict[str, float]) -> list[str]:
    """Keep the better half by rank alone."""
    return sorted(means, key=lambda run: -means[run])[: (len(means) + 1) // 2]


def differences() -> list[str]:
    """Return the lines of the first table: each pair at each scale."""
    lines = [
        "| winner at the large scale | other | rows | ahead there | ahead at the large scale |"
        " same order |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for winner, other in QUESTIONS:
        for rows, means in SMALL.items():
            if winner in means and other in means:
                here, there = means[winner] - means[other], LARGE[winner] - LARGE[other]
                same = "yes" if here > 0 else "no"
                lines.append(
                    f"| {winner} | {other} | {rows:,} | {here:+.1f} | {there:+.1f} | {same} |"
                )
    return lines


def rules() -> list[str]:
    """Return the lines of the second table: what each rule would have done."""
    pairs = [
        (winner, {run: means[run] for run in (winner, other)})
        for winner, other in QUESTIONS
        for means in SMALL.values()
        if winner in means and other in means
    ]
    together = [(max(means, key=lambda run: LARGE[run]), means) for means in SMALL.values()]
    ways: dict[str, Callable[[dict[str, float]], Sequence[str]]] = {"better half by rank": halving}
    for margin in MARGINS:
        ways[f"intervals, margin {margin:g}"] = partial(_left, margin=margin)
    lines = [
        "| rule | winner dropped, pairs | others dropped, pairs | winner dropped, all runs of a "
        "scale | others dropped, all runs of a scale |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for way, keep in ways.items():
        cells = [way]
        for looks in (pairs, together):
            wrong = sum(winner not in keep(means) for winner, means in looks)
            others = sum(len(set(means) - {winner} - set(keep(means))) for winner, means in looks)
            there = sum(len(means) - 1 for _, means in looks)
            cells += [f"{wrong} of {len(looks)}", f"{others} of {there}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def agreement() -> list[str]:
    """Return the lines of a table: pairs of runs in the order of the large scale."""
    lines = ["| rows | runs | pairs in the same order, % |", "| ---: | ---: | ---: |"]
    for rows, means in SMALL.items():
        share = decision_accuracy(means, LARGE)
        lines.append(f"| {rows:,} | {len(means)} | {100 * share:.0f} |")
    return lines


def _left(means: dict[str, float], margin: float) -> tuple[str, ...]:
    return race(means, margin).left


def main() -> None:
    """Print the tables, and write them into the page if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    block = "\n".join([START, "", *differences(), "", *agreement(), "", *rules(), "", END])
    print(block)
    if parser.parse_args().write:
        text = PAGE.read_text("utf-8")
        before, rest = text.split(START)
        PAGE.write_text(before + block + rest.split(END, 1)[1], "utf-8")


if __name__ == "__main__":
    main()
