"""The OpenAI engine against a real server on the loopback interface."""

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.servers import (
    Behaviour,
    Seen,
    TeacherServer,
    answer,
    drop,
    half,
    hang,
    in_turn,
    raw,
    refusal,
    rejecting,
    status,
)

from stillroom.errors import ModelError
from stillroom.models.buy import buy
from stillroom.models.chat import Completion, Failure, Message, Reply, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.openai import OpenAIModel

KEY = "sk-planted-0123456789abcdef"

Serve = Callable[..., TeacherServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[TeacherServer] = []

    def start(behave: Behaviour | None = None, **options: Any) -> TeacherServer:
        running.append(TeacherServer(behave, **options).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


def asked(question: str = "2+2?", draw: int = 0, **sampling: Any) -> Request:
    return Request("my/model", (Message("user", question),), Sampling(**sampling), draw)


def model(*servers: TeacherServer, **options: Any) -> OpenAIModel:
    options = {"concurrency": 4, "timeout_s": 5.0, "pause_s": 0.001, **options}
    return OpenAIModel("my/model", [server.url for server in servers], **options)


def reply_to(server: TeacherServer, request: Request | None = None, **options: Any) -> Reply:
    [(_, reply)] = model(server, **options).complete([request or asked()])
    return reply


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


# What is asked


def test_complete_each_request_gets_exactly_one_reply(serve: Serve) -> None:
    server = serve()
    requests = [asked(f"{i}?") for i in range(50)]
    replies = list(model(server).complete(requests))
    assert sorted(r.key for r, _ in replies) == sorted(r.key for r in requests)
    assert all(isinstance(reply, Completion) for _, reply in replies)
    assert server.total == 50


def test_complete_without_requests_starts_nothing(serve: Serve) -> None:
    server = serve()
    before = threading.active_count()
    assert list(model(server).complete([])) == []
    assert (server.total, threading.active_count()) == (0, before)


def test_body_holds_served_name_messages_and_only_the_sampling_that_is_set(serve: Serve) -> None:
    server = serve()
    messages = (Message("system", "Be brief."), Message("user", "Hé\u2028?"))
    request = Request("my/model", messages, Sampling(temperature=0.7, max_tokens=5))
    list(model(server, served_name="mine").complete([request]))
    [body] = server.bodies
    seed = body.pop("seed")
    assert 0 <= seed < 2**31
    assert body == {
        "model": "mine",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hé\u2028?"},
        ],
        "temperature": 0.7,
        "max_tokens": 5,
    }


def test_seed_differs_by_draw_and_question_and_is_stable(serve: Serve) -> None:
    server = serve()
    requests = [asked(q, d) for q in "ab" for d in range(4)]
    list(model(server, concurrency=1).complete(requests))
    list(model(server, concurrency=1).complete(requests))
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds[:8])) == 8
    assert seeds[:8] == seeds[8:]


def test_seed_rejected_is_dropped_and_remembered(serve: Serve) -> None:
    server = serve(rejecting("seed", "Unsupported parameter: seed"))
    teacher = model(server, concurrency=1)
    for i in range(3):
        [(_, reply)] = teacher.complete([asked(f"{i}?")])
        assert isinstance(reply, Completion)
    assert ["seed" in body for body in server.bodies] == [True, False, False, False]


def test_seed_kept_when_a_refusal_only_quotes_the_word(serve: Serve) -> None:
    server = serve(refusal(400, "cannot answer 'how to seed a lawn'"))
    teacher = model(server)
    [(_, reply)] = teacher.complete([asked("how to seed a lawn")])
    assert isinstance(reply, Failure)
    server.behave = answer()
    list(teacher.complete([asked()]))
    assert "seed" in server.bodies[-1]


def full_context(words: str, context: int = 1024, prompt: int = 23) -> Behaviour:
    """Refuse a limit that, with the prompt, is more than the context, in a server's own words."""

    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        limit = seen.body.get("max_tokens", seen.body.get("max_completion_tokens", 0))
        alone = "max_model_len" in words  # 0.32 fits other limits to the prompt
        if limit > context - (0 if alone else prompt):
            said = words.format(limit=limit, prompt=prompt, total=limit + prompt)
            return await refusal(400, said, param="max_tokens", code=400)(seen, request)
        return await answer("4", finish="length")(seen, request)

    return behave


