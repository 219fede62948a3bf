# ruff: noqa: E501
"""Programs and their tests: what is right, what is wrong, and what is neither."""

import json
import shutil
from dataclasses import replace

import pytest

from stillroom.errors import SetupError
from stillroom.sandbox import open_sandbox
from stillroom.sandbox.job import Result
from stillroom.verifiers import Task, verifier
from stillroom.verifiers.code import TOOLCHAINS, CodeVerifier
from stillroom.verifiers.code_tests import TestForm, TestLimits, Tests, parse_tests, read_tests


@pytest.fixture(scope="module")
def code():
    try:
        sandbox, version = open_sandbox()
    except SetupError as error:
        pytest.skip(str(error))
    with CodeVerifier(sandbox, python_version=version) as opened:
        yield opened


def task(program, language="python", **tests):
    text = Tests(language=language, **tests).text()
    return Task(f"So:\n```{language}\n{program}\n```\n", None, tests=text)


def asserts(program, *entries, **more):
    return task(program, kind="asserts", entries=entries, **more)


F = "def f(x):\n    return x + 1"
FAST = {"cpu_s": 0.5}
CASES = {
    "right": (asserts(F, "assert f(1) == 2", "assert f(2) == 3"), "correct", "PP"),
    "wrong": (asserts(F, "assert f(1) == 2", "assert f(2) == 2"), "incorrect", "PF"),
    "raises": (asserts("def f(x): return 1 / 0", "assert f(1) == 2"), "incorrect", "R"),
    "no function": (asserts("x = 1", "assert f(1) == 2"), "incorrect", "R"),
    "syntax": (asserts("def f(x) return", "assert f(1) == 2"), "incorrect", "R"),
    "endless": (asserts("while True: pass", "1", limits=FAST), "incorrect", "T"),
    "memory": (asserts("x = 'a' * (1 << 40)", "1"), "incorrect", "M"),
    "segfault": (asserts("import ctypes\nctypes.string_at(0)", "1"), "incorrect", "C"),
    "exits": (asserts("import sys\nsys.exit(0)", "assert False"), "incorrect", "X"),
    "os exits": (asserts("import os\nos._exit(0)", "assert False"), "incorrect", "X"),
    "numpy": (asserts("import no_such_package", "1"), "error", "?"),
    "prints": (asserts("print('[]')\ndef f(x): return 2", "assert f(1) == 2"), "correct", "P"),
    "state": (asserts("s = []", "s.append(1); assert len(s) == 1", "assert not s"), "correct", "PP"),
    "setup": (asserts("def f(): return y", "assert f() == 5", setup="y = 5"), "correct", "P"),
    "recursion": (
        asserts("def f(n): return n and f(n - 1)", "assert f(9000) == 0"), "correct", "P",
    ),
    "unicode": (asserts("def f(): return '½\U0001f600'", "assert len(f()) == 2"), "correct", "P"),
    "pytest": (
        task(F, kind="pytest", entries=(
            "import pytest\nfrom solution import f\n"
            "@pytest.mark.parametrize('x, y', [(1, 2), (2, 3)])\n"
            "def test_f(x, y):\n    assert f(x) == y\n"
            "@pytest.fixture\ndef one():\n    yield 1\n"
            "def test_one(one):\n    assert f(one) == pytest.approx(2.0000001)\n"
            "class TestF:\n    def test_raises(self):\n"
            "        with pytest.raises(TypeError, match='can only'):\n            f('a')\n",)),
        "correct", "PPPP",
    ),
    "pytest wrong": (
        task(F, kind="pytest", entries=("def test_f():\n    assert f(1) == 1",)), "incorrect", "F",
    ),
    "unittest": (
        task(F, kind="pytest", entries=(
            "import unittest\nfrom solution import f\nclass T(unittest.TestCase):\n"
            "    def test_f(self):\n        self.assertEqual(f(1), 2)\n",)),
        "correct", "P",
    ),
    "pytest unknown": (
        task(F, kind="pytest", entries=("def test_f(mocker):\n    pass",)), "error", "U",
    ),
    "no tests": (task(F, kind="pytest", entries=("x = 1",)), "error", "U"),
    "stdio": (
        task("print(int(input()) + int(input()))", kind="stdio",
             entries=({"stdin": "1\n2\n", "stdout": "3\n"}, {"stdin": "2\n2", "stdout": "4  \n\n"})),
        "correct", "PP",
    ),
    "stdio wrong": (
        task("print(4)", kind="stdio", entries=({"stdin": "", "stdout": "3"},)), "incorrect", "F",
    ),
    "stdio exit": (
        task("import sys\nprint(3)\nsys.exit()", kind="stdio",
             entries=({"stdin": "", "stdout": "3"},)),
        "correct", "P",
    ),
    "stdio endless": (
        task("while True: print(3)", kind="stdio", entries=({"stdin": "", "stdout": "3"},),
             limits=FAST),
        "incorrect", None,
    ),
    "stdio main": (
        task("if __name__ == '__main__':\n    print(1)", kind="stdio",
             entries=({"stdin": "", "stdout": "1"},)),
        "correct", "P",
    ),
    "tolerance": (
        task("print(0.33333)", kind="stdio", entries=({"stdin": "", "stdout": "0.333333"},),
             tolerance=1e-4),
        "correct", "P",
    ),
    "no tolerance": (
        task("print(0.33333)", kind="stdio", entries=({"stdin": "", "stdout": "0.333333"},)),
        "incorrect", "F",
    ),
    "words": (
        task("print(' 1', '2\\n3 ')", kind="stdio", outputs="words",
             entries=({"stdin": "", "stdout": "1 2 3"},)),
        "correct", "P",
    ),
    "words wrong": (
        task("print(12)", kind="stdio", outputs="words", entries=({"stdin": "", "stdout": "1 2"},)),
        "incorrect", "F",
    ),
    "decimals": (
        task("print('  1.50 9007199254740993')", kind="stdio", outputs="decimals",
             entries=({"stdin": "", "stdout": "1.5 9007199254740993.0"},)),
        "correct", "P",
    ),
    "decimals wrong": (
        task("print(9007199254740992)", kind="stdio", outputs="decimals",
             entries=({"stdin": "", "stdout": "9007199254740993"},)),
        "incorrect", "F",
    ),
    "decimals lines": (
        task("print('1 2')", kind="stdio", outputs="decimals",
             entries=({"stdin": "", "stdout": "1\n2"},)),
        "incorrect", "F",
    ),
    "preamble": (
        task("def f(a: List[int]): return sqrt(a[0])", kind="calls", function="f",
             preamble="from typing import *\nfrom math import sqrt\n",
             entries=({"args": [[4]], "expected": 2},)),
        "correct", "P",
    ),
    "calls": (
        task("def f(a, b): return (a, [b])", kind="calls", function="f",
             entries=({"args": [1, 2], "expected": [1, [2]]},)),
        "correct", "P",
    ),
    "calls method": (
        task("class Solution:\n    def g(self, a): return {a: 1.0}", kind="calls", function="g",
             entries=({"args": ["k"], "expected": {"k": 1}},)),
        "correct", "P",
    ),
    "calls wrong": (
        task("def f(a): return True", kind="calls", function="f",
             entries=({"args": [1], "expected": 1},)),
        "incorrect", "F",
    ),
    "calls object": (
        task("def f(a): return object()", kind="calls", function="f",
             entries=({"args": [1], "expected": 1},)),
        "incorrect", "F",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_code_verdict(code, name):
    given, outcome, letters = CASES[name]
    (verdict,) = code.verify([given])
    assert verdict.outcome == outcome, verdict
    detail = verdict.detail.partition("{")
    found = json.loads(detail[1] + detail[2])
    if letters is not None:
        assert found["tests"] == letters, verdict
    assert code.name.startswith("code/1 python 3.")


def test_code_that_waits_is_stopped_by_the_clock_and_is_no_verdict(code, monkeypatch):
    monkeypatch.setattr("stillroom.verifiers.code._IDLE_S", 0.5)
    given = asserts("import time\ntime.sleep(999)", "1", limits={"cpu_s": 0.05})
    (verdict,) = code.verify([given])
    assert verdict.outcome == "error", verdict
    assert '"tests":"W"' in verdict.detail


def test_code_verdicts_do_not_depend_on_order_workers_or_batches(code):
    tasks = [given for name, (given, _, _) in CASES.items() if "endless" not in name]
    forward = code.verify(tasks)
    assert code.verify(tasks[::-1]) == forward[::-1]
    assert [code.verify([one])[0] for one in tasks[:6]] == forward[:6]
    with verifier("code", workers=5) as other:
        assert other.verify(tasks) == forward


def test_code_without_tests_program_or_sense_is_undecided(code):
    text = Tests(kind="asserts", entries=("1",)).text()
    verdicts = code.verify(
        [Task("x", None), Task("no code", None, tests=text), Task("x", None, tests='{"kind": 1}')]
    )
    assert [v.outcome for v in verdicts] == ["no_reference", "unparsed", "unparsed"]
    assert verdicts[1].detail == "no block of python in the answer"
    assert verdicts[2].detail.startswith("the tests cannot be read: kind:")


SLOW = "def f(a):\n    x = 0\n    while x < 10 ** 9: x += 1\n    return a"


def test_a_program_that_failed_is_not_run_to_the_end_of_a_large_budget(code, monkeypatch):
    limits = TestLimits(cpu_s=1, total_cpu_s=3600)
    assert (limits.whole_cpu_s, limits.patience_s) == (3600, 30)
    assert TestLimits(cpu_s=20).whole_cpu_s == TestLimits(cpu_s=20).patience_s == 80
    monkeypatch.setattr(TestLimits, "patience_s", property(lambda self: 0.1))
    calls = tuple({"args": [n], "expected": n} for n in range(40))
    given = task(
        SLOW, kind="calls", function="f", entries=calls,
        limits={"cpu_s": 0.05, "total_cpu_s": 3600},
    )  # fmt: skip
    (verdict,) = code.verify([given])
    assert verdict.outcome == "incorrect"
    letters = json.loads(verdict.detail)["tests"]
    assert letters[0] == "T"
    assert letters.endswith("-" * 30)


class _Broken:
    """A sandbox that works once, for the driver, and then fails."""

    name, python, isolates = "broken 1", "python3", True

    def __init__(self, result):
        self.result = result
        self.runs = 0

    def run(self, jobs):
        self.runs += 1
        return [Result(0, b"driver") if self.runs == 1 else self.result for _ in jobs]

    def close(self):
        pass


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        (Result(None, failure="no space left"), "crashed: no space left"),
        (Result(None, hit="wall"), "timeout: the sandbox stopped it"),
        (Result(-9), "crashed: the driver ended with status -9"),
        (Result(0), "crashed: the driver gave 0 of 1 results"),
    ],
)
def test_code_trouble_of_the_sandbox_is_error_after_a_second_try(result, detail):
    sandbox = _Broken(result)
    verify = CodeVerifier(sandbox, python_version="3")
    (verdict,) = verify.verify([asserts(F, "assert f(1) == 2")])
    assert verdict.outcome == "error"
    assert verdict.detail.startswith(detail)
    assert sandbox.runs == 3


