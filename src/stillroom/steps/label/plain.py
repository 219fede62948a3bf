"""Measures that need nothing but the text: `length` and `rules`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import polars as pl

from stillroom.rows import Schema
from stillroom.steps.label.measure import Plain


class Length(Plain):
    """How long a text is.

    Attributes:
        of: Column to measure, or several that count together, such as ``[reasoning, answer]``. Of
            several, a null counts as nothing; if all are null, so is the length.
        unit: ``characters`` (Unicode code points), ``words`` (runs between white space) or
            ``lines``.
        column: Name of the new column.
    """

    of: str | tuple[str, ...] = "question"
    unit: Literal["characters", "words", "lines"] = "characters"
    column: str = "length"

    def reads(self) -> Sequence[str]:
        """Read the text."""
        return (self.of,) if isinstance(self.of, str) else self.of

    def adds(self) -> Schema:
        """Add one column of integers."""
        return {self.column: pl.Int64()}

    def expressions(self) -> list[pl.Expr]:
        """Measure; null stays null."""
        lengths = [self._length(pl.col(name)).cast(pl.Int64) for name in self.reads()]
        known = pl.any_horizontal(length.is_not_null() for length in lengths)
        return [pl.when(known).then(pl.sum_horizontal(lengths)).alias(self.column)]

    def _length(self, text: pl.Expr) -> pl.Expr:
        match self.unit:
            case "characters":
                return text.str.len_chars()
            case "words":
                return text.str.count_matches(r"\S+")
            case "lines":
                return text.str.count_matches("\n", literal=True) + 1


class Rules(Plain):
    """What plain rules see in a question: each a column of booleans.

    ``has_url``: an address. ``has_figure``: a figure, diagram or image is referred to.
    ``multiple_choice``: options (A) to (C) are offered. ``multi_part``: parts (a) and (b) are
    asked. ``wants_proof``: a proof is asked for. ``no_reference``: the known answer is missing.

    Source: the filters of OpenThoughts-114k, widened to whole words.
    """

    PATTERNS: ClassVar[Mapping[str, str]] = {
        "has_url": r"(?i)\bhttps?://|\bwww\.",
        "has_figure": r"(?i)\b(figure|diagram|jpe?g|png|svg)\b|!\[|\[asy\]",
        "multiple_choice": r"(?s)\(A\).*\(B\).*\(C\)|(?m)^A[.)] .*(?s:.*)^B[.)] .*(?s:.*)^C[.)] ",
        "multi_part": r"(?s)\(a\).*\(b\)|(?m)^a\) .*(?s:.*)^b\) ",
        "wants_proof": r"(?i)\b(prove|proof|show that)\b",
    }

    def reads(self) -> Sequence[str]:
        """Read the question and its reference."""
        return ("question", "reference")

    def adds(self) -> Schema:
        """Add a column of booleans for each rule."""
        return {name: pl.Boolean() for name in (*self.PATTERNS, "no_reference")}

    def expressions(self) -> list[pl.Expr]:
        """Match each pattern."""
        question, reference = pl.col("question"), pl.col("reference")
        missing = reference.is_null() | (reference.str.strip_chars() == "")
        return [
            *(question.str.contains(p).alias(name) for name, p in self.PATTERNS.items()),
            missing.fill_null(value=True).alias("no_reference"),
        ]
