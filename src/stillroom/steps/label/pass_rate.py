"""`pass_rate`: how many of a question's draws are correct, with its interval."""

from collections.abc import Mapping, Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.rows import Schema
from stillroom.steps.label.measure import Plain
from stillroom.store.table import Table


class Shares(BaseModel):
    """Pass rates from ``min`` to ``max``, both included, each between 0 and 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float = Field(0.0, ge=0, le=1)
    max: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; expected it below")
        return self


class PassRate(Plain):
    """The share of a question's decided draws that are correct, on every draw of the question.

    Undecided draws count neither as correct nor as wrong: a question without a decided draw has no
    pass rate. The columns: ``draws_decided``, ``draws_correct``, ``pass_rate`` (0 to 1) and the
    ends of its Wilson interval, ``pass_rate_low`` and ``pass_rate_high``.

    With a band, ``in_band`` says whether the pass rate lies in it, and the notes show how likely a
    question is to be kept by its true chance of being solved: few draws tell little.

    Where draws ended with the first correct one (``draws: {until: correct}``), rates are too high,
    because the last draw is never wrong, and the intervals are not theirs; a note says by how much.

    Attributes:
        confidence: Of the interval, 0 to 1.
        band: Pass rates to mark.

    Source: Wilson 1927; the chance to be kept is the binomial sum over the counts in the band.
    """

    GROUPS = True

    confidence: float = Field(0.95, gt=0, lt=1)
    band: Shares | None = None

    def reads(self) -> Sequence[str]:
        """Read the verdicts, question by question."""
        return ("question_id", "verdict")

    def adds(self) -> Schema:
        """Add the counts, the rate and its interval."""
        columns: dict[str, pl.DataType] = {
            "draws_decided": pl.Int32(),
            "draws_correct": pl.Int32(),
            "pass_rate": pl.Float64(),
            "pass_rate_low": pl.Float64(),
            "pass_rate_high": pl.Float64(),
        }
        return columns | ({"in_band": pl.Boolean()} if self.band else {})

    def expressions(self) -> list[pl.Expr]:
        """Count within each question."""
        decided = pl.col("verdict").is_in(["correct", "incorrect"])
        n = decided.sum().over("question_id").cast(pl.Int32)
        k = (pl.col("verdict") == "correct").sum().over("question_id").cast(pl.Int32)
        rate = pl.when(n > 0).then(k / n)
        z = NormalDist().inv_cdf(0.5 + self.confidence / 2)
        middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (rate * (1 - rate) / n + (z / (2 * n)) ** 2).sqrt()
        found = [
            n.alias("draws_decided"),
            k.alias("draws_correct"),
            rate.alias("pass_rate"),
            (middle - half).clip(0, 1).alias("pass_rate_low"),
            (middle + half).clip(0, 1).alias("pass_rate_high"),
        ]
        if self.band:
            found.append(rate.is_between(self.band.min, self.band.max).alias("in_band"))
        return found

    def notes(self, table: Table) -> list[str]:
        """Show the bias of draws until one is correct, and the chance to be kept by the band."""
        return self._bias(table) + self._kept(table)

    def _bias(self, table: Table) -> list[str]:
        draws = table.rows.manifest.fields.get("draws")
        if not isinstance(draws, Mapping) or draws.get("until") != "correct":
            return []
        sizes = (draws["at_most"], draws["round"])
        curve = ", ".join(f"{p / 10:.1f}: {rate_until(p / 10, *sizes):.2f}" for p in (1, 3, 5, 7))
        return [
            "Draws ended with the first correct one, so pass rates are too high. By a question's "
            f"true chance of being solved they are on average as follows: {curve}."
        ]

    def _kept(self, table: Table) -> list[str]:
        if self.band is None:
            return []
        decided = pl.col("verdict").is_in(["correct", "incorrect"])
        counts = table.scan("question_id", "verdict").group_by("question_id").agg(decided.sum())
        usual = counts.group_by("verdict").len().filter(pl.col("verdict") > 0)
        first = usual.sort("len", "verdict", descending=True).head(1).collect()
        if not first.height:
            return []
        n = int(first["verdict"].item())
        low, high = self.band.min, self.band.max
        chances = [chance_to_keep(p / 10, n=n, low=low, high=high) for p in range(11)]
        curve = ", ".join(f"{p / 10:.1f}: {chance:.2f}" for p, chance in enumerate(chances))
        return [
            f"With {n} decided draws, the band {self.band.min:g} to {self.band.max:g} keeps a "
            f"question by its true chance of being solved as follows: {curve}."
        ]


def chance_to_keep(p: float, *, n: int, low: float, high: float) -> float:
    """Return the chance that the share of n draws that pass lies between low and high.

    Args:
        p: True chance of one draw to pass, 0 to 1.
        n: Draws.
        low: Smallest share that is kept.
        high: Largest share that is kept.

    >>> round(chance_to_keep(0.3, n=4, low=0, high=0), 2)
    0.24
    """
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if low <= k / n <= high)


def rate_until(p: float, at_most: int, size: int) -> float:
    """Return the mean share of correct draws if rounds of draws end with the first correct one.

    Args:
        p: True chance of one draw to be correct, 0 to 1.
        at_most: Draws at most.
        size: Draws of a round; the last may be smaller.

    >>> round(rate_until(0.5, 1_000, 1), 3)  # -log(p) * p / (1 - p)
    0.693
    """
    before = range(0, at_most, size)
    rounds = ((n, min(size, at_most - n)) for n in before)
    return sum((1 - p) ** n * p * draws / (n + draws) for n, draws in rounds)


def wilson(k: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval of k successes in n tries: the reference of the columns.

    Raises:
        ValueError: If n is not positive or k is not between 0 and n.

    >>> low, high = wilson(8, 16)
    >>> round(low, 2), round(high, 2)
    (0.28, 0.72)
    """
    if not 0 <= k <= n or n < 1:
        raise ValueError(f"{k} of {n}; expected 0 to n of n, and n above 0")
    z, rate = NormalDist().inv_cdf(0.5 + confidence / 2), k / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)
