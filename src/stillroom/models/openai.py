"""Any server that speaks the OpenAI chat completions protocol, hosted or self-hosted.

One background thread runs an event loop per call of ``complete``; callers stay synchronous.
Retries happen here and nowhere else.

Covered: rate limits, server errors, lost connections, hung servers, broken replies, three ways to
send reasoning. The key is read from the environment when it is needed, lives in memory while
``complete`` runs, and is cut out of every text that a server sends.

Not covered: a call that times out here may still be billed by the server; it is asked again.
"""

import asyncio
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import aiohttp

from stillroom.errors import ModelError
from stillroom.models.chat import Completion, Failure, FinishReason, Reply, Request
from stillroom.text.think import split_thinking

_ATTEMPTS = 5
_LONGEST_PAUSE_S = 60.0
_STORM = 20  # failures in a row
_BODY_LIMIT = 64 * 2**20  # bytes; a 100k-token completion is below 1 MB
_CONNECT_TIMEOUT_S = 30.0
_WORDS = 500  # characters of a server's words that are kept

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
}

_TOO_LONG = re.compile(
    r"context.{0,10}(length|window|size)|(prompt|input|message)s?\b.{0,20}too long", re.I
)
_NO_MONEY = re.compile(r"insufficient.{0,3}(quota|credit|balance|funds)", re.I)
_MODERATED = re.compile(r"moderation|flagged|content policy", re.I)
_NO_SCHEMA = re.compile(r"response.?format|json.?schema|structured|guided|grammar|xgrammar", re.I)
_KEYLIKE = re.compile(r"\b(sk|key|hf|gsk|xai)[-_][\w*.-]{6,}")

T = TypeVar("T")


