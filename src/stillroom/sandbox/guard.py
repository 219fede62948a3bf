"""The guard: a small program of our own that starts a command under limits; see ``guard.c``."""

import os
from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import SetupError
from stillroom.sandbox.job import Job

GUARD = Path(__file__).parent / "guard"


def guard_path() -> Path:
    """Return where the guard lies.

    Raises:
        SetupError: If it was not built.
    """
    if not os.access(GUARD, os.X_OK):
        raise SetupError(
            f"sandbox: {GUARD} is not there; expected it to be built with the package. "
            "Install the package again, or run `python setup.py build_ext --inplace` in a checkout."
        )
    return GUARD


def guard_arguments(
    job: Job, report: int, files: Sequence[tuple[int, str]], home: str
) -> list[str]:
    """Return the guard's arguments that do not depend on the backend, ``--`` left out."""
    limits = job.limits
    arguments = [
        f"report={report}",
        f"cwd={home}",
        # The kernel's own limit is for one process and in whole seconds; the watch adds up.
        f"cpu={int(limits.cpu_s) + 2}",
        f"fsize={limits.file_mib << 20}",
        f"nofile={limits.open_files}",
        f"nproc={limits.processes}",
        f"stack={limits.stack_mib << 20}",
        *(f"file={fd}:{home}/{name}" for fd, name in files),
    ]
    if job.address_space:
        arguments.append(f"as={limits.memory_mib << 20}")
    return arguments


def stranger() -> int:
    """Return a user id that nobody has, so that limits per user are limits per job."""
    return 0x60000000 + int.from_bytes(os.urandom(3), "little")


def environment(home: str) -> dict[str, str]:
    """Return all that programs see of the environment."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
    }
