"""The client's own HTTP, against sockets that say exactly what the test wants."""

import asyncio
import gzip
import shutil
import ssl
import subprocess
import zlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.models.openai.http import BODY_LIMIT, Client, Response
from stillroom.models.openai.retries import Fault

Heard = Response | Fault
Post = Callable[..., Coroutine[Any, Any, Heard]]


class Wire:
    """A server that says the same bytes at each call, in given pieces.

    Attributes:
        pieces: What it says.
        hangs_up: Whether it closes the connection after that.
        connections: How many were opened.
        seen: Requests, whole.
    """

    def __init__(self, *pieces: bytes, hangs_up: bool = False) -> None:
        self.pieces = pieces
        self.hangs_up = hangs_up
        self.connections = 0
        self.seen: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.seen.append(head + await reader.readexactly(length))
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def run(
    wire: Wire,
    talk: Callable[[Post], Coroutine[Any, Any, Any]],
    *,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> Any:
    """Let a client talk to a server."""

    async def main() -> Any:
        server = await asyncio.start_server(wire.serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        options.setdefault("key", None)
        options.setdefault("timeout_s", 5.0)
        address = f"127.0.0.1:{port}/v1/chat/completions"
        client = Client(f"http{'s' if tls else ''}://{address}", **options)

        async def post(body: bytes = b"{}") -> Heard:
            heard = asyncio.get_running_loop().create_future()
            client.post(body, heard.set_result)
            found: Heard = await heard
            return found

        try:
            return await talk(post)
        finally:
            await client.close()
            server.close()

    return asyncio.run(main())


def said(*pieces: bytes, calls: int = 1, **options: Any) -> list[Heard]:
    async def talk(post: Post) -> list[Heard]:
        return [await post() for _ in range(calls)]

    found: list[Heard] = run(Wire(*pieces, **options), talk)
    return found


def text_of(heard: Heard) -> bytes:
    assert isinstance(heard, Response), heard
    return heard.body


def fault_of(heard: Heard) -> tuple[str, str]:
    assert isinstance(heard, Fault), heard
    return heard.kind, heard.message


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_post_is_a_whole_request() -> None:
    wire = Wire(OK)
    run(wire, lambda post: post("é".encode()), key="secret")
    [seen] = wire.seen
    head, _, body = seen.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert lines[1].startswith(b"Host: 127.0.0.1:")
    assert b"Authorization: Bearer secret" in lines
    assert b"Content-Length: 2" in lines
    assert body == "é".encode()


def test_headers_have_one_spelling() -> None:
    [heard] = said(b"HTTP/1.1 429 Slow\r\nretry-AFTER:  7 \r\ncontent-length: 0\r\n\r\n")
    assert isinstance(heard, Response)
    assert (heard.status, heard.headers["Retry-After"], heard.body) == (429, "7", b"")


def test_connection_is_used_again() -> None:
    wire = Wire(OK)

    async def talk(post: Post) -> list[bytes]:
        return [text_of(await post()) for _ in range(5)]

    assert run(wire, talk) == [b"four"] * 5
    assert wire.connections == 1


def test_calls_at_once_have_connections_of_their_own() -> None:
    wire = Wire(OK)

    async def talk(post: Post) -> list[Heard]:
        return await asyncio.gather(*(post() for _ in range(20)))

    assert [text_of(heard) for heard in run(wire, talk)] == [b"four"] * 20
    assert wire.connections == 20


@pytest.mark.parametrize(
    "pieces",
    [
        (OK.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n"),),
        (OK.replace(b"HTTP/1.1", b"HTTP/1.0"),),
        (OK + b"and more",),
    ],
    ids=["close", "1.0", "more than it said"],
)
def test_connection_is_not_used_again_when_it_cannot_be_trusted(pieces: Sequence[bytes]) -> None:
    wire = Wire(*pieces)

    async def talk(post: Post) -> list[bytes]:
        return [text_of(await post()) for _ in range(3)]

    assert run(wire, talk) == [b"four"] * 3
    assert wire.connections == 3


def test_reply_that_nobody_asked_for_answers_no_later_call() -> None:
    wire = Wire(OK, b"", OK.replace(b"four", b"evil"))

    async def talk(post: Post) -> list[bytes]:
        found = []
        for _ in range(3):
            found.append(text_of(await post()))
            await asyncio.sleep(0.05)
        return found

    assert run(wire, talk) == [b"four"] * 3


def test_server_that_hung_up_meanwhile_is_connected_to_again() -> None:
    wire = Wire(OK, hangs_up=True)

    async def talk(post: Post) -> list[bytes]:
        found = []
        for _ in range(3):
            found.append(text_of(await post()))
            await asyncio.sleep(0.05)
        return found

    assert run(wire, talk) == [b"four"] * 3
    assert wire.connections == 3


def cuts(whole: bytes, places: Sequence[int]) -> Iterator[bytes]:
    ends = sorted({place % len(whole) for place in places} | {0, len(whole)})
    return (whole[a:b] for a, b in pairwise(ends))


@settings(max_examples=40)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=50), max_size=5),
    places=st.lists(st.integers(0, 10_000), max_size=12),
    extra=st.sampled_from([b"", b";name=value"]),
    trailer=st.sampled_from([b"", b"X-Sum: 1\r\n"]),
)
def test_chunks_come_together_wherever_they_are_cut(
    parts: list[bytes], places: list[int], extra: bytes, trailer: bytes
) -> None:
    whole = CHUNKED + b"".join(b"%X%b\r\n%b\r\n" % (len(p), extra, p) for p in parts)
    whole += b"0\r\n" + trailer + b"\r\n"
    heard = said(*cuts(whole, places), calls=2)
    assert [text_of(h) for h in heard] == [b"".join(parts)] * 2