class OpenAIModel:
    """A model behind one or more servers of the same protocol.

    Each draw is sent with its own ``seed``, made from the request's key, so that draws differ on
    servers that would otherwise repeat themselves. A server that rejects ``seed`` gets none; one
    that rejects ``response_format`` is only asked in words.
    """

    def __init__(
        self,
        name: str,
        base_url: str | Sequence[str],
        *,
        served_name: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 64,
        timeout_s: float = 600.0,
        starts_in_thinking: bool = False,
        pause_s: float = 0.5,
        patience_s: float = 900.0,
    ):
        """Describe where a model is served; nothing is sent yet.

        Args:
            name: Frozen model name, as in requests.
            base_url: Address up to and with ``/v1``; of several, each call goes to the one with
                the most free capacity.
            served_name: What the servers call the model, if not by its frozen name.
            api_key_env: Environment variable that holds the key; None when no key is needed.
            concurrency: Calls in flight at most, per server.
            timeout_s: Seconds that one call may take.
            starts_in_thinking: Whether the chat template ends in ``<think>`` and the server
                does not split the reasoning off.
            pause_s: Seconds before the first retry; each further one waits twice as long.
            patience_s: Seconds from its first refusal that a request waits for a rate limit.
        """
        self.name = name
        urls = (base_url,) if isinstance(base_url, str) else base_url
        self.base_urls = tuple(url.rstrip("/") for url in urls)
        self.served_name = served_name or name
        self.api_key_env = api_key_env
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.starts_in_thinking = starts_in_thinking
        self.pause_s = pause_s
        self.patience_s = patience_s
        self._dialect = _Dialect()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, {list(self.base_urls)!r})"

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Reply to each request once, in any order.

        Requests are taken in the caller's thread, one for each that may be in flight. When the
        iteration is interrupted or stopped by an error, replies already received come first.

        Raises:
            ModelError: If a server cannot be reached at the start, refuses the key or does not
                know the model, or if 20 requests in a row fail.
        """
        source = iter(requests)
        first = next(source, None)
        if first is None:
            return
        call = _Call(self, self._key())
        try:
            call.submit(first)
            exhausted = False
            while True:
                while not exhausted and call.outstanding < call.window:
                    request = next(source, None)
                    if request is None:
                        exhausted = True
                    else:
                        call.submit(request)
                    yield from call.received()
                if not call.outstanding:
                    return
                yield call.wait()
        except GeneratorExit:
            raise
        except BaseException:
            yield from call.received_before_end()
            raise
        finally:
            call.stop()

    def served_models(self, *, timeout_s: float = 5.0) -> dict[str, list[str] | None]:
        """Ask each server which models it serves; None where a server keeps no list.

        Raises:
            ModelError: If a server cannot be reached or refuses the key.
        """
        return _run_apart(self._list_models(self._key(), timeout_s))

    async def _list_models(self, key: str | None, timeout_s: float) -> dict[str, list[str] | None]:
        models: dict[str, list[str] | None] = {}
        async with _session(key, timeout_s) as session:
            for url in self.base_urls:
                try:
                    async with session.get(f"{url}/models", allow_redirects=False) as response:
                        body = await response.read()
                        status = response.status
                except (aiohttp.ClientError, TimeoutError, OSError) as lost:
                    raise _unreachable(self.name, url, lost) from None
                if status in (401, 403):
                    error = _error_in(status, body)
                    said = f"HTTP {status}: {_clean(error.words if error else '', key)}"
                    raise _key_refused(self.name, url, self.api_key_env, said)
                try:
                    models[url] = [str(model["id"]) for model in json.loads(body)["data"]]
                except (ValueError, KeyError, TypeError):
                    models[url] = None
        return models

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        where = f"{self.name}: environment variable {self.api_key_env}"
        if not key:
            raise ModelError(
                f"{where} is not set; expected the API key for {self.base_urls[0]}. Export it, or "
                "remove api_key_env if the server needs none."
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ModelError(
                f"{where} holds blanks or characters outside ASCII; expected one API key. "
                "Set it again."
            )
        return key


@dataclass(slots=True)
class _Server:
    """One base URL and its load.

    Attributes:
        limit: Calls that may be in flight.
        in_flight: Calls that are.
        quiet_until: On the loop's clock; a rate limit asked for silence until then.
        answered: Whether it has ever sent an HTTP response.
    """

    url: str
    limit: int
    in_flight: int = 0
    quiet_until: float = 0.0
    answered: bool = False


class _Retryable(Exception):
    """An attempt failed in a way that another may not.

    Attributes:
        reason: As in ``Failure``.
        message: What happened, without keys.
        limited: Whether the server only asked for patience.
        after_s: How long it asked to wait; None when it did not say.
    """

    def __init__(
        self, reason: str, message: str, *, limited: bool = False, after_s: float | None = None
    ):
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.limited = limited
        self.after_s = after_s


class _Call:
    """One iteration of ``complete``: a loop thread, and a queue of what it received.

    Attributes:
        outstanding: Requests submitted and not yet handed to the caller; bounds memory, and is
            all that a killed process can have paid for in vain.
    """

    def __init__(self, model: OpenAIModel, key: str | None):
        self.outstanding = 0
        self._model = model
        self._key = key
        self._servers = [_Server(url, model.concurrency) for url in model.base_urls]
        self._received: SimpleQueue[tuple[Request, Reply] | Exception] = SimpleQueue()
        self._failures_in_row = 0
        self._answered = False
        self._ended = False
        self._tasks: set[asyncio.Task[None]] = set()
        # Jitter only spreads load; it changes no row, so it needs no seed.
        self._jitter = random.Random()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(ready,), name=f"stillroom {model.name}", daemon=True
        )
        self._thread.start()
        ready.wait()

    @property
    def window(self) -> int:
        return sum(server.limit for server in self._servers)

    # In the caller's thread

    def submit(self, request: Request) -> None:
        self.outstanding += 1
        self._loop.call_soon_threadsafe(self._start, request)

    def wait(self) -> tuple[Request, Reply]:
        """Return the next reply."""
        return self._opened(self._received.get())

    def received(self) -> Iterator[tuple[Request, Reply]]:
        """Yield the replies that are there already."""
        while True:
            try:
                item = self._received.get_nowait()
            except Empty:
                return
            yield self._opened(item)

    def received_before_end(self) -> Iterator[tuple[Request, Reply]]:
        """Yield the replies that are there, whatever else went wrong."""
        while True:
            try:
                item = self._received.get_nowait()
            except Empty:
                return
            if not isinstance(item, Exception):
                self.outstanding -= 1
                yield item

    def stop(self) -> None:
        """Cancel what is in flight and end the thread."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _opened(self, item: tuple[Request, Reply] | Exception) -> tuple[Request, Reply]:
        if isinstance(item, Exception):
            raise item
        self.outstanding -= 1
        return item

    # In the loop's thread

    def _serve(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._main(ready))
        except Exception as error:
            self._received.put(error)
        finally:
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with _session(self._key, self._model.timeout_s) as self._session:
            ready.set()
            await self._stopping.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, request: Request) -> None:
        task = self._loop.create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            reply = await self._ask(request)
        except Exception as error:
            # Bugs too: the caller would wait for this reply for ever.
            self._end(error)
            return
        self._received.put((request, reply))
        if isinstance(reply, Completion):
            self._failures_in_row, self._answered = 0, True
            return
        # Questions may come sorted by length. But if nothing has ever fitted, max_tokens is wrong.
        self._failures_in_row += not (self._answered and reply.reason == "too_long")
        if self._failures_in_row >= _STORM:
            self._end(
                ModelError(
                    f"{self._model.name}: {_STORM} requests in a row failed, the last one with "
                    f"{reply.reason} ({reply.message}); expected answers from "
                    f"{', '.join(self._model.base_urls)}. Look after the server and run again: "
                    "every answer received is kept."
                )
            )

    def _end(self, error: Exception) -> None:
        if not self._ended:
            self._ended = True
            self._received.put(error)

    async def _ask(self, request: Request) -> Reply:
        """Try until there is a completion, or a reason to give up."""
        attempts, pauses, give_up_at = 0, 0, math.inf
        server = None
        while True:
            server = await self._pick(server)
            server.in_flight += 1
            try:
                return await self._attempt(server, request)
            except _Retryable as retryable:
                failure = retryable
            finally:
                server.in_flight -= 1
            pause_s = self._pause_s(failure, pauses)
            pauses += 1
            patience_s = self._model.patience_s
            now = self._loop.time()
            if failure.limited:
                give_up_at = min(give_up_at, now + patience_s)
            else:
                attempts += 1
            if attempts >= _ATTEMPTS or pause_s > patience_s or now + pause_s > give_up_at:
                return Failure(failure.reason, failure.message)
            if failure.limited:  # another server may be free at once
                server.quiet_until = max(server.quiet_until, now + pause_s)
            else:
                await asyncio.sleep(pause_s)

    async def _pick(self, last: _Server | None) -> _Server:
        """Return the server with the most free capacity that asks for no silence.

        One that has just failed the same request is taken only when there is no other.
        """
        while True:
            now = self._loop.time()
            willing = [server for server in self._servers if server.quiet_until <= now]
            if willing:
                others = [server for server in willing if server is not last]
                return max(others or willing, key=lambda server: server.limit - server.in_flight)
            earliest = min(server.quiet_until for server in self._servers)
            await asyncio.sleep(earliest - now + self._jitter.uniform(0, self._model.pause_s))

    def _pause_s(self, failure: _Retryable, pauses: int) -> float:
        own = min(self._model.pause_s * 2.0 ** min(pauses, 30), _LONGEST_PAUSE_S)
        return (failure.after_s or 0.0) + self._jitter.uniform(0.5, 1.0) * own

    async def _attempt(self, server: _Server, request: Request) -> Reply:
        dialect = self._model._dialect
        while True:
            status, after_s, body = await self._post(server, dialect.payload(request, self._model))
            error = _error_in(status, body)
            if error is None:
                try:
                    reply = _parse(body, starts_in_thinking=self._model.starts_in_thinking)
                except _BadReplyError as problem:
                    raise _Retryable("bad_reply", _clean(str(problem), self._key)) from None
                self._model._dialect = dialect  # believed only once the server has answered it
                return reply
            if (other := dialect.other(error)) is None:
                return self._refused(server, error, after_s)
            dialect = other

    async def _post(self, server: _Server, body: bytes) -> tuple[int, float | None, bytes]:
        """Return status, Retry-After in seconds, and body."""
        try:
            async with self._session.post(
                f"{server.url}/chat/completions", data=body, allow_redirects=False
            ) as response:
                server.answered = True
                parts, size = [], 0
                async for part in response.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    if size > _BODY_LIMIT:
                        raise _Retryable("bad_reply", f"more than {_BODY_LIMIT} bytes")
                return response.status, _retry_after_s(response.headers), b"".join(parts)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if not any(server.answered for server in self._servers):
                raise _unreachable(self._model.name, server.url, error) from None
            raise _Retryable("unavailable", _clean(str(error), self._key)) from None
        except TimeoutError:
            raise _Retryable("timeout", f"no reply within {self._model.timeout_s:g} s") from None
        except aiohttp.ClientPayloadError:
            raise _Retryable("bad_reply", "the connection ended in the middle of it") from None
        except (aiohttp.ClientError, OSError) as error:
            words = f"{type(error).__name__}: {error}"
            raise _Retryable("unavailable", _clean(words, self._key)) from None

    def _refused(self, server: _Server, error: "_ServerError", after_s: float | None) -> Failure:
        """Turn an HTTP error into the failure, retry or stop that it calls for."""
        name, status = self._model.name, error.status
        words = _clean(error.words, self._key)
        said = f"HTTP {status}: {words}" if words else f"HTTP {status}"
        if status == 429 and not _NO_MONEY.search(f"{error.code} {words}"):
            raise _Retryable("rate_limited", said, limited=True, after_s=after_s)
        if status in (408, 409, 425) or status >= 500:
            raise _Retryable("unavailable", said, after_s=after_s)
        if status in (402, 429):
            raise ModelError(
                f"{name}: {server.url} wants money ({said}); expected an account in credit. "
                "Top it up and run again: every answer received is kept."
            )
        if status == 401 or (status == 403 and not _MODERATED.search(words)):
            raise _key_refused(name, server.url, self._model.api_key_env, said)
        if status in (404, 405) or error.code == "model_not_found" or 300 <= status < 400:
            raise ModelError(
                f"{name}: {server.url} does not serve {self._model.served_name} ({said}); expected "
                "a chat completions endpoint and a model that it knows. Check base_url, which "
                "usually ends in /v1, and served_name."
            )
        if status == 413 or error.code == "context_length_exceeded" or _TOO_LONG.search(words):
            return Failure("too_long", said[:_WORDS])
        return Failure("refused", said[:_WORDS])


