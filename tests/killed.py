"""Processes to be killed: forked from one that has imported everything, so that many cost little.

A kill comes at a moment of the work, and not of the start of Python.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from stillroom.cli import cli
from stillroom.models.buy import buy
from stillroom.models.chat import Completion, Message, Reply, Request, Sampling
from stillroom.models.ledger import Ledger
from stillroom.models.openai import OpenAIModel

_warm = multiprocessing.get_context("forkserver")
_warm.set_forkserver_preload(["tests.killed"])


@contextmanager
def killed(target: Callable[..., None], *args: Any) -> Iterator[BaseProcess]:
    """Run a function of this module in a process of its own; at the end it is killed."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)  # for the preload
    process = _warm.Process(target=target, args=args)
    try:
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    try:
        yield process
    finally:
        process.kill()
        process.join(60)
        process.close()


def requests(n: int, draws: int = 1) -> list[Request]:
    """Return draws of questions, n in all."""
    return [
        Request("m", (Message("user", f"{i // draws}?"),), Sampling(), i % draws) for i in range(n)
    ]


def buy_all(ledger: Path, url: str, n: int, choices: int, used: Path) -> None:
    """Buy n completions, and write down the key of each that the ledger said to have kept.

    Args:
        ledger: Where they are kept.
        url: Whom to ask.
        n: How many.
        choices: Draws of a question, asked for at once.
        used: A file of keys, one a line.
    """
    model = OpenAIModel(
        "m", url, concurrency=8, pause_s=0.01, timeout_s=1.0, outage_s=2.0, choices=choices
    )
    with Ledger(ledger) as opened, used.open("ab", buffering=0) as file:

        def write_down(request: Request, reply: Reply) -> None:
            if isinstance(reply, Completion):
                file.write(request.key.hex().encode() + b"\n")

        buy(requests(n, choices), model=model, ledger=opened, on_reply=write_down)


def read_keys(used: Path) -> set[bytes]:
    """Return the keys that `buy_all` wrote down."""
    lines = used.read_text().split("\n")[:-1] if used.exists() else []
    return {bytes.fromhex(line) for line in lines}


def stillroom(folder: Path, *words: str) -> None:
    """Run a command of Stillroom in a folder."""
    os.chdir(folder)
    with (folder / "said.txt").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    cli(list(words), standalone_mode=False)
