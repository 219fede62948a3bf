"""`solution`: whether a model thinks that an answer solves its question, without a reference."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from stillroom.models.chat import Message
from stillroom.models.structured import Form
from stillroom.steps.asking import bound, conversation
from stillroom.steps.label.inquired import Inquired, prompt
from stillroom.text.quoting import quoted


class Judgement(Form):
    """What the model fills in."""

    correct: bool
    reasoning: str


class Solution(Inquired):
    """Whether the visible answer is a correct solution, in a model's eyes: 1 or 0.

    No reference is shown, so this is an opinion and not a verdict: it stands in its own column
    beside `verify`. With several votes the value is their mean. Where the model's temperature is
    left open, it is 0.

    Source: OpenThoughts, GPT verification: GPT-4o-mini at temperature 0, a boolean with its
    reasoning. The wording is our own: `src/stillroom/steps/label/prompts`.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        votes: How often each answer is judged; the value is the mean.
        tries: How often a vote is asked for at most, when replies cannot be read.
        column: Name of the new column; the model's reason stands beside it, as ``COLUMN_reason``.
    """

    FORM: ClassVar[type[Form]] = Judgement
    TEMPERATURE: ClassVar[float | None] = 0.0

    column: str = "solution"

    def prompts(self) -> Sequence[str]:
        """Name the prompt."""
        return ("solution",)

    def reads(self) -> Sequence[str]:
        """Read the question and the visible answer."""
        return ("question", "answer")

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """Quote both."""
        texts = {"question": row["question"], "answer": row["answer"]}
        return conversation(bound(self.model), quoted(prompt("solution"), texts))

    def value(self, form: Form) -> float:
        """Return 1 for correct and 0 for incorrect."""
        assert isinstance(form, Judgement)
        return float(form.correct)
