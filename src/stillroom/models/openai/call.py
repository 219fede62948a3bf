"""Requests on their way: an event loop in a thread, so that callers stay synchronous.

The caller's thread submits requests and takes replies; the loop's thread does everything else.
Between them are a queue each way and counters with one writer each, and what is handed over is
handed over in heaps. Who waits for a slot, a pause, a budget or a reply waits in a queue or a
callback, not in a task of its own.
"""

import asyncio
import math
import random
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from stillroom.errors import ModelError
from stillroom.models.chat import Completion, Failure, Reply, Request
from stillroom.models.openai.flow import Limit, Server
from stillroom.models.openai.http import Client, Response
from stillroom.models.openai.retries import LONGEST_PAUSE_S, Breaker, Fault, judge, unreachable
from stillroom.models.openai.wire import (
    BadReplyError,
    Dialect,
    ServerError,
    clean,
    read_reply,
    room_left,
)

if TYPE_CHECKING:
    from stillroom.models.openai.model import OpenAIModel

_AHEAD = 16  # a 16th of the limits waits ready, so that no slot waits for the caller's thread
_BROKEN_ROW = 5  # calls in a row without an answer, after which other servers are preferred
_TOGETHER = 256  # replies that the caller takes at once, at most
_GUESS_TOKENS = 500  # of a completion, before any was seen and without max_tokens

Pair = tuple[Request, Reply]


@dataclass(slots=True, eq=False)
class _Job:
    """Draws of one question that are asked in one call.

    Attributes:
        requests: One, or several that differ in nothing but the draw.
        tries: Calls that failed and count against the rule of their kind.
        pauses: Pauses made, but for those after refusals.
        give_up_at: On the loop's clock; patience ends then.
        refused_at: When a server last had no room for it.
        last: The server that failed it last.
        guess: Tokens that were set aside for it in the budget.
        room: Limit to ask for instead of ``max_tokens``, as `room_left` tells; None as usual.
    """

    requests: Sequence[Request]
    tries: int = 0
    pauses: int = 0
    give_up_at: float = math.inf
    refused_at: float = -math.inf
    last: Server | None = None
    guess: float = 0.0
    room: int | None = None


