"""Runs the tests of one program; the part of the code verifier that is inside the sandbox.

Needs Python 3.8 and nothing else; nothing of Stillroom is there. It reads one object from standard
input, in the form of `marshal`, and writes one JSON list for each test to standard output:
``[state, words, value]``. This process executes nothing of the program.
All asserts, calls or test functions
run in one process first; unless all of them pass, each runs again in a process of its own, so that
none sees what another did. Expected outputs and values are never sent here: they are compared
outside. Asserts and test files are executed beside the program, which could, if it meant to,
interfere with them.

Only modules that are part of the interpreter are imported before they are needed: json, re, signal
and the like would take longer than most programs.

States: passed, failed, raised, exited, cpu, wall, memory, crashed, missing, unsupported, and
printed and returned, for what is compared outside.
"""

import _signal as signal
import binascii
import marshal
import os
import select
import sys
import time
from _json import encode_basestring_ascii as quoted

Module = type(sys)
WORDS = 300  # characters of an explanation


class Unsupported(Exception):
    """A test asks for what the driver does not offer."""


class Skip(Exception):
    """A test does not apply."""


def main():
    task = marshal.loads(sys.stdin.buffer.read())
    out = os.fdopen(os.dup(1), "wb", 0)
    empty = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(empty, fd)

    def say(*reply):
        out.write(packed(reply) + b"\n")

    for tool in task.get("needs", ()):
        if not any(os.access(os.path.join(p, tool), os.X_OK) for p in os.get_exec_path()):
            say("missing", tool, None)
            return
    command = task.get("command")
    put(task.get("files", {}))
    if command:
        with open(task["source"], "w", encoding="utf-8", errors="replace") as file:
            file.write(task["code"])
    if task.get("build"):
        state, words, _ = run_test(task, out, lambda: execute(task["build"]), cap=1 << 14, cpu_s=60)
        if state != "passed":
            say("build", words or state, None)
            return
    tests = task["tests"]
    if task["kind"] == "pytest":
        state, words, tests = run_test(task, out, lambda: ("passed", None, discover(task)))
        if state != "passed":
            say(state, words, None)
            return
        if not tests:
            say("unsupported", "no tests in the test file", None)
    if task["kind"] in TOGETHER and len(tests) > 1:
        state, _, values = run_test(
            task, out, lambda: ("passed", None, TOGETHER[task["kind"]](task, tests))
        )
        if state == "passed":
            for value in values or [("passed", None, None)] * len(tests):
                say(*value)
            return
    begin = used()
    hung = failed = 0
    groups = [set(group) for group in task.get("groups", ())]
    for number, test in enumerate(tests):
        # What failed already is only told further for a while; what may pass runs to the end.
        most = task["patience_s"] if failed else task["total_cpu_s"]
        lost = task.get("groups") and not any(number in group for group in groups)
        if used() - begin > most or hung == 2 or lost:
            say("not_run", None, None)
            continue

        def body(test=test):
            if command:
                return execute(command, task.get("address_mib"))
            return KINDS[task["kind"]](task, test)

        state, words, value = run_test(task, out, body, test)
        hung += state == "wall"
        failed += state not in ("passed", "printed", "returned", "wall")
        if state not in ("passed", "printed", "returned", "wall"):
            groups = [group for group in groups if number not in group]  # they earn nothing more
        say(state, words, value)


def packed(reply):
    """Return a reply as JSON."""
    if all(part is None or isinstance(part, str) for part in reply):
        parts = ("null" if part is None else quoted(part) for part in reply)
        return ("[%s]" % ",".join(parts)).encode()
    import json

    return json.dumps(reply).encode()


def unpacked(raw):
    """Read what a test replied: only a list of texts, or JSON."""
    import json

    return json.loads(raw)


