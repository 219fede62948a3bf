"""The form of a study: one question about recipes, and the arms that answer it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.evaluate.grade import Exam, exams_of
from stillroom.recipe.form import Recipe
from stillroom.steps.base import ModelSpec
from stillroom.study.race.rounds import Race
from stillroom.train.trainer import Student

OWN_STEPS = "recipe"
"""Says that contaminated items are those that the arms' own steps found."""


class Benchmarks(BaseModel):
    """What students are graded on.

    Attributes:
        develop: Benchmarks that decide, by name, or by the path of a file of your own beside the
            study. A name or a list in place of these fields stands for this one.
        held_out: Benchmarks that stay sealed until a winner is promoted.
        repeats: Attempts per question; by default what each benchmark says.
        judge: Who judges answers, where a model does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    develop: tuple[str, ...] = Field(min_length=1)
    held_out: tuple[str, ...] = ()
    repeats: int | None = Field(None, ge=1, le=1_000)
    judge: ModelSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"develop": [value]}
        return {"develop": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = sorted(set(self.develop) & set(self.held_out))
        if both:
            raise ValueError(
                f"{', '.join(both)} both decides and is held out; expected it in one of the two"
            )
        return self

    def exams(self, names: Sequence[str] | None = None) -> list[Exam]:
        """Return the exams of some benchmarks; of those that decide when None.

        Raises:
            SourceError: If there is no such benchmark, or it cannot be graded.
        """
        return exams_of(self.develop if names is None else names, self.repeats, self.judge)


class Design(BaseModel):
    """What all studies say: what is asked, of which students, at which size.

    Attributes:
        name: Of the study; by default that of its file, or of its folder if that is ``study.yaml``.
        question: What is asked, in a sentence.
        hypothesis: What is expected, written down before anything is run.
        base: The recipe that all arms share: a path beside the study, or a shipped name.
        rows: Rows that each student is trained on: the same for every arm.
        tokens: Answer tokens that each student is trained on, in place of ``rows``; every answer
            must have been counted by its server.
        shortage: What to do when an arm's recipe makes too few: ``upsample`` repeats rows,
            ``refuse`` stops.
        student: What is trained, and how.
        seeds: Replications. Each draws other rows, in another order, and samples anew.
        benchmarks: What students are graded on.
        references: A model whose right answers to the development items students are scored on: the
            mean log-likelihood of their tokens is a second outcome, which moves before accuracy
            does. Proxy students only.
        contamination: Items that training data ask: a file that ``stillroom contamination --json``
            printed, beside the study, or ``recipe`` for what the arms' own `decontaminate` steps
            found. The report then has scores with and without these items.
        matters: Smallest difference that the asker cares about, 0 to 1; differences below it are
            called too small to matter.
        race: How to run the arms in rounds and drop those that cannot win; by default all are run
            to the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("", pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    question: str = Field(min_length=1)
    hypothesis: str = ""
    base: str
    rows: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    shortage: Literal["upsample", "refuse"] = "refuse"
    student: Student
    seeds: int = Field(3, ge=1, le=1_000)
    benchmarks: Benchmarks
    references: ModelSpec | None = None
    contamination: str | None = None
    matters: float = Field(0.0, ge=0, lt=1)
    race: Race | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.rows is None) == (self.tokens is None):
            given = "both are" if self.rows else "neither is"
            raise ValueError(
                f"{given} given of rows and tokens; expected one of them, so that arms are "
                "compared at one size"
            )
        return self

    @property
    def models(self) -> list[str]:
        """Frozen names of the models that are asked beside those of recipes."""
        more = [spec.name for spec in (self.references, self.benchmarks.judge) if spec]
        return [self.student.model, *more]


class Study(Design):
    """One question, its arms, and how they are compared.

    Attributes:
        arms: Name to changes (see `stillroom.study.arms`); the first is the control. Every arm
            changes the same fields; the control may change none.
    """

    arms: Mapping[str, Mapping[str, Any]] = Field(min_length=2)

    @model_validator(mode="after")
    def _same_fields(self) -> Self:
        (control, own), *others = self.arms.items()
        if not own:
            (reference, own), *others = others
        else:
            reference = control
        for name, changes in others:
            more = sorted(set(changes) - set(own))
            less = sorted(set(own) - set(changes))
            if more or less:
                which = f"changes {', '.join(more)}" if more else f"leaves {', '.join(less)} as is"
                raise ValueError(
                    f"arm {name} {which}, unlike arm {reference}; expected every arm to change the "
                    "same fields, so that a difference has one cause"
                )
        return self

    @model_validator(mode="after")
    def _race_is_of_this(self) -> Self:
        if self.race:
            self.race.fits(self)
        return self

    @property
    def control(self) -> str:
        """The arm that others are compared with."""
        return next(iter(self.arms))


class Mixtures(BaseModel):
    """Random mixtures to train on, before weights are proposed.

    Attributes:
        at: The `mix` whose weights are asked for, such as ``math.mix``; it draws a ``total``.
        random: Mixtures, a student each.
        concentration: Of the Dirichlet distribution that weights are drawn from: 1 draws all
            mixtures alike, more draws nearer to equal weights, less nearer to single sources.
        groups: Name to branches that share one weight, each branch in one group; their proportions
            stay those of the base. Without it each branch has a weight of its own.
        outcome: What is regressed on weights: ``accuracy``, or ``likelihood``, which needs
            ``references``. The likelihood where there is one, by default.
        student: What is trained on the random mixtures, in place of the study's own student: a
            smaller model or fewer steps, because there are many.
        seed: Of the draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    random: int = Field(ge=6, le=10_000)
    concentration: float = Field(1.0, gt=0, le=1_000, allow_inf_nan=False)
    groups: Mapping[str, tuple[str, ...]] | None = None
    outcome: Literal["accuracy", "likelihood"] | None = None
    student: Student | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _in_one_group(self) -> Self:
        if self.groups is None:
            return self
        if len(self.groups) < 2:
            raise ValueError("groups has one group; expected two or more to weigh")
        branches = [branch for group in self.groups.values() for branch in group]
        twice = sorted({b for b in branches if branches.count(b) > 1})
        if twice:
            raise ValueError(f"groups names {twice[0]} twice; expected each branch in one group")
        empty = [name for name, group in self.groups.items() if not group]
        if empty:
            raise ValueError(f"group {empty[0]} has no branch; expected one or more")
        return self


class Mixing(Design):
    """A study whose arms are found: the base's mixture against weights that a regression proposes.

    Attributes:
        mixtures: What the regression learns from; see `stillroom.study.mixing`.
    """

    mixtures: Mixtures

    @model_validator(mode="after")
    def _has_its_outcome(self) -> Self:
        if self.mixtures.outcome == "likelihood" and self.references is None:
            raise ValueError(
                "mixtures.outcome is likelihood and there are no references; expected a model "
                "whose right answers are scored"
            )
        return self

    @property
    def outcome(self) -> Literal["accuracy", "likelihood"]:
        """What is regressed on weights."""
        return self.mixtures.outcome or ("likelihood" if self.references else "accuracy")


Arms = Mapping[str, Recipe]
