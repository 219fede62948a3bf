"""Forms that other programs read as they are: their columns, and how they are written.

A target's columns are those of the program that consumes it, and no others: metadata that the
program knows nothing of stays in the card and the record.

===========  =====================================================================
openthoughts the ``metadata`` configuration of OpenThoughts-114k
verl         RL prompts of verl: ``reward_model.ground_truth`` is the reference
nemo_gym     RL prompts of NeMo-Gym: ``responses_create_params`` beside the reference
verifiers    RL prompts of Prime Intellect's verifiers: ``prompt``, ``answer``, ``info``
preference   ``prompt``, ``chosen``, ``rejected``, as TRL's preference trainers read them
===========  =====================================================================
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from stillroom.errors import ExportError
from stillroom.rows import Schema

Target = Literal["openthoughts", "verl", "nemo_gym", "verifiers", "preference"]

MESSAGE = pl.Struct({"role": pl.String(), "content": pl.String()})
TURNS = pl.List(MESSAGE)

PASSED = ("pass_rate", "draws_decided")
"""What is known of how hard a question is, where `label: pass_rate` measured it."""

_INFO = pl.Struct(
    {
        "id": pl.String(), "split": pl.String(), "source": pl.String(), "teacher": pl.String(),
        "pass_rate": pl.Float64(), "draws_decided": pl.Int64(),
    }
)  # fmt: skip

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
        "extra_info": _INFO,
    },
    "nemo_gym": {
        "id": pl.String(),
        "responses_create_params": pl.Struct({"input": TURNS}),
        "question": pl.String(),
        "expected_answer": pl.String(),
        "verifier_metadata": _INFO,
    },
    "verifiers": {
        "prompt": TURNS,
        "answer": pl.String(),
        "task": pl.String(),
        "info": _INFO,
    },
    "preference": {"prompt": TURNS, "chosen": TURNS, "rejected": TURNS},
}  # fmt: skip

NEEDS: Mapping[Target, Sequence[str]] = {
    "openthoughts": ("question", "reference", "domain", "source"),
    "verl": ("question", "reference", "domain", "source"),
    "nemo_gym": ("question", "reference", "domain", "source"),
    "verifiers": ("question", "reference", "domain", "source"),
    "preference": ("pair", "question"),
}
"""Columns that must be there, those of an answer left out."""

REFERENCED = ("verl", "nemo_gym", "verifiers")
"""Targets whose rows are prompts with a known answer: one row for each question."""


def prompts(frame: pl.DataFrame, target: Target, prompt: pl.Expr) -> pl.DataFrame:
    """Write RL prompts.

    Args:
        frame: Rows with the columns of `NEEDS`, and those of `PASSED` where they are known.
        target: One of `REFERENCED`.
        prompt: The words that a policy is asked, a list of messages.

    Raises:
        ExportError: If a row has no reference, or two rows share their question.
    """
    reference = pl.col("reference")
    blank = frame.filter(reference.is_null() | (reference.str.strip_chars() == ""))
    if blank.height:
        raise ExportError(
            f"export: {target} needs the reference of every row, but {blank.height:,} rows have "
            f"none, such as {blank['id'][0]}. Drop them: `label: rules`, then "
            "`keep: {where: {no_reference: false}}`."
        )
    key = "question_id" if "question_id" in frame.columns else "id"
    twice = frame.filter(pl.col(key).is_duplicated())
    if twice.height:
        raise ExportError(
            f"export: {target} has one row for each question, but {twice.height:,} rows share "
            f"theirs, such as {twice['id'][0]}. Put `take: {{n: 1, per: question_id}}` last."
        )
    info = pl.struct(
        pl.col(key).alias("id"),
        pl.lit("train").alias("split"),
        pl.col("source"),
        *(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
            for name, dtype in (
                ("teacher", pl.String), ("pass_rate", pl.Float64), ("draws_decided", pl.Int64),
            )
        ),
    )  # fmt: skip
    match target:
        case "verl":
            style = pl.lit("rule").alias("style")
            return frame.select(
                pl.col("source").alias("data_source"),
                prompt.alias("prompt"),
                pl.col("domain").alias("ability"),
                pl.struct(style, reference.alias("ground_truth")).alias("reward_model"),
                info.alias("extra_info"),
            )
        case "nemo_gym":
            return frame.select(
                pl.col(key).alias("id"),
                pl.struct(prompt.alias("input")).alias("responses_create_params"),
                "question",
                reference.alias("expected_answer"),
                info.alias("verifier_metadata"),
            )
        case _:
            return frame.select(
                prompt.alias("prompt"),
                reference.alias("answer"),
                pl.col("domain").alias("task"),
                info.alias("info"),
            )


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
