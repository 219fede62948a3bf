"""The report of a study: one Markdown file and one self-contained HTML file.

Nothing in them speaks of times or machines but the section on cost.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.evaluate.grade import title_of
from stillroom.study.marks import marks, notes, twins
from stillroom.study.reports.clean import without_suspects
from stillroom.study.reports.cost import cost
from stillroom.study.reports.examples import Chain, contrasts
from stillroom.study.reports.forest import Line, forest_svg
from stillroom.study.reports.page import Block, write
from stillroom.study.reports.panels import panels_svg
from stillroom.study.reports.verdict import interval, points, times, verdict
from stillroom.study.result import Result, Sat
from stillroom.study.statistics import (
    Difference,
    Outcomes,
    Score,
    decision_accuracy,
    differences,
    means,
    scores,
)

EXAMPLES = 3
"""Rows shown for each arm that the control kept, and as many that it dropped."""

MANY = 4
"""Students of one mark beyond which only the first is named."""


def write_report(
    result: Result,
    folder: Path,
    before: Sequence[Block] = (),
    facts: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write ``report.md``, ``report.html``, their plots and ``results.json``.

    Args:
        result: A study that was run.
        folder: Where they go; files of an older report are replaced.
        before: What the report says before the comparison of arms.
        facts: Further numbers for programs.

    Returns:
        What was written.

    Raises:
        StoreError: If the folder cannot be written.
    """
    arms = [arm for arm in result.study.arms if not _failed(result, arm)]
    if len(arms) < 2 or arms[0] != result.study.control:
        blocks = [Block(text="Too few arms were trained to compare any.")]
        own: dict[str, Any] = {}
    else:
        grades = result.grades().filter(pl.col("arm").is_in(arms))
        outcomes = Outcomes.of(grades, arms)
        blocks = _blocks(result, outcomes)
        own = _facts(result, outcomes)
    blocks = [*_opening(result), *before, *blocks]
    return write(folder, result.study.question, blocks, {**own, **(facts or {})})


def _failed(result: Result, arm: str) -> bool:
    return any(sat.failed for sat in result.sat if sat.arm == arm)


def _opening(result: Result) -> list[Block]:
    study = result.study
    blocks = [Block(heading=study.question)]
    if study.hypothesis:
        blocks.append(Block(text=f"Hypothesis, written before the runs: {study.hypothesis}"))
    failed = [f"{s.arm}, seed {s.seed}: {s.failed}" for s in result.sat if s.failed]
    if failed:
        blocks.append(Block(text="Not trained, and so in no comparison:"))
        blocks.append(Block(points=failed))
    if odd := oddities(result):
        blocks.append(Block(text="Odd students, which are in the comparisons all the same:"))
        blocks.append(Block(points=odd))
    return blocks


def oddities(result: Result) -> list[str]:
    """Say what is odd about the students of a study, a phrase each; what many share, once."""
    students = [sat for sat in result.sat if sat.student]
    alike: dict[str, list[str]] = {}
    for sat in students:
        for mark in marks(sat):
            said = f"{sat.arm}, seed {sat.seed}: {mark}"
            alike.setdefault(re.sub(r"[\d,.]+", "", mark), []).append(said)
    found = twins(result.sat)
    for group in alike.values():
        if len(group) > MANY:
            found.append(f"{len(group)} of {len(students)} students, such as {group[0]}")
        else:
            found += group
    return found


def _blocks(result: Result, outcomes: Outcomes) -> list[Block]:
    study = result.study
    scored, compared = scores(outcomes), differences(outcomes)
    size = f"{study.rows:,} rows" if study.rows else f"{study.tokens:,} answer tokens"
    blocks = [Block(points=verdict(study, outcomes))]
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    blocks.append(
        Block(
            text=f"Students: {study.student.model}, trained on {size} each by the trainer "
            f"{study.student.trainer}; {seeds} of every arm. What holds for this student at this "
            "size need not hold for another."
        )
    )
    blocks += _difference_plots(study.control, compared, outcomes.means)
    blocks.append(Block(heading="Scores"))
    base = result.sat[0]
    blocks.append(Block(table=_score_table(outcomes, scored, base)))
    blocks.append(
        Block(
            text="Percent of attempts that are right. The interval is for new questions of the "
            "kind and new seeds; the errors behind it are those of sampling alone, of questions "
            "and sampling, and of seeds."
        )
    )
    if said := notes(result.sat):
        blocks.append(Block(points=said))
    blocks += without_suspects(result, outcomes)
    blocks += _likelihood(result, outcomes)
    blocks += details(result, list(outcomes.arms))
    blocks += cost([result])
    blocks += _keys(result)
    return blocks


