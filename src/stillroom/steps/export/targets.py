"""Forms that other programs read as they are: their columns, and how they are written.

A target's columns are those of the program that consumes it, and no others: metadata that the
program knows nothing of stays in the card and the record.

===========  =====================================================================
openthoughts the ``metadata`` configuration of OpenThoughts-114k
verl         RL prompts of verl: ``reward_model.ground_truth`` is the reference or the tests
nemo_gym     RL prompts of NeMo Gym, as JSONL: ``responses_create_params`` beside what its servers
             verify by, ``expected_answer`` or ``verifier_metadata.unit_tests``
verifiers    RL prompts of Prime Intellect's verifiers: ``prompt``, ``answer``, ``info``
preference   ``prompt``, ``chosen``, ``rejected``, as TRL's preference trainers read them
stepwise     ``prompt``, ``completions``, ``labels``, as TRL's trainer of process reward models
             reads them
===========  =====================================================================

RL prompts carry what is known of a question: its source, its tests, the verifier with its version
that judged the draws, and its pass rates.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import polars as pl

from stillroom.errors import ExportError
from stillroom.rows import Schema, Shape
from stillroom.verifiers.code_tests import read_tests

Target = Literal["openthoughts", "verl", "nemo_gym", "verifiers", "preference", "stepwise"]

MESSAGE = pl.Struct({"role": pl.String(), "content": pl.String()})
TURNS = pl.List(MESSAGE)
UNIT_TESTS = pl.Struct(
    {"inputs": pl.List(pl.String()), "outputs": pl.List(pl.String()), "fn_name": pl.String()}
)
"""Tests as NeMo Gym's server for code has them."""

RATES = ("pass_rate", "solve_rate", "draws_decided", "draws_correct")
"""How columns begin that say how hard a question is, those of `pass_rate` and `solve_rate`."""

_INFO: Schema = {
    "id": pl.String(), "split": pl.String(), "source": pl.String(), "teacher": pl.String(),
    "verifier": pl.String(), "tests": pl.String(), "pass_rate": pl.Float64(),
    "draws_decided": pl.Int32(),
}  # fmt: skip
"""What every RL prompt has beside it, null where it is not known; rates that are known follow."""

COLUMNS: Mapping[Target, Schema] = {
    "openthoughts": dict.fromkeys(
        (
            "problem", "deepseek_reasoning", "deepseek_solution", "ground_truth_solution",
            "domain", "source", "test_cases", "starter_code",
        ),
        pl.String(),
    ),
    "verl": {
        "data_source": pl.String(),
        "prompt": TURNS,
        "ability": pl.String(),
        "reward_model": pl.Struct({"style": pl.String(), "ground_truth": pl.String()}),
    },
    "nemo_gym": {
        "id": pl.String(),
        "responses_create_params": pl.Struct({"input": TURNS}),
        "question": pl.String(),
        "expected_answer": pl.String(),
        "pass_rate": pl.Float64(),
        "pass_rate_total": pl.Int32(),
        "pass_rate_passed": pl.Int32(),
    },
    "verifiers": {"prompt": TURNS, "answer": pl.String(), "task": pl.String()},
    "preference": {"prompt": TURNS, "chosen": TURNS, "rejected": TURNS},
    "stepwise": {
        "prompt": pl.String(),
        "completions": pl.List(pl.String()),
        "labels": pl.List(pl.Boolean()),
    },
}  # fmt: skip
"""Columns of each target; `columns` adds that of what is known beside an RL prompt."""

BESIDE: Mapping[str, str] = {
    "verl": "extra_info", "nemo_gym": "verifier_metadata", "verifiers": "info",
}  # fmt: skip
"""Where a target of RL prompts keeps what is known beside them."""

NEEDS: Mapping[Target, Sequence[str]] = {
    "openthoughts": ("question", "reference", "domain", "source"),
    "verl": ("question", "reference", "domain", "source"),
    "nemo_gym": ("question", "reference", "domain", "source"),
    "verifiers": ("question", "reference", "domain", "source"),
    "preference": ("pair", "question"),
    "stepwise": ("step_labels", "question"),
}
"""Columns that must be there, those of an answer left out."""

