"""The OpenAI-compatible server, over a real loopback port."""

import http.client
import itertools
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_checkpoints import TEMPLATE, write_checkpoint

from stillroom.errors import ModelError
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.local import LocalModel
from stillroom.models.local.serve import MAX_BODY_BYTES, Splitter, serving
from stillroom.text.think import split_thinking


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LocalModel(
        write_checkpoint(tmp_path_factory.mktemp("tiny")), name="tiny", threads=2, slots=8
    )


@pytest.fixture(scope="module")
def url(model):
    with serving(model) as address:
        yield address


def call(url, method, path, body=None, headers=None):
    """Send one request; return status and body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, headers or {})
    response = connection.getresponse()
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


def chat(url, text="What is 2+2?", **settings):
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}]} | settings
    status, answer = call(url, "POST", "/v1/chat/completions", body)
    return status, json.loads(answer)


def stream(url, text="What is 2+2?", **settings):
    """Return the events of a streamed reply; the last must be [DONE]."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "stream": True}
    status, answer = call(url, "POST", "/v1/chat/completions", body | settings)
    assert status == 200
    *events, done, rest = answer.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def expected(model, text="What is 2+2?", draw=0, **sampling):
    request = Request("tiny", (Message("user", text),), Sampling(**sampling), draw)
    reply = dict(model.complete([request]))[request]
    assert isinstance(reply, Completion)
    return reply


def test_health_and_models(url):
    assert call(url, "GET", "/health") == (200, '{"status": "ok"}')
    status, body = call(url, "GET", "/v1/models")
    (entry,) = json.loads(body)["data"]
    assert (status, entry["id"], entry["object"]) == (200, "tiny", "model")


def test_choices_are_the_draws_from_the_seed_on(model, url):
    settings = {"temperature": 0.8, "top_p": 0.9, "max_tokens": 12}
    status, body = chat(url, seed=5, n=4, **settings)
    replies = [expected(model, draw=5 + i, **settings) for i in range(4)]
    assert status == 200
    assert body["object"] == "chat.completion"
    assert [c["index"] for c in body["choices"]] == [0, 1, 2, 3]
    assert [c["message"]["content"] for c in body["choices"]] == [r.answer for r in replies]
    assert {c["finish_reason"] for c in body["choices"]} == {"length"}
    prompt = replies[0].prompt_tokens
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 48,
        "total_tokens": prompt + 48,
    }


def test_without_a_seed_each_call_draws_anew(url):
    texts = {chat(url, max_tokens=20)[1]["choices"][0]["message"]["content"] for _ in range(4)}
    assert len(texts) == 4


def test_stream_gives_the_same_words(url):
    settings = {"seed": 3, "n": 3, "max_tokens": 30}
    whole = [c["message"]["content"] for c in chat(url, **settings)[1]["choices"]]
    events = stream(url, **settings)
    parts, ends = ["", "", ""], [None, None, None]
    for event in events:
        assert event["object"] == "chat.completion.chunk"
        assert "usage" not in event
        (choice,) = event["choices"]
        parts[choice["index"]] += choice["delta"].get("content", "")
        ends[choice["index"]] = choice["finish_reason"] or ends[choice["index"]]
    assert parts == whole
    assert ends == ["length"] * 3
    assert len(events) > 9


def test_stream_with_usage_ends_in_usage(url):
    *events, last = stream(url, seed=1, max_tokens=9, stream_options={"include_usage": True})
    assert all(event["usage"] is None for event in events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "tags"])
def test_thinking_goes_to_the_chosen_field(tmp_path, field):
    write_checkpoint(tmp_path, template=TEMPLATE[: -len("{% endif %}")] + "<think>\n{% endif %}")
    thinking = LocalModel(tmp_path, name="tiny", threads=1)
    with serving(thinking, reasoning=field) as url:
        settings = {"seed": 2, "max_tokens": 25}
        message = chat(url, **settings)[1]["choices"][0]["message"]
        streamed = "".join(
            event["choices"][0]["delta"].get("content" if field == "tags" else field, "")
            for event in stream(url, **settings)
        )
    if field == "tags":
        assert set(message) == {"role", "content"}
        assert message["content"] == streamed
    else:
        assert message["content"] == ""
        assert message[field] == expected(thinking, draw=2, max_tokens=25).reasoning == streamed


