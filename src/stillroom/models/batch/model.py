"""A model behind a provider's batch API.

Requests are gathered into batches, submitted, and waited for. What was submitted is written down
before the wait, so that a killed run finds its batches again and pays for nothing twice.

Covered: a kill at any moment, between submitting and writing down too; batches that expire or
fail; errors of single requests; a provider that is away for a while. Not covered: two runs on one
folder that want the same requests; claims of the ledger keep them apart.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from stillroom.errors import ModelError, StoreError
from stillroom.models.batch.protocols import BatchProtocol, Standing
from stillroom.models.chat import Failure, Reply, Request

_TRIES = 3  # times that a request is submitted before an expired batch counts as its failure


@dataclass(eq=False)
class _Batch:
    """A batch of ours, and the file that remembers it.

    Attributes:
        file: Where it is written down; locked as long as this process looks after it.
        nonce: Our name for it.
        begun_s: When it was written down, in seconds since 1970.
        ids: Ids of its requests, as the provider knows them: their keys.
        batch: The provider's id; None until it was submitted.
        wanted: Requests that this run waits for.
        standing: How it stood when it was last looked at.
    """

    file: Path
    nonce: str
    begun_s: float
    ids: list[str]
    batch: str | None = None
    wanted: dict[str, Request] = field(default_factory=dict)
    standing: Standing = field(default_factory=lambda: Standing("running"))

    def write(self) -> None:
        content = {
            "nonce": self.nonce, "begun_s": self.begun_s, "batch": self.batch, "ids": self.ids,
        }  # fmt: skip
        partial = self.file.with_suffix(".partial")
        try:
            with partial.open("w") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.file)
        except OSError as error:
            raise StoreError(
                f"{self.file}: cannot be written ({error.strerror}); expected room for the ids of "
                "a batch. Nothing was submitted without being written down: make room and run "
                "again."
            ) from error


class BatchModel:
    """A model that answers in batches.

    Args:
        name: Frozen model name.
        protocol: How its provider takes batches.
        folder: Where batches under way are written down.
        size: Requests per batch, at most.
        at_once: Batches under way at once, at most.
        poll_s: Seconds between looks at a batch.
        needs_limit: Whether the provider insists on ``max_tokens``.
    """

    def __init__(
        self,
        name: str,
        protocol: BatchProtocol,
        folder: Path,
        *,
        size: int = 10_000,
        at_once: int = 16,
        poll_s: float = 30.0,
        needs_limit: bool = False,
    ):
        self.name = name
        self.folder = folder
        self._protocol = protocol
        self._size = size
        self._at_once = at_once
        self._poll_s = poll_s
        self._needs_limit = needs_limit

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Reply to each request once, batch by batch.

        Raises:
            ModelError: If the provider cannot be used, or refuses a batch as a whole.
        """
        source = iter(requests)
        with ExitStack() as locks:
            by_id = {name: batch for batch in self._left_behind(locks) for name in batch.ids}
            tries: dict[bytes, int] = {}
            again: list[Request] = []
            under_way: list[_Batch] = []
            while True:
                while len(under_way) < self._at_once:
                    chunk = [*again[: self._size], *islice(source, self._size - len(again))]
                    again = again[self._size :]
                    if not chunk:
                        break
                    for batch in self._place(chunk, by_id, locks):
                        if batch not in under_way:
                            under_way.append(batch)
                if not under_way:
                    return
                settled = [batch for batch in under_way if self._has_ended(batch)]
                if not settled:
                    time.sleep(self._poll_s)
                for batch in settled:
                    under_way.remove(batch)
                    for request, reply in self._replies(batch):
                        tries[request.key] = tries.get(request.key, 0) + 1
                        if reply is None and tries[request.key] < _TRIES:
                            again.append(request)
                        else:
                            yield request, reply or Failure("expired", "the batch expired")

    def _place(
        self, requests: list[Request], by_id: dict[str, _Batch], locks: ExitStack
    ) -> list[_Batch]:
        """Find the batches that hold requests already, and submit the others."""
        batches: list[_Batch] = []
        fresh: dict[str, Request] = {}
        for request in requests:
            self._check(request)
            name = request.key.hex()
            known = by_id.pop(name, None)
            (known.wanted if known else fresh)[name] = request
            if known and known not in batches:
                batches.append(known)
        return [*batches, self._begin(fresh, locks)] if fresh else batches

    def _has_ended(self, batch: _Batch) -> bool:
        assert batch.batch is not None
        batch.standing = self._protocol.standing(batch.batch)
        return batch.standing.state != "running"

    def _check(self, request: Request) -> None:
        if self._needs_limit and request.sampling.max_tokens is None:
            raise ModelError(
                f"{self.name}: the recipe sets no max_tokens, which this provider insists on; "
                "expected a number. Set it in the recipe's models."
            )

    def _home(self) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.name)
        return self.folder / safe

    def _left_behind(self, locks: ExitStack) -> list[_Batch]:
        """Read the batches that no running process looks after."""
        found = []
        for path in sorted(self._home().glob("*.json")):
            if not _hold(path, locks):
                continue
            content: dict[str, Any] = json.loads(path.read_text())
            batch = _Batch(path, content["nonce"], content["begun_s"], content["ids"])
            batch.batch = content["batch"] or self._protocol.find(
                batch.nonce, batch.ids, batch.begun_s - 60
            )
            if batch.batch is None:
                path.unlink()  # killed before it was submitted
                continue
            batch.write()
            found.append(batch)
        return found

    def _begin(self, requests: dict[str, Request], locks: ExitStack) -> _Batch:
        nonce = secrets.token_hex(8)
        home = self._home()
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"{nonce}.json"
        _hold(path, locks)
        batch = _Batch(path, nonce, time.time(), list(requests), wanted=requests)
        batch.write()
        try:
            batch.batch = self._protocol.submit(nonce, requests)
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"{self.name}: the provider's answer lacks {error}; expected an id. "
                "Correct base_url or engine."
            ) from error
        batch.write()
        return batch

    def _replies(self, batch: _Batch) -> Iterator[tuple[Request, Reply | None]]:
        """Yield the replies of a batch that ended; None for what it did not try."""
        standing = batch.standing
        if standing.state == "failed":
            _end(batch)
            raise ModelError(
                f"{self.name}: the provider refused batch {batch.batch} ({standing.words}); "
                "expected it to be taken. Correct what it says and run again; nothing was bought."
            )
        wanted = dict(batch.wanted)
        for name, reply in self._protocol.results(standing):
            if name in wanted:
                yield wanted.pop(name), reply
        for request in wanted.values():
            yield request, None
        if set(batch.ids) == set(batch.wanted):
            _end(batch)  # the caller has kept every reply, or it would not have asked for more
        else:
            # The others may be wanted by a later run: they are paid for.
            batch.ids = [name for name in batch.ids if name not in batch.wanted]
            batch.wanted = {}
            batch.write()


def _end(batch: _Batch) -> None:
    batch.file.unlink(missing_ok=True)
    batch.file.with_suffix(".lock").unlink(missing_ok=True)


def _hold(path: Path, locks: ExitStack) -> bool:
    """Look after a batch until the stack ends, unless another process does."""
    lock: IO[str] = path.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    locks.callback(lock.close)
    return True