SUM_CPP = "#include <iostream>\nint main(){long a,s=0;while(std::cin>>a)s+=a;std::cout<<s;}"
SUM_JS = """
const text = require('fs').readFileSync(0, 'utf8');
console.log(text.split(/\\s+/).map(Number).reduce((a, b) => a + b, 0));
"""
COUNTER = """
module counter #(parameter W = 8) (input logic clk, rst, output logic [W-1:0] q);
  always_ff @(posedge clk) if (rst) q <= '0; else q <= q + 1'b1;
endmodule
"""
OTHERS = {
    "right": ("cpp", SUM_CPP, "correct", "PP"),
    "wrong": ("cpp", SUM_CPP.replace("s+=a", "s=a"), "incorrect", "FP"),
    "does not compile": ("cpp", "int main(){ return x; }", "incorrect", "B"),
    "aborts": ("cpp", "#include <cstdlib>\nint main(){ std::abort(); }", "incorrect", "CC"),
    "computes for ever": ("cpp", "int main(){ for(volatile int i=0;;i=i+1); }", "incorrect", "TT"),
    "takes all memory": (
        "cpp",
        "#include <cstring>\nint main(){for(;;)memset(new char[1<<24],1,1<<24);}",
        "incorrect",
        None,
    ),
    "javascript: right": ("javascript", SUM_JS, "correct", "PP"),
    "javascript: wrong": ("javascript", "console.log(42)", "incorrect", "PF"),
    "javascript: does not compile": ("javascript", "let let = (", "incorrect", "XX"),
    "javascript: throws": ("javascript", "throw new Error('no')", "incorrect", "XX"),
    "javascript: computes for ever": ("javascript", "for (;;) ;", "incorrect", "TT"),
    "verilog: right": ("verilog", COUNTER, "correct", "P"),
    "verilog: only warned of": (
        "verilog",
        "module m(input [7:0] a, output [3:0] b); assign b = a; endmodule",
        "correct",
        "P",
    ),
    "verilog: syntax": ("verilog", COUNTER.replace("1'b1;", "1'b1"), "incorrect", "B"),
    "verilog: no such name": ("verilog", COUNTER.replace("q + ", "p + "), "incorrect", "B"),
    "verilog: no such module": (
        "verilog", "module m(input a); part one(.a(a)); endmodule", "incorrect", "B",
    ),
    "verilog: file of the host": ("verilog", '`include "/etc/passwd"', "incorrect", "B"),
}  # fmt: skip
TOOLS = {"cpp": "g++", "javascript": "node", "verilog": "verilator"}