TOO_MUCH = {
    "vllm 0.32": (
        "max_tokens={limit} cannot be greater than max_model_len=1024. Please request fewer output "
        "tokens. (parameter=max_tokens, value={limit})"
    ),
    "vllm, prompt cut": (
        "This model's maximum context length is 1024 tokens. However, you requested {limit} output "
        "tokens and your prompt contains at least {prompt} input tokens, for a total of at least "
        "1025 tokens. Please reduce the length of the input prompt or the number of requested "
        "output tokens. (parameter=input_tokens, value={prompt})"
    ),
    "vllm, prompt counted": (
        "'max_tokens' or 'max_completion_tokens' is too large: {limit}. This model's maximum "
        "context length is 1024 tokens and your request has {prompt} input tokens"
    ),
    "vllm, at first": (
        "This model's maximum context length is 1024 tokens. However, you requested {total} tokens "
        "({prompt} in the messages, {limit} in the completion). Please reduce the length of the "
        "messages or completion."
    ),
    "sglang": (
        "Requested token count exceeds the model's maximum context length of 1024 tokens. You "
        "requested a total of {total} tokens: {prompt} tokens from the input messages and {limit} "
        "tokens for the completion."
    ),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_limit_beyond_the_context_gets_what_is_left(serve: Serve, name: str) -> None:
    server = serve(full_context(TOO_MUCH[name]))
    teacher = model(server, concurrency=1)
    [(request, reply)] = teacher.complete([asked(max_tokens=32_768)])
    assert isinstance(reply, Completion)
    assert (request.sampling.max_tokens, reply.finish_reason) == (32_768, "length")
    list(teacher.complete([asked("3+3?", max_tokens=100)]))  # others keep their limit
    limits = [body.get("max_tokens") for body in server.bodies]
    assert limits == [32_768, 1024 if name == "vllm 0.32" else None, 100]


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 1024 tokens. However, your prompt contains at "
        "least 1025 input tokens, which exceeds this limit even without any output tokens. Please "
        "reduce the length of the input prompt. (parameter=input_tokens, value=1025)",
        "This model's maximum context length is 1024 tokens. However, your prompt contains 160000 "
        "characters (more than 13312 characters, which is the upper bound for 1024 input tokens). "
        "Please reduce the length of the input prompt.",
        "This model's maximum context length is 1024 tokens. However, you requested 0 output "
        "tokens and your prompt contains at least 1025 input tokens, for a total of at least 1025.",
    ],
)
def test_prompt_beyond_the_context_is_asked_once(serve: Serve, words: str) -> None:
    server = serve(refusal(400, words, param="input_tokens", code=400))
    reply = reply_to(server, asked(max_tokens=20))
    assert isinstance(reply, Failure)
    assert (reply.reason, server.total) == ("too_long", 1)


def test_limit_that_is_refused_whatever_it_is_ends_as_too_long(serve: Serve) -> None:
    words = TOO_MUCH["sglang"].format(limit=9, prompt=2000, total=2009)
    server = serve(refusal(400, words))
    reply = reply_to(server, asked(max_tokens=9))
    assert isinstance(reply, Failure)
    assert (reply.reason, server.total) == ("too_long", 2)


def test_max_tokens_rejected_is_renamed_and_remembered(serve: Serve) -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server = serve(rejecting("max_tokens", words))
    teacher = model(server, concurrency=1)
    for i in range(2):
        list(teacher.complete([asked(f"{i}?", max_tokens=9)]))
    limits = [(b.get("max_tokens"), b.get("max_completion_tokens")) for b in server.bodies]
    assert limits == [(9, None), (None, 9), (None, 9)]


SCHEMA = '{"type":"object"}'


def structured(question: str) -> Request:
    return Request("m", (Message("user", question),), Sampling(), schema=SCHEMA)


