"""Worker processes that can be killed without losing more than the item in hand.

What is covered: an item that computes for ever, takes all memory, or brings its process down is
the only one that fails; its worker is replaced. Workers also end by themselves when their parent
is gone. What is not covered: a worker may read files and use the network, so items must be data
and never programs.

Parent and worker talk in lines of JSON over pipes: nothing that a worker says is ever unpickled.
A worker is a fresh interpreter running a module, so that it works from threads, notebooks and
``python -c``, and the main module of the user is never imported again.
"""

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import stillroom
from stillroom.errors import VerifierError

# Python itself, and what a relocated one needs. Keys of the user stay outside: workers evaluate
# untrusted text.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use.

    Attributes:
        cpu_s: CPU seconds for one item. This limit decides, because unlike the clock it does not
            depend on what else the machine does.
        wall_s: Seconds on the clock for one item, for a worker that hangs without computing.
        memory_mib: Address space of a worker.
        items: Items after which a worker is replaced, because caches grow.
    """

    cpu_s: float = 5.0
    wall_s: float = 60.0
    memory_mib: int = 2048
    items: int = 2000


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that has no result.

    Attributes:
        reason: What ended it.
        detail: The same for a reader.
    """

    reason: Literal["timeout", "memory", "crashed"]
    detail: str


