"""The fake teacher: what it says, what goes wrong by script, and what its stats tell."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_teacher import Teacher, environment, fake_teacher

from stillroom.cli.fake_teacher import fake_teacher as verb
from stillroom.models.fake_teacher import HUGE_BYTES, Fault, Spread


def ask(
    teacher: Teacher, question: str = "2+2?", timeout_s: float = 10.0, key: str = "", **more: object
) -> tuple[int, dict[str, str], bytes]:
    place = urlsplit(teacher.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
    body = {"model": "m", "messages": [{"role": "user", "content": question}], "seed": 1, **more}
    try:
        headers = {"Authorization": f"Bearer {key}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def choices(reply: tuple[int, dict[str, str], bytes]) -> list[dict[str, Any]]:
    assert reply[0] == 200
    found: list[dict[str, Any]] = json.loads(reply[2])["choices"]
    return found


@pytest.fixture(scope="module")
def healthy() -> Iterator[Teacher]:
    with fake_teacher("--price", "1", "2", "--tokens", "6") as teacher:
        yield teacher


def test_same_request_gets_the_same_answer_and_another_another(healthy: Teacher) -> None:
    first = ask(healthy)[2]
    assert ask(healthy)[2] == first
    assert ask(healthy, seed=2)[2] != first
    assert ask(healthy, "3+3?")[2] != first
    assert ask(healthy, model="other")[2] != first
    drawn = [choice["message"]["reasoning_content"] for choice in choices(ask(healthy, n=3))]
    assert len(set(drawn)) == 3


def test_stats_count_calls_answers_tokens_and_money() -> None:
    with fake_teacher("--price", "1", "2", "--tokens", "6") as teacher:
        for question in ("one two", "one two", "one"):
            ask(teacher, question)
        stats = teacher.stats(keys=True)
    assert [stats[n] for n in ("calls", "requests", "answers", "answered_again")] == [3, 2, 3, 1]
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (5, 30)
    assert stats["usd"] == pytest.approx(65e-6)
    assert sorted(stats["by_key"].values()) == [[1, 1], [2, 2]]


def test_what_is_no_request_is_refused_with_words(healthy: Teacher) -> None:
    calls = healthy.stats()["calls"]
    for broken in ({"messages": None}, {"messages": ["?"]}, {"n": "many"}, {"n": 0.5}):
        status, _, body = ask(healthy, **broken)
        assert status == 400
        assert "not a chat completion request" in json.loads(body)["error"]["message"]
    assert healthy.stats()["calls"] == calls


def test_window_and_retry_after_of_a_status() -> None:
    with fake_teacher("--fault", "429@2-3/7") as teacher:
        replies = [ask(teacher) for _ in range(4)]
        assert [status for status, _, _ in replies] == [200, 429, 429, 200]
        assert replies[1][1]["Retry-After"] == "7"
        assert "Retry-After" not in replies[0][1]
        assert teacher.stats()["faults"] == {"429": 2}


def test_share_of_calls_fails_and_by_the_seed_alone() -> None:
    def failed(seed: int) -> list[int]:
        with fake_teacher("--fault", "500=0.4", "--seed", str(seed)) as teacher:
            return [ask(teacher, str(i))[0] for i in range(60)]

    first = failed(1)
    assert 10 <= first.count(500) <= 40
    assert failed(1) == first
    assert failed(2) != first


def test_broken_replies_break_as_they_are_named() -> None:
    kinds = ("drop", "half", "malformed", "wrong_n", "hang", "huge")
    faults = [f"{kind}@{i}-{i}" for i, kind in enumerate(kinds, 1)]
    with fake_teacher(*(word for fault in faults for word in ("--fault", fault))) as teacher:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            ask(teacher)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            ask(teacher)
        with pytest.raises(ValueError, match=r"delimiter|Unterminated|Expecting"):
            json.loads(ask(teacher)[2])
        assert len(choices(ask(teacher, n=4))) in (3, 5)
        with pytest.raises(TimeoutError):
            ask(teacher, timeout_s=0.3)
        assert len(ask(teacher, timeout_s=60)[2]) == HUGE_BYTES
        stats = teacher.wait_until(lambda shown: shown["in_flight"] == 0)
        assert stats["answers"] == 0
        assert len(choices(ask(teacher))) == 1


def test_slow_body_comes_byte_by_byte() -> None:
    with fake_teacher("--fault", "slow@1-1") as teacher:
        place = urlsplit(teacher.url)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}]})
        with socket.create_connection((place.hostname, place.port), timeout=10) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
            seen = b""
            while b"\r\n\r\n" not in seen or seen.endswith(b"\r\n\r\n"):
                seen += connection.recv(4096)
        assert len(seen.partition(b"\r\n\r\n")[2]) <= 3


def test_calls_beyond_slots_and_queue_are_refused_and_idleness_is_told() -> None:
    options = ("--latency", "0.5", "--slots", "2", "--queue", "1")
    with fake_teacher(*options) as teacher, ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda i: ask(teacher, str(i))[0], range(6)))
        assert sorted(replies) == [200, 200, 200, 429, 429, 429]
        stats = teacher.stats()
        assert stats["peak_in_flight"] >= 3
        assert stats["faults"] == {"full": 3}
        assert 0 < stats["idle_share"] < 0.5


def test_key_is_wanted_from_the_environment() -> None:
    with fake_teacher("--api-key-env", "FAKE_KEY", FAKE_KEY="open-sesame") as teacher:
        assert ask(teacher)[0] == 401
        assert ask(teacher, key="open-sesame")[0] == 200
        assert teacher.stats()["calls"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_in_the_middle_of_calls(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "stillroom", "fake-teacher", "--port", "0"]
    command += ["--fault", "hang=0.1", "--fault", "slow=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            teacher = Teacher(process.stdout.readline().partition(";")[0])

            def call(i: int) -> None:
                with suppress(http.client.HTTPException, ConnectionError):
                    while True:
                        with suppress(TimeoutError):
                            ask(teacher, str(i), timeout_s=0.2)

            callers = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(8)]
            for caller in callers:
                caller.start()
            teacher.wait_until(lambda shown: shown["calls"] > 20)
            process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            process.kill()
    for caller in callers:
        caller.join(30)


@given(st.floats(0.01, 10), st.floats(1, 50))
def test_latency_has_the_median_and_percentile_that_it_names(p50: float, spread: float) -> None:
    latency = Spread(p50, p50 * spread)
    assert latency.at(0.5) == pytest.approx(p50)
    assert latency.at(0.99) == pytest.approx(p50 * spread)


@pytest.mark.parametrize("text", ["", "x", "-1", "2,1", "0,3", "1,inf", "1,2,3"])
def test_latency_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        Spread.parse(text)


@pytest.mark.parametrize(
    "text", ["", "nosuch", "200", "600", "429=0", "429=2", "drop@5-4", "429=."]
)
def test_fault_that_makes_no_sense_is_refused_with_the_kinds(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected KIND.*wrong_n"):
        Fault.parse(text)


def test_mistakes_on_the_command_line_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    shown = CliRunner().invoke(verb, ["--fault", "429=7"])
    assert shown.exit_code == 2
    assert "'429=7'; expected KIND" in shown.output
    shown = CliRunner().invoke(verb, ["--api-key-env", "NO_KEY"])
    assert "NO_KEY is not set" in str(shown.exception)
