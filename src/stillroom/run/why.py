"""The whole story of a row: where it came from, what was measured, and where and why it left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from stillroom.run.runner import Built
from stillroom.store.artifact import Artifact

LIMIT = 20
"""Rows that a text fragment may find, at most."""


@dataclass(frozen=True)
class Event:
    """What one step says of a row.

    Attributes:
        path: The step.
        what: ``row``, ``columns``, ``dropped`` or ``lost``.
        values: The columns that the step wrote for it.
    """

    path: str
    what: str
    values: dict[str, Any]


def find_rows(built: Sequence[Built], text: str) -> list[str]:
    """Find the ids of rows whose question or answer contains a text, or whose id starts with it.

    At most `LIMIT` ids, in row order, questions first.
    """
    found: dict[str, None] = {}
    for step in built:
        if step.artifact.manifest.delta != "rows":
            continue
        column = "question" if step.artifact.manifest.kind == "questions" else "answer"
        matches = pl.col("id").str.starts_with(text) | pl.col(column).str.contains(
            text, literal=True
        )
        lost = step.artifact.scan_lost().filter(pl.col("id").str.starts_with(text))
        for rows in (step.artifact.scan_all().filter(matches), lost):
            found.update(dict.fromkeys(rows.select("id").head(LIMIT).collect()["id"]))
    return list(found)[:LIMIT]


def story(built: Sequence[Built], row_id: str) -> Iterator[Event]:
    """Tell what each step says of a row, in the order of the recipe."""
    for step in built:
        delta = step.artifact.manifest.delta
        what = {"rows": "row", "columns": "columns", "drops": "dropped"}[delta]
        for name, rows in ((what, step.artifact.scan_all()), ("lost", step.artifact.scan_lost())):
            for values in _lookup(rows, "id", row_id):
                del values["id"]
                yield Event(step.path, name, values)


def answers_to(built: Sequence[Built], question_id: str) -> list[str]:
    """List the ids of the answers to a question, in order of draw."""
    ids: dict[str, None] = {}
    for step in built:
        if step.artifact.manifest.kind == "answers":
            for row in _lookup(step.artifact.scan_all(), "question_id", question_id):
                ids[row["id"]] = None
    return list(ids)


def drops_of(artifact: Artifact, number: int) -> pl.DataFrame:
    """Return the first rows that a step dropped or lost, with reason, score and witness."""
    is_drops = artifact.manifest.delta == "drops"
    rows = artifact.scan_all() if is_drops else artifact.scan_lost()
    return rows.head(number).collect()


def text_of(built: Sequence[Built], row_id: str) -> str | None:
    """Return the text of a question, or of an answer; None if no step wrote the row."""
    for step in built:
        if kind := step.artifact.manifest.kind:
            for row in _lookup(step.artifact.scan_all(), "id", row_id):
                return str(row["question" if kind == "questions" else "answer"])
    return None


def _lookup(rows: pl.LazyFrame, column: str, value: str) -> Iterator[dict[str, Any]]:
    yield from rows.filter(pl.col(column) == value).collect().iter_rows(named=True)
