"""Verify programs by running their tests in a sandbox.

The program is the last fenced block of the right language in the visible answer; where a function
is asked for, the last one that defines something. All tests of one program run in one sandbox,
together at first, and each in a process of its own unless all pass. CPU time decides what is too
slow; the clock is only a net, and a program that it catches is tried once more and then undecided.

==============  ===========  ====================================================================
letter          verdict      meaning
==============  ===========  ====================================================================
P passed                     the test passed
F failed        incorrect    an assert failed, or the output or the value is another
R raised        incorrect    the program raised
X exited        incorrect    the program left before the test was over
T cpu           incorrect    more CPU time than the limit
M memory        incorrect    more memory than the limit
C crashed       incorrect    ended by a signal
B build         incorrect    the program does not compile
? missing       error        a module or tool is not in the sandbox
U unsupported   error        the test asks for what the driver does not offer
W wall          error        it waited longer than the clock allows, twice
K unchecked     error        the checker of outputs does not compile, or says nothing
H half          incorrect    the checker gives a part of what the test is worth; for groups, points
- not run       error        the limits of the whole were used up before
==============  ===========  ====================================================================

A program is correct if all tests passed, and incorrect if one test says so, whatever the others
say. The detail of a verdict is JSON: ``tests`` (a letter each), and ``first``, the first trouble in
words. What no test decided is ``error``, and its detail begins with the reason.

Where groups of tests earn points, a program is correct if it earns all, and incorrect if it does
not; the detail says the ``share`` that it earned, 0 to 1. Tests of a group that lost its points are
not run. If points hang on a test that is undecided, so is the verdict.

Outputs that a checker grades are checked in a sandbox of their own after the program has ended, so
that it meets neither the checker nor what was expected.

Not covered: a program that means to cheat. Asserts and test files run beside the program, in one
process; only expected outputs and values stay outside.
"""

import base64
import json
import marshal
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stillroom.errors import VerifierError
from stillroom.sandbox import Job, Limits, Result, Sandbox
from stillroom.sandbox.processes import printable
from stillroom.text.code import Code, Language, extract_code
from stillroom.verifiers.code_tests import CHECKER, Outputs, Tests, read_tests
from stillroom.verifiers.verdict import Task, Verdict

DRIVER = Path(__file__).parent / "code_driver.py"
_LETTERS = {
    "passed": "P", "failed": "F", "raised": "R", "exited": "X", "cpu": "T", "memory": "M",
    "crashed": "C", "build": "B", "missing": "?", "unsupported": "U", "wall": "W", "not_run": "-",
    "unchecked": "K", "half": "H",
}  # fmt: skip
_WRONG = frozenset("FRXTMCB")
_IDLE_S = 10.0  # on the clock, beyond ten times the CPU time, for a test that waits
_CHECK_S = 60.0  # CPU seconds of a checker for each output
_HUNDREDTHS = 2  # olympiads round what a group earns to so many digits
_WORDS = {"cpu": "more CPU time than the limit", "memory": "more memory than the limit",
          "wall": "waited longer than the clock allows", "not_run": "not run"}  # fmt: skip
_MARSHAL = "import sys,marshal;exec(marshal.loads(sys.stdin.buffer.read({size})))"
_COMPILE = (
    "import sys,marshal;s=sys.stdin.buffer.read();"
    "sys.stdout.buffer.write(marshal.dumps(compile(s,'driver.py','exec',dont_inherit=True)))"
)


@dataclass(frozen=True)
class Toolchain:
    """How programs of a language are run.

    Attributes:
        source: File name of the program.
        needs: Programs that must be there.
        build: Command that makes the program; empty if there is none.
        command: Command of one test.
    """

    source: str
    needs: tuple[str, ...]
    build: tuple[str, ...]
    command: tuple[str, ...]


