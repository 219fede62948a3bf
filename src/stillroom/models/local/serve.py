"""The local engine as an OpenAI-compatible server.

    GET  /health
    GET  /v1/models
    POST /v1/chat/completions    n, temperature, top_p, max_tokens, seed, stream, usage

All requests ride in one batch. A completion is a pure function of the request, seed included; a
request with n choices gets the draws seed to seed + n - 1, the same that ``LocalModel`` gives.

Covered: what changes an answer is either done or refused with 400; nothing is silently ignored
that would. Not covered: keys, encryption, tools, log probabilities, stop words. It is meant for one
machine or a trusted network.
"""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, cast

from aiohttp import web

from stillroom.errors import ModelError
from stillroom.models.chat import Completion, Failure, Message, Request, Role, Sampling
from stillroom.models.local.engine import MORE, NO_MEMORY, POLL_S, STOP, Job, LocalModel
from stillroom.text.think import CLOSE, OPEN

# Where the thinking goes: a field of its own under either name, or think tags in the content.
ReasoningField = Literal["reasoning", "reasoning_content", "tags"]

MAX_BODY_BYTES = 16 << 20
MAX_CHOICES = 128

# Settings that the engine lacks, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stop": ([], ""),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "chat_template_kwargs": ({},),
}


class _Refusal(Exception):
    """An HTTP status with OpenAI's error object."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def _error(status: int, message: str, param: str | None, code: str | None) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status)


# ---- from HTTP threads to the engine's events ----------------------------------------------------


class _Desk:
    """Hands jobs to one engine and each event to the task that waits for it."""

    def __init__(self, model: LocalModel) -> None:
        self._engine = model.start()
        self._numbers = count()
        self._waiting: dict[int, asyncio.Queue[tuple[list[int], int]]] = {}
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread = threading.Thread(target=self._listen, name="stillroom-serve", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while self._open:
            if events := self._engine.take(POLL_S):
                try:
                    self._loop.call_soon_threadsafe(self._deliver, events)
                except RuntimeError:  # the loop was closed under us: nobody waits any more
                    return

    def _deliver(self, events: list[tuple[int, list[int], int]]) -> None:
        for number, tokens, how in events:
            if (queue := self._waiting.get(number)) is not None:
                queue.put_nowait((tokens, how))

    async def draw(
        self, request: Request, job: Job, *, stream: bool
    ) -> AsyncIterator[tuple[list[int], int]]:
        """Yield tokens as they come, and at last how the completion ended."""
        number = next(self._numbers)
        queue = self._waiting[number] = asyncio.Queue()
        how = MORE
        try:
            self._engine.submit(
                number,
                job.prompt.tokens,
                request.key,
                temperature=job.temperature,
                top_p=job.top_p,
                limit=job.limit,
                stream=stream,
            )
            while how == MORE:
                tokens, how = await queue.get()
                yield tokens, how
        finally:
            del self._waiting[number]
            if how == MORE:  # the client went away
                self._engine.cancel(number)

    async def close(self) -> None:
        self._open = False
        await asyncio.to_thread(self._engine.close)
        await asyncio.to_thread(self._thread.join)


# ---- requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Order:
    """One chat completion request, checked."""

    requests: list[Request]
    jobs: list[Job]
    stream: bool
    include_usage: bool


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _number(
    body: dict[str, Any], name: str, low: float, high: float, *, whole: bool = False
) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise _Refusal(
            400, f"{name} is {value!r}; expected {kind}, {low:g} to {high:g}", param=name
        )
    return cast("float", value)


def _whole(body: dict[str, Any], name: str, low: int, high: int) -> int | None:
    return cast("int | None", _number(body, name, low, high, whole=True))


def _messages(body: dict[str, Any]) -> tuple[Message, ...]:
    turns = body.get("messages")
    if not isinstance(turns, list) or not turns:
        raise _Refusal(400, "messages is missing or empty; expected a list", param="messages")
    messages = []
    for i, turn in enumerate(turns):
        where = f"messages[{i}]"
        role = turn.get("role") if isinstance(turn, dict) else None
        role = "system" if role == "developer" else role
        if role not in ("system", "user", "assistant"):
            raise _Refusal(
                400,
                f"{where}.role is {_short(role)}; expected system, user or assistant",
                param=f"{where}.role",
            )
        content = turn.get("content")
        if isinstance(content, list) and all(
            isinstance(part, dict)
            and part.get("type") == "text"
            and isinstance(part.get("text"), str)
            for part in content
        ):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str):
            raise _Refusal(
                400,
                f"{where}.content is a {type(content).__name__}; expected text or text parts",
                param=f"{where}.content",
            )
        messages.append(Message(cast("Role", role), content))
    return tuple(messages)


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _Refusal(400, f"{name} is {_short(value)}; expected true or false", param=name)
    return bool(value)


def _order(model: LocalModel, body: Any) -> _Order:
    """Check a request body and turn it into jobs."""
    if not isinstance(body, dict):
        raise _Refusal(400, "the body is not a JSON object")
    if (name := body.get("model")) != model.name:
        raise _Refusal(
            404,
            f"{_short(name)}: no such model; this server has {model.name!r}",
            param="model",
            code="model_not_found",
        )
    for setting, values in NEUTRAL.items():
        value = body.get(setting)
        if value is not None and value not in values:
            raise _Refusal(400, f"{setting} is not supported by this server", param=setting)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise _Refusal(400, "stream_options is not an object", param="stream_options")
    most = model.checkpoint.sizes.context
    limit = _whole(body, "max_completion_tokens", 1, 1 << 30)
    limit = _whole(body, "max_tokens", 1, 1 << 30) if limit is None else limit
    sampling = Sampling(
        temperature=_number(body, "temperature", 0, 100),
        top_p=_number(body, "top_p", 1e-9, 1),
        max_tokens=limit,
    )
    seed = _whole(body, "seed", 0, 1 << 62)
    # Without a seed the client asks for chance, as with any other server.
    first = secrets.randbelow(1 << 31) if seed is None else seed
    messages = _messages(body)
    requests, jobs = [], []
    for i in range(_whole(body, "n", 1, MAX_CHOICES) or 1):
        request = Request(model.name, messages, sampling, first + i)
        job = model.prepare(request)
        if isinstance(job, Failure):
            if job.reason == "too_long":
                raise _Refusal(
                    400,
                    f"This model's maximum context length is {most} tokens: {job.message}",
                    param="messages",
                    code="context_length_exceeded",
                )
            raise _Refusal(400, job.message, param="messages")
        requests.append(request)
        jobs.append(job)
    return _Order(
        requests,
        jobs,
        stream=_flag(body, "stream"),
        include_usage=_flag(options or {}, "include_usage"),
    )


# ---- replies -------------------------------------------------------------------------------------


class Splitter:
    """Sort text into thinking and answer while it arrives.

    The parts put together are what `split_thinking` makes of the whole text, save that text before
    ``<think>`` or a ``</think>`` without a beginning is seen too late and stays in the answer.
    """

    def __init__(self, *, opened: bool) -> None:
        self._field = "reasoning" if opened else "answer"
        self._held = ""
        self._undecided = True  # whether a think tag may still come first
        self._started = False  # whether the present field has text

    def push(self, text: str, *, last: bool = False) -> list[tuple[str, str]]:
        """Take text; return pairs of a field, ``reasoning`` or ``answer``, and its next words."""
        self._held += text
        out: list[tuple[str, str]] = []
        if self._undecided:
            start = self._held.lstrip()
            if OPEN.startswith(start) and len(start) < len(OPEN) and not last:
                return out
            self._undecided = False
            if start.startswith(OPEN):
                self._field, self._held = "reasoning", start[len(OPEN) :]
        if self._field == "reasoning":
            thought, tag, rest = self._held.partition(CLOSE)
            if tag:
                self._emit(out, thought.rstrip())
                self._field, self._held, self._started = "answer", rest, False
        certain = self._held.rstrip() if last else self._held[: self._certain()]
        self._emit(out, certain)
        self._held = self._held[len(certain) :]
        return out

    def _certain(self) -> int:
        """How much may be told: not half a closing tag, nor white space that may be at the end."""
        end = len(self._held)
        if self._field == "reasoning":
            for n in range(min(len(CLOSE) - 1, end), 0, -1):
                if self._held.endswith(CLOSE[:n]):
                    end -= n
                    break
        return len(self._held[:end].rstrip())

    def _emit(self, out: list[tuple[str, str]], text: str) -> None:
        if not self._started:
            text = text.lstrip()
        if text:
            self._started = True
            out.append((self._field, text))


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class _Server:
    """The handlers of one model."""

    def __init__(self, model: LocalModel, reasoning: ReasoningField) -> None:
        self.model = model
        self.reasoning = reasoning
        self.started = int(time.time())
        self.desk: _Desk

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        self.desk = _Desk(self.model)
        yield
        await self.desk.close()

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(self, request: web.Request) -> web.Response:
        entry = {
            "id": self.model.name,
            "object": "model",
            "created": self.started,
            "owned_by": "stillroom",
            "max_model_len": self.model.checkpoint.sizes.context,
        }
        return web.json_response({"object": "list", "data": [entry]})

    async def chat(self, http: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await http.read())
        except (ValueError, RecursionError) as error:
            raise _Refusal(400, f"the body is not JSON: {error}") from error
        order = _order(self.model, body)
        frame = {
            "id": f"chatcmpl-{order.requests[0].key.hex()}",
            "object": "chat.completion.chunk" if order.stream else "chat.completion",
            "created": int(time.time()),
            "model": self.model.name,
        }
        if order.stream:
            return await self._stream(http, order, frame)
        tasks = [
            asyncio.ensure_future(self._whole(request, job))
            for request, job in zip(order.requests, order.jobs, strict=True)
        ]
        try:
            choices = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # a client that left must not keep the cores busy
                task.cancel()
        drawn = sum(tokens for _, tokens in choices)
        return web.json_response(
            frame
            | {
                "choices": [{"index": i} | choice for i, (choice, _) in enumerate(choices)],
                "usage": _usage(len(order.jobs[0].prompt.tokens), drawn),
            }
        )

    async def _whole(self, request: Request, job: Job) -> tuple[dict[str, Any], int]:
        # Without streaming there is one event, the end.
        [(tokens, how)] = [event async for event in self.desk.draw(request, job, stream=False)]
        reply = self.model.finish(job, tokens, how)
        if isinstance(reply, Failure):
            raise _Refusal(500, reply.message)
        message: dict[str, Any] = {"role": "assistant"} | self._fields(reply, tokens)
        choice = {"message": message, "finish_reason": reply.finish_reason, "logprobs": None}
        return choice, len(tokens)

    def _fields(self, reply: Completion, tokens: list[int]) -> dict[str, str | None]:
        if self.reasoning == "tags":
            return {"content": self.model.checkpoint.text(tokens)}
        return {"content": reply.answer, self.reasoning: reply.reasoning}

    async def _stream(
        self, http: web.Request, order: _Order, frame: dict[str, Any]
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(http)

        async def send(data: dict[str, Any]) -> None:
            await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")

        if order.include_usage:
            frame = frame | {"usage": None}
        totals = [0] * len(order.jobs)

        async def choice(index: int) -> None:
            async def tell(delta: dict[str, str], reason: str | None = None) -> None:
                entry = {"index": index, "delta": delta, "finish_reason": reason}
                await send(frame | {"choices": [entry]})

            job = order.jobs[index]
            decoder = self.model.checkpoint.decoder()
            splitter = Splitter(opened=job.prompt.opened)
            await tell({"role": "assistant", "content": ""})
            async for tokens, how in self.desk.draw(order.requests[index], job, stream=True):
                totals[index] += len(tokens)
                text = decoder.push(tokens, last=how != MORE)
                if self.reasoning == "tags":
                    parts = [("answer", text)] if text else []
                else:
                    parts = splitter.push(text, last=how != MORE)
                for field, words in parts:
                    await tell({"content" if field == "answer" else self.reasoning: words})
                if how == NO_MEMORY:
                    await send({"error": {"message": "no memory", "type": "server_error"}})
                elif how != MORE:
                    await tell({}, "stop" if how == STOP else "length")

        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(order.jobs)):
                    group.create_task(choice(index))
            if order.include_usage:
                prompt = len(order.jobs[0].prompt.tokens)
                await send(frame | {"choices": [], "usage": _usage(prompt, sum(totals))})
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
        except* ConnectionResetError:
            pass  # the client left in the middle; its jobs are cancelled by now
        return response


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every failure into OpenAI's error object."""
    try:
        return await handler(request)
    except _Refusal as refusal:
        return _error(refusal.status, str(refusal), refusal.param, refusal.code)
    except web.HTTPRequestEntityTooLarge:
        return _error(413, f"the body is larger than {MAX_BODY_BYTES} bytes", None, None)
    except web.HTTPException as error:
        what = f"{request.method} {request.path}: {error.reason}"
        return _error(error.status, what, None, None)
    except Exception as error:
        # The text of an unknown error may quote the machine; its kind is enough for a report.
        return _error(500, f"the server failed: {type(error).__name__}", None, None)


