"""Requests per second and CPU per request, against other clients and a bare loop, the limit.

    python benches/teacher/throughput.py [--requests N] [--slow N] [--peers PYTHON,...]

Every client runs in a process of its own, and so does the server. Two servers:

- one that answers at once and costs next to nothing, so that the client is what is measured;
- the fake teacher with 1,000 slots and latencies of 2 s in the median and 20 s in the 99th
  percentile, for three minutes. There, what counts is the share of the slots that stood idle: from
  the first request until the last one was sent (the tail after that is the same for everybody),
  and of this without the start, from the time when all slots were busy at first.

At last, the memory of a purchase of a million requests at a server that never answers.

PYTHON is the interpreter of an environment with packages to compare with; a package is taken from
the first that has it, and left out if none has. datatrove opens a connection per request at a
server on this machine: that is its own code for it, and at a remote one it goes by the SDK.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MODEL = "some/model"
REASONING = "So the sum is even, wait, let me check that again: hence both sides agree."
USAGE = {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"


def question(i: int) -> str:
    return f"What is {i} + {i}? Show your work."


def ours(url: str, n: int, at_once: int) -> str:
    """Buy through a ledger on disk, as runs do."""
    from stillroom.models.buy import buy
    from stillroom.models.chat import Message, Request, Sampling
    from stillroom.models.ledger import Ledger
    from stillroom.models.openai import OpenAIModel

    requests = (Request(MODEL, (Message("user", question(i)),), Sampling()) for i in range(n))
    with tempfile.TemporaryDirectory() as folder, Ledger(f"{folder}/ledger") as ledger:
        model = OpenAIModel(MODEL, url, concurrency=at_once)
        bought = buy(requests, model=model, ledger=ledger)
    assert (bought.calls, bought.failures) == (n, 0)
    return "stillroom, ledger on"


def bare(url: str, n: int, at_once: int) -> str:
    """Post and read JSON, and nothing else: no retries, nothing kept."""
    import aiohttp

    async def main() -> None:
        numbers = iter(range(n))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                for i in numbers:
                    body = {"model": MODEL, "messages": [{"role": "user", "content": question(i)}]}
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        assert (await response.json())["choices"]

            await asyncio.gather(*(work() for _ in range(at_once)))

    asyncio.run(main())
    return f"aiohttp {aiohttp.__version__}, bare loop"


def sdk(url: str, n: int, at_once: int) -> str:
    """Use the SDK as its users do: all tasks at once, behind a semaphore; nothing kept."""
    import httpx
    import openai

    async def main() -> None:
        free = asyncio.Semaphore(at_once)
        limits = openai.DefaultAsyncHttpxClient(limits=httpx.Limits(max_connections=at_once))
        client = openai.AsyncOpenAI(base_url=url, api_key="none", http_client=limits)

        async def ask(i: int) -> None:
            async with free:
                reply = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": question(i)}]
                )
                assert reply.choices

        await asyncio.gather(*(ask(i) for i in range(n)))

    asyncio.run(main())
    return f"openai {openai.__version__}, semaphore"


def curator(url: str, n: int, at_once: int) -> str:
    """Run Curator with its cache in an empty folder; it keeps replies, as we do.

    Behind litellm: its own client loads a tokenizer from the internet first.
    """
    folder = tempfile.mkdtemp()
    os.environ.update(
        CURATOR_CACHE_DIR=folder, HF_HOME=folder, OPENAI_API_KEY="none", CURATOR_DISABLE_CACHE="0",
        TELEMETRY_ENABLED="0", LITELLM_LOCAL_MODEL_COST_MAP="True",
        CURATOR_DISABLE_RICH_DISPLAY="1",
    )  # fmt: skip
    from bespokelabs.curator import LLM

    class Asker(LLM):  # type: ignore[misc]
        def prompt(self, row: dict[str, Any]) -> str:
            return str(row["question"])

        def parse(self, row: dict[str, Any], response: Any) -> dict[str, Any]:
            return {"answer": str(response)}

    asker = Asker(
        model_name=f"openai/{MODEL}", backend="litellm",
        backend_params={
            "base_url": url, "max_concurrent_requests": at_once,
            "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10,
            "require_all_responses": True,
        },
    )  # fmt: skip
    found = asker([{"question": question(i)} for i in range(n)])
    assert len(getattr(found, "dataset", found)) == n
    return f"bespokelabs-curator {version('bespokelabs-curator')}, litellm, cache on"


def datatrove(url: str, n: int, at_once: int) -> str:
    """Run datatrove's inference runner, with checkpoints, which keep replies."""
    from datatrove.data import Document
    from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
    from datatrove.pipeline.inference.servers import EndpointServer
    from datatrove.pipeline.writers import JsonlWriter
    from loguru import logger

    async def ready(self: Any) -> bool:
        return True

    async def ask(document: Any, generate: Any) -> Any:
        return await generate({"messages": [{"role": "user", "content": document.text}]})

    logger.remove()
    EndpointServer.is_ready = ready  # it asks for a list of models, which the fake teacher lacks
    with tempfile.TemporaryDirectory() as folder:
        config = InferenceConfig(
            server_type="endpoint", model_name_or_path=MODEL, max_concurrent_generations=at_once,
            endpoint_url=url.removesuffix("/v1"),
        )  # fmt: skip
        writer = JsonlWriter(f"{folder}/out", "${rank}_${chunk_index}.jsonl", compression=None)
        runner = InferenceRunner(ask, config, writer, checkpoints_local_dir=f"{folder}/kept")
        runner.run(Document(text=question(i), id=str(i)) for i in range(n))
        kept = sum(len(file.read_text().splitlines()) for file in Path(folder, "out").glob("*"))
    assert kept == n, f"{kept} of {n} kept"
    return f"datatrove {version('datatrove')}, checkpoints on"