def _difference_plots(
    control: str, compared: Sequence[Difference], benchmarks: Iterable[str]
) -> list[Block]:
    """Draw a forest plot of the pooled differences, and a small one for each benchmark."""
    lines: dict[str | None, list[Line]] = {}
    for d in compared:
        estimate = d.estimate
        ends = (100 * estimate.value, 100 * estimate.low, 100 * estimate.high)
        lines.setdefault(d.benchmark, []).append(Line(d.arm, *ends, d.verdict()))
    single = {name: panel for name, panel in lines.items() if name is not None}
    title = f"Points above {control}"
    whole = "all benchmarks together" if single else next(iter(benchmarks))
    blocks = [Block(heading=f"Differences from {control}")]
    blocks.append(
        Block(plot=("difference.svg", forest_svg(f"{title}, {whole}", lines[None], zero=True)))
    )
    if single:
        svg = panels_svg(f"{title}, by benchmark", single)
        blocks.append(Block(plot=("difference-by-benchmark.svg", svg)))
    rows = [
        [
            d.arm, d.benchmark or "all", points(d.estimate.value),
            interval(d.estimate.low, d.estimate.high), f"{d.p:.2g}",
        ]
        for d in compared
    ]  # fmt: skip
    header = ["arm", "benchmark", "points", "95% interval", "p (Holm)"]
    return [*blocks, Block(table=(header, rows))]


def _score_table(
    outcomes: Outcomes, scored: Sequence[Score], base: Sat
) -> tuple[list[str], list[list[str]]]:
    header = ["arm", "benchmark", "right, %", "95% interval", "sampling", "questions", "seeds"]
    rows = [
        [base.arm + " (untrained)", name, points(grades.accuracy), "", "", "", ""]
        for name, grades in base.grades.items()
    ]
    whole = "all" if len(outcomes.means) > 1 else next(iter(outcomes.means))
    for score in scored:
        errors = (score.sampling_se, score.question_se, score.seed_se)
        rows.append(
            [
                score.arm,
                score.benchmark or whole,
                points(score.estimate.value),
                interval(score.estimate.low, score.estimate.high),
                *(points(e) if e == e else "not measured" for e in errors),
            ]
        )
    return header, rows


def _likelihood(result: Result, outcomes: Outcomes) -> list[Block]:
    """Compare arms by how likely their students find right answers."""
    table = result.likelihoods()
    if table is None:
        return []
    here = table.filter(pl.col("arm").is_in(outcomes.arms))
    found = Outcomes.of(here, outcomes.arms, bounded=False)
    against = {d.arm: d for d in differences(found) if d.benchmark is None}
    rows = []
    for arm, mean in means(found).items():
        cells = [arm, f"{mean:.4f}"]
        if arm in against:
            d = against[arm]
            span = f"{d.estimate.low:+.4f} to {d.estimate.high:+.4f}"
            cells += [f"{d.estimate.value:+.4f}", span, f"{d.p:.2g}"]
        else:
            cells += ["", "", ""]
        rows.append(cells)
    agree = decision_accuracy(means(found), means(outcomes))
    return [
        Block(heading="Likelihood of right answers"),
        Block(
            text="Mean log-likelihood per token, in nats, of right answers that the model "
            f"{result.study.references.name if result.study.references else ''} gave to the same "
            "questions: less noisy than accuracy, and not the same thing. It puts "
            f"{100 * agree:.0f}% of pairs of arms in the order in which accuracy puts them."
        ),
        Block(table=(["arm", "nats per token", "above control", "95% interval", "p (Holm)"], rows)),
    ]


def details(result: Result, arms: Sequence[str]) -> list[Block]:
    """Show what stands behind the scores: attempts, rows of the arms, held-out benchmarks.

    Args:
        result: A study that was run.
        arms: Arms that were trained, the first being what others are shown beside.
    """
    return [
        *_attempts(result, arms),
        *_sources_of_difference(result, arms),
        *_seals(result),
    ]


