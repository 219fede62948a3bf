"""A stand-in teacher: a real HTTP server on a free loopback port, with faults on demand."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Seen:
    """One call as the server saw it.

    Attributes:
        key: Last message and seed: the same for all tries of one request.
        attempt: How often this key was seen before.
        number: How many calls the server saw before, of any key.
        body: The JSON that was sent.
    """

    key: str
    attempt: int
    number: int
    body: dict[str, Any]


Behaviour = Callable[[Seen, web.Request], Awaitable[web.StreamResponse]]


def answer(
    content: str | list[Any] | None = "The answer is 4.",
    *,
    finish: str | None = "stop",
    usage: object = None,
    latency_s: float = 0.0,
    **message: object,
) -> Behaviour:
    """Answer as a healthy server does; further fields go into the message."""
    usage = {"prompt_tokens": 7, "completion_tokens": 11} if usage is None else usage

    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        if latency_s:
            await asyncio.sleep(latency_s)
        choice = {"message": {"role": "assistant", "content": content, **message}}
        return web.json_response(
            {
                "id": f"call-{seen.number}",
                "model": "served/model",
                "choices": [{"index": 0, "finish_reason": finish, **choice}],
                "usage": usage,
            }
        )

    return behave


def status(code: int, body: object = "", **headers: str) -> Behaviour:
    """Answer with an HTTP error; underscores in header names stand for dashes."""

    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, text=text, headers=named)

    return behave


def refusal(http_status: int, message: str, **fields: object) -> Behaviour:
    """Answer with an error in OpenAI's form."""
    return status(http_status, {"error": {"message": message, **fields}})


def raw(body: bytes, content_type: str = "application/json") -> Behaviour:
    """Answer 200 with these bytes."""

    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type)

    return behave


async def hang(seen: Seen, request: web.Request) -> web.StreamResponse:
    """Take the call and never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def drop(seen: Seen, request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(seen: Seen, request: web.Request) -> web.StreamResponse:
    """Send half of a body, then close the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "The ans')
    assert request.transport is not None
    request.transport.close()
    return response


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Behave differently at each try of the same request; the last behaviour stays."""

    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        return await behaviours[min(seen.attempt, len(behaviours) - 1)](seen, request)

    return behave


def rejecting(name: str, message: str, otherwise: Behaviour | None = None) -> Behaviour:
    """Refuse calls that hold a field."""
    accept = otherwise or answer()

    async def behave(seen: Seen, request: web.Request) -> web.StreamResponse:
        refuse = refusal(400, message, param=name)
        return await (refuse if name in seen.body else accept)(seen, request)

    return behave


class TeacherServer:
    """A server that counts every call; start it with ``with``.

    Attributes:
        behave: What it does with a call; may be changed while it runs.
        calls: Times seen, by key.
        bodies: What was sent, in order.
        headers: Of each call, in order.
        peak: Most calls in flight at once.
        port: Where it listens; a free port is taken when 0.
    """

    def __init__(
        self,
        behave: Behaviour | None = None,
        *,
        api_key: str | None = None,
        models: list[str] | None = None,
        port: int = 0,
    ):
        self.behave = behave or answer()
        self.calls: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.peak = 0
        self.port = port
        self._api_key = api_key
        self._models = models
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def total(self) -> int:
        return self.calls.total()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def wait_until(self, condition: Callable[[Self], bool], timeout_s: float = 60.0) -> None:
        """Block until the condition holds; it is looked at after each call that begins or ends."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), timeout_s), self.calls

    async def held(self, seen: Seen, request: web.Request) -> web.StreamResponse:
        """Answer only after ``release``."""
        await self._released.wait()
        return await answer()(seen, request)

    def release(self) -> None:
        """Let the calls that are held, and all later ones, be answered."""
        self._loop.call_soon_threadsafe(self._released.set)

    @staticmethod
    def seen(calls: int) -> "Callable[[TeacherServer], bool]":
        """Return the condition that so many calls were seen."""
        return lambda server: server.total >= calls

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._released = asyncio.Event()
        app = web.Application(client_max_size=2**26)
        self.routes(app)
        runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        # A connection that is being accepted while its server closes would leak: Python 3.11 makes
        # its transport, fails to attach it, and forgets it (python/cpython#109564).
        await self._turn()
        await site.stop()
        await runner.cleanup()
        await self._turn()  # connections closed just now let go of their sockets

    def routes(self, app: web.Application) -> None:
        """Say which addresses there are."""
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list)

    async def _turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0.001)

    def _refused(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if self._api_key is None or sent == f"Bearer {self._api_key}":
            return None
        words = f"Incorrect API key provided: {sent.removeprefix('Bearer ')}"
        return web.json_response({"error": {"message": words}}, status=401)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if self._models is None:
            return web.Response(status=404, text="no list")
        listed = {"data": [{"id": name} for name in self._models]}
        return self._refused(request) or web.json_response(listed)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = f"{body['messages'][-1]['content']}/{body.get('seed')}"
        with self._changed:
            seen = Seen(key, self.calls[key], self.total, body)
            self.calls[key] += 1
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            self._changed.notify_all()
        try:
            return self._refused(request) or await self.behave(seen, request)
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()
