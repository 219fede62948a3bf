"""Asking models from a step: everything that is lacking is bought first, then read back.

A step that asks says which requests it wants, as a stream; what the ledger holds already is not
asked again, a server is kept busy across shards, and a killed run loses nothing.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice

from stillroom.errors import PilotDone
from stillroom.models.batch.model import BatchModel
from stillroom.models.buy import Bought, buy
from stillroom.models.chat import (
    ChatModel,
    Failure,
    Message,
    Reply,
    Request,
    Sampling,
    complete_together,
)
from stillroom.models.ledger import Ledger
from stillroom.models.sameness import Sameness
from stillroom.models.spending import NeverBuys, tokens_of
from stillroom.steps.base import Misfit, ModelSpec, Runtime, Tick

_LOOKED_UP = 4096


def role(model: str | ModelSpec, models: Mapping[str, ModelSpec], where: str) -> ModelSpec:
    """Return the model that plays a role.

    Args:
        model: The role, or the model itself.
        models: The recipe's models, by role.
        where: The field that names it, for the message.

    Raises:
        Misfit: If the recipe has no such role.
    """
    if isinstance(model, ModelSpec):
        return model
    if model not in models:
        raise Misfit(
            f"{where} is {model!r}, which is not a role in models; "
            f"the roles are {', '.join(models) or 'none'}"
        )
    return models[model]


def bound(model: str | ModelSpec) -> ModelSpec:
    """Return the model of a step that was bound."""
    assert isinstance(model, ModelSpec), "a step that asks runs after `bind`"
    return model


def conversation(spec: ModelSpec, user: str) -> tuple[Message, ...]:
    """Put the model's system prompt, if it has one, before what is asked."""
    system = (Message("system", spec.system),) if spec.system else ()
    return (*system, Message("user", user))


def sampling(spec: ModelSpec, *, temperature: float | None = None) -> Sampling:
    """Return how a model samples.

    Args:
        spec: The model.
        temperature: What holds where the model's own is left open.
    """
    own = spec.temperature if spec.temperature is not None else temperature
    return Sampling(own, spec.top_p, spec.max_tokens)


def purchase(
    requests: Iterable[Request], spec: ModelSpec, rt: Runtime, *, again: bool = False
) -> Bought:
    """Buy what the ledger lacks, and tell of each reply.

    Args:
        requests: What is wanted, of one model.
        spec: The model.
        rt: Where it is served, and where replies are kept.
        again: Whether these are further tries of rows that were counted before.
    """
    price = rt.models.prices
    sameness = Sameness()

    def tell(request: Request, reply: Reply) -> None:
        rows = 0 if again else 1
        if isinstance(reply, Failure):
            rt.purse.pay(request, reply, None)
            rt.tick(Tick(rows=rows, failed=1))
            return
        if warning := sameness.heard(request, reply):
            rt.tick(Tick(warning=warning))
        each = price(spec.name)
        usd = each.usd(*tokens_of(request, reply)) if each else None
        rt.purse.pay(request, reply, usd)
        rt.tick(
            Tick(
                rows=rows, calls=1, tokens=reply.completion_tokens, usd=usd,
                prompt_tokens=reply.prompt_tokens, model=spec.name,
            )
        )  # fmt: skip

    def opened() -> ChatModel:
        rt.purse.check(spec.name, priced=price(spec.name) is not None)
        model = rt.models.open(spec.name)
        if isinstance(model, BatchModel):
            model.folder = rt.ledger().path / "batches"  # they travel with what they will fill
        return rt.purse.open(model)

    if rt.pilot is not None:
        requests = _pilot(requests, rt.pilot, rt.ledger())
    bought = buy(
        requests,
        model=NeverBuys(spec.name) if rt.replay else _OnFirstUse(opened),
        ledger=rt.ledger(),
        on_reply=tell,
        reasoning=bool(spec.reasoning),
        retry_failed=rt.retry_failed,
    )
    if isinstance(requests, _Pilot) and requests.missing:
        raise PilotDone(
            f"The pilot bought {bought.calls:,} answers of {spec.name}; {requests.missing:,} of "
            f"{requests.wanted:,} that this step wants are still missing."
        )
    found = bought.reused + bought.settled
    rt.tick(Tick(rows=0 if again else found, reused=bought.reused, failed=bought.settled))
    return bought


class _Pilot:
    """A few of the requests that a ledger lacks, drawn by their keys, which are as good as chance.

    Attributes:
        wanted: Requests in all.
        missing: Those that the ledger lacks and that were not drawn.
    """

    def __init__(self, requests: list[Request], wanted: int, missing: int) -> None:
        self.wanted = wanted
        self.missing = missing
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)


def _pilot(requests: Iterable[Request], size: int, ledger: Ledger) -> _Pilot:
    """Draw requests until the ledger holds so many of a step."""
    source, drawn = iter(requests), list[Request]()
    wanted = missing = 0
    while batch := list(islice(source, _LOOKED_UP)):
        absent = ledger.missing(request.key for request in batch)
        wanted += len(batch)
        missing += len(absent)
        lacking = (request for request in batch if request.key in absent)
        drawn = heapq.nsmallest(size, [*drawn, *lacking], key=lambda request: request.key)
    drawn = drawn[: max(0, size - (wanted - missing))]
    return _Pilot(drawn, wanted, missing - len(drawn))


class _OnFirstUse:
    """A model that is opened when it is first asked: answers in the ledger need no server."""

    def __init__(self, open_model: Callable[[], ChatModel]) -> None:
        self._open = open_model

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Open the model if there is a request, and hand it on."""
        for pairs in self.complete_together(requests):
            yield from pairs

    def complete_together(
        self, requests: Iterable[Request]
    ) -> Iterator[list[tuple[Request, Reply]]]:
        """Do as `complete` does, to as many as have come at a time."""
        iterator = iter(requests)
        for first in iterator:
            yield from complete_together(self._open(), chain([first], iterator))