CLIENTS = {"bare": bare, "ours": ours, "sdk": sdk, "curator": curator, "datatrove": datatrove}
OTHERS = {"sdk": "openai", "curator": "bespokelabs-curator", "datatrove": "datatrove"}


class Instant(asyncio.Protocol):
    """A server that knows one answer, and numbers it."""

    number = 0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.came = b""

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self.came += data
        while b"\r\n\r\n" in self.came:
            head, _, rest = self.came.partition(b"\r\n\r\n")
            _, named, length = head.lower().partition(b"content-length:")
            size = int(length.split()[0]) if named else 0
            if len(rest) < size:
                return
            self.came = rest[size:]
            Instant.number += 1
            message = {
                "role": "assistant", "reasoning_content": f"It is {self.number}. " + REASONING,
                "content": f"The answer is \\boxed{{{self.number}}}.",
            }  # fmt: skip
            reply = {
                "id": f"call-{self.number}", "object": "chat.completion", "created": 0,
                "model": MODEL, "usage": USAGE,
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            }  # fmt: skip
            body = json.dumps(reply).encode()
            close = b"Connection: close\r\n" if b"connection: close" in head.lower() else b""
            self.transport.write(HEAD % (close, len(body)) + body)
            if close:
                self.transport.close()


def instant() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Instant, "127.0.0.1", 0, backlog=4096)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
        await server.serve_forever()

    asyncio.run(main())