class Call:
    """One iteration of ``complete``."""

    def __init__(self, model: "OpenAIModel", key: str | None):
        """Start the thread; nothing is sent yet."""
        self._model = model
        self._serving = model.serving
        self._key = key
        most = self._serving.concurrency
        self._servers = [Server(url, Limit(most, model.limits[url])) for url in model.limits]
        self._most = most * len(self._servers)
        # Written by the caller's thread
        self._submitted = 0
        self._taken = 0
        self._inbox: deque[_Job] = deque()
        # Written by the loop's thread
        self._outbox: deque[Pair | Exception] = deque()
        self._replied = 0
        self._in_flight = 0
        self._hungry = False  # waits only for the caller to take replies
        self._pumping = False  # a pump is due
        self._some = threading.Event()
        self._pending: deque[_Job] = deque()
        self._wake: asyncio.TimerHandle | None = None
        self._breaker = Breaker()
        self._tokens, self._completions = 0, 0
        self._dark_since: float | None = None  # since when all servers are set aside
        self._last_fault = ""
        self._ended = False
        # Jitter only spreads load; it changes no row, so it needs no seed.
        self._jitter = random.Random()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(ready,), name=f"stillroom {model.name}", daemon=True
        )
        self._thread.start()
        ready.wait()

    # In the caller's thread

    @property
    def outstanding(self) -> int:
        """Requests submitted and not yet taken back with their replies; bounds memory."""
        return self._submitted - self._taken

    @property
    def room(self) -> int:
        """Requests that should be submitted now."""
        limits = sum(int(server.limit.value) for server in self._servers)
        return limits + limits // _AHEAD - self.outstanding

    def submit(self, requests: Sequence[Request]) -> None:
        """Hand over draws of one question, to be asked after ``flush`` at the latest."""
        self._submitted += len(requests)
        self._inbox.append(_Job(requests))

    def flush(self) -> None:
        """Tell the loop of what was submitted and taken, if it would wait for that."""
        if self._inbox or self._hungry:
            with suppress(RuntimeError):  # the loop has ended; why is in the outbox
                self._loop.call_soon_threadsafe(self._pump)

    def wait(self) -> None:
        """Return once there is a reply to take, or room for more requests."""
        self._some.wait()
        self._some.clear()  # what comes from here on is seen at the next look

    def one_by_one(self) -> Iterator[Pair]:
        """Yield the replies that are there; one that the caller is done with is taken.

        Raises:
            Exception: Whatever has stopped the loop, after the replies before it.
        """
        for pairs in self._received(1):
            yield pairs[0]

    def together(self) -> Iterator[list[Pair]]:
        """Yield the replies that are there, as `one_by_one` does, but many at a time."""
        return self._received(_TOGETHER)

    def _received(self, most: int) -> Iterator[list[Pair]]:
        while self._outbox:
            pairs: list[Pair] = []
            while self._outbox and len(pairs) < most:
                if isinstance(self._outbox[0], Exception):
                    break
                pairs.append(self._outbox.popleft())  # type: ignore[arg-type]  # seen above
            if not pairs:
                raise self._outbox.popleft()  # type: ignore[misc]  # seen above
            yield pairs
            self._taken += len(pairs)
            if self._hungry:
                self.flush()

    def received_before_end(self) -> list[Pair]:
        """Return the replies that are there, whatever else went wrong."""
        pairs: list[Pair] = []
        while self._outbox:
            item = self._outbox.popleft()
            if not isinstance(item, Exception):
                pairs.append(item)
        return pairs

    def stop(self) -> None:
        """Cancel what is in flight and end the thread."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._model.limits = {server.url: server.limit.value for server in self._servers}

    # In the loop's thread

    def _serve(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._main(ready))
        except Exception as error:
            self._end(error)
        finally:
            ready.set()

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._clients = {
            server.url: Client(
                f"{server.url}/chat/completions", key=self._key, timeout_s=self._serving.timeout_s
            )
            for server in self._servers
        }
        ready.set()
        await self._stopping.wait()
        self._ended = True
        if self._wake is not None:
            self._wake.cancel()
        for client in self._clients.values():
            await client.close()

    def _reply(self, request: Request, reply: Reply) -> None:
        self._outbox.append((request, reply))
        self._replied += 1
        if not self._some.is_set():
            self._some.set()

    def _end(self, error: Exception) -> None:
        """Pass on what makes going on useless; calls in flight may still come back."""
        if not self._ended:
            self._ended = True
            self._outbox.append(error)
            self._some.set()

    def _pump_soon(self) -> None:
        """Pump once for all that comes in together."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send whatever can be sent now, and wake up when time alone will allow more."""
        self._pumping = False
        try:
            self._send_ready()
        except Exception as error:  # a bug: the caller would wait for ever
            self._end(error)

    def _send_ready(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._hungry = False
        while self._inbox:
            self._pending.append(self._inbox.popleft())
        now = self._loop.time()
        calls, tokens = self._model.budgets
        wait_s = 0.0
        while self._pending and not self._ended:
            job = self._pending[0]
            if len(job.requests) > self._model.choices:  # `n` was refused meanwhile
                self._ask_apart(self._pending.popleft(), done=0)
                continue
            if (wait_s := max(calls.wait_s(now), tokens.wait_s(now))) > 0:
                break
            at_risk = self._in_flight + self._replied - self._taken
            if at_risk and at_risk + len(job.requests) > self._most:
                self._hungry = True
                break
            server = self._pick(job, now)
            if server is None:
                again_at = min(self._room_at(server, now) for server in self._servers)
                if again_at == now:
                    continue
                wait_s = again_at - now
                break
            self._pending.popleft()
            self._send(job, server)
        if 0 < wait_s < math.inf:
            self._wake = self._loop.call_later(self._until_outage(now, wait_s), self._pump)

    def _pick(self, job: _Job, now: float) -> Server | None:
        """Return the server with the most free capacity; None if none can be asked now.

        One that has just failed the same job is taken only when there is no other.
        """
        best = None
        for server in self._servers:
            if server.open_at > now:
                continue
            free = server.free
            # A job may be larger than a limit that is small for now.
            if free >= len(job.requests) or (free > 0 and not server.in_flight):
                rank = (server is not job.last, free)
                if best is None or rank > best[0]:
                    best = rank, server
        return None if best is None else best[1]

    def _room_at(self, server: Server, now: float) -> float:
        """Return when time alone may give a server room for a call; now if it has done so."""
        if server.open_at > now:
            return server.open_at
        if server.outages:
            return math.inf
        again_at = server.limit.full(now)
        if again_at == now and not self._some.is_set():
            self._some.set()  # the caller has not handed over so many
        return math.inf if again_at is None else again_at

    def _until_outage(self, now: float, wait_s: float) -> float:
        """Return how long to wait; stop if all servers have been set aside for too long."""
        if self._dark_since is None:
            return wait_s
        left_s = self._dark_since + self._serving.outage_s - now
        if left_s > 0:
            return min(wait_s, left_s)
        self._end(
            ModelError(
                f"{self._model.name}: no answer for {self._serving.outage_s:g} s, "
                f"last from {self._last_fault}; expected answers from {self._addresses}. "
                "Look after the server and run again: every answer received is kept."
            )
        )
        return wait_s

    @property
    def _addresses(self) -> str:
        return ", ".join(self._serving.base_urls)

    def _send(self, job: _Job, server: Server) -> None:
        n = len(job.requests)
        server.in_flight += n
        self._in_flight += n
        calls, tokens = self._model.budgets
        calls.spend(1)
        if self._serving.tokens_per_minute is not None:
            job.guess = self._guess(job)
            tokens.spend(job.guess)
        self._ask(job, server, self._model.dialect)

    def _ask(self, job: _Job, server: Server, dialect: Dialect) -> None:
        body = dialect.payload(job.requests, self._serving.served_name, room=job.room)
        hear = partial(self._heard, job, server, dialect, self._loop.time())
        self._clients[server.url].post(body, hear)

    def _guess(self, job: _Job) -> float:
        """Estimate the tokens of a job: of its prompt by length, of answers by those seen."""
        first = job.requests[0]
        each: float = first.sampling.max_tokens or _GUESS_TOKENS
        if self._completions:
            each = self._tokens / self._completions
        prompt = sum(len(message.content) for message in first.messages) / 4
        return prompt + each * len(job.requests)

    def _heard(
        self, job: _Job, server: Server, dialect: Dialect, sent_at: float, heard: Response | Fault
    ) -> None:
        """Take the outcome of a call."""
        try:
            try:
                replies = self._understand(job, server, dialect, heard)
            except Fault as fault:
                self._failed(job, server, fault, sent_at)
            else:
                if isinstance(replies, Dialect):
                    self._ask(job, server, replies)
                    return
                self._came_back(job, server, replies, sent_at)
        except Exception as error:
            # Bugs too: the caller would wait for this reply for ever.
            self._end(error)
        n = len(job.requests)
        server.in_flight -= n
        self._in_flight -= n
        self._pump_soon()

    def _came_back(self, job: _Job, server: Server, replies: list[Reply], sent_at: float) -> None:
        """Hand over the replies of a call, and ask again for the draws that it lacks."""
        now = self._loop.time()
        self._lives(server)
        server.took(now, now - sent_at)
        tokens = 0
        for request, reply in zip(job.requests, replies, strict=False):
            if isinstance(reply, Completion):
                tokens += reply.completion_tokens
                self._completions += 1
                self._breaker.completed()
            self._reply(request, reply)
            if isinstance(reply, Failure):
                self._weather(reply)
        self._tokens += tokens
        prompt = sum(r.prompt_tokens for r in replies if isinstance(r, Completion))
        if tokens:
            self._model.budgets[1].spend(tokens + prompt - job.guess)
        server.limit.came_back(now, in_flight=server.in_flight, work=float(tokens or len(replies)))
        self._ask_apart(job, done=len(replies))

    def _ask_apart(self, job: _Job, *, done: int) -> None:
        """Ask one by one, and next, for the draws of a job after those that are done."""
        rest = job.requests[done:]
        self._pending.extendleft(replace(job, requests=[r]) for r in reversed(rest))

    def _lives(self, server: Server) -> None:
        server.lives()
        self._dark_since = None

    def _weather(self, failure: Failure) -> None:
        """Count a failed request, and stop when there are too many."""
        if storm := self._breaker.failed(failure.reason):
            self._end(
                ModelError(
                    f"{self._model.name}: {storm}, the last one with {failure.reason} "
                    f"({failure.message}); expected answers from {self._addresses}. "
                    "Look after the server and run again: every answer received is kept."
                )
            )

    def _failed(self, job: _Job, server: Server, fault: Fault, sent_at: float) -> None:
        """Do what the rule of a fault asks for: later, elsewhere, or not again."""
        now = self._loop.time()
        self._last_fault = f"{server.url}: {fault.message}"
        self._model.budgets[1].spend(-job.guess)
        if fault.kind == "overloaded":
            if server.answered_at > job.refused_at:  # others: vLLM's 503 means what a 429 does
                fault = Fault("rate_limited", fault.message, after_s=fault.after_s)
            job.refused_at = now
        refused = fault.kind == "rate_limited"
        if refused or fault.kind == "overloaded":
            server.refused(now, sent_at=sent_at)
        elif fault.kind == "timeout":
            server.limit.lost(now, sent_at=sent_at)
        first_s = self._serving.pause_s
        if refused:
            pause_s = self._jittered_s(fault, server.silence_s(first_s))
            self._lives(server)
        else:
            pause_s = self._jittered_s(fault, first_s * 2.0 ** min(job.pauses, 30))
            job.pauses += 1
            server.failures += 1
            broken = server.failures >= _BROKEN_ROW and len(self._servers) > 1
            if (fault.kind == "unreachable" or broken) and server.aside_until <= now:
                aside_s = first_s * 2.0 ** min(server.outages, 30)
                server.set_aside(now + self._jittered_s(fault, aside_s))
            if self._dark_since is None and all(server.outages for server in self._servers):
                self._dark_since = now
        job.last = server
        patience_s = self._serving.patience_s
        if fault.rule.tries is None:
            job.give_up_at = min(job.give_up_at, now + patience_s)
        else:
            job.tries += 1
        too_late = pause_s > patience_s or now + pause_s > job.give_up_at
        if too_late or job.tries >= (fault.rule.tries or math.inf):
            for request in job.requests:
                failure = fault.failure()
                self._reply(request, failure)
                self._weather(failure)
        elif fault.rule.tries is None:  # another server may be free at once
            if refused:
                server.quiet_until = max(server.quiet_until, now + pause_s)
            self._pending.appendleft(job)
        else:
            self._loop.call_later(pause_s, self._again, job)

    def _again(self, job: _Job) -> None:
        self._pending.appendleft(job)
        self._pump_soon()

    def _jittered_s(self, fault: Fault, own_s: float) -> float:
        """Return what a server asked for, and most of a pause of our own."""
        own_s = min(own_s, LONGEST_PAUSE_S)
        return (fault.after_s or 0.0) + self._jitter.uniform(0.5, 1.0) * own_s

    def _understand(
        self, job: _Job, server: Server, dialect: Dialect, heard: Response | Fault
    ) -> list[Reply] | Dialect:
        """Return replies to the first so many of the job's requests, or how to ask again at once.

        The others, and that may be all if there are several, have to be asked one by one.

        Raises:
            Fault: If the call brought nothing, and may do so later.
            ModelError: If the model cannot be used.
        """
        if isinstance(heard, Fault):
            server.answered = server.answered or heard.kind == "bad_reply"
            others = [other for other in self._servers if other is not server]
            lost = heard.kind == "unreachable" and not server.answered
            if lost and all(o.outages and not o.answered for o in others):
                cause = heard.__cause__
                assert isinstance(cause, Exception)
                raise unreachable(self._model.name, server.url, cause)
            heard.message = clean(heard.message, self._key)
            raise heard
        server.answered = True
        try:
            reply = read_reply(
                heard.status,
                heard.body,
                key=self._key,
                starts_in_thinking=self._serving.starts_in_thinking,
            )
        except BadReplyError as problem:
            raise Fault("bad_reply", str(problem)) from None
        if isinstance(reply, ServerError):
            if job.room is None and (room := room_left(reply)) is not None:
                job.room = room
                return dialect
            return dialect.other(reply) or self._refusal(job, server, reply, heard.headers)
        # Believed only once the server has answered it.
        self._model.dialect = dialect
        return self._chosen(job, reply)

    def _chosen(self, job: _Job, choices: Sequence[Completion | BadReplyError]) -> list[Reply]:
        wanted = len(job.requests)
        if len(choices) < wanted:  # `n` was ignored
            self._model.choices = 1
        good: list[Reply] = [c for c in choices[:wanted] if isinstance(c, Completion)]
        if not good:
            raise Fault("bad_reply", str(choices[0]))
        return good

    def _refusal(
        self, job: _Job, server: Server, error: ServerError, headers: Mapping[str, str]
    ) -> list[Reply]:
        serving = self._serving
        failure = judge(
            error,
            headers,
            name=self._model.name,
            served_name=serving.served_name,
            url=server.url,
            api_key_env=serving.api_key_env,
        )
        if len(job.requests) > 1:
            if error.param == "n" or re.search(r"\bn\b|choices|best_of", error.words):
                self._model.choices = 1
            return []  # asked one by one, each gets a verdict of its own
        return [failure]