def make_app(model: LocalModel, *, reasoning: ReasoningField = "reasoning") -> web.Application:
    """Build the server's application; its engine starts and ends with it.

    Args:
        model: What answers.
        reasoning: Where the thinking goes: a message field of this name, or ``tags``, which
            leaves it in the content as the model wrote it.
    """
    server = _Server(model, reasoning)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors])
    app.cleanup_ctx.append(server.lifetime)
    app.router.add_get("/health", server.health)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    return app


async def _run(
    app: web.Application,
    host: str,
    port: int,
    ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise ModelError(
                f"{host}:{port}: cannot listen there ({error}); expected a free port. "
                "Choose another port, or 0 for any."
            ) from error
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{bound}/v1")
        await stop.wait()
    finally:
        await runner.cleanup()


def serve(
    model: LocalModel,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    reasoning: ReasoningField = "reasoning",
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until interrupted.

    Args:
        model: What answers.
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        reasoning: See `make_app`.
        ready: Called once with the base address, such as ``http://127.0.0.1:8000/v1``.

    Raises:
        ModelError: If the address cannot be used.
    """

    async def forever() -> None:
        await _run(make_app(model, reasoning=reasoning), host, port, ready, asyncio.Event())

    asyncio.run(forever())


@contextmanager
def serving(
    model: LocalModel,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    reasoning: ReasoningField = "reasoning",
) -> Iterator[str]:
    """Serve from a thread while the block runs; gives the base address.

    Raises:
        ModelError: If the address cannot be used.
    """
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    up = threading.Event()
    address: list[str] = []
    failed: list[Exception] = []

    def ready(url: str) -> None:
        address.append(url)
        up.set()

    def run() -> None:
        try:
            app = make_app(model, reasoning=reasoning)
            loop.run_until_complete(_run(app, host, port, ready, stop))
        except Exception as error:
            failed.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            up.set()

    thread = threading.Thread(target=run, name="stillroom-serving", daemon=True)
    thread.start()
    up.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
