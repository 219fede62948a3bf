"""`export`: the rows of a recipe as a dataset folder that `datasets.load_dataset` reads.

The folder holds ``data/train-*.parquet`` (``.jsonl`` for NeMo Gym), a card (``README.md``), the
recipe, a plot of lengths and a record for programs (``stillroom.json``). The same rows by the
same recipe give the same bytes: nothing in it speaks of times, machines, paths or prices.

What is covered: a kill at any moment leaves the dataset that was there before, or the new one; a
full disk; two processes that export to one folder. What is not: a file system that cannot swap two
folders at once, where a kill between two renames leaves the old dataset under its
``.replaced`` name, from which the next export takes it back.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from stillroom import __version__
from stillroom.errors import ExportError
from stillroom.rows import Schema
from stillroom.steps.base import Misfit, ModelSpec
from stillroom.steps.export.card import card
from stillroom.steps.export.facts import Facts, Lengths, Stage, Tally, Teacher, asked, drawn
from stillroom.steps.export.form import Export
from stillroom.steps.export.plot import lengths_svg
from stillroom.steps.export.record import RECORD, Licensed, Record, file_of
from stillroom.steps.export.targets import pairs
from stillroom.store.digest import value_digest
from stillroom.store.store import disk_errors, sync, write_synced
from stillroom.store.table import Table

__all__ = ["Export", "Stage", "Summary", "write_dataset"]

LAYOUT = 2
"""Raised whenever the same rows give other files."""

ROW_GROUP_BYTES = 32_000_000
"""Raw text per Parquet row group: a reader of one column of one group stays small."""


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        folder: Where.
        rows: Rows of the dataset.
        files: Files, the record left out.
        bytes: Their size.
        digest: Names the dataset by its content.
        written: False if the folder held the same dataset already.
    """

    folder: Path
    rows: int
    files: int
    bytes: int
    digest: str
    written: bool


def write_dataset(
    folder: Path,
    *,
    name: str,
    recipe_text: str,
    tables: Mapping[str, Table],
    story: Sequence[Stage],
    export: Export,
    description: str | None = None,
    models: Mapping[str, ModelSpec] | None = None,
    tick: Callable[[int], None] = lambda rows: None,
) -> Summary:
    """Write the tables of a recipe as one dataset.

    Memory follows ``export.file_mb`` and the size of the largest shard, not the number of rows.

    Args:
        folder: Where the dataset will stand. An older dataset there is replaced once the new one
            is complete; anything else there is refused.
        name: Name of the recipe.
        recipe_text: The recipe file, as it was run.
        tables: Domain to its final table; all of answers, or all of questions.
        story: Every step that made the tables, in order.
        export: How to write it.
        description: Opening of the card, in Markdown; counts tell the rest.
        models: The recipe's models by role.
        tick: Called with the number of rows that were written since the last call.

    Returns:
        What was written, or what stood there already if it is the same.

    Raises:
        ExportError: If no rows are left, or the folder is not a dataset of ours.
        StoreError: If the disk is full or cannot be written.
    """
    if folder.is_symlink():
        folder = folder.resolve()  # the link stays, and what it points at is replaced
    try:
        columns = export.columns({domain: table.shape for domain, table in tables.items()})
    except Misfit as error:
        raise ExportError(f"{name}: export: {error}.") from error
    if not any(table.height for table in tables.values()):
        raise ExportError(f"{name}: no rows are left to export. {_where_lost(story)}")
    job = _Job(
        folder, name, recipe_text, tables, story, export, columns, description, models or {}, tick
    )
    _take_back(folder)
    done = job.standing()
    if done is not None:
        return done
    with _workplace(folder, job.made_from) as workplace:
        # Another process may have finished the same dataset while this one waited.
        done = job.standing()
        if done is not None:
            return done
        record = job.write(workplace)
        with disk_errors(folder):
            _put_in_place(workplace, folder)
    return job.summary(record, written=True)


