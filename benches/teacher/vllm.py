"""Requests per second of a real vLLM server, driven by Stillroom and by a bare loop.

    python benches/teacher/vllm.py --vllm /opt/vllm/bin/vllm [--requests N] [--at-once N,N]

One server of the embedded teacher. `ours` buys through a ledger on disk, as runs do, and finds out
by itself how many calls to make at once, up to the N given; `bare` keeps exactly N under way, reads
JSON, and keeps nothing. Both ask the same questions greedily, in turn, after a pass that warms the
server up, and without a prefix cache. Here the server is the limit: what counts is how near a
client comes to what it can give.
"""

import argparse
import asyncio
import json
import resource
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp

from stillroom.models.buy import buy
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.config import ModelsConfig
from stillroom.models.ledger import Ledger
from stillroom.models.openai import OpenAIModel
from stillroom.models.supervise import Launch, Supervisor

MODEL = "stillroom/teacher-1"
MAX_TOKENS = 120

Client = Callable[[str, str, list[str], int], int]


def questions(n: int) -> list[str]:
    return [f"What is {17 + i % 83} + {i} + 5?" for i in range(n)]


def ours(url: str, served: str, asked: list[str], at_once: int) -> int:
    """Buy, and return completion tokens."""
    sampling = Sampling(temperature=0.0, max_tokens=MAX_TOKENS)
    requests = [Request(MODEL, (Message("user", text),), sampling) for text in asked]
    with tempfile.TemporaryDirectory() as folder, Ledger(f"{folder}/ledger") as ledger:
        model = OpenAIModel(MODEL, url, served_name=served, concurrency=at_once)
        bought = buy(requests, model=model, ledger=ledger)
        assert bought.failures == 0
        kept = ledger.get_many([request.key for request in requests])
    assert len(kept) == len(asked)
    return sum(reply.completion_tokens for reply in kept.values() if isinstance(reply, Completion))


def bare(url: str, served: str, asked: list[str], at_once: int) -> int:
    """Post and read JSON, and return completion tokens."""
    tokens = 0

    async def main() -> None:
        waiting = iter(asked)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                nonlocal tokens
                for text in waiting:
                    body = {
                        "model": served, "messages": [{"role": "user", "content": text}],
                        "temperature": 0.0, "max_tokens": MAX_TOKENS,
                    }  # fmt: skip
                    while True:  # a connection that the server has hung up on meanwhile
                        with suppress(aiohttp.ClientConnectionError):
                            async with session.post(f"{url}/chat/completions", json=body) as reply:
                                tokens += (await reply.json())["usage"]["completion_tokens"]
                                break

            await asyncio.gather(*(work() for _ in range(at_once)))

    asyncio.run(main())
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm", default="vllm")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", default="128,256")
    parser.add_argument("--arguments", default="--no-enable-chunked-prefill", help="for vLLM")
    given = parser.parse_args()
    served = str(ModelsConfig({}).directory(MODEL))
    launch = Launch(
        "vllm", served, executable=(given.vllm,), memory_share=0.05,
        more=("--no-enable-prefix-caching", *given.arguments.split()),
    )  # fmt: skip
    asked = questions(given.requests)
    limits = [int(n) for n in given.at_once.split(",")]
    with tempfile.TemporaryDirectory() as logs, Supervisor(launch, Path(logs)).healthy() as [url]:
        with urllib.request.urlopen(url.removesuffix("/v1") + "/version") as reply:
            print(f"vLLM {json.load(reply)['version']}, {given.requests:,} requests a pass")
        bare(url, served, asked[:200], limits[0])
        for at_once in limits:
            for client in (bare, ours, ours, bare):
                measure(client, url, served, asked, at_once)


def measure(client: Client, url: str, served: str, asked: list[str], at_once: int) -> None:
    """Print the speed of one pass, and what it cost the client."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    tokens = client(url, served, asked, at_once)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"  {at_once:5} at once, {client.__name__:5} {len(asked) / seconds:6.1f} requests/s"
        f" {tokens / seconds:8,.0f} tokens/s of {tokens:,}"
        f" {cpu / len(asked) * 1e3:5.2f} ms of the client's CPU each",
        flush=True,
    )


if __name__ == "__main__":
    main()
