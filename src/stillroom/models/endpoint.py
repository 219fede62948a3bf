"""An endpoint of OpenAI-compatible servers that is asked again until it gives what can be read.

For requests that are no chats: vectors, scores. What fails for now is retried; what a server has
judged is told to the caller; a refused key or a path that is not there ends the run.
"""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from stillroom.errors import ModelError
from stillroom.models.keys import find_key

T = TypeVar("T")

_ATTEMPTS = 6
_LONGEST_PAUSE_S = 60.0
_BODY_LIMIT = 256 * 2**20
_WORDS = 300


class RefusedError(Exception):
    """The server has judged what it was sent."""


class BrokenReplyError(Exception):
    """A body that came with 200 is not what was asked for."""


class Endpoint:
    """One path of some servers that are the same; calls go to them in turn.

    Args:
        name: Frozen name of the model.
        base_urls: Of the servers, such as ``http://localhost:8000/v1``.
        path: Below them, such as ``/embeddings``.
        gives: What comes back, such as ``vectors``, for messages.
        served_name: The servers' name of the model.
        api_key_env: Variable that holds the key; None for servers without one.
        timeout_s: For one call.
        pause_s: Before the second call; later pauses double.
    """

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        path: str,
        gives: str,
        *,
        served_name: str,
        api_key_env: str | None = None,
        timeout_s: float = 600.0,
        pause_s: float = 0.5,
    ) -> None:
        """Describe where it is; nothing is sent yet."""
        self.name = name
        self.base_urls = tuple(base_urls)
        self.path = path
        self.gives = gives
        self.served_name = served_name
        self.api_key_env = api_key_env
        self.timeout_s = timeout_s
        self.pause_s = pause_s
        # Jitter only spreads load; it changes no reply, so it needs no seed.
        self._jitter = random.Random()
        self._turn = 0
        self._lock = threading.Lock()
        # No proxies from the environment, as for teachers; no redirects, which would carry the key.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def ask(self, body: Mapping[str, Any], key: str | None, read: Callable[[bytes], T]) -> T:
        """Send JSON and read the reply.

        Args:
            body: What is sent, the model left out.
            key: The key, as `key` found it.
            read: Reads a body that came with 200.

        Raises:
            RefusedError: If the server judged what it was sent; its words.
            ModelError: If the servers cannot be used.
        """
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
                with self._opener.open(self._call(url, body, key), timeout=self.timeout_s) as got:
                    return read(got.read(_BODY_LIMIT))
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
                        f"{self.name}: {url} has no {self.path[1:]} of {self.served_name} "
                        f"({said}); expected an OpenAI-compatible {self.path[1:]} server. "
                        "Correct base_url or served_name."
                    ) from None
                if error.code in (400, 413, 422):
                    raise RefusedError(said) from None
            except (OSError, http.client.HTTPException, BrokenReplyError) as error:
                said = _clean(str(error) or type(error).__name__, key)
        raise ModelError(
            f"{self.name}: {_ATTEMPTS} calls in a row failed, the last one with {said}; expected "
            f"{self.gives} from {', '.join(self.base_urls)}. Look after the server and run again: "
            "all that was received is kept."
        )

    def _call(self, url: str, body: Mapping[str, Any], key: str | None) -> urllib.request.Request:
        text = json.dumps({"model": self.served_name, **body})
        headers = {"Content-Type": "application/json", "User-Agent": "stillroom"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return urllib.request.Request(f"{url}{self.path}", text.encode(), headers)

    def key(self) -> str | None:
        """Find the key; None where none is needed."""
        if self.api_key_env is None:
            return None
        return find_key(self.api_key_env, where=self.name, what_for=self.base_urls[0])


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _clean(words: str, key: str | None) -> str:
    if key:
        words = words.replace(key, "[key]")
    return "".join(c for c in " ".join(words.split()) if c.isprintable())[:_WORDS]


def _seconds(value: str | None) -> float:
    try:
        return min(max(0.0, float(value or 0)), 10 * _LONGEST_PAUSE_S)
    except ValueError:
        return 0.0
