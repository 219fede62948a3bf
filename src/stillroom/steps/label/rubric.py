"""`rubric`: how good a model finds an answer, by criteria that the recipe names."""

from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Annotated, Any, ClassVar

import polars as pl
from pydantic import Field, StringConstraints, create_model, field_validator

from stillroom.models.chat import Message
from stillroom.models.structured import Form
from stillroom.rows import Schema
from stillroom.steps.asking import bound, conversation
from stillroom.steps.label.inquired import Inquired, prompt
from stillroom.text.quoting import quoted

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Meaning = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\n]*$")]


@cache
def form_of(names: tuple[str, ...]) -> type[Form]:
    """Return a form with a score for each criterion, and the reasoning behind them."""
    # Aliases, because a criterion may be called like a method of the form.
    scores: dict[str, Any] = {
        f"score_{number}": (int, Field(alias=name, ge=1, le=10))
        for number, name in enumerate(names)
    }
    return create_model("Scores", __base__=Form, **scores, reasoning=(str, ...))


class Rubric(Inquired):
    """How good a model finds the visible answer, by criteria of your own, 1 to 10 each.

    No reference is shown: scores are opinions, and stand beside `verify`. There is a column for
    each criterion, ``COLUMN_NAME``, and their mean in ``COLUMN``. With several votes each is the
    mean of those that could be read. Where the model's temperature is left open, it is 0.

    Source: scores by criteria are usual in the field (ReasonMed, MegaScience); the wording is our
    own: `src/stillroom/steps/label/prompts`.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        criteria: Name to what it means, in a sentence for the model; at most 20. Names are small
            letters, digits and underscores.
        votes: How often each answer is scored.
        tries: How often a vote is asked for at most, when replies cannot be read.
        column: Name of the column of means; the others begin with it, and the model's reason is
            ``COLUMN_reason``.
    """

    TEMPERATURE: ClassVar[float | None] = 0.0

    criteria: Mapping[Name, Meaning] = Field(min_length=1, max_length=20)
    column: str = "rubric"

    @field_validator("criteria")
    @classmethod
    def _not_ours(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in ("reason", "reasoning"):
            if name in value:
                raise ValueError(f"has {name!r}; expected another name, because that is our own")
        return value

    def identity(self) -> dict[str, Any]:
        """Let the order of the criteria enter the key too: the model is asked in that order."""
        return {**super().identity(), "order": list(self.criteria)}

    def prompts(self) -> Sequence[str]:
        """Name the prompt."""
        return ("rubric",)

    def reads(self) -> Sequence[str]:
        """Read the question and the visible answer."""
        return ("question", "answer")

    def adds(self) -> Schema:
        """Add the mean, each score, and the model's reason."""
        scores = {f"{self.column}_{name}": pl.Float64() for name in self.criteria}
        return {self.column: pl.Float64(), **scores, f"{self.column}_reason": pl.String()}

    def form(self) -> type[Form]:
        """Ask for a score by each criterion."""
        return form_of(tuple(self.criteria))

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """Show the criteria, and quote question and answer."""
        criteria = "\n".join(f"- {name}: {meaning}" for name, meaning in self.criteria.items())
        fields = ", ".join(f'"{name}"' for name in self.criteria)
        texts = {"question": row["question"], "answer": row["answer"]}
        text = quoted(prompt("rubric"), texts, criteria=criteria, fields=fields)
        return conversation(bound(self.model), text)

    def value(self, form: Form) -> float:
        """Return the mean of the scores."""
        return fmean(self._scores(form))

    def values(self, form: Form) -> Sequence[float]:
        """Return the mean, then each score."""
        return (self.value(form), *self._scores(form))

    def _scores(self, form: Form) -> list[float]:
        return [getattr(form, f"score_{number}") for number in range(len(self.criteria))]
