"""Grading a model on a benchmark: `source`, `answer` and `verify`, like any other recipe.

So attempts come from the ledger if they were paid for, a killed evaluation goes on where it was,
and there is one way to decide that an answer is right.
"""

from dataclasses import dataclass, field

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from stillroom.benchmarks.registry import benchmarks
from stillroom.errors import SourceError
from stillroom.evaluate.items import Items
from stillroom.run.runner import At, Runner
from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import ModelSpec, Step
from stillroom.steps.verify.verify import Verify


class Exam(BaseModel):
    """How a benchmark is sat: where its items are, how they are asked, and how they are graded.

    Attributes:
        name: The benchmark's name.
        items: Where the items are.
        verify: The verifier that grades; see the step `verify`.
        repeats: Attempts per item.
        temperature: Of the sampling; the paper's evaluations use 0.7.
        top_p: Nucleus share.
        max_tokens: Completion tokens at most, thinking included.
        prefix: Text before the question.
        suffix: Text after the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    items: Items
    verify: str
    repeats: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float | None = None
    max_tokens: int = Field(32_768, ge=1)
    prefix: str = ""
    suffix: str = ""

    def steps(self, model: str) -> list[Step]:
        """Return the steps of one sitting, for a model of this frozen name."""
        spec = ModelSpec(
            name=model,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
        )
        return [
            self.items.model_copy(update={"as_": self.name}),
            Answer(model=spec, draws=self.repeats, prefix=self.prefix, suffix=self.suffix),
            Verify.model_validate({"by": self.verify}),
        ]


@dataclass(frozen=True)
class Grades:
    """One model on one benchmark.

    Attributes:
        table: A row for each attempt: ``item``, ``repeat``, ``score`` (1.0 right, 0.0 not),
            ``verdict``, ``finish_reason``, ``completion_tokens``.
        keys: Artifacts that hold the attempts and verdicts.
    """

    table: pl.DataFrame
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of attempts that are right, 0 to 1."""
        return float(self.table["score"].sum()) / self.table.height

    def share(self, column: str, value: str) -> float:
        """Share of attempts with a value, such as ``finish_reason`` of ``length``."""
        return int((self.table[column] == value).sum()) / self.table.height


def grade(exam: Exam, model: str, runner: Runner, path: str) -> Grades:
    """Let a model sit an exam.

    An attempt that has no answer, or one that cannot be read, is not right. An attempt that got no
    reply at all stands as a row with the verdict ``error``, and is not right either; so every model
    is graded on the same items.

    Args:
        exam: What is asked.
        model: Frozen name of the model.
        runner: Runs the steps.
        path: Name of this sitting in messages and progress.

    Raises:
        StillroomError: If the items cannot be read or the model cannot be asked.
    """
    at: list[At] = []
    keys: dict[str, str] = {}
    items: pl.DataFrame | None = None
    for step in exam.steps(model):
        at = [runner(f"{path}.{step.label}", step, at)]
        keys[step.STEP] = runner.built[-1].artifact.manifest.key
        if items is None:
            items = at[0].table.scan("id").collect()
    assert items is not None
    answered = (
        at[0]
        .table.scan("question_id", "draw", "verdict", "finish_reason", "completion_tokens")
        .collect()
    )
    wanted = items.rename({"id": "item"}).join(
        pl.DataFrame({"repeat": range(exam.repeats)}, schema={"repeat": pl.Int32}), how="cross"
    )
    table = wanted.join(
        answered.rename({"question_id": "item", "draw": "repeat"}),
        on=["item", "repeat"],
        how="left",
        maintain_order="left",
    ).with_columns(pl.col("verdict").fill_null("error"))
    score = (pl.col("verdict") == "correct").cast(pl.Float64).alias("score")
    return Grades(table.with_columns(score), keys)


def exam_of(name: str, repeats: int | None) -> Exam:
    """Return the exam of a benchmark in the registry.

    Raises:
        SourceError: If there is no such benchmark, or nobody can grade it yet.
    """
    known = benchmarks()
    if name not in known:
        raise SourceError(
            f"{name}: no such benchmark; expected one of {', '.join(sorted(known))}. "
            "Correct the name."
        )
    benchmark = known[name]
    if benchmark.sitting is None:
        able = ", ".join(sorted(n for n, b in known.items() if b.sitting))
        raise SourceError(f"{name}: it cannot be graded here; expected one of {able}.")
    sitting = benchmark.sitting
    reference = benchmark.reference
    return Exam.model_validate(
        {
            "name": name,
            "items": {**benchmark.source(), "reference": reference or None, "as": name},
            "verify": sitting.verify,
            "repeats": repeats or sitting.repeats,
            "temperature": sitting.temperature,
            "max_tokens": sitting.max_tokens,
            "prefix": sitting.prefix,
            "suffix": sitting.suffix,
        }
    )
