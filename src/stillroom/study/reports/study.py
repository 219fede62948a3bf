"""The report of a study: one Markdown file and one self-contained HTML file.

Nothing in them speaks of times or machines but the section on cost.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from stillroom.evaluate.grade import title_of
from stillroom.study.marks import marks, notes, twins
from stillroom.study.reports.clean import without_suspects
from stillroom.study.reports.cost import cost
from stillroom.study.reports.examples import Chain, contrasts
from stillroom.study.reports.forest import Line, forest_svg
from stillroom.study.reports.page import DOWN, UP, Block, write
from stillroom.study.reports.panels import panels_svg
from stillroom.study.reports.verdict import MANY, NAMED, interval, points, times, verdict
from stillroom.study.result import Result, Sat
from stillroom.study.statistics.comparing import (
    Difference,
    Score,
    decision_accuracy,
    differences,
    means,
    scores,
)
from stillroom.study.statistics.outcomes import Outcomes

EXAMPLES = 3
"""Rows shown for each arm that the control kept, and as many that it dropped."""

SHARED = 4
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
        lacks = "The control was not" if len(arms) > 1 else "Too few arms were"
        blocks = [Block(text=f"{lacks} trained, so no arms are compared.")]
        own: dict[str, Any] = {}
    else:
        grades = result.grades().filter(pl.col("arm").is_in(arms))
        outcomes = Outcomes.of(grades, arms)
        found = _Found(verdict(result.study, outcomes), scores(outcomes), differences(outcomes))
        blocks = _blocks(result, outcomes, found)
        own = _facts(result, found)
    blocks = [*_opening(result), *before, *blocks]
    return write(folder, result.study.question, blocks, {**own, **(facts or {})})


@dataclass(frozen=True)
class _Found:
    """What grades say.

    Attributes:
        said: In words.
        scored: Of every arm.
        compared: Every arm with the control.
    """

    said: Sequence[str]
    scored: Sequence[Score]
    compared: Sequence[Difference]


def _failed(result: Result, arm: str) -> bool:
    return any(sat.failed for sat in result.sat if sat.arm == arm)


def _opening(result: Result) -> list[Block]:
    study = result.study
    blocks = [Block(heading=study.question)]
    if study.hypothesis:
        blocks.append(Block(text=f"Hypothesis, written before the runs: {study.hypothesis}"))
    if failed := [(s, s.failed) for s in result.sat if s.failed]:
        out = len({s.arm for s, _ in failed})
        are = "1 arm is" if out == 1 else f"{out} arms are"
        blocks.append(Block(text=f"{are} in no comparison, because students were not trained:"))
        blocks.append(Block(points=_once(failed, sum(s.student is not None for s in result.sat))))
    if odd := oddities(result):
        blocks.append(Block(text="Odd students, which are in the comparisons all the same:"))
        blocks.append(Block(points=odd))
    return blocks


def oddities(result: Result) -> list[str]:
    """Say what is odd about the students of a study, a phrase each; what many share, once."""
    students = [sat for sat in result.sat if sat.student]
    told = [(sat, mark) for sat in students for mark in marks(sat)]
    return [*twins(result.sat), *_once(told, len(students))]


def _once(told: Iterable[tuple[Sat, str]], of: int) -> list[str]:
    """Say what is told of students, a phrase each; what many share but for its numbers, once."""
    alike: dict[str, list[str]] = {}
    for sat, what in told:
        said = f"{sat.arm}, seed {sat.seed}: {what}"
        alike.setdefault(re.sub(r"[0-9a-f]{32}|[\d,.]+", "", what), []).append(said)
    found = []
    for group in alike.values():
        if len(group) > SHARED:
            found.append(f"{len(group)} of {of} students, such as {group[0]}")
        else:
            found += group
    return found


def _blocks(result: Result, outcomes: Outcomes, found: _Found) -> list[Block]:
    study = result.study
    size = f"{study.rows:,} rows" if study.rows else f"{study.tokens:,} answer tokens"
    blocks = [Block(points=found.said)]
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    blocks.append(
        Block(
            text=f"Students: {study.student.model}, trained on {size} each by the trainer "
            f"{study.student.trainer}; {seeds} of every arm. What holds for this student at this "
            "size need not hold for another."
        )
    )
    blocks += _differences(study.control, found.compared, outcomes.means)
    blocks += _scores(outcomes, found.scored, result.sat[0])
    if said := notes(result.sat):
        blocks.append(Block(points=said))
    blocks += without_suspects(result, outcomes)
    blocks += _likelihood(result, outcomes)
    blocks += details(result, list(outcomes.arms))
    blocks += cost([result])
    blocks += _keys(result)
    return blocks


def _differences(
    control: str, compared: Sequence[Difference], benchmarks: Iterable[str]
) -> list[Block]:
    """Show the pooled differences as a forest plot, and those on each benchmark.

    Few arms have a small plot for each benchmark, and a line for each in the table. Many arms stand
    in the order of their differences, and have a table in which benchmarks are columns.
    """
    pooled = [d for d in compared if d.benchmark is None]
    single = [d for d in compared if d.benchmark is not None]
    many = len(pooled) > MANY
    if many:
        pooled.sort(key=lambda d: -d.estimate.value)
    title = f"Points above {control}"
    whole = "all benchmarks together" if single else next(iter(benchmarks))
    forest = forest_svg(f"{title}, {whole}", [_line(d) for d in pooled], zero=True)
    blocks = [Block(heading=f"Differences from {control}")]
    blocks.append(Block(plot=("difference.svg", forest)))
    if single and not many:
        panels: dict[str, list[Line]] = {}
        for d in single:
            panels.setdefault(d.benchmark or "", []).append(_line(d))
        svg = panels_svg(f"{title}, by benchmark", panels)
        blocks.append(Block(plot=("difference-by-benchmark.svg", svg)))
    rows = [
        [
            d.arm, d.benchmark or "all", points(d.estimate.value),
            interval(d.estimate.low, d.estimate.high), f"{d.p:.2g}",
        ]
        for d in (pooled if many else compared)
    ]  # fmt: skip
    header = ["arm", "benchmark", "points", "95% interval", "p (Holm)"]
    blocks.append(Block(table=(header, rows)))
    if single and many:
        marks = {1: f"\N{NO-BREAK SPACE}{UP}", -1: f"\N{NO-BREAK SPACE}{DOWN}", 0: ""}
        cells = {
            (d.arm, d.benchmark): f"{100 * d.estimate.value:+z.1f}{marks[d.verdict()]}"
            for d in single
        }
        blocks.append(Block(heading="Differences by benchmark"))
        blocks.append(
            Block(
                text=f"Points above {control}. {UP} is better and {DOWN} worse than it, corrected "
                "for the number of arms on this benchmark, and not for the number of benchmarks. "
                "Intervals and p values are in results.json."
            )
        )
        blocks.append(_side_by_side([d.arm for d in pooled], list(benchmarks), cells))
    return blocks


def _line(d: Difference) -> Line:
    e = d.estimate
    return Line(d.arm, 100 * e.value, 100 * e.low, 100 * e.high, d.verdict())


def _side_by_side(
    arms: Sequence[str], benchmarks: Sequence[str], cells: Mapping[tuple[str, str | None], str]
) -> Block:
    """Put arms in rows and benchmarks in columns."""
    rows = [[arm, *(cells.get((arm, name), "") for name in benchmarks)] for arm in arms]
    return Block(table=(["arm", *benchmarks], rows))


def _scores(outcomes: Outcomes, scored: Sequence[Score], base: Sat) -> list[Block]:
    """Show the score of every arm with its errors, and those on each benchmark."""
    many = len(outcomes.arms) > MANY + 1 and len(outcomes.means) > 1
    blocks = [Block(heading="Scores")]
    untrained = f"{base.arm} (untrained)"
    header = ["arm", "benchmark", "right, %", "95% interval", "sampling", "questions", "seeds"]
    whole = "all" if len(outcomes.means) > 1 else next(iter(outcomes.means))
    own = {name: grades.accuracy for name, grades in base.grades.items()}
    if many:
        own = {whole: sum(own.values()) / len(own)} if own else {}
        scored = sorted(scored, key=lambda s: -s.estimate.value)
    rows = [[untrained, name, points(value), "", "", "", ""] for name, value in own.items()]
    for score in scored:
        if many and score.benchmark:
            continue
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
    blocks.append(Block(table=(header, rows)))
    blocks.append(
        Block(
            text="Percent of attempts that are right. The interval is for new questions of the "
            "kind and new seeds; the errors behind it are those of sampling alone, of questions "
            "and sampling, and of seeds."
        )
    )
    if many:
        cells = {(s.arm, s.benchmark): points(s.estimate.value) for s in scored}
        cells |= {(untrained, name): points(g.accuracy) for name, g in base.grades.items()}
        order = [untrained, *(s.arm for s in scored if s.benchmark is None)]
        blocks.append(Block(heading="Scores by benchmark"))
        blocks.append(Block(text="Percent of attempts that are right."))
        blocks.append(_side_by_side(order, list(outcomes.means), cells))
    return blocks


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
    told = (
        result.grades()
        .group_by("arm")
        .agg(
            (pl.col("finish_reason") == "length").sum().alias("cut"),
            (pl.col("verdict") == "unparsed").sum().alias("silent"),
            (pl.col("verdict") == "error").sum().alias("lost"),
            pl.len().alias("attempts"),
            pl.col("completion_tokens").mean().alias("tokens"),
        )
    )
    by_arm = {row["arm"]: row for row in told.iter_rows(named=True)}
    rows = []
    for arm in arms:
        row = by_arm[arm]
        shares = (points(row[name] / row["attempts"]) for name in ("cut", "silent", "lost"))
        rows.append([arm, *shares, "" if row["tokens"] is None else f"{row['tokens']:.0f}"])
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
    examples = _examples(result, _ends(result, arms))
    if examples:
        blocks.append(Block(heading="Rows on which arms differ"))
        blocks.append(Block(table=(["kept by", "dropped by", "why", "text"], examples)))
    return blocks


def _ends(result: Result, arms: Sequence[str]) -> list[str]:
    """Return the control and, of many arms, those of the highest and of the lowest scores."""
    control, *others = arms
    if len(others) <= MANY:
        return list(arms)
    accuracy = {
        arm: fmean(
            g.accuracy for s in result.sat if s.arm == arm and s.student for g in s.grades.values()
        )
        for arm in others
    }
    others.sort(key=lambda arm: -accuracy[arm])
    return [control, *others[:NAMED], *others[-NAMED:]]


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
    students = [s for s in result.sat if s.student]
    blocks = [Block(heading="Keys")]
    if len(result.study.arms) > MANY + 1:
        said = f"Those of {len(students):,} students and of their grades are in results.json."
        return [*blocks, Block(text=f"{_KEYS} {said}")]
    rows = [
        [s.arm, str(s.seed), s.student or "", ", ".join(_grade_keys(s).values())] for s in students
    ]
    return [*blocks, Block(text=_KEYS), Block(table=(["arm", "seed", "student", "grades"], rows))]


_KEYS = "Artifacts in the store from which every number above was made."


def _grade_keys(sat: Sat) -> dict[str, str]:
    """Return benchmark to the artifact of its verdicts."""
    return {name: grades.keys["verify"] for name, grades in sat.grades.items()}


def _facts(result: Result, found: _Found) -> dict[str, Any]:
    """Return the numbers for programs."""
    return {
        "study": result.study.model_dump(mode="json"),
        "verdict": list(found.said),
        "scores": [_plain(asdict(s)) for s in found.scored],
        "differences": [{**_plain(asdict(d)), "verdict": d.verdict()} for d in found.compared],
        "students": [
            {
                "arm": s.arm,
                "seed": s.seed,
                "key": s.student,
                "rows": s.rows,
                "there": s.there,
                "grades": _grade_keys(s),
            }
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