@dataclass(frozen=True, slots=True)
class _ServerError:
    """What a server sent in place of a completion.

    Attributes:
        status: HTTP status, or the one inside the body where that came with 200.
        words: The server's explanation, not yet cleaned of keys.
        code: Its machine-readable code, or "".
        param: The request field that it names as the culprit, or "".
    """

    status: int
    words: str
    code: str = ""
    param: str = ""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """Which variant of the protocol a server understands.

    Attributes:
        seed: Whether it takes ``seed``.
        limit: Its name for the completion token limit.
        schema: Whether it takes ``response_format``. Replies are read the same way where not.
    """

    seed: bool = True
    limit: str = "max_tokens"
    schema: bool = True

    def payload(self, request: Request, model: OpenAIModel) -> bytes:
        """Write the JSON body that asks for a request."""
        sampling = request.sampling
        fields = {
            "model": model.served_name,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self.limit: sampling.max_tokens,
            # From the key: draws differ, and so do questions of the same draw.
            "seed": int.from_bytes(request.key[:4]) >> 1 if self.seed else None,
            "response_format": self._response_format(request),
        }
        return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()

    def other(self, error: _ServerError) -> "_Dialect | None":
        """Return the dialect to try after this error; None if the error is about something else."""
        if error.status not in (400, 422):
            return None
        if self.limit == "max_tokens" and "max_completion_tokens" in error.words:
            return replace(self, limit="max_completion_tokens")
        if self.seed and (error.param == "seed" or re.search(r"\bseed\b", error.words)):
            return replace(self, seed=False)
        if self.schema and (_NO_SCHEMA.search(error.param) or _NO_SCHEMA.search(error.words)):
            return replace(self, schema=False)
        return None

    def _response_format(self, request: Request) -> dict[str, Any] | None:
        if request.schema is None or not self.schema:
            return None
        schema = {"name": "reply", "strict": True, "schema": json.loads(request.schema)}
        return {"type": "json_schema", "json_schema": schema}