@pytest.mark.parametrize("name", OTHERS)
def test_code_of_other_languages(code, name):
    language, program, outcome, letters = OTHERS[name]
    if not shutil.which(TOOLS[language], path="/usr/bin"):
        pytest.skip(f"{TOOLS[language]} is not installed")
    if language == "verilog":
        asked = task(program, language=language, kind="lint")
    else:
        entries = ({"stdin": "20 22", "stdout": "42\n"}, {"stdin": "1", "stdout": "1"})
        limits = {"cpu_s": 0.5, "memory_mib": 512}
        asked = task(program, language=language, kind="stdio", entries=entries, limits=limits)
    (verdict,) = code.verify([asked])
    assert verdict.outcome == outcome, verdict
    found = json.loads(verdict.detail)
    assert letters in (None, found["tests"]), verdict
    assert ("first" in found) is (outcome == "incorrect")
    assert "root:" not in verdict.detail  # of /etc/passwd


@pytest.mark.parametrize(("language", "tool"), TOOLS.items())
def test_code_tool_that_is_missing_is_named(code, monkeypatch, language, tool):
    toolchain = replace(TOOLCHAINS[language], needs=(f"{tool}-of-nowhere",))
    monkeypatch.setitem(TOOLCHAINS, language, toolchain)
    entries = ({"stdin": "1", "stdout": "2"},)
    kind = {"kind": "lint"} if language == "verilog" else {"kind": "stdio", "entries": entries}
    (verdict,) = code.verify([task("module m; endmodule", language=language, **kind)])
    assert verdict.outcome == "error"
    assert verdict.detail == f'missing: {{"tests":"?","first":"test 1: {tool}-of-nowhere"}}'


