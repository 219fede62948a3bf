"""`dedup: {indel: 90}`: questions that differ by few edits."""

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, field_validator

from stillroom.kernels import indel
from stillroom.steps.base import Runtime, Tick
from stillroom.steps.dedup.method import Method, Ranked
from stillroom.text.normal import normal_form_expr


class Indel(Method):
    """Two questions are the same if their Indel similarity reaches a threshold.

    The similarity, in percent, is 100 * 2 * LCS / (|a| + |b|), where LCS counts the characters of
    a longest common subsequence: the ``fuzz.ratio`` of rapidfuzz. All pairs are compared, exactly;
    nothing is sampled or hashed. At 50, unrelated questions of one field begin to count as the
    same: expect most of a source to go, and much more work than at 90.

    Attributes:
        threshold: Percent, 50 to 100; a pair that reaches it is the same. The final recipe of the
            OpenThoughts paper and its ablations use 90, older versions 95.
        rule: Which rows go. ``greedy``: a row goes if it repeats a better row that stays, so each
            dropped row has a witness among the rows that stay, and no two of those reach the
            threshold. ``pairwise``: a row goes if it repeats any better row, whether that one stays
            or not, so one of a chain a~b~c stays; this is the rule of the paper.
            ``pairwise_limit_5``: the same, but each text sees only its five best matches, itself
            included, as in the paper's released code, so a few of a large group stay.
        text: Compare the ``normal`` form (`stillroom.text.normal`), or the ``raw`` text as the
            paper does.
    """

    REASON: ClassVar[str] = "near_duplicate"
    TICKS: ClassVar[bool] = True
    BARE: ClassVar[str | None] = "threshold"

    threshold: float = Field(90, ge=50, le=100)
    rule: Literal["greedy", "pairwise", "pairwise_limit_5"] = "greedy"
    text: Literal["normal", "raw"] = "normal"

    @field_validator("threshold")
    @classmethod
    def _few_decimals(cls, value: float) -> float:
        indel.check(value)
        return value

    def find(self, rows: Ranked, rt: Runtime) -> pl.DataFrame:
        """Compare all questions."""
        form = pl.col("question") if self.text == "raw" else normal_form_expr("question")
        texts = pl.concat(frame.select(form)["question"] for frame in rows.frames("question"))
        found = indel.dedup(
            texts,
            self.threshold,
            rule=self.rule,
            order=rows.rank.arg_sort(),
            workers=rt.workers,
            tick=lambda done: rt.tick(Tick(rows=done)),
        )
        return found