TOOLCHAINS: dict[Language, Toolchain] = {
    "cpp": Toolchain(
        "main.cpp", ("g++",), ("g++", "-O2", "-std=c++17", "-w", "-o", "main", "main.cpp"),
        ("./main",),
    ),
    "javascript": Toolchain(
        "main.js", ("node",), (), ("node", "--stack-size=4000", "main.js"),
    ),
    "verilog": Toolchain(
        "main.sv", ("verilator",), ("verilator", "--lint-only", "-Wno-fatal", "main.sv"), ("true",),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Run:
    """A program to run, and its tests: what verdicts are shared by."""

    code: str
    tests_text: str


class CodeVerifier:
    """Run tests in a sandbox; verdicts do not depend on order, batches or the number of workers."""

    def __init__(self, sandbox: Sandbox, *, python_version: str):
        """Make a verifier.

        Args:
            sandbox: Where programs run; closed with the verifier.
            python_version: Of the Python in it.

        Raises:
            VerifierError: If the driver cannot start in the sandbox.
        """
        self.name = f"code/1 python {python_version} {sandbox.name}"
        self._sandbox = sandbox
        (compiled,) = sandbox.run(
            [Job((sandbox.python, "-I", "-S", "-c", _COMPILE), stdin=DRIVER.read_bytes())]
        )
        if compiled.status != 0 or not compiled.stdout:
            said = compiled.failure or printable(compiled.stderr[-300:])
            raise VerifierError(
                f"{sandbox.name}: the driver of tests does not start: {said}; expected a Python "
                "3.8 or newer inside. Run `stillroom doctor`."
            )
        self._driver = compiled.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sandbox.close()

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks."""
        read: dict[str, Tests | ValueError] = {}
        for task in tasks:
            if task.tests is not None and task.tests not in read:
                try:
                    read[task.tests] = read_tests(task.tests)
                except ValueError as error:
                    read[task.tests] = error
        prepared = [self._prepare(task, read) for task in tasks]
        runs = list(dict.fromkeys(run for _, run in prepared if isinstance(run, _Run)))
        tests = {run: read[run.tests_text] for run in runs}
        judged = dict.fromkeys(runs, ("error", ""))
        undecided = runs
        for _ in range(2):  # what the clock or the sandbox ended may only have had bad luck
            results = self._sandbox.run([self._job(run, _sound(tests[run])) for run in undecided])
            printed = {
                run: (known, _printed(result, len(known.entries)))
                for run, result in zip(undecided, results, strict=True)
                if (known := _sound(tests[run])).checker
            }
            checked = self._checked(printed)
            for run, result in zip(undecided, results, strict=True):
                judged[run] = _judge(result, _sound(tests[run]), checked.get(run, {}))
            undecided = [run for run in undecided if judged[run][0] == "again"]
            if not undecided:
                break
        verdicts = []
        for code, either in prepared:
            if isinstance(either, Verdict):
                verdicts.append(either)
                continue
            assert code is not None
            outcome, detail = judged[either]
            verdicts.append(
                Verdict(
                    "correct" if outcome == "correct"
                    else "incorrect" if outcome == "incorrect" else "error",
                    code.text, code.rule, detail, self.name,
                )
            )  # fmt: skip
        return verdicts

    def _prepare(
        self, task: Task, read: dict[str, Tests | ValueError]
    ) -> tuple[Code | None, _Run | Verdict]:
        if task.tests is None or not task.tests.strip():
            return None, Verdict("no_reference", None, None, None, self.name)
        tests = read[task.tests]
        if isinstance(tests, ValueError):
            detail = f"the tests cannot be read: {str(tests)[:200]}"
            return None, Verdict("unparsed", None, None, detail, self.name)
        defining = tests.language == "python" and tests.kind != "stdio"
        code = extract_code(task.answer, tests.language, defining=defining)
        if code is None:
            detail = f"no block of {tests.language} in the answer"
            return None, Verdict("unparsed", None, None, detail, self.name)
        return code, _Run(code.text, task.tests)

    def _job(self, run: _Run, tests: Tests) -> Job:
        cpu_s = tests.limits.cpu_s
        total_cpu_s, patience_s = tests.limits.whole_cpu_s, tests.limits.patience_s
        task: dict[str, Any] = {
            "kind": tests.kind, "code": tests.preamble + run.code, "cpu_s": cpu_s,
            "total_cpu_s": total_cpu_s, "patience_s": min(total_cpu_s, patience_s),
            "setup": tests.setup, "function": tests.function,
        }  # fmt: skip
        output = 1 << 18
        if tests.kind == "stdio":
            caps = [2 * len(e["stdout"].encode()) + (1 << 12) for e in tests.entries]
            output += 2 * sum(caps)
            task["tests"] = [
                {"stdin": e["stdin"].encode("utf-8", "replace"), "cap": cap}
                for e, cap in zip(tests.entries, caps, strict=True)
            ]
        elif tests.kind == "calls":
            task["tests"] = [{k: v for k, v in e.items() if k != "expected"} for e in tests.entries]
            output += sum(4 * len(json.dumps(e)) + (1 << 14) for e in tests.entries)
        elif tests.kind == "pytest":
            task["file"] = "\n\n".join(tests.entries)
            task["tests"] = []
        else:
            task["tests"] = list(tests.entries) or [""]
        if tests.groups:
            # Points are lost group by group: a test that failed tells nothing of other groups, and
            # too much memory must end the test alone.
            task |= {
                "groups": [group.entries for group in tests.groups],
                "patience_s": total_cpu_s,
                "address_mib": tests.limits.memory_mib,
            }
        tool = TOOLCHAINS.get(tests.language)
        return self._driven(task, tool, tests.files, tests.limits.memory_mib, output)

    def _checked(
        self, printed: Mapping[_Run, tuple[Tests, Mapping[int, bytes]]]
    ) -> dict[_Run, dict[int, float]]:
        """Let checkers grade outputs; return what they earn, 0 to 1, where the checker said so."""
        jobs = {run: self._check(*given) for run, given in printed.items() if given[1]}
        if not jobs:
            return {}
        results = dict(zip(jobs, self._sandbox.run(list(jobs.values())), strict=True))
        found: dict[_Run, dict[int, float]] = {}
        for run, result in results.items():
            outputs = printed[run][1]
            said = _printed(result, len(outputs))
            shares = [_share(said.get(place)) for place in range(len(outputs))]
            found[run] = {
                number: share
                for number, share in zip(outputs, shares, strict=True)
                if share is not None
            }
        return found

    def _check(self, tests: Tests, printed: Mapping[int, bytes]) -> Job:
        files = {name: text for name, text in tests.checker.items() if name != CHECKER}
        entries = [
            {
                "input": tests.entries[number]["stdin"].encode("utf-8", "replace"),
                "expected": tests.entries[number]["stdout"].encode("utf-8", "replace"),
                "output": output,
            }
            for number, output in printed.items()
        ]
        task = {
            "kind": "stdio", "code": tests.checker[CHECKER], "cpu_s": _CHECK_S,
            "total_cpu_s": _CHECK_S * len(entries), "patience_s": _CHECK_S * len(entries),
            "tests": [{"stdin": b"", "files": entry, "cap": 1 << 12} for entry in entries],
        }  # fmt: skip
        heavy = sum(len(text) for entry in entries for text in entry.values()) >> 20
        checks = replace(TOOLCHAINS["cpp"], command=("./main", "input", "expected", "output"))
        return self._driven(task, checks, files, 1024 + 2 * heavy, (1 << 18) + (len(entries) << 14))

    def _driven(
        self,
        task: dict[str, Any],
        tool: Toolchain | None,
        files: Mapping[str, str],
        memory_mib: int,
        output: int,
    ) -> Job:
        """Make the job of a driver.

        Args:
            task: What it is told, without the tools.
            tool: Of the program's language; None for Python.
            files: What lies beside the program.
            memory_mib: What a test may use.
            output: Bytes that the driver may write.
        """
        cpu_s, total_cpu_s = task["cpu_s"], task["total_cpu_s"]
        wall_s = 10 * cpu_s + _IDLE_S
        task["wall_s"] = wall_s
        if tool:
            with_it = [name for name in sorted(files) if name.endswith(".cpp")]
            # Graders are written for the compiler's own dialect, and tell the real run by EVAL.
            more = ["-std=gnu++17", "-DEVAL", *with_it] if files else []
            task |= {
                "source": tool.source,
                "needs": tool.needs,
                "build": [*tool.build, *more],
                "command": tool.command,
                "files": {name: text.encode("utf-8", "replace") for name, text in files.items()},
            }
        inputs = [
            text
            for test in task["tests"]
            if isinstance(test, dict) and "stdin" in test
            for text in (test["stdin"], *test.get("files", {}).values())
        ]
        heaviest = max((len(text) for text in inputs), default=0) >> 20
        roomy = Limits()
        limits = Limits(
            cpu_s=total_cpu_s + cpu_s + 70,
            wall_s=2 * wall_s + 10 * total_cpu_s + 60,
            memory_mib=memory_mib + (512 if tool else 0) + 2 * (sum(map(len, inputs)) >> 20),
            output_kib=output >> 10,
            file_mib=max(roomy.file_mib, heaviest + 1),
            disk_mib=roomy.disk_mib + 4 * heaviest,
            stack_mib=max(roomy.stack_mib, memory_mib) if files else roomy.stack_mib,
        )
        start = _MARSHAL.format(size=len(self._driver))
        return Job(
            (self._sandbox.python, "-I", "-S", "-c", start),
            stdin=self._driver + marshal.dumps(task, 2),
            limits=limits,
            address_space=tool is None,
        )


def _sound(tests: Tests | ValueError) -> Tests:
    assert isinstance(tests, Tests)
    return tests


def _judge(result: Result, tests: Tests, checked: Mapping[int, float]) -> tuple[str, str]:
    """Turn what the driver said into ``correct``, ``incorrect``, ``error`` or ``again``."""
    letters, first = "", ""
    expected = None if tests.kind == "pytest" else max(1, len(tests.entries))
    for number, (state, words, value) in enumerate(_replies(result)):
        if number >= (expected or number + 1):
            break  # more replies than tests: the program wrote them
        if state == "printed" and tests.checker:
            state, words = _state_of(checked.get(number))
        elif state in ("printed", "returned"):
            state, words = _compare(state, value, tests, number)
        if state != "passed" and not first:
            said = words or _WORDS.get(state, state)
            first = f"test {number + 1}: {said}"
        letters += _LETTERS.get(state, "?")
    told: dict[str, Any] = {"tests": letters, "first": first} if first else {"tests": letters}
    if tests.groups:
        earned = _earned(letters, tests, checked)
        told |= {} if earned is None else {"share": earned}
        wrong, right = earned is not None and earned < 1, earned == 1
    else:
        wrong, right = bool(set(letters) & (_WRONG | {"H"})), set(letters) == {"P"}
    detail = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    if wrong:
        return "incorrect", detail
    if result.failure is not None:
        return "again", f"crashed: {result.failure}"
    if result.hit == "memory":
        share = {"share": 0.0} if tests.groups else {}
        return "incorrect", json.dumps({"tests": letters + "M", "first": _WORDS["memory"], **share})
    if result.hit is not None:
        return "again", f"timeout: the sandbox stopped it at its limit of {result.hit}; {detail}"
    if result.status != 0:
        said = printable(result.stderr[-200:])
        return "again", f"crashed: the driver ended with status {result.status}: {said}; {detail}"
    if "W" in letters:
        return "again", f"timeout: {detail}"
    if not letters or (expected is not None and len(letters) < expected and "?" not in letters):
        return "again", f"crashed: the driver gave {len(letters)} of {expected} results"
    if right:
        return "correct", detail
    if "K" in letters:
        return "error", f"checker: {detail}"
    reason = "missing" if "?" in letters else "unsupported" if "U" in letters else "timeout"
    return "error", f"{reason}: {detail}"


def _earned(letters: str, tests: Tests, checked: Mapping[int, float]) -> float | None:
    """Return the share of all points, 0 to 1; None if it hangs on a test that is undecided."""
    if letters == "B":
        return 0.0
    marks = {
        number: checked[number] if letter == "H" else float(letter == "P")
        for number, letter in enumerate(letters)
        if letter in _WRONG or letter in "PH"
    }
    points = 0.0
    for group in tests.groups:
        known = [marks[number] for number in group.entries if number in marks]
        if 0.0 in known:
            continue
        if len(known) < len(group.entries):
            return None
        least = min(known)
        points += group.points if least == 1 else round(group.points * least, _HUNDREDTHS)
    return points / sum(group.points for group in tests.groups)


def _state_of(share: float | None) -> tuple[str, str]:
    if share is None:
        return "unchecked", "its checker does not compile, or says nothing"
    if share in (0.0, 1.0):
        return ("passed", "") if share else ("failed", "the checker gives it nothing")
    return "half", f"the checker gives it {share:g}"


def _share(said: bytes | None) -> float | None:
    """Read what a checker printed: the first word is what the test earns."""
    words = (said or b"").split()
    try:
        share = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def _printed(result: Result, n_tests: int) -> dict[int, bytes]:
    """Return the outputs of programs that ran to their end, by the number of the test."""
    return {
        number: base64.b64decode(value)
        for number, (state, _, value) in enumerate(islice(_replies(result), n_tests))
        if state == "printed"
    }


def _replies(result: Result) -> Iterator[tuple[str, str, Any]]:
    for line in result.stdout.splitlines():
        try:
            state, words, value = json.loads(line)
        except ValueError:
            return
        yield str(state), printable(str(words or "").encode("utf-8", "replace")), value


def _compare(state: str, value: Any, tests: Tests, number: int) -> tuple[str, str]:
    entry = tests.entries[number]
    if state == "printed":
        printed = base64.b64decode(value).decode("utf-8", "replace")
        same = _same_output(printed, entry["stdout"], tests.outputs, tests.tolerance)
    else:
        same = _same_value(value, entry["expected"], tests.tolerance)
    return ("passed", "") if same else ("failed", f"another {_NOUNS[state]} was expected")


_NOUNS = {"printed": "output", "returned": "value"}
_BLANK = re.compile(r"[ \t\r\f\v]+$")


def _same_output(printed: str, expected: str, outputs: Outputs, tolerance: float | None) -> bool:
    """Compare outputs as the tests say; numbers within the tolerance, if there is one."""
    if outputs == "lines":
        one, other = (
            [_BLANK.sub("", line) for line in text.rstrip().split("\n")]
            for text in (printed, expected)
        )
        if one == other or tolerance is None:
            return one == other
    elif outputs == "decimals":
        one, other = (
            [line.strip() for line in text.strip().split("\n")] for text in (printed, expected)
        )
        return len(one) == len(other) and all(map(_same_decimals, one, other))
    words, expected_words = printed.split(), expected.split()
    return len(words) == len(expected_words) and all(
        word == other_word or (tolerance is not None and _near_words(word, other_word, tolerance))
        for word, other_word in zip(words, expected_words, strict=True)
    )


def _same_decimals(line: str, expected: str) -> bool:
    """Compare two lines; if they differ, as rows of decimal numbers, exactly."""
    if line == expected:
        return True
    words, expected_words = line.split(), expected.split()
    try:
        return len(words) == len(expected_words) and all(
            Decimal(word) == Decimal(other)
            for word, other in zip(words, expected_words, strict=True)
        )
    except InvalidOperation:
        return False


def _near_words(word: str, expected: str, tolerance: float) -> bool:
    try:
        return _near(float(word), float(expected), tolerance)
    except ValueError:
        return False


def _near(value: float, expected: float, tolerance: float) -> bool:
    return math.isfinite(value) and abs(value - expected) <= tolerance * max(1.0, abs(expected))


def _same_value(value: Any, expected: Any, tolerance: float | None) -> bool:
    """Compare JSON values; lists and tuples are the same, and so are 1 and 1.0."""
    if isinstance(expected, list):
        return isinstance(value, list) and len(value) == len(expected) and all(
            _same_value(one, other, tolerance) for one, other in zip(value, expected, strict=True)
        )  # fmt: skip
    if isinstance(expected, dict):
        return isinstance(value, dict) and set(value) == set(expected) and all(
            _same_value(value[key], expected[key], tolerance) for key in expected
        )  # fmt: skip
    if isinstance(expected, bool) or isinstance(value, bool):
        return value is expected
    numbers = isinstance(value, int | float) and isinstance(expected, int | float)
    if numbers and tolerance is not None:
        return bool(value == expected) or _near(float(value), float(expected), tolerance)
    return bool(value == expected)
