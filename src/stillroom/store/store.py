"""The store: finished artifacts by step and key, and the workshop in which they are built.

    store/
      artifacts/<step>/<key>/   finished; never changed
      building/<key>/           shards of an unfinished artifact; a later run goes on from here
      locks/<key>               held by the process that builds
      checked/<key>             sizes and times of files whose bytes matched the manifest
      recipes/<name>.json       what each recipe referred to when it last ran
      ledger/                   every completion ever paid for

Nothing here depends on where the store lies, on the host or on the time, so it can be moved,
copied and shared. What is covered: a kill at any moment, two processes on one store, torn and
edited files. What is not: a file system without `flock` shared by several machines.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.errors import StoreError
from stillroom.rows import DROP, Kind, Schema
from stillroom.store.artifact import MANIFEST, Artifact, Delta, Manifest, Shard, ShardFile
from stillroom.store.digest import add_ids, column_digest, file_digest, id_digest

JOURNAL = "shards.jsonl"

ROW_GROUP = 2_000
"""Rows per Parquet row group of answers: about 60 MB of traces, so that readers stay small."""

_ROW_GROUP_BYTES = 60 << 20  # groups of narrow rows grow up to this


class Store:
    """A directory of artifacts.

    Args:
        root: Made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, step: str, key: str) -> Path:
        """Tell where an artifact lies, or would."""
        return self.root / "artifacts" / step / key

    def find(self, step: str, key: str) -> Artifact | None:
        """Look an artifact up.

        Raises:
            StoreError: If it is there but torn or edited.
        """
        path = self.path(step, key)
        if not path.is_dir():
            return None
        artifact = Artifact.load(path)
        self._check(artifact)
        return artifact

    def discard(self, artifact: Artifact) -> None:
        """Delete an artifact; a kill half-way leaves something for `gc`, and never half of it."""
        gone = self.root / "building" / f"{artifact.path.name}.discarded"
        with disk_errors(artifact.path):
            gone.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(gone, ignore_errors=True)
            artifact.path.rename(gone)
            shutil.rmtree(gone)
            (self.root / "checked" / artifact.path.name).unlink(missing_ok=True)

    def _check(self, artifact: Artifact) -> None:
        """Verify all bytes once, and again whenever a file's size or time changed since."""
        stamp = {
            file.name: [(s := (artifact.path / file.name).stat()).st_size, s.st_mtime_ns]
            for file in artifact.files()
        }
        record = self.root / "checked" / artifact.manifest.key
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.loads(record.read_text()) == stamp:
                return
        artifact.verify()
        with disk_errors(record):
            record.parent.mkdir(parents=True, exist_ok=True)
            replace_text(record, json.dumps(stamp))

    @contextlib.contextmanager
    def building(
        self, step: str, key: str, *, on_wait: Callable[[], None] = lambda: None
    ) -> Iterator["Artifact | Workshop"]:
        """Hold the right to build one artifact.

        Another process that builds the same key is waited for, and its result is yielded. The
        right ends with the process, however it ends.

        Args:
            step: Step name.
            key: Key of the artifact.
            on_wait: Called once if another process holds the right.
        """
        lock = self.root / "locks" / key
        with disk_errors(lock):
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = lock.open("w")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(handle, fcntl.LOCK_EX)
            done = self.find(step, key)
            yield done or Workshop(self, step, key)

    def artifacts(self) -> Iterator[Path]:
        """List the directories of all finished artifacts."""
        yield from sorted((self.root / "artifacts").glob("*/*"))

    def write_record(self, recipe: str, record: dict[str, Any]) -> None:
        """Remember what a recipe refers to: for `ls`, `show`, `why`, `plan` and `gc`."""
        path = self.root / "recipes" / f"{recipe}.json"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(record, indent=1))

    def read_record(self, recipe: str) -> dict[str, Any] | None:
        """Return what the recipe referred to when it last ran, or None if it never did."""
        path = self.root / "recipes" / f"{recipe}.json"
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise StoreError(
                f"{path}: not JSON; expected what {recipe} referred to. Delete the file and run "
                "the recipe again: nothing is recomputed."
            ) from None
        return record

    def records(self) -> list[str]:
        """List the names of all recipes that ran on this store."""
        return sorted(p.stem for p in (self.root / "recipes").glob("*.json"))

    @property
    def ledger_path(self) -> Path:
        """Where the completions are kept."""
        return self.root / "ledger"


