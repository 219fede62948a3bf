"""The fork server: what its forks can see of each other, and what its end does."""

import os
import signal
from pathlib import Path

import pytest
from tests.faults.hostile import processes

from stillroom.errors import SetupError
from stillroom.sandbox import Job, Limits, fork_server
from stillroom.sandbox.bubblewrap import Bubblewrap
from stillroom.sandbox.landlock import Landlock
from stillroom.sandbox.probe import probe
from stillroom.sandbox.processes import Processes
from stillroom.verifiers import Task
from stillroom.verifiers.code import CodeVerifier
from stillroom.verifiers.code_tests import Tests

BACKENDS = {
    "bubblewrap": Bubblewrap,
    "landlock with namespaces": lambda: Landlock(namespaces=True),
    "landlock alone": lambda: Landlock(namespaces=False),
}
SEARCH = """
import gc, os, sys
token = sys.stdin.read()
def reachable(found):
    seen, waiting = set(), list(found)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or one is token or one is seen or one is waiting:
            continue
        seen.add(id(one))
        if isinstance(one, (str, bytes, bytearray)):
            if (token if isinstance(one, str) else token.encode()) in one:
                print("FOUND", one[:80])
        else:
            waiting += gc.get_referents(one)
frame, frames = sys._getframe(), []
while frame:
    frames.append(dict(frame.f_globals)); frame = frame.f_back
gc.unfreeze()
reachable([o for o in gc.get_objects() if o is not frames] + frames)
print(sorted(os.listdir(".")), "TRACE" in os.environ, hasattr(sys, "trace"), "done")
"""


@pytest.fixture(params=BACKENDS)
def sandbox(request):
    try:
        opened = Processes(BACKENDS[request.param](), workers=2)
    except SetupError as error:
        pytest.skip(f"{request.param}: {error}")
    with opened:
        if problem := probe(opened).problem:
            pytest.skip(f"{request.param} does not work here: {problem}")
        if opened.forks is None:
            pytest.skip(f"{request.param} has no fork server for this user")
        yield opened


def python(sandbox, program, stdin=b"", *more):
    return Job((sandbox.python, "-I", "-S", "-c", program, *more), stdin=stdin)


def servers(sandbox):
    return set(processes(sandbox.forks.mark))


def test_forks_find_nothing_of_each_other(sandbox):
    token = os.urandom(8).hex()
    leave = f"""
import os, sys
open("left", "w").write("{token}")
os.environ["TRACE"] = sys.trace = "{token}"
"""
    sandbox.run([python(sandbox, leave, token.encode(), token)])
    alive = servers(sandbox)
    (found,) = sandbox.run([python(sandbox, SEARCH, token.encode())])
    assert found.stdout == b"[] False False done\n", found
    assert servers(sandbox) == alive  # the server that ran the one has run the other
    assert alive


def test_server_has_a_bare_environment_and_no_descriptors_of_its_starter(sandbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a secret of this test")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        sandbox.close()
        sandbox.run([python(sandbox, "")])
        found = servers(sandbox)
        assert found
        for pid in found:
            about = Path(f"/proc/{pid}")
            assert b"a secret of this test" not in (about / "environ").read_bytes()
            held = [fd.readlink() for fd in (about / "fd").iterdir()]
            assert Path(f"/proc/self/fd/{write}").readlink() not in held
    finally:
        os.close(read)
        os.close(write)


def test_killed_server_fails_what_runs_and_the_next_program_starts_another(sandbox):
    sandbox.run([python(sandbox, "")])
    before = servers(sandbox)
    assert before

    class Killing:
        """A launcher that kills the server after the first job has started."""

        def __getattr__(self, name):
            return getattr(sandbox._launcher, name)

        def launch(self, *arguments):
            if self.jobs == 1:
                for pid in before:
                    os.kill(pid, signal.SIGKILL)
            self.jobs += 1
            return sandbox._launcher.launch(*arguments)

        jobs = 0

    killing = Processes(Killing(), workers=2)
    long, short = killing.run(
        [python(sandbox, "import time; time.sleep(20)"), python(sandbox, "print(1)")]
    )
    assert (long.failure, long.status) != (None, 0)
    assert long.wall_s < 15
    assert short.stdout == b"1\n"
    assert servers(sandbox)
    assert not servers(sandbox) & before


def test_verdicts_survive_the_end_of_the_server(sandbox):
    tests = Tests(kind="asserts", entries=("assert f(2) == 4", "assert f(3) == 9")).text()
    with CodeVerifier(sandbox, python_version="3") as code:
        tasks = [
            Task(f"```python\ndef f(n):\n    return n * n  # {i}\n```", None, tests=tests)
            for i in range(20)
        ]
        for pid in servers(sandbox):
            os.kill(pid, signal.SIGKILL)
        assert {verdict.outcome for verdict in code.verify(tasks)} == {"correct"}


def test_server_that_does_not_start_is_done_without(sandbox):
    sandbox.forks.close()
    sandbox.forks._command = ["/bin/false"]
    (found,) = sandbox.run([python(sandbox, "print(1)")])
    assert found.stdout == b"1\n"
    assert not servers(sandbox)


def test_server_ends_with_its_sandbox(sandbox):
    sandbox.run([python(sandbox, "")])
    assert servers(sandbox)
    sandbox.close()
    assert not servers(sandbox)


def test_limits_hold_in_forks(sandbox):
    limits = Limits(cpu_s=0.5, memory_mib=128, processes=8)
    hungry, busy, many = (
        Job((sandbox.python, "-I", "-S", "-c", program), limits=limits)
        for program in (
            "bytearray(1 << 28)",
            "while True: pass",
            "import os\nfor _ in range(50): os.fork() or os.read(0, 1)",
        )
    )
    results = sandbox.run([hungry, busy, many])
    assert b"MemoryError" in results[0].stderr
    assert results[1].hit == "cpu"
    assert results[2].status == 1
    assert b"BlockingIOError" in results[2].stderr


EARLY_ENDS = {
    "before it reads its request": ("    os.setsid()\n", "    os.setsid()\n    os._exit(3)\n"),
    "killed before it answers": (
        '    requests.send(b"read")\n', "    os.kill(os.getpid(), 9)\n",
    ),
    "without descriptors of processes": (
        "os.close(os.pidfd_open(server))", "raise OSError(38, 'Function not implemented')",
    ),
}  # fmt: skip


@pytest.mark.parametrize("when", EARLY_ENDS)
def test_fork_that_ends_early_is_noticed_and_its_program_runs_otherwise(
    sandbox, tmp_path, monkeypatch, when
):
    """No answer is waited for that cannot come: with the clock stopped this would not end."""
    text, other = EARLY_ENDS[when]
    loop = fork_server.LOOP.read_text()
    assert loop.count(text) == 1
    broken = tmp_path / "fork_loop.py"
    broken.write_text(loop.replace(text, other))
    monkeypatch.setattr(fork_server, "LOOP", broken)
    sandbox.forks.close()  # the one that was probed
    waited = []
    select_of = fork_server.select.select

    def watch(*arguments):
        ready = select_of(*arguments)
        waited.append(ready == ([], [], []))
        return ready

    monkeypatch.setattr(fork_server.select, "select", watch)
    found = sandbox.run([python(sandbox, "print('here')")] * 2)
    assert [one.stdout for one in found] == [b"here\n"] * 2
    assert not any(waited)
    assert servers(sandbox) == set()
