"""What a sandbox is given, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

Limit = Literal["cpu", "wall", "memory", "output", "processes"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use, all its processes together.

    Attributes:
        cpu_s: CPU seconds. This limit decides, because unlike the clock it does not depend on
            what else the machine does.
        wall_s: Seconds on the clock: for jobs that wait without computing.
        memory_mib: Memory; also the address space of each process, if `Job.address_space`.
        processes: Processes and threads at one time.
        output_kib: Of standard output, and as much of standard error.
        file_mib: The largest file.
        disk_mib: All files.
        files: Names of files and folders.
        open_files: Open descriptors of each process.
        stack_mib: Stack of each process.
    """

    cpu_s: float = 10.0
    wall_s: float = 60.0
    memory_mib: int = 512
    processes: int = 32
    output_kib: int = 256
    file_mib: int = 16
    disk_mib: int = 64
    files: int = 2000
    open_files: int = 128
    stack_mib: int = 64


@dataclass(frozen=True, slots=True)
class Job:
    """One program to run.

    Attributes:
        command: Program and arguments; a bare name is looked up in ``/usr/bin``.
        stdin: What it reads; then its input ends.
        files: Name to content, in the folder in which it starts. That folder is also its home,
            and the only place where it can write.
        limits: What it may use.
        address_space: Whether each process is held to the memory limit by its address space. Not
            for programs that reserve far more than they use, such as node.
    """

    command: tuple[str, ...]
    stdin: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    address_space: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended.

    Attributes:
        status: Exit status; minus the number of the signal that ended it; None if it was stopped
            from outside, at a limit, or never ran.
        stdout: What it printed, up to the limit.
        stderr: What it complained, up to the limit.
        cpu_s: CPU seconds of all its processes.
        wall_s: Seconds on the clock.
        memory_mib: The most memory that was seen.
        hit: The limit at which it was stopped.
        failure: Why the sandbox, and not the program, failed; None if it did not.
    """

    status: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mib: float = 0.0
    hit: Limit | None = None
    failure: str | None = None


class Sandbox(Protocol):
    """Somewhere to run programs that nobody trusts.

    Attributes:
        name: The backend and its version, such as ``bubblewrap 0.8.0``.
        python: The Python to name in commands.
        isolates: Whether programs are kept from the network, from files and from processes.
    """

    name: str
    python: str
    isolates: bool

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs, several at a time; results stand in the order of the jobs."""
        ...

    def close(self) -> None:
        """Free what the sandbox holds."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
