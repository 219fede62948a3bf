"""HTTP/1.1 for many small calls at once: a call is a POST and a callback, without a task.

A general client spends more on a call than everything else here together does: on objects for
headers, streams, timers and tasks that nobody looks at (`benches/teacher`).

Covered: connections that are kept and used again, TLS, several addresses of one name, bodies with
a length, in chunks, or up to the end of the connection, gzip, replies that come before the reply
(1xx), one deadline per call that includes connecting, limits on heads and bodies, what is
unpacked included. A connection on which anything unexpected was seen is not used again.

Not covered, on purpose: redirects, which would carry the key elsewhere; proxies of the
environment; cookies; HTTP/2, in which one lost packet holds up a thousand calls.
"""

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, cast

from yarl import URL

from stillroom.models.openai.retries import Fault

BODY_LIMIT = 64 << 20  # bytes; a 100k-token completion is below 1 MB
_HEAD_LIMIT = 64 << 10
_LINE_LIMIT = 8 << 10  # of a chunk's size
_CONNECT_TIMEOUT_S = 30.0
_OTHER_ADDRESS_S = 3.0  # for an address, while there are others to try
_NAMES_S = 10.0  # how long a name's addresses are believed
_IDLE_S = 4.0  # common servers hang up after 5
_PIECE = 256 << 10
_KEEPALIVE_S = 60  # else a router on the way forgets a connection on which nothing is said

_STATUS = re.compile(rb"HTTP/1\.(\d) (\d{3})(?: [^\r\n]*)?")
_HEX = re.compile(rb"\s*([0-9a-fA-F]{1,15})\s*(?:;.*)?", re.S)


class Response(NamedTuple):
    """A whole reply.

    Attributes:
        status: HTTP status, 200 or above.
        headers: By their names, written ``Like-This``.
        body: Unpacked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


Hear = Callable[[Response | Fault], None]


class _Call:
    """One POST under way."""

    __slots__ = ("connection", "hear", "opening", "text")

    def __init__(self, text: bytes, hear: Hear) -> None:
        self.text = text
        self.hear = hear
        self.opening: asyncio.Task[None] | None = None
        self.connection: _Connection | None = None


class Client:
    """Posts to one address; lives in one event loop."""

    def __init__(self, url: str, *, key: str | None, timeout_s: float) -> None:
        """Prepare what is the same in all calls; nothing is sent yet.

        Args:
            url: Where to post to, with ``http`` or ``https``.
            key: API key; None for none.
            timeout_s: Seconds from `post` to the end of the reply.
        """
        address = URL(url)
        self._host, self._port = address.raw_host or "", address.port or 80
        self._ssl = ssl.create_default_context() if address.scheme == "https" else None
        self._timeout_s = timeout_s
        self.loop = asyncio.get_running_loop()
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [
            f"POST {address.raw_path_qs} HTTP/1.1",
            f"Host: {host}" if address.is_default_port() else f"Host: {host}:{self._port}",
            "User-Agent: stillroom",
            "Accept: application/json",
            "Accept-Encoding: gzip",
            "Content-Type: application/json",
        ]
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        self._head = "\r\n".join([*lines, "Content-Length: "]).encode()
        self.room = memoryview(bytearray(_PIECE))  # bytes that came in, until they are looked at
        # In the order of their deadlines, since all have the same time.
        self._calls: dict[_Call, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.idle: dict[_Connection, float] = {}
        self.open: set[_Connection] = set()
        self._lookup: asyncio.Task[list[str]] | None = None
        self._looked_up = 0.0
        self._turn = 0

    def post(self, body: bytes, hear: Hear) -> None:
        """Send a body; ``hear`` is called once, later, with the reply or what went wrong."""
        call = _Call(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), hear)
        deadline = self.loop.time() + self._timeout_s
        self._calls[call] = deadline
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._expire)
        if self.idle:
            connection, since = self.idle.popitem()  # the one that was used last
            if deadline - self._timeout_s - since < _IDLE_S:
                connection.send(call)
                return
            connection.close()
            for connection in list(self.idle):
                connection.close()
            self.idle.clear()
        call.opening = self.loop.create_task(self._open(call))

    def settle(self, call: _Call, outcome: Response | Fault) -> None:
        """Tell the end of a call; the first one counts."""
        if self._calls.pop(call, None) is not None:
            call.hear(outcome)

    async def close(self) -> None:
        """Drop the calls under way, which hear nothing any more, and hang up."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [call.opening for call in self._calls if call.opening is not None]
        if self._lookup is not None:
            tasks.append(self._lookup)  # type: ignore[arg-type]  # tasks of two types
        self._calls.clear()
        for task in tasks:
            task.cancel()
        for connection in list(self.open):
            connection.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # so that the loop lets go of the sockets

    def _expire(self) -> None:
        now = self.loop.time()
        self._timer = None
        late = []
        for call, deadline in self._calls.items():
            if deadline > now:
                self._timer = self.loop.call_at(deadline, self._expire)
                break
            late.append(call)
        for call in late:
            if call.opening is not None:
                call.opening.cancel()
            if call.connection is not None:
                call.connection.close()
            self.settle(call, Fault("timeout", f"no reply within {self._timeout_s:g} s"))

    async def _open(self, call: _Call) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                connection = await self._connect()
        except (OSError, ValueError) as error:  # of sockets, TLS and look-ups; of a name itself
            fault = Fault("unreachable", f"cannot connect to {self._host} ({_words(error)})")
            fault.__cause__ = error
            call.opening = None
            self.settle(call, fault)
        else:
            call.opening = None
            connection.send(call)

    async def _connect(self) -> "_Connection":
        """Connect to any address of the host, to each in turn."""
        addresses = await self._addresses()
        self._turn += 1
        start = self._turn % len(addresses)
        turn = addresses[start:] + addresses[:start]
        for i, address in enumerate(turn, 1):
            last = i == len(turn)
            try:
                async with asyncio.timeout(None if last else _OTHER_ADDRESS_S):
                    _, connection = await self.loop.create_connection(
                        lambda: _Connection(self),
                        address,
                        self._port,
                        ssl=self._ssl,
                        server_hostname=self._host if self._ssl else None,
                    )
                    return connection
            except OSError:
                if last:
                    raise
                if address in addresses and len(addresses) > 1:
                    addresses.remove(address)  # until the name is looked up again
        raise AssertionError  # there is an address

    async def _addresses(self) -> list[str]:
        now = self.loop.time()
        if self._lookup is None or now - self._looked_up > _NAMES_S:
            self._lookup = self.loop.create_task(self._look_up())
            self._looked_up = now
        try:
            return await asyncio.shield(self._lookup)
        except OSError:
            self._looked_up = -_NAMES_S
            raise

    async def _look_up(self) -> list[str]:
        found = await self.loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(info[4][0]) for info in found))


