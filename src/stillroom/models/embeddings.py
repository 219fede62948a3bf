"""Embedders: texts in, vectors out.

Two kinds stand behind one door: servers that speak the OpenAI embeddings protocol, whose vectors
are kept so that none is bought twice; and ``stillroom/ngrams-1``, which counts runs of characters
and needs nothing. The latter compares spelling, not meaning; it is there so that recipes run on a
laptop.
"""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

from stillroom.errors import ModelError
from stillroom.kernels.vectors import ngrams
from stillroom.models.keys import find_key
from stillroom.models.ledger import Ledger
from stillroom.models.vectors import Vectors, vector_key

NGRAMS = "stillroom/ngrams-1"
"""The embedder that comes with the package."""

WIDTH = 512
BATCH = 128
"""Texts in one call; servers take more, but a lost call then costs more."""

_ATTEMPTS = 6
_LONGEST_PAUSE_S = 60.0
_BODY_LIMIT = 256 * 2**20
_WORDS = 300
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

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        *,
        served_name: str,
        api_key_env: str | None = None,
        concurrency: int = 8,
        timeout_s: float = 600.0,
        pause_s: float = 0.5,
    ) -> None:
        """Describe where it is served; nothing is sent yet."""
        self.name = name
        self.base_urls = tuple(base_urls)
        self.served_name = served_name
        self.api_key_env = api_key_env
        self.concurrency = concurrency
        self.timeout_s = timeout_s
        self.pause_s = pause_s
        # Jitter only spreads load; it changes no vector, so it needs no seed.
        self._jitter = random.Random()
        self._turn = 0
        self._lock = threading.Lock()
        # No proxies from the environment, as for teachers; no redirects, which would carry the key.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def embed(self, texts: Iterable[str]) -> Iterator[Sequence[float] | None]:
        """Ask for vectors, a batch of texts per call, and some calls at a time."""
        key = self._key()
        waiting = iter(texts)
        with ThreadPoolExecutor(self.concurrency) as pool:
            while window := list(islice(waiting, BATCH * self.concurrency)):
                batches = [window[i : i + BATCH] for i in range(0, len(window), BATCH)]
                for vectors in pool.map(lambda batch: self._batch(batch, key), batches):
                    yield from vectors

    def _batch(self, texts: list[str], key: str | None) -> list[Sequence[float] | None]:
        """Embed texts; where the server refuses a batch, find out which text it is about."""
        try:
            return list(self._ask(texts, key))
        except _RefusedError:
            if len(texts) == 1:
                return [None]
            half = len(texts) // 2
            return self._batch(texts[:half], key) + self._batch(texts[half:], key)

    def _ask(self, texts: list[str], key: str | None) -> "list[array[float]]":
        said, after_s = "", 0.0
        for attempt in range(_ATTEMPTS):
            if attempt:
                own = min(self.pause_s * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S)
                time.sleep(max(after_s, own * self._jitter.uniform(0.5, 1.0)))
            after_s = 0.0
            with self._lock:
                url = self.base_urls[self._turn % len(self.base_urls)]
                self._turn += 1
            try:
                with self._opener.open(self._call(url, texts, key), timeout=self.timeout_s) as got:
                    return _vectors(got.read(_BODY_LIMIT), len(texts))
            except urllib.error.HTTPError as error:
                with error:
                    words = _clean(error.read(1 << 16).decode("utf-8", "replace"), key)
                    after_s = _seconds(error.headers.get("Retry-After"))
                said = f"HTTP {error.code}: {words}"
                if error.code in (401, 403):
                    raise ModelError(
                        f"{self.name}: {url} refuses the key ({said}); expected the one in "
                        f"{self.api_key_env or 'api_key_env'} to be valid. Renew it and run again."
                    ) from None
                if error.code == 404:
                    raise ModelError(
                        f"{self.name}: {url} has no embeddings of {self.served_name} ({said}); "
                        "expected an OpenAI-compatible embeddings server. Correct base_url or "
                        "served_name."
                    ) from None
                if error.code in (400, 413, 422):
                    raise _RefusedError(said) from None
            except (OSError, http.client.HTTPException, _BrokenReplyError) as error:
                said = _clean(str(error) or type(error).__name__, key)
        raise ModelError(
            f"{self.name}: {_ATTEMPTS} calls in a row failed, the last one with {said}; expected "
            f"vectors from {', '.join(self.base_urls)}. Look after the server and run again: every "
            "vector received is kept."
        )

    def _call(self, url: str, texts: list[str], key: str | None) -> urllib.request.Request:
        body = {"model": self.served_name, "input": texts, "encoding_format": "float"}
        headers = {"Content-Type": "application/json", "User-Agent": "stillroom"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return urllib.request.Request(f"{url}/embeddings", json.dumps(body).encode(), headers)

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        return find_key(self.api_key_env, where=self.name, what_for=self.base_urls[0])


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


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class _RefusedError(Exception):
    """The server has judged the texts themselves."""


class _BrokenReplyError(Exception):
    """A body that came with 200 is not vectors."""


def _vectors(body: bytes, n: int) -> list["array[float]"]:
    """Read the reply to n texts; the items say themselves where they belong."""
    try:
        data = json.loads(body)["data"]
        found: dict[int, array[float]] = {
            int(item["index"]): array("f", item["embedding"]) for item in data
        }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise _BrokenReplyError(f"a reply without vectors ({error})") from None
    widths = {len(vector) for vector in found.values()}
    if sorted(found) != list(range(n)) or len(widths) != 1 or widths == {0}:
        raise _BrokenReplyError(f"{len(found)} vectors for {n} texts, of widths {sorted(widths)}")
    # A sum is finite only if every number is: NaN would count as near to nothing, and say nothing.
    if not all(abs(sum(map(float, vector))) < float("inf") for vector in found.values()):
        raise _BrokenReplyError("a vector with a number that is not finite")
    return [found[i] for i in range(n)]


def _clean(words: str, key: str | None) -> str:
    if key:
        words = words.replace(key, "[key]")
    return "".join(c for c in " ".join(words.split()) if c.isprintable())[:_WORDS]


def _seconds(value: str | None) -> float:
    try:
        return min(max(0.0, float(value or 0)), 10 * _LONGEST_PAUSE_S)
    except ValueError:
        return 0.0
