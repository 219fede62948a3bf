"""What a dataset card tells: counts, gathered shard by shard, and the story of the steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import polars as pl

from stillroom.rows import Kind, Schema
from stillroom.steps.base import ModelSpec
from stillroom.store.artifact import Manifest
from stillroom.store.table import Table

GROUPS = ("domain", "source", "licence", "verdict", "finish_reason")


@dataclass(frozen=True)
class Stage:
    """One step that was run for the dataset.

    Attributes:
        path: Where it stands in the recipe: ``math.dedup``. The first part is the domain.
        step: Step name.
        manifest: What it did.
    """

    path: str
    step: str
    manifest: Manifest

    @property
    def domain(self) -> str:
        """The domain whose rows it made."""
        return self.path.split(".")[0]


@dataclass(frozen=True)
class Teacher:
    """Who answered, and how it was asked.

    Attributes:
        domains: Where.
        name: Frozen name of the model.
        sampling: Setting to value, those left to the server left out.
        draws: Answers that were asked for per question.
        system: System prompt.
        prefix: Text before the question.
        suffix: Text after the question.
    """

    domains: tuple[str, ...]
    name: str
    sampling: Mapping[str, float]
    draws: int | Mapping[str, Any] | None
    system: str | None
    prefix: str
    suffix: str


@dataclass(frozen=True)
class Lengths:
    """A distribution of whole numbers, as counts: small however many rows there are.

    Attributes:
        counts: Value to number of rows, by rising value.
    """

    counts: Mapping[int, int]

    @property
    def total(self) -> int:
        """Rows in all."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> int:
        """Return the smallest value that at least this share (0 to 1) of the rows do not pass."""
        values, sums = list(self.counts), accumulate(self.counts.values())
        return next(v for v, s in zip(values, sums, strict=True) if s >= share * self.total)

    @property
    def longest(self) -> int:
        """The largest value."""
        return max(self.counts)


@dataclass
class Tally:
    """Counts of rows by what a reader filters by, added up shard after shard."""

    rows: int = 0
    questions: int = 0
    _groups: pl.DataFrame | None = None
    _lengths: pl.DataFrame | None = None

    def add(self, frame: pl.DataFrame, kind: Kind) -> None:
        """Count one shard; columns that it lacks count as null.

        A source may call columns of its questions as those of answers are called; they are others.
        """
        self.rows += frame.height
        # All draws of a question stand in one shard, so counts by shard add up.
        self.questions += frame["question_id" if kind == "answers" else "id"].n_unique()
        meant = GROUPS if kind == "answers" else GROUPS[:3]
        there = [
            (pl.col(c) if c in meant and c in frame.columns else pl.lit(None))
            .cast(pl.String)
            .alias(c)
            for c in GROUPS
        ]
        self._groups = _add_up(self._groups, frame.select(there), GROUPS)
        if kind == "answers" and "completion_tokens" in frame.columns:
            tokens = frame.select("domain", pl.col("completion_tokens").cast(pl.Int64))
            known = tokens.filter(pl.col("completion_tokens") > 0)
            self._lengths = _add_up(self._lengths, known, ("domain", "completion_tokens"))

    def by(self, *columns: str) -> dict[tuple[Any, ...], int]:
        """Count rows by some of the columns, in their order; nulls first."""
        if self._groups is None:
            return {}
        counts = self._groups.group_by(columns).agg(pl.col("rows").sum()).sort(columns)
        return {row[:-1]: row[-1] for row in counts.iter_rows()}

    def lengths(self, domain: str | None = None) -> Lengths:
        """Return the distribution of completion tokens, of one domain or of all."""
        if self._lengths is None:
            return Lengths({})
        frame = self._lengths
        if domain is not None:
            frame = frame.filter(pl.col("domain") == domain)
        counts = frame.group_by("completion_tokens").agg(pl.col("rows").sum())
        return Lengths(dict(counts.sort("completion_tokens").iter_rows()))


def _add_up(total: pl.DataFrame | None, frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    counts = frame.group_by(keys).agg(pl.len().cast(pl.Int64).alias("rows"))
    if total is not None:
        counts = pl.concat([total, counts]).group_by(keys).agg(pl.col("rows").sum())
    return counts.sort(keys)


@dataclass(frozen=True)
class Facts:
    """All that the card and the record of a dataset are written from.

    Attributes:
        name: Name of the recipe.
        description: The recipe's own words about it, in Markdown.
        kind: Whether a row is an answer or a question.
        columns: Columns of the dataset, in order.
        rows: Counts of the rows in the dataset.
        drawn: Counts of all answers that the teachers gave, those dropped later among them.
        teachers: Who answered.
        models: Roles of the recipe to their models, those of the teachers included.
        story: Every step, in order.
        recipe: The recipe file.
        stillroom: Version of Stillroom that wrote the dataset.
        text_bytes: Size of the text in all rows.
    """

    name: str
    description: str | None
    kind: Kind
    columns: Schema
    rows: Tally
    drawn: Tally
    teachers: Sequence[Teacher]
    models: Mapping[str, ModelSpec]
    story: Sequence[Stage]
    recipe: str
    stillroom: str
    text_bytes: int

    @property
    def domains(self) -> list[str]:
        """Domains that have rows."""
        return [domain for (domain,) in self.rows.by("domain") if domain is not None]


def asked(table: Table) -> Teacher | None:
    """Read from a table of answers how its teacher was asked; None for questions."""
    if table.kind != "answers":
        return None
    fields = table.rows.manifest.fields
    model = fields.get("model")
    spec: dict[str, Any] = model if isinstance(model, dict) else {"name": str(model)}
    sampling = ("temperature", "top_p", "max_tokens")
    return Teacher(
        domains=(),
        name=str(spec.get("name")),
        sampling={s: spec[s] for s in sampling if spec.get(s) is not None},
        draws=fields.get("draws"),
        system=spec.get("system") or None,
        prefix=fields.get("prefix") or "",
        suffix=fields.get("suffix") or "",
    )


def drawn(tables: Mapping[str, Table]) -> Tally:
    """Count all answers that were drawn, whatever was dropped afterwards.

    After `keep` on the verdict every row is correct; how often the teacher was right can only be
    told from the answers before it.
    """
    tally = Tally()
    for table in tables.values():
        if table.kind != "answers":
            continue
        whole = Table(table.rows, table.columns, (), table.parent)
        wanted = ["id", *(c for c in GROUPS if c in whole.schema), "question_id"]
        for index in range(len(whole.shards)):
            tally.add(whole.frame(index, *wanted), "answers")
    return tally
