"""One model on one benchmark: the score with its errors, and what several attempts are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from stillroom.evaluate.grade import Exam, Grades
from stillroom.study.statistics.attempts import majority, pass_at_k
from stillroom.study.statistics.comparing import Score, scores
from stillroom.study.statistics.errors import Estimate, wilson
from stillroom.study.statistics.outcomes import Outcomes
from stillroom.text.normal import normal_form


@dataclass(frozen=True)
class Scorecard:
    """How a model did on a benchmark, or on a part of its items.

    Attributes:
        benchmark: Its name.
        items: Items that count.
        repeats: Attempts per item; the score is their mean (avg@k).
        score: With its errors: of sampling (other attempts at these items) and of questions (other
            items of the kind).
        any_right: Chance that at least one of ``repeats`` attempts is right (pass@k), over items;
            None with one attempt.
        majority: Share of items of which the most usual final answer is right, ties split; None
            with fewer than three attempts, and where answers are programs. Right answers count as
            one whatever their form, wrong ones by their text.
        cut: Share of attempts that the limit of tokens cut off.
        silent: Share of attempts without a final answer that could be read.
        failed: Attempts that got no reply, or that no verifier could decide.
        tokens: Mean completion tokens of an attempt; None where the server counts none.
    """

    benchmark: str
    items: int
    repeats: int
    score: Score
    any_right: float | None
    majority: float | None
    cut: float
    silent: float
    failed: int
    tokens: float | None


def scorecard(exam: Exam, grades: Grades, table: pl.DataFrame | None = None) -> Scorecard:
    """Sum up a sitting.

    Args:
        exam: What was sat.
        grades: Its grades.
        table: The attempts that count, of one item or more; all when None.
    """
    table = grades.table if table is None else table
    labels = {"arm": "", "seed": 0, "benchmark": exam.name}
    labelled = table.with_columns(**{name: pl.lit(value) for name, value in labels.items()})
    score = _score(labelled)
    by_item = table.sort("item", "repeat").group_by("item", maintain_order=True)
    attempts = by_item.agg("score", "extracted", "verdict")
    n, tokens = exam.repeats, table["completion_tokens"].drop_nulls()
    passed = [pass_at_k(n, right.count(1.0), n) for right in attempts["score"].to_list()]
    votes = [_vote(*row) for row in attempts.drop("item").iter_rows()]
    return Scorecard(
        benchmark=exam.name,
        items=attempts.height,
        repeats=n,
        score=score,
        any_right=_mean(passed) if n > 1 else None,
        majority=_mean(votes) if n > 2 and exam.verify != "code" else None,
        cut=_share(table, "finish_reason", "length"),
        silent=_share(table, "verdict", "unparsed"),
        failed=table.filter(pl.col("verdict") == "error").height,
        tokens=float(tokens.sum()) / tokens.len() if tokens.len() else None,
    )


def _score(table: pl.DataFrame) -> Score:
    if table["item"].n_unique() > 1:
        (score,) = scores(Outcomes.of(table, [""]))
        return score
    # One item says nothing of others; the interval is that of a single trial.
    value = float(table["score"].to_numpy().mean())
    low, high = wilson(value, 1)
    return Score(
        "", None, Estimate(value, math.nan, low, high, math.nan), math.nan, math.nan, math.nan
    )


def _vote(right: list[float], texts: list[str | None], verdicts: list[str]) -> float:
    """Grade the vote of an item's attempts."""
    answers = [
        None if text is None or verdict not in ("correct", "incorrect")
        else "" if verdict == "correct"  # all right answers are one
        else f"={normal_form(text)}"
        for text, verdict in zip(texts, verdicts, strict=True)
    ]  # fmt: skip
    return majority(answers, [one == 1.0 for one in right])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _share(table: pl.DataFrame, column: str, value: str) -> float:
    return table.filter(pl.col(column) == value).height / table.height
