"""What a method of `dedup` is given and what it finds."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import polars as pl
from pydantic import BaseModel, ConfigDict

from stillroom.rows import Schema
from stillroom.steps.base import Calls, ModelSpec, Runtime
from stillroom.store.table import Table

REPEATS: Schema = {"row": pl.UInt32(), "witness": pl.UInt32(), "score": pl.Float64()}
"""A row to drop, the better row that it repeats (both by rank), and how alike they are."""


@dataclass(frozen=True)
class Ranked:
    """Questions, and which of two is to survive: the one of lower rank.

    Attributes:
        table: The questions.
        rank: For each row, in the order of the table, its rank (UInt32): 0 is the best row.
    """

    table: Table
    rank: pl.Series

    def frames(self, *columns: str) -> Iterator[pl.DataFrame]:
        """Read columns shard after shard, in the order of the table, with ``rank`` beside them."""
        start = 0
        for frame in self.table.frames(*columns):
            yield frame.with_columns(self.rank.slice(start, frame.height).alias("rank"))
            start += frame.height


class Method(BaseModel, ABC):
    """A way to tell that two questions are the same.

    Class attributes:
        REASON: Why its rows are dropped.
        TICKS: Whether `find` tells its progress; else rows count as done when they are written.
        BARE: The field that a bare value stands for, such as 90 in ``indel: 90``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    REASON: ClassVar[str]
    TICKS: ClassVar[bool] = False
    BARE: ClassVar[str | None] = None

    @classmethod
    def shorthand(cls, value: object) -> object:
        """Turn what stands behind the method's name into fields; nothing means the defaults."""
        if value is None:
            return {}
        if cls.BARE is None or isinstance(value, Mapping | Method):
            return value
        return {cls.BARE: value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Return this method with the recipe's models in place of their roles.

        Raises:
            Misfit: If a role is not among the recipe's models.
        """
        return self

    def calls(self, table: Table, rt: Runtime) -> Calls | None:
        """Count what `find` would ask of a model; None if it asks none."""
        return None

    def calls_at_most(self, rows: int) -> Calls | None:
        """Bound what `find` would ask of a model; None if it asks none."""
        return None

    @abstractmethod
    def find(self, rows: Ranked, rt: Runtime) -> pl.DataFrame:
        """Find the rows to drop.

        Returns:
            The columns of `REPEATS`, each row once at most; the witness has the lower rank.
        """