def test_body_without_a_length_ends_with_the_connection() -> None:
    [heard] = said(b"HTTP/1.1 200 OK\r\n\r\nfo", b"ur", hangs_up=True)
    assert text_of(heard) == b"four"


def test_replies_before_the_reply_are_skipped() -> None:
    [heard] = said(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n", b"\r\n" + OK)
    assert text_of(heard) == b"four"


def coded(body: bytes, coding: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (coding, len(body)) + body


def test_packed_bodies_are_unpacked() -> None:
    text = b"four " * 1000
    assert text_of(said(coded(gzip.compress(text), b"gzip"))[0]) == text
    assert text_of(said(coded(zlib.compress(text), b"deflate"))[0]) == text


@pytest.mark.parametrize(
    ("pieces", "kind", "words"),
    [
        ((b"",), "unavailable", "hung up"),
        ((b"HTTP/1.1 200 OK\r\nContent-",), "unavailable", "hung up"),
        ((b"SSH-2.0-OpenSSH\r\n\r\n",), "unavailable", "not HTTP/1"),
        ((OK[:-1],), "bad_reply", "in the middle"),
        ((CHUNKED + b"4\r\nfour\r\n",), "bad_reply", "in the middle"),
        ((CHUNKED + b"-4\r\nfour\r\n",), "bad_reply", "a chunk of size"),
        ((CHUNKED + b"4\r\nfourth\r\n",), "bad_reply", "longer than its size"),
        ((CHUNKED + b"4" * 9000,), "bad_reply", "without a size"),
        ((OK.replace(b": 4", b": 4, 4"),), "bad_reply", "Content-Length"),
        ((OK.replace(b": 4", b": %d" % (BODY_LIMIT + 1)),), "bad_reply", "more than"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,), "bad_reply", "of headers"),
        ((coded(b"no gzip", b"gzip"),), "bad_reply", "damaged"),
        ((coded(gzip.compress(b"four")[:-9], b"gzip"),), "bad_reply", "ends in the middle"),
        ((coded(gzip.compress(bytes(BODY_LIMIT + 1)), b"gzip"),), "bad_reply", "more than"),
        ((coded(b"four", b"br"),), "bad_reply", "Content-Encoding"),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_a_fault(pieces: Sequence[bytes], kind: str, words: str) -> None:
    [heard] = said(*pieces, hangs_up=True)
    found = fault_of(heard)
    assert found[0] == kind
    assert words in found[1]


def test_silence_is_a_timeout_and_ends_the_connection() -> None:
    wire = Wire()

    async def talk(post: Post) -> list[Heard]:
        silent = await asyncio.gather(post(), post())
        wire.pieces = (OK,)
        return [*silent, await post()]

    *silent, heard = run(wire, talk, timeout_s=0.1)
    assert [fault_of(h) for h in silent] == [("timeout", "no reply within 0.1 s")] * 2
    assert text_of(heard) == b"four"
    assert wire.connections == 3


def test_nobody_there_is_unreachable_with_its_cause() -> None:
    async def main() -> Heard:
        server = await asyncio.start_server(Wire().serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        heard = asyncio.get_running_loop().create_future()
        client = Client(f"http://localhost:{port}/", key=None, timeout_s=5.0)
        client.post(b"{}", heard.set_result)
        try:
            found: Heard = await heard
            return found
        finally:
            await client.close()

    heard = asyncio.run(main())
    assert fault_of(heard)[0] == "unreachable"
    assert isinstance(heard, Fault)
    assert isinstance(heard.__cause__, OSError)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    chunks = (CHUNKED, b"4\r\nfo", b"ur\r\n0\r\n\r\n")

    async def talk(post: Post) -> list[Heard]:
        return [await post(), await post()]

    for heard in run(Wire(*chunks), talk, tls=tls):
        kind, words = fault_of(heard)
        assert kind == "unreachable"
        assert "certificate verify failed" in words
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    wire = Wire(*chunks)
    assert [text_of(heard) for heard in run(wire, talk, tls=tls)] == [b"four"] * 2
    assert wire.connections == 1
