"""A teacher that knows nothing and fails by script: to rehearse a run before paying for one.

    POST /v1/chat/completions    n, seed
    GET  /v1/models
    GET  /stats                  what was asked so far; ?keys=1 by request, too

What it says is made of a hash of model, messages and seed, so a request always gets the same
answer; what goes wrong, and how long it takes, of the seed of the script as well, and of how often
the request was sent before. Kinds of trouble, besides HTTP statuses from 400 to 599:

- ``drop``: the connection ends without a reply;
- ``half``: it ends in the middle of a body;
- ``malformed``: a whole body that is no JSON;
- ``wrong_n``: one choice too few or too many;
- ``hang``: the call is taken, and nothing comes back;
- ``slow``: a byte of the body per second;
- ``huge``: a body of 80 MiB.

Not covered: streaming, tools, encryption.
"""

import asyncio
import json
import math
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

from aiohttp import web

from stillroom.models.config import Price

BROKEN = ("drop", "half", "malformed", "wrong_n", "hang", "slow", "huge")
HUGE_BYTES = 80 * 2**20
_SLOW_S = 1.0  # between bytes
_P99 = NormalDist().inv_cdf(0.99)
_TEXT = (
    "so the sum is even wait let me check that again hence both sides agree and we may divide by "
    "two which leaves seven or suppose instead that it were odd then nothing would follow"
)
_WORDS = tuple(_TEXT.split())
_SAID = {
    401: "Incorrect API key provided: the key has expired.",
    402: "You have insufficient credit.",
    429: "Rate limit reached.",
}


@dataclass(frozen=True)
class Spread:
    """How long answers take, or how many tokens: always the same, or lognormal.

    Attributes:
        p50: Median.
        p99: The 99th percentile; the median where all are the same.
    """

    p50: float = 0.0
    p99: float = 0.0

    @staticmethod
    def parse(text: str) -> "Spread":
        """Read ``P50`` or ``P50,P99``.

        Raises:
            ValueError: If the text is neither.

        >>> Spread.parse("2,20")
        Spread(p50=2.0, p99=20.0)
        """
        first, comma, second = text.partition(",")
        try:
            found = Spread(float(first), float(second if comma else first))
        except ValueError:
            found = Spread(-1.0)
        if 0 <= found.p50 <= found.p99 < math.inf and (found.p50 or not found.p99):
            return found
        raise ValueError(f"{text!r}; expected a number, or median and 99th percentile as in 2,20")

    def at(self, share: float) -> float:
        """Return what this share of the calls stays below.

        Args:
            share: Above 0 and below 1.
        """
        if self.p50 == self.p99:
            return self.p50
        sigma = math.log(self.p99 / self.p50) / _P99
        return self.p50 * math.exp(sigma * NormalDist().inv_cdf(share))


_FAULT = re.compile(
    r"(?P<kind>[a-z_]+|\d{3})(=(?P<share>[\d.]+))?(@(?P<first>\d*)-(?P<last>\d*))?"
    r"(/(?P<after>[\d.]+))?"
)


@dataclass(frozen=True)
class Fault:
    """One line of the script.

    Attributes:
        kind: An HTTP status, or one of `BROKEN`.
        share: Of the calls that it befalls, above 0 and up to 1.
        first: The first call that it may befall; they count from 1, by arrival.
        last: The last one.
        after_s: ``Retry-After`` of a status, in seconds; None for none.
    """

    kind: str
    share: float = 1.0
    first: int = 1
    last: float = math.inf
    after_s: float | None = None

    @staticmethod
    def parse(text: str) -> "Fault":
        """Read ``KIND[=SHARE][@FIRST-LAST][/RETRY_AFTER]``.

        Raises:
            ValueError: If the text says nothing of the kind.

        >>> Fault.parse("429=0.5@100-300/2")
        Fault(kind='429', share=0.5, first=100, last=300, after_s=2.0)
        """
        found = _FAULT.fullmatch(text)
        expected = (
            "KIND[=SHARE][@FIRST-LAST][/RETRY_AFTER], such as 429=0.5@100-300/2, with a status "
            f"from 400 to 599 or one of {', '.join(BROKEN)}"
        )
        try:
            if found is None:
                raise ValueError
            fault = Fault(
                kind=found["kind"],
                share=float(found["share"] or 1),
                first=int(found["first"] or 1),
                last=int(found["last"]) if found["last"] else math.inf,
                after_s=float(found["after"]) if found["after"] else None,
            )
        except ValueError:
            raise ValueError(f"{text!r}; expected {expected}") from None
        known = fault.kind in BROKEN or 400 <= int(fault.kind if fault.kind.isdigit() else 0) < 600
        if not known or not 0 < fault.share <= 1 or fault.first > fault.last:
            raise ValueError(f"{text!r}; expected {expected}")
        return fault


