"""No sandbox: programs run with the rights of whoever runs Stillroom. Only when told to."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stillroom.sandbox.fork_server import ForkServer
from stillroom.sandbox.guard import environment
from stillroom.sandbox.interpreter import Interpreter
from stillroom.sandbox.job import Job
from stillroom.sandbox.processes import Launch


class Unsandboxed:
    """Start jobs with a bare environment, in a folder of their own, and nothing else.

    The watch still stops what takes too long or too much, but nothing is kept from the network,
    from files, or from other processes, and a process that leaves its group stays behind.
    """

    name = "unsandboxed"
    isolates = False
    forks: ForkServer | None = None

    def __init__(self) -> None:
        self.python = str(Interpreter.of_this_process().path)

    def launch(self, job: Job, report: int, files: Sequence[tuple[int, str]]) -> Launch:
        """Say how to start a job."""
        folder = Path(tempfile.mkdtemp(prefix="stillroom-job-"))
        for fd, name in files:
            (folder / name).write_bytes(os.pread(fd, os.fstat(fd).st_size, 0))
        seen = environment(str(folder))
        return Launch(list(job.command), seen, scratch=folder, guarded=False)