class _Connection(asyncio.BufferedProtocol):
    """One connection, with at most one call on it at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._call: _Call | None = None
        self._head = b""
        self._body: _Body | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._last = False  # the other side hangs up after this reply

    def send(self, call: _Call) -> None:
        """Send a call; the connection is free."""
        if self._transport is None:
            # It was closed between being made and being used.
            self._client.settle(call, Fault("unavailable", "the server hung up"))
            return
        self._call = call
        call.connection = self
        self._head, self._body = b"", None
        self._transport.write(call.text)

    def close(self) -> None:
        """Hang up; a call on it hears nothing from here."""
        self._call = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # Not asserted: other loops have transports of other classes.
        self._transport = cast(asyncio.Transport, transport)
        self._client.open.add(self)
        plug = transport.get_extra_info("socket")
        if plug is not None:
            with suppress(OSError):
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend room for bytes; it is shared, since what came is taken out at once."""
        return self._client.room

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes out of the room."""
        data = bytes(self._client.room[:nbytes])
        if self._call is None:
            self.close()  # a reply that nobody asked for
            return
        try:
            if self._body is None:
                self._read_head(self._head + data)
            elif self._body.feed(data):
                self._finish(self._body)
        except Fault as fault:
            self._fail(fault)

    def _read_head(self, data: bytes) -> None:
        while True:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                if len(data) > _HEAD_LIMIT:
                    raise Fault("bad_reply", f"more than {_HEAD_LIMIT} bytes of headers")
                self._head = data
                return
            lines = head.split(b"\r\n")
            found = _STATUS.fullmatch(lines[0])
            if found is None:
                raise Fault("unavailable", f"not HTTP/1: {lines[0][:100]!r}")
            self._status = int(found[2])
            if self._status >= 200:
                break
            data = rest  # the reply is yet to come
        headers = self._headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.title().decode("latin-1")] = value.strip().decode("latin-1")
        says = headers.get("Connection", "").lower()
        self._last = "close" in says or (found[1] == b"0" and "keep-alive" not in says)
        self._body = self._open_body(headers)
        if self._body.feed(rest):
            self._finish(self._body)

    def _open_body(self, headers: dict[str, str]) -> "_Body":
        if self._status in (204, 304):
            return _Sized(0)
        coding = headers.get("Transfer-Encoding", "").lower()
        if coding == "chunked":
            return _Chunked()
        length = headers.get("Content-Length")
        if coding or length is None:
            self._last = True
            return _Body()
        if not (length.isascii() and length.isdigit()):
            raise Fault("bad_reply", f"its Content-Length is {length[:50]!r}")
        return _Sized(int(length))

    def _finish(self, body: "_Body") -> None:
        call, self._call = self._call, None
        assert call is not None
        unsent = self._transport is None or self._transport.get_write_buffer_size()
        if self._last or body.more_came or unsent:
            self.close()
        else:
            self._client.idle[self] = self._client.loop.time()
        try:
            text = _unpacked(bytes(body.text), self._headers.get("Content-Encoding", "").lower())
        except Fault as fault:
            self._client.settle(call, fault)
        else:
            self._client.settle(call, Response(self._status, self._headers, text))

    def _fail(self, fault: Fault) -> None:
        call = self._call
        self.close()
        if call is not None:
            self._client.settle(call, fault)

    def eof_received(self) -> None:
        """Let the transport close: nothing follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the call on it, if there is one."""
        self._transport = None
        self._client.open.discard(self)
        self._client.idle.pop(self, None)
        if self._call is None:
            return
        if self._body is None:
            words = f" ({_words(exc)})" if exc is not None else ""
            self._fail(Fault("unavailable", f"the server hung up{words}"))
        elif type(self._body) is _Body and exc is None:
            self._finish(self._body)
        else:
            self._fail(Fault("bad_reply", "the connection ended in the middle of it"))


class _Body:
    """What a reply holds, as far as it came; this one ends with the connection."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.more_came = False  # than belongs to it

    def feed(self, data: bytes) -> bool:
        """Take what came; tell whether it is whole.

        Raises:
            Fault: If it is too large, or no body.
        """
        self.text += data
        if len(self.text) > BODY_LIMIT:
            raise Fault("bad_reply", f"more than {BODY_LIMIT} bytes")
        return False


