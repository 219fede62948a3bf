"""Whole runs under fire: kills, two processes at once, interrupts, a full disk."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web
from tests.killed import killed, stillroom
from tests.kitchen import Kitchen, rows
from tests.servers import Seen, TeacherServer, answer, hang

from stillroom.recipe.make import read_paths
from stillroom.store.store import Store

CONCURRENCY = 8
KILLS = 5
# Each seed kills one run up to five times. More: STILLROOM_KILL_SEEDS=40.
SEEDS = int(os.environ.get("STILLROOM_KILL_SEEDS", "2"))
QUESTIONS = 60
DRAWS = 3

RECIPE = """\
name: fired
models: {teacher: {name: some/model, temperature: 0.9, max_tokens: 99, reasoning: true}}
domains:
  math:
    - mix:
        file: [source: {file: questions.jsonl, licence: cc0-1.0}]
        made: [source: {procedural: {n: 40, flaws: {near_duplicate: 0.2}}}]
    - dedup: exact
    - label: length
    - take: 80
    - answer: {draws: 3}
    - verify: math
    - keep: {where: {verdict: correct}}
"""


async def teach(seen: Seen, request: web.Request) -> web.StreamResponse:
    """Answer by the question and the seed alone; right in about two of three draws."""
    question = seen.body["messages"][-1]["content"]
    number = int(hashlib.sha256(f"{question}{seen.body['seed']}".encode()).hexdigest(), 16)
    right = question.split()[-1].rstrip("?") if number % 3 else "wrong"
    words = f"<think>thought {number % 1000}</think>The answer is \\boxed{{{right}}}."
    return await answer(words, latency_s=0.01 + number % 7 * 0.005)(seen, request)


@pytest.fixture
def kitchen(tmp_path):
    lines = [json.dumps({"question": f"Echo {i}?", "reference": str(i)}) for i in range(QUESTIONS)]
    (tmp_path / "questions.jsonl").write_text("\n".join([*lines, "{torn", lines[0]]))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    with TeacherServer(teach) as server:
        (tmp_path / "models.toml").write_text(
            f'[models."some/model"]\nengine = "openai"\nbase_url = "{server.url}"\n'
            f"concurrency = {CONCURRENCY}\n"
        )
        yield tmp_path, server


def words(store: str = "store", out: str = "out") -> list[str]:
    return ["run", "recipe.yaml", "--store", store, "--out", out, "--models", "models.toml",
            "--workers", "1"]  # fmt: skip


def ran(folder: Path, store: str = "store", out: str = "out") -> float:
    """Run the recipe in a warm process; return the seconds that it took."""
    started = time.monotonic()
    with killed(stillroom, folder, *words(store, out)) as process:
        process.join(120)
        assert process.exitcode == 0, (folder / "said.txt").read_text()
    return time.monotonic() - started


def start(folder: Path, store: str = "store", out: str = "out") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stillroom", *words(store, out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_runs_end_in_the_same_bytes_and_buy_nothing_twice(kitchen, seed):
    folder, server = kitchen
    with killed(str) as process:  # the first one waits for the imports of all
        process.join(120)
    calm_length = ran(folder, "calm-store", "calm")
    wanted = server.total
    assert wanted >= 60 * DRAWS
    server.calls.clear()
    draw = random.Random(seed)
    kills = 0
    for share in sorted(draw.uniform(0.05, 0.95) for _ in range(KILLS)):
        with killed(stillroom, folder, *words()) as process:
            process.join(share * calm_length)
            kills += process.exitcode is None
    ran(folder)
    assert kills
    assert files(folder / "out") == files(folder / "calm")
    repeated = server.total - wanted
    assert 0 <= repeated <= kills * CONCURRENCY
    assert len(server.calls) == wanted


KILLED = """
import os, pathlib, signal, sys
import stillroom.store.store as store
from tests.kitchen import Kitchen

done = getattr(store, sys.argv[1])
def die(path):
    if path.name == "drops.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    return done(path)
setattr(store, sys.argv[1], die)
Kitchen(pathlib.Path("store")).chain(sys.stdin.read())
"""


@pytest.mark.parametrize("moment", ["file_digest", "sync"])
def test_kill_in_the_middle_of_a_file_of_drops_costs_that_step_only(tmp_path, moment):
    lines = [json.dumps({"question": f"Echo {i % 50}?"}) for i in range(90)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    steps = f"- source: {{file: {tmp_path / 'q.jsonl'}}}\n- dedup: exact\n- take: 20"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.run(
        [sys.executable, "-c", KILLED, moment], cwd=tmp_path, env=environment, input=steps,
        text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (-signal.SIGKILL, "")
    assert [p.name for p in (tmp_path / "store").glob("building/*/*.parquet")] == ["drops.parquet"]
    calm, resumed = Kitchen(tmp_path / "calm"), Kitchen(tmp_path / "store")
    table = resumed.chain(steps)
    assert resumed.fresh() == ["math.dedup", "math.take"]
    assert rows(table) == rows(calm.chain(steps))
    assert table.height == 20
    drops = {p.relative_to(tmp_path / "store") for p in (tmp_path / "store").rglob("drops.parquet")}
    assert len(drops) == 2
    for path in drops:
        assert (tmp_path / "store" / path).read_bytes() == (tmp_path / "calm" / path).read_bytes()


def test_two_processes_on_one_store_share_the_work(kitchen):
    folder, server = kitchen
    one, two = start(folder, out="one"), start(folder, out="two")
    finish(one)
    finish(two)
    assert files(folder / "one") == files(folder / "two")
    assert set(server.calls.values()) == {1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_says_how_to_go_on_and_keeps_what_it_bought(kitchen, number):
    folder, server = kitchen
    process = start(folder)
    server.wait_until(lambda s: s.total >= 40)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == (
        "Stopped. What was finished and paid for is kept; the same command goes on from here."
    )
    finish(start(folder))
    assert sum(n - 1 for n in server.calls.values()) <= CONCURRENCY


def test_interrupt_does_not_wait_for_an_answer(kitchen):
    folder, server = kitchen
    server.behave = hang
    process = start(folder)
    try:
        server.wait_until(server.seen(CONCURRENCY))
        time.sleep(0.5)  # by now nothing but an answer would wake it
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err.strip()[:8]) == (130, "Stopped.")


def test_second_run_asks_nothing_and_rewrites_nothing(kitchen):
    folder, server = kitchen
    finish(start(folder))
    calls = server.total
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*")}
    assert "found in the store" in finish(start(folder))
    assert server.total == calls
    assert {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*")} == stamps


def test_moved_store_stays_valid(kitchen):
    folder, server = kitchen
    finish(start(folder))
    calls = server.total
    (folder / "store").rename(folder / "moved")
    finish(start(folder, store="moved"))
    assert server.total == calls
    assert len(read_paths(Store(folder / "moved"), "fired")) == 9


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_is_one_message_and_loses_nothing(kitchen):
    folder, server = kitchen
    disk = folder / "disk"
    disk.mkdir()
    size = 300  # kB; too small for the whole run, enough for its beginning
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk],
                      check=False, capture_output=True).returncode:  # fmt: skip
        pytest.skip("this machine does not let tests mount a disk")
    try:
        _, err = (process := start(folder, store="disk/store")).communicate(timeout=60)
        assert process.returncode == 1
        assert err.count("\n") == 1
        assert "disk" in err
        assert "Traceback" not in err
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        finish(start(folder, store="disk/store"))
        repeated = server.total - len(server.calls)
        assert repeated <= CONCURRENCY
        finish(start(folder, store="calm-store", out="calm"))
        assert files(folder / "out") == files(folder / "calm")
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
