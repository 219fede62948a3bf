"""Bad input, killed workers, and odd parents: one item may fail, nothing else does."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import stillroom
from stillroom.errors import VerifierError
from stillroom.verifiers import Task
from stillroom.verifiers.math import MathVerifier
from stillroom.verifiers.pool import Failure, Limits, Pool

ROOT = Path(stillroom.__file__).parents[1]
# Pairs that only math-verify can decide.
GOOD = [Task(rf"\boxed{{\sinh{{{n}}} + 1}}", rf"1 + \sinh{{{n}}}") for n in range(2, 12)]
BAD = {
    "tower": (r"\boxed{10^{10^{10}}}", r"10^{10^{11}}"),
    "python tower": (r"\boxed{2**30**5}", r"\sqrt{2}"),
    "caret tower": (r"\boxed{10^10^10}", r"\sqrt{2}"),
    "factorials": (r"\boxed{((9!)!)!}", r"\sqrt{2}"),
    "huge power": (r"\boxed{(x+y+z)^{99999}}", r"(x+y)^{99999}"),
    "digits": (r"\boxed{" + "9" * 3900 + r"^{9999999}}", r"\sqrt{2}"),
    "braces": (r"\boxed{" + "{" * 1900 + "x" + "}" * 1900 + "}", r"\sqrt{2}"),
    "fractions": (r"\boxed{" + r"\frac{1}{" * 300 + "x" + "}" * 300 + "}", r"\sqrt{2}"),
    "brackets": (r"\boxed{" + "(" * 1900 + "x" + ")" * 1900 + "}", r"\sqrt{2}"),
    "division by zero": (r"\boxed{\frac{1}{0}}", r"\sqrt{2}"),
    "one megabyte": (r"\boxed{" + "x+" * 500_000 + "1}", r"\sqrt{2}"),
    "megabyte without a box": ("the answer is " + "(" * 1_000_000, r"\sqrt{2}"),
    "long reference": (r"\boxed{x}", "x+" * 500_000),
    "sum": (r"\boxed{\sum_{n=1}^{10^{9}} \sin(n)}", r"\sqrt{2}"),
    "integral": (r"\boxed{\int_0^1 x^{x^{x^x}} dx}", r"\sqrt{2}"),
    "nul": ("\\boxed{\x00}", r"\sqrt{2}"),
    "surrogate": ("\\boxed{\ud800 + x}", r"\sqrt{2}"),
    "python": (r"\boxed{__import__('os').abort()}", r"\sqrt{2}"),
}


@pytest.fixture
def maths():
    with MathVerifier(workers=2, limits=Limits(cpu_s=2.0, wall_s=20.0)) as opened:
        yield opened


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    "reference",
    [
        "-2*x*asin(x) - 5*sqrt(1 - x**2) + C",
        r"x \equiv 3 \pmod 5",
        "1, 2, ..., 5",
        "$n$ if $5$",
        "12가지 5",
    ],
)
def test_math_text_that_is_read_in_part_is_undecided(maths, reference):
    [verdict] = maths.verify([Task(r"\boxed{5}", reference)])
    assert (verdict.outcome, verdict.detail) == (
        "unparsed", "the reference cannot be read as mathematics",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("$x>1$ or $x<0$", r"x > 1 \text{ or } x < 0"), ("$k \\ne 1$, $k > 0$", "k > 0, k \\neq 1")],
)
def test_math_lists_of_formulas_are_read_whole(maths, answer, reference):
    [verdict] = maths.verify([Task(rf"\boxed{{{answer}}}", reference)])
    assert verdict.outcome == "correct"


@pytest.mark.slow
def test_math_pathological_items_neither_hang_nor_crash_nor_touch_others(maths):
    tasks = [task for bad in BAD.values() for task in (Task(*bad), GOOD[0], GOOD[1])]
    begin = time.monotonic()
    verdicts = maths.verify(tasks)
    assert time.monotonic() - begin < 20 * len(BAD)
    for name, verdict in zip(BAD, verdicts[::3], strict=True):
        assert verdict.outcome in {"incorrect", "unparsed", "error"}, name
        if verdict.outcome == "error":
            assert verdict.detail.partition(":")[0] in {"timeout", "memory", "crashed"}, name
    assert {verdict.outcome for verdict in verdicts[1::3] + verdicts[2::3]} == {"correct"}
    pids = maths.pool.pids()
    maths.pool.close()
    assert all(map(gone, pids))


def test_math_worker_killed_at_work_loses_only_its_item():
    with MathVerifier(workers=2, limits=Limits(cpu_s=60.0, wall_s=60.0)) as maths:
        maths.verify(GOOD)  # both workers are ready
        before = maths.pool.pids()

        def kill():
            # The worker with the tower is the one that goes on computing.
            while True:
                begin = [cpu_ticks(pid) for pid in before]
                time.sleep(0.5)
                used = [cpu_ticks(pid) - b for pid, b in zip(before, begin, strict=True)]
                if min(used) == 0 and max(used) > 5:
                    os.kill(before[used.index(max(used))], signal.SIGKILL)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        verdicts = maths.verify([Task(*BAD["tower"]), *GOOD])
        killer.join()
    assert verdicts[0].outcome == "error"
    assert verdicts[0].detail == "crashed: the worker was ended by SIGKILL"
    assert {verdict.outcome for verdict in verdicts[1:]} == {"correct"}


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_math_idle_worker_killed_between_calls_loses_nothing(maths):
    maths.verify(GOOD)
    for pid in maths.pool.pids():
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert {verdict.outcome for verdict in maths.verify(GOOD)} == {"correct"}


@pytest.mark.slow
def test_math_stopped_worker_is_replaced_after_the_wall_limit():
    with MathVerifier(limits=Limits(wall_s=6.0)) as maths:
        maths.verify(GOOD[:1])
        [pid] = maths.pool.pids()
        os.kill(pid, signal.SIGSTOP)
        first, second = maths.verify(GOOD[1:3])
    assert (first.outcome, first.detail) == ("error", "timeout: more than 6 s on the clock")
    assert second.outcome == "correct"
    assert gone(pid)


def test_math_verdicts_do_not_depend_on_workers_order_or_batches():
    tasks = [*GOOD, Task(r"\boxed{\sqrt{2}}", "x"), Task(r"\boxed{x^2-1}", "(x-1)(x+1)"), *GOOD]
    with MathVerifier(workers=1) as maths:
        alone = [verdict for task in tasks for verdict in maths.verify([task])]
    with MathVerifier(workers=3) as maths:
        assert maths.verify(tasks) == alone
        assert maths.verify(tasks[::-1]) == alone[::-1]


def test_pool_worker_is_replaced_after_its_items():
    with MathVerifier(limits=Limits(items=3)) as maths:
        seen = set()
        for task in GOOD[:7]:
            maths.verify([task])
            seen.update(maths.pool.pids())
        assert len(seen) == 3  # the third worker has one item to go
        assert sum(map(gone, seen)) == 2


def test_pool_leaves_no_processes_and_no_files(maths):
    files = len(list(Path("/proc/self/fd").iterdir()))
    maths.verify(GOOD)
    pids = maths.pool.pids()
    assert len(pids) == 2
    maths.pool.close()
    assert all(map(gone, pids))
    assert len(list(Path("/proc/self/fd").iterdir())) == files


def test_pool_memory_limit_fails_the_item_with_memory():
    # Less than the worker needs to work at all, more than it needs to start.
    with Pool("tests.faults.hungry_worker", limits=Limits(memory_mib=512)) as pool:
        first, second, third = pool.map([1, 4096, 2])
    assert (first, third) == (1, 2)
    assert second == Failure("memory", "more than 512 MiB")


def test_pool_worker_that_cannot_start_says_its_last_words():
    with (
        Pool("stillroom.no_such_module") as pool,
        pytest.raises(VerifierError, match="No module named stillroom"),
    ):
        pool.map([1])


def test_pool_interrupt_ends_the_workers():
    script = """
        import os, signal, threading
        from stillroom.verifiers import Task
        from stillroom.verifiers.math import MathVerifier
        with MathVerifier() as maths:
            maths.verify([Task(r"\\boxed{\\sinh{2}+1}", r"1+\\sinh{2}")])
            pids = maths.pool.pids()
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                maths.verify([Task(r"\\boxed{10^{10^{10}}}", r"10^{10^{11}}")])
            except KeyboardInterrupt:
                print("interrupted", maths.pool.pids(), *pids)
                maths.verify([Task(r"\\boxed{\\sinh{2}+1}", r"1+\\sinh{2}")])
    """
    said = python(script)
    assert said.startswith("interrupted []")
    assert gone(int(said.split()[-1]))


def test_pool_worker_ends_when_its_parent_is_killed():
    script = """
        import os, signal
        from stillroom.verifiers import Task
        from stillroom.verifiers.math import MathVerifier
        maths = MathVerifier()
        maths.verify([Task(r"\\boxed{\\sinh{2}+1}", r"1+\\sinh{2}")])
        print(*maths.pool.pids(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    pid = int(python(script, status=-signal.SIGKILL))
    deadline = time.monotonic() + 10
    while not gone(pid) and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


ONE = r"""
    from stillroom.verifiers import Task, verifier
    with verifier("math", workers=2) as maths:
        print(maths.verify([Task(r"\boxed{\sinh{2}+1}", r"1+\sinh{2}")])[0].outcome)
"""


def python(script, *, status=0, before=""):
    command = [sys.executable, "-c", before + textwrap.dedent(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout.strip()


def test_math_works_from_python_c():
    assert python(ONE) == "correct"


@pytest.mark.parametrize("closed", ["0", "0, 2"])
def test_math_works_when_standard_streams_are_closed(closed):
    before = f"import os\nfor fd in ({closed},):\n    os.close(fd)\n"
    assert python(ONE, before=before) == "correct"


def test_math_works_from_a_thread():
    found = []

    def work():
        with MathVerifier() as maths:
            found.extend(maths.verify(GOOD[:2]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [verdict.outcome for verdict in found] == ["correct", "correct"]


def test_math_modules_in_the_working_directory_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise RuntimeError('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    with MathVerifier() as maths:
        assert maths.verify(GOOD[:1])[0].outcome == "correct"


def test_pool_worker_sees_no_keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with MathVerifier() as maths:
        maths.verify(GOOD[:1])
        [pid] = maths.pool.pids()
        assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
