"""Servers of other programs, vLLM and SGLang: started, watched, restarted and stopped as one.

Covered: ports that are free, a wait until all are healthy, a server that crashes or hangs (it is
started again on its port, within limits), Ctrl-C and SIGTERM (all servers and what they started
are ended), a supervisor that is killed (Linux then ends its servers). Not covered: several
machines; start one supervisor on each.
"""

import ctypes
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stillroom.errors import ModelError, SetupError

Program = Literal["vllm", "sglang"]

_LOOK_S = 0.2
_HEALTH_TIMEOUT_S = 5.0
_LAST_WORDS = 5  # lines of a log in a message
_LONGEST_WORDS = 1000  # characters of them
_STOP_STARTING_S = 5.0  # vLLM does not end by itself while it starts, and nobody is served yet
_MISUSE = 2  # the status of a program that does not understand its arguments
# What stands before a line: (Worker pid=12) ERROR 11-21 13:31:34 [core.py:1512]
_MARK = re.compile(
    r"^(?:\([\w-]+ pid=\d+\) )?(?:[A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] ?|\[[\d: -]+[^\]]*\] )?"
)
_EXCEPTION = re.compile(r"(?:[a-z_]\w*\.)*(?:[A-Z]\w*)?(?:Error|Exception): .")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Launch:
    """What to start.

    Attributes:
        program: ``vllm`` or ``sglang``.
        model: Hub name or folder, handed on as it is.
        executable: Command that stands for the program; its usual one when empty.
        servers: How many, each a full copy of the model.
        gpus_each: GPUs of one server, which split the model between them.
        context: Tokens of prompt and completion together; the model's own limit when None.
        memory_share: Share of a GPU's memory that a server takes.
        reasoning_parser: The program's name of the parser that splits thinking off.
        host: Address to listen on.
        more: Further arguments, handed on as they are.
    """

    program: Program
    model: str
    executable: tuple[str, ...] = ()
    servers: int = 1
    gpus_each: int = 1
    context: int | None = None
    memory_share: float = 0.9
    reasoning_parser: str | None = None
    host: str = "127.0.0.1"
    more: tuple[str, ...] = ()

    def command(self, port: int) -> list[str]:
        """Return the command of one server."""
        if self.program == "vllm":
            start = [*(self.executable or ("vllm",)), "serve", self.model]
            flags = {
                "--served-model-name": self.model, "--host": self.host, "--port": port,
                "--tensor-parallel-size": self.gpus_each, "--max-model-len": self.context,
                "--gpu-memory-utilization": self.memory_share,
                "--reasoning-parser": self.reasoning_parser,
            }  # fmt: skip
        else:
            usual = (sys.executable, "-m", "sglang.launch_server")
            start = [*(self.executable or usual), "--model-path", self.model]
            flags = {
                "--served-model-name": self.model, "--host": self.host, "--port": port,
                "--tp": self.gpus_each, "--context-length": self.context,
                "--mem-fraction-static": self.memory_share,
                "--reasoning-parser": self.reasoning_parser,
            }  # fmt: skip
        given = [(key, str(value)) for key, value in flags.items() if value is not None]
        return [*start, *(part for pair in given for part in pair), *self.more]

    def environment(self, number: int) -> dict[str, str]:
        """Return what one server sees of the environment: its own GPUs, where there are several."""
        if self.servers == 1:
            return dict(os.environ)
        there = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        first = number * self.gpus_each
        gpus = there.split(",") if there else [str(i) for i in range(first + self.gpus_each)]
        own = ",".join(gpus[first : first + self.gpus_each])
        return {**os.environ, "CUDA_VISIBLE_DEVICES": own}

    def check(self) -> None:
        """Look whether the program is there.

        Raises:
            SetupError: If it is not, or the GPUs that are named do not suffice.
        """
        command = self.command(0)[0]
        if shutil.which(command) is None:
            raise SetupError(
                f"{command}: no such program; expected {self.program}. Install it, best in an "
                "environment of its own, and name its command with --executable."
            )
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        wanted = self.servers * self.gpus_each
        if named and len(named.split(",")) < wanted:
            raise SetupError(
                f"CUDA_VISIBLE_DEVICES is {named}; expected {wanted} GPUs for {self.servers} "
                f"servers of {self.gpus_each}. Name more, or start fewer servers."
            )


