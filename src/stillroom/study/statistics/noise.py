"""The parts of the variance of a difference: questions, sampling, and training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.study.statistics.errors import Error, Estimate, Part, together
from stillroom.study.statistics.outcomes import Array, Outcomes


@dataclass(frozen=True)
class Noise:
    """What training alone does to an arm's mean on one seed.

    Attributes:
        mean_square: Variance of a cell (arm, seed) around arm and seed, or around the arm.
        df: Degrees of freedom of it; 0 if nothing is known.
    """

    mean_square: float
    df: float


def by_seed(outcomes: Outcomes) -> dict[str, list[float]]:
    """Return the mean of every arm on each seed, benchmarks with equal weight."""
    pooled = pooled_over(outcomes.tables(None))
    return {arm: list(map(float, row)) for arm, row in zip(outcomes.arms, pooled, strict=True)}


def training_noise(means: Mapping[str, Sequence[float]]) -> Noise:
    """Estimate the noise of training from arms that ran different numbers of seeds.

    Args:
        means: Arm to its mean on the seeds 0, 1, ...; arms may stop early.

    Returns:
        The residual mean square of the additive model arm + seed.
    """
    cells = [(k, s, value) for k, row in enumerate(means.values()) for s, value in enumerate(row)]
    arms, seeds = len(means), max(len(row) for row in means.values())
    df = len(cells) - arms - seeds + 1
    if df < 1:
        return Noise(0.0, 0.0)
    design = np.zeros((len(cells), arms + seeds))
    for number, (k, s, _) in enumerate(cells):
        design[number, k] = design[number, arms + s] = 1
    values = np.array([value for _, _, value in cells])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return Noise(float((rest**2).sum()) / df, float(df))


def pooled_over(tables: Sequence[Array]) -> Array:
    """Average over questions, then over benchmarks with equal weight: (arms, seeds)."""
    pooled: Array = np.mean([t.mean(axis=2) for t in tables], axis=0)
    return pooled


def asked_of(tables: Sequence[Array], attempts: Sequence[float]) -> Part:
    """Estimate the variance of a mean over questions, if the same seeds were taken again.

    It is no less than if, at two questions of a benchmark, one attempt more were right, and one
    more were wrong: questions that were all answered alike do not say that the next one will be.

    Args:
        tables: For each benchmark (seeds, questions).
        attempts: For each benchmark what an attempt adds; see `Outcomes`.
    """
    parts = []
    for table, attempt in zip(tables, attempts, strict=True):
        n = table.shape[1]
        variance = max(float(table.mean(axis=0).var(ddof=1)) / n, 2 * (attempt / n) ** 2)
        parts.append(Part(variance / len(tables) ** 2, n - 1))
    return together(parts)


FEW = 5
"""Degrees of freedom of (arm x seed) that are too few to leave out what seeds do to all arms."""


def degrees(arms: int, seeds: int) -> int:
    """Return the degrees of freedom of the noise of training, for differences."""
    paired = (arms - 1) * (seeds - 1)
    return paired if paired >= FEW else arms * (seeds - 1)


def _noise(pooled: Array) -> Noise:
    """Return what training does to an arm's mean on one seed, for differences.

    Args:
        pooled: (arms, seeds), two or more of each.
    """
    paired = mean_square(pooled)
    if paired.df >= FEW:
        return paired
    return Noise(float(pooled.var(axis=1, ddof=1).mean()), degrees(*pooled.shape))


def mean_square(pooled: Array) -> Noise:
    """Return the mean square of (arm x seed).

    Args:
        pooled: (arms, seeds), two or more of each.
    """
    rest = pooled - pooled.mean(0) - pooled.mean(1, keepdims=True) + pooled.mean()
    df = (pooled.shape[0] - 1) * (pooled.shape[1] - 1)
    return Noise(float((rest**2).sum()) / df, df)


def sampling_of(tables: Sequence[Array], *, paired: bool) -> float:
    """Estimate what sampling alone adds to the variance of one student's mean.

    Args:
        tables: For each benchmark (arms, seeds, questions), two or more seeds.
        paired: Whether to leave out what a seed does to a question in all arms alike.
    """
    total = 0.0
    for table in tables:
        n_arms, n_seeds, n_items = table.shape
        by_item, by_seed = table.mean(axis=1, keepdims=True), table.mean(axis=2, keepdims=True)
        rest = table - by_item - by_seed + table.mean(axis=(1, 2), keepdims=True)
        if paired:
            rest = rest - rest.mean(axis=0)
        df = (n_arms - paired) * (n_seeds - 1) * (n_items - 1)
        total += float((rest**2).sum()) / df / n_items / len(tables) ** 2
    return total


@dataclass(frozen=True)
class Pairs:
    """Comparisons of two arms on the same tables.

    Attributes:
        tables: For each benchmark (arms, seeds, questions).
        attempts: For each benchmark what an attempt adds; see `Outcomes`.
        pooled: Over benchmarks and questions: (arms, seeds).
        noise: Of training; None with one seed.
        sampling: What it is without training; 0 with one seed.
    """

    tables: Sequence[Array]
    attempts: Sequence[float]
    pooled: Array
    noise: Noise | None
    sampling: float

    @staticmethod
    def of(outcomes: Outcomes, benchmark: str | None, noise: Noise | None = None) -> Pairs:
        """Estimate from all arms what two of them share."""
        tables, attempts = outcomes.tables(benchmark), outcomes.attempts(benchmark)
        pooled = pooled_over(tables)
        if pooled.shape[1] == 1:
            return Pairs(tables, attempts, pooled, None, 0.0)
        sampling = sampling_of(tables, paired=True)
        return Pairs(tables, attempts, pooled, noise or _noise(pooled), sampling)

    def estimate(self, k: int, against: int, level: float = 0.95) -> Estimate:
        """Return the difference of two arms, with its interval."""
        value = float((self.pooled[k] - self.pooled[against]).mean())
        most = 1.0 if all(self.attempts) else math.inf
        return Estimate.of(value, self.error(k, against), level, most=most)

    def error(self, k: int, against: int) -> Error:
        """Return how far the difference of two arms may be off."""
        asked = asked_of([t[k] - t[against] for t in self.tables], self.attempts)
        if self.noise is None:
            return Error((asked,), asked)
        n_seeds = self.pooled.shape[1]
        alone = max(0.0, asked.variance - 2 * self.sampling / n_seeds)
        training = Part(2 * self.noise.mean_square / n_seeds, self.noise.df)
        return Error((Part(alone, asked.df), training), asked)
