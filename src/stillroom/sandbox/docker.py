"""Docker, or podman by the same arguments: jobs in containers, when told to.

Closed: the network, the files of the host, its processes; limits by the kernel's control groups.
The image must be on the machine and hold Python 3.8 or newer, and ``sh``: nothing is pulled.
Starting a container takes a good part of a second, so this is for machines where nothing else
works, or where containers run in a virtual machine of their own.
"""

import base64
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from stillroom.errors import SetupError
from stillroom.sandbox.fork_server import ForkServer
from stillroom.sandbox.guard import environment
from stillroom.sandbox.job import Job
from stillroom.sandbox.processes import Launch

HOME = "/work"
IMAGE = "python:3.13-slim"


class Docker:
    """Start jobs by ``docker run``."""

    isolates = True
    forks: ForkServer | None = None

    def __init__(self, image: str = IMAGE, *, program: str = "docker"):
        """Ask the server for its version.

        Args:
            image: An image that is on the machine.
            program: ``docker`` or ``podman``.

        Raises:
            SetupError: If the program is missing, or its server or the image is not there.
        """
        found = shutil.which(program)
        if not found:
            raise SetupError(f"{program} is not installed")
        self._program, self._image = found, image
        version = self._ask("version", "--format", "{{.Server.Version}}")
        digest = self._ask("image", "inspect", "--format", "{{.Id}}", image)
        self.name = f"{program} {version} {image} {digest.removeprefix('sha256:')[:12]}"
        self.python = "python3"

    def _ask(self, *words: str) -> str:
        said = subprocess.run(
            [self._program, *words], capture_output=True, text=True, check=False, timeout=60
        )
        if said.returncode:
            raise SetupError(f"{' '.join(words[:2])}: {said.stderr.strip()[:300]}")
        return said.stdout.strip()

    def launch(self, job: Job, report: int, files: Sequence[tuple[int, str]]) -> Launch:
        """Say how to start a job."""
        name = f"stillroom-{os.getpid()}-{os.urandom(6).hex()}"
        argv = [self._program, *run_arguments(job, self._image, name)]
        seen = {
            key: os.environ[key] for key in ("PATH", "HOME", "DOCKER_HOST") if key in os.environ
        }
        return Launch(argv, seen, stop=(self._program, "kill", name), guarded=False)


def run_arguments(job: Job, image: str, name: str) -> list[str]:
    """Return the arguments of ``docker run`` for a job."""
    limits = job.limits
    memory = f"{limits.memory_mib + limits.disk_mib}m"  # files in memory count as memory
    arguments = (
        f"run --rm --interactive --name {name} --pull never --init --network none --read-only "
        "--cap-drop ALL --security-opt no-new-privileges --user 65534:65534 --ipc none "
        f"--tmpfs {HOME}:rw,exec,nosuid,nodev,mode=1777,"
        f"size={limits.disk_mib}m,nr_inodes={limits.files} --workdir {HOME} "
        f"--memory {memory} --memory-swap {memory} --pids-limit {limits.processes} "
        f"--ulimit cpu={int(limits.cpu_s) + 2} --ulimit fsize={limits.file_mib << 20} "
        f"--ulimit nofile={limits.open_files} --ulimit core=0 --log-driver none"
    ).split()
    for key, value in environment(HOME).items():
        arguments += ["--env", f"{key}={value}"]
    command = shlex.join(job.command)
    if job.files:
        writes = [
            f"echo {base64.b64encode(content).decode()} | base64 -d > {shlex.quote(file)}"
            for file, content in job.files.items()
        ]
        command = " && ".join([*writes, f"exec {command}"])
        return [*arguments, image, "sh", "-c", command]
    return [*arguments, image, *job.command]
