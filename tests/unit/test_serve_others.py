"""`serve vllm` and `serve sglang`: servers of other programs, started, watched and ended."""

import importlib.resources
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from stillroom.cli import cli
from stillroom.errors import ModelError
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger
from stillroom.models.supervise import Launch, Patience, Supervisor

# Stands for vLLM: takes its flags, starts a worker as it does, and tells who it is.
STAND_IN = """
import http.server, os, subprocess, sys, time
flags = dict(zip(sys.argv, sys.argv[1:]))
folder, port = sys.argv[1], int(flags["--port"])
if os.path.exists(f"{folder}/broken"):
    said = open(f"{folder}/broken").read()
    print(said or "no memory left")
    open(f"{folder}/starts", "a").write(".")
    sys.exit(2 if "arguments" in said else 3)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(f"{folder}/pids", "a").write(f"{os.getpid()} {worker.pid}\\n")
open(f"{folder}/gpus", "a").write(os.environ.get("CUDA_VISIBLE_DEVICES", "-") + "\\n")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404); self.end_headers()
    def log_message(self, *_): pass
time.sleep(0.3)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Running:
    """A supervisor in a process of its own, with stand-ins for servers."""

    def __init__(
        self, folder: Path, *options: str, program: str = "vllm", model: str = "some/model"
    ) -> None:
        self.folder = folder
        (folder / "stand_in.py").write_text(STAND_IN)
        executable = f"{sys.executable} {folder / 'stand_in.py'} {folder}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stillroom", "serve", program, model,
             "--executable", executable, "--logs", str(folder / "logs"), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip

    def pids(self) -> list[tuple[int, int]]:
        file = self.folder / "pids"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(a), int(b)) for a, b in (line.split() for line in lines)]

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def until_healthy(self) -> str:
        assert self.process.stdout is not None
        lines = []
        while not lines or "are healthy" not in lines[-1]:
            lines.append(self.process.stdout.readline())
            assert lines[-1], self.process.communicate()
        return "".join(lines)

    def alive(self) -> list[int]:
        return [pid for pair in self.pids() for pid in pair if _alive(pid)]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*options: str, **which: str) -> Running:
        running.append(Running(tmp_path, *options, **which))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.communicate()
        for pid in each.alive():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("program", "number"), [("vllm", signal.SIGINT), ("sglang", signal.SIGTERM)]
)
def test_servers_become_healthy_and_none_outlives_the_end(
    start: Callable[..., Running], tmp_path: Path, program: str, number: int
) -> None:
    running = start("--servers", "2", "--write", str(tmp_path / "models.toml"), program=program)
    said = running.until_healthy()
    assert "2 of 2 servers are healthy" in said
    entry = tomllib.loads((tmp_path / "models.toml").read_text())["models"]["some/model"]
    assert entry["engine"] == "openai"
    assert len(set(entry["base_url"])) == 2
    assert load_config(tmp_path / "models.toml").describe("some/model").startswith("openai at")
    assert sorted((tmp_path / "gpus").read_text().split()) == ["0", "1"]
    assert len(running.alive()) == 4
    running.process.send_signal(number)
    running.process.communicate(timeout=60)
    assert running.process.returncode == 130
    assert running.alive() == []


def test_crashed_server_is_started_again_on_its_port(start: Callable[..., Running]) -> None:
    running = start()
    running.until_healthy()
    server, worker = running.pids()[0]
    os.kill(server, signal.SIGKILL)
    running.wait(lambda: len(running.pids()) == 2)
    running.wait(lambda: not _alive(worker))
    running.process.send_signal(signal.SIGTERM)
    _, err = running.process.communicate(timeout=60)
    assert "server 0 ended with status -9; starting it again" in err
    assert err.count("on port ") == 2
    ports = {said.partition(";")[0] for said in err.split("on port ")[1:]}
    assert len(ports) == 1
    assert running.alive() == []


# What vLLM 0.32 says, shortened: the cause first, others that waited for it, and cleaning up.
NO_MEMORY = """\
(APIServer pid=13204) WARNING 11-21 13:38:56 [system_utils.py:255] errors like `OSError: [Errno 24]`
(VllmWorker-0 pid=13354) ERROR 11-21 13:39:43 [multiproc_executor.py:1063] Traceback (most recent):
(VllmWorker-0 pid=13354) ERROR 11-21 13:39:43 [multiproc_executor.py:1063]     raise ValueError(
(VllmWorker-0 pid=13354) ERROR 11-21 13:39:43 [multiproc_executor.py:1063] ValueError: Available \
memory on node 0 (21.31/23.21 GiB) is less than requested memory for kv (400.0 GiB).
(EngineCore pid=13261) ERROR 11-21 13:39:43 [core.py:1510] RuntimeError: Worker failed with error
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
resource_tracker.py:254: UserWarning: There appear to be 1 leaked shared_memory objects
  warnings.warn('resource_tracker: There appear to be %d '
"""
TOO_LONG = """\
Traceback (most recent call last):
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (33000) is greater than the derived max_model_len
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
MISUSE = """\
usage: vllm [-h] [-v]
vllm: error: unrecognized arguments: --no-such-flag 1
"""


@pytest.mark.parametrize(
    ("log", "restarts", "said"),
    [
        ("", 1, "says: no memory left"),
        (NO_MEMORY, 1, "says: ValueError: Available memory on node 0 (21.31/23.21 GiB) is less "
         "than requested memory for kv (400.0 GiB).\n"),
        (TOO_LONG, 1, "Error: 1 validation error for ModelConfig | Value error, User-specified"),
        (MISUSE, 0, "vllm: error: unrecognized arguments: --no-such-flag 1"),
    ],
)  # fmt: skip
def test_server_that_never_starts_is_soon_given_up_with_the_cause(
    start: Callable[..., Running], tmp_path: Path, log: str, restarts: int, said: str
) -> None:
    (tmp_path / "broken").write_text(log)
    running = start("--restarts", "2")
    _, err = running.process.communicate(timeout=60)
    assert running.process.returncode == 1
    assert said in err
    number = "1 restart;" if restarts else "0 restarts;"
    assert f"after {number} expected it to serve" in err
    assert (tmp_path / "starts").read_text() == "." * (restarts + 1)


def test_server_that_has_worked_is_started_as_often_as_said(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    running = start("--restarts", "2")
    running.until_healthy()
    (tmp_path / "broken").touch()
    os.kill(running.pids()[0][0], signal.SIGKILL)
    _, err = running.process.communicate(timeout=60)
    assert "vllm: server 0 ended with status 3, after 2 restarts; expected it to serve" in err
    assert err.rstrip().endswith("no memory left")


def test_server_that_is_never_healthy_is_given_up(start: Callable[..., Running]) -> None:
    running = start("--start-timeout", "0.1")
    _, err = running.process.communicate(timeout=60)
    assert "server 0 not healthy after 0.1 s" in err
    assert running.alive() == []


def test_killed_supervisor_takes_its_servers_along(start: Callable[..., Running]) -> None:
    running = start()
    running.until_healthy()
    server, _ = running.pids()[0]
    running.process.kill()
    running.process.communicate()
    deadline = time.monotonic() + 30
    while _alive(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_dry_run_prints_the_commands_and_starts_nothing(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "stillroom", "serve", "vllm", "Qwen/QwQ-32B", "--dry-run",
         "--gpus-each", "4", "--context", "32768", "--reasoning-parser", "deepseek_r1",
         "--", "--enforce-eager"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    ).stdout  # fmt: skip
    command, _, lines = said.partition("\n\n")
    assert command.startswith("vllm serve Qwen/QwQ-32B --served-model-name Qwen/QwQ-32B --host ")
    assert "--tensor-parallel-size 4 --max-model-len 32768" in command
    assert command.endswith("--reasoning-parser deepseek_r1 --enforce-eager")
    assert tomllib.loads(lines)["models"]["Qwen/QwQ-32B"]["engine"] == "openai"
    assert list(tmp_path.iterdir()) == []


def test_absent_program_is_one_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stillroom", "serve", "vllm", "m", "--executable", "no-such-vllm"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "no-such-vllm: no such program; expected vllm. Install it, best in an environment of its "
        "own, and name its command with --executable.\n"
    )


def test_sglang_is_told_the_same_in_its_own_words() -> None:
    command = Launch("sglang", "m", executable=("sgl",), gpus_each=2, context=100).command(7)
    assert command == [
        "sgl", "--model-path", "m", "--served-model-name", "m", "--host", "127.0.0.1",
        "--port", "7", "--tp", "2", "--context-length", "100", "--mem-fraction-static", "0.9",
    ]  # fmt: skip


LOCAL = """
import sys
from stillroom.cli import main
flags = dict(zip(sys.argv, sys.argv[1:]))
main(["serve", "local", "stillroom/teacher-1", "--port", flags["--port"], "--threads", "1"])
"""


def test_a_real_server_behind_the_supervisor_answers(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """`serve local` stands for vLLM: it takes a port, has /health, and really answers."""
    (tmp_path / "local.py").write_text(LOCAL)
    executable = f"{sys.executable} {tmp_path / 'local.py'}"
    toml = tmp_path / "models.toml"
    running = start("--executable", executable, "--write", str(toml))
    running.until_healthy()
    toml.write_text(toml.read_text() + 'served_name = "stillroom/teacher-1"\n')
    request = Request("some/model", (Message("user", "What is 2+2?"),), Sampling(0.0, None, 64))
    [(_, reply)] = load_config(toml).open("some/model").complete([request])
    assert isinstance(reply, Completion)
    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=60)
    assert running.process.returncode == 130


TRANSFORMERS = """
import os, sys
flags = dict(zip(sys.argv, sys.argv[1:]))
os.environ["OMP_NUM_THREADS"] = "1"  # the model is too small to share
os.execv(sys.executable, [
    sys.executable, "-m", "transformers.cli.transformers", "serve", flags["serve"],
    "--host", flags["--host"], "--port", flags["--port"], "--device", "cpu",
])
"""
RECIPE = """\
name: served
models: {{teacher: {{name: {model}, temperature: 0.9, max_tokens: 96, reasoning: true}}}}
domains:
  math:
    - source: {{procedural: {{n: 2}}}}
    - answer: {{draws: 3}}
"""


@pytest.mark.slow
def test_transformers_serve_is_a_server_like_others(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """It knows neither n nor a list of models, and splits the thinking off."""
    for needed in ("transformers", "fastapi", "uvicorn"):
        pytest.importorskip(needed, reason="`transformers serve` needs transformers[serving]")
    model = tmp_path / "teacher"
    with importlib.resources.as_file(
        importlib.resources.files("stillroom.models") / "embedded" / "teacher-1"
    ) as folder:
        shutil.copytree(folder, model)
    # Without it the server takes the likeliest token, whatever temperature it is asked for.
    (model / "generation_config.json").write_text('{"do_sample": true, "eos_token_id": 2}')
    (tmp_path / "as_vllm.py").write_text(TRANSFORMERS)
    toml = tmp_path / "models.toml"
    running = start(
        "--executable", f"{sys.executable} {tmp_path / 'as_vllm.py'}", "--write", str(toml),
        "--start-timeout", "180", "--restarts", "0", model=str(model),
    )  # fmt: skip
    running.until_healthy()
    toml.write_text(toml.read_text() + "choices = 3\nconcurrency = 4\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=model))
    done = CliRunner().invoke(
        cli,
        ["run", str(tmp_path / "recipe.yaml"), "--models", str(toml), "--workers", "1",
         "--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    with Ledger(tmp_path / "store" / "ledger") as ledger:
        kept = [completion for *_, completion in ledger.completions()]
        assert (len(kept), ledger.stats().failures) == (6, {})
    assert all(c.counted and c.completion_tokens > 1 for c in kept)
    assert sum(c.reasoning is not None for c in kept) >= 3
    assert len({(c.reasoning, c.answer) for c in kept}) > 2  # draws of a question differ
    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=60)
    assert running.process.returncode == 130


def test_server_that_does_not_end_while_it_starts_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillroom.models.supervise._STOP_STARTING_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    launch = Launch("vllm", "some/model", executable=(sys.executable, "-c", deaf))
    supervisor = Supervisor(launch, tmp_path, patience=Patience(start_s=1.0, stop_s=600.0))
    with pytest.raises(ModelError, match="not healthy after 1 s"), supervisor.healthy():
        pass
