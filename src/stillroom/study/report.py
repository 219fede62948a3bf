"""The report of a study: one Markdown file and one self-contained HTML file.

Nothing in them speaks of times or machines but the section on cost.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.run.runner import Built, after
from stillroom.store.artifact import Artifact
from stillroom.study.forest import Line, forest_svg
from stillroom.study.page import Block, write
from stillroom.study.run import Result, Sat
from stillroom.study.statistics import (
    Difference,
    Outcomes,
    Score,
    decision_accuracy,
    differences,
    means,
    scores,
)
from stillroom.study.verdict import interval, points, verdict

EXAMPLES = 3
"""Rows shown for each arm."""


def write_report(result: Result, folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, their plots and ``results.json``.

    Args:
        result: A study that was run.
        folder: Where they go; files of an older report are replaced.

    Returns:
        What was written.

    Raises:
        StoreError: If the folder cannot be written.
    """
    arms = [arm for arm in result.study.arms if not _failed(result, arm)]
    if len(arms) < 2 or arms[0] != result.study.control:
        blocks = [*_opening(result), Block(text="Too few arms were trained to compare any.")]
        facts: dict[str, Any] = {}
    else:
        grades = result.grades().filter(pl.col("arm").is_in(arms))
        outcomes = Outcomes.of(grades, arms)
        blocks = _blocks(result, outcomes)
        facts = _facts(result, outcomes)
    return write(folder, result.study.question, blocks, facts)


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
    return blocks


def _blocks(result: Result, outcomes: Outcomes) -> list[Block]:
    study = result.study
    scored, compared = scores(outcomes), differences(outcomes)
    size = f"{study.rows:,} rows" if study.rows else f"{study.tokens:,} answer tokens"
    blocks = _opening(result)
    blocks.append(Block(points=verdict(study, outcomes)))
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    blocks.append(
        Block(
            text=f"Students: {study.student.model}, trained on {size} each by the trainer "
            f"{study.student.trainer}; {seeds} of every arm. What holds for this student at this "
            "size need not hold for another."
        )
    )
    blocks += _difference_plots(study.control, compared)
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
    blocks += _likelihood(result, outcomes)
    blocks += _attempts(result, list(outcomes.arms))
    blocks += _sources_of_difference(result, list(outcomes.arms))
    blocks += _cost(result, list(outcomes.arms))
    blocks += _keys(result)
    return blocks


def _difference_plots(control: str, compared: Sequence[Difference]) -> list[Block]:
    """Draw a forest plot of the pooled differences, and a small one for each benchmark."""
    blocks = [Block(heading=f"Differences from {control}")]
    for benchmark in dict.fromkeys(d.benchmark for d in compared):
        here = [d for d in compared if d.benchmark == benchmark]
        lines = [
            Line(
                d.arm,
                100 * d.estimate.value,
                100 * d.estimate.low,
                100 * d.estimate.high,
                d.verdict(),
            )
            for d in here
        ]
        where = benchmark or "all benchmarks together"
        svg = forest_svg(f"Points above {control}, {where}", lines, zero=True)
        name = f"difference{'-' + _slug(benchmark) if benchmark else ''}.svg"
        blocks.append(Block(plot=(name, svg)))
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
    found = Outcomes.of(table.filter(pl.col("arm").is_in(outcomes.arms)), outcomes.arms)
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


def _attempts(result: Result, arms: Sequence[str]) -> list[Block]:
    """Tell how attempts ended, because a score that is cut by length is another thing."""
    grades = result.grades()
    rows = []
    for arm in arms:
        here = grades.filter(pl.col("arm") == arm)
        cut = here.filter(pl.col("finish_reason") == "length").height / here.height
        silent = here.filter(pl.col("verdict") == "unparsed").height / here.height
        tokens = here["completion_tokens"].drop_nulls()
        mean = f"{tokens.sum() / tokens.len():.0f}" if tokens.len() else ""
        rows.append([arm, points(cut), points(silent), mean])
    header = ["arm", "cut by length, %", "without an answer, %", "tokens per attempt"]
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
        blocks.append(Block(table=(["arm", "dropped by", "why", "text"], examples)))
    return blocks


def _examples(result: Result, arms: Sequence[str]) -> list[list[str]]:
    """Find rows that one arm dropped in a step that another arm does not have."""
    keys = {arm: {b.artifact.manifest.key for b in result.built[arm, 0]} for arm in arms}
    everywhere = set.intersection(*keys.values())
    rows = []
    for arm in arms:
        found = 0
        for built in result.built[arm, 0]:
            manifest = built.artifact.manifest
            if manifest.delta != "drops" or manifest.key in everywhere or found >= EXAMPLES:
                continue
            for example_id, reason in _dropped(built.artifact, EXAMPLES - found):
                text = _text_of(result.built[arm, 0], built, example_id)
                rows.append([arm, built.path, reason, _shorten(text)])
                found += 1
    return rows


def _dropped(artifact: Artifact, n: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for shard in artifact.manifest.shards:
        if shard.data and shard.data.rows and len(found) < n:
            frame = pl.read_parquet(artifact.path / shard.data.name, columns=["id", "reason"])
            found += [(str(i), str(r)) for i, r in frame.head(n - len(found)).iter_rows()]
    return found


def _text_of(steps: Sequence[Built], built: Built, row_id: str) -> str:
    """Return the question, and the answer if there is one, of a row that a step dropped."""
    by_path = {b.path: b for b in steps}

    def table(path: str) -> Any:
        at = by_path[path]
        return after([table(p) for p in at.inputs], at.artifact)

    before = table(built.inputs[0])
    columns = ["id", "question", *(["answer"] if before.kind == "answers" else [])]
    for frame in before.frames(*columns):
        match = frame.filter(pl.col("id") == row_id)
        if match.height:
            return " → ".join(str(value) for value in match.row(0)[1:])
    return ""


def _cost(result: Result, arms: Sequence[str]) -> list[Block]:
    """Add up what was spent, each artifact once, and say what sharing saved."""
    once: dict[str, Mapping[str, Any]] = {}
    apart: Counter[str] = Counter()
    for steps in result.built.values():
        for built in steps:
            once[built.artifact.manifest.key] = built.artifact.manifest.measured
            apart.update(_spent(built.artifact.manifest.measured))
    shared: Counter[str] = Counter()
    for measured in once.values():
        shared.update(_spent(measured))
    training = sum(s.seconds for s in {s.student: s for s in result.sat if s.student}.values())
    names = {
        "asked": "completions asked for", "completion_tokens": "completion tokens bought",
        "usd": "US dollars", "seconds": "seconds of steps",
    }  # fmt: skip
    rows = [
        [words, f"{shared[name]:,.6g}", f"{apart[name]:,.6g}"]
        for name, words in names.items()
        if apart[name]
    ]
    students = sum(1 for s in result.sat if s.student)
    different = len({s.student for s in result.sat if s.student})
    rows.append(["students trained", f"{different:,}", f"{students:,}"])
    rows.append(["seconds of training", f"{training:,.0f}", ""])
    header = ["", "spent", "if no arm shared anything"]
    return [Block(heading="Cost"), Block(table=(header, rows))]


def _spent(measured: Mapping[str, Any]) -> dict[str, float]:
    asked = (measured.get("calls") or 0) + (measured.get("reused") or 0)
    return {
        "asked": asked,
        "completion_tokens": measured.get("completion_tokens") or 0,
        "usd": measured.get("usd") or 0,
        "seconds": measured.get("seconds") or 0,
    }


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
