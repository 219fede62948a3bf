"""Batch APIs: answers, errors of requests and of providers, and runs that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.batch_server import BatchServer, Outcome

from stillroom.errors import ModelError
from stillroom.models.batch.model import BatchModel
from stillroom.models.buy import buy
from stillroom.models.chat import Completion, Failure, Message, Request, Sampling
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger


@pytest.fixture(params=["openai", "anthropic"])
def server(request: pytest.FixtureRequest) -> Iterator[BatchServer]:
    with BatchServer(request.param) as running:
        yield running


@pytest.fixture
def openai() -> Iterator[BatchServer]:
    with BatchServer("openai") as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_KEY", "secret-key")


def asked(n: int, *, max_tokens: int | None = 50) -> list[Request]:
    sampling = Sampling(1.0, None, max_tokens)
    system = Message("system", "Be brief.")
    return [Request("a/b", (system, Message("user", f"{i}?")), sampling) for i in range(n)]


def write_models(folder: Path, server: BatchServer, size: int = 4) -> Path:
    file = folder / "models.toml"
    file.write_text(
        f'[models."a/b"]\nengine = "{server.protocol}-batch"\nbase_url = "{server.url}"\n'
        f'api_key_env = "BATCH_KEY"\nsize = {size}\npoll_s = 0.02\n'
    )
    return file


def opened(folder: Path, server: BatchServer, size: int = 4, outage_s: float = 5.0) -> BatchModel:
    model = load_config(write_models(folder, server, size)).open("a/b")
    assert isinstance(model, BatchModel)
    model.folder = folder / "batches"
    http = model._protocol.http  # type: ignore[attr-defined]
    object.__setattr__(http, "pause_s", 0.01)
    object.__setattr__(http, "outage_s", outage_s)
    return model


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "batches").rglob("*") if path.is_file()]


def test_batches_answer_every_request_once(server: BatchServer, tmp_path: Path) -> None:
    requests = asked(10)
    replies = dict(opened(tmp_path, server).complete(iter(requests)))
    assert replies == {
        r: Completion("hm", f"echo {r.messages[-1].content}", "stop", 5, 7) for r in requests
    }
    assert set(server.submitted.values()) == {1}
    assert [len(b["requests"]) for b in server.batches.values()] == [4, 4, 2]
    assert left(tmp_path) == []
    body = next(iter(server.batches["batch_0"]["requests"].values()))
    assert body["temperature"] == 1.0
    assert body["model"] == "a/b"
    if server.protocol == "anthropic":
        assert (body["system"], body["max_tokens"]) == ("Be brief.", 50)
        assert [m["role"] for m in body["messages"]] == ["user"]
    else:
        assert body["max_completion_tokens"] == 50


def test_errors_of_requests_are_failures_of_those_alone(
    server: BatchServer, tmp_path: Path
) -> None:
    def outcome(name: str, body: dict[str, Any]) -> Outcome:
        said = {"0?": "prompt is too long", "1?": "no such setting", "2?": "overloaded"}
        words = said.get(body["messages"][-1]["content"])
        if words is None:
            return server.answer(name, body)
        status = 503 if words == "overloaded" else 400
        if server.protocol == "openai":
            return {"status_code": status, "body": {"error": {"message": words}}}
        kind = "overloaded_error" if status == 503 else "invalid_request_error"
        error = {"type": "error", "error": {"type": kind, "message": words}}
        return {"type": "errored", "error": error}

    server.outcome = outcome
    found = opened(tmp_path, server).complete(asked(4))
    replies = {r.messages[-1].content: reply for r, reply in found}
    reasons = {q: r.reason for q, r in replies.items() if isinstance(r, Failure)}
    assert reasons == {"0?": "too_long", "1?": "refused", "2?": "server_error"}
    assert isinstance(replies["3?"], Completion)


def test_requests_of_an_expired_batch_are_submitted_again(
    server: BatchServer, tmp_path: Path
) -> None:
    def outcome(name: str, body: dict[str, Any]) -> Outcome:
        hopeless = body["messages"][-1]["content"] == "3?"
        late = server.submitted[name] == 1 and body["messages"][-1]["content"] != "0?"
        return None if hopeless or late else server.answer(name, body)

    server.outcome = outcome
    replies = {r.messages[-1].content: x for r, x in opened(tmp_path, server).complete(asked(4))}
    assert replies.pop("3?") == Failure("expired", "the batch expired")
    assert all(isinstance(reply, Completion) for reply in replies.values())
    assert sorted(server.submitted.values()) == [1, 2, 2, 3]
    assert left(tmp_path) == []


def test_provider_away_for_a_while_is_asked_again(server: BatchServer, tmp_path: Path) -> None:
    server.faults = [503, 429, 529]
    assert len(list(opened(tmp_path, server).complete(asked(2)))) == 2
    assert set(server.submitted.values()) == {1}


def test_provider_away_for_long_is_one_message_and_nothing_is_lost(
    server: BatchServer, tmp_path: Path
) -> None:
    model = opened(tmp_path, server, outage_s=0.1)
    stream = model.complete(asked(2))
    server.status = lambda looks: (
        "running" if looks < 3 else (server.faults.extend([503] * 99), "running")[1]
    )
    with pytest.raises(ModelError, match=r"cannot be used \(HTTP 503: .*\); expected an answer"):
        list(stream)
    server.faults.clear()
    server.status = lambda looks: "ended"
    assert len(list(opened(tmp_path, server).complete(asked(2)))) == 2
    assert set(server.submitted.values()) == {1}


def test_batch_that_is_refused_says_why(openai: BatchServer, tmp_path: Path) -> None:
    openai.refusal = "The limit on enqueued tokens is reached."
    with pytest.raises(ModelError, match=r"refused batch batch_0 \(The limit on enqueued tokens"):
        list(opened(tmp_path, openai).complete(asked(2)))
    assert left(tmp_path) == []


def test_refused_key_is_told_without_the_key(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_KEY", "wrong-key-77")
    with pytest.raises(ModelError, match="refuses the key") as caught:
        list(opened(tmp_path, server).complete(asked(1)))
    assert "wrong-key-77" not in str(caught.value)
    monkeypatch.delenv("BATCH_KEY")
    with pytest.raises(ModelError, match="environment variable BATCH_KEY is not set"):
        opened(tmp_path, server)


def test_redirects_are_not_followed_with_the_key(server: BatchServer, tmp_path: Path) -> None:
    server.faults = [302]
    with pytest.raises(ModelError, match="HTTP 302"):
        list(opened(tmp_path, server).complete(asked(1)))


def test_anthropic_needs_a_limit(tmp_path: Path) -> None:
    with BatchServer("anthropic") as server:
        with pytest.raises(ModelError, match="the recipe sets no max_tokens"):
            list(opened(tmp_path, server).complete(asked(1, max_tokens=None)))
        assert server.batches == {}


BUYER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[4].split(":")
from tests.unit.test_batches import asked
from stillroom.models.buy import buy
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger

model = load_config(sys.argv[1]).open("a/b")
model.folder = Path(sys.argv[2]) / "batches"
with Ledger(Path(sys.argv[2])) as ledger:
    bought = buy(asked(int(sys.argv[3])), model=model, ledger=ledger)
    print(bought.calls, bought.reused)
"""


