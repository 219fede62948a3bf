"""A measure: one thing that `label` can find out about a row, kept as columns.

A measure is what stands behind the word in `label: {WORD: ...}`: fields that say what to measure,
and a function of one shard. What all shards share (bought replies, a trained classifier, worker
processes) is prepared once, before the first shard is written.
"""

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, model_validator

from stillroom.rows import Schema
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise
from stillroom.store.table import Table

Frames = Callable[[], Iterator[pl.DataFrame]]
"""Reads the shards to measure, anew at each call: ``id`` and the columns of `reads`."""


class Measure(BaseModel, ABC):
    """What a measure is.

    Class attributes:
        ASKS: Whether a model is asked. Then progress counts replies instead of rows, and rows
            without a value are counted in the notes.
        GROUPS: Whether the draws of a question are looked at together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    ASKS: ClassVar[bool] = False
    GROUPS: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if value is None:
            return {}
        return value if isinstance(value, Mapping | Measure) else cls.shorthand(value)

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Turn what stands after the measure's word into fields, where it is not a mapping."""
        return value

    def identity(self) -> dict[str, Any]:
        """Return what enters the key beside the fields, such as the wording of a prompt."""
        return {}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Return this measure with the recipe's models in place of their roles.

        Raises:
            Misfit: If a role is not among the recipe's models.
        """
        return self

    def outside(self, rt: Runtime) -> str | None:
        """Digest the content that comes from outside the store, such as example files."""
        return None

    def named(self) -> Sequence[str]:
        """Name the sets of examples, for which local files can stand in."""
        return ()

    @abstractmethod
    def reads(self) -> Sequence[str]:
        """Name the columns that are measured."""

    @abstractmethod
    def adds(self) -> Schema:
        """Name and type the new columns."""

    @abstractmethod
    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Open what all shards share, and yield the function of one shard.

        Args:
            frames: Reads what is to be measured.
            rt: Where and how.
            tally: Counts rows without a value, by the reason for it.
        """
        yield  # type: ignore[misc]  # the types of an abstract generator

    def notes(self, table: Table) -> list[str]:
        """Say what a reader of the dataset card should know of the measure, a sentence each."""
        return []

    def calls(self, table: Table, rt: Runtime) -> Calls | None:
        """Count the completions that measuring a table would ask for; None if it asks no model."""
        return None

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound the completions for so many rows; None if it asks no model."""
        return None


class Plain(Measure):
    """A measure that is an expression over the row's own columns."""

    @abstractmethod
    def expressions(self) -> list[pl.Expr]:
        """Return an expression for each column of `adds`; null stays null."""

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Evaluate the expressions."""
        yield lambda frame: frame.select("id", *self.expressions())