@dataclass(frozen=True)
class Patience:
    """How long servers are waited for, and how often they are started.

    Attributes:
        start_s: Seconds that a server may take to become healthy; large models load for minutes.
        hang_s: Seconds without a healthy answer after which a server is started again.
        restarts: Times that a server may be started again within `window_s`; one that has never
            been healthy gets one more start at most, and none if its arguments are wrong.
        window_s: Seconds.
        stop_s: Seconds that a server gets to end by itself; 5 at most while it starts.
    """

    start_s: float = 1800.0
    hang_s: float = 120.0
    restarts: int = 3
    window_s: float = 1800.0
    stop_s: float = 20.0


@dataclass
class _Server:
    number: int
    port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    healthy_at: float | None = None
    proven: bool = False  # it has been healthy
    started_at: float = 0.0
    said_from: int = 0  # where the log of this start begins
    restarts: list[float] = field(default_factory=list)


class Supervisor:
    """Some servers of one model.

    Args:
        launch: What to start.
        logs: Folder of what the servers say.
        patience: How long to wait.
        say: Told what happens, a line each.
    """

    def __init__(
        self,
        launch: Launch,
        logs: Path,
        *,
        patience: Patience | None = None,
        say: Callable[[str], None] = lambda line: None,
    ):
        self._launch = launch
        self._patience = patience or Patience()
        self._say = say
        self._logs = logs
        self._over = threading.Event()
        self._servers = [
            _Server(number, port, logs / f"{launch.program}-{port}.log")
            for number, port in enumerate(free_ports(launch.host, launch.servers))
        ]

    @property
    def urls(self) -> list[str]:
        """Addresses of the servers, up to and with ``/v1``."""
        return [f"http://{self._launch.host}:{server.port}/v1" for server in self._servers]

    def commands(self) -> list[str]:
        """Return the command of each server, as one would type it."""
        return [shlex.join(self._launch.command(server.port)) for server in self._servers]

    def run(self, ready: Callable[[], None]) -> None:
        """Start the servers and look after them until interrupted, or until `healthy` is left.

        Args:
            ready: Called once, when all are healthy.

        Raises:
            ModelError: If a server does not start, or ends too often; all others are ended too.
        """
        self._launch.check()
        self._logs.mkdir(parents=True, exist_ok=True)
        told = False
        try:
            for server in self._servers:
                self._start(server)
            while not self._over.wait(_LOOK_S):
                for server in self._servers:
                    self._look(server)
                if not told and all(server.healthy_at for server in self._servers):
                    told = True
                    ready()
        finally:
            self.stop()

    @contextmanager
    def healthy(self) -> Iterator[list[str]]:
        """Look after the servers in a thread while a block runs, and end them after it.

        Yields:
            Their addresses, once all are healthy.

        Raises:
            SetupError: If the program is missing.
            ModelError: If a server does not start, or was given up while the block ran.
        """
        turn = threading.Event()
        failures: list[BaseException] = []

        def look() -> None:
            try:
                self.run(turn.set)
            except BaseException as error:
                failures.append(error)
            finally:
                turn.set()

        # Linux ends servers with the thread that started them, so they cannot outlive it.
        thread = threading.Thread(target=look, name="servers", daemon=True)
        thread.start()
        try:
            turn.wait()
            if not failures:
                yield self.urls
        finally:
            self._over.set()
            thread.join()
            if failures:
                raise failures[0]

    def stop(self) -> None:
        """End all servers and whatever they started."""
        running = [(server, server.process) for server in self._servers if server.process]
        for _, process in running:
            _signal(process, signal.SIGTERM)
        now = time.monotonic()
        for server, process in running:
            most = self._patience.stop_s
            deadline = now + (most if server.healthy_at else min(most, _STOP_STARTING_S))
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)  # its workers may outlive it
            process.wait()
        for server in self._servers:
            server.process = None

    def _start(self, server: _Server) -> None:
        with server.log.open("ab") as log:
            server.said_from = log.tell()
            server.process = subprocess.Popen(
                self._launch.command(server.port),
                env=self._launch.environment(server.number),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that its workers end with it
                preexec_fn=end_with_parent,
            )
        server.started_at, server.healthy_at = time.monotonic(), None
        self._say(f"server {server.number} starts on port {server.port}; log: {server.log}")

    def _look(self, server: _Server) -> None:
        assert server.process is not None
        now = time.monotonic()
        status = server.process.poll()
        if status is not None:
            self._restart(server, f"ended with status {status}", hopeless=status == _MISUSE)
        elif self._healthy(server.port):
            if server.healthy_at is None:
                self._say(f"server {server.number} is healthy")
            server.healthy_at, server.proven = time.monotonic(), True
        elif server.healthy_at is None:
            if now - server.started_at > self._patience.start_s:
                raise self._given_up(server, f"not healthy after {self._patience.start_s:g} s")
        elif now - server.healthy_at > self._patience.hang_s:
            self._restart(server, f"not healthy for {self._patience.hang_s:g} s")

    def _restart(self, server: _Server, why: str, *, hopeless: bool = False) -> None:
        now = time.monotonic()
        server.restarts = [t for t in server.restarts if now - t < self._patience.window_s]
        most = self._patience.restarts
        if not server.proven:
            most = 0 if hopeless else min(1, most)
        if (done := len(server.restarts)) >= most:
            raise self._given_up(server, f"{why}, after {done} restart{'s' * (done != 1)}")
        server.restarts.append(now)
        self._say(f"server {server.number} {why}; starting it again")
        assert server.process is not None
        _signal(server.process, signal.SIGKILL)
        server.process.wait()
        self._start(server)

    def _given_up(self, server: _Server, why: str) -> ModelError:
        with server.log.open("rb") as log:
            log.seek(server.said_from)
            text = log.read().decode("utf-8", "replace")
        return ModelError(
            f"{self._launch.program}: server {server.number} {why}; expected it to serve "
            f"{self._launch.model}. Its log, {server.log}, says: {cause_in(text)}"
        )

    def _healthy(self, port: int) -> bool:
        url = f"http://{self._launch.host}:{port}/health"
        try:
            with urllib.request.urlopen(url, timeout=_HEALTH_TIMEOUT_S) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError, ValueError):
            return False


