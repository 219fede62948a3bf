"""Grading a model on a benchmark: `items`, `answer` and `verify`, like any other recipe.

So attempts come from the ledger if they were paid for, a killed evaluation goes on where it was,
and there is one way to decide that an answer is right.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillroom.benchmarks.registry import TESTS, Benchmark, benchmarks, read_benchmark
from stillroom.errors import SourceError
from stillroom.evaluate.items import NOT_SAT, Items
from stillroom.run.runner import At, Runner
from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import Misfit, ModelSpec, Step
from stillroom.steps.verify.verify import Verify
from stillroom.store.table import Table
from stillroom.text.answers import choice_letter
from stillroom.verifiers.letters import read_letters

SHOWN = 5
"""Rows that a note names."""

_A_LETTER = 0.25  # credit for each right letter, by JEEBench's authors


class Exam(BaseModel):
    """How a benchmark is sat: where its items are, how they are asked, and how they are graded.

    Attributes:
        name: The benchmark's name.
        items: Where the items are.
        verify: What the step `verify` takes: a word, or the stages of a cascade.
        repeats: Attempts per item.
        temperature: Of the sampling; the paper's evaluations use 0.7.
        top_p: Nucleus share.
        max_tokens: Completion tokens at most, thinking included.
        prefix: Text before the question.
        suffix: Text after the question.
        credit: ``letters``: a quarter for each right letter, where none that is given is wrong;
            ``points``: the share of points that a program earned.
        judge: Who judges, where `verify` has a judge.
        says: What a score is, where that is not what the name promises.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    items: Items
    verify: Any
    repeats: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float | None = None
    max_tokens: int = Field(32_768, ge=1)
    prefix: str = ""
    suffix: str = ""
    credit: Literal["letters", "points"] | None = None
    judge: ModelSpec | None = None
    says: str | None = None

    def verifier(self) -> Verify:
        """Return the step that grades, its judge in place.

        Raises:
            SourceError: If it needs a judge and there is none.
        """
        step = Verify.model_validate(self.verify)
        try:
            return step.bind({"judge": self.judge} if self.judge else {})
        except Misfit:
            raise SourceError(
                f"{self.name}: a model judges its answers, and none is named; expected one. Name "
                "it with --judge, or in a study as `benchmarks.judge`."
            ) from None

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
            self.verifier(),
        ]