def _attempts(result: Result, arms: Sequence[str]) -> list[Block]:
    """Tell how attempts ended, because a score that is cut by length is another thing."""
    grades = result.grades()
    rows = []
    for arm in arms:
        here = grades.filter(pl.col("arm") == arm)
        cut = here.filter(pl.col("finish_reason") == "length").height / here.height
        silent = here.filter(pl.col("verdict") == "unparsed").height / here.height
        lost = here.filter(pl.col("verdict") == "error").height / here.height
        tokens = here["completion_tokens"].drop_nulls()
        mean = f"{tokens.sum() / tokens.len():.0f}" if tokens.len() else ""
        rows.append([arm, points(cut), points(silent), points(lost), mean])
    header = [
        "arm", "cut by length, %", "without an answer, %", "no reply or verdict, %",
        "tokens per attempt",
    ]  # fmt: skip
    return [Block(heading="Attempts"), Block(table=(header, rows))]


def _sources_of_difference(result: Result, arms: Sequence[str]) -> list[Block]:
    """Show what each arm's own steps dropped, with examples of rows that the control kept."""
    blocks = [Block(heading="What the arms dropped")]
    rows = []
    for arm in arms:
        drops: Counter[str] = Counter()
        for built in result.built[arm, 0]:
            for reason, n in built.artifact.manifest.drops.items():
                drops[f"{built.path}: {reason}"] += n
        sat = next(s for s in result.sat if s.arm == arm and s.seed == 0 and s.student)
        said = "; ".join(f"{what} {n:,}" for what, n in drops.most_common(8)) or "nothing"
        rows.append([arm, f"{sat.there:,}", f"{sat.distinct:,}", f"{sat.rows:,}", said])
    header = ["arm", "rows made", "different rows used", "rows used", "drops, seed 0"]
    blocks.append(Block(table=(header, rows)))
    examples = _examples(result, arms)
    if examples:
        blocks.append(Block(heading="Rows on which arms differ"))
        blocks.append(Block(table=(["kept by", "dropped by", "why", "text"], examples)))
    return blocks


def _examples(result: Result, arms: Sequence[str]) -> list[list[str]]:
    """Find rows that the control kept and an arm dropped, and the other way round."""
    chains = {arm: Chain(result.built[arm, 0]) for arm in arms}
    control, *others = arms
    rows = []
    for arm in others:
        for kept_by, dropped_by in ((control, arm), (arm, control)):
            for one in contrasts(chains[kept_by], chains[dropped_by], EXAMPLES):
                why = f"{one.step}: {one.reason}"
                rows.append([kept_by, dropped_by, why, _shorten(one.text)])
    return rows


def _seals(result: Result) -> list[Block]:
    """Say how often the held-out benchmarks were looked at, by whatever study."""
    held_out = result.study.benchmarks.held_out
    if not held_out:
        return []
    said = []
    for name in map(title_of, held_out):
        opened = [o for o in result.openings if o.benchmark == name]
        by = "; ".join(f"study {o.study}, arm {o.arm}" for o in opened)
        said.append(
            f"{name} was opened {times(len(opened))} in this store: {by}."
            if opened
            else f"{name} is sealed: no study of this store looked at it."
        )
    return [Block(heading="Held-out benchmarks"), Block(points=said)]


def _keys(result: Result) -> list[Block]:
    rows = [
        [
            s.arm,
            str(s.seed),
            s.student or "",
            ", ".join(g.keys["verify"] for g in s.grades.values()),
        ]
        for s in result.sat
        if s.student
    ]
    header = ["arm", "seed", "student", "grades"]
    return [
        Block(heading="Keys"),
        Block(text="Artifacts in the store from which every number above was made."),
        Block(table=(header, rows)),
    ]


def _facts(result: Result, outcomes: Outcomes) -> dict[str, Any]:
    """Return the numbers for programs."""
    return {
        "study": result.study.model_dump(mode="json"),
        "verdict": verdict(result.study, outcomes),
        "scores": [_plain(asdict(s)) for s in scores(outcomes)],
        "differences": [
            {**_plain(asdict(d)), "verdict": d.verdict()} for d in differences(outcomes)
        ],
        "students": [
            {"arm": s.arm, "seed": s.seed, "key": s.student, "rows": s.rows, "there": s.there}
            for s in result.sat
            if s.student
        ],
    }


def _plain(value: Any) -> Any:
    """Write what JSON has no word for as null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")


def _shorten(text: str, most: int = 240) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
