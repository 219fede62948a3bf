"""Readers of benchmarks whose rows need more than naming columns: a function for each schema.

A reader turns a row, as its publisher describes it, into an item: the text that is asked, the known
answer, and the tests. Prompts are our own wording of the published protocols.

Traps that are avoided here:

- LiveCodeBench: packed tests are read without unpickling (`stillroom.evaluate.packed`); a method's
  starter code is part of what is asked; public and private tests both count.
- Codeforces: the editorial tells the solution and is never shown. Problems with several right
  outputs, which only a checker can grade, are left out rather than marked wrong; so are
  interactive ones and those that read files.
- CodeElo: the only tests are the samples of the statement.
- Code in general: each test has the problem's own time limit and all run in a sandbox; outputs are
  not compared as whole strings.
- JEEBench: the form of the answer differs by type, and the prompt says which.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from stillroom.evaluate.packed import read_pack
from stillroom.verifiers.code_tests import TestLimits, Tests


class Item(NamedTuple):
    """What one row of a benchmark asks.

    Attributes:
        question: The text that is asked.
        reference: The known answer, or None.
        tests: How a program is graded, or None.
    """

    question: str
    reference: str | None = None
    tests: Tests | None = None


class LeftOut(NamedTuple):
    """A row that is not asked.

    Attributes:
        reason: Why, in one word.
    """

    reason: str


Row = Mapping[str, Any]

PREAMBLE = """\
import bisect, collections, copy, datetime, functools, heapq, itertools, json, math, operator
import random, re, statistics, string, sys
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, groupby, pairwise, permutations, product
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, lcm, log2, sqrt
from typing import *
sys.setrecursionlimit(50_000)
"""
"""What solutions of LeetCode may take for granted."""

_BLOCK = "Put the whole program into one block that begins with ```python."
_READS = (
    "Write a Python program that solves the problem below. It reads from standard input and prints "
    f"to standard output. {_BLOCK}"
)
_METHOD = (
    "Complete the Python class so that its method solves the problem below; do not call it. "
    f"{_BLOCK}"
)
_LCB_SECONDS = 6.0  # for each test, as in LiveCodeBench's own runner
_LONGEST_S = 3600.0  # for all tests of a problem together
_LEAST_MIB = 256  # below it, Python itself would be what fails


def livecodebench(row: Row) -> Item | LeftOut:
    """Read a row of ``livecodebench/code_generation_lite``.

    Raises:
        ValueError: If its tests cannot be read.
    """
    if row.get("public_test_cases") is None or row.get("private_test_cases") is None:
        raise ValueError("no public_test_cases or no private_test_cases; this copy has no tests")
    cases = [*read_pack(row["public_test_cases"]), *read_pack(row["private_test_cases"])]
    functional = any(case.get("testtype") == "functional" for case in cases)
    text = row["question_content"].strip()
    limits = limits_of(_LCB_SECONDS, 1024, len(cases))
    if not functional:
        entries = tuple({"stdin": case["input"], "stdout": case["output"]} for case in cases)
        tests = Tests(
            kind="stdio", entries=entries, preamble=PREAMBLE, outputs="decimals", limits=limits
        )
        return Item(f"{_READS}\n\n{text}", tests=tests)
    about = json.loads(row.get("metadata") or "{}")
    if not about.get("func_name"):
        raise ValueError("its metadata has no func_name")
    calls = tuple(
        {
            "args": [json.loads(line) for line in case["input"].split("\n") if line.strip()],
            "expected": json.loads(case["output"]),
        }
        for case in cases
    )
    tests = Tests(
        kind="calls", entries=calls, preamble=PREAMBLE,
        function=f"Solution.{about['func_name']}", limits=limits,
    )  # fmt: skip
    starter = (row.get("starter_code") or "").strip()
    return Item(f"{_METHOD}\n\n{text}\n\n```python\n{starter}\n```", tests=tests)


def codeforces(row: Row) -> Item | LeftOut:
    """Read a row of ``open-r1/codeforces``, with its official tests.

    Raises:
        ValueError: If its tests cannot be read.
    """
    if row.get("interaction_format"):
        return LeftOut("interactive")
    if row.get("generated_checker"):
        return LeftOut("needs_a_checker")
    if row.get("input_mode") == "file":
        return LeftOut("reads_files")
    cases = row.get("official_tests") or []
    if not cases:
        return LeftOut("no_tests")
    entries = tuple({"stdin": case["input"], "stdout": case["output"]} for case in cases)
    seconds, memory = float(row.get("time_limit") or 2), float(row.get("memory_limit") or 256)
    tests = Tests(
        kind="stdio", entries=entries, outputs="words",
        limits=limits_of(seconds, memory, len(entries)),
    )  # fmt: skip
    samples = [(case["input"], case["output"]) for case in row.get("examples") or []]
    parts = {
        "": f"{row.get('title') or ''}\n\nTime limit: {seconds:g} s for each test",
        "Problem": row["description"],
        "Input": row.get("input_format"),
        "Output": row.get("output_format"),
        "Note": row.get("note"),
    }
    return Item(_statement(parts, samples), tests=tests)


def codeelo(row: Row) -> Item | LeftOut:
    """Read a row of ``Qwen/CodeElo``; its tests are the samples of the statement.

    Raises:
        ValueError: If its tests cannot be read.
    """
    if row.get("interaction"):
        return LeftOut("interactive")
    samples = [(str(one), str(other)) for one, other in row.get("examples") or []]
    if not samples:
        return LeftOut("no_tests")
    entries = tuple({"stdin": one, "stdout": other} for one, other in samples)
    seconds = float(row.get("time_limit_ms") or 2000) / 1000
    memory = float(row.get("memory_limit_mb") or 256)
    tests = Tests(
        kind="stdio", entries=entries, outputs="words",
        limits=limits_of(seconds, memory, len(entries)),
    )  # fmt: skip
    parts = {
        "": f"{row.get('title') or ''}\n\nTime limit: {seconds:g} s for each test",
        "Problem": row["description"],
        "Input": row.get("input"),
        "Output": row.get("output"),
        "Note": row.get("note"),
    }
    return Item(_statement(parts, samples), tests=tests)


_JEE = {
    "MCQ": "Exactly one option is right. Mark its letter with \\boxed",
    "MCQ(multiple)": "One or more options are right. Mark the letters of all of them with \\boxed",
    "Integer": "The answer is a whole number, 0 or above. Mark it with \\boxed",
    "Numeric": "The answer is a number. Give it to the second decimal, and mark it with \\boxed",
}


def jeebench(row: Row) -> Item | LeftOut:
    """Read a row of JEEBench; its answer is letters or a number.

    Raises:
        ValueError: If it is of no known type, or has no answer.
    """
    gold = row.get("gold") if row.get("gold") is not None else row.get("answer")
    if row.get("type") not in _JEE:
        raise ValueError(f"type is {row.get('type')!r}; expected one of {', '.join(_JEE)}")
    if gold is None or not str(gold).strip():
        raise ValueError("there is no answer in gold")
    question = f"Problem: {str(row['question']).strip()}\n\n{_JEE[row['type']]}"
    return Item(question, str(gold).strip())


def limits_of(seconds: float, memory_mib: float, n_tests: int) -> TestLimits:
    """Return the limits of a problem: of each test, and of all together."""
    whole = min(_LONGEST_S, max(30.0, seconds * n_tests))
    return TestLimits(cpu_s=seconds, memory_mib=max(_LEAST_MIB, int(memory_mib)), total_cpu_s=whole)


def _statement(parts: Mapping[str, Any], samples: list[tuple[str, str]]) -> str:
    """Word a problem; the tests of its statement stand before its note."""
    said = [_READS]
    for title, text in parts.items():
        if title == "Note":
            for one, other in samples:
                said.append(f"Example\n\nInput:\n{one.rstrip()}\n\nOutput:\n{other.rstrip()}")
        if text and str(text).strip():
            said.append(f"{title}\n\n{str(text).strip()}".strip())
    return "\n\n".join(said)


FORMS: Mapping[str, Callable[[Row], Item | LeftOut]] = {
    "livecodebench": livecodebench,
    "codeforces": codeforces,
    "codeelo": codeelo,
    "jeebench": jeebench,
}
"""The readers by name."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "livecodebench": (
        "question_content", "starter_code", "public_test_cases", "private_test_cases", "metadata",
    ),
    "codeforces": (
        "title", "time_limit", "memory_limit", "description", "input_format", "output_format",
        "interaction_format", "note", "examples", "official_tests", "input_mode",
        "generated_checker",
    ),
    "codeelo": (
        "title", "time_limit_ms", "memory_limit_mb", "description", "input", "output",
        "interaction", "examples", "note",
    ),
    "jeebench": ("question", "type", "gold", "answer"),
}  # fmt: skip
"""The columns that a reader looks at."""
