"""What a question's ``tests`` column says: how to find out whether a program is right.

The column is JSON text:

=============  ========================================================================
kind           entries
=============  ========================================================================
``asserts``    statements, such as ``"assert f(1) == 2"``; ``setup`` runs before each
``pytest``     test files, which import the program as ``solution``
``stdio``      ``{"stdin": "...", "stdout": "..."}``: what a program reads and prints
``calls``      ``{"args": [...], "expected": ...}``: values of ``function``
``lint``       none: the program is only read by the language's own tool
=============  ========================================================================

and, all optional, ``language``, ``preamble``, ``setup``, ``function``, ``outputs``, ``tolerance``,
``files``, ``checker``, ``groups`` and ``limits``.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stillroom.text.code import Language

TestKind = Literal["asserts", "pytest", "stdio", "calls", "lint"]
Outputs = Literal["lines", "words", "decimals"]


class TestLimits(BaseModel):
    """What a program may use.

    Attributes:
        cpu_s: CPU seconds for each test.
        memory_mib: Memory.
        total_cpu_s: CPU seconds for all tests together; tests that are not run by then are
            undecided. By default four times ``cpu_s``, and 30 at least; once a test has failed, no
            more than that in any case.
    """

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cpu_s: float = Field(5.0, gt=0, le=600)
    memory_mib: int = Field(512, ge=64, le=65536)
    total_cpu_s: float | None = Field(None, gt=0, le=3600)

    @property
    def whole_cpu_s(self) -> float:
        """CPU seconds for all tests together."""
        return self.total_cpu_s or self.patience_s

    @property
    def patience_s(self) -> float:
        """CPU seconds after which a program that has failed a test runs no more tests."""
        return max(30.0, 4 * self.cpu_s)


class Group(BaseModel):
    """Tests that earn points together, such as a subtask of an olympiad.

    Attributes:
        points: What it is worth.
        entries: Numbers of its tests, from 0. The group earns the least of what they earn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    points: float = Field(gt=0)
    entries: tuple[int, ...] = Field(min_length=1)


CHECKER = "checker.cpp"
"""Of the files of a checker, the one that is compiled."""

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Tests(BaseModel):
    """The tests of one question.

    Attributes:
        kind: See the head of this module.
        entries: The tests.
        language: ``python``, ``cpp``, ``javascript`` (both ``stdio`` only) or ``verilog`` (``lint``
            only).
        preamble: Python that stands before the program, such as imports that an exercise offers.
        setup: Python that runs before each assert or call.
        function: For ``calls``: a function, or ``Class.method`` of a class without arguments.
        outputs: For ``stdio``, when an output is the expected one: ``lines``, line by line without
            blanks at the end; ``words``, word by word, however they are spaced; ``decimals``, line
            by line without blanks around, where numbers of equal value are equal.
        tolerance: How far numbers may be from the expected ones, absolutely or relative to them;
            None for exactly.
        files: For ``cpp``: texts that lie beside the program when it is compiled, by name; those
            that end in ``.cpp`` are compiled with it, such as a grader that calls it.
        checker: A C++ program that grades outputs, where several are right: its files by name, with
            ``checker.cpp`` among them. It is called with the names of three files, the input, the
            expected output and the output, and prints what the test earns, 0 to 1.
        groups: Which tests earn points together. The program is correct if it earns all points;
            the detail of its verdict says which share it earned.
        limits: What the program may use.
    """

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: TestKind
    entries: tuple[Any, ...] = ()
    language: Language = "python"
    preamble: str = ""
    setup: str = ""
    function: str = Field("", pattern=r"^[\w.]*$")
    outputs: Outputs = "lines"
    tolerance: float | None = Field(None, ge=0)
    files: Mapping[str, str] = {}
    checker: Mapping[str, str] = {}
    groups: tuple[Group, ...] = ()
    limits: TestLimits = TestLimits()

    @model_validator(mode="after")
    def _graded(self) -> Self:
        if self.files and self.language != "cpp":
            raise ValueError(f"files are there for cpp, not for {self.language}")
        if (self.checker or self.groups) and self.kind != "stdio":
            raise ValueError(f"a checker and groups are there for stdio, not for {self.kind}")
        if self.checker and CHECKER not in self.checker:
            raise ValueError(f"the checker has no {CHECKER}")
        for name in (*self.files, *self.checker):
            if not _FILE.fullmatch(name) or name == "main.cpp":
                raise ValueError(f"{name[:80]!r} is no name for a file")
        last = max((n for group in self.groups for n in group.entries), default=0)
        first = min((n for group in self.groups for n in group.entries), default=0)
        if self.groups and not 0 <= first <= last < len(self.entries):
            raise ValueError(f"a group names entry {last if first >= 0 else first}")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        kinds = {"python": ("asserts", "pytest", "stdio", "calls"), "verilog": ("lint",)}
        if self.kind not in kinds.get(self.language, ("stdio",)):
            raise ValueError(f"kind {self.kind} is not there for {self.language}")
        if self.kind != "lint" and not self.entries:
            raise ValueError("there are no entries")
        if self.kind == "calls" and not self.function:
            raise ValueError("function is missing")
        for number, entry in enumerate(self.entries):
            if not self._is_entry(entry):
                raise ValueError(f"entry {number} is no entry of kind {self.kind}")
        return self

    def _is_entry(self, entry: Any) -> bool:
        if self.kind in ("asserts", "pytest"):
            return isinstance(entry, str)
        if not isinstance(entry, dict):
            return False
        if self.kind == "stdio":
            return {"stdin", "stdout"} == set(entry) and all(
                isinstance(v, str) for v in entry.values()
            )
        return (
            "expected" in entry
            and set(entry) <= {"args", "kwargs", "expected"}
            and isinstance(entry.get("args", []), list)
            and isinstance(entry.get("kwargs", {}), dict)
        )

    def text(self) -> str:
        """Return the form of the column: JSON in which equal tests are equal text."""
        found = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    def inputs_and_outputs(self) -> dict[str, Any]:
        r"""Write the tests as APPS, TACO and LiveCodeBench have them, which other programs run.

        Returns:
            ``inputs`` and ``outputs``, lists of text, and ``fn_name``: None for programs that read
            and print; for calls, an input holds the arguments as JSON, one per line.

        Raises:
            ValueError: If that form cannot say what these tests say.
        """
        name = self.function.removeprefix("Solution.")
        wrong = {
            f"tests of kind {self.kind}": self.kind not in ("stdio", "calls"),
            f"{self.language} programs": self.language != "python",
            "a tolerance": self.tolerance is not None,
            "a setup": bool(self.setup or self.preamble),
            f"a method of {name.partition('.')[0]}": "." in name,
            "a grader or a checker": bool(self.files or self.checker),
            "points": bool(self.groups),
            "arguments by name": any(
                isinstance(entry, dict) and entry.get("kwargs") for entry in self.entries
            ),
        }
        if words := [word for word, is_wrong in wrong.items() if is_wrong]:
            raise ValueError(" and ".join(words))
        if self.kind == "stdio":
            inputs = [entry["stdin"] for entry in self.entries]
            outputs = [entry["stdout"] for entry in self.entries]
            return {"inputs": inputs, "outputs": outputs, "fn_name": None}
        lines = [[json.dumps(arg) for arg in entry.get("args", [])] for entry in self.entries]
        return {
            "inputs": ["\n".join(args) for args in lines],
            "outputs": [json.dumps(entry["expected"]) for entry in self.entries],
            "fn_name": name,
        }


