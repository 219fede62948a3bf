"""Scores of arms, and differences between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.study.statistics.errors import Error, Estimate, Part, together
from stillroom.study.statistics.noise import (
    Noise,
    Pairs,
    asked_of,
    mean_square,
    pooled_over,
    sampling_of,
)
from stillroom.study.statistics.outcomes import Array, Outcomes


@dataclass(frozen=True)
class Score:
    """The accuracy of one arm on one benchmark.

    Attributes:
        arm: Its name.
        benchmark: Its name; None for the mean over benchmarks.
        estimate: For new questions and new seeds.
        sampling_se: Error if only the student's sampling varied; nan with one repeat.
        question_se: Error if sampling and questions varied; the usual error bar of a benchmark.
        seed_se: Error if only seeds varied; nan with one seed.
    """

    arm: str
    benchmark: str | None
    estimate: Estimate
    sampling_se: float
    question_se: float
    seed_se: float


@dataclass(frozen=True)
class Difference:
    """An arm against the control.

    Attributes:
        arm: Its name.
        benchmark: Its name; None for the mean over benchmarks.
        estimate: Arm minus control.
        p: Two-sided, corrected by Holm over the arms of this benchmark.
        measured_seeds: Whether two or more seeds were run; without them the interval leaves the
            training noise out and is too narrow.
    """

    arm: str
    benchmark: str | None
    estimate: Estimate
    p: float
    measured_seeds: bool

    def verdict(self, level: float = 0.05) -> int:
        """Return 1 if the arm is better, -1 if it is worse, and 0 if no difference was found."""
        return 0 if self.p > level else (1 if self.estimate.value > 0 else -1)


def scores(outcomes: Outcomes) -> list[Score]:
    """Estimate the accuracy of every arm: pooled over benchmarks first, then on each."""
    found = []
    for benchmark in outcomes.scopes:
        for index, arm in enumerate(outcomes.arms):
            found.append(_score(outcomes, index, arm, benchmark))
    return found


def means(outcomes: Outcomes) -> dict[str, float]:
    """Return the mean of every arm over seeds and questions, benchmarks with equal weight."""
    pooled = pooled_over(outcomes.tables(None)).mean(axis=1)
    return {arm: float(value) for arm, value in zip(outcomes.arms, pooled, strict=True)}


def differences(outcomes: Outcomes) -> list[Difference]:
    """Compare every arm with the first: pooled over benchmarks first, then on each.

    Correction for many comparisons is within a benchmark. The pooled comparison is the one that a
    study is about; those on single benchmarks explain it.
    """
    found: list[Difference] = []
    for benchmark in outcomes.scopes:
        pairs = Pairs.of(outcomes, benchmark)
        estimates = [pairs.estimate(k, 0) for k in range(1, len(outcomes.arms))]
        for arm, estimate, p in zip(
            outcomes.arms[1:], estimates, holm([e.p for e in estimates]), strict=True
        ):
            found.append(Difference(arm, benchmark, estimate, p, len(outcomes.seeds) > 1))
    return found


def between(
    outcomes: Outcomes, arm: str, other: str, *, level: float = 0.95, noise: Noise | None = None
) -> Estimate:
    """Compare two arms, pooled over benchmarks: the first minus the other.

    Args:
        outcomes: Of all arms.
        arm: Its name.
        other: The other's name.
        level: Share of intervals that hold the truth.
        noise: Of training, where more is known of it than these outcomes say.
    """
    k, against = outcomes.arms.index(arm), outcomes.arms.index(other)
    return Pairs.of(outcomes, None, noise).estimate(k, against, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number: none is too small by chance more often than it says.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: Holm 1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def decision_accuracy(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the share of pairs of arms that two outcomes put in the same order, 0 to 1.

    It says how far decisions by one outcome, or at one scale, are those of another. Ties count
    half; nan with fewer than two arms in common.

    Source: DataDecide, arXiv 2504.11393.

    >>> decision_accuracy({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 2})
    0.6666666666666666
    """
    arms = [arm for arm in one if arm in other]
    pairs = [(a, b) for i, a in enumerate(arms) for b in arms[i + 1 :]]
    agree = 0.0
    for a, b in pairs:
        product = (one[a] - one[b]) * (other[a] - other[b])
        agree += 1.0 if product > 0 else 0.5 if product == 0 else 0.0
    return agree / len(pairs) if pairs else math.nan


