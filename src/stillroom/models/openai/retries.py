"""What becomes of a call that brought no completion: asked again, given up, or the end of all.

Retries are decided here and nowhere else. `RULES` is the table, and `docs/reference-models.md`
prints it.

Not covered: a call that times out may still be billed by the server; it is asked again.
"""

import math
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from stillroom.errors import ModelError
from stillroom.models.chat import Failure
from stillroom.models.openai.wire import WORDS, ServerError

LONGEST_PAUSE_S = 60.0
STORM_IN_ROW = 20  # requests
STORM_WINDOW = 100  # requests, of which half

Kind = Literal["rate_limited", "overloaded", "unavailable", "unreachable", "timeout", "bad_reply"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of trouble is met.

    Attributes:
        when: What happened, for people.
        tries: Calls per request at most; None while the patience of the model lasts.
        reason: Of the failure, once tries or patience are at an end.
    """

    when: str
    tries: int | None
    reason: str


RULES: dict[Kind, Rule] = {
    "rate_limited": Rule("429; 503 and 529 where others are answered", None, "rate_limited"),
    "overloaded": Rule("503, 529, from a server that answers nobody meanwhile", 5, "unavailable"),
    "unavailable": Rule(
        "408, 409, 425, other 5xx, a connection lost before the reply", 5, "unavailable"
    ),
    "unreachable": Rule("no connection, from a server that answered before", None, "unavailable"),
    "timeout": Rule("no whole reply within timeout_s", 3, "timeout"),
    "bad_reply": Rule("half a body, no JSON, no choices, an unknown finish_reason", 5, "bad_reply"),
}


class Fault(Exception):
    """A call failed in a way in which another may not.

    Attributes:
        kind: Which rule applies.
        message: What happened, without keys.
        after_s: How long the server asked to wait; None when it did not say.
    """

    def __init__(self, kind: Kind, message: str, *, after_s: float | None = None):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.after_s = after_s

    @property
    def rule(self) -> Rule:
        """How it is met."""
        return RULES[self.kind]

    def failure(self) -> Failure:
        """Return what the request ends as, when it is not asked again."""
        return Failure(self.rule.reason, self.message)


_TOO_LONG = re.compile(
    r"context.{0,10}(length|window|size)|(prompt|input|message)s?\b.{0,20}too long", re.I
)
_NO_MONEY = re.compile(r"insufficient.{0,3}(quota|credit|balance|funds)", re.I)
_MODERATED = re.compile(r"moderation|flagged|content policy", re.I)


def judge(
    error: ServerError,
    headers: Mapping[str, str],
    *,
    name: str,
    served_name: str,
    url: str,
    api_key_env: str | None,
) -> Failure:
    """Decide on a server's error, whose words hold no key any more.

    Returns:
        A failure, where the server has judged the request itself.

    Raises:
        Fault: Where the same request may get an answer later.
        ModelError: Where no request will: key, money, address or model are wrong.
    """
    status, words = error.status, error.words
    said = (f"HTTP {status}: {words}" if words else f"HTTP {status}")[:WORDS]
    after_s = retry_after_s(headers)
    if status == 429 and not _NO_MONEY.search(f"{error.code} {words}"):
        raise Fault("rate_limited", said, after_s=after_s)
    if status in (503, 529):
        raise Fault("overloaded", said, after_s=after_s)
    if status in (408, 409, 425) or status >= 500:
        raise Fault("unavailable", said, after_s=after_s)
    if status in (402, 429):
        raise ModelError(
            f"{name}: {url} wants money ({said}); expected an account in credit. "
            "Top it up and run again: every answer received is kept."
        )
    if status == 401 or (status == 403 and not _MODERATED.search(words)):
        raise key_refused(name, url, api_key_env, said)
    if status in (404, 405) or error.code == "model_not_found" or 300 <= status < 400:
        raise ModelError(
            f"{name}: {url} does not serve {served_name} ({said}); expected "
            "a chat completions endpoint and a model that it knows. Check base_url, which "
            "usually ends in /v1, and served_name."
        )
    if status == 413 or error.code == "context_length_exceeded" or _TOO_LONG.search(words):
        return Failure("too_long", said)
    return Failure("refused", said)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, seconds or a date; None when it says nothing."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def key_refused(name: str, url: str, api_key_env: str | None, said: str) -> ModelError:
    """Word the end of a run by a key that is missing, wrong or expired."""
    if api_key_env is None:
        return ModelError(
            f"{name}: {url} wants a key ({said}); expected a server without keys. "
            "Name the environment variable that holds it as api_key_env."
        )
    return ModelError(
        f"{name}: {url} refuses the key ({said}); expected the one in {api_key_env} to be valid. "
        "Renew it and run again: every answer received is kept."
    )


def unreachable(name: str, url: str, error: Exception) -> ModelError:
    """Word that nothing listens at an address."""
    cause = getattr(error, "os_error", error)
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return ModelError(
        f"{name}: cannot reach {url} ({words}); expected an OpenAI-compatible server there. "
        "Start it, or correct base_url."
    )


class Breaker:
    """Tells a storm, in which going on only burns requests, from single failures."""

    def __init__(self) -> None:
        self._in_row = 0
        self._answered = False
        # Whether each of the last requests failed by circumstance.
        self._recent: deque[bool] = deque(maxlen=STORM_WINDOW)

    def completed(self) -> None:
        """Take note of a completion."""
        self._in_row, self._answered = 0, True
        self._note(failed=False)

    def failed(self, reason: str) -> str | None:
        """Take note of a failure; return what is wrong if that makes a storm."""
        # Questions may come sorted by length. But if nothing has ever fitted, max_tokens is wrong.
        self._in_row += not (self._answered and reason == "too_long")
        # A server that judges requests one by one is well, however many it refuses.
        self._note(failed=reason not in ("too_long", "refused"))
        if self._in_row >= STORM_IN_ROW:
            return f"{STORM_IN_ROW} requests in a row failed"
        if 2 * sum(self._recent) >= STORM_WINDOW:
            return f"half of the last {STORM_WINDOW} requests failed"
        return None

    def _note(self, *, failed: bool) -> None:
        self._recent.append(failed)
