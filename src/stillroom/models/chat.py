"""The ChatModel door: what is asked of a model, and what it may reply.

Teachers, labellers, judges and students all stand behind it. Pipeline code hands over requests
and iterates over replies; concurrency, batching, retries and protocols stay behind the door.
"""

import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Literal, Protocol

_canonical = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. None leaves a setting to the server's default, and says so in the key.

    Attributes:
        temperature: 0 (greedy) or above.
        top_p: Nucleus share, above 0 and up to 1.
        max_tokens: Completion tokens at most, thinking included.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class Request:
    """One completion that is wanted: the identity of what the ledger keeps.

    Attributes:
        model: Frozen model name, as in the recipe; never an address.
        messages: The rendered conversation, system prompt included.
        sampling: How tokens are drawn.
        draw: Which sample of the same question this is, from 0.
        schema: JSON Schema of the reply, as text. A server that can is told to keep to it; the
            messages ask for it in words as well, for those that cannot.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    draw: int = 0
    schema: str | None = None

    @cached_property
    def key(self) -> bytes:
        """Sixteen bytes: model, messages, sampling, draw and schema, and nothing else.

        Where the model is served, who asks and when are not in it, so an answer once paid for
        serves every recipe, machine and process that asks the same.
        """
        digest = _opening(self.model, self.messages, self.sampling).copy()
        schema = "" if self.schema is None else f",{json.dumps(self.schema)}"
        digest.update(f"{self.draw}{schema}]".encode())
        return digest.digest()


@lru_cache(16)  # draws of one question follow one another
def _opening(model: str, messages: tuple[Message, ...], sampling: Sampling) -> blake2b:
    """Digest what the draws of one question share: a JSON list but for its last items."""
    content = [
        model,
        [[m.role, m.content] for m in messages],
        [_number(sampling.temperature), _number(sampling.top_p), sampling.max_tokens],
    ]
    return blake2b(f"{_canonical(content)[:-1]},".encode(), digest_size=16)


def _number(value: float | None) -> float | None:
    """Write 1 as 1.0 and -0.0 as 0.0, so that equal settings have equal keys."""
    return None if value is None else float(value) + 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered, with its thinking already apart.

    Attributes:
        reasoning: The thinking; None when the model showed none.
        answer: The visible part; empty when the thinking never ended.
        finish_reason: ``stop``, or ``length`` when max_tokens cut it, or ``content_filter``.
        prompt_tokens: Tokens of the prompt, as the server counted them.
        completion_tokens: Tokens of the completion, thinking included.
        served_name: The model that the server says answered; may be finer than the frozen name.
        provider_id: The server's own id of the call, for questions about a bill.
        counted: Whether the server sent token counts. Without them both counts are 0, and sums
            over such completions are lower bounds.

    What a server says of itself is no part of what the model wrote: two completions are equal
    without it.
    """

    reasoning: str | None
    answer: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    served_name: str | None = field(default=None, compare=False)
    provider_id: str | None = field(default=None, compare=False)
    counted: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no completion after all retries.

    Attributes:
        reason: One word for counting: ``timeout``, ``refused``, ``too_long``, ``bad_reply``, ...
        message: The server's own words, shortened to 500 characters, without keys.
    """

    reason: str
    message: str


Reply = Completion | Failure


class ChatModel(Protocol):
    """One door for every model.

    ``complete`` replies to each request exactly once, in any order, as soon as each reply is
    known. It pulls from ``requests`` only as fast as it can work, so the iterable may be endless
    and memory stays bounded. Draws of one question should arrive one after another: an engine
    may then share their prompt. Closing the iterator stops the work in flight.

    Raises:
        ModelError: If the model cannot be used at all: wrong address, key refused, no weights.
    """

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Reply to each request once, in any order."""
        ...


def complete_together(
    model: ChatModel, requests: Iterable[Request]
) -> Iterator[list[tuple[Request, Reply]]]:
    """Reply as the model's ``complete`` does, with what came together in one list.

    An engine that can says so by a method of this name. What is thrown into the iterator reaches
    the engine, which may have replies to hand over first.
    """
    together = getattr(model, "complete_together", None)
    replies: Iterator[list[tuple[Request, Reply]]] = (
        _Single(model.complete(requests)) if together is None else together(requests)
    )
    yield from replies


class _Single:
    """Replies, each in a list of its own."""

    def __init__(self, replies: Iterator[tuple[Request, Reply]]) -> None:
        self._replies = replies

    def __iter__(self) -> "_Single":
        return self

    def __next__(self) -> list[tuple[Request, Reply]]:
        return [next(self._replies)]

    def throw(self, error: BaseException) -> list[tuple[Request, Reply]]:
        if not isinstance(self._replies, Generator):
            raise error
        return [self._replies.throw(error)]

    def close(self) -> None:
        if isinstance(self._replies, Generator):
            self._replies.close()
