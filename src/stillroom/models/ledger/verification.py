"""Verification: every byte of every journal is read, and what is torn is named."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from stillroom.models.ledger import advice, journal
from stillroom.models.ledger.codec import TORN
from stillroom.models.ledger.folder import Folder
from stillroom.models.ledger.journal import Gap


class Torn(NamedTuple):
    """Something that can no longer be read.

    Attributes:
        key: Of the completion's request; None for bytes that belong to no record.
        problem: What is wrong with it.
    """

    key: bytes | None
    problem: str


def verify(folder: Folder) -> Iterator[Torn]:
    """Read everything, and yield what is torn.

    Raises:
        StoreError: If the index itself is damaged.
    """
    folder.follow()
    with folder.index.reading() as db:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        journals = db.execute("SELECT id, name, size FROM journal ORDER BY name").fetchall()
    if verdict != "ok":
        raise advice.damaged(folder.index.path, verdict)
    for number, name, size in journals:
        yield from _verify_journal(folder, number, name, size)


def _verify_journal(folder: Folder, number: int, name: str, size: int) -> Iterator[Torn]:
    for record in journal.scan(folder.files.get(name), 0, size):
        if isinstance(record, Gap):
            yield Torn(None, f"{name}: bytes {record.start:,} to {record.end:,} are no record")
    whole = 0
    for record, _ in folder.counting([(number, name, size)]):
        whole += 1
        try:
            completion = folder.bodies.read(record.key, name, record.start, record.size)
        except TORN as error:
            yield Torn(record.key, str(error))
            continue
        counts = record.facts[2:]
        if counts != [None, None] and counts != [
            completion.prompt_tokens,
            completion.completion_tokens,
        ]:
            yield Torn(record.key, "token counts of header and payload differ")
    with folder.index.reading() as db:
        rows = db.execute(
            "SELECT start, key FROM completion WHERE journal = ?", (number,)
        ).fetchall()
    if len(rows) > whole:
        for start, key in rows:
            found = journal.unpack(os.pread(folder.files.get(name), journal.HEAD, start))
            if found is None or found.key != key:
                yield Torn(key, "its record is gone")
