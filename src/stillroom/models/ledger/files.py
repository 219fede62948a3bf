"""The journals of a folder, as open files."""

import os
import re
import socket
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from stillroom.errors import StoreError


class Files:
    """The journals in one folder, opened when first needed; ours are those of this machine."""

    def __init__(self, folder: Path, machine: str) -> None:
        self.folder = folder
        self.machine = machine
        self._ours = re.compile(re.escape(machine) + r"\.\d+\.journal")
        self._open: dict[str, int] = {}

    def make_folder(self) -> None:
        """Make the folder if need be.

        Raises:
            StoreError: If it cannot be one.
        """
        if self.folder.is_file():
            raise StoreError(
                f"{self.folder}: a file; expected a folder of journals. Name another place, or "
                "read the file's completions in with `stillroom ledger import`."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.folder}: its folder cannot be made ({error.strerror}); expected a place "
                "that you may write to. Name another path."
            ) from error

    def name(self, number: int) -> str:
        """Name this machine's journal of a number."""
        return f"{self.machine}.{number}.journal"

    def is_ours(self, name: str) -> bool:
        """Tell whether this machine writes a journal."""
        return self._ours.fullmatch(name) is not None

    @staticmethod
    def number(name: str) -> int:
        """Return the number of a journal; its machine's later ones have higher numbers."""
        return int(name.split(".")[-2])

    def sizes(self) -> dict[str, int]:
        """Return the size of every journal in the folder."""
        sizes = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".journal"):
                    with suppress(FileNotFoundError):
                        sizes[entry.name] = entry.stat().st_size
        return sizes

    def get(self, name: str, *, write: bool = False) -> int:
        """Return the descriptor of a journal; ours are opened for writing, and made to write."""
        if name not in self._open:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT if write else os.O_RDONLY
            if not write and self.is_ours(name):
                flags = os.O_RDWR | os.O_APPEND
            self._open[name] = os.open(self.folder / name, flags | os.O_CLOEXEC, 0o644)
        return self._open[name]

    def cut(self, name: str, size: int) -> None:
        """Drop what is beyond this size."""
        os.ftruncate(self.get(name, write=True), size)

    def remove(self, name: str) -> None:
        """Delete a journal."""
        if name in self._open:
            os.close(self._open.pop(name))
        (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all; they are opened again when needed."""
        for name in list(self._open):
            os.close(self._open.pop(name))


def machine_name() -> str:
    """Name this machine: ``$STILLROOM_MACHINE``, or its host name and a hash of its machine id."""
    if named := os.environ.get("STILLROOM_MACHINE"):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named):
            raise StoreError(
                f"STILLROOM_MACHINE is {named!r}; expected up to 64 letters, digits, - and _. "
                "Set it again."
            )
        return named
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40] or "machine"
    try:
        number = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        number = b""
    return f"{host}-{blake2b(number, digest_size=3).hexdigest()}" if number else host


def sync_folder(path: Path) -> None:
    """Wait until the disk knows the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
