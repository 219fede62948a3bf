"""What a run may spend, what it has spent, and models that may spend nothing.

Covered: a run stops before the call that would pass its limit, judged by the mean of the calls so
far; calls in flight are waited for and kept. Not covered: other processes, which have limits of
their own, and calls that cost far more than those before them.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stillroom.errors import BudgetError, ModelError
from stillroom.models.chat import (
    ChatModel,
    Completion,
    Failure,
    Reply,
    Request,
    complete_together,
)

_FORM = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<scale>[kMG]?)[- ]?(?P<unit>usd|tokens)", re.I)
_SCALES = {"": 1, "k": 1e3, "M": 1e6, "m": 1e6, "G": 1e9, "g": 1e9, "K": 1e3}
_CHARACTERS_PER_TOKEN = 3.0  # fewer than in most texts, so that what was not counted is not cheap


@dataclass(frozen=True)
class Limit:
    """What a run may spend.

    Attributes:
        amount: How much.
        unit: ``usd``, or ``tokens``, prompts and completions together.
    """

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"${self.amount:,.2f}" if self.unit == "usd" else f"{self.amount:,.0f} tokens"

    @staticmethod
    def parse(text: str) -> "Limit":
        """Read a limit.

        Raises:
            ValueError: If the text is no limit.

        >>> str(Limit.parse("200usd")), str(Limit.parse("5M-tokens"))
        ('$200.00', '5,000,000 tokens')
        """
        found = _FORM.fullmatch(text.strip())
        if found is None or float(found["number"]) == 0:
            raise ValueError(f"{text!r}; expected an amount such as 200usd or 5M-tokens")
        amount = float(found["number"]) * _SCALES[found["scale"]]
        return Limit(amount, found["unit"].lower())


@dataclass
class Purse:
    """What one run has spent, over all its models.

    Attributes:
        limit: What it may spend; None for no limit.
        spent: In the limit's unit.
        calls: Completions paid for.
    """

    limit: Limit | None = None
    spent: float = 0.0
    calls: int = 0
    _in_flight: int = field(default=0, repr=False)

    def open(self, model: ChatModel) -> ChatModel:
        """Return a model that is asked only as long as there is room."""
        return _Metered(model, self) if self.limit else model

    def check(self, model: str, *, priced: bool) -> None:
        """Refuse a limit in money for a model whose price is not known.

        Raises:
            BudgetError: If it cannot be kept.
        """
        if self.limit and self.limit.unit == "usd" and not priced:
            raise BudgetError(
                f"{model}: its price is not known, so a budget of {self.limit} cannot be kept; "
                "expected `price` of the model in models.toml. Add it, or give the budget in "
                "tokens."
            )

    def pay(self, request: Request, reply: Reply, usd: float | None) -> None:
        """Hear of a reply.

        Args:
            request: What was asked.
            reply: What came.
            usd: What it cost; None where that is not known.
        """
        self._in_flight = max(0, self._in_flight - 1)
        if isinstance(reply, Failure) or self.limit is None:
            return
        self.calls += 1
        self.spent += (usd or 0.0) if self.limit.unit == "usd" else sum(tokens_of(request, reply))

    def take(self) -> bool:
        """Tell whether one more call fits, those in flight counted at the mean; if so, begin it."""
        mean = self.spent / self.calls if self.calls else 0.0
        if self.limit and self.spent + (self._in_flight + 1) * mean > self.limit.amount:
            return False
        self._in_flight += 1
        return True

    def __str__(self) -> str:
        return str(Limit(self.spent, self.limit.unit)) if self.limit else ""


def tokens_of(request: Request, reply: Completion) -> tuple[int, int]:
    """Count the tokens of a prompt and its completion, or guess them where the server did not.

    The guess is one token for every three characters.
    """
    if reply.counted:
        return reply.prompt_tokens, reply.completion_tokens
    asked = sum(len(message.content) for message in request.messages)
    wrote = len(reply.reasoning or "") + len(reply.answer)
    return _tokens_in(asked), _tokens_in(wrote)


def _tokens_in(characters: int) -> int:
    return math.ceil(characters / _CHARACTERS_PER_TOKEN)


class _Metered:
    """A model that is asked as long as a purse has room."""

    def __init__(self, model: ChatModel, purse: Purse) -> None:
        self._model = model
        self._purse = purse
        self._refused = False

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Reply to requests until there is no room.

        Raises:
            BudgetError: Then, after every reply to what was in flight.
        """
        for pairs in self.complete_together(requests):
            yield from pairs

    def complete_together(
        self, requests: Iterable[Request]
    ) -> Iterator[list[tuple[Request, Reply]]]:
        """Reply as `complete` does, to as many as have come at a time.

        Raises:
            BudgetError: When there is no room, after every reply to what was in flight.
        """
        yield from complete_together(self._model, self._affordable(requests))
        if self._refused:
            purse = self._purse
            raise BudgetError(
                f"The budget of {purse.limit} is spent: {purse} for {purse.calls:,} answers in "
                "this run. All of them are kept. Run again, with another --budget or without one, "
                "to go on from here."
            )

    def _affordable(self, requests: Iterable[Request]) -> Iterator[Request]:
        for request in requests:
            if not self._purse.take():
                self._refused = True
                return
            yield request


class NeverBuys:
    """A model that has only what the ledger holds: whatever it is asked for is missing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Count the requests.

        Raises:
            ModelError: With the count, if there are any.
        """
        missing = sum(1 for _ in requests)
        if missing:
            raise ModelError(
                f"{self.name}: {missing:,} completions are not in the ledger; expected all of "
                "them, because this is a replay and buys nothing. Run without --replay, or give "
                "the model another engine than `replay`, to buy them."
            )
        yield from ()
