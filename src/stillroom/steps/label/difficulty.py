"""`difficulty`: how hard a model thinks a question is, on the scale of its subject."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from stillroom.errors import RecipeError
from stillroom.models.chat import Message
from stillroom.models.structured import Form
from stillroom.steps.asking import bound
from stillroom.steps.label.inquired import Inquired, worded

RUBRICS = ("code", "math", "science")


class Rating(Form):
    """What the model fills in."""

    difficulty: int = Field(ge=1, le=10)
    reasoning: str


class Difficulty(Inquired):
    """How hard a model thinks the question is, 1 to 10, on the scale of its subject.

    ``code``: programming contests up to the ICPC world finals. ``math``: competitions, on the
    scale that the Art of Problem Solving community uses. ``science``: the international olympiads.

    Source: OpenThoughts, section on question filtering; the paper's labeller is GPT-4o-mini with
    sampling left to the server. The wording is our own: `src/stillroom/steps/label/prompts`.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        rubric: ``code``, ``math`` or ``science``; by default the row's domain.
        votes: How often each question is judged; the value is the mean.
        tries: How often a vote is asked for at most, when replies cannot be read.
        column: Name of the new column; the model's reason stands beside it, as ``COLUMN_reason``.
    """

    FORM: ClassVar[type[Form]] = Rating

    rubric: Literal["code", "math", "science"] | None = None
    column: str = "difficulty"

    def prompts(self) -> Sequence[str]:
        """Name the rubrics that may be used."""
        return [f"difficulty_{name}" for name in ([self.rubric] if self.rubric else RUBRICS)]

    def reads(self) -> Sequence[str]:
        """Read the question, and the domain where it chooses the rubric."""
        return ("question",) if self.rubric else ("question", "domain")

    def messages(self, row: Mapping[str, Any]) -> tuple[Message, ...]:
        """Show rubric and question."""
        rubric = self.rubric or row["domain"]
        if rubric not in RUBRICS:
            raise RecipeError(
                f"label.difficulty: a row is of the domain {rubric!r}, which has no rubric; "
                f"expected {', '.join(RUBRICS)}. Say which one fits with `rubric:`."
            )
        spec = bound(self.model)
        system = spec.system or f"You rate the difficulty of {rubric} problems."
        rated = worded(f"difficulty_{rubric}", row["question"])
        return (Message("system", system), Message("user", rated))

    def value(self, form: Form) -> float:
        """Return the rating."""
        assert isinstance(form, Rating)
        return form.difficulty
