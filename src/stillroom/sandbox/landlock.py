"""Landlock, seccomp and limits by the guard alone, for machines that forbid namespaces.

Closed: files outside ``/usr``, the Python and the job's folder (Landlock), every socket (seccomp),
and signals to other processes: by Landlock from Linux 6.12 on, or because the guard, started as
root, changes to a user that nobody has. Where the machine allows namespaces, the guard enters
them as well, and the job's folder is in memory. Where not, it is a folder of the host that is
watched and removed, and the names of other processes can be counted but not seen.
"""

import ctypes
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import SetupError
from stillroom.sandbox.bubblewrap import DEVICES, ETC, SYSTEM
from stillroom.sandbox.fork_server import ForkServer
from stillroom.sandbox.guard import environment, guard_arguments, guard_path, stranger
from stillroom.sandbox.interpreter import Interpreter
from stillroom.sandbox.job import Job
from stillroom.sandbox.processes import Launch


class Landlock:
    """Start jobs under Landlock."""

    isolates = True

    def __init__(self, *, namespaces: bool | None = None):
        """Look at what the kernel offers.

        Args:
            namespaces: Whether to enter namespaces too; None to do so where it is allowed.

        Raises:
            SetupError: If the kernel has no Landlock, or no Python can be read from inside.
        """
        abi = _abi()
        if abi < 1:
            raise SetupError(
                f"Linux {platform.release()} offers no Landlock; it is there from Linux 5.13 on, "
                "where the kernel was built with it"
            )
        root = os.geteuid() == 0
        if not root and abi < 6:
            raise SetupError(
                f"Landlock has version {abi} here, and keeps signals inside from version 6 on "
                "(Linux 6.12); below that it is safe only when started by root"
            )
        self._guard = str(guard_path())
        self._namespaces = _namespaces(self._guard) if namespaces is None else namespaces
        self.name = f"landlock {abi}" + (" with namespaces" if self._namespaces else "")
        self._interpreter = Interpreter.readable_by_all() if root else Interpreter.of_this_process()
        self.python = str(self._interpreter.path)
        reads = [*SYSTEM, *ETC, *map(str, self._interpreter.folders)]
        self._rules = [
            "landlock=1",
            *(f"read={path}" for path in dict.fromkeys(reads)),
            *(f"write={path}" for path in DEVICES),
            f"private={int(self._namespaces)}",
        ]
        self.forks: ForkServer | None = ForkServer([self.python], environment("/"))

    def launch(self, job: Job, report: int, files: Sequence[tuple[int, str]]) -> Launch:
        """Say how to start a job."""
        limits = job.limits
        folder = tempfile.mkdtemp(prefix="stillroom-job-")
        arguments = [*self._rules, f"write={folder}"]
        arguments += guard_arguments(job, report, files, folder)
        if os.geteuid() == 0:
            user = stranger()
            os.chown(folder, user, user)
            arguments += [f"uid={user}", f"gid={user}"]
        if self._namespaces:
            arguments.append(f"scratch={folder}:{limits.disk_mib << 20}:{limits.files}")
        return Launch(
            [self._guard, *arguments, "--", *job.command],
            environment(folder),
            scratch=Path(folder),
            arguments=tuple(arguments),
        )


def _abi() -> int:
    """Return the version of Landlock that the kernel offers; -1 for none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(444, None, 0, 1))


def _namespaces(guard: str) -> bool:
    """Try whether the guard may make namespaces."""
    tried = subprocess.run(
        [guard, "report=1", "private=1", "scratch=/tmp:65536:16", "--", "/bin/true"],
        capture_output=True, text=True, check=False, env={}, timeout=30,
    )  # fmt: skip
    return "ended 0 " in tried.stdout
