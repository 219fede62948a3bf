"""Completions by their place in a journal."""

import os
from collections.abc import Iterable
from contextlib import suppress

import zstandard

from stillroom.models.chat import Completion
from stillroom.models.ledger import journal
from stillroom.models.ledger.codec import TORN, Codec, dictionary_in, from_text, to_text
from stillroom.models.ledger.files import Files
from stillroom.models.ledger.index import Index

_LESSONS = 512  # completions that a dictionary is trained on
_LESSON_BYTES = 8 << 20


class Bodies:
    """Completions written as bytes, and read from journals.

    Attributes:
        codec: That new completions are compressed with.
    """

    def __init__(self, index: Index, files: Files) -> None:
        self.codec = Codec()
        self._index = index
        self._files = files
        self._written = 0

    def begin_anew(self) -> None:
        """Forget the dictionaries of journals that are gone."""
        self.codec = Codec()
        self._written = 0

    def encode(self, completion: Completion) -> bytes:
        """Compress a completion."""
        with self._index.lock:  # zstandard objects serve one thread at a time
            if self.codec.fresh:
                self.codec.fresh = False
                self._adopt()
            return self.codec.compress(to_text(completion))

    def learn_after(self, written: int) -> None:
        """Hear how many completions were written; train a dictionary once there are enough."""
        self._written += written
        if self._written >= _LESSONS and not self.codec.settled:
            with self._index.reading():
                known = self._index.known()
            ours = [number for number, name, _ in known if self._files.is_ours(name)]
            self.codec.learn(self.lessons(ours))

    def read(self, key: bytes, name: str, start: int, size: int) -> Completion:
        """Read a completion from a journal.

        Raises:
            One of ``TORN``: If it is not what was written.
            OSError: If the journal cannot be read.
        """
        with self._index.lock:
            data = os.pread(self._files.get(name), size, start)
            record = journal.unpack(data)
            if record is None or len(data) != size or record.key != key:
                raise ValueError("its record is damaged")
            body = data[size - record.body_size :]
            number = zstandard.get_frame_parameters(body).dict_id
            if not self.codec.knows(name, number):
                self.codec.meet(name, number, self._dictionary(name, number))
            return from_text(self.codec.decompress(name, number, body))

    def lessons(self, journals: Iterable[int]) -> list[bytes]:
        """Return texts of journals to train a dictionary on."""
        numbers = list(journals)
        marks = ",".join("?" * len(numbers))
        with self._index.reading() as db:
            rows = db.execute(
                "SELECT key, name, start, completion.size FROM completion"
                f" JOIN journal ON journal.id = journal WHERE journal IN ({marks})"
                " ORDER BY key LIMIT ?",  # keys are hashes: these are as good as drawn by chance
                (*numbers, 4 * _LESSONS),
            ).fetchall()
        texts: list[bytes] = []
        room = _LESSON_BYTES
        for key, name, start, size in rows:
            with suppress(*TORN):
                texts.append(to_text(self.read(key, name, start, size)))
                room -= len(texts[-1])
            if room < 0:
                break
        return texts

    def _dictionary(self, name: str, number: int) -> bytes:
        with self._index.reading() as db:
            row = db.execute(
                "SELECT start, d.size FROM dictionary d JOIN journal j ON j.id = journal"
                " WHERE name = ? AND d.id = ?",
                (name, number),
            ).fetchone()
        if row is None:
            raise ValueError(f"its dictionary {number} is gone")
        return dictionary_in(os.pread(self._files.get(name), row[1], row[0]))

    def _adopt(self) -> None:
        """Take the newest dictionary of this machine, if it has one."""
        with self._index.reading() as db:
            rows = db.execute(
                "SELECT name, d.id FROM dictionary d JOIN journal j ON j.id = journal"
            ).fetchall()
        ours = [row for row in rows if self._files.is_ours(row[0])]
        if ours:
            name, number = max(ours, key=lambda row: self._files.number(row[0]))
            with suppress(*TORN):
                self.codec.take(self._dictionary(name, number), name)
