"""What a study has: students with their grades, and the steps that made their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from stillroom.evaluate.contamination import Suspects
from stillroom.evaluate.grade import Grades
from stillroom.run.runner import Built
from stillroom.steps.answer.answer import Answer
from stillroom.study.form import Study
from stillroom.study.seals import Opening


@dataclass(frozen=True)
class Sat:
    """One student: an arm and a seed, trained and graded.

    Attributes:
        arm: Its arm.
        seed: Its replication, from 0.
        student: Its key in the store; None for the base model, untrained.
        there: Rows that the arm's recipe made.
        rows: Rows that it was trained on, repeats counted.
        distinct: Of these, different ones.
        shown: Digest of what these rows say.
        trained: What training said of itself.
        seconds: Of training; 0 if it was found.
        grades: Benchmark to grades.
        likelihood: Benchmark to ``item`` and ``score``: mean log-likelihood per token of a right
            answer, in nats; empty without ``references``.
        failed: Why there are no grades, or None.
    """

    arm: str
    seed: int
    student: str | None
    there: int = 0
    rows: int = 0
    distinct: int = 0
    shown: str = ""
    trained: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    grades: Mapping[str, Grades] = field(default_factory=dict)
    likelihood: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    failed: str | None = None


@dataclass(frozen=True)
class Result:
    """A study that was run.

    Attributes:
        study: What was asked.
        sat: A student for every arm and seed, and the untrained base model.
        built: Steps of all arms, by arm and seed, for drops, keys and cost.
        openings: Of held-out benchmarks, by whatever study used this store.
        suspects: Benchmark items that training data ask, if the study says how to know them.
        graded: Steps of all sittings and references, for their cost.
    """

    study: Study
    sat: list[Sat]
    built: dict[tuple[str, int], list[Built]]
    openings: Sequence[Opening] = ()
    suspects: Suspects | None = None
    graded: Sequence[Built] = ()

    def grades(self) -> pl.DataFrame:
        """Return every attempt of every student, a row each."""
        return self._grades

    @cached_property
    def _grades(self) -> pl.DataFrame:
        frames = [
            g.table.select(
                pl.lit(s.arm).alias("arm"),
                pl.lit(s.seed).alias("seed"),
                pl.lit(benchmark).alias("benchmark"),
                "item", "repeat", "score", "verdict", "finish_reason", "completion_tokens",
            )
            for s in self.sat
            if s.student is not None
            for benchmark, g in s.grades.items()
        ]  # fmt: skip
        return pl.concat(frames)

    def asked(self, arm: str) -> int:
        """Count the completions that an arm's recipe asks for, found or bought."""
        here = [b for (name, _), steps in self.built.items() for b in steps if name == arm]
        return sum(asked_by(built) for built in here)

    def likelihoods(self) -> pl.DataFrame | None:
        """Return the second outcome of every student in the form of `grades`, if there is one."""
        frames = [
            table.select(
                pl.lit(s.arm).alias("arm"),
                pl.lit(s.seed).alias("seed"),
                pl.lit(benchmark).alias("benchmark"),
                "item",
                pl.lit(0).alias("repeat"),
                "score",
            )
            for s in self.sat
            if s.student is not None
            for benchmark, table in s.likelihood.items()
        ]
        return pl.concat(frames) if frames else None


def asked_by(built: Built) -> int:
    """Count the completions that a step asked for, found or bought.

    A run that goes on after a kill counts what was left to it; the draws of `answer` are known.
    """
    manifest = built.artifact.manifest
    counted = (manifest.measured.get("calls") or 0) + (manifest.measured.get("reused") or 0)
    return max(counted, manifest.rows_in) if manifest.step == Answer.STEP else counted
