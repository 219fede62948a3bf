"""Scores of a study on the items that training data do not ask, beside those on all items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from stillroom.study.reports.page import Block
from stillroom.study.reports.verdict import interval, points
from stillroom.study.statistics.comparing import differences, scores
from stillroom.study.statistics.outcomes import Outcomes

if TYPE_CHECKING:
    from stillroom.study.result import Result


def without_suspects(result: Result, outcomes: Outcomes) -> list[Block]:
    """Compare arms on clean items alone; nothing where the study does not ask for it.

    Raises:
        SourceError: If another file of a benchmark was searched than is sat.
    """
    suspects = result.suspects
    if suspects is None:
        return []
    kept: dict[str, pl.Series] = {}
    said = []
    for name, grades in result.sat[0].grades.items():
        clean = suspects.clean(name, grades)
        if clean is None:
            said.append(f"{name}: nobody searched for its items.")
            continue
        items, left = grades.table["item"].n_unique(), clean["item"].n_unique()
        said.append(f"{name}: {items - left:,} of {items:,} items are asked.")
        if 1 < left < items:
            kept[name] = clean["item"].unique()
    blocks = [
        Block(heading="Without contaminated items"),
        Block(text=f"Benchmark items that training data ask, as known from {suspects.where}."),
        Block(points=said),
    ]
    if not kept:
        return blocks
    rows = [row for name, items in kept.items() for row in _rows(result, outcomes, name, items)]
    header = [
        "arm", "benchmark", "all items, %", "clean items, %", "95% interval",
        "clean, above control", "95% interval",
    ]  # fmt: skip
    return [*blocks, Block(table=(header, rows))]


def _rows(result: Result, outcomes: Outcomes, name: str, items: pl.Series) -> list[list[str]]:
    """Score and compare every arm on the clean items of one benchmark."""
    grades = result.grades().filter(pl.col("arm").is_in(outcomes.arms))
    here = grades.filter((pl.col("benchmark") == name) & pl.col("item").is_in(items.implode()))
    clean = Outcomes.of(here, outcomes.arms)
    above = {d.arm: d.estimate for d in differences(clean)}
    rows = []
    for arm, score, all_items in zip(
        outcomes.arms, scores(clean), outcomes.means[name].mean(axis=(1, 2)), strict=True
    ):
        own = score.estimate
        cells = [
            arm,
            name,
            points(float(all_items)),
            points(own.value),
            interval(own.low, own.high),
        ]
        if arm in above:
            cells += [points(above[arm].value), interval(above[arm].low, above[arm].high)]
        rows.append(cells + [""] * (7 - len(cells)))
    return rows