def test_code_escapes_do_not_reach_the_detail(code):
    (verdict,) = code.verify([asserts("raise ValueError('\\x1b[2J\\x07')", "1")])
    assert "\x1b" not in verdict.detail
    assert "\\u001b" not in verdict.detail


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "tests: Invalid JSON"),
        ('{"kind":"asserts"}', "there are no entries"),
        ('{"kind":"asserts","entries":[1]}', "entry 0 is no entry of kind asserts"),
        ('{"kind":"calls","entries":[{"expected":1}]}', "function is missing"),
        ('{"kind":"asserts","entries":["1"],"language":"cpp"}', "is not there for cpp"),
        ('{"kind":"asserts","entries":["1"],"limits":{"cpu_s":-1}}', "limits.cpu_s"),
    ],
)
def test_tests_that_cannot_be_read_say_why(text, problem):
    with pytest.raises(ValueError, match="(?s)" + problem.replace("(", r"\(")):
        read_tests(text)


@pytest.mark.parametrize(
    ("value", "form", "entries"),
    [
        (["assert 1"], {"kind": "asserts"}, ("assert 1",)),
        ('["assert 1"]', {"kind": "asserts"}, ("assert 1",)),
        ("def test(): ...", {"kind": "pytest"}, ("def test(): ...",)),
        ([{"input": "1", "output": "2"}], {"kind": "stdio"}, ({"stdin": "1", "stdout": "2"},)),
        ({"inputs": ["1"], "outputs": ["2"]}, {"kind": "stdio"}, ({"stdin": "1", "stdout": "2"},)),
        ({"inputs": [[1]], "outputs": [2]}, {"kind": "calls", "function": "f"},
         ({"args": [1], "expected": 2},)),
        ('{"kind":"asserts","entries":["1"]}', {"kind": "json"}, ("1",)),
    ],
)  # fmt: skip
def test_tests_of_a_source_become_entries(value, form, entries):
    tests = parse_tests(value, TestForm(column="t", **form))
    assert tests.entries == entries
    assert read_tests(tests.text()) == tests


