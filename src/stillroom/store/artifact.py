"""An artifact: a finished directory of Parquet shards and one manifest.

Shards line up: shard *i* of a columns or drops artifact speaks of the rows in shard *i* of the
rows artifact that it was made for. So nothing is ever joined across shards, and memory follows
the size of a shard, not of a table.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from stillroom.errors import StoreError
from stillroom.rows import DROP, Kind, Schema
from stillroom.store.digest import file_digest, value_digest

Delta = Literal["rows", "columns", "drops"]
FORMAT = 2
READABLE = (1, 2)
"""In format 1 each shard has files of its own."""

MANIFEST = "manifest.json"

TYPES: Mapping[str, pl.DataType] = {
    str(dtype): dtype
    for dtype in (
        pl.String(), pl.Boolean(), pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(),
        pl.UInt16(), pl.UInt32(), pl.UInt64(), pl.Float32(), pl.Float64(), pl.List(pl.String),
        pl.Null(), pl.Date(),
    )
}  # fmt: skip


@dataclass(frozen=True)
class ShardFile:
    """The rows of a shard, in a Parquet file of its own or in a run of rows of a shared one.

    Attributes:
        name: File name inside the artifact.
        rows: Rows of the shard.
        bytes: Size of the file on disk.
        digest: Of the file's bytes; a torn or edited file no longer matches.
        columns: Column name to digest of its values; empty for drops, whose ids count
            (`Manifest.dropped_ids`) and nothing else.
        start: Row of the shared file at which the shard begins; None if the file is its own.
    """

    name: str
    rows: int
    bytes: int
    digest: str
    columns: dict[str, str]
    start: int | None = None


@dataclass(frozen=True)
class Shard:
    """What an artifact holds for one shard of its table.

    Attributes:
        data: The delta: rows, columns or drops. None when there is nothing to say.
        lost: Rows that should have come out of this shard and did not, as drops.
        parent: For answers, the shard of the questions that these answers belong to.
        rows_in: Rows that the step saw.
    """

    data: ShardFile | None
    lost: ShardFile | None = None
    parent: int | None = None
    rows_in: int = 0

    @property
    def files(self) -> list[ShardFile]:
        """The files, data first."""
        return [f for f in (self.data, self.lost) if f is not None]

    @staticmethod
    def of(entry: dict[str, Any]) -> "Shard":
        """Read what JSON says of a shard."""
        data, lost = (ShardFile(**f) if f else None for f in (entry["data"], entry["lost"]))
        return Shard(data, lost, entry["parent"], entry["rows_in"])


@dataclass(frozen=True)
class Manifest:
    """All that is known of an artifact but its rows. Written last.

    Attributes:
        step: Step name, such as ``dedup``.
        version: The step's ``VERSION``.
        key: What was asked: hash of step, version, fields and the digests of the inputs.
        fields: The step's fields, as they entered the key.
        inputs: What was read, as it entered the key; see `stillroom.run.keys`.
        delta: ``rows``, ``columns`` or ``drops``.
        kind: For rows: ``questions`` or ``answers``.
        schema: Column name to type, in order.
        shards: One entry per shard of the table.
        rows_in: Rows that the step saw.
        rows_out: Rows that were there after it.
        drops: Reason to number of rows.
        dropped_ids: Digest of the set of dropped ids (`stillroom.store.digest.add_ids`).
        measured: Counts that do not repeat between runs: seconds, calls bought, cost.
        notes: What a reader of the dataset card should know, a sentence each.
    """

    step: str
    version: int
    key: str
    fields: dict[str, Any]
    inputs: list[dict[str, Any]]
    delta: Delta
    kind: Kind | None
    schema: dict[str, str]
    shards: list[Shard]
    rows_in: int
    rows_out: int
    drops: dict[str, int]
    dropped_ids: str
    measured: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT

    def to_json(self) -> str:
        """Write the manifest as JSON, indented, keys in field order."""
        return json.dumps(self, default=vars, indent=1, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Manifest":
        """Read a manifest.

        Raises:
            ValueError, KeyError, TypeError: If the text is no manifest of a format that is known.
        """
        content = json.loads(text)
        if content["format"] not in READABLE:
            raise ValueError(f"format is {content['format']}, of another version of Stillroom")
        content["shards"] = [Shard.of(s) for s in content["shards"]]
        return Manifest(**content)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    manifest: Manifest

    @staticmethod
    def load(path: Path) -> "Artifact":
        """Read an artifact's manifest and check that its files are there and of the right size.

        Raises:
            StoreError: If the manifest or a file is missing, torn, or of another format.
        """
        try:
            manifest = Manifest.from_json((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(
                f"{path}: no {MANIFEST} in a committed artifact; expected one. "
                "Delete the directory and run again."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path / MANIFEST}: unreadable ({error}); expected a manifest of format "
                f"{' or '.join(map(str, READABLE))}. "
                "Delete the directory and run again."
            ) from None
        artifact = Artifact(path, manifest)
        for file in artifact.files():
            try:
                size = (path / file.name).stat().st_size
            except FileNotFoundError:
                size = -1
            if size != file.bytes:
                raise _damaged(path / file.name, f"{size} bytes", f"{file.bytes} bytes")
        return artifact

    def files(self) -> list[ShardFile]:
        """List all files, data and lost rows, in shard order; a shared one once."""
        files = (file for shard in self.manifest.shards for file in shard.files)
        return list({file.name: file for file in files}.values())

    def scan(self, part: ShardFile) -> pl.LazyFrame:
        """Read the rows of one shard, lazily."""
        rows = pl.scan_parquet(self.path / part.name)
        return rows if part.start is None else rows.slice(part.start, part.rows)

    def scan_all(self) -> pl.LazyFrame:
        """Read the delta of all shards, lazily, in row order."""
        return self._concat([s.data for s in self.manifest.shards if s.data], self.schema)

    def scan_lost(self) -> pl.LazyFrame:
        """Read the lost rows of all shards, lazily, in row order."""
        return self._concat([s.lost for s in self.manifest.shards if s.lost], DROP)

    def _concat(self, parts: list[ShardFile], schema: Schema) -> pl.LazyFrame:
        names = dict.fromkeys(part.name for part in parts)
        scans = [pl.scan_parquet(self.path / name) for name in names]
        return pl.concat(scans) if scans else pl.LazyFrame(schema=schema)

    def verify(self) -> None:
        """Read every byte and compare it with the manifest.

        Raises:
            StoreError: If a file differs; the message names it.
        """
        for file in self.files():
            found = file_digest(self.path / file.name)
            if found != file.digest:
                raise _damaged(self.path / file.name, f"digest {found[:12]}…", file.digest[:12])

    @property
    def schema(self) -> Schema:
        """Columns of the delta, ``id`` first."""
        return {name: TYPES[dtype] for name, dtype in self.manifest.schema.items()}

    def column_digest(self, column: str) -> str:
        """Digest one column over all shards, shard borders included."""
        return value_digest(
            [shard.data.columns[column] if shard.data else None for shard in self.manifest.shards]
        )


def _damaged(path: Path, found: str, expected: str) -> StoreError:
    return StoreError(
        f"{path}: {found}; the manifest says {expected}. The file is torn or was edited: "
        f"delete {path.parent} and run again."
    )