def test_schema_is_sent_as_a_response_format(serve: Serve) -> None:
    server = serve()
    list(model(server).complete([structured("2+2?"), asked("3+3?")]))
    sent = {b["messages"][-1]["content"]: b.get("response_format") for b in server.bodies}
    wanted = {"name": "reply", "strict": True, "schema": {"type": "object"}}
    assert sent == {"2+2?": {"type": "json_schema", "json_schema": wanted}, "3+3?": None}


@pytest.mark.parametrize(
    "words", ["response_format is not supported", "Invalid json_schema", "no grammar backend"]
)
def test_schema_rejected_is_left_out_and_remembered(serve: Serve, words: str) -> None:
    server = serve(rejecting("response_format", words))
    labeller = model(server, concurrency=1)
    for i in range(3):
        [(_, reply)] = labeller.complete([structured(f"{i}?")])
        assert isinstance(reply, Completion)
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]


def test_schema_enters_the_key_and_its_absence_does_not() -> None:
    plain = Request("m", (Message("user", "2+2?"),), Sampling())
    assert plain.key.hex() == "bfc6e8e05243feb22c0251217550811d"
    assert structured("2+2?").key != plain.key


# What is understood


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_field_becomes_reasoning(serve: Serve, field: str) -> None:
    message: dict[str, Any] = {field: "\n2+2=4\n"}
    reply = reply_to(serve(answer("4\n", **message)))
    assert reply == Completion("2+2=4", "4", "stop", 7, 11)


@pytest.mark.parametrize("content", ["<think>\n2+2=4\n</think>\n\n4", "2+2=4</think>4"])
def test_think_tags_become_reasoning(serve: Serve, content: str) -> None:
    reply = reply_to(serve(answer(content, reasoning_content=None)))
    assert reply == Completion("2+2=4", "4", "stop", 7, 11)


def test_thinking_parts_become_reasoning(serve: Serve) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "2+2=4"}]},
        {"type": "text", "text": "4"},
    ]
    assert reply_to(serve(answer(parts))) == Completion("2+2=4", "4", "stop", 7, 11)


BESIDE: dict[str, Any] = {
    "thinking": "2+2=4",
    "thinking_blocks": [
        {"type": "thinking", "thinking": "2+2", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "=4"},
    ],
    "reasoning_details": [{"type": "reasoning.text", "text": "2+2=4"}],
}


@pytest.mark.parametrize("field", BESIDE)
def test_thinking_beside_the_content_becomes_reasoning(serve: Serve, field: str) -> None:
    reply = reply_to(serve(answer("4", **{field: BESIDE[field]})))
    assert reply == Completion("2+2=4", "4", "stop", 7, 11)


def test_thinking_blocks_of_anthropic_become_reasoning(serve: Serve) -> None:
    parts = [
        {"type": "thinking", "thinking": "2+2=4", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "4"},
    ]
    reply = reply_to(serve(answer(parts, finish="end_turn")))
    assert reply == Completion("2+2=4", "4", "stop", 7, 11)


def test_thinking_sent_twice_is_kept_once(serve: Serve) -> None:
    reply = reply_to(serve(answer("<think>2+2=4</think>4", reasoning="2+2=4")))
    assert reply == Completion("2+2=4", "4", "stop", 7, 11)


def test_starts_in_thinking_unclosed_completion_is_all_reasoning(serve: Serve) -> None:
    reply = reply_to(serve(answer("2+2=", finish="length")), starts_in_thinking=True)
    assert reply == Completion("2+2=", "", "length", 7, 11)


def test_no_reasoning_is_none(serve: Serve) -> None:
    reply = reply_to(serve(answer("4", reasoning="", reasoning_content="")))
    assert reply == Completion(None, "4", "stop", 7, 11)


def test_length_during_thinking_keeps_the_reasoning(serve: Serve) -> None:
    reply = reply_to(serve(answer(None, finish="length", reasoning="2+2=")))
    assert reply == Completion("2+2=", "", "length", 7, 11)


def test_content_filter_is_kept(serve: Serve) -> None:
    reply = reply_to(serve(answer(None, finish="content_filter")))
    assert reply == Completion(None, "", "content_filter", 7, 11)


def test_served_name_and_id_are_kept(serve: Serve) -> None:
    reply = reply_to(serve())
    assert isinstance(reply, Completion)
    assert (reply.served_name, reply.provider_id, reply.counted) == ("served/model", "call-0", True)