def used():
    """Return the CPU seconds of the tests that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def put(files):
    for name, content in files.items():
        with open(name, "wb") as file:
            file.write(content)


def execute(command, address_mib=None):
    if address_mib:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (address_mib << 20, address_mib << 20))
    os.execvp(command[0], command)


def run_test(task, out, body, test=None, cap=0, cpu_s=None):
    """Run the body in a process of its own; return state, words, value."""
    cpu_s = cpu_s or task["cpu_s"]
    stdio = isinstance(test, dict) and "stdin" in test
    if stdio:
        cap = test["cap"]
        put({"stdin": test["stdin"], **test.get("files", {})})
    replies, reply = os.pipe()
    prints, printed = os.pipe()
    before = used()
    pid = os.fork()
    if pid == 0:
        out.close()
        os.close(replies)
        os.close(prints)
        if stdio:
            os.dup2(os.open("stdin", os.O_RDONLY), 0)
        if cap:
            os.dup2(printed, 1)
            if not stdio:
                os.dup2(printed, 2)
        os.close(printed)
        child(body, reply, cpu_s)
    os.close(reply)
    os.close(printed)
    got = {replies: bytearray(), prints: bytearray()}
    status = wait(pid, got, cap, task["wall_s"])
    os.close(replies)
    os.close(prints)
    cpu_used = used() - before
    text = bytes(got[prints])
    if status is None:
        return "wall", None, None
    if cpu_used > cpu_s or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in
                            (signal.SIGPROF, signal.SIGXCPU)):  # fmt: skip
        return "cpu", None, None
    if len(text) > cap and cap:
        return "failed", "more output than was expected", None
    if os.WIFSIGNALED(status):
        from signal import Signals

        return "crashed", Signals(os.WTERMSIG(status)).name, None
    if not got[replies]:  # the program of a command, or one that left by os._exit
        code = os.WEXITSTATUS(status)
        if stdio and code == 0:
            return "printed", None, binascii.b2a_base64(text, newline=False).decode()
        if task.get("command") and not stdio and code == 0:
            return "passed", None, None
        words = text.decode("utf-8", "replace")[-WORDS:] if not stdio else ""
        return "exited", ("status %d %s" % (code, words)).strip(), None
    try:
        plain_pass = bytes(got[replies]) == PASSED
        state, words, value = (
            ("passed", None, None) if plain_pass else unpacked(bytes(got[replies]))
        )
    except ValueError:
        return "crashed", "the reply was cut off", None
    if stdio and state == "passed":
        return "printed", None, binascii.b2a_base64(text, newline=False).decode()
    return state, words, value


def wait(pid, got, cap, wall_s):
    """Collect what a test says until it ends; return its status, or None if it was too slow."""
    deadline = time.monotonic() + wall_s
    replies, prints = got
    limits = {replies: 1 << 22, prints: cap + 1}
    is_open = set(got)
    while True:
        ready, _, _ = select.select(is_open, [], [], 0.05) if is_open else ((), (), ())
        for fd in ready:
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                is_open.discard(fd)
            got[fd] += chunk[: max(0, limits[fd] - len(got[fd]))]
        # What a test has started may hold its pipes for longer than it lives.
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            for fd in is_open:
                while select.select([fd], [], [], 0)[0]:
                    chunk = os.read(fd, 1 << 16)
                    if not chunk or len(got[fd]) >= limits[fd]:
                        break
                    got[fd] += chunk[: limits[fd] - len(got[fd])]
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        if not is_open:
            time.sleep(0.0005)


def child(body, reply, cpu_s):
    """Run the body, send what it says, and end; never returns."""
    answer = None
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        sys.setrecursionlimit(20000)
        answer = body() or ("passed", None, None)
    except MemoryError:
        answer = ("memory", None, None)
    except Skip:
        answer = ("passed", None, None)
    except Unsupported as error:
        answer = ("unsupported", str(error)[:WORDS], None)
    except AssertionError as error:
        answer = ("failed", words_of(error), None)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        known = getattr(sys, "stdlib_module_names", ())
        state = "raised" if name in known or name in ("solution", "") else "missing"
        answer = (state, name if state == "missing" else words_of(error), None)
    except SystemExit as error:
        clean = error.code in (None, 0)
        answer = ("exit0", None, None) if clean else ("exited", words_of(error), None)
    except BaseException as error:
        answer = ("raised", words_of(error), None)
    try:
        sys.stdout.flush()
        if answer[0] == "exit0":
            # A program may end by sys.exit(); a test that is left so was not passed.
            answer = ("passed", None, None) if STDIO[0] else ("exited", "status 0", None)
        left = packed(answer)
        while left:
            left = left[os.write(reply, left):]  # fmt: skip
    finally:
        os._exit(0)


STDIO = [False]
PASSED = packed(("passed", None, None))


def words_of(error):
    """Describe an exception in one line, without the addresses of objects."""
    try:
        text = "%s: %s" % (type(error).__name__, error)
    except Exception:
        text = type(error).__name__
    import re

    return re.sub(r"\b0x[0-9a-fA-F]+", "0x", text).rstrip(": ")[:WORDS]


def solution(task, name="solution"):
    """Execute the program as a module."""
    module = Module(name)
    module.__file__ = "solution.py"
    sys.modules[name] = module
    if not os.path.exists("solution.py"):
        with open("solution.py", "w", encoding="utf-8", errors="replace") as file:
            file.write(task["code"])
    exec(compile(task["code"], "solution.py", "exec"), module.__dict__)
    return module


def run_assert(task, test):
    exec(compile(test, "test.py", "exec"), prepared(task))


def run_stdio(task, test):
    STDIO[0] = True
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    solution(task, "__main__")


def prepared(task):
    """Execute the program and the setup; return their names."""
    names = solution(task).__dict__
    exec(compile(task.get("setup") or "", "setup.py", "exec"), names)
    return names


def run_call(task, test):
    return call(task, test, prepared(task))


def call(task, test, names):
    import json

    found = names
    path = task["function"].split(".")
    if path[0] not in names and isinstance(names.get("Solution"), type):
        path.insert(0, "Solution")
    for part in path:
        if found is names and part in names:
            found = names[part]
        elif found is not names and hasattr(found, part):
            found = getattr(found, part)
        else:
            return "failed", "the program has no %s" % task["function"], None
        if isinstance(found, type) and part != path[-1]:
            found = found()
    value = found(*test.get("args", ()), **test.get("kwargs", {}))
    try:
        return "returned", None, json.loads(json.dumps(value, default=plain))
    except (TypeError, ValueError) as error:
        return "failed", "the value cannot be compared: %s" % words_of(error), None


def asserts_together(task, tests):
    names = prepared(task)
    for test in tests:
        exec(compile(test, "test.py", "exec"), names)


def calls_together(task, tests):
    names = prepared(task)
    return [call(task, test, names) for test in tests]


def plain(value):
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError("a %s" % type(value).__name__)


# --- test files -----------------------------------------------------------------------------------


def test_module(task):
    if os.environ.get("STILLROOM_REAL_PYTEST") is None:
        sys.modules["pytest"] = small_pytest()
    program = solution(task)
    module = Module("test_solution")
    # Some test files begin with `from solution import *`, others leave it to whoever runs them.
    public = getattr(program, "__all__", None) or [n for n in dir(program) if n[0] != "_"]
    module.__dict__.update((n, getattr(program, n)) for n in public if not n.startswith("test"))
    module.__file__ = "test_solution.py"
    sys.modules["test_solution"] = module
    exec(compile(task["file"], "test_solution.py", "exec"), module.__dict__)
    return module


def discover(task):
    """Name the tests: path, and the case of a parametrized one."""
    found = []

    def add(path, function):
        cases = getattr(function, "cases", None)
        for number in range(len(cases)) if cases is not None else [None]:
            found.append([path, number])

    for name, value in list(test_module(task).__dict__.items()):
        if isinstance(value, type):
            unit = any(base.__name__ == "TestCase" for base in value.__mro__)
            if unit or name.startswith("Test"):
                for inner in dir(value):
                    if inner.startswith("test") and callable(getattr(value, inner)):
                        add("%s.%s" % (name, inner), getattr(value, inner))
        elif name.startswith("test") and type(value) is type(used):
            add(name, value)
    return found


def run_file_test(task, test):
    file_test(test, test_module(task))


def file_together(task, tests):
    module = test_module(task)
    for test in tests:
        file_test(test, module)


def file_test(test, module):
    path, number = test
    owner, _, name = path.rpartition(".")
    if owner:
        kind = getattr(module, owner)
        if any(base.__name__ == "TestCase" for base in kind.__mro__):
            kind(name).debug()
            return
        instance = kind()
        function = getattr(instance, name)
        if hasattr(instance, "setup_method"):
            setup = instance.setup_method
            setup(*[function][: setup.__code__.co_argcount - 1])
    else:
        function = getattr(module, name)
    if hasattr(function, "skipped"):
        return
    given = dict(function.cases[number]) if number is not None else {}
    finish = []
    call_with_fixtures(function, given, module, finish)
    for generator in reversed(finish):
        next(generator, None)


def call_with_fixtures(function, given, module, finish):
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    if hasattr(function, "__self__"):
        names = names[1:]
    optional = len(function.__defaults__ or ())
    needed = names[: len(names) - optional] if optional else names
    arguments = {name: given[name] for name in names if name in given}
    for name in needed:
        if name not in arguments:
            arguments[name] = fixture_value(name, module, finish)
    return function(**arguments)


def fixture_value(name, module, finish):
    found = next((v for v in module.__dict__.values() if getattr(v, "fixture", None) == name), None)
    if found is None:
        if name == "tmp_path":
            import pathlib
            import tempfile

            return pathlib.Path(tempfile.mkdtemp(dir="."))
        if name == "capsys":
            return Captured()
        raise Unsupported("the fixture %s is not offered" % name)
    value = call_with_fixtures(found, {}, module, finish)
    if hasattr(value, "gi_frame"):
        finish.append(value)
        return next(value)
    return value


class Captured:
    def __init__(self):
        import io

        self.make = io.StringIO
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()

    def readouterr(self):
        import collections

        both = collections.namedtuple("Output", "out err")(
            sys.stdout.getvalue(), sys.stderr.getvalue()
        )
        sys.stdout, sys.stderr = self.make(), self.make()
        return both


def small_pytest():
    """Make the part of pytest that test files use most; the rest is unsupported, and says so."""
    import re

    made = Module("pytest")

    class Raises:
        def __init__(self, expected, match=None):
            self.expected, self.match, self.value = expected, match, None

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            if kind is None:
                raise AssertionError("DID NOT RAISE %r" % (self.expected,))
            if not issubclass(kind, self.expected):
                return False
            self.value, self.type = error, kind
            if self.match is not None and not re.search(self.match, str(error)):
                raise AssertionError("%r does not match %r" % (str(error), self.match))
            return True

    def raises(expected, *arguments, match=None, **named):
        if arguments:
            with Raises(expected, match) as found:
                arguments[0](*arguments[1:], **named)
            return found
        return Raises(expected, match)

    class approx:
        __hash__ = None

        def __init__(self, expected, rel=None, abs=None, nan_ok=False):
            self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

        def __eq__(self, other):
            return self.near(other, self.expected)

        def __repr__(self):
            return "approx(%r)" % (self.expected,)

        def near(self, value, expected):
            if isinstance(expected, dict):
                return (
                    isinstance(value, dict)
                    and set(value) == set(expected)
                    and all(self.near(value[key], expected[key]) for key in expected)
                )
            if isinstance(expected, (list, tuple)):
                return len(value) == len(expected) and all(map(self.near, value, expected))
            if value == expected:
                return True
            try:
                if value != value and expected != expected:
                    return self.nan_ok
                if abs(expected) == float("inf"):
                    return False
                far = 1e-12 if self.abs is None else self.abs
                if self.rel is not None or self.abs is None:
                    far = max(far, (1e-6 if self.rel is None else self.rel) * abs(expected))
                return abs(value - expected) <= far
            except TypeError:
                return False

    def parametrize(names, values, ids=None, indirect=False):
        if isinstance(names, str):
            names = [name.strip() for name in names.split(",")]

        def mark(function):
            cases = []
            for value in values:
                row = getattr(value, "values_of_case", None)
                if row is None:
                    row = [value] if len(names) == 1 else list(value)
                cases.append(dict(zip(names, row)))
            before = getattr(function, "cases", None)
            if before is not None:
                cases = [dict(one, **other) for one in cases for other in before]
            function.cases = cases
            return function

        return mark

    class Mark:
        def __init__(self):
            self.parametrize = parametrize

        def skip(self, *arguments, **named):
            return self._skip(*arguments)

        def skipif(self, condition, **named):
            return self._skip if condition else (lambda function: function)

        def _skip(self, *arguments):
            if arguments and callable(arguments[0]):
                arguments[0].skipped = True
                return arguments[0]
            return self._skip

        def __getattr__(self, name):
            def mark(*arguments, **named):
                if arguments and callable(arguments[0]):
                    return arguments[0]
                return lambda function: function

            return mark

    def fixture(*arguments, **named):
        def mark(function):
            function.fixture = named.get("name", function.__name__)
            return function

        return mark(arguments[0]) if arguments and callable(arguments[0]) else mark

    class Case:
        def __init__(self, *values, **named):
            self.values_of_case = list(values)

    def fail(reason="", pytrace=True):
        raise AssertionError(reason)

    def skip(reason="", **named):
        raise Skip(reason)

    made.raises, made.approx, made.fixture = raises, approx, fixture
    made.mark, made.param, made.fail, made.skip = Mark(), Case, fail, skip
    made.main = lambda *arguments, **named: 0

    def missing(name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise Unsupported("pytest.%s is not offered" % name)

    made.__getattr__ = missing
    return made


KINDS = {"asserts": run_assert, "stdio": run_stdio, "calls": run_call, "pytest": run_file_test}
TOGETHER = {"asserts": asserts_together, "calls": calls_together, "pytest": file_together}

if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is left to write, and taking an interpreter down takes its time