@dataclass(frozen=True)
class Grades:
    """One model on one benchmark.

    Attributes:
        table: A row for each attempt: ``item``, ``row`` (its place in the benchmark's file),
            ``repeat``, ``score`` (1.0 right, 0.0 not; between where there is part credit),
            ``verdict``, ``extracted``, ``finish_reason``, ``completion_tokens``.
        keys: Artifacts that hold the attempts and verdicts.
        notes: What a reader of the score should know, a sentence each.
        rows: Rows in the benchmark's file, those that are not sat among them.
        attempts: All that is known of each attempt that got a reply, questions and answers.
    """

    table: pl.DataFrame
    keys: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rows: int = 0
    attempts: Table | None = None

    @property
    def accuracy(self) -> float:
        """Mean score of the attempts, 0 to 1: the share that is right, but for part credit."""
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
        StillroomError: If the items cannot be read or graded, or the model cannot be asked.
    """
    at: list[At] = []
    keys: dict[str, str] = {}
    items, rows, notes = pl.DataFrame(), 0, list[str]()
    for step in exam.steps(model):
        at = [runner(f"{path}.{step.label}", step, at)]
        manifest = runner.built[-1].artifact.manifest
        keys[step.STEP] = manifest.key
        if isinstance(step, Items):
            items, rows = _items(exam, at[0].table), manifest.rows_in
            # Whoever shows them names the benchmark.
            own = (note.removeprefix(f"{exam.name}: ") for note in manifest.notes)
            notes = [*own, *_left_out(manifest.drops), *_unreadable(exam, items)]
    attempts = at[0].table
    answered = attempts.scan(
        "question_id", "draw", "verdict", "extracted", "finish_reason", "completion_tokens",
        "verdict_detail",
    ).collect()  # fmt: skip
    wanted = items.select(pl.col("id").alias("item"), "row", "reference").join(
        pl.DataFrame({"repeat": range(exam.repeats)}, schema={"repeat": pl.Int32}), how="cross"
    )
    table = wanted.join(
        answered.rename({"question_id": "item", "draw": "repeat"}),
        on=["item", "repeat"],
        how="left",
        maintain_order="left",
    ).with_columns(pl.col("verdict").fill_null("error"))
    scored = table.with_columns(_score(table, exam).alias("score"))
    scored = scored.drop("reference", "verdict_detail")
    if exam.repeats > 1 and exam.temperature > 0 and _may_be_alike(table) and _all_alike(attempts):
        notes.append(
            f"All {exam.repeats} repeats of every item are the same text: the server does not "
            f"sample at temperature {exam.temperature:g}, or ignores draws. The sampling error is "
            "not what it seems."
        )
    if exam.says:
        notes.append(f"A score here is {exam.says}.")
    return Grades(scored, keys, tuple(notes), rows, attempts)


def _items(exam: Exam, table: Table) -> pl.DataFrame:
    """Read what is asked, and make sure that each item can be graded.

    Raises:
        SourceError: If there are no items, or some have nothing to be graded by.
    """
    column = "tests" if exam.verify == "code" else "reference"
    known = column in table.shape.columns
    # Tests can be gigabytes; only whether they are there is asked.
    there = pl.col(column).is_not_null() if known else pl.lit(value=False)
    wanted = dict.fromkeys(["id", "row", "reference", *([column] if known else [])])
    items = table.scan(*wanted).select("id", "row", "reference", there=there).collect()
    if items.is_empty():
        raise SourceError(
            f"{exam.name}: no row of the file is an item; expected some. Check that it is the "
            "right file."
        )
    lacking = items.filter(~pl.col("there"))
    if lacking.height:
        raise SourceError(
            f"{exam.name}: {lacking.height:,} of {items.height:,} items have no {column} to be "
            f"graded by, the first in row {lacking['row'][0]}; expected one for each. Check the "
            "file, and the column that the benchmark names."
        )
    return items.drop("there")


def _left_out(drops: dict[str, int]) -> list[str]:
    """Say which rows of the file are no items, but for those that were never meant to be."""
    said = [f"{n:,} {why}" for why, n in sorted(drops.items()) if why != NOT_SAT]
    return [f"Left out: {', '.join(said)}."] if said else []


def _unreadable(exam: Exam, items: pl.DataFrame) -> list[str]:
    """Name items whose known answer is no letter, where letters are compared."""
    reads = {"choice": choice_letter, "letters": read_letters}.get(str(exam.verify))
    if reads is None:
        return []
    bad = [(row, text) for row, text in items.select("row", "reference").rows() if not reads(text)]
    if not bad:
        return []
    named = ", ".join(f"row {row} ({text[:20]!r})" for row, text in bad[:SHOWN])
    return [
        f"{len(bad):,} items have an answer that is no letter A to J, and count as wrong: {named}."
    ]


def _score(table: pl.DataFrame, exam: Exam) -> pl.Series:
    right = (table["verdict"] == "correct").cast(pl.Float64)
    if exam.credit is None:
        return right
    if exam.credit == "points":
        decided = table["verdict"].is_in(["correct", "incorrect"])
        told = zip(decided, table["verdict_detail"], strict=True)
        return pl.Series([_points(detail) if known else 0.0 for known, detail in told])
    given = zip(table["reference"], table["extracted"], right, strict=True)
    return pl.Series([max(float(full), _letters(ref, text)) for ref, text, full in given])


def _points(detail: str | None) -> float:
    """Return the share of points that a verdict tells."""
    return float(json.loads(detail or "{}").get("share", 0.0))


def _letters(reference: str, extracted: str | None) -> float:
    """Return the part credit of letters.

    >>> _letters("ABD", "AD"), _letters("ABD", "AC")
    (0.5, 0.0)
    """
    right, given = read_letters(reference), read_letters(extracted or "")
    if not right or not given or not set(given) < set(right):
        return 0.0
    return _A_LETTER * len(given)


def _may_be_alike(table: pl.DataFrame) -> bool:
    """Tell by what is at hand whether texts need be read: those of a student take gigabytes."""
    seen = table.group_by("item").agg(pl.struct("extracted", "completion_tokens").n_unique())
    return bool((seen["extracted"] == 1).all())


def _all_alike(attempts: Table) -> bool:
    """Tell whether every item got one text again and again, and there is more than one item."""
    items = 0
    for frame in attempts.frames("question_id", "reasoning", "answer"):
        texts = frame.group_by("question_id").agg(
            pl.struct("reasoning", "answer").n_unique().alias("texts"), pl.len()
        )
        if not texts.filter((pl.col("texts") > 1) | (pl.col("len") == 1)).is_empty():
            return False
        items += texts.height
    return items > 1


def known_benchmark(name: str) -> Benchmark:
    """Return a benchmark of the registry, or of a file of one's own.

    Raises:
        SourceError: If there is none.
    """
    if is_file(name):
        return read_benchmark(Path(name))
    known = benchmarks()
    if name not in known:
        raise SourceError(
            f"{name}: no such benchmark; expected one of {', '.join(sorted(known))}, or a file "
            "that ends in .yaml. Correct the name."
        )
    return known[name]


def is_file(name: str) -> bool:
    """Tell whether a benchmark is named by the path of a file of one's own."""
    return name.endswith((".yaml", ".yml"))