@dataclass
class _Job:
    """One call of `write_dataset`."""

    folder: Path
    name: str
    recipe: str
    tables: Mapping[str, Table]
    story: Sequence[Stage]
    export: Export
    columns: Schema
    description: str | None
    models: Mapping[str, ModelSpec]
    tick: Callable[[int], None]
    made_from: str = field(init=False)

    def __post_init__(self) -> None:
        """Name all that the files follow from."""
        self.made_from = value_digest(
            {
                "layout": LAYOUT,
                "stillroom": __version__,
                "name": self.name,
                "recipe": self.recipe,
                "description": self.description,
                "models": {
                    role: spec.model_dump(mode="json") for role, spec in self.models.items()
                },
                "export": self.export.model_dump(mode="json"),
                "tables": {d: t.digest(*self._read(t)) for d, t in self.tables.items()},
                "order": list(self.tables),
                "story": [_told(stage) | {"notes": stage.manifest.notes} for stage in self.story],
            }
        )

    def _read(self, table: Table) -> list[str]:
        return self.export.read(table.schema, self.columns)

    def standing(self) -> Summary | None:
        """Return what stands in the folder if it is this dataset, whole."""
        record = Record.read(self.folder)
        if record is None:
            return None
        foreign = record.foreign(self.folder)
        if foreign:
            raise ExportError(
                f"{self.folder}: {', '.join(foreign[:5])} {'are' if foreign[1:] else 'is'} no part "
                "of the dataset and would be lost; expected nothing else there. Move it."
            )
        if record.made_from != self.made_from or any(record.changed(self.folder, sizes_only=True)):
            return None
        return self.summary(record, written=False)

    def summary(self, record: Record, *, written: bool) -> Summary:
        """Say what was written."""
        return Summary(
            self.folder, record.rows, len(record.files), record.bytes, record.digest, written
        )

    def write(self, workplace: Path) -> Record:
        """Write every file, the record last."""
        rows, text_bytes = self._write_rows(workplace / "data")
        facts = Facts(
            name=self.name,
            description=self.description,
            models=self.models,
            kind=next(iter(self.tables.values())).kind,
            columns=self.columns,
            rows=rows,
            drawn=drawn(self.tables),
            teachers=_teachers(self.tables),
            story=self.story,
            recipe=self.recipe,
            stillroom=__version__,
            text_bytes=text_bytes,
        )
        lengths = {d: rows.lengths(d) for d in facts.domains}
        lengths = {d: counts for d, counts in lengths.items() if counts.total}
        with disk_errors(workplace):
            if lengths:
                write_synced(workplace / "lengths.svg", lengths_svg(lengths))
            write_synced(workplace / "recipe.yaml", self.recipe)
            write_synced(workplace / "README.md", card(facts, self.export))
            record = Record(
                name=self.name,
                rows=rows.rows,
                made_from=self.made_from,
                licences=[Licensed(s, t, n) for (s, t), n in rows.by("source", "licence").items()],
                files=[file_of(workplace, p) for p in sorted(workplace.rglob("*")) if p.is_file()],
                facts=_facts_for_programs(facts),
            )
            write_synced(workplace / RECORD, record.to_json())
            sync(workplace / "data")
            sync(workplace)
        return record

    def _write_rows(self, data: Path) -> tuple[Tally, int]:
        """Write files of about the same size, each from memory, one after the other.

        Returns:
            Counts of the rows, and the bytes of their text.
        """
        with disk_errors(data):
            data.mkdir()
        tally = Tally()
        written: list[Path] = []
        waiting: list[pl.DataFrame] = []
        size = total = 0

        def flush() -> None:
            nonlocal waiting, size, total
            frame = pl.concat(waiting)
            written.append(data / f"{len(written):05}.{self.export.suffix}")
            groups = max(1, size // ROW_GROUP_BYTES)
            with disk_errors(written[-1]):
                if self.export.suffix == "jsonl":
                    frame.write_ndjson(written[-1])
                else:
                    frame.write_parquet(
                        written[-1],
                        compression="zstd",
                        compression_level=3,
                        row_group_size=-(-frame.height // groups),
                    )
                with written[-1].open("rb") as file:
                    os.fsync(file.fileno())
            self.tick(frame.height)
            waiting, size, total = [], 0, total + size

        limit = self.export.file_mb * 1_000_000
        for frame, sizes in self._frames(tally):
            start = 0
            for end, row_bytes in enumerate(sizes, 1):
                size += row_bytes
                if size >= limit:
                    waiting.append(frame.slice(start, end - start))
                    flush()
                    start = end
            if start < frame.height:
                waiting.append(frame.slice(start))
        if waiting:
            flush()
        with disk_errors(data):
            for index, path in enumerate(written):
                path.rename(data / f"train-{index:05}-of-{len(written):05}{path.suffix}")
        return tally, total

    def _frames(self, tally: Tally) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """Read shard after shard in the columns of the dataset, with the size of each row."""
        for table in self.tables.values():
            teacher = asked(table)
            made = self.export.conversation(teacher) if teacher else []
            there = self._read(table)
            inside = {expression.meta.output_name() for expression in made}
            out = [
                pl.col(name).cast(dtype)
                if name in table.schema
                else pl.lit(None, dtype).alias(name)
                for name, dtype in self.columns.items()
                if name not in inside
            ]
            for index in range(len(table.shards)):
                frame = table.frame(index, *there)
                if not frame.height:
                    continue
                if self.export.target:
                    written = self.export.rows(frame, teacher, self.columns)
                    shown = pairs(frame)[0] if self.export.target == "preference" else frame
                else:
                    written, shown = frame.select(*out, *made), frame
                tally.add(shown, table.kind)
                yield written, _text_bytes(shown)


def _text_bytes(frame: pl.DataFrame) -> pl.Series:
    """Count the bytes of text in each row; its other columns count 64 bytes together.

    Bytes of text, not of memory, so that files end at the same rows everywhere.
    """
    lengths = pl.col(pl.String).str.len_bytes().fill_null(0).cast(pl.Int64)
    return frame.select(pl.sum_horizontal(lengths, pl.lit(64, pl.Int64))).to_series()


def _teachers(tables: Mapping[str, Table]) -> list[Teacher]:
    """List who answered, domains that were asked the same way together."""
    found: list[Teacher] = []
    for domain, table in tables.items():
        teacher = asked(table)
        if teacher is None or not table.height:
            continue
        for place, other in enumerate(found):
            if replace(other, domains=()) == teacher:
                found[place] = replace(other, domains=(*other.domains, domain))
                break
        else:
            found.append(replace(teacher, domains=(domain,)))
    return found


def _told(stage: Stage) -> dict[str, Any]:
    manifest = stage.manifest
    return {
        "path": stage.path,
        "step": stage.step,
        "version": manifest.version,
        "key": manifest.key,
        "rows_in": manifest.rows_in,
        "rows_out": manifest.rows_out,
        "drops": manifest.drops,
    }


def _facts_for_programs(facts: Facts) -> dict[str, Any]:
    def counts(tally: Tally, column: str) -> dict[str, int]:
        return {str(k): n for (k,), n in tally.by(column).items() if k is not None}

    def summary(lengths: Lengths) -> dict[str, int]:
        return {
            "p50": lengths.quantile(0.5),
            "p95": lengths.quantile(0.95),
            "max": lengths.longest,
        }

    lengths = facts.rows.lengths()
    return {
        "kind": facts.kind,
        "questions": facts.rows.questions,
        "domains": counts(facts.rows, "domain"),
        "verdicts": counts(facts.rows, "verdict"),
        "verdicts_of_all_answers": counts(facts.drawn, "verdict"),
        "finish_reasons": counts(facts.rows, "finish_reason"),
        "completion_tokens": summary(lengths) if lengths.total else None,
        "stages": [_told(stage) for stage in facts.story],
        "stillroom": facts.stillroom,
    }


def _where_lost(story: Sequence[Stage]) -> str:
    """Say, domain by domain, at which step the last rows went."""
    last: dict[str, str] = {}
    for stage in story:
        manifest = stage.manifest
        if manifest.rows_in and not manifest.rows_out:
            reasons = sorted(manifest.drops.items(), key=lambda entry: (-entry[1], entry[0]))
            words = ", ".join(f"{reason} {n:,}" for reason, n in reasons[:3])
            more = ", …" if reasons[3:] else ""
            last[stage.domain] = (
                f"the last {manifest.rows_in:,} rows went at {stage.path} ({words}{more})"
            )
    if not last:
        return "Check that the sources have rows."
    text = "; ".join(last.values())
    return f"{text[0].upper()}{text[1:]}. Loosen that step, or give it more rows."


@contextlib.contextmanager
def _workplace(folder: Path, made_from: str) -> Iterator[Path]:
    """Hold a folder beside the dataset's in which the new one is written.

    Another process that writes the same dataset is waited for. Workplaces of killed processes
    are removed; those of living ones are locked, and stay.
    """
    place = folder.with_name(f"{folder.name}.partial-{made_from[:12]}")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.glob(f"{_literal(folder.name)}.partial-*"):
        if other != place:
            with _locked(other, wait=False) as held:
                if held:
                    shutil.rmtree(other, ignore_errors=True)
    while True:
        with disk_errors(place):
            place.mkdir(exist_ok=True)
        with _locked(place, wait=True) as held:
            if not held:
                continue  # it was put in place, or removed, while this process waited
            for leftover in place.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)
            return


@contextlib.contextmanager
def _locked(place: Path, *, wait: bool) -> Iterator[bool]:
    """Lock a folder for as long as this process lives; False if it is not there to be held."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = os.path.samestat(os.fstat(handle), place.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        yield held
    finally:
        os.close(handle)


def _put_in_place(new: Path, folder: Path) -> None:
    """Give a finished dataset its name; one that had the name is removed."""
    old = folder.with_name(f"{folder.name}.replaced")
    if not folder.exists():
        new.rename(folder)
    elif not any(folder.iterdir()):
        folder.rmdir()
        new.rename(folder)
    elif _exchange(new, folder):
        pass  # the old dataset stands in the workplace, which its owner removes
    else:
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)


def _take_back(folder: Path) -> None:
    """Undo half a replacement: see the module's list of what is not covered."""
    if folder.exists():
        return
    old = folder.with_name(f"{folder.name}.replaced")
    if old.exists():
        with disk_errors(folder):
            old.rename(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders at once; False if the system or the file system cannot."""
    at_cwd, exchange = -100, 2  # AT_FDCWD of fcntl.h, RENAME_EXCHANGE of linux/fs.h
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    result: int = renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange)
    return result == 0


def _literal(name: str) -> str:
    """Write a name so that glob takes it as it is."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
