"""A table: base rows, the columns and drops that later steps added, and, for answers, questions.

A table is a view over artifacts. It is immutable, costs nothing to make, and reads only the
columns that are asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from stillroom.rows import Kind, Schema, Shape
from stillroom.store.artifact import Artifact, Shard
from stillroom.store.digest import add_ids, value_digest


@dataclass(frozen=True)
class Table:
    """A chain of artifacts.

    Attributes:
        rows: Where each row is written.
        columns: What later steps measured, oldest first.
        drops: What later steps removed, oldest first.
        parent: For answers: the questions, as they stood when they were asked.
    """

    rows: Artifact
    columns: tuple[Artifact, ...] = ()
    drops: tuple[Artifact, ...] = ()
    parent: "Table | None" = None

    @property
    def kind(self) -> Kind:
        """Whether a row is a question or an answer."""
        assert self.rows.manifest.kind is not None
        return self.rows.manifest.kind

    def plus(self, artifact: Artifact) -> "Table":
        """Return this table with one more delta of columns or drops."""
        if artifact.manifest.delta == "columns":
            return replace(self, columns=(*self.columns, artifact))
        return replace(self, drops=(*self.drops, artifact))

    @cached_property
    def own_schema(self) -> Schema:
        """Columns written for these rows, those of the parent left out."""
        schema = dict(self.rows.schema)
        for artifact in self.columns:
            schema.update(artifact.schema)
        return schema

    @cached_property
    def schema(self) -> Schema:
        """All columns that can be scanned; a question's columns stand behind its answers."""
        behind = {} if self.parent is None else dict(self.parent.schema)
        return {**self.own_schema, **{n: t for n, t in behind.items() if n not in self.own_schema}}

    @property
    def shape(self) -> Shape:
        """Kind and columns."""
        return Shape(self.kind, self.schema)

    @property
    def shards(self) -> list[Shard]:
        """The shards of the base rows; every delta has the same number of them."""
        return self.rows.manifest.shards

    @cached_property
    def heights(self) -> list[int]:
        """Rows of each shard that were not dropped."""
        rows = [shard.data.rows if shard.data else 0 for shard in self.shards]
        for artifact in self.drops:
            gone = (shard.data.rows if shard.data else 0 for shard in artifact.manifest.shards)
            rows = [n - m for n, m in zip(rows, gone, strict=True)]
        return rows

    @property
    def height(self) -> int:
        """Rows that were not dropped."""
        return sum(self.heights)

    def digest(self, *columns: str) -> str:
        """Digest what a reader of these columns can see: which rows are left, and the values.

        Two tables with equal digests give equal rows, however they were made: this is what cuts
        a rebuild off early when a change upstream left the rows as they were.
        """
        dropped = ""
        for artifact in self.drops:
            dropped = add_ids(dropped, [artifact.manifest.dropped_ids or "0"])
        parts: dict[str, str] = {"": self.rows.column_digest("id"), "dropped": dropped}
        behind = []
        for name in columns:
            if name in self.own_schema:
                parts[name] = self._owner(name).column_digest(name)
            else:
                behind.append(name)
        if behind:
            assert self.parent is not None
            parts["parent"] = self.parent.digest(*behind)
        return value_digest(parts)

    def _owner(self, column: str) -> Artifact:
        for artifact in reversed(self.columns):
            if column in artifact.schema and column != "id":
                return artifact
        return self.rows

    def shard(self, index: int, *columns: str) -> pl.LazyFrame:
        """Read columns of one shard, in row order, dropped rows left out.

        Raises:
            KeyError: If a column is not there.
        """
        for name in columns:
            if name not in self.schema:
                raise KeyError(name)
        base = self.shards[index]
        if base.data is None:
            return pl.LazyFrame(schema={name: self.schema[name] for name in columns})
        behind = [c for c in columns if c not in self.own_schema]
        by_owner: dict[Artifact, list[str]] = {}
        for name in columns:
            if name in self.own_schema and self._owner(name) is not self.rows:
                by_owner.setdefault(self._owner(name), []).append(name)
        own = [c for c in columns if c in self.rows.schema and self._owner(c) is self.rows]
        keys = ["id"] + (["question_id"] if behind else [])
        frame = self.rows.scan(base.data).select(list(dict.fromkeys([*keys, *own])))
        # The right side of each join is the narrow one and goes into memory; Polars would choose
        # by row counts, and could put 30 KB traces there.
        for artifact in self.drops:
            gone = artifact.manifest.shards[index].data
            if gone is not None and gone.rows:
                ids = artifact.scan(gone).select("id")
                frame = frame.join(
                    ids, on="id", how="anti", maintain_order="left", build_side="force_right"
                )
        for artifact, names in by_owner.items():
            data = artifact.manifest.shards[index].data
            assert data is not None
            right = artifact.scan(data).select("id", *names)
            frame = frame.join(
                right, on="id", how="left", maintain_order="left", build_side="force_right"
            )
        if behind:
            assert self.parent is not None
            assert base.parent is not None
            questions = self.parent.shard(base.parent, "id", *behind)
            frame = frame.join(
                questions.rename({"id": "question_id"}),
                on="question_id", how="left", maintain_order="left", build_side="force_right",
            )  # fmt: skip
        return frame.select(columns)

    def frame(self, index: int, *columns: str) -> pl.DataFrame:
        """Read columns of one shard into memory."""
        return self.shard(index, *columns).collect(engine="in-memory")

    def frames(self, *columns: str) -> Iterator[pl.DataFrame]:
        """Read columns shard after shard."""
        for index in range(len(self.shards)):
            yield self.frame(index, *columns)

    def scan(self, *columns: str) -> pl.LazyFrame:
        """Read columns of the whole table, lazily, in row order.

        No columns means all of them.
        """
        names = columns or tuple(self.schema)
        if not self.shards:
            return pl.LazyFrame(schema={name: self.schema[name] for name in names})
        return pl.concat([self.shard(i, *names) for i in range(len(self.shards))])
