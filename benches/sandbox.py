"""Programs per second in each sandbox, beside plain subprocesses, which are the limit.

The same small programs run everywhere: `python -I -S` that computes for a moment and prints, once
each (start-up counts), and then with three asserts each through the code verifier; both started as
commands, and as forks of the fork server. CPU is that of all processes, the server's among them.
The ratio is to the plain subprocess without any sandbox, with as many at a time.

Run: python benches/sandbox.py [--programs 200] [--workers 4]
"""

import argparse
import os
import resource
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from stillroom.errors import SetupError
from stillroom.sandbox import Job
from stillroom.sandbox.bubblewrap import Bubblewrap
from stillroom.sandbox.interpreter import Interpreter
from stillroom.sandbox.landlock import Landlock
from stillroom.sandbox.probe import Probed, probe
from stillroom.sandbox.processes import Processes
from stillroom.verifiers.code import CodeVerifier
from stillroom.verifiers.code_tests import Tests
from stillroom.verifiers.verdict import Task

PROGRAM = "def f(n):\n    return sum(i * i for i in range(n))\n"
ASSERTS = ("assert f(3) == 5", "assert f(1) == 0", "assert f(100) == 328350")


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return seconds on the clock and of CPU, those of children among them."""

    def cpu() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    begin, cpu_begin = time.monotonic(), cpu()
    work()
    return time.monotonic() - begin, cpu() - cpu_begin


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--programs", type=int, default=200)
    options.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1))
    args = options.parse_args()
    n, workers = args.programs, args.workers
    python = str(Interpreter.of_this_process().path)
    source = PROGRAM + "print(f(100))"
    print(f"{n} programs, {workers} at a time, {os.cpu_count()} cores")
    print(f"{'':60} {'per second':>10} {'CPU ms each':>12} {'of plain':>9}")

    def plain() -> None:
        def one(_: int) -> None:
            done = subprocess.run([python, "-I", "-S", "-c", source], capture_output=True)
            assert done.stdout == b"328350\n"

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, range(n)))

    plain()
    plain_s, plain_cpu = timed(plain)
    show("plain subprocess, no sandbox", n, plain_s, plain_cpu, plain_s)
    for name, launcher in (
        ("bubblewrap", Bubblewrap),
        ("landlock with namespaces", lambda: Landlock(namespaces=True)),
        ("landlock alone", lambda: Landlock(namespaces=False)),
    ):
        for forks in (False, True):
            how = f"{name}, {'forks' if forks else 'commands'}"
            try:
                opened = Processes(launcher(), workers=workers, forks=forks)
            except SetupError as error:
                print(f"{name}: {error}")
                break
            if forks and opened.forks is None:
                print(f"{how}: not for this user")
                continue
            with opened as sandbox:
                found = probe(sandbox)
            if found.problem:
                print(f"{how}: {found.problem}")
                continue
            jobs = [Job((sandbox.python, "-I", "-S", "-c", source))] * n

            def run(sandbox: Processes = sandbox, jobs: list[Job] = jobs) -> None:
                with sandbox:  # its end too: the CPU of its processes is known then
                    assert {result.stdout for result in sandbox.run(jobs)} == {b"328350\n"}

            show(f"{how}, one program", n, *timed(run), plain_s)
            tests = Tests(kind="asserts", entries=ASSERTS).text()
            tasks = [Task(f"```python\n{PROGRAM}# {i}\n```", None, tests=tests) for i in range(n)]

            def verify(
                sandbox: Processes = sandbox, found: Probed = found, tasks: list[Task] = tasks
            ) -> None:
                with CodeVerifier(sandbox, python_version=found.python_version) as code:
                    assert {verdict.outcome for verdict in code.verify(tasks)} == {"correct"}

            show(f"{how}, verifier with three tests", n, *timed(verify), plain_s)


def show(name: str, n: int, wall_s: float, cpu_s: float, plain_s: float) -> None:
    """Print one line."""
    print(f"{name:60} {n / wall_s:10.1f} {1000 * cpu_s / n:12.1f} {plain_s / wall_s:8.2f}x")


if __name__ == "__main__":
    main()