@pytest.mark.parametrize(
    "usage", [{}, [], {"prompt_tokens": 3}, {"prompt_tokens": True, "completion_tokens": -1}]
)
def test_usage_missing_or_odd_is_zero_and_says_so(serve: Serve, usage: object) -> None:
    reply = reply_to(serve(answer(usage=usage)))
    assert isinstance(reply, Completion)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.counted) == (0, 0, False)


def test_half_surrogate_becomes_replacement_character(serve: Serve) -> None:
    body = json.dumps(
        {"choices": [{"finish_reason": "length", "message": {"content": "so \ud83d"}}]}
    ).encode()
    reply = reply_to(serve(raw(body)))
    assert isinstance(reply, Completion)
    assert reply.answer == "so \ufffd"


def test_content_type_does_not_matter(serve: Serve) -> None:
    body = b'{"choices": [{"finish_reason": "stop", "message": {"content": "4"}}]}'
    reply = reply_to(serve(raw(body, "text/plain")))
    assert isinstance(reply, Completion)
    assert reply.answer == "4"


# Faults

BROKEN = {
    "half json": raw(b'{"choices": [{"message": {"con'),
    "html": raw(b"<html><body>Gateway</body></html>", "text/html"),
    "not utf-8": raw(b'{"choices": "\xff\xfe"}'),
    "empty": raw(b""),
    "a list": raw(b"[]"),
    "no choices": raw(b'{"choices": []}'),
    "no message": raw(b'{"choices": [{"finish_reason": "stop"}]}'),
    "null content": answer(None),
    "odd content": answer([3]),
    "no finish reason": answer("4", finish=None),
    "aborted": answer("4", finish="abort"),
    "half body": half,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_reply_is_retried(serve: Serve, name: str) -> None:
    server = serve(in_turn(BROKEN[name], BROKEN[name], answer("4")))
    reply = reply_to(server)
    assert isinstance(reply, Completion)
    assert server.total == 3


@pytest.mark.parametrize("name", BROKEN)
def test_broken_reply_for_ever_is_a_failure(serve: Serve, name: str) -> None:
    server = serve(BROKEN[name])
    reply = reply_to(server)
    assert isinstance(reply, Failure)
    assert reply.reason == "bad_reply"
    assert server.total == 5


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503, "<h1>busy</h1>", Retry_After="0"),
        status(408),
        drop,
        refusal(200, "upstream failed", code=502),
        status(429),
        status(429, Retry_After="0.01"),
        status(429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"),
    ],
)
def test_passing_fault_is_retried(serve: Serve, fault: Behaviour) -> None:
    server = serve(in_turn(fault, fault, answer("4")))
    assert isinstance(reply_to(server), Completion)
    assert server.total == 3


def test_rate_limit_outlasts_the_attempts_of_other_faults(serve: Serve) -> None:
    server = serve(in_turn(*[status(429, Retry_After="0.001")] * 20, answer("4")))
    assert isinstance(reply_to(server, pause_s=1e-6), Completion)
    assert server.total == 21


def test_server_that_has_no_room_fails_no_request(serve: Serve) -> None:
    """vLLM with ``--max-num-queued-reqs`` refuses by 503 what is more than that."""
    words = "The engine is currently busy and cannot accept new requests. Please try again later"

    async def crowded(seen: Seen, request: web.Request) -> web.StreamResponse:
        full = server.in_flight > 2
        return await (refusal(503, words) if full else answer("4", latency_s=0.01))(seen, request)

    server = serve(crowded)
    requests = [asked(f"{i}?") for i in range(200)]
    replies = list(model(server, concurrency=128, pause_s=0.02).complete(requests))
    assert len(replies) == 200
    assert all(isinstance(reply, Completion) for _, reply in replies)


def test_server_that_answers_nobody_any_more_is_not_asked_for_ever(serve: Serve) -> None:
    server = serve(answer("4"))
    teacher = model(server)
    list(teacher.complete([asked("first?")]))
    server.behave = status(503, "no backend")
    [(_, reply)] = teacher.complete([asked()])
    assert reply == Failure("unavailable", "HTTP 503: no backend")
    assert server.total == 1 + 5


