"""Namespaces by bubblewrap, and inside them the guard.

Closed: the network (a loopback of its own is left), every file but ``/usr``, the Python and a
folder in memory, every process of the host, system calls by the guard's filter. As root,
bubblewrap works without a user namespace, and the guard changes to a user that nobody has. As
anybody else it needs user namespaces, which some systems forbid.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import SetupError
from stillroom.sandbox.fork_server import MODULE, ForkServer
from stillroom.sandbox.guard import environment, guard_arguments, guard_path, stranger
from stillroom.sandbox.interpreter import Interpreter
from stillroom.sandbox.job import Job
from stillroom.sandbox.processes import Launch

HOME = "/work"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
ETC = ("/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
CAPABILITIES = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")
"""What the guard needs to make the folder, change the user, and end what is left."""


class Bubblewrap:
    """Start jobs in bubblewrap."""

    isolates = True

    def __init__(self) -> None:
        """Find bubblewrap and a Python to bind.

        Raises:
            SetupError: If bubblewrap or the guard is missing.
        """
        found = shutil.which("bwrap")
        if not found:
            raise SetupError("bubblewrap is not installed. Run: apt-get install bubblewrap")
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"\d[\d.]*", said.stdout)
        self.name = f"bubblewrap {version.group() if version else 'of unknown version'}"
        self._interpreter = Interpreter.of_this_process()
        self.python = str(self._interpreter.path)
        self._environment = environment(HOME)
        self._head = [found, *self._arguments(CAPABILITIES)]
        self.forks: ForkServer | None = None
        if os.geteuid() == 0:
            # Each fork has namespaces of its own inside those that the server is in.
            head = [found, *self._arguments((*CAPABILITIES, "NET_ADMIN"))]
            self.forks = ForkServer(
                [*head, self.python], self._environment, ("private=1", "loopback=1"),
                module="/guard.so",
            )  # fmt: skip

    def _arguments(self, capabilities: Sequence[str]) -> list[str]:
        arguments = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")]
        arguments += ["--as-pid-1", "--die-with-parent", "--new-session"]
        if os.geteuid() == 0:
            arguments += ["--cap-drop", "ALL"]
            for name in capabilities:
                arguments += ["--cap-add", f"CAP_{name}"]
        else:
            arguments += ["--unshare-user", "--cap-add", "CAP_SYS_ADMIN"]
        made: set[Path] = set()

        def parents(path: str) -> list[str]:
            """Make the folders above a mount open to all; bubblewrap's own are closed."""
            new = [p for p in reversed(Path(path).parents) if p != Path("/") and p not in made]
            made.update(new)
            return [word for p in new for word in ("--perms", "0755", "--dir", str(p))]

        for path in SYSTEM:
            if Path(path).is_symlink():
                arguments += ["--symlink", os.readlink(path), path]  # noqa: PTH115 - as written
            elif Path(path).is_dir():
                arguments += ["--ro-bind", path, path]
        made.update(map(Path, SYSTEM))
        for path in ETC:
            arguments += [*parents(path), "--ro-bind-try", path, path]
        for path in DEVICES:
            arguments += [*parents(path), "--dev-bind", path, path]
        for folder in self._interpreter.folders:
            if not folder.is_relative_to("/usr"):
                arguments += [*parents(str(folder)), "--ro-bind", str(folder), str(folder)]
        arguments += ["--ro-bind", str(guard_path()), "/guard"]
        arguments += ["--ro-bind-try", str(MODULE), "/guard.so"]
        # Shared memory and the folder of the job count together: both are the job's files.
        arguments += ["--perms", "0755", "--dir", HOME, "--symlink", HOME, "/tmp"]
        arguments += ["--symlink", HOME, "/dev/shm", "--remount-ro", "/"]
        return [*arguments, "--"]

    def launch(self, job: Job, report: int, files: Sequence[tuple[int, str]]) -> Launch:
        """Say how to start a job."""
        limits = job.limits
        arguments = guard_arguments(job, report, files, HOME)
        arguments += ["sockets=1", f"scratch={HOME}:{limits.disk_mib << 20}:{limits.files}"]
        if os.geteuid() == 0:
            user = stranger()
            arguments += [f"uid={user}", f"gid={user}"]
        argv = [*self._head, "/guard", *arguments, "--", *job.command]
        return Launch(argv, self._environment, arguments=tuple(arguments))
