"""Attack a sandbox before it is trusted: a program inside tries what must not work.

The probe is real. It connects to a server that listens on this machine's loopback, reads a file
that every user of the machine may read, writes beside it, looks for a secret in its environment,
signals the process that started it, and forks until it is stopped. A sandbox in which one of these
works, or in which the probe itself does not run, is refused.
"""

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stillroom.sandbox.job import Job, Limits, Sandbox
from stillroom.sandbox.processes import printable

_PROCESSES = 12
_SECRET = "STILLROOM_PROBE_SECRET"
_PROGRAM = r"""
import json, os, sys
port, secret, folder, pid, most = json.loads(sys.stdin.read())
opened = {}
def attack(name):
    def run(function):
        try:
            said = function()
            if said:
                opened[name] = str(said)
        except Exception:
            pass
    return run
@attack("network")
def network():
    import socket
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return "reached a server of the host"
@attack("read")
def read():
    return open(folder + "/readable").read() and "read a file of the host"
@attack("write")
def write():
    open(folder + "/written", "w").write("x")
@attack("environment")
def environment():
    return any(secret in (k, v) for k, v in os.environ.items()) and "saw the host's"
@attack("signal")
def signal():
    os.kill(pid, 0)
    for path in ("/proc/%d/cmdline" % pid,):
        if b"python" in open(path, "rb").read():
            return "can signal a process of the host"
@attack("privileges")
def privileges():
    return os.geteuid() == 0 and "is root"
children = []
try:
    for _ in range(most):
        child = os.fork()
        if child == 0:
            os.read(0, 1)
            import time
            time.sleep(60)
            os._exit(0)
        children.append(child)
    opened["processes"] = "made %d processes" % len(children)
except OSError:
    pass
for child in children:
    os.kill(child, 9)
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "opened": opened}))
"""


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probe found.

    Attributes:
        problem: Why the sandbox cannot be trusted; None if every attack failed.
        python_version: Of the Python inside.
    """

    problem: str | None
    python_version: str = ""


def probe(sandbox: Sandbox) -> Probed:
    """Attack a sandbox from inside."""
    with _targets() as (port, folder):
        facts = [port, _SECRET, str(folder), os.getpid(), 4 * _PROCESSES]
        job = Job(
            (sandbox.python, "-I", "-S", "-c", _PROGRAM),
            stdin=json.dumps(facts).encode(),
            limits=Limits(cpu_s=20.0, wall_s=60.0, processes=_PROCESSES),
        )
        (result,) = sandbox.run([job])
        written = (folder / "written").exists()
    if result.failure:
        return Probed(result.failure)
    try:
        said = json.loads(result.stdout)
        version, opened = str(said["version"]), dict(said["opened"])
    except (ValueError, KeyError, TypeError):
        complaint = printable(result.stderr[-300:])
        return Probed(f"the probe did not run: {complaint or f'status {result.status}'}")
    if written:
        opened["write"] = "wrote to a folder of the host"
    found = "; ".join(f"{name}: {printable(str(what).encode())}" for name, what in opened.items())
    return Probed(found or None, printable(version.encode()))


@contextlib.contextmanager
def _targets() -> Iterator[tuple[int, Path]]:
    """Offer what a program inside must not reach."""
    before = os.environ.get(_SECRET)
    os.environ[_SECRET] = _SECRET
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            tempfile.TemporaryDirectory(prefix="stillroom-probe-") as name,
        ):
            folder = Path(name)
            folder.chmod(0o777)
            (folder / "readable").write_text("secret")
            (folder / "readable").chmod(0o644)
            yield server.getsockname()[1], folder
    finally:
        if before is None:
            del os.environ[_SECRET]
        else:
            os.environ[_SECRET] = before
