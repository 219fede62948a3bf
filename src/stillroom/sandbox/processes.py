"""Run jobs as local processes, several at a time, each under the eye of one loop.

The loop reads output as it comes and keeps no more than the limit, feeds input, and looks every
few hundredths of a second at what the running trees of processes use. A job that goes beyond a
limit is stopped with everything that it started. Programs that end at once are never looked at.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from stillroom.sandbox.fork_server import Forked, ForkServer, takes
from stillroom.sandbox.job import Job, Limit, Result
from stillroom.sandbox.watch import folder_size, look, shared_once

_TICK_S = 0.025
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one job.

    Attributes:
        argv: The command of the host.
        environment: All of its environment.
        scratch: A folder of the host that the job can fill; watched, and removed afterwards.
        stop: A command of the host that ends what killing the process does not.
        guarded: Whether a guard reports how the program ended.
        arguments: Of the guard, for a fork that goes through it without a command.
    """

    argv: list[str]
    environment: dict[str, str]
    scratch: Path | None = None
    stop: tuple[str, ...] = ()
    guarded: bool = True
    arguments: tuple[str, ...] = ()


class Launcher(Protocol):
    """A way to start jobs.

    Attributes:
        name: The backend and its version.
        python: The Python inside.
        isolates: Whether it isolates.
        forks: A warm Python for what it can run; None if there is none.
    """

    name: str
    python: str
    isolates: bool
    forks: ForkServer | None

    def launch(self, job: Job, report: int, files: Sequence[tuple[int, str]]) -> Launch:
        """Say how to start a job.

        Args:
            job: The job.
            report: Descriptor on which a guard reports.
            files: Descriptors of the job's files, and their names.
        """
        ...


class _Command:
    """A command that was started."""

    def __init__(self, launch: Launch, ends: Sequence[int]):
        self._process = subprocess.Popen(
            launch.argv, stdin=ends[0], stdout=ends[1], stderr=ends[2], env=launch.environment,
            cwd=launch.scratch or "/", pass_fds=ends[3:], start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, float] | None:
        """Wait for its end; return its exit status and CPU seconds."""
        try:
            _, status, used = os.wait4(self.pid, 0)
        except ChildProcessError:
            return None
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, used.ru_utime + used.ru_stime