def title_of(name: str) -> str:
    """Return what a benchmark is called in reports: its name, or that of its file as a word.

    >>> title_of("sets/my-items.yaml"), title_of("2025.yaml"), title_of("math500")
    ('my_items', 'items_2025', 'math500')
    """
    if not is_file(name):
        return name
    word = re.sub(r"[^A-Za-z0-9_]+", "_", Path(name).stem)
    return word if word[:1].isalpha() else f"items_{word.lstrip('_')}"


def exam_of(name: str, repeats: int | None, judge: ModelSpec | None = None) -> Exam:
    """Return the exam of a benchmark.

    Args:
        name: In the registry, or the path of a YAML file.
        repeats: Attempts per item; by default what the benchmark says.
        judge: Who judges, where a model does.

    Raises:
        SourceError: If there is no such benchmark, or nobody can grade it yet.
    """
    benchmark = known_benchmark(name)
    if benchmark.sitting is None:
        able = ", ".join(sorted(n for n, b in benchmarks().items() if b.sitting))
        raise SourceError(f"{name}: it cannot be graded here; expected one of {able}.")
    sitting = benchmark.sitting
    title = title_of(name)
    chosen = {
        "reference": benchmark.reference or None,
        "reference_in": sitting.reference_in,
        "tests": sitting.tests,
        "cases": sitting.cases and {**sitting.cases.source(), "as": f"{title}{TESTS}"},
        "form": sitting.form,
        "options": sitting.options,
        "where": sitting.where,
        "once": sitting.once,
        **({"files": sitting.files} if sitting.files else {}),
    }
    fields = {
        "name": title,
        "items": {**benchmark.source(), **chosen, "as": title},
        "judge": judge,
        **sitting.model_dump(
            include={
                "verify", "repeats", "temperature", "max_tokens", "prefix", "suffix", "credit",
                "says",
            }
        ),
    }  # fmt: skip
    try:
        exam = Exam.model_validate(fields if repeats is None else {**fields, "repeats": repeats})
    except ValidationError as error:
        raise _bad(name, error, "") from None
    try:
        exam.verifier()
    except ValidationError as error:
        raise _bad(name, error, "sitting.verify") from None
    return exam


def names_of(exams: Iterable[Exam]) -> list[str]:
    """Name what a local file can stand in for, each once (``--source NAME=FILE``)."""
    return list(dict.fromkeys(name for exam in exams for name in exam.items.named()))


def _bad(name: str, error: ValidationError, where: str) -> SourceError:
    first = error.errors()[0]
    place = where or ".".join(map(str, first["loc"])) or "sitting"
    wanted = first["msg"].replace("Input should be", "expected")
    wrong = f": {wanted}" if wanted == first["msg"] else f" is {first['input']!r}; {wanted}"
    return SourceError(f"{name}: {place}{wrong}. Correct it.")


def exams_of(names: Sequence[str], repeats: int | None, judge: ModelSpec | None) -> list[Exam]:
    """Return the exams of several benchmarks.

    Raises:
        SourceError: As `exam_of`, or if two have one name.
    """
    exams = [exam_of(name, repeats, judge) for name in names]
    titles = [exam.name for exam in exams]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise SourceError(
            f"{twice[0]}: two benchmarks have this name; expected each once. Rename a file."
        )
    return exams
