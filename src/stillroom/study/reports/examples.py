"""Rows that one arm kept and another dropped: what a difference between arms looks like."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import polars as pl

from stillroom.rows import Kind
from stillroom.run.runner import Built, after
from stillroom.store.table import Table

CHANCE = "not_drawn"
"""The reason of a random draw, which says nothing about a row: shown only for want of others."""


@dataclass(frozen=True)
class Contrast:
    """A row that is in the end of one arm, and was dropped by a step of another.

    Attributes:
        step: Path of the step that dropped it.
        reason: Why.
        text: The question; where an answer was dropped, also the answer.
    """

    step: str
    reason: str
    text: str


class Chain:
    """The steps of one arm, and the tables between them.

    Args:
        steps: In the order in which they ran.
    """

    def __init__(self, steps: Sequence[Built]) -> None:
        self._steps = {built.path: built for built in steps}
        read = {path for built in steps for path in built.inputs}
        self._ends = [path for path in self._steps if path not in read]
        self.table = cache(self._table)

    def _table(self, path: str) -> Table:
        built = self._steps[path]
        return after([self.table(p) for p in built.inputs], built.artifact)

    def kept(self, kind: Kind) -> pl.LazyFrame:
        """Return the ``id`` of every question or answer that is left at the end."""
        ids = []
        for path in self._ends:
            table = self.table(path)
            column = "question_id" if kind == "questions" and table.kind == "answers" else "id"
            ids.append(table.scan(column).select(pl.col(column).alias("id")))
        return pl.concat(ids).unique()

    def drops(self) -> Iterator[Built]:
        """Yield the steps that dropped rows."""
        for built in self._steps.values():
            if built.artifact.manifest.delta == "drops" and built.artifact.manifest.drops:
                yield built

    def before(self, built: Built) -> Table:
        """Return the table that a step read."""
        return self.table(built.inputs[0])


def contrasts(kept_by: Chain, dropped_by: Chain, n: int) -> list[Contrast]:
    """Find rows that one arm kept and the other dropped, of as many reasons as there are.

    Args:
        kept_by: The arm that has them at its end.
        dropped_by: The arm whose steps dropped them.
        n: Rows at most.
    """
    found: list[tuple[Built, str, str]] = []
    for built in dropped_by.drops():
        left = kept_by.kept(dropped_by.before(built).kind)
        gone = (
            built.artifact.scan_all()
            .select("id", "reason")
            .join(left, on="id", how="semi", maintain_order="left")
        )
        firsts = gone.unique("reason", keep="first", maintain_order=True).head(n).collect()
        found += [(built, str(reason), str(row)) for row, reason in firsts.iter_rows()]
    found.sort(key=lambda one: one[1] == CHANCE)
    return [
        Contrast(built.path, reason, _text(dropped_by.before(built), row))
        for built, reason, row in found[:n]
    ]


def _text(table: Table, row_id: str) -> str:
    columns = ["question", *(["answer"] if table.kind == "answers" else [])]
    for frame in table.frames("id", *columns):
        match = frame.filter(pl.col("id") == row_id)
        if match.height:
            return " → ".join(str(value) for value in match.row(0)[1:] if value)
    return ""