def read_tests(text: str) -> Tests:
    """Read a ``tests`` column.

    Raises:
        ValueError: If it is not as described, with the first thing that is wrong, in a line.
    """
    try:
        return Tests.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "tests"
        raise ValueError(f"{place}: {first['msg']}") from None


def parse_tests(value: object, form: "TestForm", setup: str = "") -> Tests:
    """Make tests of what stands in a source's column.

    Raises:
        ValueError: If the value does not hold such tests.
    """
    if isinstance(value, str) and form.kind != "pytest":
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("expected JSON") from None
    if form.kind == "json":
        return Tests.model_validate(value)
    if form.kind == "pytest":
        value = [value]
    if isinstance(value, dict) and {"inputs", "outputs"} <= set(value):  # as in APPS and TACO
        value = [
            {"input": i, "output": o}
            for i, o in zip(value["inputs"], value["outputs"], strict=True)
        ]
    if not isinstance(value, list):
        raise ValueError(f"a {type(value).__name__}; expected a list")
    names = {"input": "stdin", "output": "stdout"}
    if form.kind == "calls":
        names = {"input": "args", "output": "expected"}
    entries = [
        {names.get(key, key): field for key, field in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in value
    ]
    return Tests(
        kind=form.kind, entries=tuple(entries), language=form.language, setup=setup,
        function=form.function, tolerance=form.tolerance, limits=form.limits,
    )  # fmt: skip


class TestForm(BaseModel):
    """Where a source keeps its tests, and what they are.

    Attributes:
        column: Column of the tests: a list, or the JSON text of one; for ``pytest`` the file; for
            ``json`` the whole form of the ``tests`` column.
        kind: ``asserts``, ``pytest``, ``stdio``, ``calls`` or ``json``.
        setup: Column of Python that runs before each assert.
        language: Of the programs that are asked for.
        function: For ``calls``: what is called.
        tolerance: How far numbers may be from the expected ones.
        limits: What a program may use.
    """

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    column: str
    kind: Literal["asserts", "pytest", "stdio", "calls", "json"]
    setup: str | None = None
    language: Language = "python"
    function: str = Field("", pattern=r"^[\w.]*$")
    tolerance: float | None = Field(None, ge=0)
    limits: TestLimits = TestLimits()
