"""What a row is: the columns of questions and answers, and how rows are named.

An id is a content hash, so it is the same in every run and on every machine, and never a row
number: filters would make row numbers slip.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

import polars as pl

Kind = Literal["questions", "answers"]
Schema = Mapping[str, pl.DataType]

QUESTION: Schema = {
    "id": pl.String(),
    "domain": pl.String(),
    "source": pl.String(),
    "licence": pl.String(),
    "question": pl.String(),
    "reference": pl.String(),
    "row": pl.Int64(),
}
"""A question: ``reference`` is its known answer or null; ``row`` its place in the source."""

TESTS: Schema = {"tests": pl.String()}
"""Of questions that ask for a program, where the source has tests: JSON text, or null; its form is
described in `stillroom.verifiers.code_tests`. Questions of other sources lack the column."""

ANSWER: Schema = {
    "id": pl.String(),
    "question_id": pl.String(),
    "draw": pl.Int32(),
    "teacher": pl.String(),
    "reasoning": pl.String(),
    "answer": pl.String(),
    "finish_reason": pl.String(),
    "prompt_tokens": pl.Int32(),
    "completion_tokens": pl.Int32(),
}
"""An answer: one draw of one teacher for one question, its thinking apart. Tokens are null where
the server did not count them."""

DROP: Schema = {
    "id": pl.String(),
    "reason": pl.String(),
    "score": pl.Float64(),
    "witness": pl.String(),
}
"""A dropped row: why, by how much, and the row or benchmark item that it lost to."""


def is_plain(column: str) -> bool:
    """Tell whether a name means one column: ``*`` and ``^...$`` stand for many.

    >>> is_plain("a b"), is_plain("*"), is_plain("^a.*$")
    (True, False, False)
    """
    return column not in ("", "*") and not (column.startswith("^") and column.endswith("$"))


def content_id(*parts: str | int | None) -> str:
    """Name content by a hash of its parts: 32 hexadecimal digits.

    >>> content_id("a", "b") == content_id("ab", "")
    False
    """
    state = blake2b(digest_size=16)
    for part in parts:
        raw = b"\x00" if part is None else str(part).encode("utf-8", "surrogatepass")
        state.update(len(raw).to_bytes(8, "little") + (b"n" if part is None else b"s") + raw)
    return state.hexdigest()


@dataclass(frozen=True)
class Shape:
    """What is known of a table before it exists: its kind and its columns.

    Attributes:
        kind: ``questions`` or ``answers``.
        columns: Name to type. A type of ``pl.Unknown`` is a column of a source, known by name.
    """

    kind: Kind
    columns: Schema = field(default_factory=dict)

    def plus(self, columns: Schema) -> "Shape":
        """Return this shape with more columns."""
        return Shape(self.kind, {**self.columns, **columns})


def dropped(
    ids: "pl.Series | list[str]",
    reason: "str | list[str] | pl.Series",
    *,
    score: "float | pl.Series | None" = None,
    witness: "str | list[str] | pl.Series | None" = None,
    place: "pl.Series | None" = None,
) -> pl.DataFrame:
    """Make a frame of drops; a scalar holds for every row.

    Args:
        ids: Rows that are dropped.
        reason: Why.
        score: By how much.
        witness: What each row lost to.
        place: Number of each row in its table, from 0, for a column of that name.
    """
    frame = pl.DataFrame({"id": pl.Series(ids, dtype=pl.String)})

    def column(value: object, name: str, dtype: pl.DataType) -> pl.Expr | pl.Series:
        if isinstance(value, list | pl.Series):
            return pl.Series(name, value, dtype=dtype)
        return pl.lit(value, dtype=dtype).alias(name)

    return frame.with_columns(
        column(reason, "reason", pl.String()),
        column(score, "score", pl.Float64()),
        column(witness, "witness", pl.String()),
        *([] if place is None else [place.alias("place")]),
    )
