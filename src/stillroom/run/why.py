"""The whole story of a row: where it came from, what was measured, and where and why it left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from stillroom.rows import DROP
from stillroom.run.runner import Built
from stillroom.store.artifact import Artifact, ShardFile

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
        for file in _files(step.artifact, lost=False):
            frame = pl.scan_parquet(step.artifact.path / file.name).filter(matches)
            for row_id in frame.select("id").head(LIMIT).collect()["id"]:
                found[row_id] = None
        for file in _files(step.artifact, lost=True):
            lost = pl.scan_parquet(step.artifact.path / file.name)
            lost = lost.filter(pl.col("id").str.starts_with(text))
            found.update(dict.fromkeys(lost.select("id").head(LIMIT).collect()["id"]))
    return list(found)[:LIMIT]


def story(built: Sequence[Built], row_id: str) -> Iterator[Event]:
    """Tell what each step says of a row, in the order of the recipe."""
    for step in built:
        delta = step.artifact.manifest.delta
        what = {"rows": "row", "columns": "columns", "drops": "dropped"}[delta]
        for lost in (False, True):
            for values in _lookup(step.artifact, "id", row_id, lost=lost):
                del values["id"]
                yield Event(step.path, "lost" if lost else what, values)


def answers_to(built: Sequence[Built], question_id: str) -> list[str]:
    """List the ids of the answers to a question, in order of draw."""
    ids: dict[str, None] = {}
    for step in built:
        if step.artifact.manifest.kind == "answers":
            for row in _lookup(step.artifact, "question_id", question_id, lost=False):
                ids[row["id"]] = None
    return list(ids)


def drops_of(artifact: Artifact, number: int) -> pl.DataFrame:
    """Return the first rows that a step dropped or lost, with reason, score and witness."""
    files = _files(artifact, lost=artifact.manifest.delta != "drops")
    if artifact.manifest.delta == "columns" or not files:
        return pl.DataFrame(schema=dict(DROP))
    scans = [pl.scan_parquet(artifact.path / file.name) for file in files]
    return pl.concat(scans).head(number).collect()


def question_text(built: Sequence[Built], row_id: str) -> str | None:
    """Return the text of a question."""
    for step in built:
        if step.artifact.manifest.kind == "questions":
            for row in _lookup(step.artifact, "id", row_id, lost=False):
                return str(row["question"])
    return None


def _lookup(artifact: Artifact, column: str, value: str, *, lost: bool) -> Iterator[dict[str, Any]]:
    for file in _files(artifact, lost=lost):
        frame = pl.scan_parquet(artifact.path / file.name).filter(pl.col(column) == value)
        yield from frame.collect().iter_rows(named=True)


def _files(artifact: Artifact, *, lost: bool) -> list[ShardFile]:
    shards = artifact.manifest.shards
    return [f for s in shards if (f := s.lost if lost else s.data) is not None and f.rows]
