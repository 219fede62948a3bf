"""`label`: plain measures of a text, kept as columns."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, model_validator

from stillroom.rows import Schema, Shape
from stillroom.steps.base import RowStep
from stillroom.store.artifact import Delta


class Length(BaseModel):
    """How long a text is.

    Attributes:
        of: Column to measure.
        unit: ``characters`` (Unicode code points), ``words`` (runs between white space) or
            ``lines``.
        column: Name of the new column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: str = "question"
    unit: Literal["characters", "words", "lines"] = "characters"
    column: str = "length"

    def expressions(self) -> list[pl.Expr]:
        """Measure; null stays null."""
        text = pl.col(self.of)
        match self.unit:
            case "characters":
                value = text.str.len_chars()
            case "words":
                value = text.str.count_matches(r"\S+")
            case "lines":
                value = text.str.count_matches("\n", literal=True) + 1
        return [value.cast(pl.Int64).alias(self.column)]

    def adds(self) -> Schema:
        """Add one column of integers."""
        return {self.column: pl.Int64()}


class Rules(BaseModel):
    """What plain rules see in a question: each a column of booleans.

    ``has_url``: an address. ``has_figure``: a figure, diagram or image is referred to.
    ``multiple_choice``: options (A) to (C) are offered. ``multi_part``: parts (a) and (b) are
    asked. ``wants_proof``: a proof is asked for.

    Source: the filters of OpenThoughts-114k, widened to whole words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    PATTERNS: ClassVar[Mapping[str, str]] = {
        "has_url": r"(?i)\bhttps?://|\bwww\.",
        "has_figure": r"(?i)\b(figure|diagram|jpe?g|png|svg)\b|!\[|\[asy\]",
        "multiple_choice": r"(?s)\(A\).*\(B\).*\(C\)|(?m)^A[.)] .*(?s:.*)^B[.)] .*(?s:.*)^C[.)] ",
        "multi_part": r"(?s)\(a\).*\(b\)|(?m)^a\) .*(?s:.*)^b\) ",
        "wants_proof": r"(?i)\b(prove|proof|show that)\b",
    }

    def expressions(self) -> list[pl.Expr]:
        """Match each pattern."""
        question = pl.col("question")
        return [question.str.contains(p).alias(name) for name, p in self.PATTERNS.items()]

    def adds(self) -> Schema:
        """Add a column of booleans for each rule."""
        return {name: pl.Boolean() for name in self.PATTERNS}


class Label(RowStep):
    """Measure something and keep it as a column. Nothing is dropped; `keep` does that.

    Exactly one measure is given.

    Attributes:
        length: How long a text is.
        rules: What plain rules see in the question.
    """

    STEP: ClassVar[str] = "label"
    VERSION: ClassVar[int] = 1
    DELTA: ClassVar[Delta] = "columns"
    MEASURES: ClassVar[tuple[str, ...]] = ("length", "rules")

    length: Length | None = None
    rules: Rules | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if isinstance(value, Mapping):  # `rules:` and `length:` with nothing behind them
            return {k: {} if v is None and k in cls.MEASURES else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        given = [name for name in self.MEASURES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given; expected one of "
                f"{', '.join(self.MEASURES)}"
            )
        return self

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as a measure with its defaults."""
        return {value: {}} if isinstance(value, str) else value

    def identity(self) -> dict[str, Any]:
        """Return the measure that was given."""
        return {k: v for k, v in super().identity().items() if v is not None}

    @property
    def _measure(self) -> Length | Rules:
        measure = self.length or self.rules
        assert measure is not None
        return measure

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the text that is measured."""
        return (self.length.of,) if self.length else ("question",)

    def adds(self, shape: Shape) -> Schema:
        """Add the measure's columns."""
        return self._measure.adds()

    def shard(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Measure one shard."""
        return frame.select("id", *self._measure.expressions())