def buyer(tmp_path: Path, server: BatchServer, n: int) -> "subprocess.Popen[str]":
    path = ":".join(p for p in sys.path if p)
    command = [sys.executable, "-c", BUYER, str(write_models(tmp_path, server)),
               str(tmp_path / "ledger"), str(n), path]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


@pytest.mark.parametrize("moment", ["waiting", "submitting"])
def test_killed_run_finds_its_batches_again(
    server: BatchServer, tmp_path: Path, moment: str
) -> None:
    """Killed while it waits, or after a provider took a batch and before it could say so."""
    server.status = lambda looks: "running"
    server.drop_submissions = moment == "submitting"
    with buyer(tmp_path, server, 6) as first:
        if moment == "submitting":
            server.wait_until(lambda s: len(s.batches) == 1)
        else:
            server.wait_until(lambda s: s.looks["batch_1"] > 2)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
    server.drop_submissions = False
    server.status = lambda looks: "ended"
    with buyer(tmp_path, server, 6) as second:
        out, err = second.communicate(timeout=60)
    assert (out, err) == ("6 0\n", "")
    assert set(server.submitted.values()) == {1}
    with Ledger(tmp_path / "ledger") as ledger:
        assert ledger.missing(r.key for r in asked(6)) == set()
        assert left(tmp_path / "ledger") == []


