"""Small tables in a real store, made without a recipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.rows import ANSWER, DROP, QUESTION, Kind, Schema, content_id, dropped
from stillroom.steps.export.facts import Stage
from stillroom.store.artifact import Artifact, Delta
from stillroom.store.digest import value_digest
from stillroom.store.store import Store, Workshop
from stillroom.store.table import Table

TEACHER = {"name": "teacher-1b", "temperature": 0.7, "top_p": None, "max_tokens": 4096,
           "system": None, "reasoning": True}  # fmt: skip


def build(
    store: Store,
    step: str,
    shards: Sequence[pl.DataFrame | None],
    *,
    delta: Delta,
    schema: Schema,
    kind: Kind | None = None,
    rows_in: Sequence[int],
    parents: Sequence[int] | None = None,
    lost: Sequence[pl.DataFrame | None] | None = None,
    fields: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    seconds: float = 1.0,
) -> Artifact:
    """Finish one artifact; its key follows from its content."""
    digests = [None if s is None else value_digest(s.rows()) for s in shards]
    key = value_digest([step, dict(fields or {}), digests, list(notes)])
    with store.building(step, key) as shop:
        if isinstance(shop, Artifact):
            return shop
        assert isinstance(shop, Workshop)
        for index, data in enumerate(shards):
            shop.write(
                index,
                data,
                rows_in=rows_in[index],
                lost=lost[index] if lost else None,
                parent=parents[index] if parents else None,
            )
        return shop.finish(
            version=1,
            fields=dict(fields or {}),
            inputs=[],
            delta=delta,
            kind=kind,
            schema=schema,
            n_shards=len(shards),
            measured={"seconds": seconds},
            notes=list(notes),
        )


def question_table(
    store: Store,
    n: int = 6,
    *,
    domain: str = "math",
    source: str = "sums",
    licence: str | None = "mit",
    shard: int = 4,
    texts: Sequence[str] | None = None,
    extra: Mapping[str, tuple[pl.DataType, Any]] | None = None,
    step: str = "source",
    lost: pl.DataFrame | None = None,
    **options: Any,
) -> Table:
    """Make n questions ``What is i + i?`` in shards; ``extra`` is name to type and value."""
    texts = texts if texts is not None else [f"What is {i} + {i}?" for i in range(n)]
    rows = [
        (content_id(source, domain, text, i), domain, source, licence, text, str(2 * i), i)
        for i, text in enumerate(texts)
    ]
    more = extra or {}
    frame = pl.DataFrame(rows, schema=dict(QUESTION), orient="row").with_columns(
        pl.lit(value, dtype).alias(name) for name, (dtype, value) in more.items()
    )
    shards = [frame.slice(i, shard) for i in range(0, max(1, len(rows)), shard)]
    return Table(
        build(
            store, step, shards, delta="rows", kind="questions", schema=dict(frame.schema),
            rows_in=[s.height + (lost.height if lost is not None and not i else 0)
                     for i, s in enumerate(shards)],
            lost=[lost if not i else None for i in range(len(shards))], **options,
        )
    )  # fmt: skip


def answer_table(
    store: Store,
    questions: Table,
    *,
    draws: int = 2,
    model: Mapping[str, Any] = TEACHER,
    reasoning: str | None = "I add.",
    prefix: str = "",
    suffix: str = "",
    wrong: int = 3,
    cut: int = 5,
    pad: int = 0,
) -> Table:
    """Answer every question; every ``wrong``-th answer is wrong, every ``cut``-th cut off."""
    shards: list[pl.DataFrame] = []
    place = 0
    for frame in questions.frames("id", "reference"):
        rows = []
        for question_id, reference in frame.iter_rows():
            for draw in range(draws):
                place += 1
                text = f"It is \\boxed{{{'0' if wrong and not place % wrong else reference}}}."
                ended = not (cut and not place % cut)
                rows.append(
                    (
                        content_id(question_id, draw, model["name"]),
                        question_id,
                        draw,
                        model["name"],
                        None if reasoning is None else reasoning + "x" * pad,
                        text if ended else "",
                        "stop" if ended else "length",
                        20,
                        100 + 7 * place % 900,
                    )
                )
        shards.append(pl.DataFrame(rows, schema=dict(ANSWER), orient="row"))
    fields = {"model": dict(model), "draws": draws, "prefix": prefix, "suffix": suffix}
    artifact = build(
        store, "answer", shards, delta="rows", kind="answers", schema=ANSWER,
        rows_in=[s.height for s in shards], parents=list(range(len(shards))), fields=fields,
    )  # fmt: skip
    return Table(artifact, parent=questions)


def verify(store: Store, table: Table) -> Table:
    """Add verdicts: correct if the answer holds the reference, unparsed if it is empty."""
    schema = {"verdict": pl.String(), "extracted": pl.String()}
    shards = []
    for frame in table.frames("id", "answer", "reference"):
        rows = [
            (
                row_id,
                "unparsed" if not answer else "correct" if f"{{{ref}}}" in answer else "incorrect",
                ref if answer else None,
            )
            for row_id, answer, ref in frame.iter_rows()
        ]
        shards.append(pl.DataFrame(rows, schema={"id": pl.String(), **schema}, orient="row"))
    artifact = build(
        store, "verify", shards, delta="columns", schema={"id": pl.String(), **schema},
        rows_in=[s.height for s in shards],
    )  # fmt: skip
    return table.plus(artifact)


def keep(
    store: Store, table: Table, column: str, value: object, *, notes: Sequence[str] = ()
) -> Table:
    """Drop rows whose column is something else."""
    drops, rows_in = [], []
    for frame in table.frames("id", column):
        bad = frame.filter(pl.col(column).ne_missing(value))
        reasons = [f"{column} is {v}" for v in bad[column]]
        drops.append(dropped(bad["id"], reasons))
        rows_in.append(frame.height)
    artifact = build(
        store, "keep", drops, delta="drops", schema=DROP, rows_in=rows_in,
        fields={"where": {column: str(value)}}, notes=notes,
    )  # fmt: skip
    return table.plus(artifact)


def story_of(tables: Mapping[str, Table]) -> list[Stage]:
    """Tell the steps of tables as a runner would."""
    stages = []
    for domain, table in tables.items():
        chain = [table.parent.rows, *table.parent.drops] if table.parent else []
        for artifact in [*chain, table.rows, *table.columns, *table.drops]:
            step = artifact.manifest.step
            stages.append(Stage(f"{domain}.{step}", step, artifact.manifest))
    return stages


def store_in(folder: Path) -> Store:
    """Make a store in a folder."""
    return Store(folder / "store")