def test_rate_limit_beyond_patience_is_a_failure_at_once(serve: Serve) -> None:
    server = serve(status(429, "come back tomorrow", Retry_After="86400"))
    reply = reply_to(server)
    assert reply == Failure("rate_limited", "HTTP 429: come back tomorrow")
    assert server.total == 1


def test_rate_limit_beyond_patience_for_everyone_is_a_storm(serve: Serve) -> None:
    server = serve(status(429, "come back tomorrow", Retry_After="86400"))
    with pytest.raises(ModelError, match="20 requests in a row failed, the last one with rate_lim"):
        list(model(server).complete(asked(f"{i}?") for i in range(100)))
    assert server.total < 30


def test_retry_after_for_ever_is_a_failure_at_once(serve: Serve) -> None:
    reply = reply_to(serve(status(503, "down", Retry_After="inf")))
    assert reply == Failure("unavailable", "HTTP 503: down")


def test_rate_limit_sends_work_to_the_other_server(serve: Serve) -> None:
    limited, free = serve(status(429, Retry_After="0.2")), serve()
    requests = [asked(f"{i}?") for i in range(40)]
    replies = list(model(limited, free).complete(requests))
    assert all(isinstance(reply, Completion) for _, reply in replies)
    assert free.total == 40


def test_load_is_spread_by_free_capacity(serve: Serve) -> None:
    quick, slow = serve(answer(latency_s=0.01)), serve(answer(latency_s=0.1))
    requests = [asked(f"{i}?") for i in range(200)]
    replies = list(model(quick, slow).complete(requests))
    assert all(isinstance(reply, Completion) for _, reply in replies)
    assert quick.total + slow.total == 200
    assert 2 * slow.total < quick.total
    assert slow.total > 0
    assert max(quick.peak, slow.peak) <= 4


def test_hung_server_is_a_timeout(serve: Serve) -> None:
    server = serve(in_turn(hang, answer("4")))
    assert isinstance(reply_to(server, timeout_s=0.1), Completion)
    server = serve(hang)
    reply = reply_to(server, timeout_s=0.05)
    assert reply == Failure("timeout", "no reply within 0.05 s")
    assert server.total == 3


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (refusal(400, "temperature must be below 2"), "refused"),
        (status(422, {"detail": "bad"}), "refused"),
        (refusal(403, "Your input was flagged by moderation"), "refused"),
        (refusal(400, "maximum context length is 4096 tokens"), "too_long"),
        (refusal(400, "no", code="context_length_exceeded"), "too_long"),
        (status(413), "too_long"),
    ],
)
def test_refused_request_is_a_failure_without_retry(
    serve: Serve, behave: Behaviour, reason: str
) -> None:
    server = serve(behave)
    reply = reply_to(server)
    assert isinstance(reply, Failure)
    assert reply.reason == reason
    assert server.total == 1


def test_failure_holds_the_words_of_the_server_cleaned_and_cut(serve: Serve) -> None:
    page = "<style>p {}</style><h1>No\x1b[31m</h1>\n<p>" + "very " * 200
    reply = reply_to(serve(status(400, page)))
    assert isinstance(reply, Failure)
    assert reply.message.startswith("HTTP 400: No[31m very very")
    assert len(reply.message) <= 500


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (refusal(401, "no key"), "wants a key"),
        (refusal(403, "not your project"), "wants a key"),
        (refusal(404, "The model `my/model` does not exist."), "does not serve my/model"),
        (refusal(400, "gone", code="model_not_found"), "does not serve my/model"),
        (status(404, "<html>nginx</html>"), "base_url"),
        (status(307, Location="http://elsewhere.invalid/"), "base_url"),
        (refusal(402, "pay"), "Top it up"),
        (refusal(429, "You exceeded your current quota", code="insufficient_quota"), "Top it up"),
    ],
)
def test_unusable_model_stops_at_once(serve: Serve, behave: Behaviour, words: str) -> None:
    server = serve(behave)
    with pytest.raises(ModelError, match=words) as caught:
        reply_to(server)
    assert str(caught.value).startswith(f"my/model: {server.url}")
    assert server.total == 1


