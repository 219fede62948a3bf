"""Embedders: texts in, vectors out.

Two kinds stand behind one door: servers that speak the OpenAI embeddings protocol, whose vectors
are kept so that none is bought twice; and ``stillroom/ngrams-1``, which counts runs of characters
and needs nothing. The latter compares spelling, not meaning; it is there so that recipes run on a
laptop.
"""

import json
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol

from stillroom.errors import ModelError
from stillroom.kernels.vectors import ngrams
from stillroom.models.endpoint import BrokenReplyError, Endpoint, RefusedError
from stillroom.models.ledger import Ledger
from stillroom.models.vectors import Vectors, vector_key

NGRAMS = "stillroom/ngrams-1"
"""The embedder that comes with the package."""

WIDTH = 512
BATCH = 128
"""Texts in one call; servers take more, but a lost call then costs more."""

_POLL_S = 0.2


class Embedder(Protocol):
    """Turns texts into vectors."""

    name: str

    def embed(self, texts: Iterable[str]) -> Iterator[Sequence[float] | None]:
        """Return a vector for each text, in order; None where the server refused the text.

        Raises:
            ModelError: If the embedder cannot be used.
        """
        ...


class NgramEmbedder:
    """Hashed counts of runs of 3 to 5 characters (`stillroom.kernels.vectors.ngrams`)."""

    name = NGRAMS

    def embed(self, texts: Iterable[str]) -> Iterator[Sequence[float] | None]:
        """Count."""
        waiting = iter(texts)
        while chunk := list(islice(waiting, 4096)):
            values = memoryview(ngrams(chunk, WIDTH).data).cast("f")
            for i in range(len(chunk)):
                yield values[i * WIDTH : (i + 1) * WIDTH]


class ServedEmbedder:
    """An embedder behind OpenAI-compatible servers; calls go to them in turn."""

    def __init__(self, endpoint: Endpoint, *, concurrency: int = 8) -> None:
        """Describe where it is served; nothing is sent yet."""
        self.name = endpoint.name
        self.endpoint = endpoint
        self.concurrency = concurrency

    def embed(self, texts: Iterable[str]) -> Iterator[Sequence[float] | None]:
        """Ask for vectors, a batch of texts per call, and some calls at a time."""
        key = self.endpoint.key()
        waiting = iter(texts)
        with ThreadPoolExecutor(self.concurrency) as pool:
            while window := list(islice(waiting, BATCH * self.concurrency)):
                batches = [window[i : i + BATCH] for i in range(0, len(window), BATCH)]
                for vectors in pool.map(lambda batch: self._batch(batch, key), batches):
                    yield from vectors

    def _batch(self, texts: list[str], key: str | None) -> list[Sequence[float] | None]:
        """Embed texts; where the server refuses a batch, find out which text it is about."""
        body = {"input": texts, "encoding_format": "float"}
        try:
            return list(self.endpoint.ask(body, key, lambda reply: _vectors(reply, len(texts))))
        except RefusedError:
            if len(texts) == 1:
                return [None]
            half = len(texts) // 2
            return self._batch(texts[:half], key) + self._batch(texts[half:], key)


def embed_all(
    texts: Iterable[str],
    embedder: Embedder,
    vectors: Vectors | None,
    ledger: Ledger | None = None,
) -> Iterator[Sequence[float] | None]:
    """Return the vector of each text, in order; None where there is none.

    A text of white space has no vector and is not sent.

    Args:
        texts: What to embed.
        embedder: Who does it.
        vectors: Where bought vectors are kept; None to keep none.
        ledger: Keeps the claims by which callers that want the same vectors at the same time, in
            one process or several, share the work.

    Raises:
        ModelError: If the embedder cannot be used, or its vectors differ in width.
    """
    width = 0
    waiting = iter(texts)
    while chunk := list(islice(waiting, BATCH * 16)):
        keys = [vector_key(embedder.name, text) if text.strip() else b"" for text in chunk]
        known = vectors.get_many(keys) if vectors else {}
        lacking = {k: t for k, t in zip(keys, chunk, strict=True) if k and k not in known}
        while lacking:
            ours = list(lacking) if ledger is None else ledger.claim_all(lacking)
            try:
                # Who had a claim may have kept the vector and let go before we asked.
                known |= vectors.get_many(ours) if vectors else {}
                wanted = {key: lacking[key] for key in ours if key not in known}
                known |= _bought(wanted, embedder, vectors)
            finally:
                if ledger is not None:
                    ledger.release(ours)
            lacking = {key: text for key, text in lacking.items() if key not in set(ours)}
            if lacking and vectors:
                time.sleep(_POLL_S)
                known |= vectors.get_many(lacking)
                lacking = {key: text for key, text in lacking.items() if key not in known}
        for key in keys:
            if key not in known:
                yield None
                continue
            vector = memoryview(known[key]).cast("f")
            if len(vector) != (width or len(vector)):
                raise ModelError(
                    f"{embedder.name}: vectors of {width} and of {len(vector)} numbers; expected "
                    "one width, for one name means one model. Give the other model another name."
                )
            width = len(vector)
            yield vector


def _bought(
    texts: Mapping[bytes, str], embedder: Embedder, vectors: Vectors | None
) -> dict[bytes, bytes]:
    """Ask for the vectors of texts, by key, and keep them as they come."""
    found: dict[bytes, bytes] = {}
    keeping: dict[bytes, bytes] = {}
    try:
        for key, vector in zip(texts, embedder.embed(list(texts.values())), strict=True):
            if vector is None:
                continue
            found[key] = keeping[key] = array("f", vector).tobytes()
            if vectors and len(keeping) == BATCH:
                vectors.put(keeping)
                keeping = {}
    finally:
        if vectors and keeping:
            vectors.put(keeping)
    return found


def _vectors(body: bytes, n: int) -> list["array[float]"]:
    """Read the reply to n texts; the items say themselves where they belong."""
    try:
        data = json.loads(body)["data"]
        found: dict[int, array[float]] = {
            int(item["index"]): array("f", item["embedding"]) for item in data
        }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise BrokenReplyError(f"a reply without vectors ({error})") from None
    widths = {len(vector) for vector in found.values()}
    if sorted(found) != list(range(n)) or len(widths) != 1 or widths == {0}:
        raise BrokenReplyError(f"{len(found)} vectors for {n} texts, of widths {sorted(widths)}")
    # A sum is finite only if every number is: NaN would count as near to nothing, and say nothing.
    if not all(abs(sum(map(float, vector))) < float("inf") for vector in found.values()):
        raise BrokenReplyError("a vector with a number that is not finite")
    return [found[i] for i in range(n)]
