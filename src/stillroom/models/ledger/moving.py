"""Moving: completions written into one file, and read from wherever else they are kept."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import zstandard

from stillroom.errors import StoreError
from stillroom.models.chat import Completion
from stillroom.models.ledger import journal
from stillroom.models.ledger.codec import TORN, Codec, dictionary_in, from_text
from stillroom.models.ledger.compaction import write_journal
from stillroom.models.ledger.files import sync_folder
from stillroom.models.ledger.folder import Folder
from stillroom.models.ledger.journal import Gap, Record


def export(
    folder: Folder, completions: Iterable[tuple[bytes, str, int, Completion]], file: Path
) -> int:
    """Write completions into one file; it is there when all are in it.

    Args:
        folder: Where they come from.
        completions: Key, model, time in nanoseconds since 1970, and the completion.
        file: A new file, in the form of a journal.

    Returns:
        How many were written.

    Raises:
        StoreError: If the file is there already, or cannot be written.
    """
    if file.exists():
        raise StoreError(f"{file}: is there already; expected a new file. Name another.")
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with folder.index.translated(partial):
        codec = Codec()
        codec.learn(folder.bodies.lessons(number for number, _, _ in folder.index.known()))
        try:
            done = write_journal(partial, codec, completions)
            partial.rename(file)
            sync_folder(file.parent)
        finally:
            partial.unlink(missing_ok=True)
    return done


def read_elsewhere(path: Path) -> Iterator[tuple[bytes, str, int, Completion]]:
    """Read the completions of a folder of journals, one journal, or a ledger of the first form.

    Yields:
        Key, model, time in nanoseconds since 1970, and the completion.

    Raises:
        StoreError: If nothing is there, or something that is no completion, or a torn one.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such file; expected an exported ledger. Name another.")
    if path.is_dir() and not any(path.glob("*.journal")):
        raise StoreError(f"{path}: holds no journals; expected a ledger. Name another folder.")
    if path.is_dir():
        parts = sorted(path.glob("*.journal"))
        forgotten = _forgotten(parts)
        for part in parts:
            yield from _read_journal(part, forgotten)
        return
    with path.open("rb") as opened:
        first_form = opened.read(16).startswith(b"SQLite format 3")
    yield from _read_first_form(path) if first_form else _read_journal(path, _forgotten([path]))


def _read_journal(
    path: Path, forgotten: Mapping[bytes, int]
) -> Iterator[tuple[bytes, str, int, Completion]]:
    codec = Codec()
    with path.open("rb") as opened:
        file = opened.fileno()
        for record in journal.scan(file):
            if isinstance(record, Gap):
                raise StoreError(
                    f"{path}: bytes {record.start:,} to {record.end:,} are no record; expected "
                    "an exported ledger or a journal. Restore the file from a copy."
                )
            data = os.pread(file, record.size, record.start)
            body = data[record.size - record.body_size :]
            try:
                if record.kind == journal.DICTIONARY:
                    codec.meet("", record.facts[0], dictionary_in(data))
                elif record.kind == journal.COMPLETION:
                    number = zstandard.get_frame_parameters(body).dict_id
                    completion = from_text(codec.decompress("", number, body))
                    if record.at_ns > forgotten.get(record.key, -1):
                        yield record.key, record.facts[0], record.at_ns, completion
            except (*TORN, KeyError) as error:
                raise StoreError(
                    f"{path}: completion {record.key.hex()} is torn ({error}); expected what was "
                    "written. Restore the file from a copy."
                ) from error


def _forgotten(paths: Iterable[Path]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for path in paths:
        with path.open("rb") as opened:
            for record in journal.scan(opened.fileno()):
                if isinstance(record, Record) and record.kind == journal.FORGOTTEN:
                    found[record.key] = max(record.at_ns, found.get(record.key, -1))
    return found


def _read_first_form(path: Path) -> Iterator[tuple[bytes, str, int, Completion]]:
    unpack = zstandard.ZstdDecompressor().decompress
    at = path.stat().st_mtime_ns
    try:
        with closing(sqlite3.connect(path)) as db:
            for key, name, body in db.execute(
                "SELECT key, name, body FROM completion JOIN payload p ON p.id = payload"
                " JOIN model m ON m.id = model"
            ):
                yield key, name, at, from_text(unpack(body))
    except (sqlite3.DatabaseError, *TORN) as error:
        raise StoreError(
            f"{path}: cannot be read as a ledger ({error}); expected one that Stillroom wrote. "
            "Restore the file from a copy."
        ) from error
