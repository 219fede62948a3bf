"""The fake teacher as users start it: a process of its own, whose stats tests read."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a child finds the package."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **more}


@dataclass(frozen=True)
class Teacher:
    """A fake teacher that runs.

    Attributes:
        url: Address up to and with ``/v1``.
    """

    url: str

    def stats(self, *, keys: bool = False) -> dict[str, Any]:
        address = self.url.removesuffix("/v1") + "/stats" + ("?keys=1" if keys else "")
        with urllib.request.urlopen(address, timeout=30) as response:
            shown: dict[str, Any] = json.load(response)
        return shown

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Look at the stats until they fulfil a condition."""
        give_up_at = time.monotonic() + 60
        while not condition(shown := self.stats()):
            assert time.monotonic() < give_up_at, shown
            time.sleep(0.005)
        return shown


@contextmanager
def fake_teacher(*options: str, **more: str) -> Iterator[Teacher]:
    """Run `stillroom fake-teacher` with options, and further variables in its environment."""
    command = [sys.executable, "-m", "stillroom", "fake-teacher", "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(**more)
    ) as process:
        try:
            assert process.stdout is not None
            yield Teacher(process.stdout.readline().partition(";")[0])
        finally:
            process.terminate()
            try:
                process.wait(30)  # that it stops is part of what it promises
            finally:
                process.kill()