@pytest.mark.parametrize(
    ("settings", "status", "param", "words"),
    [
        ({"model": "gpt"}, 404, "model", "'gpt': no such model; this server has 'tiny'"),
        ({"model": None}, 404, "model", "None: no such model"),
        ({"messages": []}, 400, "messages", "missing or empty"),
        ({"messages": "hi"}, 400, "messages", "missing or empty"),
        ({"messages": ["hi"]}, 400, "messages[0].role", "role is None"),
        ({"messages": [{"role": "tool"}]}, 400, "messages[0].role", "role is 'tool'"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "NoneType"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages[0].content",
            "expected text",
        ),
        ({"temperature": -1}, 400, "temperature", "temperature is -1"),
        ({"temperature": "hot"}, 400, "temperature", "'hot'"),
        ({"temperature": float("nan")}, 400, "temperature", "nan"),
        ({"top_p": 0}, 400, "top_p", "top_p is 0"),
        ({"top_p": 1.1}, 400, "top_p", "top_p is 1.1"),
        ({"max_tokens": 0}, 400, "max_tokens", "max_tokens is 0"),
        ({"max_tokens": 1.5}, 400, "max_tokens", "max_tokens is 1.5"),
        ({"max_completion_tokens": True}, 400, "max_completion_tokens", "is True"),
        ({"n": 0}, 400, "n", "n is 0"),
        ({"n": 1000}, 400, "n", "n is 1000"),
        ({"seed": -1}, 400, "seed", "seed is -1"),
        ({"stream": "yes"}, 400, "stream", "stream is 'yes'"),
        ({"stream_options": 1}, 400, "stream_options", "not an object"),
        ({"stop": ["x"]}, 400, "stop", "not supported"),
        ({"tools": [{}]}, 400, "tools", "not supported"),
        ({"logprobs": True}, 400, "logprobs", "not supported"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", "not supported"),
    ],
)
def test_bad_settings_get_an_openai_error(url, settings, status, param, words):
    got, body = chat(url, **settings)
    assert got == status
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["param"] == param
    assert words in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"


def test_prompt_that_is_too_long_gets_400_with_its_code(url):
    status, body = chat(url, "x" * 400)
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert "maximum context length is 256 tokens" in body["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"1", b"9" * 5000])
def test_bodies_that_are_no_objects_get_400(url, body):
    status, answer = call(url, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_body_that_is_too_large_gets_413(url):
    status, answer = call(url, "POST", "/v1/chat/completions", b" " * (MAX_BODY_BYTES + 1))
    assert status == 413
    assert "larger than" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/health", 405)],
)
def test_unknown_addresses_get_an_openai_error(url, method, path, status):
    got, answer = call(url, method, path, {})
    assert got == status
    assert path in json.loads(answer)["error"]["message"]


def test_neutral_settings_are_accepted(url):
    settings = {
        "stop": None,
        "tools": [],
        "response_format": {"type": "text"},
        "presence_penalty": 0.0,
        "user": "me",
        "max_completion_tokens": 2,
    }
    status, body = chat(url, **settings)
    assert (status, body["usage"]["completion_tokens"]) == (200, 2)


def test_text_parts_and_developer_are_understood(model, url):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    body = chat(url, messages=messages, seed=0, max_tokens=5)[1]
    request = Request(
        "tiny",
        (Message("system", "Be brief."), Message("user", "ab")),
        Sampling(max_tokens=5),
        0,
    )
    reply = dict(model.complete([request]))[request]
    assert body["choices"][0]["message"]["content"] == reply.answer


def test_emoji_empty_and_half_characters_are_prompts(url):
    for text in ("", "🙂", "\ud83d", "\0"):
        assert chat(url, text, max_tokens=3)[0] == 200


def test_many_clients_ride_together_and_get_what_they_would_alone(model, url):
    def one(i):
        return chat(url, f"{i}+{i}?", seed=i, max_tokens=10)[1]["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(40) as pool:
        together = list(pool.map(one, range(40)))
    alone = [expected(model, f"{i}+{i}?", i, max_tokens=10).answer for i in range(40)]
    assert together == alone


def test_client_that_leaves_frees_its_slots(url):
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "go on"}],
        "n": 100,
        "stream": True,
    }
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(urlsplit(url).netloc.split(":"), timeout=10) as client:
            client.sendall(head.encode() + data)
            client.recv(100)
    assert chat(url, max_tokens=3)[0] == 200


def test_port_in_use_is_a_clear_error(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ModelError, match=rf"127.0.0.1:{port}: cannot listen there"),
            serving(model, port=port),
        ):
            pass


def test_server_leaves_no_thread_behind(model):
    before = threading.active_count()
    with serving(model) as url:
        assert chat(url, max_tokens=2)[0] == 200
    assert threading.active_count() == before


# ---- splitting while streaming -------------------------------------------------------------------


def split_in_pieces(text, cuts, *, opened=False):
    splitter = Splitter(opened=opened)
    fields = {"reasoning": None, "answer": ""}
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    for piece in pieces:
        for field, words in splitter.push(piece):
            fields[field] = (fields[field] or "") + words
    for field, words in splitter.push("", last=True):
        fields[field] = (fields[field] or "") + words
    return fields["reasoning"] or None, fields["answer"]


@given(
    thinking=st.text("ab </think\n", max_size=12),
    answer=st.text("ab <think>/\n", max_size=12),
    closed=st.booleans(),
    opened=st.booleans(),
    cuts=st.lists(st.integers(0, 60), max_size=20),
)
def test_splitter_gives_what_split_thinking_gives(thinking, answer, closed, opened, cuts):
    text = ("" if opened else "<think>") + thinking + ("</think>" + answer if closed else "")
    if opened and "<think>" in text:
        return
    whole = split_thinking(text, opened=opened)
    assert split_in_pieces(text, cuts, opened=opened) == (whole.reasoning or None, whole.answer)


@given(text=st.text("ab \n", max_size=12), cuts=st.lists(st.integers(0, 60), max_size=9))
def test_splitter_leaves_plain_text_in_the_answer(text, cuts):
    assert split_in_pieces(text, cuts) == (None, text.strip())
