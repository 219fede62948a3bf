"""A program ends the same way as a fork of the warm Python and as a command of its own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.sandbox import Job, try_backend
from stillroom.sandbox.processes import Processes
from stillroom.verifiers import Task
from stillroom.verifiers.code import CodeVerifier
from stillroom.verifiers.code_tests import Tests

LINES = (
    "import sys, os",
    "print(sys.argv, __name__, sorted(globals()))",
    "print(sys.stdin.read())",
    "print('x' * 5000)",
    "sys.stderr.write('complaint')",
    "sys.stdout.write('without an end')",
    "import atexit; atexit.register(print, 'at the end')",
    "import __main__; print(__main__.__dict__ is globals(), __main__.__name__)",
    "print(os.getcwd() == os.environ['HOME'], sys.path, sys.flags)",
    "print(sorted(set(os.environ) - {'PWD'}))",  # which bubblewrap adds
    "def f(): return 1 / 0",
    "f()",
    "sys.exit(7)",
    "sys.exit('words')",
    "raise KeyboardInterrupt",
    "this is no Python",
    "os._exit(9)",
    "os.abort()",
    "os.kill(os.getpid(), 15)",
    "class D:\n    def __del__(self): print('deleted')",
    "d = D()",
    "os.close(1)",
    "import signal; print([signal.getsignal(n) for n in (2, 13, 15, 17)])",
    "import resource; print([resource.getrlimit(n) for n in range(10)])",
    "import threading; threading.Thread(target=print, args=('thread',)).start()",
)
PROGRAMS = {
    "passes": "def f(n):\n    return n * n",
    "fails": "def f(n):\n    return n",
    "raises": "def f(n):\n    raise ValueError(n)",
    "exits": "import sys\ndef f(n):\n    sys.exit(0)",
    "does not compile": "def f(n:\n",
    "is killed": "import os\ndef f(n):\n    os.kill(os.getpid(), 9)",
    "needs what is not there": "import numpy\ndef f(n):\n    return n * n",
    "remembers": "seen = []\ndef f(n):\n    seen.append(n)\n    return n * n // len(seen)",
}


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def both(request):
    opened, tried = try_backend(request.param, workers=2)
    if opened is None:
        pytest.skip(f"{tried.backend}: {tried.problem}")
    with opened, Processes(opened._launcher, workers=2, forks=False) as cold:
        yield opened, cold


@settings(max_examples=15)
@given(st.lists(st.sampled_from(LINES[1:]), max_size=6), st.binary(max_size=20))
def test_programs_end_the_same_way(both, lines, stdin):
    def end(sandbox):
        source = "\n".join([LINES[0], *lines])
        command = (sandbox.python, "-I", "-S", "-c", source, "word")
        (one,) = sandbox.run([Job(command, stdin=stdin)])
        home = b"stillroom-job-"  # its folder has another name each time
        stdout, stderr = one.stdout.partition(home)[0], one.stderr
        if stderr.endswith(b"KeyboardInterrupt\n"):
            stderr = stderr[-18:]  # its traceback names frames of the server
        return one.status, stdout, stderr, one.hit, one.failure

    warm, cold = map(end, both)
    assert warm == cold


@settings(max_examples=6)
@given(st.lists(st.sampled_from(sorted(PROGRAMS)), min_size=1, max_size=4),
       st.sampled_from(["asserts", "calls"]))  # fmt: skip
def test_verdicts_are_the_same(both, names, kind):
    entries = {
        "asserts": ["assert f(2) == 4", "assert f(3) == 9"],
        "calls": [{"args": [2], "expected": 4}, {"args": [3], "expected": 9}],
    }[kind]
    tests = Tests(kind=kind, entries=entries, function="f" * (kind == "calls")).text()
    tasks = [Task(f"```python\n{PROGRAMS[name]}\n```", None, tests=tests) for name in names]
    warm, cold = (
        [(v.outcome, v.detail) for v in CodeVerifier(one, python_version="3").verify(tasks)]
        for one in both
    )
    assert warm == cold
