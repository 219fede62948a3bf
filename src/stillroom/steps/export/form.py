"""The form of a dataset: its columns, and how a conversation is written."""

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from stillroom.rows import QUESTION, Kind, Schema, Shape
from stillroom.steps.base import Misfit
from stillroom.steps.export.facts import Teacher
from stillroom.text.think import CLOSE, OPEN

FIRST: Mapping[Kind, Sequence[str]] = {
    "answers": (
        "id", "question_id", "domain", "source", "licence", "row", "teacher", "draw",
        "finish_reason", "prompt_tokens", "completion_tokens", "reference", "verdict", "extracted",
    ),
    "questions": tuple(QUESTION),
}  # fmt: skip
"""Columns that come first, where they are there; all others follow in the order of the table."""

INSIDE = ("question", "reasoning", "answer")
"""Columns of answers that the conversation holds."""


class Export(BaseModel):
    """How the dataset is written: the ``export`` block of a recipe.

    Attributes:
        format: ``sharegpt``: a column ``conversations`` with turns of ``from`` (human, gpt) and
            ``value``, as in OpenThoughts. ``messages``: a column ``messages`` with turns of
            ``role`` (user, assistant) and ``content``.
        think: Where the reasoning goes. ``tags``: before the answer, inside ``<think>``. ``field``:
            beside it, as ``reasoning_content`` of the assistant's message, or, for sharegpt, as a
            column ``reasoning``. ``none``: it is left out.
        system: Whether the teacher's system prompt becomes the first turn.
        title: Heading of the card; the recipe's name if none is given.
        licence: Licence of the dataset, as the hub names it. By default the licence that all rows
            share, or ``other``.
        language: Codes of the languages of the text, such as ``en``.
        file_mb: Raw text per Parquet file, in MB; about 40% of it on disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["sharegpt", "messages"] = "sharegpt"
    think: Literal["tags", "field", "none"] = "tags"
    system: bool = False
    title: str | None = Field(None, min_length=1)
    licence: str | None = Field(None, min_length=1)
    language: tuple[str, ...] = ()
    file_mb: int = Field(256, ge=1, le=2_000)

    @property
    def turns(self) -> str:
        """Name of the column of the conversation."""
        return "conversations" if self.format == "sharegpt" else "messages"

    def columns(self, shapes: Mapping[str, Shape]) -> Schema:
        """Return the columns of a dataset of these domains, in order.

        Raises:
            Misfit: If the domains do not fit into one dataset.
        """
        kinds = {shape.kind for shape in shapes.values()}
        if len(kinds) != 1:
            words = ", ".join(f"{domain} in {shape.kind}" for domain, shape in shapes.items())
            raise Misfit(f"domains end in different kinds of rows ({words}); expected one kind")
        (kind,) = kinds
        columns: dict[str, pl.DataType] = {}
        for domain, shape in shapes.items():
            for name, dtype in shape.columns.items():
                if kind == "answers" and name in INSIDE:
                    continue
                known = columns.get(name, pl.Null())
                if pl.Null() not in (known, dtype) and known != dtype:
                    raise Misfit(
                        f"domain {domain} has the column {name!r} as {dtype}, another domain as "
                        f"{known}; expected one type. Rename one of them"
                    )
                columns[name] = dtype if known == pl.Null() else known
        made = self._made(kind)
        for name in made:
            if name in columns:
                raise Misfit(
                    f"a column is called {name!r}, which `export` writes itself; "
                    "expected another name. Rename it, or leave it out of the source's columns"
                )
        first = [name for name in FIRST[kind] if name in columns]
        return {name: columns[name] for name in dict.fromkeys([*first, *columns])} | made

    def _made(self, kind: Kind) -> dict[str, pl.DataType]:
        if kind == "questions":
            return {}
        keys = ["from", "value"] if self.format == "sharegpt" else ["role", "content"]
        made: dict[str, pl.DataType] = {}
        if self.think == "field":
            if self.format == "sharegpt":
                made["reasoning"] = pl.String()
            else:
                keys.append("reasoning_content")
        return {**made, self.turns: pl.List(pl.Struct(dict.fromkeys(keys, pl.String())))}

    def conversation(self, teacher: Teacher) -> pl.Expr:
        """Write the turns of each answer: the words that the teacher was asked, and its own."""
        question = pl.concat_str(pl.lit(teacher.prefix), "question", pl.lit(teacher.suffix))
        answer = pl.col("answer")
        if self.think == "tags":
            tagged = pl.format(f"{OPEN}\n{{}}\n{CLOSE}\n\n{{}}", "reasoning", "answer")
            answer = pl.when(pl.col("reasoning").is_null()).then(answer).otherwise(tagged)
        turns = [self._turn("user", question), self._turn("assistant", answer)]
        if self.system and teacher.system:
            turns.insert(0, self._turn("system", pl.lit(teacher.system)))
        return pl.concat_list(turns).alias(self.turns)

    def _turn(self, role: Literal["system", "user", "assistant"], text: pl.Expr) -> pl.Expr:
        if self.format == "sharegpt":
            speaker = {"system": "system", "user": "human", "assistant": "gpt"}[role]
            return pl.struct(pl.lit(speaker).alias("from"), text.alias("value"))
        fields = [pl.lit(role).alias("role"), text.alias("content")]
        if self.think == "field":
            reasoning = pl.col("reasoning") if role == "assistant" else pl.lit(None, pl.String)
            fields.append(reasoning.alias("reasoning_content"))
        return pl.struct(fields)
