"""The form of a dataset: its columns, and how a conversation is written."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.rows import QUESTION, Kind, Schema, Shape
from stillroom.steps.base import Misfit
from stillroom.steps.export.facts import Teacher
from stillroom.steps.export.targets import (
    BESIDE,
    COLUMNS,
    NEEDS,
    RATES,
    REFERENCED,
    Target,
    columns,
    openthoughts,
    pairs,
    prompts,
    stepwise,
)
from stillroom.text.think import CLOSE, OPEN

FIRST: Mapping[Kind, Sequence[str]] = {
    "answers": (
        "id", "question_id", "domain", "source", "licence", "row", "teacher", "draw",
        "finish_reason", "prompt_tokens", "completion_tokens", "reference", "verdict", "extracted",
    ),
    "questions": tuple(QUESTION),
}  # fmt: skip
"""Columns that come first, where they are there; all others follow in the order of the table."""

USED = ("pair", "tests", "starter_code", "verifier", "step_labels")
"""Further columns that forms of other programs use."""

INSIDE = ("question", "reasoning", "answer")
"""Columns of answers that the conversation holds."""


class Export(BaseModel):
    """How the dataset is written: the ``export`` block of a recipe.

    Attributes:
        format: ``sharegpt``: a column ``conversations`` with turns of ``from`` (human, gpt) and
            ``value``, as in OpenThoughts. ``messages``: a column ``messages`` with turns of
            ``role`` (user, assistant) and ``content``. ``completion``: columns ``prompt`` and
            ``completion`` of such turns, so that a trainer sees what it learns. The forms of other
            programs (``openthoughts``, ``verl``, ``nemo_gym``, ``verifiers``, ``preference``,
            ``stepwise``) hold what those programs read, and nothing else. ``stepwise`` needs a
            column ``step_labels``: true or false for each paragraph of the answer, reasoning
            first.
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

    format: Literal["sharegpt", "messages", "completion"] | Target = "sharegpt"
    think: Literal["tags", "field", "none"] = "tags"
    system: bool = False
    title: str | None = Field(None, min_length=1)
    licence: str | None = Field(None, min_length=1)
    language: tuple[str, ...] = ()
    file_mb: int = Field(256, ge=1, le=2_000)

    @model_validator(mode="after")
    def _place_of_thinking(self) -> Self:
        if self.target == "preference" and self.think == "field":
            raise ValueError("preference has no field for thinking; expected think: tags or none")
        if self.target == "stepwise" and (self.think == "field" or self.system):
            raise ValueError(
                "stepwise has no field for thinking or a system prompt; expected think: tags "
                "(the reasoning's steps first) or none, and no system"
            )
        return self

    @property
    def turns(self) -> str:
        """Name of the column of the conversation."""
        return {"sharegpt": "conversations", "completion": "completion"}.get(
            self.format, "messages"
        )

    @property
    def target(self) -> Target | None:
        """The program whose form is written; None for our own forms."""
        return self.format if self.format in COLUMNS else None  # type: ignore[return-value]

    @property
    def suffix(self) -> Literal["parquet", "jsonl"]:
        """How files of rows end."""
        return "jsonl" if self.target == "nemo_gym" else "parquet"

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
        if self.target:
            return self._of_target(self.target, shapes)
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

    def _of_target(self, target: Target, shapes: Mapping[str, Shape]) -> Schema:
        for domain, shape in shapes.items():
            if shape.kind == "questions" and target not in REFERENCED:
                raise Misfit(f"{target} holds answers, but domain {domain} ends in questions")
            for name in NEEDS[target]:
                if name not in shape.columns:
                    step = {
                        "pair": "; `label: {pair: ...}` makes it",
                        "step_labels": "; expected true or false for each paragraph of an answer",
                    }
                    raise Misfit(
                        f"{target} reads the column {name!r}, which domain {domain} lacks"
                        f"{step.get(name, '')}"
                    )
        return columns(target, shapes.values())

    def read(self, table: Schema, columns: Schema) -> list[str]:
        """Name what is read of a table in order to write these columns."""
        inside = INSIDE if "answer" in table else ()
        known = [*FIRST["answers"], *QUESTION, *USED, *(c for c in table if c.startswith(RATES))]
        wanted = known if self.target else columns
        return [name for name in dict.fromkeys([*wanted, *inside]) if name in table]

    def rows(self, frame: pl.DataFrame, teacher: Teacher | None, columns: Schema) -> pl.DataFrame:
        """Write the rows of another program's form.

        Args:
            frame: Rows of a table.
            teacher: Who answered them, if anyone.
            columns: Those of the dataset.

        Raises:
            ExportError: If they do not fit it.
        """
        assert self.target is not None
        prompt = pl.concat_list(self._asked(teacher))
        if self.target in REFERENCED:
            key = "id" if teacher is None else "question_id"
            return prompts(frame, key, self.target, prompt, columns[BESIDE[self.target]])
        if self.target == "stepwise":
            text = prompt.list.last().struct.field("content")
            return stepwise(frame, text, INSIDE[2:] if self.think == "none" else INSIDE[1:])
        if self.target == "openthoughts":
            return openthoughts(frame)
        chosen, rejected = pairs(frame)
        said = pl.concat_list(self._turn("assistant", self._said()))
        return pl.concat(
            [
                chosen.select(prompt.alias("prompt"), said.alias("chosen")),
                rejected.select(said.alias("rejected")),
            ],
            how="horizontal",
        )

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
        turns = pl.List(pl.Struct(dict.fromkeys(keys, pl.String())))
        return {
            **made,
            **({"prompt": turns} if self.format == "completion" else {}),
            self.turns: turns,
        }

    def conversation(self, teacher: Teacher) -> list[pl.Expr]:
        """Write the turns of each answer: the words that the teacher was asked, and its own."""
        asked, said = self._asked(teacher), self._turn("assistant", self._said())
        if self.format == "completion":
            return [pl.concat_list(asked).alias("prompt"), pl.concat_list(said).alias(self.turns)]
        return [pl.concat_list([*asked, said]).alias(self.turns)]

    def _asked(self, teacher: Teacher | None) -> list[pl.Expr]:
        """Write the turns before the answer; a question that nobody was asked stands alone."""
        if teacher is None:
            return [self._turn("user", pl.col("question"))]
        question = pl.concat_str(pl.lit(teacher.prefix), "question", pl.lit(teacher.suffix))
        turns = [self._turn("user", question)]
        if self.system and teacher.system:
            turns.insert(0, self._turn("system", pl.lit(teacher.system)))
        return turns

    def _said(self) -> pl.Expr:
        answer = pl.col("answer")
        if self.think == "tags":
            tagged = pl.format(f"{OPEN}\n{{}}\n{CLOSE}\n\n{{}}", "reasoning", "answer")
            return pl.when(pl.col("reasoning").is_null()).then(answer).otherwise(tagged)
        return answer

    def _turn(self, role: Literal["system", "user", "assistant"], text: pl.Expr) -> pl.Expr:
        if self.format == "sharegpt":
            speaker = {"system": "system", "user": "human", "assistant": "gpt"}[role]
            return pl.struct(pl.lit(speaker).alias("from"), text.alias("value"))
        fields = [pl.lit(role).alias("role"), text.alias("content")]
        if self.think == "field" and not self.target:
            reasoning = pl.col("reasoning") if role == "assistant" else pl.lit(None, pl.String)
            fields.append(reasoning.alias("reasoning_content"))
        return pl.struct(fields)