# --- graders, checkers, points --------------------------------------------------------------------

GRADER = """
#include "twice.h"
#include <cstdio>
int main(){ int n; if (scanf("%d", &n) == 1) printf("secret %d", twice(n)); }
"""
FILES = {"grader.cpp": GRADER, "twice.h": "int twice(int n);\n"}
TWICE = '#include "twice.h"\nint twice(int n) { return 2 * n; }'
# Gives all for the expected number, half for one that is one beside it, and reads all three files.
CHECKER = """
#include "help.h"
#include <fstream>
#include <iostream>
int main(int, char** names){
  std::string word; int asked, expected, got;
  std::ifstream(names[1]) >> asked;
  std::ifstream(names[2]) >> word >> expected;
  std::ifstream(names[3]) >> word >> got;
  std::cerr << "told\\n";
  std::cout << (got == expected ? 1.0 : near(got, expected) && asked ? 0.5 : 0.0) << std::endl;
}
"""
CHECKED = {
    "checker.cpp": CHECKER,
    "help.h": "static bool near(int a,int b){return a-b==1||b-a==1;}",
}
POINTS = (
    {"points": 10, "entries": [0, 1]}, {"points": 30, "entries": [1, 2]},
    {"points": 60, "entries": [0, 1, 2, 3]},
)  # fmt: skip


def olympic(program, checker=None, limits=None, groups=POINTS):
    entries = tuple({"stdin": f"{n}\n", "stdout": f"secret  {2 * n}\n"} for n in (1, 2, 3, 4))
    return task(
        program, language="cpp", kind="stdio", entries=entries, files=FILES, outputs="words",
        checker=checker or {}, groups=groups, limits=limits or {"cpu_s": 0.5},
    )  # fmt: skip


def on(n, bad):
    return TWICE.replace("return", f"if (n == {n}) {bad}; return")