class _BadReplyError(Exception):
    """A body that came with 200 is not a completion."""


def _parse(body: bytes, *, starts_in_thinking: bool) -> Completion:
    """Read a chat completion into its normal form.

    Raises:
        _BadReplyError: If it is not one.
    """
    try:
        reply = json.loads(body)
    except ValueError as error:  # UnicodeDecodeError is one
        raise _BadReplyError(f"not JSON ({error}): {body[:200]!r}") from None
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _BadReplyError(f"no choices: {body[:200]!r}")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise _BadReplyError(f"no message: {body[:200]!r}")
    finish = choices[0].get("finish_reason")
    finish_reason = _FINISH_REASONS.get(finish.lower()) if isinstance(finish, str) else None
    if finish_reason is None:
        raise _BadReplyError(f"finish_reason is {finish!r}")

    content, reasoning = _texts(message.get("content"))
    for name in ("reasoning", "reasoning_content"):
        if isinstance(message.get(name), str):
            reasoning = reasoning or message[name]
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"]
    if content is None and not reasoning and finish_reason == "stop":
        raise _BadReplyError("content is null")
    if reasoning and reasoning.strip():
        reasoning, answer = reasoning.strip(), (content or "").strip()
    else:
        reasoning, answer = split_thinking(content or "", opened=starts_in_thinking)

    usage = reply.get("usage")
    counts: dict[str, Any] = usage if isinstance(usage, dict) else {}
    prompt_tokens: Any = counts.get("prompt_tokens")
    completion_tokens: Any = counts.get("completion_tokens")
    counted = all(type(count) is int and count >= 0 for count in (prompt_tokens, completion_tokens))
    return Completion(
        reasoning=None if reasoning is None else _well_formed(reasoning),
        answer=_well_formed(answer),
        finish_reason=finish_reason,
        prompt_tokens=prompt_tokens if counted else 0,
        completion_tokens=completion_tokens if counted else 0,
        served_name=reply["model"] if isinstance(reply.get("model"), str) else None,
        provider_id=reply["id"] if isinstance(reply.get("id"), str) else None,
        counted=counted,
    )


