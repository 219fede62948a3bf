"""A service elsewhere that runs jobs: one HTTP request for each.

The request is ``POST <address>`` with a JSON object; bytes are base64:

    {"command": ["python3", "-c", "..."], "stdin": "", "files": {"name": "..."},
     "limits": {"cpu_s": 10.0, "wall_s": 60.0, "memory_mib": 512, ...}}

and so is the reply, with the fields of `stillroom.sandbox.job.Result`:

    {"status": 0, "stdout": "", "stderr": "", "cpu_s": 0.1, "wall_s": 0.2, "memory_mib": 9.0,
     "hit": null, "failure": null}

``GET <address>`` replies ``{"name": "...", "python": "python3"}``. A token, where the service wants
one, comes from the environment variable STILLROOM_SANDBOX_TOKEN and is sent as a bearer token.
What the service isolates is the service's promise; the probes are run against it all the same.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from stillroom.errors import SetupError
from stillroom.sandbox.job import Job, Result

TOKEN = "STILLROOM_SANDBOX_TOKEN"
_LONGEST = 64 << 20  # bytes of a reply
_TRIES = 3


class Remote:
    """Run jobs at a service."""

    isolates = True

    def __init__(self, address: str, *, workers: int = 8):
        """Ask the service who it is.

        Args:
            address: Its URL.
            workers: Requests at one time.

        Raises:
            SetupError: If it does not answer as it should.
        """
        self._address = address
        self._workers = workers
        try:
            about = self._ask(None, 30.0)
            self.name = f"remote {str(about['name'])[:80]}"
            self.python = str(about["python"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(
                f"sandbox {address}: {error}; expected a service that answers with its name and "
                "its Python. Check the address."
            ) from None

    def _ask(self, body: dict[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address, data, headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            found = json.loads(reply.read(_LONGEST))
        if not isinstance(found, dict):
            raise ValueError(f"the reply is a {type(found).__name__}; expected an object")
        return found

    def _run_one(self, job: Job) -> Result:
        body = {
            "command": list(job.command),
            "stdin": base64.b64encode(job.stdin).decode(),
            "files": {n: base64.b64encode(c).decode() for n, c in job.files.items()},
            "limits": asdict(job.limits),
        }
        problem = ""
        for _ in range(_TRIES):
            try:
                found = self._ask(body, job.limits.wall_s + 60.0)
                return Result(
                    status=found["status"],
                    stdout=base64.b64decode(found["stdout"])[: job.limits.output_kib << 10],
                    stderr=base64.b64decode(found["stderr"])[: job.limits.output_kib << 10],
                    cpu_s=float(found.get("cpu_s") or 0.0),
                    wall_s=float(found.get("wall_s") or 0.0),
                    memory_mib=float(found.get("memory_mib") or 0.0),
                    hit=found.get("hit"),
                    failure=found.get("failure"),
                )
            except (OSError, ValueError, KeyError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
                client_fault = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if client_fault:
                    break
        return Result(None, failure=f"{self._address}: {problem}")

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs, several at a time; results stand in the order of the jobs."""
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(self._run_one, jobs))

    def close(self) -> None:
        """Hold nothing between calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
