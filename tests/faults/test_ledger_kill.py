"""Nothing paid for is lost or bought twice: killed buyers, rival buyers, full disks."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.killed import buy_all, killed, read_keys, requests
from tests.servers import Seen, TeacherServer, answer, hang

from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.ledger import Ledger

N = 200
IN_FLIGHT = 8
# Each seed kills one purchase about ten times. STILLROOM_KILL_SEEDS=200 takes some minutes.
SEEDS = int(os.environ.get("STILLROOM_KILL_SEEDS", "2"))

BUYER = """
import sys
from stillroom.errors import StillroomError
from stillroom.models.buy import buy
from stillroom.models.chat import Message, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.openai import OpenAIModel

path, url, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = OpenAIModel("m", url, concurrency=8, pause_s=0.01)
requests = (Request("m", (Message("user", f"{i}?"),), Sampling()) for i in range(n))

def used(request, reply):
    print(request.key.hex(), flush=True)

try:
    with Ledger(path) as ledger:
        bought = buy(requests, model=model, ledger=ledger, on_reply=used)
        print(bought.calls, bought.reused, bought.failures)
except StillroomError as error:
    sys.exit(str(error))
"""


def keys(n: int = N) -> list[bytes]:
    return [request.key for request in requests(n)]


@contextmanager
def buyer(path: Path, server: TeacherServer, n: int = N) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BUYER, str(path), server.url, str(n)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for a buyer that should succeed, and return the lines that it printed."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_kill_at_random_moments_loses_nothing_and_repeats_only_what_was_in_flight(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    path, used = tmp_path / "ledger", tmp_path / "used"
    kills = 0
    with TeacherServer(answer(latency_s=0.005)) as server:
        while (aim := server.total + draw.randint(1, 40)) < N:
            with killed(buy_all, path, server.url, N, 1, used):
                server.wait_until(TeacherServer.seen(aim))
                time.sleep(draw.random() * 0.01)
            kills += 1
            with Ledger(path) as ledger:
                assert ledger.missing(read_keys(used)) == set()
                assert list(ledger.verify()) == []
        with killed(buy_all, path, server.url, N, 1, used) as process:
            process.join(120)
            assert process.exitcode == 0
        with Ledger(path) as ledger:
            assert ledger.missing(keys()) == set()
            assert ledger.stats().total.completions == N
        assert kills >= 4
        assert len(server.calls) == N
        assert server.total - N <= kills * IN_FLIGHT
    with Ledger(path) as ledger:
        ledger.claim_many([bytes(16)])  # whoever buys sweeps after those that were killed
    left = sorted(file.suffix for file in path.iterdir())
    assert left == [".journal", ".sqlite"]


def test_interrupt_keeps_everything_received(tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    async def half_held(seen: Seen, request: web.Request) -> web.StreamResponse:
        return await (answer() if seen.number < 50 else server.held)(seen, request)

    with TeacherServer() as server:
        server.behave = half_held
        with buyer(path, server) as process:
            server.wait_until(lambda s: s.total == 50 + IN_FLIGHT)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        assert "KeyboardInterrupt" in err
        with Ledger(path) as ledger:
            assert ledger.stats().total.completions == len(out.split()) == 50
        server.release()
        with buyer(path, server) as process:
            assert finish(process)[-1] == "150 50 0"
        assert server.total == N + IN_FLIGHT


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with (
        TeacherServer(answer(latency_s=0.005)) as server,
        buyer(path, server, 60) as one,
        buyer(path, server, 60) as two,
    ):
        totals = [finish(process)[-1].split() for process in (one, two)]
        assert server.total == 60
    assert sum(int(calls) for calls, _, _ in totals) == 60
    assert all(int(calls) + int(reused) == 60 for calls, reused, _ in totals)
    with Ledger(path) as ledger:
        assert ledger.missing(keys(60)) == set()


def test_work_of_a_killed_rival_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with TeacherServer(hang) as server, buyer(path, server, 20) as hung:
        server.wait_until(lambda s: s.in_flight == IN_FLIGHT)
        server.behave = answer()
        with buyer(path, server, 20) as heir:
            server.wait_until(lambda s: s.total == 20)  # all but what the first has claimed
            hung.kill()
            assert finish(heir)[-1] == "20 0 0"
        assert server.total == 20 + IN_FLIGHT


FILLER = """
import resource, signal, sys
from stillroom.errors import StoreError
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.ledger import Ledger

path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with Ledger(path) as ledger:
    try:
        for i in range(10_000):
            text = "".join(chr(0x4E00 + (i * j * 7919) % 20000) for j in range(1000))
            request = Request("m", (Message("user", f"{i}?"),), Sampling())
            ledger.put(request, Completion(None, text, "stop", 1, 1))
            print(request.key.hex(), flush=True)
    except StoreError as error:
        print(error)
    else:
        print("never full")
"""


def fill(path: Path, limit: int) -> tuple[set[bytes], str]:
    """Put completions until there is no room; return those that were kept, and the message."""
    run = subprocess.run(
        [sys.executable, "-c", FILLER, str(path), str(limit)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    *kept, message = run.stdout.splitlines()
    return {bytes.fromhex(key) for key in kept}, message


def test_file_size_limit_keeps_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    kept, message = fill(path, 600_000)
    assert message.startswith(str(path))
    assert ": the disk refused to read or write (" in message
    assert len(kept) > 20
    with Ledger(path) as ledger:
        assert ledger.missing(kept) == set()
        assert list(ledger.verify()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        path = tmp_path / "ledger"
        kept, message = fill(path, 0)
        assert message.startswith(str(path))
        assert ": the disk is full; " in message
        assert len(kept) > 20
        with Ledger(path) as ledger:
            assert ledger.missing(kept) == set()
            assert list(ledger.verify()) == []
            subprocess.run(["mount", "-o", "remount,size=2m", str(tmp_path)], check=True)
            request = Request("m", (Message("user", "again"),), Sampling())
            assert ledger.put(request, Completion(None, "4", "stop", 1, 1))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