def _texts(content: Any) -> tuple[str | None, str | None]:
    """Return the visible text and the thinking of a message's content, text or list of parts."""
    if isinstance(content, str) or content is None:
        return content, None
    if not isinstance(content, list):
        raise _BadReplyError(f"content is {type(content).__name__}")
    visible, thinking = [], []
    for part in content:
        if not isinstance(part, dict):
            raise _BadReplyError(f"content part is {type(part).__name__}")
        if isinstance(part.get("text"), str):
            visible.append(part["text"])
        elif "thinking" in part:  # Mistral sends the thinking as a list of parts once more
            inner, _ = _texts(part["thinking"])
            thinking.append(inner or "")
    return "".join(visible), "".join(thinking) or None


def _well_formed(text: str) -> str:
    """Replace half surrogate pairs, which no Parquet file can hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error_in(status: int, body: bytes) -> _ServerError | None:
    """Return the error that a response holds; None for a completion, whole or broken."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    fields = content if isinstance(content, dict) else {}
    if status == 200 and ("choices" in fields or not fields.get("error")):
        return None
    error = fields.get("error") or fields
    if isinstance(error, dict):
        words = error.get("message") or error.get("detail") or ("" if not error else str(error))
        code, param = error.get("code"), error.get("param")
    else:
        words, code, param = error, None, None
    if content is None:  # an error page of a proxy
        words = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", body.decode("utf-8", "replace"))
    if status == 200:  # OpenRouter sends upstream errors this way
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return _ServerError(status, str(words), str(code or ""), str(param or ""))


def _clean(words: str, key: str | None) -> str:
    """Cut keys, control characters and length out of a server's words."""
    if key:
        words = words.replace(key, "[key]")
    words = _KEYLIKE.sub("[key]", words)
    return "".join(c for c in " ".join(words.split()) if c.isprintable())[:_WORDS]


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _unreachable(name: str, url: str, error: Exception) -> ModelError:
    cause = getattr(error, "os_error", error)
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return ModelError(
        f"{name}: cannot reach {url} ({words}); expected an OpenAI-compatible server there. "
        "Start it, or correct base_url."
    )


def _key_refused(name: str, url: str, api_key_env: str | None, said: str) -> ModelError:
    if api_key_env is None:
        return ModelError(
            f"{name}: {url} wants a key ({said}); expected a server without keys. "
            "Name the environment variable that holds it as api_key_env."
        )
    return ModelError(
        f"{name}: {url} refuses the key ({said}); expected the one in {api_key_env} to be valid. "
        "Renew it and run again: every answer received is kept."
    )


def _session(key: str | None, timeout_s: float) -> aiohttp.ClientSession:
    headers = {"Content-Type": "application/json", "User-Agent": "stillroom"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return aiohttp.ClientSession(
        # Our own limits bound the calls in flight.
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_TIMEOUT_S),
    )


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread: the caller may be in an event loop, as notebooks."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
