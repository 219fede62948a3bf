"""A warm Python for many programs: started once, forked for each.

A Python takes longer to start than most programs run. The fork server (`fork_loop.py`) has started
before the first program comes. For each it forks, and the fork goes through the guard as a command
would: namespaces of its own, limits, another user, Landlock, the list of system calls. Only then
does it see the program. In bubblewrap the server itself is inside; with Landlock it is outside.

Forks share nothing that can be written, and the server, which has a bare environment and never
reads a request, holds nothing to be found. What forks have in common is what it drew when it
started: the layout of its memory, and the seed of hashes.

A server that ends takes its programs with it: they fail, and are not wrong. The next program starts
another. Where it does not start, programs start as commands.
"""

import contextlib
import marshal
import os
import select
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

LOOP = Path(__file__).parent / "fork_loop.py"
MODULE = Path(__file__).parent / "_guard.abi3.so"
PYTHON = ("-I", "-S", "-c")
"""The options of programs that a fork of it can stand for."""
_ANSWER_S = 60.0
_END_S = 2.0
_LONGEST = 1 << 16  # bytes of a program; longer ones come on its standard input
_MOST_FILES = 200  # the kernel passes 253 descriptors at a time
_TRIES = 3  # starts in a row


def takes(command: Sequence[str], python: str, n_files: int) -> bool:
    """Tell whether a fork can stand for a command."""
    return (
        len(command) > len(PYTHON) + 1
        and tuple(command[: len(PYTHON) + 1]) == (python, *PYTHON)
        and sum(len(word) for word in command) < _LONGEST
        and n_files <= _MOST_FILES
    )


class Forked:
    """A process that is a fork of the server; known by a descriptor, as its number may be reused.

    Attributes:
        pid: Its number on the host; 0 if it ended at once.
    """

    def __init__(self, pidfd: int):
        self._pidfd = pidfd
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii")
        numbers = [int(line[4:]) for line in text.splitlines() if line.startswith("Pid:")]
        self.pid = max(0, *numbers)

    def send_signal(self, number: int) -> None:
        """Signal it.

        Raises:
            ProcessLookupError: If it has ended.
        """
        signal.pidfd_send_signal(self._pidfd, number)

    def kill_group(self) -> None:
        """End it, and what is in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self.send_signal(0)  # while it is there, the number is its own
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end, and forget it."""
        select.select([self._pidfd], [], [])
        os.close(self._pidfd)


class ForkServer:
    """Starts programs as forks of one process; starts that process when it is needed."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], arguments: Sequence[str] = (), *,
        module: str = str(MODULE),
    ):  # fmt: skip
        """Describe a server.

        Args:
            command: Starts the Python, on the host.
            environment: All that the server sees of the environment.
            arguments: Of the guard, for every program.
            module: Where the Python finds the guard.
        """
        self.mark = f"stillroom-forks-{os.urandom(8).hex()}"
        self._command, self._environment = command, environment
        self._arguments, self._module = arguments, module
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._failed = 0

    def fork(
        self, arguments: Sequence[str], environment: dict[str, str], command: Sequence[str],
        descriptors: Sequence[int],
    ) -> Forked | None:  # fmt: skip
        """Start a program; None if no server answers, even one that was started for it.

        Args:
            arguments: Of the guard; descriptors are numbered as they stand in `descriptors`.
            environment: All that the program sees of the environment.
            command: A command that `takes` accepts.
            descriptors: The program's 0, 1 and 2, and those that the guard reads and writes.
        """
        source, *rest = command[len(PYTHON) + 1 :]
        request = marshal.dumps(
            ([*self._arguments, *arguments], environment, ["-c", *rest], source), 2
        )
        with self._lock:
            while self._failed < _TRIES:
                try:
                    if self._server is None:
                        self._server = self._start()
                    forked = self._server.fork(request, descriptors)
                except OSError:
                    self._failed += 1
                    self._stop()
                    continue
                self._failed = 0
                return forked
        return None

    def close(self) -> None:
        """End the server, and what it runs."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None

    def _start(self) -> "_Server":
        arguments = [*self._command, *PYTHON, LOOP.read_text("utf-8"), self._module]
        return _Server(arguments, self._environment, self.mark)


class _Server:
    """A server that has started."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], mark: str):
        self._control, control_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests, requests_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends = (control_end.fileno(), requests_end.fileno())
        with control_end, requests_end:
            # Its 0, 1 and 2 are pipes, as those of programs are: a Python looks when it starts.
            process = subprocess.Popen(
                [*arguments, *map(str, ends), mark], pass_fds=ends, env=environment, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        self.end = weakref.finalize(self, _end, process, self._control, self._requests)
        for connection in (self._control, self._requests):
            connection.settimeout(_ANSWER_S)
        if self._requests.recv(16) != b"ready":
            raise ConnectionError("the fork server did not start")

    def fork(self, request: bytes, descriptors: Sequence[int]) -> Forked:
        socket.send_fds(self._requests, [request], list(descriptors))
        self._control.send(b"1")
        said, found, _, _ = socket.recv_fds(self._control, 16, 1)
        if said != b"forked" or len(found) != 1:
            raise ConnectionError("the fork server ended")
        (pidfd,) = found
        # A fork that ends before it has read its request leaves it for the next: that must not be.
        asked = self._requests.fileno()
        ready, _, _ = select.select([asked, pidfd], [], [], _ANSWER_S)
        if asked not in ready or self._requests.recv(16) != b"read":
            os.close(pidfd)
            raise ConnectionError("the fork ended before it had read its request")
        return Forked(pidfd)


def _end(process: "subprocess.Popen[bytes]", *connections: socket.socket) -> None:
    for connection in connections:
        connection.close()  # it ends when it reads that
    with process:  # which closes its pipes
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
