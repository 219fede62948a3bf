"""Asking models from a step: everything that is lacking is bought first, then read back.

A step that asks says which requests it wants, as a stream; what the ledger holds already is not
asked again, a server is kept busy across shards, and a killed run loses nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from stillroom.models.buy import Bought, buy
from stillroom.models.chat import ChatModel, Failure, Message, Reply, Request, Sampling
from stillroom.steps.base import Calls, Misfit, ModelSpec, Runtime, Tick


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

    def tell(request: Request, reply: Reply) -> None:
        rows = 0 if again else 1
        if isinstance(reply, Failure):
            rt.tick(Tick(rows=rows, failed=1))
            return
        each = price(spec.name)
        usd = each.usd(reply.prompt_tokens, reply.completion_tokens) if each else None
        rt.tick(Tick(rows=rows, calls=1, tokens=reply.completion_tokens, usd=usd))

    bought = buy(
        requests,
        model=_OnFirstUse(lambda: rt.models.open(spec.name)),
        ledger=rt.ledger(),
        on_reply=tell,
        reasoning=bool(spec.reasoning),
        retry_failed=rt.retry_failed,
    )
    found = bought.reused + bought.settled
    rt.tick(Tick(rows=0 if again else found, reused=bought.reused))
    return bought


def estimate(spec: ModelSpec, rt: Runtime, *, wanted: int, missing: int) -> Calls:
    """Say what missing completions will take: by what the model wrote before, or at most."""
    past = rt.ledger().stats().by_model.get(spec.name)
    each: float | None = spec.max_tokens
    if past and past.completions > past.uncounted:
        each = past.completion_tokens / (past.completions - past.uncounted)
    tokens = None if each is None else round(each * missing)
    price = rt.models.prices(spec.name) if missing else None
    return Calls(
        model=spec.name,
        wanted=wanted,
        missing=missing,
        tokens=tokens,
        usd=price.usd(0, tokens) if price and tokens is not None else None,
        bound=not past,
    )


def estimate_at_most(spec: ModelSpec, rt: Runtime, calls: int) -> Calls:
    """Bound what so many completions will take."""
    return replace(estimate(spec, rt, wanted=calls, missing=calls), bound=True)


class _OnFirstUse:
    """A model that is opened when it is first asked: answers in the ledger need no server."""

    def __init__(self, open_model: Callable[[], ChatModel]) -> None:
        self._open = open_model

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Open the model if there is a request, and hand it on."""
        iterator = iter(requests)
        for first in iterator:
            yield from self._open().complete(chain([first], iterator))
