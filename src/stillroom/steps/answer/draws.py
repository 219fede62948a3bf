"""How many draws a question gets: a number, what a column says, or until verdicts suffice.

Adaptive draws are bought in rounds. What a question gets depends on the verdicts of its own
draws in their order and on nothing else, so that the same ledger always gives the same rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from stillroom.verifiers import Kind as By
from stillroom.verifiers import Outcome

MOST = 10_000


class DrawsIn(BaseModel):
    """As many draws as a column of the question says.

    Attributes:
        column: A column of whole numbers, 0 to 10,000.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(min_length=1)


class Known(BaseModel):
    """A pass rate that is known well enough.

    Attributes:
        within: Half-width of its confidence interval, a share.
        confidence: How sure the interval is, a share.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    within: float = Field(gt=0, lt=0.5)
    confidence: float = Field(0.95, gt=0, lt=1)


class Until(BaseModel):
    """Draws in rounds, until the verdicts suffice.

    Attributes:
        until: ``correct`` stops a question as soon as one of its draws is; `Known` stops it when
            its pass rate is known well enough.
        by: The verifier, as in the ``verify`` step.
        at_most: Draws per question, at most.
        round: Draws of a question that are bought at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: Literal["correct"] | Known
    by: By
    at_most: int = Field(ge=1, le=MOST)
    round: int = Field(1, ge=1, le=MOST)


def _which(value: Any) -> str:
    if isinstance(value, DrawsIn) or (isinstance(value, Mapping) and "column" in value):
        return "column"
    return "until" if isinstance(value, Until | Mapping) else "number"


Draws = Annotated[
    Annotated[int, Field(ge=1, le=MOST), Tag("number")]
    | Annotated[DrawsIn, Tag("column")]
    | Annotated[Until, Tag("until")],
    Discriminator(_which),  # so that a mistake is worded for the form that was meant
]


@dataclass(slots=True)
class Tally:
    """What the draws of one question have shown so far.

    Attributes:
        drawn: Draws that were asked for.
        decided: Of these, verified as correct or incorrect.
        correct: Of these, correct.
        closed: Whether no draws will follow.
    """

    drawn: int = 0
    decided: int = 0
    correct: int = 0
    closed: bool = False

    def add(self, rule: Until, outcomes: list[Outcome]) -> None:
        """Take in the verdicts of one round, and close the question if they suffice.

        Args:
            rule: What suffices.
            outcomes: One per draw that has an answer; failed draws have none.
        """
        self.drawn = min(self.drawn + rule.round, rule.at_most)
        self.decided += sum(o in ("correct", "incorrect") for o in outcomes)
        self.correct += outcomes.count("correct")
        # Without a reference no draw will ever be right, so none is bought in the hope of it.
        hopeless = bool(outcomes) and all(o == "no_reference" for o in outcomes)
        self.closed = hopeless or self.drawn == rule.at_most or self._suffices(rule.until)

    def _suffices(self, until: Literal["correct"] | Known) -> bool:
        if isinstance(until, Known):
            return half_width(self.correct, self.decided, until.confidence) <= until.within
        return self.correct > 0


def half_width(correct: int, decided: int, confidence: float) -> float:
    """Return half the width of the confidence interval of a pass rate; 1 if nothing is decided.

    Source: Wilson 1927, the score interval, which holds for few draws and rates near 0 and 1.

    >>> round(half_width(2, 4, 0.95), 3), round(half_width(0, 16, 0.95), 3)
    (0.35, 0.097)
    """
    if decided == 0:
        return 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = correct / decided
    inner = rate * (1 - rate) / decided + z * z / (4 * decided * decided)
    return z * math.sqrt(inner) / (1 + z * z / decided)
