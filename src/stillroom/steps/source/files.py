"""Records out of files: JSON Lines, CSV and Parquet, local or remote, compressed or not.

A line that cannot be read is a counted `Broken` record, not the end of the run and not silence. A
file that cannot be read at all is an error that names it.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import polars as pl
import zstandard

from stillroom.errors import SourceError

SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet")
TABLES = (".csv", ".tsv", ".parquet")
"""Endings of formats in which every row has the same columns."""
COMPRESSIONS = (".zst", ".gz", ".bz2", ".xz")
BATCH = 10_000

Record = Mapping[str, Any]


class Broken(NamedTuple):
    """A record that could not be read.

    Attributes:
        reason: ``invalid_utf8``, ``broken_json`` or ``not_an_object``.
        raw: What stood there, for its identity.
        place: File name and line.
    """

    reason: str
    raw: bytes
    place: str


def read_records(path: Path, columns: Iterable[str]) -> Iterator[Record | Broken]:
    """Read a file record by record.

    Args:
        path: A local file; its ending tells the format.
        columns: Columns that are wanted; others are not read where the format allows.

    Raises:
        SourceError: If the file is missing, unreadable, or of an unknown format.
    """
    form = format_of(path.name)
    if not path.is_file():
        raise SourceError(f"{path}: no such file. Check the path, or pass --source NAME=FILE.")
    try:
        if form in (".jsonl", ".ndjson"):
            yield from _read_lines(path)
        elif form == ".json":
            yield from _read_json(path)
        elif form == ".parquet":
            yield from _read_frames(pl.scan_parquet(path), columns)
        else:
            separator = "\t" if form == ".tsv" else ","
            frame = pl.scan_csv(path, separator=separator, infer_schema=False)
            yield from _read_frames(frame, columns)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"{path}: cannot be read as {form} ({_first_line(error)}). "
            "Check that the file is whole and its ending is right."
        ) from error


def readable(name: str) -> bool:
    """Tell whether a file is of a format that is read."""
    return _ending(name) in SUFFIXES


def format_of(name: str) -> str:
    """Tell a file's format by its name.

    Raises:
        SourceError: If the ending is unknown.
    """
    form = _ending(name)
    if form not in SUFFIXES:
        raise SourceError(
            f"{name}: unknown ending {form!r}; expected one of {', '.join(SUFFIXES)}, "
            f"with {', '.join(COMPRESSIONS)} after it if the file is compressed. Rename it."
        )
    return form


def _ending(name: str) -> str:
    """Return the ending that says the format, before that of a compression."""
    suffixes = Path(name.lower()).suffixes
    return next((s for s in reversed(suffixes) if s not in COMPRESSIONS), "")


def _read_lines(path: Path) -> Iterator[Record | Broken]:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path.name}:{number}"
            try:
                record = json.loads(line)
            except UnicodeDecodeError:
                yield Broken("invalid_utf8", line, place)
            except ValueError:
                yield Broken("broken_json", line, place)
            else:
                if isinstance(record, dict):
                    yield record
                else:
                    yield Broken("not_an_object", line, place)


def _read_json(path: Path) -> Iterator[Record | Broken]:
    try:
        with opened(path) as file:
            content = json.load(file)
    except ValueError as error:
        raise SourceError(
            f"{path}: not JSON ({error}); expected a list of objects. If each line is an object, "
            "name the file .jsonl."
        ) from None
    if not isinstance(content, list):
        raise SourceError(
            f"{path}: a {type(content).__name__}; expected a list of objects. Convert it."
        )
    for number, record in enumerate(content):
        if isinstance(record, dict):
            yield record
        else:
            yield Broken("not_an_object", json.dumps(record).encode(), f"{path.name}[{number}]")


def _read_frames(frame: pl.LazyFrame, columns: Iterable[str]) -> Iterator[Record]:
    there = frame.collect_schema().names()
    frame = frame.select([c for c in dict.fromkeys(columns) if c in there])
    for batch in frame.collect_batches(chunk_size=BATCH, maintain_order=True):
        yield from batch.iter_rows(named=True)


def opened(path: Path) -> BinaryIO:
    """Open a file, through its compression if its ending names one."""
    openers: Mapping[str, Callable[[Path], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": lambda p: io.BufferedReader(_Zstandard(p), 1 << 20),
    }
    opener = openers.get(path.suffix.lower())
    return cast(BinaryIO, opener(path)) if opener else path.open("rb")


class _Zstandard(io.RawIOBase):
    """A file of Zstandard frames. Unlike the library's reader, it sees a cut-off last frame."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._rest = b""
        self._data = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._data:
            block = self._rest or self._file.read(1 << 16)
            self._rest = b""
            if not block:
                if self._inside:
                    raise EOFError("the file ends inside a Zstandard frame")
                return 0
            try:
                self._data = memoryview(self._frame.decompress(block))
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            self._inside = not self._frame.eof
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


_WORTH_REMEMBERING = 1 << 20  # bytes; smaller files are read again sooner than looked up


def sha256_of(path: Path) -> str:
    """Digest a file as the hub and `sha256sum` do.

    A large file is read once per process, unless it changes: hundreds of arms and seeds of a study
    ask for the same one.
    """
    stat = path.stat()
    if stat.st_size < _WORTH_REMEMBERING:
        return _digest(path)
    return _digest_once(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(1024)
def _digest_once(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