class _Worker:
    def __init__(self, module: str, limits: Limits):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        # The parent's search path, so that a worker finds what the parent would. -P keeps the
        # working directory out of it.
        root = str(Path(stillroom.__file__).parents[1])
        path = [root, *(entry for entry in sys.path if entry)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path)
        environment["PYTHONHASHSEED"] = "0"  # sympy orders some terms by hash
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(limits.cpu_s), str(limits.memory_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.received = bytearray()
        self.ready = False
        self.done = 0
        self.item: int | None = None
        self.deadline = time.monotonic() + _START_S

    def send(self, index: int, item: object, wall_s: float) -> None:
        self.item = index
        self.deadline = time.monotonic() + wall_s
        line = json.dumps([index, item], ensure_ascii=False) + "\n"
        # A worker that has died is noticed by the end of its output.
        with contextlib.suppress(BrokenPipeError):
            left = memoryview(line.encode("utf-8", "surrogatepass"))
            while left:
                left = left[os.write(self.stdin.fileno(), left) :]

    def read(self) -> list[Any] | None:
        """Return a message, None while there is none yet; EOFError when the worker has ended."""
        chunk = os.read(self.stdout.fileno(), 1 << 16)
        if not chunk:
            raise EOFError
        self.received += chunk
        line, newline, _ = self.received.partition(b"\n")
        if not newline:
            return None
        self.received.clear()
        message: list[Any] = json.loads(line)
        return message

    def end(self, *, dying: bool = False) -> int:
        """Kill the worker, free all that it held, and return its status."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Its output closes a moment before its own status is there to be read.
            self.process.wait(10.0 if dying else 0.0)
        self.process.kill()
        status = self.process.wait()
        self.stdin.close()
        self.stdout.close()
        self.errors.close()
        return status

    def last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Pool:
    """Run items in worker processes; workers start when there is work.

    Used from one thread at a time. A worker module calls `serve`.
    """

    def __init__(self, module: str, *, workers: int = 1, limits: Limits | None = None):
        if workers < 1:
            raise ValueError(f"workers is {workers}; expected at least 1")
        self._module = module
        self._size = workers
        self.limits = limits or Limits()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; the pool can be used again."""
        for worker in list(self._workers):
            self._end(worker)

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers]

    def map(self, items: Sequence[object]) -> list[Any]:
        """Return the result of each item, or its `Failure`, in the order of the items.

        Args:
            items: Anything that JSON can hold, in less than 60 KB: as much as a pipe takes in
                without a reader, so that a stopped worker cannot stop the parent.

        Raises:
            VerifierError: If a worker cannot start.
        """
        for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
            self._end(worker)  # it died between two calls, when it had no item
        results: list[Any] = [None] * len(items)
        waiting = deque(enumerate(items))
        try:
            while waiting or any(worker.item is not None for worker in self._workers):
                idle = [worker for worker in self._workers if worker.ready and worker.item is None]
                starting = [worker for worker in self._workers if not worker.ready]
                room = self._size - len(self._workers)
                for _ in range(min(room, len(waiting) - len(idle) - len(starting))):
                    self._start()
                for worker, (index, item) in zip(idle, _take(waiting, len(idle)), strict=False):
                    worker.send(index, item, self.limits.wall_s)
                self._wait(results)
        except BaseException:
            # Ctrl-C among others: replies that are under way would be taken for later items.
            self.close()
            raise
        return results

    def _wait(self, results: list[Any]) -> None:
        """Take what workers say, then end those that are past their deadline."""
        due = [w.deadline for w in self._workers if w.item is not None or not w.ready]
        if not due:
            return
        for key, _ in self._selector.select(max(0.0, min(due) - time.monotonic())):
            self._take_reply(key.data, results)
        for worker in list(self._workers):
            if time.monotonic() < worker.deadline:
                continue
            if not worker.ready:
                raise self._cannot_start(worker, f"not ready after {_START_S:g} s")
            if worker.item is not None:
                detail = f"more than {self.limits.wall_s:g} s on the clock"
                results[worker.item] = Failure("timeout", detail)
                self._end(worker)

    def _take_reply(self, worker: _Worker, results: list[Any]) -> None:
        try:
            message = worker.read()
        except EOFError:
            if not worker.ready:
                raise self._cannot_start(worker, "it ended at once") from None
            index, words = worker.item, worker.last_words()
            status = self._end(worker, dying=True)
            if index is not None:
                results[index] = self._failure(status, words)
            return
        if message is None:
            return
        if not worker.ready:
            worker.ready = True
            return
        index, value, problem = message
        worker.item = None
        worker.done += 1
        if problem is not None:
            results[index] = Failure("memory", f"more than {self.limits.memory_mib} MiB")
        else:
            results[index] = value
        if problem is not None or worker.done >= self.limits.items:
            self._end(worker)

    def _failure(self, status: int, words: str) -> Failure:
        if status == -signal.SIGPROF:
            return Failure("timeout", f"more than {self.limits.cpu_s:g} s of CPU time")
        if "MemoryError" in words:
            return Failure("memory", f"more than {self.limits.memory_mib} MiB")
        if status < 0:
            return Failure("crashed", f"the worker was ended by {signal.Signals(-status).name}")
        return Failure("crashed", f"the worker ended with status {status}: {words}")

    def _start(self) -> None:
        worker = _Worker(self._module, self.limits)
        self._workers.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def _end(self, worker: _Worker, *, dying: bool = False) -> int:
        self._workers.remove(worker)
        self._selector.unregister(worker.stdout)
        return worker.end(dying=dying)

    def _cannot_start(self, worker: _Worker, why: str) -> VerifierError:
        return VerifierError(
            f"{self._module}: the worker process cannot start, {why}; expected it to say that it "
            f"is ready. Its last words: {worker.last_words()}"
        )


def _take(waiting: deque[tuple[int, object]], count: int) -> Iterable[tuple[int, object]]:
    return [waiting.popleft() for _ in range(min(count, len(waiting)))]


def serve(work: Callable[[Any], object], cpu_s: float, memory_mib: int) -> None:
    """Answer items from standard input until it ends; the body of a worker.

    Args:
        work: Turns an item into a result; both must fit into JSON.
        cpu_s: CPU seconds for one item; beyond them the kernel ends this process by SIGPROF.
        memory_mib: Address space of this process.
    """
    # What libraries print must not get between the replies.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # the file of error messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The default action, by the kernel: Python-level handlers wait for C code to return.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    replies.write(b"[]\n")
    for line in sys.stdin.buffer:
        index, item = json.loads(line.decode("utf-8", "surrogatepass"))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            reply = json.dumps([index, work(item), None])
        except MemoryError:
            reply = json.dumps([index, None, "memory"])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(reply.encode() + b"\n")
