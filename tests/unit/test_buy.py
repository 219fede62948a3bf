"""Buying completions through the door, with models that are plain generators."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stillroom.errors import ModelError, StoreError
from stillroom.models.buy import Bought, buy
from stillroom.models.chat import Completion, Failure, Message, Reply, Request, Sampling
from stillroom.models.ledger import Ledger


def asked(question: object, draw: int = 0) -> Request:
    return Request("m", (Message("user", str(question)),), Sampling(), draw)


class Model:
    """Replies in order, holding a few requests back as a server would, and counts them.

    Attributes:
        calls: Times asked, by question.
        held: Requests in flight at most.
    """

    def __init__(self, reply: Reply | None = None, *, held: int = 3):
        self.reply = reply or Completion("2+2=4", "4", "stop", 2, 3)
        self.calls: Counter[str] = Counter()
        self.held = held
        self.stopped = 0

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        source = iter(requests)
        waiting: list[Request] = []
        try:
            while True:
                taken = list(itertools.islice(source, self.held - len(waiting)))
                self.calls.update(request.messages[0].content for request in taken)
                waiting += taken
                if not waiting:
                    return
                yield waiting[0], self.answer(waiting.pop(0))
        except GeneratorExit:
            raise
        except BaseException:
            self.stopped += 1
            yield from ((request, self.reply) for request in waiting)
            raise

    def answer(self, request: Request) -> Reply:
        return self.reply


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as opened:
        yield opened


def test_buy_asks_only_for_what_is_missing(ledger: Ledger) -> None:
    model = Model()
    first = buy([asked(i) for i in range(20)], model=model, ledger=ledger)
    assert first == Bought(wanted=20, calls=20, prompt_tokens=40, completion_tokens=60)
    again = buy([asked(i) for i in range(21)], model=model, ledger=ledger)
    assert again == Bought(wanted=21, reused=20, calls=1, prompt_tokens=2, completion_tokens=3)
    assert set(model.calls.values()) == {1}


def test_buy_more_draws_asks_only_for_the_new_ones(ledger: Ledger) -> None:
    model = Model()
    for draws in (4, 16):
        buy([asked("2+2?", d) for d in range(draws)], model=model, ledger=ledger)
    assert model.calls.total() == 16


def test_buy_repeats_are_bought_once(ledger: Ledger) -> None:
    model = Model()
    bought = buy([asked(i % 3) for i in range(30)], model=model, ledger=ledger)
    assert (bought.wanted, bought.reused, bought.calls) == (30, 27, 3)
    assert model.calls.total() == 3


def test_buy_a_stream_is_taken_only_as_fast_as_it_is_answered(ledger: Ledger) -> None:
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for taken in range(1, 30_001):
            yield asked(taken)

    lead: list[int] = []

    def look(request: Request, reply: Reply) -> None:
        lead.append(taken - len(lead))
        if len(lead) == 100:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        buy(requests(), model=Model(), ledger=ledger, on_reply=look)
    assert max(lead) <= 4096


def test_on_reply_hears_of_a_completion_after_it_is_committed(ledger: Ledger) -> None:
    seen = []

    def look(request: Request, reply: Reply) -> None:
        with Ledger(ledger.path) as other:
            seen.append(other.get_many([request.key])[request.key] == reply)

    buy([asked(i) for i in range(5)], model=Model(), ledger=ledger, on_reply=look)
    assert seen == [True] * 5


def test_failures_are_counted_and_kept_and_never_answers(ledger: Ledger) -> None:
    requests = [asked(i) for i in range(5)]
    bought = buy(requests, model=Model(Failure("timeout", "late")), ledger=ledger)
    assert bought == Bought(wanted=5, calls=5, failures=5)
    keys = [request.key for request in requests]
    assert ledger.missing(keys) == set(keys)
    assert len(ledger.failures(keys)) == 5


@pytest.mark.parametrize(("reason", "calls"), [("timeout", 2), ("refused", 1), ("too_long", 1)])
def test_failures_of_circumstance_are_asked_again_others_only_if_told(
    ledger: Ledger, reason: str, calls: int
) -> None:
    model = Model(Failure(reason, ""))
    buy([asked("a")], model=model, ledger=ledger)
    again = buy([asked("a")], model=model, ledger=ledger)
    assert model.calls.total() == calls
    assert (again.calls, again.settled) == (calls - 1, 2 - calls)
    told = buy([asked("a")], model=model, ledger=ledger, retry_failed=True)
    assert (told.calls, model.calls.total()) == (1, calls + 1)


def test_failures_before_the_model_broke_are_not_held_against_the_requests(ledger: Ledger) -> None:
    class Breaking(Model):
        def answer(self, request: Request) -> Reply:
            number = int(request.messages[0].content)
            if number == 9:
                raise ModelError("m: storm")
            return Failure("refused", "") if number != 4 else self.reply

    with pytest.raises(ModelError, match="storm"):
        buy([asked(i) for i in range(20)], model=Breaking(held=1), ledger=ledger)
    keys = [asked(i).key for i in range(20)]
    assert ledger.stats().total.completions == 1
    assert set(ledger.failures(keys)) == set(keys[:4])


def test_completion_bought_by_another_after_our_failure_survives_our_stop(ledger: Ledger) -> None:
    request = asked("a")

    def broken(requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        yield next(iter(requests)), Failure("timeout", "")
        with Ledger(ledger.path) as other:
            other.put(request, Completion(None, "4", "stop", 2, 3))
        raise ModelError("m: storm")

    model = Model()
    model.complete = broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="storm"):
        buy([request], model=model, ledger=ledger)
    assert ledger.missing([request.key]) == set()


def test_model_that_leaves_a_request_without_reply_is_a_bug(ledger: Ledger) -> None:
    model = Model()
    model.complete = lambda requests: iter([(r, model.reply) for r in requests][1:])  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="1 requests without a reply"):
        buy([asked("a")], model=model, ledger=ledger)


def test_uncounted_completions_are_counted(ledger: Ledger) -> None:
    reply = Completion(None, "4", "stop", 0, 0, counted=False)
    bought = buy([asked("a")], model=Model(reply), ledger=ledger)
    assert (bought.uncounted, bought.completion_tokens) == (1, 0)


def test_declared_reasoning_that_never_comes_stops_after_eight(ledger: Ledger) -> None:
    model = Model(Completion(None, "4", "stop", 2, 3))
    with pytest.raises(ModelError, match="m: declared to reason, but none of the first 8 replies"):
        buy([asked(i) for i in range(100)], model=model, ledger=ledger, reasoning=True)
    assert 8 <= ledger.stats().total.completions <= 8 + model.held


def test_declared_reasoning_that_sometimes_comes_goes_on(ledger: Ledger) -> None:
    class Sometimes(Model):
        def answer(self, request: Request) -> Reply:
            thought = "hm" if request.messages[0].content == "7" else None
            return Completion(thought, "4", "stop", 2, 3)

    bought = buy([asked(i) for i in range(30)], model=Sometimes(), ledger=ledger, reasoning=True)
    assert (bought.calls, bought.without_reasoning) == (30, 29)


def test_undeclared_reasoning_is_not_expected(ledger: Ledger) -> None:
    model = Model(Completion(None, "4", "stop", 2, 3))
    assert buy([asked(i) for i in range(30)], model=model, ledger=ledger).without_reasoning == 30


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupt_keeps_everything_received(ledger: Ledger, error: type[BaseException]) -> None:
    model = Model(held=5)

    def stop(request: Request, reply: Reply) -> None:
        raise error

    with pytest.raises(error):
        buy([asked(i) for i in range(100)], model=model, ledger=ledger, on_reply=stop)
    assert model.stopped == 1
    assert ledger.stats().total.completions == model.calls.total() == 5


def test_interrupt_during_the_commit_keeps_the_reply_at_hand(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_many, interrupts = ledger.put_many, iter([KeyboardInterrupt])

    def interrupted(replies: Sequence[tuple[Request, Reply]]) -> int:
        for interrupt in interrupts:
            raise interrupt
        return put_many(replies)

    monkeypatch.setattr(ledger, "put_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        buy([asked(i) for i in range(100)], model=Model(held=1), ledger=ledger)
    assert ledger.stats().total.completions == 1


def test_replies_that_come_together_are_all_committed_before_anyone_hears_of_one(
    ledger: Ledger,
) -> None:
    class Together(Model):
        def complete_together(
            self, requests: Iterable[Request]
        ) -> Iterator[list[tuple[Request, Reply]]]:
            source = iter(requests)
            while batch := list(itertools.islice(source, 7)):
                yield [(request, self.answer(request)) for request in batch]

    heard: list[bytes] = []

    def hear(request: Request, reply: Reply) -> None:
        heard.append(request.key)
        batch = keys[len(heard) - 1 : 7 * (1 + (len(heard) - 1) // 7)]
        assert ledger.missing(batch) == set()

    requests = [asked(i) for i in range(40)]
    keys = [request.key for request in requests]
    bought = buy(requests, model=Together(), ledger=ledger, on_reply=hear)
    assert (bought.calls, heard) == (40, keys)


def test_stop_gives_up_the_claims(ledger: Ledger) -> None:
    def broken(requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        list(itertools.islice(requests, 9))
        raise ModelError("m: gone")
        yield

    model = Model()
    model.complete = broken  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="gone"):
        buy([asked(i) for i in range(20)], model=model, ledger=ledger)
    assert ledger.claim_many([asked(i).key for i in range(20)]) == ["ours"] * 20


def test_ledger_that_cannot_be_written_stops_the_buying(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(replies: Sequence[tuple[Request, Reply]]) -> int:
        raise StoreError("ledger: the disk is full")

    monkeypatch.setattr(ledger, "put_many", full)
    model = Model()
    with pytest.raises(StoreError, match="full"):
        buy([asked(i) for i in range(100)], model=model, ledger=ledger)
    assert model.calls.total() == 3


def test_two_buyers_share_the_work(ledger: Ledger) -> None:
    meet = threading.Barrier(2)
    model = Model()
    found: list[Any] = []

    class Meeting(Model):
        def answer(self, request: Request) -> Reply:
            if request.messages[0].content in ("0", "3"):
                meet.wait(10)  # both have claims now
            return self.reply

    model = Meeting()

    def work() -> None:
        with Ledger(ledger.path) as own:
            found.append(buy([asked(i) for i in range(60)], model=model, ledger=own))

    buyers = [threading.Thread(target=work) for _ in range(2)]
    for buyer in buyers:
        buyer.start()
    for buyer in buyers:
        buyer.join(30)
    assert model.calls.total() == 60
    assert sum(bought.calls for bought in found) == 60
    assert all(bought.wanted == bought.calls + bought.reused == 60 for bought in found)


def test_request_that_the_other_buyer_failed_at_is_asked_here(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked("2+2?")
    with Ledger(ledger.path) as other:
        assert other.claim_many([request.key]) == ["ours"]

        def fail_meanwhile(seconds: float) -> None:
            other.put(request, Failure("timeout", ""))

        monkeypatch.setattr(time, "sleep", fail_meanwhile)
        bought = buy([request, request], model=Model(), ledger=ledger)
    assert bought == Bought(wanted=2, reused=1, calls=1, prompt_tokens=2, completion_tokens=3)
