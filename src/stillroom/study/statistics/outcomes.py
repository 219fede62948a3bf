"""What a study is judged by: every grade of it, questions in one order for all arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Every grade of a study, questions in one order for all arms.

    Attributes:
        arms: Names; the first is the control.
        seeds: Names of the seeds, the same for every arm.
        means: Benchmark to (arms, seeds, questions): share of repeats that were right, 0 to 1.
        sampling: Benchmark to (arms,): variance of a mean over repeats, averaged over seeds and
            questions; nan with one repeat.
        attempt: Benchmark to what one attempt more that is right adds to the mean of an arm over
            seeds and repeats at its question; none where scores have no bounds.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    means: Mapping[str, Array]
    sampling: Mapping[str, Array]
    attempt: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(grades: pl.DataFrame, arms: Sequence[str], *, bounded: bool = True) -> Outcomes:
        """Arrange grades.

        Args:
            grades: ``arm``, ``seed``, ``benchmark``, ``item``, ``repeat`` and ``score``, a row for
                each attempt.
            arms: The arms in order, control first.
            bounded: Whether scores are 0 to 1, as all grades are.

        Raises:
            ValueError: If an arm lacks a seed, a question or a repeat that another one has.
        """
        seeds = tuple(grades["seed"].unique().sort())
        means: dict[str, Array] = {}
        sampling: dict[str, Array] = {}
        attempt: dict[str, float] = {}
        for benchmark in grades["benchmark"].unique(maintain_order=True):
            here = grades.filter(pl.col("benchmark") == benchmark)
            items = here["item"].unique().sort()
            cells = here.group_by("arm", "seed", "item").agg(
                pl.col("score").mean().alias("mean"),
                pl.col("score").var(ddof=1).alias("variance"),
                pl.len().alias("repeats"),
            )
            grid = pl.DataFrame({"arm": list(arms)}).join(
                pl.DataFrame({"seed": seeds}), how="cross"
            )
            grid = grid.join(items.to_frame(), how="cross")
            full = grid.join(cells, on=["arm", "seed", "item"], how="left", maintain_order="left")
            if full["repeats"].n_unique() != 1 or full["repeats"].null_count():
                raise ValueError(f"{benchmark}: not every arm has each seed, question and repeat")
            shape = (len(arms), len(seeds), len(items))
            means[benchmark] = full["mean"].to_numpy().reshape(shape)
            repeats = int(full["repeats"][0])
            variance = full["variance"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            sampling[benchmark] = variance.reshape(shape).mean(axis=(1, 2)) / repeats
            if bounded:
                attempt[benchmark] = 1 / (len(seeds) * repeats)
        return Outcomes(tuple(arms), seeds, means, sampling, attempt)

    @property
    def scopes(self) -> list[str | None]:
        """What is compared: the mean over benchmarks, and each of them if there are several."""
        return [None, *self.means] if len(self.means) > 1 else [None]

    def names(self, benchmark: str | None) -> list[str]:
        """Return the benchmarks of a scope."""
        return list(self.means) if benchmark is None else [benchmark]

    def tables(self, benchmark: str | None) -> list[Array]:
        """Return for each benchmark of a scope (arms, seeds, questions)."""
        return [self.means[name] for name in self.names(benchmark)]

    def attempts(self, benchmark: str | None) -> list[float]:
        """Return for each benchmark of a scope its part of `attempt`; 0 without bounds."""
        return [self.attempt.get(name, 0.0) for name in self.names(benchmark)]