REFERENCED = ("verl", "nemo_gym", "verifiers")
"""Targets whose rows are prompts with a known answer or tests: one row for each question."""


def columns(target: Target, shapes: Iterable[Shape]) -> Schema:
    """Name and type the columns of a target, for tables of these shapes."""
    if target not in REFERENCED:
        return COLUMNS[target]
    info = dict(_INFO)
    for shape in shapes:
        info |= {
            name: dtype
            for name, dtype in shape.columns.items()
            if name.startswith(RATES) and name not in _INFO and dtype != pl.Unknown()
        }
    if target == "nemo_gym":
        info["unit_tests"] = UNIT_TESTS
    return {**COLUMNS[target], BESIDE[target]: pl.Struct(info)}


def prompts(
    frame: pl.DataFrame, key: str, target: Target, prompt: pl.Expr, beside: pl.DataType
) -> pl.DataFrame:
    """Write RL prompts.

    Args:
        frame: Rows with the columns of `NEEDS`, and what else is known of them.
        key: Column that names the question.
        target: One of `REFERENCED`.
        prompt: The words that a policy is asked, a list of messages.
        beside: Type of the column that holds what is known beside a prompt.

    Raises:
        ExportError: If a row has neither reference nor tests, two rows share their question, or
            the program cannot run the tests.
    """
    frame = _complete(frame, target)
    twice = frame.filter(pl.col(key).is_duplicated())
    if twice.height:
        raise ExportError(
            f"export: {target} has one row for each question, but {twice.height:,} rows share "
            f"theirs, such as {twice['id'][0]}. Put `take: {{n: 1, per: question_id}}` last."
        )
    frame = frame.with_columns(pl.lit("train").alias("split"), pl.col(key).alias("id"))
    truth = pl.col("reference")
    if target in ("verl", "nemo_gym"):
        tests = [
            None if text is None else _inputs_and_outputs(text, row, target)
            for row, text in frame.select("id", "tests").iter_rows()
        ]
        frame = frame.with_columns(pl.Series("unit_tests", tests, dtype=UNIT_TESTS))
        texts = [None if found is None else json.dumps(found) for found in tests]
        truth = pl.coalesce(pl.Series(texts, dtype=pl.String), truth)
    assert isinstance(beside, pl.Struct)
    info = pl.struct(_known(frame, field.name, field.dtype) for field in beside.fields)
    asked, info = prompt.alias("prompt"), info.alias(BESIDE[target])
    match target:
        case "verl":
            style = pl.lit("rule").alias("style")
            return frame.select(
                pl.col("source").alias("data_source"),
                asked,
                pl.col("domain").alias("ability"),
                pl.struct(style, truth.alias("ground_truth")).alias("reward_model"),
                info,
            )
        case "nemo_gym":
            return frame.select(
                "id",
                pl.struct(prompt.alias("input")).alias("responses_create_params"),
                "question",
                pl.col("reference").alias("expected_answer"),
                _known(frame, "pass_rate", pl.Float64()),
                _known(frame, "draws_decided", pl.Int32()).alias("pass_rate_total"),
                _known(frame, "draws_correct", pl.Int32()).alias("pass_rate_passed"),
                info,
            )
        case _:
            return frame.select(
                asked, pl.col("reference").alias("answer"), pl.col("domain").alias("task"), info
            )


def _complete(frame: pl.DataFrame, target: Target) -> pl.DataFrame:
    """Check that each row can be judged, and give every frame a column of tests."""
    if "tests" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("tests"))
    reference = pl.col("reference")
    blank = reference.is_null() | (reference.str.strip_chars() == "")
    lost = frame.filter(blank & pl.col("tests").is_null())
    if lost.height:
        raise ExportError(
            f"export: {target} needs the reference or the tests of every row, but {lost.height:,} "
            f"rows have neither, such as {lost['id'][0]}. Drop them: `label: rules`, then "
            "`keep: {where: {no_reference: false}}`."
        )
    return frame