@dataclass(frozen=True)
class Script:
    """What the teacher does.

    Attributes:
        latency: Seconds that answers take, and the faults that take a slot.
        faults: What goes wrong; of several that befall a call, the first.
        slots: Calls that it works on at once; None for any number.
        queue: Calls that wait for a slot at most; those beyond get 429. None for any number.
        price: What tokens cost, for the stats.
        tokens: Words of reasoning in an answer.
        key: The API key that it wants; None for none.
        seed: Of faults and latencies.
    """

    latency: Spread = Spread()
    faults: tuple[Fault, ...] = ()
    slots: int | None = None
    queue: int | None = None
    price: Price | None = None
    tokens: Spread = Spread(50, 50)
    key: str | None = None
    seed: int = 0


class Books:
    """What was asked and answered, for `/stats`."""

    def __init__(self, slots: int | None) -> None:
        self._slots = slots
        self.calls: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.total = 0
        self.faults: Counter[str] = Counter()
        self.in_flight = 0
        self.peak = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._busy = 0
        self._busy_s = 0.0
        self._first: float | None = None
        self._last = 0.0

    def came(self) -> None:
        """Take note of a call."""
        self.total += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self._work(0)

    def went(self) -> None:
        """Take note of its end."""
        self.in_flight -= 1
        self._work(0)

    def _work(self, change: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = self._last = now
        self._busy_s += self._busy * (now - self._last)
        self._busy += change
        self._last = now

    def begin_work(self) -> None:
        """Take note that a slot is busy."""
        self._work(1)

    def end_work(self) -> None:
        """Take note that it is free again."""
        self._work(-1)

    def show(self, price: Price | None, *, keys: bool) -> dict[str, Any]:
        """Return everything as JSON."""
        span = self._last - (self._first or 0.0)
        idle = 1 - self._busy_s / (self._slots * span) if self._slots and span else None
        shown = {
            "calls": self.total,
            "requests": len(self.calls),
            "answers": self.answers.total(),
            "answered_again": self.answers.total() - len(self.answers),
            "faults": dict(self.faults),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak,
            "span_s": span,
            "idle_share": idle,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": price and price.usd(self.prompt_tokens, self.completion_tokens),
        }
        if keys:
            shown["by_key"] = {key: [n, self.answers[key]] for key, n in self.calls.items()}
        return shown


@dataclass(frozen=True)
class _Order:
    """A request for completions, checked.

    Attributes:
        key: Of model, messages and seed.
        model: As the caller names it.
        words: Of all messages.
        n: Choices.
    """

    key: str
    model: str
    words: int
    n: int

    @staticmethod
    def read(text: bytes) -> "_Order":
        body = json.loads(text)
        words = sum(len(str(message.get("content")).split()) for message in body["messages"])
        key = _digest([body["model"], body["messages"], body.get("seed")]).hex()
        n = body.get("n", 1)
        if type(n) is not int or n < 1:
            raise ValueError(f"n is {n!r}")
        return _Order(key, str(body["model"]), words, n)


class FakeTeacher:
    """The server's side of a call."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._free = asyncio.Semaphore(script.slots) if script.slots else None
        self._waiting = 0
        self.books = Books(script.slots)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        route = request.method, request.path
        if route == ("GET", "/stats"):
            return web.json_response(
                self.books.show(self._script.price, keys="keys" in request.query)
            )
        wanted = self._script.key
        if wanted is not None and request.headers.get("Authorization") != f"Bearer {wanted}":
            return _error(401)
        if route == ("GET", "/v1/models"):
            return web.json_response({"data": []}, status=404)
        if route != ("POST", "/v1/chat/completions"):
            return _error(404, f"no such address: {request.method} {request.path}")
        try:
            order = _Order.read(await request.read())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _error(400, f"not a chat completion request: {error!r}")
        self.books.came()
        try:
            return await self._complete(request, order)
        finally:
            self.books.went()

    async def _complete(self, request: web.BaseRequest, order: "_Order") -> web.StreamResponse:
        number, attempt = self.books.total, self.books.calls[order.key]
        self.books.calls[order.key] += 1
        fault = self._fault(number, f"{order.key}/{attempt}")
        if fault is not None:
            self.books.faults[fault.kind] += 1
            if fault.kind.isdigit():
                return _error(int(fault.kind), after_s=fault.after_s)
        if self._free is None:
            return await self._work(request, order, attempt, fault)
        queue = self._script.queue
        if self._free.locked() and queue is not None and self._waiting >= queue:
            self.books.faults["full"] += 1
            return _error(429)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._work(request, order, attempt, fault)
        finally:
            self._free.release()

    def _fault(self, number: int, what: str) -> Fault | None:
        for i, fault in enumerate(self._script.faults):
            if fault.first <= number <= fault.last and (
                fault.share == 1 or self._share(what, i) < fault.share
            ):
                return fault
        return None

    def _share(self, *of: object) -> float:
        """Draw a number above 0 and below 1."""
        return (int.from_bytes(_digest([self._script.seed, *of])[:6]) + 0.5) / 2**48

    async def _work(
        self, request: web.BaseRequest, order: "_Order", attempt: int, fault: Fault | None
    ) -> web.StreamResponse:
        self.books.begin_work()
        try:
            if seconds := self._script.latency.at(self._share(order.key, attempt, "latency")):
                await asyncio.sleep(seconds)
            kind = fault.kind if fault else ""
            n = order.n
            if kind == "wrong_n":
                n += 1 if n == 1 or attempt % 2 else -1
            reply = self._reply(order, n)
            if fault is None:
                self.books.answers[order.key] += 1
                self.books.prompt_tokens += reply["usage"]["prompt_tokens"]
                self.books.completion_tokens += reply["usage"]["completion_tokens"]
            text = json.dumps(reply).encode()
            if kind in ("", "wrong_n"):
                return web.Response(body=text, content_type="application/json")
            return await _break(kind, request, text)
        finally:
            self.books.end_work()

    def _reply(self, order: "_Order", n: int) -> dict[str, Any]:
        choices = []
        tokens = 0
        for i in range(n):
            draw = random.Random(f"{order.key}/{i}")
            length = round(self._script.tokens.at(self._share(order.key, i, "tokens")))
            tokens += length + 4
            words = " ".join(draw.choices(_WORDS, k=length))
            message = {
                "role": "assistant", "reasoning_content": words,
                "content": f"The answer is \\boxed{{{draw.randrange(10)}}}.",
            }  # fmt: skip
            choices.append({"index": i, "finish_reason": "stop", "message": message})
        usage = {"prompt_tokens": order.words, "completion_tokens": tokens}
        return {
            "id": f"fake-{order.key[:12]}", "object": "chat.completion", "created": 0,
            "model": order.model, "choices": choices, "usage": usage,
        }  # fmt: skip


async def _break(kind: str, request: web.BaseRequest, text: bytes) -> web.StreamResponse:
    if kind == "malformed":
        return web.Response(body=text[: len(text) // 2], content_type="application/json")
    if kind == "drop":
        _hang_up(request)
        return web.Response()
    if kind == "hang":
        await asyncio.Event().wait()
    size = HUGE_BYTES if kind == "huge" else len(text)
    response = web.StreamResponse(headers={"Content-Length": str(size)})
    await response.prepare(request)
    if kind == "half":
        await response.write(text[: len(text) // 2])
        _hang_up(request)
    elif kind == "slow":
        for i in range(size):
            await response.write(text[i : i + 1])
            await asyncio.sleep(_SLOW_S)
    else:
        for _ in range(HUGE_BYTES >> 20):
            await response.write(b" " * 2**20)
    return response


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()


def _error(status: int, words: str = "", *, after_s: float | None = None) -> web.Response:
    words = words or _SAID.get(status, "This fault is in the script.")
    headers = {} if after_s is None else {"Retry-After": f"{after_s:g}"}
    return web.json_response({"error": {"message": words}}, status=status, headers=headers)


def _digest(content: object) -> bytes:
    return blake2b(json.dumps(content).encode(), digest_size=16).digest()


def serve(script: Script, host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        script: What the teacher does.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        ready: Told the address once it listens.

    Raises:
        OSError: If the address cannot be used.
    """

    async def main() -> None:
        server = web.Server(
            FakeTeacher(script).handle,
            handler_cancellation=True,  # a client that went away frees its slot
            access_log=None,
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=4096)
            await site.start()
            # An exception raised by a signal in the middle of a callback would leave connections
            # that never end; the loop takes signals between callbacks.
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            ready(f"http://{host}:{runner.addresses[0][1]}/v1")
            await stop.wait()
        finally:
            await runner.cleanup()

    asyncio.run(main())
