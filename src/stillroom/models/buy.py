"""Buying completions: ask a model for exactly what the ledger lacks.

Covered: each reply is committed before anyone hears of it; an interrupt keeps what was received;
callers that want the same completions at the same time, in one process or several, share the work.

Not covered: calls in flight when a process is killed are asked again, since their replies went to
nobody. Two machines that want the same completion at the same time both buy it.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice

from stillroom.errors import ModelError, StoreError
from stillroom.models.chat import ChatModel, Failure, Reply, Request, complete_together
from stillroom.models.ledger import Ledger

OnReply = Callable[[Request, Reply], None]

# Failures that asking again cannot change: the server has judged the request itself.
SETTLED = frozenset({"too_long", "refused"})

_CHUNK = 4096  # requests looked up together; what bounds memory besides the calls in flight
_PROOFS_OF_REASONING = 8
_POLL_S = 0.2
_CLAIMED = 64  # requests at once, at most
_SOON_S = 0.1  # a model that comes back within this takes many
_ANSWERED_PER_CLAIM = 16  # requests, before one more is claimed ahead


@dataclass(slots=True)
class Bought:
    """What one ``buy`` did.

    Attributes:
        wanted: Requests looked at.
        reused: Of these, already in the ledger, or bought by another caller meanwhile.
        settled: Of these, not asked because they failed before for good.
        calls: Requests that the model replied to.
        failures: Of these, without a completion.
        without_reasoning: Completions that hold no reasoning.
        prompt_tokens: Of the completions, as the server counted them.
        completion_tokens: Of the completions, as the server counted them.
        uncounted: Completions without token counts; the sums above lack them.
    """

    wanted: int = 0
    reused: int = 0
    settled: int = 0
    calls: int = 0
    failures: int = 0
    without_reasoning: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0


def buy(
    requests: Iterable[Request],
    *,
    model: ChatModel,
    ledger: Ledger,
    on_reply: OnReply | None = None,
    reasoning: bool = False,
    retry_failed: bool = False,
) -> Bought:
    """Ask the model for the requests that the ledger lacks, and keep every reply.

    The requests may be a stream of any length. Requests that failed before by circumstance
    (timeout, lost server) are asked again; those that the server refused for what they are
    (``too_long``, ``refused``) are not. On return everything bought is safe from a power cut.

    Args:
        requests: What is wanted. Repeats are bought once.
        model: Where to ask.
        ledger: What is there already, and where replies are kept.
        on_reply: Told of each reply after it is committed; keep it quick.
        reasoning: Whether the model was declared to reason. If none of the first 8 completions
            holds reasoning, the server drops it, and going on would waste money.
        retry_failed: Whether to ask again for requests that failed for good as well.

    Raises:
        ModelError: If the model cannot be used, or was declared to reason and does not.
        StoreError: If the ledger cannot be written. Nothing committed is lost.
    """
    purchase = _Purchase(model, ledger, on_reply, reasoning, retry_failed)
    try:
        purchase.ask(requests)
        while purchase.others:
            # Another caller asks for these. Should it fail or die, they become ours.
            time.sleep(_POLL_S)
            purchase.ask_again()
    except BaseException as error:
        with suppress(StoreError):  # a broken ledger is why we are here, or comes second
            if isinstance(error, ModelError):
                # The model is unusable, so its last failures say nothing about the requests.
                ledger.forget_failures(purchase.failures_in_row)
            ledger.release(purchase.claimed)
            ledger.sync()
        raise
    if purchase.claimed:
        ledger.release(purchase.claimed)
        raise RuntimeError(f"the model left {len(purchase.claimed)} requests without a reply")
    if purchase.bought.calls:
        ledger.sync()
    return purchase.bought


class _Purchase:
    """One call of ``buy`` under way.

    Attributes:
        claimed: Keys that the model was asked for and has not replied to.
        others: Requests that another caller was asking for when their turn came.
        failures_in_row: Keys that failed since the last completion.
    """

    def __init__(
        self,
        model: ChatModel,
        ledger: Ledger,
        on_reply: OnReply | None,
        reasoning: bool,
        retry_failed: bool,
    ):
        self.bought = Bought()
        self.claimed: set[bytes] = set()
        self.others: dict[bytes, Request] = {}
        self.failures_in_row: list[bytes] = []
        self._failed: set[bytes] = set()
        self._model = model
        self._ledger = ledger
        self._on_reply = on_reply
        self._reasoning = reasoning
        self._retry_failed = retry_failed

    def ask(self, requests: Iterable[Request]) -> None:
        """Buy what is missing, but for what other callers are asking for."""
        self._take(complete_together(self._model, self._lacking(requests)))

    def ask_again(self) -> None:
        """Settle the requests that other callers were asking for, as far as they are done."""
        waiting, self.others = list(self.others.values()), {}
        freed = self._claim(waiting)
        if first := list(islice(freed, 1)):
            self._take(complete_together(self._model, chain(first, freed)))

    def _lacking(self, requests: Iterable[Request]) -> Iterator[Request]:
        source = iter(requests)
        while chunk := list(islice(source, _CHUNK)):
            self.bought.wanted += len(chunk)
            absent = self._ledger.missing([r.key for r in chunk])
            lacking = [r for r in chunk if r.key in absent]
            self.bought.reused += len(chunk) - len(lacking)
            if not self._retry_failed:
                failures = self._ledger.failures(absent)
                settled = {key for key, failure in failures.items() if failure.reason in SETTLED}
                settled -= self._failed  # a repeat within this call, counted there
                self.bought.settled += sum(r.key in settled for r in lacking)
                lacking = [r for r in lacking if r.key not in settled]
            yield from self._claim(lacking)
            # Else a long stream shared by two processes would gather half of it here.
            still = self._ledger.missing(self.others)
            self.bought.reused += len(self.others) - len(still)
            self.others = {key: r for key, r in self.others.items() if key in still}

    def _claim(self, requests: list[Request]) -> Iterator[Request]:
        """Yield requests that became ours to ask.

        Claims are made when the model takes the requests, not when the chunk is looked up: by
        then another process may have bought them. Those that a model which keeps on answering
        will take in a moment are claimed in one commit; a model that does not holds up nobody.
        """
        waiting = deque(requests)
        size, since = 1, time.monotonic()
        while waiting:
            size = min(size, 1 + self.bought.calls // _ANSWERED_PER_CLAIM)
            fresh: dict[bytes, Request] = {}
            while waiting and len(fresh) < size:
                request = waiting.popleft()
                key = request.key
                if key in fresh or any(
                    key in known for known in (self.claimed, self._failed, self.others)
                ):
                    self.bought.reused += 1  # a repeat within this call
                else:
                    fresh[key] = request
            ours = []
            for verdict, request in zip(
                self._ledger.claim_many(list(fresh)), fresh.values(), strict=True
            ):
                match verdict:
                    case "ours":
                        self.claimed.add(request.key)
                        ours.append(request)
                    case "bought":
                        self.bought.reused += 1
                    case "busy":
                        self.others[request.key] = request
            yield from ours
            now = time.monotonic()
            size, since = (min(2 * size, _CLAIMED) if now - since < _SOON_S else 1), now

    def _take(self, replies: Iterator[list[tuple[Request, Reply]]]) -> None:
        """Commit replies as they come, those that came together in one commit."""
        at_hand: list[tuple[Request, Reply]] = []
        try:
            for at_hand in replies:
                self._ledger.put_many(at_hand)
                for request, reply in at_hand:
                    self._count(request, reply)
        except StoreError:
            raise
        except BaseException as stop:
            if at_hand:
                self._ledger.put_many(at_hand)  # keeping them twice does nothing
            if isinstance(replies, Generator):
                # An engine hands over what it has received before it passes the error on.
                with suppress(StopIteration):
                    at_hand = replies.throw(stop)
                    while True:
                        self._ledger.put_many(at_hand)
                        at_hand = next(replies)
            raise
        finally:
            if isinstance(replies, Generator):
                replies.close()

    def _count(self, request: Request, reply: Reply) -> None:
        self.claimed.discard(request.key)
        bought = self.bought
        bought.calls += 1
        if isinstance(reply, Failure):
            bought.failures += 1
            self._failed.add(request.key)
            self.failures_in_row.append(request.key)
        else:
            self.failures_in_row.clear()
            bought.prompt_tokens += reply.prompt_tokens
            bought.completion_tokens += reply.completion_tokens
            bought.uncounted += not reply.counted
            bought.without_reasoning += reply.reasoning is None
        if self._on_reply is not None:
            self._on_reply(request, reply)
        completions = bought.calls - bought.failures
        if self._reasoning and completions == bought.without_reasoning == _PROOFS_OF_REASONING:
            raise ModelError(
                f"{request.model}: declared to reason, but none of the first {completions} replies "
                "has reasoning; expected it as `reasoning`, `reasoning_content` or think tags. "
                "Start the server with a reasoning parser, or do not declare the model to reason; "
                "the replies are kept."
            )
