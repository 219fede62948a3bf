"""The stages of `verify` that have fields of their own: numbers, a judge, a majority."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.models.structured import TRIES, schema_of
from stillroom.rows import content_id
from stillroom.steps.asking import bound, role, sampling
from stillroom.steps.base import ModelSpec
from stillroom.verifiers import judge as judging
from stillroom.verifiers import key_of
from stillroom.verifiers.judge import TAIL, Ruling

By = Literal["math", "choice", "letters", "exact", "code"]
_WITH_FIELDS = ("number", "judge", "majority")


class Judge(BaseModel):
    """A model that compares the final answer with the reference.

    It sees the question, the reference and the final answer (boxed, tagged or stated; else the
    visible answer, or its tail), never the thinking, and replies ``correct``, ``incorrect`` or
    ``undecided`` with a reason. Undecided is ``unparsed``; a reply that cannot be read is asked for
    again, and then is ``error``, as is a request that fails. An answer that says nothing is
    ``unparsed`` and not shown. Where the model's temperature is left open, it is 0.

    Canaries, answers that are wrong by construction, ride among the real ones; the run stops when
    the judge accepts one.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        tries: How often a verdict is asked for at most, when replies cannot be read.
        tail: Characters that are shown of an answer in which no final answer is marked.
        canaries: Part of the questions that carries a canary, 0 to 1; a few are asked in any case.
        also_incorrect: In a cascade, whether it looks again at what earlier stages found incorrect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | ModelSpec = "judge"
    tries: int = Field(TRIES, ge=1, le=100)
    tail: int = Field(TAIL, ge=1, le=100_000)
    canaries: float = Field(0.02, ge=0, le=1)
    also_incorrect: bool = False

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    def bind(self, models: Mapping[str, ModelSpec], where: str) -> Self:
        """Replace the role by the model."""
        return self.model_copy(update={"model": role(self.model, models, f"{where}.model")})

    def identity(self) -> dict[str, Any]:
        """Let the wording of the prompt, and the form, enter the key."""
        wording = content_id(judging.prompt(), schema_of(Ruling))
        return {**self.model_dump(mode="json"), "wording": wording}

    def judge(self) -> judging.Judge:
        """Return who judges, once a model stands in place of its role."""
        spec = bound(self.model)
        drawn = sampling(spec, temperature=0.0)
        return judging.Judge(spec.name, drawn, spec.system, self.tries, self.tail)


class Vote(BaseModel):
    """The majority of a question's draws, where earlier stages left a draw undecided.

    The majority is the final answer that more draws give than any other. With a reference, a draw
    of the majority takes the verdict that earlier stages gave to the majority's other draws, if it
    is one and the same. Without a reference the majority decides nothing, unless ``as_reference``
    says so: then its draws are correct, and draws that differ from it by value are incorrect.

    Attributes:
        by: The verifier that finds answers equal: ``math``, ``choice`` or ``exact``.
        votes: Draws that a majority needs.
        share: Part of the draws with a final answer that it must exceed, 0 to 1.
        as_reference: Whether the majority stands in for a missing reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["math", "choice", "exact"] = "math"
    votes: int = Field(3, ge=2)
    share: float = Field(0.5, ge=0, lt=1)
    as_reference: bool = False

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value


class Near(BaseModel):
    """Numbers that may be off by a little; units are not compared.

    Attributes:
        within: Largest difference from the reference.
        relative: Largest difference as a share of the reference; the larger of the two counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    within: float = Field(0.0, ge=0)
    relative: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"within": value} if isinstance(value, int | float) else value


class Stage(BaseModel):
    """One stage of a cascade: a word, numbers, a judge or a majority.

    Attributes:
        by: ``math``, ``choice``, ``letters``, ``exact`` or ``code``.
        number: Numbers within a tolerance, such as ``{number: 0.01}``.
        judge: A model that compares with the reference.
        majority: The majority of the question's draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: By | None = None
    number: Near | None = None
    judge: Judge | None = None
    majority: Vote | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}} if value in _WITH_FIELDS else {"by": value}
        return with_defaults(value)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in Stage.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given; expected one of "
                f"{', '.join(Stage.model_fields)}"
            )
        return self

    @property
    def word(self) -> str:
        """What the stage is called."""
        return self.by or next(name for name in _WITH_FIELDS if getattr(self, name) is not None)

    def identity(self) -> str | dict[str, Any]:
        """Return what enters the key."""
        if self.judge:
            return {"judge": self.judge.identity()}
        if self.number:
            return {"number": self.number.model_dump(mode="json")}
        if self.majority:
            fields = self.majority.model_dump(mode="json")
            return {"majority": {**fields, "by": key_of(self.majority.by)}}
        return key_of(self.word)

    def reads(self) -> Sequence[str]:
        """Name the columns that it reads."""
        more = {
            "code": ("tests",),
            "judge": ("question", "reference"),
            "majority": ("question_id", "reference"),
        }
        return ("answer", *more.get(self.word, ("reference",)))


def with_defaults(value: Any) -> Any:
    """Take ``judge:``, ``majority:`` or ``number:`` with nothing behind it."""
    if not isinstance(value, Mapping) or any(v is not None for k, v in value.items() if k != "as"):
        return value
    return {k: {} if k in _WITH_FIELDS else v for k, v in value.items()}
