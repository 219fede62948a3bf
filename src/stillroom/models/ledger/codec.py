"""Completions as bytes: JSON, compressed by zstd, with a dictionary where one pays.

Traces of one teacher share their phrases, and a single one is too short for a compressor to learn
them. A dictionary of 64 KB, trained on a few hundred, knows them from the start.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import zstandard

from stillroom.models.chat import Completion, Failure, Reply
from stillroom.models.ledger import journal

LEVEL = 3  # keeps up with any teacher

_DICTIONARY_BYTES = 64 << 10
_LESSONS_AT_LEAST = 32
_PAYS = 0.95  # of the bytes without it; a dictionary that saves less is not kept

_FIELDS = tuple(field.name for field in fields(Completion))
_values = attrgetter(*_FIELDS)
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Entry = tuple[int, bytes, int, list[Any], bytes]
"""Kind, key, time in nanoseconds, facts and body: what `journal.pack` writes."""

TORN = (zstandard.ZstdError, ValueError, TypeError, MemoryError)
"""What reading a damaged completion raises."""


class Codec:
    """Compression of bodies, with a dictionary where one pays.

    Attributes:
        dictionary: That new bodies are compressed with.
        settled: Whether a dictionary was taken, or found not to pay.
        fresh: Whether nobody has looked yet for a dictionary to take.
    """

    def __init__(self, level: int = LEVEL) -> None:
        self.dictionary: bytes | None = None
        self.settled = False
        self.fresh = True
        self._level = level
        self._told: str | None = None
        self._compressor = self._plain = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._decompressors = {("", 0): zstandard.ZstdDecompressor()}

    def compress(self, text: bytes) -> bytes:
        """Compress with the dictionary, if there is one."""
        return self._compressor.compress(text)

    def knows(self, name: str, number: int) -> bool:
        """Tell whether bodies of a journal with this dictionary can be read; 0 is none."""
        return number == 0 or (name, number) in self._decompressors

    def meet(self, name: str, number: int, dictionary: bytes) -> None:
        """Learn to read bodies of a journal with this dictionary."""
        data = zstandard.ZstdCompressionDict(dictionary)
        self._decompressors[name, number] = zstandard.ZstdDecompressor(dict_data=data)

    def decompress(self, name: str, number: int, body: bytes) -> bytes:
        """Return what a body of a journal holds."""
        text: bytes = self._decompressors[(name, number) if number else ("", 0)].decompress(body)
        return text

    def learn(self, texts: Sequence[bytes]) -> None:
        """Train a dictionary on three quarters of the texts; keep it if the rest shrinks."""
        self.settled = True
        trained_on: list[bytes | bytearray | memoryview] = [
            text for i, text in enumerate(texts) if i % 4
        ]
        rest = texts[::4]
        if len(trained_on) < _LESSONS_AT_LEAST or sum(map(len, trained_on)) < 8 * _DICTIONARY_BYTES:
            return
        try:
            dictionary = zstandard.train_dictionary(_DICTIONARY_BYTES, trained_on).as_bytes()
        except zstandard.ZstdError:  # texts in which nothing repeats
            return
        plain = sum(len(self._plain.compress(text)) for text in rest)
        self.take(dictionary, None)
        if sum(len(self.compress(text)) for text in rest) > _PAYS * plain:
            self.dictionary, self._compressor = None, self._plain

    def take(self, dictionary: bytes, told: str | None) -> None:
        """Compress with this dictionary from now on; a journal has it already, or none has."""
        data = zstandard.ZstdCompressionDict(dictionary)
        data.precompute_compress(level=self._level)
        self._compressor = zstandard.ZstdCompressor(
            level=self._level, dict_data=data, write_checksum=True
        )
        self.dictionary, self._told, self.settled = dictionary, told, True

    def news(self, name: str) -> list["Entry"]:
        """Return the entry of the dictionary, if the journal does not have it yet."""
        if self.dictionary is None or self._told == name:
            return []
        return [dictionary_entry(self.dictionary)]

    def told(self, name: str) -> None:
        """Hear that what `news` returned is in the journal."""
        self._told = name if self.dictionary is not None else None


def dictionary_entry(dictionary: bytes) -> "Entry":
    """Make the entry of a dictionary."""
    number = zstandard.ZstdCompressionDict(dictionary).dict_id()
    body = zstandard.ZstdCompressor(level=19, write_checksum=True).compress(dictionary)
    return journal.DICTIONARY, bytes(16), time.time_ns(), [number], body


def dictionary_in(data: bytes) -> bytes:
    """Read the dictionary of a record."""
    record = journal.unpack(data)
    if record is None or record.kind != journal.DICTIONARY:
        raise ValueError("its dictionary is damaged")
    return zstandard.ZstdDecompressor().decompress(data[record.size - record.body_size :])


def entry(key: bytes, model: str, at_ns: int, reply: Reply, body: bytes) -> Entry:
    """Make the entry of a reply; a failure has no body."""
    if isinstance(reply, Failure):
        words = reply.message.encode("utf-8", "replace").decode()
        return journal.FAILURE, key, at_ns, [model, reply.reason, words], b""
    tokens = [reply.prompt_tokens, reply.completion_tokens] if reply.counted else [None, None]
    return journal.COMPLETION, key, at_ns, [model, reply.finish_reason, *tokens], body


def to_text(completion: Completion) -> bytes:
    """Write a completion as JSON."""
    values = _values(completion)
    text = _as_json({k: v for k, v in zip(_FIELDS, values, strict=True) if v is not None})
    # Half a surrogate pair, which a model can emit, has no UTF-8 form otherwise.
    return text.encode("utf-8", "surrogatepass")


def from_text(text: bytes) -> Completion:
    """Read a completion that `to_text` wrote."""
    return Completion(**{"reasoning": None, **json.loads(text.decode("utf-8", "surrogatepass"))})
