"""The form of a race: the scales at which arms are run, and when they are looked at.

    rows: 1200
    seeds: 6
    matters: 0.02
    race:
      confidence: 0.95
      margin: 0.04
      scales:
        - {rows: 300, seeds: 2, settings: {steps: 100}}
        - {rows: 1200, seeds: [2, 4, 6]}

Every number of seeds is a round: after it, arms that cannot win any more are out. The last round is
the study itself, so the same file without `race` is the full grid that a race is measured against.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stillroom.train.trainer import Setting

if TYPE_CHECKING:
    from stillroom.study.form import Study


class Scale(BaseModel):
    """One size at which arms are run.

    Attributes:
        rows: Rows that each student is trained on, or
        tokens: answer tokens, as the study counts.
        seeds: Seeds after which arms are looked at: a number, or growing numbers. Two at least,
            because one seed says nothing of the noise of training.
        settings: Settings of the trainer at this scale, in place of the student's.
        changes: Changes to the base recipe at this scale, such as fewer questions to answer; they
            are made before those of the arms (see `stillroom.study.arms`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    settings: Mapping[str, Setting] = Field(default_factory=dict)
    changes: Mapping[str, Any] = Field(default_factory=dict)

    @field_validator("seeds", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _sense(self) -> Self:
        if (self.rows is None) == (self.tokens is None):
            given = "both are" if self.rows else "neither is"
            raise ValueError(f"{given} given of rows and tokens; expected one of them")
        if self.seeds[0] < 2 or any(b <= a for a, b in pairwise(self.seeds)):
            said = ", ".join(map(str, self.seeds))
            raise ValueError(
                f"seeds are {said}; expected growing numbers from 2 on, because one seed says "
                "nothing of the noise of training"
            )
        return self

    @property
    def size(self) -> int:
        """Rows or tokens."""
        return self.rows or self.tokens or 0

    @property
    def words(self) -> str:
        """The size with its unit."""
        return f"{self.rows:,} rows" if self.rows else f"{self.tokens:,} answer tokens"


class Round(NamedTuple):
    """One look at the arms.

    Attributes:
        number: From 1.
        place: Place of the scale in the race.
        scale: The scale.
        seeds: Seeds of every arm by then.
    """

    number: int
    place: int
    scale: Scale
    seeds: int

    @property
    def words(self) -> str:
        """The size and the seeds."""
        return f"{self.scale.words}, {self.seeds} seeds"


class Race(BaseModel):
    """How arms are run in rounds, and when one is out.

    Attributes:
        scales: From small to large; the last one is the study's own size.
        confidence: Chance, 0 to 1, that the best arm stays in to the end and that a winner, if one
            is named, is the best or within the study's `matters` of it.
        margin: How far the arm that is the best at the last scale may be behind another one at a
            smaller scale, 0 to 1: an arm leaves there only if it is worse by more. A race cannot
            check it, because what would show it is not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scales: tuple[Scale, ...] = Field(min_length=1)
    confidence: float = Field(0.95, ge=0.5, lt=1)
    margin: float = Field(0.04, ge=0, lt=1)

    @model_validator(mode="after")
    def _growing(self) -> Self:
        for a, b in pairwise(self.scales):
            if (a.rows is None) != (b.rows is None) or b.size <= a.size:
                raise ValueError(
                    f"scales go from {a.words} to {b.words}; expected each to be larger than the "
                    "one before, all in rows or all in tokens"
                )
        last = self.scales[-1]
        for name in ("settings", "changes"):
            if getattr(last, name):
                raise ValueError(
                    f"the last scale, {last.words}, has {name}; expected none, because it is the "
                    "study itself"
                )
        return self

    @property
    def rounds(self) -> list[Round]:
        """The looks, first to last."""
        looks = [(place, s, n) for place, s in enumerate(self.scales) for n in s.seeds]
        return [Round(i, *look) for i, look in enumerate(looks, 1)]

    def margin_at(self, look: Round) -> float:
        """Return the margin of a round: none at the last scale, which is the one that counts."""
        return self.margin if look.place < len(self.scales) - 1 else 0.0

    def fits(self, study: Study) -> None:
        """Check that the last round is the study.

        Raises:
            ValueError: If it is not, or the study does not say what matters.
        """
        last = self.scales[-1]
        if (last.rows, last.tokens, last.seeds[-1]) != (study.rows, study.tokens, study.seeds):
            own = Scale(rows=study.rows, tokens=study.tokens, seeds=(max(2, study.seeds),))
            raise ValueError(
                f"race ends at {self.rounds[-1].words}, but the study is of {own.words} and "
                f"{study.seeds} seeds; expected the last round to be the study itself"
            )
        if not study.matters:
            raise ValueError(
                "a race needs matters, the smallest difference that you care about, such as 0.02 "
                "for two points; expected it beside race, because a race ends when nothing larger "
                "is left to find"
            )
        for scale in self.scales:
            both = sorted({p for arm in study.arms.values() for p in arm} & set(scale.changes))
            if both:
                raise ValueError(
                    f"race changes {', '.join(both)} at {scale.words}, and so do the arms; "
                    "expected changes to what arms leave as it is"
                )