def allow_connections() -> None:
    """Let this process, and those that it starts, open as many as the system grants."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


SLOTS = 1000


def client(name: str, url: str, n: int, at_once: int, other: str) -> None:
    """Run a client, and print what it took: imports and a call to another server do not count."""
    allow_connections()
    try:
        version(OTHERS.get(name, "aiohttp"))
    except PackageNotFoundError:
        print(json.dumps({}))
        return
    CLIENTS[name](other, 1, 1)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    label = CLIENTS[name](url, n, at_once)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"label": label, "s": seconds, "cpu_s": cpu, "mb": after.ru_maxrss / 1024}
    print("\n" + json.dumps(found))


def waiting(url: str, n: int, at_once: int) -> None:
    """Begin a purchase that waits for ever, and print the memory that it has come to."""
    threading.Thread(target=ours, args=(url, n, at_once), daemon=True).start()
    while stats(url)["in_flight"] < 16:
        time.sleep(0.1)
    time.sleep(5)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"mb": used, "in_flight": stats(url)["in_flight"]}), flush=True)
    os._exit(0)


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=60) as response:
        shown: dict[str, Any] = json.load(response)
    return shown


@contextmanager
def teacher(*options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "stillroom", "fake-teacher", "--port", "0", "--tokens", "20"]
    with serving([*command, *options]) as url:
        yield url


@contextmanager
def serving(command: list[str]) -> Iterator[str]:
    allow_connections()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().partition(";")[0].strip()
        finally:
            process.kill()


def python_with(package: str, peers: str) -> str:
    """Return the first of some interpreters that has a package, or the last."""
    look = f"from importlib.metadata import version; version({package!r})"
    for python in peers.split(","):
        if subprocess.run([python, "-c", look], capture_output=True).returncode == 0:
            break
    return python


@contextmanager
def started(
    name: str, url: str, n: int, at_once: int, peers: str
) -> Iterator["subprocess.Popen[str]"]:
    python = python_with(OTHERS[name], peers) if name in OTHERS else sys.executable
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    if name in OTHERS:
        del environment["PYTHONPATH"]
    with serving([sys.executable, __file__, "instant"]) as other:
        command = [python, __file__, "client", name, url, str(n), str(at_once), other]
        with subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def at_once_answered(names: list[str], n: int, peers: str) -> None:
    print(f"server that answers at once: {n:,} requests, 64 in flight at most")
    limit: dict[str, float] | None = None
    for name in names:
        server = [sys.executable, __file__, "instant"]
        with serving(server) as url, started(name, url, n, 64, peers) as process:
            out, err = process.communicate()
            lines = [line for line in out.splitlines() if line.startswith("{")]
            if not lines or not (found := json.loads(lines[-1])):
                print(f"  {name}: left out ({(err.strip().splitlines() or ['not there'])[-1]})")
                continue
        limit = limit or found
        print(
            f"  {found['label']:46} {n / found['s']:7,.0f} requests/s"
            f" ({limit['s'] / found['s']:6.1%} of the first)"
            f" {found['cpu_s'] / n * 1e3:6.2f} ms CPU each"
            f" ({found['cpu_s'] / limit['cpu_s']:4.1f} x)"
            f" {found['mb']:6.0f} MB",
            flush=True,
        )


def busy_s(shown: dict[str, Any]) -> float:
    """Return how long a slot was busy, in the mean."""
    return float((1 - shown["idle_share"]) * shown["span_s"])


def slowly_answered(names: list[str], n: int, peers: str) -> None:
    print(f"server with 1,000 slots, 2 s in the median, 20 s in p99: {n:,} requests")
    for name in names:
        with (
            teacher("--latency", "2,20", "--slots", str(SLOTS)) as url,
            started(name, url, n, SLOTS, peers) as process,
        ):
            full: dict[str, Any] | None = None
            before = shown = stats(url)
            while shown["calls"] < n and process.poll() is None:
                if full is None and shown["in_flight"] >= 0.99 * SLOTS:
                    full = shown
                time.sleep(0.25)
                before, shown = shown, stats(url)
            process.kill()
            _, err = process.communicate()
            if shown["calls"] < n:
                print(f"  {name}: left out ({(err.strip().splitlines() or ['not there'])[-1]})")
                continue
        if full is None or full["calls"] >= before["calls"]:
            print(f"  {name}: the slots were never all busy")
            continue
        steady_s = before["span_s"] - full["span_s"]
        steady = 1 - (busy_s(before) - busy_s(full)) / steady_s
        print(
            f"  {name:9} {shown['idle_share']:6.1%} of the slots idle over the"
            f" {shown['span_s']:5.1f} s until the last was sent; {steady:6.1%} from"
            f" {full['span_s']:4.1f} s on, when all were busy,"
            f" {shown['peak_in_flight']:,} in flight at most",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--slow", type=int, default=55_000)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--clients", default=",".join(CLIENTS))
    given = parser.parse_args()
    names = given.clients.split(",")
    if given.requests:
        at_once_answered(names, given.requests, given.peers)
    if given.slow:
        slowly_answered([name for name in names if name != "curator"], given.slow, given.peers)
    with teacher("--fault", "hang") as url:
        command = [sys.executable, __file__, "waiting", "ours", url, "1000000", "1000"]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    print(f"a million requests, {found['in_flight']} in flight: {found['mb']:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["instant"]:
        instant()
    elif sys.argv[1:2] == ["client"]:
        client(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    elif sys.argv[1:2] == ["waiting"]:
        waiting(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