def cause_in(text: str) -> str:
    """Return the lines of a log that tell why a server ended.

    The first exception counts: those after it are of processes that waited for the one that failed,
    and what a server says last is about cleaning up. Without any, the last lines.
    """
    lines = [_MARK.sub("", line).rstrip() for line in text.strip().splitlines()]
    told = lines[-_LAST_WORDS:]
    for number, line in enumerate(lines):
        if _EXCEPTION.match(line):
            # A message may go on in lines that are set in.
            told = [line]
            for more in lines[number + 1 : number + _LAST_WORDS]:
                if not more.startswith(" "):
                    break
                told.append(more)
            break
    words = " | ".join(line.strip() for line in told if line.strip())
    return words[:_LONGEST_WORDS] or "nothing"


def free_ports(host: str, count: int) -> list[int]:
    """Find ports that nobody listens on."""
    found: list[socket.socket] = []
    try:
        for _ in range(count):
            opened = socket.socket()
            found.append(opened)
            try:
                opened.bind((host, 0))
            except OSError as error:
                raise ModelError(
                    f"{host}: cannot be listened on ({error.strerror}); expected an address of "
                    "this machine. Correct --host."
                ) from error
        return [int(opened.getsockname()[1]) for opened in found]
    finally:
        for opened in found:
            opened.close()


def models_toml(model: str, urls: Sequence[str]) -> str:
    """Write the lines of models.toml that name these servers."""
    quoted = ", ".join(f'"{url}"' for url in urls)
    name = model.replace("\\", "\\\\").replace('"', '\\"')
    return f'[models."{name}"]\nengine = "openai"\nbase_url = [{quoted}]\n'


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent is gone, however it went."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