def test_unreachable_server_stops_at_once_and_names_the_address() -> None:
    url = free_url()
    with pytest.raises(ModelError, match="cannot reach") as caught:
        list(OpenAIModel("my/model", url).complete([asked()]))
    assert url in str(caught.value)


def test_host_that_is_no_name_is_unreachable() -> None:
    with pytest.raises(ModelError, match=r"cannot reach http://no\.\.name/v1"):
        list(OpenAIModel("my/model", "http://no..name/v1").complete([asked()]))


def test_server_lost_for_good_stops_the_run_and_fails_no_request(serve: Serve) -> None:
    server = serve()
    replies = []

    def collect() -> None:
        teacher = model(server, outage_s=0.3)
        for _, reply in teacher.complete(asked(f"{i}?") for i in itertools.count()):
            replies.append(reply)
            if len(replies) == 30:
                server.__exit__()

    with pytest.raises(ModelError, match=r"no answer for 0\.3 s.*Look after the server") as caught:
        collect()
    assert str(caught.value).count(server.url) == 2
    assert len(replies) >= 30
    assert all(isinstance(reply, Completion) for reply in replies)


def test_server_that_comes_back_goes_on_and_fails_no_request(serve: Serve) -> None:
    server = serve()
    replies = []
    for request, reply in model(server).complete(asked(f"{i}?") for i in range(60)):
        replies.append((request.key, reply))
        if len(replies) == 30:
            server.__exit__()
            server = serve(port=server.port)
    assert len({key for key, _ in replies}) == len(replies) == 60
    assert all(isinstance(reply, Completion) for _, reply in replies)


@pytest.mark.parametrize("fault", [status(500), drop, None], ids=["500", "drop", "down"])
def test_dead_server_is_set_aside_while_another_works(
    serve: Serve, fault: Behaviour | None
) -> None:
    dead, alive = serve(fault), serve(answer(latency_s=0.002))
    if fault is None:
        dead.__exit__()
    requests = [asked(f"{i}?") for i in range(300)]
    replies = list(model(dead, alive, pause_s=0.05).complete(requests))
    assert all(isinstance(reply, Completion) for _, reply in replies)
    assert alive.total == 300
    assert dead.total < 30


def test_server_that_was_set_aside_is_tried_again(serve: Serve) -> None:
    sick, well = serve(status(500)), serve(answer(latency_s=0.002))
    taken = 0
    for taken, _ in enumerate(model(sick, well).complete(asked(f"{i}?") for i in range(400)), 1):
        if taken == 100:
            sick.behave = answer()
    assert taken == 400
    assert sick.total > 100


def test_half_of_the_last_hundred_failed_is_a_storm(serve: Serve) -> None:
    async def every_other(seen: Seen, request: Any) -> Any:
        number = int(seen.body["messages"][0]["content"].strip("?"))
        return await (answer() if number % 2 else status(500))(seen, request)

    server = serve(every_other)
    replies: list[Any] = []
    with pytest.raises(ModelError, match="half of the last 100 requests failed"):
        replies.extend(model(server).complete(asked(f"{i}?") for i in itertools.count()))
    assert 90 <= len(replies) <= 130


def test_storm_of_long_questions_is_none_once_one_has_fitted(serve: Serve) -> None:
    long = refusal(400, "maximum context length is 4096 tokens")
    server = serve(long)
    with pytest.raises(ModelError, match="in a row failed"):
        list(model(server).complete(asked(f"{i}?") for i in range(30)))

    async def all_but_first(seen: Seen, request: Any) -> Any:
        first = seen.body["messages"][0]["content"] == "0?"
        return await (answer() if first else long)(seen, request)

    server.behave = all_but_first
    replies = list(model(server, concurrency=1).complete(asked(f"{i}?") for i in range(30)))
    assert len(replies) == 30


# Several draws in one call


def choices(given: int | None = None, **options: Any) -> Behaviour:
    """Answer with as many choices as asked for, or as given; each says its index."""

    async def behave(seen: Seen, request: Any) -> Any:
        n = seen.body.get("n", 1) if given is None else given
        texts = [{"finish_reason": "stop", "message": {"content": f"{i}"}} for i in range(n)]
        usage = {"prompt_tokens": 10, "completion_tokens": 100}
        return await raw(json.dumps({"choices": texts, "usage": usage, **options}).encode())(
            seen, request
        )

    return behave