class _Running:
    """One job that has been started."""

    def __init__(self, index: int, job: Job, launcher: Launcher, forks: ForkServer | None):
        self.index, self.job = index, job
        self.stdin_left = memoryview(job.stdin)
        self.received = {"stdout": bytearray(), "stderr": bytearray(), "report": bytearray()}
        self.hit: Limit | None = None
        self.killed_at: float | None = None
        self.cpu_s = self.memory = 0.0
        self.process: _Command | Forked
        self.pipes: dict[str, int] = {}
        ends = []
        for name in ("stdin", "stdout", "stderr", "report"):
            pair = os.pipe()
            if name == "stdin":
                pair = pair[::-1]
            self.pipes[name] = pair[0]
            ends.append(pair[1])
            os.set_blocking(pair[0], False)
        try:
            for content in job.files.values():
                ends.append(_memory_file(content))
            self.process = self._start(launcher, forks, ends)
        except BaseException:
            for fd in self.pipes.values():
                os.close(fd)
            raise
        finally:
            for fd in ends:
                os.close(fd)

    def _start(
        self, launcher: Launcher, forks: ForkServer | None, ends: list[int]
    ) -> _Command | Forked:
        """Start the job as a fork if that can be, else as a command."""
        job = self.job
        if forks is not None and takes(job.command, launcher.python, len(job.files)):
            numbers = range(len(ends))
            self.launch = launcher.launch(job, 3, list(zip(numbers[4:], job.files, strict=True)))
            self.begin = time.monotonic()
            forked = forks.fork(self.launch.arguments, self.launch.environment, job.command, ends)
            if forked is not None:
                return forked
            if self.launch.scratch is not None:
                remove(self.launch.scratch)
        self.launch = launcher.launch(job, ends[3], list(zip(ends[4:], job.files, strict=True)))
        self.begin = time.monotonic()
        return _Command(self.launch, ends)

    def lines(self) -> list[list[str]]:
        return [line.split(" ", 1) for line in self.received["report"].decode().splitlines()]

    def read(self, name: str) -> bool:
        """Take what there is; return whether the pipe is still open."""
        try:
            chunk = os.read(self.pipes[name], 1 << 16)
        except BlockingIOError:
            return True
        limit = self.job.limits.output_kib << 10 if name != "report" else 1 << 16
        kept = self.received[name]
        if len(kept) + len(chunk) > limit:
            self.stop("output")
        kept += chunk[: limit - len(kept)]
        return bool(chunk)

    def feed(self) -> bool:
        """Write what fits; return whether there is more to write."""
        try:
            self.stdin_left = self.stdin_left[os.write(self.pipes["stdin"], self.stdin_left) :]
        except BlockingIOError:
            return True
        except OSError:  # it reads no more
            return False
        return bool(self.stdin_left)

    def look(self, now: float) -> None:
        """Stop the job if it is beyond a limit."""
        limits = self.job.limits
        if self.killed_at is not None:
            if now - self.killed_at > _GRACE_S:
                self._end_all()
            return
        if now - self.begin > limits.wall_s:
            self.stop("wall")
            return
        if now - self.begin < 2 * _TICK_S:
            return
        seen = look(self.process.pid)
        self.cpu_s = max(self.cpu_s, seen.cpu_s)
        memory = seen.memory
        if memory > limits.memory_mib << 20:
            once = shared_once(seen.pids)
            memory = memory if once is None else once
        self.memory = max(self.memory, memory / 2**20)
        if self.cpu_s > limits.cpu_s:
            self.stop("cpu")
        elif self.memory > limits.memory_mib:
            self.stop("memory")
        elif len(seen.pids) > limits.processes + 8:  # the sandbox's own are among them
            self.stop("processes")
        elif self.launch.scratch is not None:
            count, size = folder_size(self.launch.scratch, limits.files)
            if count > limits.files or size > limits.disk_mib << 20:
                self.stop("output")

    def stop(self, hit: Limit | None) -> None:
        """End the job: the guard and bubblewrap take everything with them."""
        if self.killed_at is None:
            self.hit = hit
            self.killed_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM if self.launch.guarded else signal.SIGKILL)
            self._stop_elsewhere()

    def _stop_elsewhere(self) -> None:
        if self.launch.stop:
            subprocess.run(self.launch.stop, capture_output=True, check=False, timeout=60)

    def _end_all(self) -> None:
        self.process.kill_group()
        if self.launch.guarded and self.launch.scratch is not None:
            # Without a PID namespace the number that the guard names is also ours.
            for line in self.lines():
                if line[0] == "pid":
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(int(line[1]), signal.SIGKILL)

    def finish(self) -> Result:
        """Wait for the process, and say how the job ended."""
        lines = {word: rest[0] if rest else "" for word, *rest in self.lines()}
        if "ended" not in lines:
            self._end_all()
        ended = self.process.wait()
        wall_s = time.monotonic() - self.begin
        for fd in self.pipes.values():
            os.close(fd)
        if self.launch.scratch is not None:
            remove(self.launch.scratch)
        failure, code = None, None
        if "failed" in lines:
            failure = f"the program could not be started: {lines['failed']}"
        elif "ended" in lines:
            status, cpu_us, rss_kib = map(int, lines["ended"].split())
            code = os.waitstatus_to_exitcode(status)
            self.cpu_s = cpu_us / 1e6
            self.memory = max(self.memory, rss_kib / 1024)
        elif not self.launch.guarded:
            if ended is not None:
                code = ended[0]
                self.cpu_s = max(self.cpu_s, ended[1])
        elif self.hit is None:
            said = printable(bytes(self.received["stderr"][-500:]))
            failure = f"the sandbox ended without a report: {said or 'it said nothing'}"
        if self.hit is not None:
            code = None
        elif self.cpu_s > self.job.limits.cpu_s:
            self.hit, code = "cpu", None
        return Result(
            code, bytes(self.received["stdout"]), bytes(self.received["stderr"]), self.cpu_s,
            wall_s, self.memory, self.hit, failure,
        )  # fmt: skip


