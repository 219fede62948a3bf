"""`askllm`: how much a question is like good training questions, in a model's eyes."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from stillroom.models.chat import Message
from stillroom.models.structured import Form
from stillroom.steps.asking import bound, conversation
from stillroom.steps.label.inquired import Inquired, worded


class Likeness(Form):
    """What the model fills in."""

    score: float = Field(ge=1, le=100)
    reasoning: str


class AskLLM(Inquired):
    """How much the question is like five good examples and unlike five poor ones, 1 to 100.

    One prompt serves all domains. Where the model's temperature is left open, it is 1.0.

    Source: OpenThoughts, section on question filtering; the idea is from Sachdeva et al. 2024
    (arXiv 2402.09668). Prompt and examples are our own: `src/stillroom/steps/label/prompts`.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        votes: How often each question is judged; the value is the mean.
        tries: How often a vote is asked for at most, when replies cannot be read.
        column: Name of the new column; the model's reason stands beside it, as ``COLUMN_reason``.
    """

    FORM: ClassVar[type[Form]] = Likeness
    TEMPERATURE: ClassVar[float | None] = 1.0

    column: str = "askllm"

    def prompts(self) -> Sequence[str]:
        """Name the prompt."""
        return ("askllm",)

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """Show the examples and the question."""
        return conversation(bound(self.model), worded("askllm", row["question"]))

    def value(self, form: Form) -> float:
        """Return the score."""
        assert isinstance(form, Likeness)
        return form.score