def test_draws_of_one_question_share_calls(serve: Serve) -> None:
    server = serve(choices())
    requests = [asked(q, d) for q in "ab" for d in range(6)]
    replies = list(model(server, choices=4, concurrency=8).complete(requests))
    assert sorted(r.key for r, _ in replies) == sorted(r.key for r in requests)
    assert sorted(body.get("n", 1) for body in server.bodies) == [2, 2, 4, 4]
    assert all(isinstance(reply, Completion) for _, reply in replies)


def test_counts_of_a_shared_call_add_up(serve: Serve) -> None:
    requests = [asked("a", d) for d in range(3)]
    replies = [r for _, r in model(serve(choices()), choices=3).complete(requests)]
    completions = [r for r in replies if isinstance(r, Completion)]
    assert sum(r.prompt_tokens for r in completions) == 10
    assert sum(r.completion_tokens for r in completions) == 100
    assert {r.answer for r in completions} == {"0", "1", "2"}


def test_refused_n_falls_back_to_single_draws(serve: Serve) -> None:
    server = serve(rejecting("n", "n must be 1"))
    requests = [asked(q, d) for q in "abcd" for d in range(4)]
    replies = list(model(server, choices=4, concurrency=4).complete(requests))
    assert all(isinstance(reply, Completion) for _, reply in replies)
    assert len(replies) == 16
    assert [body.get("n", 1) for body in server.bodies].count(4) == 1


def test_too_few_choices_are_kept_and_the_rest_is_asked_one_by_one(serve: Serve) -> None:
    server = serve(choices(1))
    requests = [asked(q, d) for q in "abcd" for d in range(4)]
    replies = list(model(server, choices=4, concurrency=4).complete(requests))
    assert len({r.key for r, _ in replies}) == len(replies) == 16
    assert server.total == 16
    assert [body.get("n", 1) for body in server.bodies].count(4) == 1


def test_too_many_choices_are_cut(serve: Serve) -> None:
    replies = list(model(serve(choices(3))).complete([asked()]))
    assert len(replies) == 1


def test_broken_choice_is_asked_again_alone(serve: Serve) -> None:
    good = {"finish_reason": "stop", "message": {"content": "4"}}
    body = json.dumps({"choices": [good, {"finish_reason": None}, good]}).encode()
    server = serve(in_turn(raw(body), answer("4")))
    requests = [asked("a", d) for d in range(3)]
    replies = list(model(server, choices=3).complete(requests))
    assert len(replies) == 3
    assert all(isinstance(reply, Completion) for _, reply in replies)
    assert [b.get("n", 1) for b in server.bodies] == [3, 1]


def test_refused_question_of_a_shared_call_fails_draw_by_draw(serve: Serve) -> None:
    server = serve(refusal(400, "maximum context length is 4096 tokens"))
    replies = list(model(server, choices=3).complete([asked("a", d) for d in range(3)]))
    assert [getattr(reply, "reason", None) for _, reply in replies] == ["too_long"] * 3


# Flow


def test_requests_per_minute_are_not_exceeded(serve: Serve) -> None:
    server = serve()
    teacher = model(server, concurrency=32, requests_per_minute=1200.0)
    started = time.monotonic()
    assert len(list(teacher.complete(asked(f"{i}?") for i in range(140)))) == 140
    assert time.monotonic() - started > (140 - 120 - 1) / 20  # 120 are there at the beginning


def test_tokens_per_minute_are_not_exceeded(serve: Serve) -> None:
    server = serve(answer(usage={"prompt_tokens": 100, "completion_tokens": 900}))
    teacher = model(server, concurrency=1, tokens_per_minute=600_000.0)
    started = time.monotonic()
    assert len(list(teacher.complete(asked(f"{i}?") for i in range(64)))) == 64
    assert time.monotonic() - started > (64 - 60 - 1) * 1000 / 10_000


def test_limit_learnt_stays_between_calls(serve: Serve) -> None:
    server = serve()
    teacher = model(server, concurrency=200)
    list(teacher.complete(asked(f"{i}?") for i in range(400)))
    [limit] = teacher.limits.values()
    assert 16 < limit <= 200


