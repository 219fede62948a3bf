"""`stillroom.json`: what a dataset folder holds, for programs.

A folder with a readable record is a dataset of ours and may be replaced by a newer one. Any other
folder is somebody's, and is left alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.errors import ExportError
from stillroom.store.digest import file_digest, value_digest

RECORD = "stillroom.json"
FORMAT = 1


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        name: Path inside the dataset.
        bytes: Size.
        blake2b: Digest of its bytes, 128 bits.
    """

    name: str
    bytes: int
    blake2b: str


@dataclass(frozen=True)
class Licensed:
    """How many rows of a source stand under a licence; None when it is not known."""

    source: str | None
    licence: str | None
    rows: int


@dataclass(frozen=True)
class Record:
    """What a dataset holds.

    Attributes:
        name: Name of the recipe.
        rows: Rows in all.
        made_from: Digest of all that the files follow from: the same digest, the same files.
        licences: Rows by source and licence.
        files: Every file but the record itself.
        facts: Counts and keys, for programs that read the record.
    """

    name: str
    rows: int
    made_from: str
    licences: Sequence[Licensed]
    files: Sequence[File]
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Name the dataset by the content of its files."""
        return value_digest(sorted([f.name, f.blake2b] for f in self.files))

    @property
    def bytes(self) -> int:
        """Size of all files but the record."""
        return sum(f.bytes for f in self.files)

    def to_json(self) -> str:
        """Write the record, indented."""
        content = {
            "format": FORMAT,
            "name": self.name,
            "rows": self.rows,
            "digest": self.digest,
            "made_from": self.made_from,
            "licences": [vars(entry) for entry in self.licences],
            **self.facts,
            "files": [vars(file) for file in self.files],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def read(folder: Path) -> "Record | None":
        """Read the record of a dataset.

        Returns:
            None if nothing is there, or an empty folder.

        Raises:
            ExportError: If something else is there.
        """
        try:
            content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format is {content['format']}; expected {FORMAT}")
            return Record(
                name=content["name"],
                rows=content["rows"],
                made_from=content["made_from"],
                licences=[Licensed(**entry) for entry in content["licences"]],
                files=[File(**entry) for entry in content["files"]],
                facts={},
            )
        except (FileNotFoundError, NotADirectoryError):
            if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
                return None
            raise ExportError(
                f"{folder}: no {RECORD} in it; expected a dataset that Stillroom wrote, or "
                "nothing. Move what is there, or choose another folder."
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ExportError(
                f"{folder / RECORD}: unreadable ({error}); expected the record of a dataset. "
                "Move the folder away, and export again."
            ) from None
        except OSError as error:
            raise ExportError(f"{folder / RECORD}: {error.strerror}. Check the rights.") from error

    def changed(self, folder: Path, *, sizes_only: bool = False) -> Iterator[str]:
        """Name files that are missing, or are not what they were, with what is wrong."""
        for file in self.files:
            try:
                size = (folder / file.name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                yield f"{file.name} is missing"
                continue
            if size != file.bytes:
                yield f"{file.name} has {size:,} bytes, not {file.bytes:,}"
            elif not sizes_only and file_digest(folder / file.name) != file.blake2b:
                yield f"{file.name} has other content"

    def foreign(self, folder: Path) -> list[str]:
        """List files in the folder that are no part of the dataset."""
        ours = {RECORD, *(file.name for file in self.files)}
        there = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())
        return sorted(set(there) - ours)


def file_of(folder: Path, path: Path) -> File:
    """Describe a finished file."""
    return File(path.relative_to(folder).as_posix(), path.stat().st_size, file_digest(path))
