"""How far a number can be trusted: parts of a variance, intervals and p values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy import optimize, special, stats


class Part(NamedTuple):
    """A part of a variance, with the degrees of freedom of its estimate, above 0."""

    variance: float
    df: float


@dataclass(frozen=True)
class Error:
    """How far a mean may be off.

    Attributes:
        parts: Of its variance, each estimated apart from the others.
        least: What questions alone do; no interval is narrower than that makes it.
    """

    parts: tuple[Part, ...]
    least: Part

    @property
    def se(self) -> float:
        """Standard error."""
        return math.sqrt(max(sum(part.variance for part in self.parts), self.least.variance))

    def half(self, level: float) -> float:
        """Return half the width of the interval.

        Args:
            level: Share of intervals that hold the truth, 0 to 1.
        """
        return self._beyond((1 - level) / 2)

    def p(self, distance: float) -> float:
        """Return how often a mean would be at least so far off, either way.

        Args:
            distance: Not negative.
        """
        if distance <= 0:
            return 1.0
        if self._beyond(SMALLEST) <= distance:
            return 0.0
        ends = math.log(SMALLEST), math.log(0.5)
        found = optimize.brentq(lambda tail: self._beyond(math.exp(tail)) - distance, *ends)
        return min(1.0, 2 * math.exp(float(found)))

    def _beyond(self, tail: float) -> float:
        """Return the distance that is passed on one side so often."""
        total = sum(part.variance for part in self.parts)
        weighted = sum(part.variance * _t(tail, part.df) for part in self.parts)
        both = weighted / math.sqrt(total) if total else 0.0
        return max(both, _t(tail, self.least.df) * math.sqrt(self.least.variance))


SMALLEST = 1e-40
"""A smaller chance is 0: quantiles of t are not computed well so far out."""


@dataclass(frozen=True)
class Estimate:
    """A number and how far it can be trusted.

    Attributes:
        value: The estimate.
        se: Standard error, all sources together.
        low: Lower end of the interval, of 95% unless another level was asked for.
        high: Upper end of it.
        p: How often a true value of zero would look at least so different from zero; nan for a
            share.
    """

    value: float
    se: float
    low: float
    high: float
    p: float

    @staticmethod
    def of(value: float, error: Error, level: float = 0.95, *, most: float = math.inf) -> Estimate:
        """Make the interval of a number that may be below zero.

        Args:
            value: The number.
            error: How far it may be off.
            level: Share of intervals that hold the truth.
            most: The truth is no farther from zero.
        """
        half = error.half(level)
        low, high = max(-most, value - half), min(most, value + half)
        return Estimate(value, error.se, low, high, error.p(abs(value)))

    @staticmethod
    def share(value: float, error: Error, n: float) -> Estimate:
        """Make the interval of a share, which stays between 0 and 1 and holds near both.

        It is Wilson's, for the number of independent trials that would give this error.

        Args:
            value: The share, 0 to 1.
            error: Of the share.
            n: Questions; they count as the trials where all were right, or all wrong.
        """
        trials, quantile = n, _t(0.025, math.inf)
        if error.se and 0 < value < 1:
            trials = max(1.0, value * (1 - value) / error.se**2)
            quantile = error.half(0.95) / error.se
        low, high = _wilson(value, trials, quantile)
        return Estimate(value, error.se, low, high, math.nan)

    def turned(self) -> Estimate:
        """Return the estimate of the difference the other way round."""
        return Estimate(-self.value, self.se, -self.high, -self.low, self.p)


def wilson(right: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share, which holds near 0 and 1 too.

    Args:
        right: Successes, 0 to n.
        n: Independent trials, at least 1.
        level: Share of intervals that hold the truth.

    Source: Wilson 1927.

    >>> tuple(round(edge, 3) for edge in wilson(0, 30))
    (0.0, 0.114)
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"{right} of {n}; expected 0 to n of at least 1")
    return _wilson(right / n, n, float(stats.norm.ppf(0.5 + level / 2)))


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the borders the two are equal but for rounding.
    return (
        0.0 if share == 0 else max(0.0, middle - half),
        1.0 if share == 1 else min(1.0, middle + half),
    )


def together(parts: Sequence[Part]) -> Part:
    """Add parts of many degrees of freedom up (Satterthwaite 1946)."""
    total = sum(part.variance for part in parts)
    spread = sum(part.variance**2 / part.df for part in parts)
    return Part(total, total**2 / spread if spread else math.inf)


def _t(tail: float, df: float) -> float:
    """Return the quantile of Student's t that is passed so often."""
    return -float(special.stdtrit(df, tail))
