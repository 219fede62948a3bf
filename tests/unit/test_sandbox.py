"""Sandboxes: what jobs see and say, adapters, and the refusal to run without one."""

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from stillroom.errors import SetupError
from stillroom.sandbox import Job, Limits, open_sandbox, try_backend
from stillroom.sandbox import choose as choices
from stillroom.sandbox.docker import Docker, run_arguments
from stillroom.sandbox.processes import Processes, printable
from stillroom.sandbox.remote import Remote
from stillroom.sandbox.unsandboxed import Unsandboxed


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def sandbox(request):
    opened, tried = try_backend(request.param, workers=3)
    if opened is None:
        pytest.skip(f"{tried.backend}: {tried.problem}")
    with opened:
        yield opened


def python(sandbox, program, **more):
    return Job((sandbox.python, "-I", "-S", "-c", program), **more)


def test_job_reads_its_input_and_files_and_says_how_it_ended(sandbox):
    program = "import sys; print(sys.stdin.read() + open('a').read()); sys.exit(3)"
    (result,) = sandbox.run([python(sandbox, program, stdin=b"in", files={"a": b"file"})])
    assert (result.stdout, result.status, result.hit, result.failure) == (
        b"infile\n",
        3,
        None,
        None,
    )
    assert 0 < result.cpu_s < 60


def test_jobs_come_back_in_order(sandbox):
    jobs = [
        python(sandbox, f"import time; time.sleep({(7 - n) / 50}); print({n})") for n in range(7)
    ]
    assert [int(result.stdout) for result in sandbox.run(jobs)] == list(range(7))


def test_large_input_and_output_pass(sandbox):
    text = b"x" * 3_000_000
    job = python(sandbox, "import sys; sys.stdout.write(sys.stdin.read())", stdin=text,
                 limits=Limits(output_kib=4096))  # fmt: skip
    assert sandbox.run([job])[0].stdout == text


def test_signal_that_ends_a_job_is_said(sandbox):
    (result,) = sandbox.run([python(sandbox, "import os; os.abort()")])
    assert result.status == -6


def test_program_that_is_not_there_is_a_failure_of_the_sandbox(sandbox):
    (result,) = sandbox.run([Job(("no-such-program",))])
    assert result.failure == (
        "the program could not be started: no-such-program: No such file or directory"
    )


def test_without_a_sandbox_code_is_refused(monkeypatch):
    def absent():
        raise SetupError("not installed")

    monkeypatch.setattr(choices, "LOCAL", {"bubblewrap": absent, "landlock": absent})
    with pytest.raises(SetupError) as caught:
        open_sandbox()
    assert "bubblewrap: not installed; landlock: not installed" in str(caught.value)
    assert "--allow-unsandboxed-code" in str(caught.value)
    opened, _ = open_sandbox(allow_unsandboxed=True)
    assert opened.name == "unsandboxed"
    assert not opened.isolates


def test_sandbox_that_does_not_hold_is_refused(monkeypatch):
    monkeypatch.setattr(choices, "LOCAL", {"bubblewrap": Unsandboxed})
    with pytest.raises(SetupError, match="unsandboxed: "):
        open_sandbox()


def test_unknown_sandbox_is_named():
    with pytest.raises(SetupError, match="jail: no such sandbox; expected auto, bubblewrap"):
        open_sandbox("jail")


def test_docker_arguments_close_the_container():
    job = Job(("python3", "-c", "print('a b')"), files={"a": b"\x00"}, limits=Limits(processes=7))
    arguments = run_arguments(job, "image", "name")
    line = " ".join(arguments)
    for wanted in ("--network none", "--read-only", "--cap-drop ALL", "--pids-limit 7",
                   "--user 65534:65534", "--pull never", "no-new-privileges"):  # fmt: skip
        assert wanted in line
    assert arguments[-2:] == [
        "-c", "echo AA== | base64 -d > a && exec python3 -c 'print('\"'\"'a b'\"'\"')'"
    ]  # fmt: skip


STAND_IN = """#!{python}
import os, pathlib, signal, sys, tempfile
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
if words[0] == "version":
    print("24.0")
elif words[0] == "image":
    if words[-1] != "there":
        sys.exit("No such image: " + words[-1])
    print("sha256:0123456789abcdef")
elif words[0] == "run":
    (here / words[words.index("--name") + 1]).write_text(str(os.getpid()))
    os.chdir(tempfile.mkdtemp(dir=here))
    command = words[words.index("there") + 1:]
    os.execvp(command[0], command)
elif words[0] == "kill":
    os.kill(int((here / words[1]).read_text()), signal.SIGKILL)
    (here / "killed").touch()
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A program that takes the arguments of docker, and starts what they ask for without walls."""
    program = tmp_path / "docker"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_docker_runs_jobs_and_stops_those_that_go_on(docker):
    with Processes(Docker("there"), workers=2) as sandbox:
        assert sandbox.name == "docker 24.0 there 0123456789ab"
        said, written, waiting = sandbox.run(
            [
                Job(("cat",), b"one"),
                Job(("cat", "left"), files={"left": b"two"}),
                Job(("sleep", "600"), limits=Limits(wall_s=1.0)),
            ]
        )
    assert (said.stdout, said.status) == (b"one", 0)
    assert (written.stdout, written.status) == (b"two", 0)
    assert waiting.hit == "wall"
    assert (docker / "killed").exists()


def test_docker_without_its_image_is_one_message(docker):
    with pytest.raises(SetupError, match="image inspect: No such image: elsewhere"):
        Docker("elsewhere")


class _Service(BaseHTTPRequestHandler):
    def do_GET(self):
        self._reply({"name": "test 1", "python": "python3"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["command"] == ["broken"]:
            self.send_error(400)
            return
        done = Processes(Unsandboxed()).run([Job(("cat",), base64.b64decode(body["stdin"]))])[0]
        self._reply({"status": done.status, "stdout": base64.b64encode(done.stdout).decode(),
                     "stderr": "", "cpu_s": 0.5, "hit": None, "failure": None})  # fmt: skip

    def _reply(self, value):
        raw = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def service():
    with HTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_remote_service_runs_jobs(service):
    with Remote(service, workers=2) as remote:
        assert remote.name == "remote test 1"
        found = remote.run([Job(("cat",), b"one"), Job(("broken",)), Job(("cat",), b"two")])
    assert [result.stdout for result in found] == [b"one", b"", b"two"]
    assert found[0].cpu_s == 0.5
    assert "400" in found[1].failure


def test_remote_service_that_does_not_answer_is_one_message():
    with pytest.raises(SetupError, match=r"sandbox http://127\.0\.0\.1:9/: .*expected a service"):
        Remote("http://127.0.0.1:9/")


def test_printable_keeps_no_escapes():
    assert printable(b"a\x1b[31mb\x07\r\n\xff\xc2\x9bc") == "a [31mb � c"