OLYMPIC = {
    "all": (olympic(TWICE), "correct", "PPPP", 1.0),
    "last wrong": (olympic(on(4, "return 0")), "incorrect", "PPPF", 0.4),
    "first wrong": (olympic(on(1, "return 0")), "incorrect", "FPPP", 0.3),
    "second wrong, first too slow": (
        olympic(on(2, "return 0").replace("{", "{ if (n == 1) for(volatile int i=0;;i=i+1);", 1)),
        "incorrect", "TFP-", 0.0,
    ),  # the fourth test earns nothing by then; that the second is wrong is found out later
    "third aborts": (olympic(on(3, "__builtin_trap()")), "incorrect", "PPC-", 0.1),
    "too much memory once": (
        olympic(
            "#include <cstring>\n" + on(4, "for(;;)memset(new char[1<<24],1,1<<24)"),
            limits={"cpu_s": 2, "memory_mib": 256},
        ),
        "incorrect", "PPPC", 0.4,
    ),
    "no function": (olympic("int other() { return 1; }"), "incorrect", "B", 0.0),
    "checker: all": (olympic(TWICE, CHECKED), "correct", "PPPP", 1.0),
    "checker: half of the last": (
        olympic(on(4, "return 9"), CHECKED), "incorrect", "PPPH", 0.7,
    ),  # 10 + 30 + 60 / 2
    "checker: half, and nothing": (
        olympic(on(4, "return 9").replace("{", "{ if (n == 2) return 0;", 1), CHECKED),
        "incorrect", "PFPH", 0.0,
    ),
    "checker: thirds are rounded": (
        olympic(TWICE, {"checker.cpp": '#include <cstdio>\nint main(){puts("0.33333");}'}),
        "incorrect", "HHHH", 0.3333,
    ),  # 3.33 + 10.00 + 20.00
    "checker without points: half is not right": (
        olympic(on(4, "return 9"), CHECKED, groups=()), "incorrect", "PPPH", None,
    ),
    "odd points add up": (
        olympic(TWICE, groups=[{"points": 0.1 + n / 3, "entries": [n]} for n in range(4)]),
        "correct", "PPPP", 1.0,
    ),
    "checker does not compile": (olympic(TWICE, {"checker.cpp": "int main("}), "error", "KKKK", None),
    "checker says nothing": (
        olympic(TWICE, {"checker.cpp": "int main(){}"}), "error", "KKKK", None,
    ),
    "checker says too much": (
        olympic(TWICE, {"checker.cpp": '#include <cstdio>\nint main(){puts("100");}'}),
        "error", "KKKK", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLYMPIC)
def test_code_with_a_grader_earns_points(code, name):
    if not shutil.which("g++", path="/usr/bin"):
        pytest.skip("g++ is not installed")
    asked, outcome, letters, share = OLYMPIC[name]
    (verdict,) = code.verify([asked])
    assert verdict.outcome == outcome, verdict
    told = json.loads(verdict.detail.partition(": ")[2] if outcome == "error" else verdict.detail)
    assert told["tests"] == letters
    assert told.get("share") == (share if share is None else pytest.approx(share))


def test_code_never_meets_what_is_expected_or_the_checker(code):
    if not shutil.which("g++", path="/usr/bin"):
        pytest.skip("g++ is not installed")
    # Copies whatever else lies beside it to its output, which the checker would call right.
    looks = """
    #include <filesystem>
    #include <iostream>
    int twice(int n){
      for (auto& one : std::filesystem::recursive_directory_iterator("."))
        std::cout << one.path().filename() << " ";
      return 2 * n;
    }"""
    told = {"checker.cpp": '#include <fstream>\n#include <iostream>\nint main(int, char** n){'
            'std::string s, all; std::ifstream in(n[3]); while (in >> s) all += s;'
            'std::cout << (all.find("expected") + all.find("checker") == 2 * std::string::npos);}'}  # fmt: skip
    (verdict,) = code.verify([olympic(looks, told)])
    assert (verdict.outcome, json.loads(verdict.detail)["share"]) == ("correct", 1.0)


def test_code_reads_an_input_that_is_larger_than_files_usually_may_be(code):
    program = "import sys\nprint(len(sys.stdin.read()))"
    entries = ({"stdin": "x" * (20 << 20), "stdout": f"{20 << 20}"},)
    (verdict,) = code.verify([task(program, kind="stdio", entries=entries)])
    assert verdict.outcome == "correct", verdict.detail


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"files": {"../x.h": "1"}}, "'../x.h' is no name for a file"),
        ({"files": {"main.cpp": "1"}}, "'main.cpp' is no name for a file"),
        ({"checker": {"check.cpp": "1"}}, "the checker has no checker.cpp"),
        ({"language": "python", "files": {"x.h": "1"}}, "files are there for cpp, not for python"),
        ({"groups": [{"points": 1, "entries": [1]}]}, "a group names entry 1"),
        ({"groups": [{"points": 1, "entries": [-1, 0]}]}, "a group names entry -1"),
        ({"groups": [{"points": 0, "entries": [0]}]}, "groups.0.points: Input should be greater"),
    ],
)
def test_code_graders_that_make_no_sense_are_refused(fields, problem):
    tests = {"kind": "stdio", "language": "cpp", "entries": [{"stdin": "", "stdout": ""}], **fields}
    with pytest.raises(ValueError, match=problem):
        read_tests(json.dumps(tests))


def test_code_exports_cannot_say_graders_and_points():
    entries = ({"stdin": "1", "stdout": "2"},)
    points = Tests(kind="stdio", entries=entries, groups=({"points": 1, "entries": (0,)},))
    with pytest.raises(ValueError, match="points"):
        points.inputs_and_outputs()
