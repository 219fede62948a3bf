"""Plain HTTP for a few large calls: JSON, uploads, and results read line by line.

Keys are sent only to the address that the user named: redirects are refused.
"""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from stillroom.errors import ModelError

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_NOT_TAKEN = frozenset({425, 429, 503, 529})
_WORDS = 500


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Http:
    """One provider's address and key.

    Attributes:
        name: The model, for messages.
        base_url: Address up to and with ``/v1``.
        headers: Sent with each call, the key among them.
        timeout_s: Seconds without a byte after which a call has failed.
        outage_s: Seconds for which a provider that cannot be reached is asked again.
        pause_s: Seconds before the first retry; each further one waits twice as long.
    """

    name: str
    base_url: str
    headers: Mapping[str, str]
    timeout_s: float = 120.0
    outage_s: float = 600.0
    pause_s: float = 1.0

    def get(self, path: str) -> Any:
        """Read JSON."""
        return self._json("GET", path, None, {})

    def order(self, path: str, body: object) -> Any:
        """Send JSON that costs money, and read JSON.

        It is sent again only where the provider says that it was not taken: after a lost
        connection it may have been.
        """
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        kind = {"Content-Type": "application/json"}
        return self._parsed(path, self._call("POST", path, data, kind, once=True))

    def upload(self, path: str, fields: Mapping[str, str], name: str, content: bytes) -> Any:
        """Send a file as a form, and read JSON."""
        border = "stillroom-border-7d1f0c5a"
        while border.encode() in content:
            border += "x"
        parts = [
            f'--{border}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        parts.append(
            f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        )
        data = "".join(parts).encode() + content + f"\r\n--{border}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
        return self._json("POST", path, data, kind)

    def lines(self, path: str) -> Iterator[Any]:
        """Read a file of JSON lines; one that breaks off is read again from the start."""
        text = self._call("GET", path, None, {})
        for line in text.split(b"\n"):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError:
                    raise self._strange(path, line) from None

    def _json(self, method: str, path: str, data: bytes | None, headers: dict[str, str]) -> Any:
        return self._parsed(path, self._call(method, path, data, headers))

    def _parsed(self, path: str, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._strange(path, text) from None

    def _call(
        self,
        method: str,
        path: str,
        data: bytes | None,
        headers: dict[str, str],
        *,
        once: bool = False,
    ) -> bytes:
        url = self._url(path)
        give_up_at, pause_s, ambiguous = time.monotonic() + self.outage_s, self.pause_s, False
        while True:
            request = urllib.request.Request(url, data, {**self.headers, **headers}, method=method)
            try:
                opener = urllib.request.build_opener(_NoRedirects)
                with opener.open(request, timeout=self.timeout_s) as response:
                    content: bytes = response.read()
                    return content
            except urllib.error.HTTPError as error:
                with error:
                    words = self._words(error.read())
                said = f"HTTP {error.code}: {words}"
                if error.code in (401, 403):
                    raise ModelError(
                        f"{self.name}: {self.base_url} refuses the key ({said}); expected a valid "
                        "one. Renew it and run again: nothing is lost."
                    ) from None
                ambiguous = error.code not in _NOT_TAKEN
                if error.code not in _RETRIED:
                    raise ModelError(
                        f"{self.name}: {url} refuses a call ({said}); expected a provider that "
                        "speaks this batch protocol. Correct models.toml."
                    ) from None
            except (OSError, urllib.error.URLError) as error:
                said, ambiguous = str(getattr(error, "reason", error)), True
            except Exception as error:
                said, ambiguous = type(error).__name__, True  # such as a body that broke off
            if (once and ambiguous) or time.monotonic() + pause_s > give_up_at:
                raise ModelError(
                    f"{self.name}: {url} cannot be used ({said}); expected an answer within "
                    f"{self.outage_s:g} s. Look after it and run again: batches that were "
                    "submitted are waited for then."
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 60.0)

    def _url(self, path: str) -> str:
        url = urljoin(f"{self.base_url}/", path)
        if urlsplit(url).netloc != urlsplit(self.base_url).netloc:
            raise ModelError(
                f"{self.name}: {self.base_url} sends us to another host for results; expected "
                "them from the same one, since the key goes with the call."
            )
        return url

    def _words(self, body: bytes) -> str:
        text = body.decode("utf-8", "replace")
        for value in self.headers.values():
            secret = value.removeprefix("Bearer ")
            if len(secret) > 6:
                text = text.replace(secret, "…")
        return re.sub(r"\s+", " ", text)[:_WORDS]

    def _strange(self, path: str, text: bytes) -> ModelError:
        return ModelError(
            f"{self.name}: {self._url(path)} sent what is no JSON ({self._words(text)[:80]}); "
            "expected a provider that speaks this batch protocol. Correct base_url."
        )
