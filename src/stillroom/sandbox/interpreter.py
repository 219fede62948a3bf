"""Which Python runs inside a sandbox."""

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import SetupError


@dataclass(frozen=True)
class Interpreter:
    """A Python, and the folders that it needs.

    Attributes:
        path: The program; never that of a virtual environment, whose packages stay outside.
        folders: What it reads: its installation.
    """

    path: Path
    folders: tuple[Path, ...]

    @classmethod
    def of_this_process(cls) -> "Interpreter":
        """Return the Python that runs now, without its virtual environment."""
        base = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
        folders = {Path(sys.base_prefix).resolve(), Path(sys.base_exec_prefix).resolve()}
        return cls(base, tuple(sorted(folders - {Path("/")})))

    @classmethod
    def readable_by_all(cls) -> "Interpreter":
        """Return the Python that runs now, or else the system's, if any user can read it.

        Raises:
            SetupError: If neither can be read by any user.
        """
        mine = cls.of_this_process()
        if all(map(_open_to_all, [mine.path, *mine.folders])):
            return mine
        system = Path("/usr/bin/python3")
        if system.exists() and _version(system) >= (3, 8):
            return cls(system.resolve(), (Path("/usr"),))
        raise SetupError(
            f"the Python at {mine.path} cannot be read by users without rights, and there is no "
            "/usr/bin/python3. Run: apt-get install python3-minimal"
        )


def _open_to_all(path: Path) -> bool:
    """Tell whether any user can reach and read a file or folder."""
    try:
        return all(p.stat().st_mode & stat.S_IXOTH for p in path.parents) and bool(
            path.stat().st_mode & stat.S_IROTH
        )
    except OSError:
        return False


def _version(python: Path) -> tuple[int, int]:
    said = subprocess.run(
        [python, "-I", "-S", "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True, text=True, check=False, env={"PATH": os.defpath},
    )  # fmt: skip
    try:
        major, minor = map(int, said.stdout.split())
    except ValueError:
        return (0, 0)
    return major, minor