class _Sized(_Body):
    """A body of a known length."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        if length > BODY_LIMIT:
            raise Fault("bad_reply", f"more than {BODY_LIMIT} bytes")

    def feed(self, data: bytes) -> bool:
        super().feed(data)
        self.more_came = len(self.text) > self._length
        if self.more_came:
            del self.text[self._length :]
        return len(self.text) == self._length


class _Chunked(_Body):
    """A body in chunks, each with its size before it (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = b""  # a line that is not whole
        self._left = 0  # bytes of this chunk
        self._ends = False  # this chunk's last byte came, and the line's end is due
        self._trailers = False

    def feed(self, data: bytes) -> bool:
        data, at = self._rest + data, 0
        self._rest = b""
        while True:
            if self._left:
                part = data[at : at + self._left]
                super().feed(part)
                at += len(part)
                self._left -= len(part)
                if self._left:
                    return False
                self._ends = True
            end = data.find(b"\r\n", at)
            if end < 0:
                self._rest = data[at:]
                if len(self._rest) > _LINE_LIMIT:
                    raise Fault("bad_reply", "a chunk without a size")
                return False
            line, at = data[at:end], end + 2
            if self._trailers:
                if not line:
                    self.more_came = at < len(data)
                    return True
            elif self._ends:
                if line:
                    raise Fault("bad_reply", "a chunk longer than its size")
                self._ends = False
            else:
                size = _HEX.fullmatch(line)
                if size is None:
                    raise Fault("bad_reply", f"a chunk of size {line[:50]!r}")
                self._left = int(size[1], 16)
                self._trailers = not self._left


def _unpacked(body: bytes, coding: str) -> bytes:
    """Undo what was done to a body for the way.

    Raises:
        Fault: If it is damaged, too large, or coded in a way that was not asked for.
    """
    if not coding or coding == "identity" or not body:
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Fault("bad_reply", f"its Content-Encoding is {coding[:50]!r}")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        text = unpack.decompress(body, BODY_LIMIT + 1)
    except zlib.error as error:
        raise Fault("bad_reply", f"its {coding} is damaged ({error})") from None
    if len(text) > BODY_LIMIT:
        raise Fault("bad_reply", f"more than {BODY_LIMIT} bytes")
    if not unpack.eof:
        raise Fault("bad_reply", f"its {coding} ends in the middle")
    return text


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