class Processes:
    """A sandbox whose jobs are processes of this machine."""

    def __init__(self, launcher: Launcher, *, workers: int = 2, forks: bool = True):
        """Make a sandbox.

        Args:
            launcher: Starts jobs.
            workers: Jobs at one time; results do not depend on it.
            forks: Whether a warm Python is forked where there is one; results do not depend on it.
        """
        if workers < 1:
            raise ValueError(f"workers is {workers}; expected at least 1")
        self.name, self.python = launcher.name, launcher.python
        self.isolates = launcher.isolates
        self._launcher, self._workers = launcher, workers
        self.forks = launcher.forks if forks else None

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs, several at a time; results stand in the order of the jobs."""
        results: list[Result | None] = [None] * len(jobs)
        waiting = deque(enumerate(jobs))
        running: list[_Running] = []
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or running:
                    while waiting and len(running) < self._workers:
                        index, job = waiting.popleft()
                        try:
                            running.append(_Running(index, job, self._launcher, self.forks))
                        except OSError as error:
                            results[index] = Result(None, failure=f"cannot start: {error}")
                            continue
                        _watch(selector, running[-1])
                    for ended in _turn(selector, running):
                        running.remove(ended)
                        results[ended.index] = ended.finish()
            finally:
                for job_left in running:  # Ctrl-C among others
                    job_left.stop(None)
                    job_left._end_all()
                    job_left.finish()
        return [result for result in results if result is not None]

    def close(self) -> None:
        """End the fork server."""
        if self.forks is not None:
            self.forks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _watch(selector: selectors.BaseSelector, job: _Running) -> None:
    for name, fd in job.pipes.items():
        event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
        selector.register(fd, event, (job, name))
    if not job.stdin_left:
        _close_stdin(selector, job)


def _close_stdin(selector: selectors.BaseSelector, job: _Running) -> None:
    # Its number may belong to another job's pipe from here on.
    fd = job.pipes.pop("stdin")
    selector.unregister(fd)
    os.close(fd)


def _turn(selector: selectors.BaseSelector, running: Sequence[_Running]) -> list[_Running]:
    """Move what can be moved, look after those that take long, and return those that ended."""
    for key, _ in selector.select(_TICK_S):
        job, name = key.data
        if name == "stdin":
            if not job.feed():
                _close_stdin(selector, job)
        elif not job.read(name):
            selector.unregister(key.fd)
    now = time.monotonic()
    for job in running:
        job.look(now)
    registered = {key.fd for key in selector.get_map().values()}
    ended = []
    for job in running:
        outputs = {job.pipes[name] for name in ("stdout", "stderr", "report")}
        # Nothing of the job is left once nobody holds its pipes; what was killed may have left
        # a pipe with somebody outside.
        stuck = job.killed_at is not None and now - job.killed_at > 2 * _GRACE_S
        if stuck or not outputs & registered:
            for fd in job.pipes.values():
                if fd in registered:
                    with contextlib.suppress(KeyError, ValueError):
                        selector.unregister(fd)
            ended.append(job)
    return ended


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("file", os.MFD_CLOEXEC)
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def remove(folder: Path) -> None:
    """Remove a folder whatever it holds: trees too deep for recursion, folders without rights."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        return
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        if folder.exists():
            subprocess.run(
                [*command, "--", str(folder)], capture_output=True, check=False, timeout=600
            )


def printable(raw: bytes) -> str:
    """Return hostile bytes as one line of plain text: no escapes reach a terminal."""
    text = raw.decode("utf-8", "replace")
    kept: Callable[[str], str] = lambda c: c if c.isprintable() else " "  # noqa: E731
    return " ".join("".join(map(kept, text)).split())