def test_killed_between_batches_keeps_the_one_that_had_ended(
    server: BatchServer, tmp_path: Path
) -> None:
    server.slow = {"batch_1"}
    with buyer(tmp_path, server, 6) as first, Ledger(tmp_path / "ledger") as ledger:
        server.wait_until(lambda s: s.looks["batch_1"] > 0)
        give_up_at = time.monotonic() + 60
        while ledger.stats().total.completions < 4:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
    server.slow.clear()
    with buyer(tmp_path, server, 6) as second:
        out, err = second.communicate(timeout=60)
    assert (out, err) == ("2 4\n", "")
    assert set(server.submitted.values()) == {1}


def test_interrupt_then_fewer_questions_keeps_the_rest_for_later(
    server: BatchServer, tmp_path: Path
) -> None:
    server.status = lambda looks: "running"
    with buyer(tmp_path, server, 4) as first:
        server.wait_until(lambda s: s.looks["batch_0"] > 2)
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    server.status = lambda looks: "ended"
    with Ledger(tmp_path / "ledger") as ledger:
        for n in (2, 4):
            model = opened(tmp_path, server)
            model.folder = tmp_path / "ledger" / "batches"
            buy(asked(n), model=model, ledger=ledger)
            assert ledger.missing(r.key for r in asked(n)) == set()
    assert set(server.submitted.values()) == {1}


def test_batch_prices_are_half_of_the_listed_ones(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    entries = [
        ("openai", "https://api.openai.com/v1"), ("openai-batch", "https://api.openai.com/v1")
    ]  # fmt: skip
    prices = []
    for engine, url in entries:
        file.write_text(f'[models."gpt-4.1-mini"]\nengine = "{engine}"\nbase_url = "{url}"\n')
        prices.append(load_config(file).prices("gpt-4.1-mini"))
    live, batch = prices
    assert live is not None
    assert batch is not None
    assert batch.usd(10**6, 10**6) == pytest.approx(live.usd(10**6, 10**6) / 2)


def test_results_are_read_as_other_replies_of_the_protocol(
    openai: BatchServer, tmp_path: Path
) -> None:
    messages = {
        "0?": ({"content": [{"type": "text", "text": "4"}], "thinking": "hm"}, "stop"),
        "1?": ({"content": "4"}, "stopped by a bug"),
        "2?": ({"content": None}, "stop"),
    }

    def outcome(name: str, body: dict[str, Any]) -> Outcome:
        message, finish = messages[body["messages"][-1]["content"]]
        choice = {"message": message, "finish_reason": finish}
        return {"status_code": 200, "body": {"choices": [choice]}}

    openai.outcome = outcome
    found = opened(tmp_path, openai).complete(asked(3))
    replies = {r.messages[-1].content: reply for r, reply in found}
    assert replies["0?"] == Completion("hm", "4", "stop", 0, 0)
    for asked_for in ("1?", "2?"):
        reply = replies[asked_for]
        assert isinstance(reply, Failure)
        assert reply.reason == "bad_reply"