def not_worse(outcomes: Outcomes, level: float = 0.05) -> list[str]:
    """Name the arms that cannot be told from the best one, the best one first.

    Every arm is compared with the arm of the highest mean, corrected by Holm.
    """
    pairs = Pairs.of(outcomes, None)
    means = pairs.pooled.mean(axis=1)
    best = int(means.argmax())
    rest = [k for k in range(len(outcomes.arms)) if k != best]
    p_values = holm([pairs.estimate(k, best).p for k in rest])
    tied = [k for k, p in zip(rest, p_values, strict=True) if p > level]
    return [outcomes.arms[k] for k in [best, *sorted(tied, key=lambda k: -means[k])]]


def within_two_errors(outcomes: Outcomes) -> list[str]:
    """Name the arms within two standard errors of the best, as the paper marks them.

    The error is that of the best arm's own mean. It is no test: it takes neither pairing nor the
    number of arms into account.

    Source: OpenThoughts, arXiv 2506.04178, tables of section 3 (entries in bold).
    """
    pooled = [s for s in scores(outcomes) if s.benchmark is None]
    best = max(pooled, key=lambda s: s.estimate.value)
    border = best.estimate.value - 2 * best.estimate.se
    return [s.arm for s in pooled if s.estimate.value >= border]


def bootstrap(
    table: Array, *, draws: int = 2_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return an interval of a mean by drawing seeds and questions anew, with replacement.

    For outcomes of which the variance formula above says nothing. Deviations of seeds are
    stretched by sqrt(S / (S - 1)), because S drawn of S vary too little; with fewer than five seeds
    it still covers less than it says, and `differences` is to be preferred.

    Args:
        table: (seeds, questions) of values or of paired differences.
        draws: Tables drawn.
        seed: Of the drawing.
        level: Share of intervals that should hold the truth.
    """
    rng = np.random.default_rng(seed)
    n_seeds, n_items = table.shape
    by_seed = table.mean(axis=1, keepdims=True)
    stretch = math.sqrt(n_seeds / (n_seeds - 1)) if n_seeds > 1 else 1.0
    table = table - by_seed + by_seed.mean() + (by_seed - by_seed.mean()) * stretch
    means = np.empty(draws)
    for i in range(draws):
        rows = rng.integers(n_seeds, size=n_seeds)
        columns = rng.integers(n_items, size=n_items)
        means[i] = table[rows].mean(axis=0)[columns].mean()
    edge = (1 - level) / 2
    low, high = np.quantile(means, [edge, 1 - edge])
    return float(low), float(high)


def _score(outcomes: Outcomes, index: int, arm: str, benchmark: str | None) -> Score:
    tables, names = outcomes.tables(benchmark), outcomes.names(benchmark)
    pooled = pooled_over(tables)
    n_arms, n_seeds = pooled.shape
    own = [t[index] for t in tables]
    asked = asked_of(own, outcomes.attempts(benchmark))
    error, seed_se = Error((asked,), asked), float("nan")
    if n_seeds > 1:
        # What a seed does to all arms does not cancel here. The two parts add up to the spread over
        # seeds of one arm, in the mean over arms.
        parts = [Part(float(pooled.mean(axis=0).var(ddof=1)) / n_seeds, n_seeds - 1)]
        if n_arms > 1:
            noise = mean_square(pooled)
            parts.append(Part((1 - 1 / n_arms) * noise.mean_square / n_seeds, noise.df))
        alone = max(0.0, asked.variance - sampling_of(tables, paired=False) / n_seeds)
        error = Error((Part(alone, asked.df), together(parts)), asked)
        seed_se = math.sqrt(sum(part.variance for part in parts))
    # Benchmarks weigh alike, so that questions of a small one count for more than one each.
    questions = len(own) ** 2 / sum(1 / t.shape[1] for t in own)
    sampling = (
        sum(
            float(outcomes.sampling[name][index]) / outcomes.means[name][index].size
            for name in names
        )
        / len(names) ** 2
    )
    return Score(
        arm=arm,
        benchmark=benchmark,
        estimate=Estimate.share(float(pooled[index].mean()), error, questions),
        sampling_se=math.sqrt(sampling),
        question_se=math.sqrt(asked.variance),
        seed_se=seed_se,
    )
