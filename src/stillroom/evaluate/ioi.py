"""Tasks of the International Olympiad in Informatics, as ``open-r1/ioi`` has them.

A row is a subtask: its statement, its points, the names of its tests, and the files of the grader,
the program that calls the student's code. Tests lie in another dataset. An item is a whole task:
one program is graded on all subtasks, and earns a subtask's points if it passes all of its tests,
or the least part of them that a checker gives. So a mean over tasks of a hundred points each is the
score of one submission for each task.

Not covered: tasks whose grader is a program that talks with the student's (``Communication``), and
tasks that ask for outputs alone. They are left out, and counted.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stillroom.evaluate.forms import Item, LeftOut, limits_of
from stillroom.verifiers.code_tests import CHECKER, Group, Tests

Row = Mapping[str, Any]
Cases = Mapping[tuple[str, str], tuple[str, str]]
"""Task, such as ``2024 nile``, and name of the test, to input and output."""

COLUMNS = (
    "year", "id", "name", "subtask", "statement", "score", "time_limit", "memory_limit",
    "task_type", "test_names", "starting_code", "grader_files",
)  # fmt: skip
"""Columns of a subtask that are looked at."""

CASE_COLUMNS = ("year", "problem_id", "test_name", "test_input", "test_output")
"""Columns of a test, as ``open-r1/ioi-test-cases`` has them."""

_BITS = "#include <bits/stdc++.h>\n"  # what solutions of contests take for granted
_ASKS = (
    "Solve the task of the International Olympiad in Informatics below in C++17. Write the "
    "functions that it asks for, and no main: a grader calls them. Do not read or print anything. "
    "A program that solves some of the subtasks earns their points. Put the whole program into one "
    "block that begins with ```cpp."
)


def tests_of(rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Name the tests that tasks need, as `Cases` does."""
    return {(_task(row), name) for row in rows for name in _names(row)}


def read_tasks(rows: Sequence[Row], cases: Cases) -> Iterator[Item | LeftOut | None]:
    """Read subtasks, and make an item of each task.

    Args:
        rows: Subtasks; those of a task in any order.
        cases: The tests of `tests_of`.

    Yields:
        For each row in turn: the item, or why the task is not asked, where its task stands for the
        first time; None for its other subtasks.

    Raises:
        ValueError: If the task whose turn it is is not whole.
    """
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(_task(row), []).append(row)
    for row in rows:
        subtasks = tasks.pop(_task(row), None)
        yield _item(sorted(subtasks, key=_subtask), cases) if subtasks else None


def _item(subtasks: Sequence[Row], cases: Cases) -> Item | LeftOut:
    # The last subtask is the whole task.
    task = subtasks[-1]
    if task["task_type"] != "Batch":
        return LeftOut("needs_a_manager" if task["task_type"] == "Communication" else "no_program")
    scored = [row for row in subtasks if row["score"]]
    if not scored:
        return LeftOut("no_points")
    names = list(dict.fromkeys(name for row in scored for name in _names(row)))
    lacking = [name for name in names if (_task(task), name) not in cases]
    if lacking:
        more = f", nor are {len(lacking) - 1:,} others of it" if len(lacking) > 1 else ""
        raise ValueError(f"test {lacking[0]!r} of {_task(task)} is not among the tests{more}")
    groups = [(row["score"], [names.index(name) for name in _names(row)]) for row in scored]
    graders, checkers = _files(task, "graders"), _files(task, "checker")
    headers = {name: text for name, text in graders.items() if name.endswith(".h")}
    called = {name: graders[name] for name in ("grader.cpp", "stub.cpp") if name in graders}
    if not called:
        raise ValueError(f"grader_files of {_task(task)} has no graders/grader.cpp")
    seconds, memory_mib = float(task["time_limit"]), int(task["memory_limit"]) >> 20
    pairs = [cases[_task(task), name] for name in names]
    tests = Tests(
        kind="stdio", language="cpp", preamble=_BITS, outputs="words",
        entries=tuple({"stdin": given, "stdout": expected} for given, expected in pairs),
        files=headers | called, checker=headers | checkers if CHECKER in checkers else {},
        groups=tuple(Group(points=points, entries=tuple(entries)) for points, entries in groups),
        limits=limits_of(seconds, memory_mib, len(names)),
    )  # fmt: skip
    limits = f"Limits of each test: {seconds:g} s, {memory_mib:,} MiB"
    said = [_ASKS, f"{task['name']}\n\n{limits}", str(_statement(task)).strip()]
    if starting := (task.get("starting_code") or "").strip():
        said.append(f"The code to begin with:\n\n```cpp\n{starting}\n```")
    return Item("\n\n".join(said), tests=tests)


def _task(row: Row) -> str:
    return f"{row['year']} {row['id']}"


def _subtask(row: Row) -> str:
    return str(row["subtask"])


def _statement(row: Row) -> Any:
    return row["statement"] if row.get("statement") is not None else row["question"]


def _names(row: Row) -> list[str]:
    return list(row["test_names"] or ())


def _files(row: Row, folder: str) -> dict[str, str]:
    """Return the files of a folder that are not empty, by their bare names."""
    found = {}
    for name, text in row["grader_files"] or ():
        where, _, bare = str(name).removeprefix("./").rpartition("/")
        if where == folder and text:
            found[bare] = text
    return found
