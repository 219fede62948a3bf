"""Compaction: this machine's journals written anew, into one."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stillroom.models.chat import Failure, Reply
from stillroom.models.ledger import journal
from stillroom.models.ledger.codec import TORN, Codec, dictionary_entry, entry, to_text
from stillroom.models.ledger.files import sync_folder
from stillroom.models.ledger.folder import Folder

_LEVEL = 9


class Compacted(NamedTuple):
    """What a compaction did.

    Attributes:
        completions: That this machine's journals hold now.
        before: Bytes of its journals before.
        after: Bytes of them after.
        torn: Completions that could not be read, and are gone.
    """

    completions: int
    before: int
    after: int
    torn: int


def compact(folder: Folder) -> Compacted:
    """Write this machine's journals anew, into one: without what was forgotten, and smaller.

    A dictionary is trained on what they hold. Other processes may go on reading and writing;
    other machines notice and read the new journal.
    """
    index, files, bodies = folder.index, folder.files, folder.bodies
    with index.lock, index.translated():
        folder.recover()
        with index.writing():
            old = [row for row in index.known() if files.is_ours(row[1])]
            after = max((files.number(name) for _, name, _ in old), default=0)
            # From here on everybody appends to a journal that is not touched.
            index.begin(files.name(after + 2))
        codec = Codec(_LEVEL)
        codec.learn(bodies.lessons(number for number, _, _ in old))
        target = files.folder / files.name(after + 1)
        partial = target.with_name(target.name + ".partial")
        torn: list[bytes] = []
        try:
            write_journal(partial, codec, _whole(folder, old, torn))
            _swap(folder, old, partial, target)
            if torn:  # another machine may hold what is torn here
                with index.writing() as db:
                    folder.index_all(db)
        finally:
            partial.unlink(missing_ok=True)
        bodies.begin_anew()
        with index.reading() as db:
            (kept,) = db.execute(
                "SELECT count(*) FROM completion JOIN journal j ON j.id = journal"
                " WHERE j.name = ?", (target.name,)
            ).fetchone()  # fmt: skip
        before = sum(size for _, _, size in old)
        return Compacted(kept, before, target.stat().st_size, len(torn))


def write_journal(
    path: Path, codec: Codec, replies: Iterable[tuple[bytes, str, int, Reply]]
) -> int:
    """Write a journal that nobody reads yet.

    Args:
        path: The file.
        codec: For the bodies; its dictionary comes first in the journal.
        replies: Key, model, time in nanoseconds and reply.

    Returns:
        How many of them are completions.
    """
    done = 0
    with path.open("wb") as file:
        if codec.dictionary is not None:
            file.write(journal.pack(*dictionary_entry(codec.dictionary)))
        for key, model, at_ns, reply in replies:
            body = b"" if isinstance(reply, Failure) else codec.compress(to_text(reply))
            file.write(journal.pack(*entry(key, model, at_ns, reply, body)))
            done += not isinstance(reply, Failure)
        file.flush()
        os.fsync(file.fileno())
    return done


def _whole(
    folder: Folder, journals: list[tuple[int, str, int]], torn: list[bytes]
) -> Iterator[tuple[bytes, str, int, Reply]]:
    """Yield all failures, and the completions of journals; name those that are torn."""
    for record, name in folder.counting(journals):
        try:
            completion = folder.bodies.read(record.key, name, record.start, record.size)
        except TORN:
            torn.append(record.key)
            continue
        yield record.key, record.facts[0], record.at_ns, completion
    with folder.index.reading() as db:
        failures = db.execute(
            "SELECT key, name, at, reason, message FROM failure JOIN model ON id = model"
            " WHERE reason <> ''"
        ).fetchall()
    for key, model, at_ns, reason, message in failures:
        yield key, model, at_ns, Failure(reason, message)


def _swap(folder: Folder, old: list[tuple[int, str, int]], partial: Path, target: Path) -> None:
    """Put a new journal in the place of old ones, in the folder and in the index."""
    index, files = folder.index, folder.files
    with index.writing() as db:
        # What was forgotten elsewhere stays forgotten: other journals may hold it still.
        with partial.open("ab") as file:
            for key, at_ns in db.execute("SELECT key, at FROM forgotten").fetchall():
                file.write(journal.pack(journal.FORGOTTEN, key, at_ns, [], b""))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
        sync_folder(files.folder)
        for number, _, _ in old:
            index.remove(number)
        index.begin(target.name)
        folder.index_new(db, target.name, target.stat().st_size)
        db.execute("UPDATE journal SET synced = size WHERE name = ?", (target.name,))
        for _, name, _ in old:
            files.remove(name)