def test_flow_keeps_as_many_in_flight_as_allowed_and_no_more(serve: Serve) -> None:
    first, second = serve(), serve()
    first.behave, second.behave = first.held, second.held
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for taken in range(1, 21):
            yield asked(f"{taken}?")

    replies: list[Any] = []
    teacher = model(first, second, concurrency=3)
    caller = threading.Thread(target=lambda: replies.extend(teacher.complete(requests())))
    caller.start()
    first.wait_until(lambda s: s.in_flight == 3)
    second.wait_until(lambda s: s.in_flight == 3)
    assert taken == 6
    first.release()
    second.release()
    caller.join(20)
    assert len(replies) == 20
    assert max(first.peak, second.peak) <= 6


def test_server_that_takes_calls_gets_more_before_it_has_answered_one(serve: Serve) -> None:
    server = serve()
    server.behave = server.held
    replies: list[Any] = []
    teacher = model(server, concurrency=40)
    requests = (asked(f"{i}?") for i in range(60))
    caller = threading.Thread(target=lambda: replies.extend(teacher.complete(requests)))
    caller.start()
    server.wait_until(lambda s: s.in_flight == 40)
    server.release()
    caller.join(20)
    assert (len(replies), server.peak) == (60, 40)


def test_close_cancels_calls_in_flight_and_ends_the_thread(serve: Serve) -> None:
    async def only_first(seen: Seen, request: Any) -> Any:
        return await (answer() if seen.number == 0 else hang)(seen, request)

    server = serve(only_first)
    before = threading.active_count()
    replies = model(server, timeout_s=60.0).complete(asked(f"{i}?") for i in itertools.count())
    next(replies)
    server.wait_until(lambda s: s.in_flight == 3)
    replies.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before
    server.wait_until(lambda s: s.in_flight == 0)


def test_error_in_the_requests_reaches_the_caller(serve: Serve) -> None:
    def requests() -> Iterator[Request]:
        yield asked()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(model(serve()).complete(requests()))


# Keys


def test_key_is_sent_and_read_when_needed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(api_key=KEY)
    teacher = model(server, api_key_env="TEST_API_KEY")
    monkeypatch.setenv("TEST_API_KEY", KEY + "\n")
    [(_, reply)] = teacher.complete([asked()])
    assert isinstance(reply, Completion)


@pytest.mark.parametrize(
    ("value", "words"), [(None, "is not set"), ("", "is not set"), ("a b", "holds blanks")]
)
def test_key_absent_or_odd_stops_before_anything_is_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, value: str | None, words: str
) -> None:
    server = serve()
    monkeypatch.delenv("TEST_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_API_KEY", value)
    with pytest.raises(ModelError, match=f"TEST_API_KEY {words}"):
        reply_to(server, api_key_env="TEST_API_KEY")
    assert server.total == 0


def test_key_never_appears_in_errors_failures_ledger_logs_or_repr(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEST_API_KEY", KEY)
    texts = [repr(model(serve(), api_key_env="TEST_API_KEY"))]
    with pytest.raises(ModelError) as caught:
        reply_to(serve(api_key="another"), api_key_env="TEST_API_KEY")
    texts.append(str(caught.getrepr()))
    echoes = [refusal(400, f"bad {KEY}"), status(500, KEY), raw(KEY.encode()), drop, half]
    for behave in echoes:
        texts.append(repr(reply_to(serve(behave), api_key_env="TEST_API_KEY")))
    with Ledger(tmp_path / "ledger") as ledger:
        teacher = model(serve(in_turn(echoes[0])), api_key_env="TEST_API_KEY")
        buy([asked()], model=teacher, ledger=ledger)
        texts.append(repr(ledger.failures([asked().key])))
    kept = [file for file in (tmp_path / "ledger").rglob("*") if file.is_file()]
    assert kept
    texts.append(repr(b"".join(file.read_bytes() for file in kept)))
    assert "[key]" in texts[1]
    assert "[key]" in texts[-1]
    for text in [*texts, caplog.text]:
        assert KEY not in text