def _known(frame: pl.DataFrame, name: str, dtype: Any) -> pl.Expr:
    column = pl.col(name) if name in frame.columns else pl.lit(None)
    return column.cast(dtype).alias(name)


def _inputs_and_outputs(text: str, row: str, target: Target) -> dict[str, Any]:
    try:
        return read_tests(text).inputs_and_outputs()
    except ValueError as error:
        raise ExportError(
            f"export: {target} runs tests of inputs and outputs, but row {row} has {error}. Leave "
            "such rows out, or write `format: verifiers`, which carries tests as they are."
        ) from None


STEP = re.compile(r"\n[ \t]*\n\s*")
"""What stands between two steps: a blank line or more."""


def stepwise(frame: pl.DataFrame, prompt: pl.Expr, parts: Sequence[str]) -> pl.DataFrame:
    """Write the paragraphs of each answer as steps, with a label for each.

    Args:
        frame: Rows with ``step_labels``: a list of booleans, or the JSON text of one.
        prompt: What was asked, a text.
        parts: Columns of an answer whose paragraphs are its steps, in order.

    Raises:
        ExportError: If an answer has not exactly one label, true or false, for each step.
    """
    steps, labels = [], []
    for row, marks, *texts in frame.select("id", "step_labels", *parts).iter_rows():
        steps.append([s for t in texts if t and t.strip() for s in STEP.split(t.strip())])
        labels.append(_labels(row, marks, len(steps[-1])))
    return frame.select(
        prompt.alias("prompt"),
        pl.Series("completions", steps, dtype=pl.List(pl.String)),
        pl.Series("labels", labels, dtype=pl.List(pl.Boolean)),
    )


def _labels(row: str, marks: Any, n_steps: int) -> list[bool]:
    found = marks
    if isinstance(marks, str):
        try:
            found = json.loads(marks)
        except ValueError:
            found = None
    if not isinstance(found, list) or not all(isinstance(mark, bool) for mark in found):
        raise ExportError(
            f"export: stepwise: step_labels of row {row} is {str(marks)[:60]!r}; expected a list "
            "of true and false. Drop rows without labels: `keep`."
        )
    if len(found) != n_steps:
        raise ExportError(
            f"export: stepwise: row {row} has {n_steps:,} steps, but {len(found):,} step_labels; "
            "expected one for each. A step is a paragraph, with blank lines around it, of the "
            "reasoning and then of the answer (with `think: none`, of the answer alone)."
        )
    return found


def openthoughts(frame: pl.DataFrame) -> pl.DataFrame:
    """Write the columns of OpenThoughts-114k's metadata; tests and starter code where known."""
    return frame.select(
        pl.col("question").alias("problem"),
        pl.col("reasoning").alias("deepseek_reasoning"),
        pl.col("answer").alias("deepseek_solution"),
        pl.col("reference").alias("ground_truth_solution"),
        "domain",
        "source",
        *(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.String).alias(column)
            for column, name in (("test_cases", "tests"), ("starter_code", "starter_code"))
        ),
    )


def pairs(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows that `label: pair` marked into the chosen and the rejected ones, in step.

    Raises:
        ExportError: If a question does not have one of each.
    """
    chosen = frame.filter(pl.col("pair") == "chosen")
    rejected = frame.filter(pl.col("pair") == "rejected")
    rejected = chosen.select("question_id").join(
        rejected, on="question_id", how="left", maintain_order="left"
    )
    whole = chosen.height * 2 == frame.height and rejected["id"].null_count() == 0
    if not whole or rejected.height != chosen.height:
        raise ExportError(
            "export: preference needs one chosen and one rejected row of each question, and "
            "nothing else. Put `label: {pair: ...}` and "
            "`keep: {where: {pair: [chosen, rejected]}}` last."
        )
    return chosen, rejected
