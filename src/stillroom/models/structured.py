r"""Structured replies: a question to a model whose answer is a small JSON object.

A form is a pydantic model with strict types and ranges. The messages ask for it in words, and a
server that can is given its JSON Schema too; either way the reply is read here, by the same rules.
What cannot be read is asked again, each try a draw of its own, so that no try is bought twice.
When the last try cannot be read, the question is undecided: not zero, and not a guess.

    class Verdict(Form):
        same: bool
        reason: str

    questions = [Inquiry("some/judge", messages, Sampling(), Verdict)]
    ask(lambda: questions, ledger, lambda requests: buy(requests, model=..., ledger=ledger))
    for outcome in outcomes(questions, ledger):
        outcome.value, outcome.state
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.ledger import Ledger

TRIES = 3
"""How often a question is asked at most, unless said otherwise."""

# Draws of the first try are numbered from 0; those of the next tries stand apart, so that more
# draws, or more tries, never rename one that was bought.
_APART = 100_000

_STARTS = 256  # places at which an object may begin; bounds the work on hostile text
_CHUNK = 1024  # questions looked up together


class Form(BaseModel):
    """What a model is to fill in: derive from it, and give each field a type and a range.

    Types are strict: neither ``"7"`` nor ``true`` is a number. A field that is missing, twice
    there, or unknown makes the reply unreadable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


T = TypeVar("T", bound=Form)


@cache
def schema_of(form: type[Form]) -> str:
    """Write a form's JSON Schema as text that stays the same: it enters the key of requests.

    >>> class Verdict(Form):
    ...     same: bool
    >>> schema_of(Verdict)[:60]
    '{"additionalProperties":false,"properties":{"same":{"type":"'
    """
    return json.dumps(_bare(form.model_json_schema()), sort_keys=True, separators=(",", ":"))


def _bare(schema: Any) -> Any:
    """Leave out what only documents: pydantic's titles, and docstrings."""
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {field: _bare(value) for field, value in inner.items()}
        if name == "properties"
        else _bare(inner)
        for name, inner in schema.items()
        if name not in ("title", "description") or not isinstance(inner, str)
    }


def read_form(text: str, form: type[T]) -> T | None:
    """Find a filled-in form in a reply; None if there is none.

    The object may stand in a code fence or between sentences. Of several, the last counts: models
    repeat the form they were shown before they fill it in.
    """
    decoder = json.JSONDecoder(
        strict=False,  # line breaks inside strings are common, and harm nothing
        object_pairs_hook=_once,
        parse_constant=_no_number,
    )
    found: T | None = None
    at = text.find("{")
    for _ in range(_STARTS):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            with suppress(ValidationError):
                found = form.model_validate(value)
        at = text.find("{", end)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


@dataclass(frozen=True)
class Inquiry(Generic[T]):
    """One question whose reply is a form.

    Attributes:
        model: Frozen model name.
        messages: What is asked; it says in words which fields the reply has.
        sampling: How tokens are drawn. At temperature 0 a second try would be the first again on
            many servers; leave some chance.
        form: What comes back.
        draw: Which sample of the same question this is, from 0.
        tries: How often to ask at most.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    form: type[T]
    draw: int = 0
    tries: int = TRIES

    def requests(self) -> list[Request]:
        """Return the request of each try."""
        schema = schema_of(self.form)
        return [
            Request(self.model, self.messages, self.sampling, self.draw + _APART * number, schema)
            for number in range(self.tries)
        ]


State = Literal["read", "undecided", "filtered", "failed", "open"]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What is known of a question.

    Attributes:
        state: ``read``: the form is there. ``undecided``: no try could be read. ``filtered``: the
            server's content filter cut the last try off. ``failed``: the last request got no
            completion. ``open``: not settled; `next` would be the next try.
        value: The form; None unless read.
        next: The request to buy next; None unless open or failed.
        failure: The server's words; None unless failed.
    """

    state: State
    value: T | None = None
    next: Request | None = None
    failure: str | None = None


def outcomes(inquiries: Iterable[Inquiry[T]], ledger: Ledger) -> Iterator[Outcome[T]]:
    """Read what the ledger knows of each question, in order; nothing is bought."""
    waiting = iter(inquiries)
    while chunk := list(islice(waiting, _CHUNK)):
        requests = [inquiry.requests() for inquiry in chunk]
        keys = [request.key for tries in requests for request in tries]
        completions = ledger.get_many(keys)
        failures = ledger.failures(key for key in keys if key not in completions)
        for inquiry, tries in zip(chunk, requests, strict=True):
            last: Completion | None = None
            outcome: Outcome[T] | None = None
            for request in tries:
                reply = completions.get(request.key)
                if reply is None:
                    failure = failures.get(request.key)
                    words = None if failure is None else f"{failure.reason}: {failure.message}"
                    outcome = Outcome("failed" if words else "open", None, request, words)
                    break
                last = reply
                if (value := read_form(reply.answer, inquiry.form)) is not None:
                    outcome = Outcome("read", value)
                    break
            if outcome is None:
                filtered = last is not None and last.finish_reason == "content_filter"
                outcome = Outcome("filtered" if filtered else "undecided")
            yield outcome


def ask(
    inquiries: Callable[[], Iterable[Inquiry[T]]],
    ledger: Ledger,
    purchase: Callable[[Iterator[Request]], object],
) -> None:
    """Buy tries until every question is settled; read them with `outcomes` afterwards.

    A request that failed in an earlier run is wanted once more; one that fails in this run is not.

    Args:
        inquiries: Called once per round, so that questions can be read from disk again instead of
            being held.
        ledger: Where tries are kept.
        purchase: Buys a stream of requests into the ledger; see `stillroom.models.buy`.
    """
    wanted = {"open", "failed"}
    while True:
        known = outcomes(inquiries(), ledger)
        lacking = (o.next for o in known if o.next is not None and o.state in wanted)
        first = next(lacking, None)
        if first is None:
            return
        purchase(chain([first], lacking))
        wanted = {"open"}
