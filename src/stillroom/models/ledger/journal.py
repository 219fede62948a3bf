"""Journals: files of records that are only ever appended to, and that nobody needs a lock to read.

A record is a header, a few facts in JSON, and a body. The header carries a checksum of itself and
of the facts, so that a file can be walked without reading its bodies; bodies are zstd frames with
a checksum of their own. A journal stands by itself: the dictionaries that its bodies were
compressed with are records in it.

Covered: a torn end, which is what a killed writer or a power cut leaves; damage in the middle,
which is stepped over to the next whole record. Not covered: two writers at once.
"""

import json
import os
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from zlib import crc32

COMPLETION: Final = 1
FAILURE: Final = 2
FORGOTTEN: Final = 3
DICTIONARY: Final = 4

_MAGIC = b"\xabSL1"
_HEADER = struct.Struct("<4sB3xII16sq")  # magic, kind, bytes of facts and body, key, time
_CRC = struct.Struct("<I")
_FIXED = _HEADER.size + _CRC.size
HEAD: Final = 1 << 12
"""Bytes that hold the header and facts of any completion."""

_FACTS_LIMIT = 1 << 20
_NARROW = HEAD  # read at once where bodies are long
_WIDE = 1 << 18  # and where they are short
_SEARCH = 1 << 20

_as_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class Record(NamedTuple):
    """One record of a journal, without its body.

    Attributes:
        kind: ``COMPLETION``, ``FAILURE``, ``FORGOTTEN`` or ``DICTIONARY``.
        key: Of the request; zeros for a dictionary.
        at_ns: When it was written, in nanoseconds since 1970.
        facts: What is known without the body.
        start: Where it begins in its file.
        size: Bytes, all in all.
        body_size: Bytes of the body, at its end.
    """

    kind: int
    key: bytes
    at_ns: int
    facts: list[Any]
    start: int
    size: int
    body_size: int

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.start + self.size


class Gap(NamedTuple):
    """Bytes of a journal that are no record.

    Attributes:
        start: Where they begin.
        end: Where the next whole record begins, or the file ends.
    """

    start: int
    end: int


def pack(kind: int, key: bytes, at_ns: int, facts: list[Any], body: bytes) -> bytes:
    """Write a record as bytes."""
    words = _as_json(facts).encode()
    head = _HEADER.pack(_MAGIC, kind, len(words), len(body), key, at_ns)
    return b"".join((head, _CRC.pack(crc32(words, crc32(head))), words, body))


def unpack(data: bytes, start: int = 0, *, base: int = 0) -> Record | None:
    """Read the header and facts of a record, or None if there is no whole one.

    Args:
        data: A piece of a journal.
        start: Where in the piece the record begins.
        base: Where in the journal the piece begins.
    """
    if len(data) - start < _FIXED:
        return None
    magic, kind, n_facts, n_body, key, at_ns = _HEADER.unpack_from(data, start)
    if magic != _MAGIC or n_facts > _FACTS_LIMIT or len(data) - start < _FIXED + n_facts:
        return None
    (found,) = _CRC.unpack_from(data, start + _HEADER.size)
    words = data[start + _FIXED : start + _FIXED + n_facts]
    if found != crc32(words, crc32(data[start : start + _HEADER.size])):
        return None
    size = _FIXED + n_facts + n_body
    return Record(kind, key, at_ns, json.loads(words), base + start, size, n_body)


def scan(file: int, start: int = 0, end: int | None = None) -> Iterator[Record | Gap]:
    """Walk a journal's records in order, and name the bytes that are none.

    Args:
        file: File descriptor.
        start: Where a record begins.
        end: Where to stop; the file's size by default.
    """
    end = os.fstat(file).st_size if end is None else end
    at, base, piece = start, start, b""
    width = _WIDE
    while at < end:
        if at - base + _FIXED > len(piece):
            piece, base = os.pread(file, width, at), at
        record = unpack(piece, at - base, base=base)
        if record is None and len(piece) - (at - base) < _FIXED + _FACTS_LIMIT:
            piece, base = os.pread(file, _FIXED + _FACTS_LIMIT, at), at  # it may reach beyond
            record = unpack(piece, base=base)
        if record is None or record.end > end:
            after = _next_record(file, at + 1, end)
            yield Gap(at, after)
            at = after
            continue
        yield record
        at = record.end
        width = _NARROW if record.body_size > _NARROW else _WIDE


def _next_record(file: int, start: int, end: int) -> int:
    """Find the next whole record, or the end."""
    while start < end:
        piece = os.pread(file, _SEARCH, start)
        at = piece.find(_MAGIC)
        if at < 0:
            start += max(1, len(piece) - len(_MAGIC) + 1)
            continue
        start += at
        record = unpack(os.pread(file, _FIXED + _FACTS_LIMIT, start), base=start)
        if record is not None and record.end <= end:
            return start
        start += 1
    return end
