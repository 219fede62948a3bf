"""The door to a model behind OpenAI-compatible servers."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from stillroom.models.chat import Reply, Request
from stillroom.models.keys import find_key
from stillroom.models.openai.call import Call, Pair
from stillroom.models.openai.flow import Budget, first_limit
from stillroom.models.openai.retries import key_refused, unreachable
from stillroom.models.openai.wire import Dialect, error_words

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served, and how its servers are to be treated.

    Attributes:
        base_urls: Addresses up to and with ``/v1``.
        served_name: What the servers call the model.
        api_key_env: Environment variable that holds the key; None when no key is needed.
        concurrency: Draws in flight at most, per server.
        timeout_s: Seconds that one call may take.
        starts_in_thinking: Whether the chat template ends in ``<think>`` and the server does not
            split the reasoning off.
        choices: Draws of one question in one call, at most, where the server takes ``n``.
        requests_per_minute: Calls per minute at most, over all servers.
        tokens_per_minute: Tokens per minute at most, of prompts and completions together.
        pause_s: Seconds before the first retry; each further one waits twice as long.
        patience_s: Seconds that a request waits for a rate limit to pass.
        outage_s: Seconds without any answer after which a run stops.
    """

    base_urls: tuple[str, ...]
    served_name: str
    api_key_env: str | None = None
    concurrency: int = 256
    timeout_s: float = 600.0
    starts_in_thinking: bool = False
    choices: int = 1
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    pause_s: float = 0.5
    patience_s: float = 900.0
    outage_s: float = 300.0


class OpenAIModel:
    """A model behind one or more servers of the same protocol.

    Each call goes to the server with the most free capacity. Each draw is sent with its own
    ``seed``, made from the request's key, so that draws differ on servers that would otherwise
    repeat themselves; draws that share a call share the first one's. A server that rejects
    ``seed``, ``n`` or ``response_format`` gets none. What is learnt about the servers stays: the
    dialect that they understand, and the limits at which they work well.
    """

    def __init__(
        self,
        name: str,
        base_url: str | Sequence[str],
        *,
        served_name: str | None = None,
        **treatment: Any,
    ):
        """Describe where a model is served; nothing is sent yet.

        Args:
            name: Frozen model name, as in requests.
            base_url: Address up to and with ``/v1``, or several.
            served_name: What the servers call the model, if not by its frozen name.
            treatment: Further fields of `Serving`.
        """
        self.name = name
        urls = (base_url,) if isinstance(base_url, str) else base_url
        base_urls = tuple(url.rstrip("/") for url in urls)
        self.serving = Serving(base_urls, served_name or name, **treatment)
        self.limits = dict.fromkeys(base_urls, first_limit(self.serving.concurrency))
        self.budgets = (
            Budget(self.serving.requests_per_minute),
            Budget(self.serving.tokens_per_minute),
        )
        self.dialect = Dialect()
        self.choices = self.serving.choices

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, {list(self.serving.base_urls)!r})"

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Reply to each request once, in any order.

        Requests are taken in the caller's thread, hardly more than may be in flight. A call is
        not sent while ``concurrency`` draws per server are under way or not yet taken by the
        caller: that is all that a killed process can have paid for in vain. When the iteration
        is interrupted or stopped by an error, replies already received come first.

        Raises:
            ModelError: If a server cannot be reached at the start, refuses the key or does not
                know the model; if no server answers for ``outage_s``; if 20 requests in a row,
                or half of the last 100, fail.
        """
        return self._replies(requests, Call.one_by_one, iter)

    def complete_together(self, requests: Iterable[Request]) -> Iterator[list[Pair]]:
        """Reply as `complete` does, to as many as have come at a time."""
        return self._replies(requests, Call.together, lambda rest: iter([rest] if rest else []))

    def _replies(
        self,
        requests: Iterable[Request],
        received: Callable[[Call], Iterator[T]],
        form: Callable[[list[Pair]], Iterator[T]],
    ) -> Iterator[T]:
        groups = self._groups(iter(requests))
        first = next(groups, None)
        if first is None:
            return
        call = Call(self, self._key())
        try:
            call.submit(first)
            while True:
                while call.room > 0 and (group := next(groups, None)):
                    call.submit(group)
                    yield from received(call)
                call.flush()
                if not call.outstanding:
                    return
                call.wait()
                yield from received(call)
        except GeneratorExit:
            raise
        except BaseException:
            yield from form(call.received_before_end())
            raise
        finally:
            call.stop()

    def _groups(self, requests: Iterator[Request]) -> Iterator[list[Request]]:
        """Put draws of one question that follow one another together, as far as servers allow."""
        ahead = next(requests, None)
        while ahead is not None:
            group, ahead = [ahead], None
            first = group[0]
            while len(group) < self.choices:
                ahead = next(requests, None)
                if ahead is None or replace(ahead, draw=first.draw) != first:
                    break
                group.append(ahead)
                ahead = None
            yield group
            ahead = ahead or next(requests, None)

    def served_models(self, *, timeout_s: float = 5.0) -> dict[str, list[str] | None]:
        """Ask each server which models it serves; None where a server keeps no list.

        Raises:
            ModelError: If a server cannot be reached or refuses the key.
        """
        return _run_apart(self._list_models(self._key(), timeout_s))

    async def _list_models(self, key: str | None, timeout_s: float) -> dict[str, list[str] | None]:
        import aiohttp  # starts in a third of a second, and calls do without

        models: dict[str, list[str] | None] = {}
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            for url in self.serving.base_urls:
                try:
                    async with session.get(f"{url}/models", allow_redirects=False) as response:
                        body = await response.read()
                        status = response.status
                except (aiohttp.ClientError, TimeoutError, OSError) as lost:
                    raise unreachable(self.name, url, lost) from None
                if status in (401, 403):
                    said = f"HTTP {status}: {error_words(status, body, key)}"
                    raise key_refused(self.name, url, self.serving.api_key_env, said)
                try:
                    models[url] = [str(model["id"]) for model in json.loads(body)["data"]]
                except (ValueError, KeyError, TypeError):
                    models[url] = None
        return models

    def _key(self) -> str | None:
        name = self.serving.api_key_env
        if name is None:
            return None
        return find_key(name, where=self.name, what_for=self.serving.base_urls[0])


def _run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread: the caller may be in an event loop, as notebooks."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
