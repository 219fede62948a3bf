"""The limit of calls at once, against servers that exist only on paper."""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.models.openai.flow import Budget, Limit, Server

Latency = Callable[[], float]


def heavy(draw: random.Random, p50: float = 2.0) -> Latency:
    """Return latencies with a heavy tail: p99 is ten times p50."""
    return lambda: p50 * draw.lognormvariate(0, 1)


def drive(
    limit: Limit, latency: Latency, *, slots: int, calls: int, refuses: bool = False
) -> tuple[float, list[float]]:
    """Keep a server of so many slots as busy as the limit allows.

    Returns:
        The share of its slots that was busy in the second half, and the limit at each return.
    """
    now, busy, in_flight = 0.0, 0, 0
    ends: list[tuple[float, int, float, bool]] = []
    queue: deque[tuple[float, float]] = deque()
    number = itertools.count()
    limits: list[float] = []
    half_at, work = None, 0.0

    def begin(sent_at: float, length: float) -> None:
        nonlocal busy, work
        busy += 1
        if half_at is not None:
            work += length
        heapq.heappush(ends, (now + length, next(number), sent_at, True))

    while len(limits) < calls:
        while in_flight < int(limit.value):
            in_flight += 1
            if busy < slots:
                begin(now, latency())
            elif refuses:
                heapq.heappush(ends, (now + 0.05, next(number), now, False))
            else:
                queue.append((now, latency()))
        now, _, sent_at, answered = heapq.heappop(ends)
        if answered:
            busy -= 1
            limit.came_back(now, in_flight=in_flight, work=1.0)
            limits.append(limit.value)
            if queue:
                begin(*queue.popleft())
            if half_at is None and len(limits) > calls // 2:
                half_at = now
        else:
            limit.refused(now, sent_at=sent_at)
        in_flight -= 1
    assert half_at is not None
    return work / (slots * (now - half_at)), limits


@pytest.mark.parametrize("seed", range(5))
def test_limit_reaches_the_bound_when_the_server_has_room(seed: int) -> None:
    limit = Limit(1000)
    busy, limits = drive(limit, heavy(random.Random(seed)), slots=1000, calls=30_000)
    assert limits.index(1000.0) < 6_000
    assert min(limits[6_000:]) == 1000
    assert busy > 0.97


@pytest.mark.parametrize("seed", range(5))
def test_limit_stays_near_the_slots_of_a_server_that_lets_calls_wait(seed: int) -> None:
    limit = Limit(10_000)
    busy, limits = drive(limit, heavy(random.Random(seed)), slots=256, calls=60_000)
    assert busy > 0.97
    assert max(limits[20_000:]) < 8 * 256


@pytest.mark.parametrize("seed", range(5))
def test_limit_stays_near_the_slots_of_a_server_that_refuses(seed: int) -> None:
    limit = Limit(2_000)
    busy, limits = drive(limit, heavy(random.Random(seed)), slots=1000, calls=40_000, refuses=True)
    assert busy > 0.95
    assert max(limits[20_000:]) < 1200


def test_limit_halves_once_for_all_timeouts_of_a_round() -> None:
    limit = Limit(64, start=64)
    for i in range(64):
        limit.lost(100.0 + i / 1000, sent_at=0.0)
    assert limit.value == 32
    limit.lost(300.0, sent_at=200.0)
    assert limit.value == 16


def test_limit_does_not_grow_while_it_is_not_reached() -> None:
    limit = Limit(1000)
    for i in range(1000):
        limit.came_back(float(i), in_flight=3, work=1.0)
    assert limit.value == 250
    assert [Limit(most).value for most in (1, 16, 64, 400, 10_000)] == [1, 16, 16, 100, 256]


@pytest.mark.parametrize(("answer_s", "first_s"), [(0.03, 0.015), (20.0, 0.5)])
def test_silence_after_a_refusal_is_short_where_answers_are(
    answer_s: float, first_s: float
) -> None:
    """As long as the pause that is set would be many answers of a quick server."""
    server = Server("http://x/v1", Limit(64))
    server.refused(1.0, sent_at=0.9)
    assert server.silence_s(0.5) == 0.5  # nothing is known of its answers
    server.took(0.0, answer_s)
    server.refused(3.0, sent_at=2.9)
    server.refused(3.0, sent_at=2.9)  # sent together, they are one refusal
    assert server.silence_s(0.5) == pytest.approx(first_s)
    for i in range(1, 10):  # others have all room, or no time is a good one
        server.refused(3.0 + i, sent_at=2.9 + i)
        server.refused(3.0 + i, sent_at=2.9 + i)
    assert server.silence_s(0.5) == pytest.approx(10 * first_s)
    server.took(0.0, answer_s)
    server.refused(20.0, sent_at=19.9)
    assert server.silence_s(0.5) == pytest.approx(first_s)


@pytest.mark.parametrize(("refused", "left"), [(1, 242.2), (11, 232.2), (200, 127.2)])
def test_refusals_that_end_the_fast_start_take_a_call_each_and_half_at_most(
    refused: int, left: float
) -> None:
    limit = Limit(1024)
    for i in range(refused):
        limit.refused(0.1 + i / 1000, sent_at=0.0)
    assert limit.value == pytest.approx(left)
    for i in range(50):  # later ones are one sign together
        limit.refused(2.0 + i / 1000, sent_at=1.0)
    assert limit.value == pytest.approx(left * 0.95 - 1)


def test_silence_of_a_full_server_doubles_the_limit_until_something_is_refused() -> None:
    limit, now = Limit(1000), 0.0
    seen = []
    while (again_at := limit.full(now)) is not None:
        now = again_at
        seen.append((round(now, 2), limit.value))
    assert seen == [(0.25, 250), (0.25, 500), (0.5, 500), (0.5, 1000)]
    limit = Limit(100_000)
    assert limit.full(0.0) == 0.25
    limit.refused(0.1, sent_at=0.0)
    assert limit.full(0.25) is None
    limit, now = Limit(100_000), 0.0
    while (again_at := limit.full(now)) is not None:
        now = again_at
    assert limit.value == 1024


@given(
    most=st.integers(1, 300),
    events=st.lists(st.tuples(st.sampled_from(["back", "refused", "lost"]), st.floats(0, 10))),
)
def test_limit_stays_between_one_and_the_bound(most: int, events: list[tuple[str, float]]) -> None:
    limit, now = Limit(most), 0.0
    for event, after in events:
        now += after
        if event == "back":
            limit.came_back(now, in_flight=int(limit.value), work=after)
        elif event == "refused":
            limit.refused(now, sent_at=now)
        else:
            limit.lost(now, sent_at=now)
        assert 1 <= limit.value <= most


@given(
    per_minute=st.floats(1, 1e6),
    amounts=st.lists(st.floats(0, 1000), min_size=1, max_size=50),
)
def test_budget_holds_over_any_time(per_minute: float, amounts: list[float]) -> None:
    budget, now, spent = Budget(per_minute), 0.0, 0.0
    for amount in amounts:
        while (wait := budget.wait_s(now)) > 0:
            now += wait
        budget.spend(amount)
        # One amount may overdraw; what comes next waits for it.
        most = per_minute / 60 * now + max(1.0, per_minute / 10)
        assert spent <= most + 1e-6 * (1 + most)
        spent += amount


def test_no_budget_never_waits() -> None:
    budget = Budget(None)
    budget.spend(1e9)
    assert budget.wait_s(5.0) == 0