@dataclass
class Workshop:
    """An artifact under construction, shard by shard.

    A journal gets a line for each shard when its files are written, and a later build goes on
    with every shard whose files still are what the journal says. So a kill costs no shard. The
    disk is waited for once, at the end: power that fails may cost the last shards, not more.

    Attributes:
        store: Where the artifact will stand.
        step: Step name.
        key: Key of the artifact.
        n_shards: Shards that were asked for or written so far.
    """

    store: Store
    step: str
    key: str
    n_shards: int = 0

    def __post_init__(self) -> None:
        """Make the directory, or read what an earlier build left in it."""
        self.path = self.store.root / "building" / self.key
        self._journal = self.path / JOURNAL
        self._notes: dict[int, _Note] = {}
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._journal.touch()
            for line in self._journal.read_bytes().splitlines():
                note = _Note.read(line)
                if note and all(_is_whole(self.path / f.name, f) for f in note.shard.files):
                    self._notes[note.place] = note

    def has(self, shard: int) -> bool:
        """Tell whether a shard was finished, now or before a kill."""
        self.n_shards = max(self.n_shards, shard + 1)
        return shard in self._notes

    def write(
        self,
        shard: int,
        data: pl.DataFrame | None,
        *,
        rows_in: int,
        lost: pl.DataFrame | None = None,
        parent: int | None = None,
    ) -> None:
        """Finish one shard.

        Args:
            shard: Place in the table, from 0.
            data: The delta; None or empty when there is nothing to say.
            rows_in: Rows that the step saw in this shard.
            lost: Drops of a step whose delta is rows: input that became no row.
            parent: Shard of the parent table, for answers.
        """
        self.n_shards = max(self.n_shards, shard + 1)
        entry = Shard(
            data=self._write_file(f"{shard:05}.parquet", data),
            lost=self._write_file(f"{shard:05}.lost.parquet", lost),
            parent=parent,
            rows_in=rows_in,
        )
        note = _Note(shard, entry, *_count(data, lost))
        with disk_errors(self.path), self._journal.open("a", encoding="utf-8") as journal:
            # The line break goes first: what a full disk tore then has a line of its own.
            journal.write(f"\n{json.dumps(note, default=vars)}")
        self._notes[shard] = note

    def write_drops(self, drops: pl.DataFrame, rows_in: Sequence[int]) -> None:
        """Finish all shards at once, with drops that were found over the whole table, in one file.

        The journal hears nothing of it: after a kill they have to be found again anyway.

        Args:
            drops: ``place``, a row's number in the table from 0, and the columns of
                `stillroom.rows.DROP`; in the order of places.
            rows_in: Rows that the step saw, shard by shard.
        """
        seen = pl.Series([0, *accumulate(rows_in)], dtype=pl.UInt32)
        ends = drops["place"].search_sorted(seen, "left").to_list()
        drops = drops.select(*DROP)
        with ThreadPoolExecutor(1) as pool:
            counted = pool.submit(_count, drops)
            # A shard is read by itself, and a group of rows as a whole.
            group = max(ROW_GROUP, -(-drops.height // max(1, len(rows_in))))
            file = self._write_file("drops.parquet", drops, group)
            reasons, ids = counted.result()
        assert file is not None
        for shard, rows in enumerate(rows_in):
            start, end = ends[shard : shard + 2]
            part = replace(file, rows=end - start, start=start)
            self._notes[shard] = _Note(shard, Shard(part, rows_in=rows), reasons, ids)
            reasons, ids = {}, ""
        self.n_shards = len(rows_in)

    def _write_file(
        self, name: str, frame: pl.DataFrame | None, group: int | None = None
    ) -> ShardFile | None:
        if frame is None or (frame.is_empty() and name.endswith("lost.parquet")):
            return None
        path = self.path / name
        fit = frame.height * _ROW_GROUP_BYTES // max(1, int(frame.estimated_size()))
        with disk_errors(path):
            frame.write_parquet(
                path, compression="zstd", compression_level=1,
                row_group_size=group or max(ROW_GROUP, fit),
            )  # fmt: skip
        digested = [] if frame.columns == list(DROP) else frame.columns
        return ShardFile(
            name=name,
            rows=frame.height,
            bytes=path.stat().st_size,
            digest=file_digest(path),
            columns={c: column_digest(frame[c]) for c in digested},
        )

    def finish(
        self,
        *,
        version: int,
        fields: dict[str, Any],
        inputs: list[dict[str, Any]],
        delta: Delta,
        kind: Kind | None,
        schema: Schema,
        n_shards: int,
        measured: dict[str, Any],
        notes: list[str],
    ) -> Artifact:
        """Write the manifest and publish the artifact by one rename."""
        noted = [self._notes[i] for i in range(n_shards)]
        shards = [note.shard for note in noted]
        drops: Counter[str] = Counter()
        for note in noted:
            drops.update(note.drops)
        dropped_ids = add_ids("", [note.dropped_ids or "0" for note in noted])
        rows_in = sum(s.rows_in for s in shards)
        data_rows = sum(s.data.rows for s in shards if s.data)
        manifest = Manifest(
            step=self.step,
            version=version,
            key=self.key,
            fields=fields,
            inputs=inputs,
            delta=delta,
            kind=kind,
            schema={name: str(dtype) for name, dtype in schema.items()},
            shards=shards,
            rows_in=rows_in,
            rows_out={"rows": data_rows, "columns": rows_in, "drops": rows_in - data_rows}[delta],
            drops=dict(sorted(drops.items())),
            dropped_ids=dropped_ids,
            measured=measured,
            notes=notes,
        )
        target = self.store.path(self.step, self.key)
        artifact = Artifact(self.path, manifest)
        files = [self.path / f.name for f in artifact.files()]
        with disk_errors(target):
            for leftover in {*self.path.iterdir()} - {*files, self._journal}:
                leftover.unlink()
            (self.path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            # A disk that is asked for many files at once writes its own journal once for all.
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(sync, (*files, self.path / MANIFEST)))
            sync(self.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(target)
            sync(target.parent)
            # It goes last: a kill before the rename leaves a workshop with all its shards.
            (target / JOURNAL).unlink()
        return Artifact.load(target)


@dataclass(frozen=True)
class _Note:
    """What is noted of a finished shard.

    Attributes:
        place: Place in the table, from 0.
        shard: Its files.
        drops: Reason to number of rows.
        dropped_ids: Digest of the set of dropped ids.
    """

    place: int
    shard: Shard
    drops: dict[str, int]
    dropped_ids: str

    @staticmethod
    def read(line: bytes) -> "_Note | None":
        """Read a line of the journal; None if it is torn."""
        try:
            note = json.loads(line)
            return _Note(note["place"], Shard.of(note["shard"]), note["drops"], note["dropped_ids"])
        except (ValueError, KeyError, TypeError):
            return None


def _count(*frames: pl.DataFrame | None) -> tuple[dict[str, int], str]:
    """Count drops by reason, and digest their ids; frames of other columns have none."""
    # While they are at hand: `finish` would have to read every file again.
    drops = [frame for frame in frames if frame is not None and frame.columns == list(DROP)]
    reasons: Counter[str] = Counter()
    for frame in drops:
        reasons.update(dict(frame["reason"].value_counts().iter_rows()))
    return dict(reasons), add_ids("", [id_digest(frame["id"]) or "0" for frame in drops])


def _is_whole(path: Path, file: ShardFile) -> bool:
    try:
        return file_digest(path) == file.digest
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into a message that says what is safe."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror or error}. What was finished before is safe; "
            "make room or fix the rights, and run again."
        ) from error
    except pl.exceptions.ComputeError as error:
        # Polars tells of a full disk in the words of its Parquet writer.
        raise StoreError(
            f"{path}: cannot be written ({error}). What was finished before is safe; see whether "
            "the disk is full, make room, and run again."
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new one, never a part."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    write_synced(partial, text)
    partial.replace(path)


def write_synced(path: Path, text: str) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until the disk has a file, or a directory's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
