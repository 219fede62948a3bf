"""What a plan foretells: intervals that hold, and words where they are wide."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.run.planner import amount, totals
from stillroom.steps.base import Calls
from stillroom.steps.foretelling import Lengths, add_up


def lengths(known: list[float]) -> Lengths:
    return Lengths.of(len(known), *(math.fsum(x**k for x in known) / len(known) for k in (1, 2, 3)))


@pytest.mark.parametrize("ratio", [2.4, 6, 10])
def test_interval_holds_what_is_missing_in_about_95_of_100_pilots(ratio: float) -> None:
    """A symmetric one holds it in 92 of 100 where p99 is six medians, and in 90 at ten."""
    draw = random.Random(ratio)
    sigma = math.log(ratio) / 2.3263
    held = dearer = 0
    for _ in range(600):
        drawn = [draw.lognormvariate(6, sigma) for _ in range(300)]
        low, high = lengths(drawn[:50]).total(250)
        held += low <= sum(drawn[50:]) <= high
        dearer += sum(drawn[50:]) > high
    assert 0.92 <= held / 600 <= 0.98
    assert dearer / 600 <= 0.06


@given(
    st.lists(st.integers(1, 10**6), min_size=10, max_size=60),
    st.integers(1, 10**7),
)
def test_interval_lies_around_the_mean_whatever_the_lengths(known: list[int], missing: int) -> None:
    found = lengths([float(x) for x in known])
    low, high = found.total(missing)
    told = found.mean * missing
    assert 0 <= low <= told * (1 + 1e-9)
    assert told * (1 - 1e-9) <= high < math.inf


def test_interval_of_equal_lengths_is_their_sum() -> None:
    assert lengths([700.0] * 12).total(5) == pytest.approx((3500, 3500))
    assert lengths([700.0] * 12).pilot(1000) == 10


def test_interval_of_lengths_without_skewness_is_that_of_student() -> None:
    found = lengths([90.0, 110.0] * 5)
    low, high = found.total(10)
    spread = 2.262 * math.sqrt(1000 / 9) * math.sqrt(10 + 100 / 10)  # t of 9 degrees of freedom
    assert (low, high) == pytest.approx((1000 - spread, 1000 + spread), rel=1e-4)


def test_pilot_that_is_advised_narrows_the_interval_to_a_tenth() -> None:
    draw = random.Random(1)
    known = [draw.lognormvariate(6, 0.77) for _ in range(50)]
    size = lengths(known).pilot(20_000)
    assert size is not None
    assert 200 <= size <= 1000
    more = lengths([draw.lognormvariate(6, 0.77) for _ in range(size)])
    assert more.total(20_000 - size)[1] <= 1.15 * more.mean * (20_000 - size)
    assert lengths(known).pilot(150) is None


def calls(low: int, high: int, pilot: int | None, *, model: str = "m") -> Calls:
    return Calls(
        model, 600, 550, tokens=1000, prompt_tokens=10, usd=2.0, sample=50, pilot=pilot,
        tokens_range=(low, high), usd_range=(low / 500, high / 500),
    )  # fmt: skip


class Plan:
    state = "to build"

    def __init__(self, calls: Calls) -> None:
        self.calls = calls


def test_totals_say_in_words_that_an_estimate_is_unsure_and_what_would_help() -> None:
    assert totals([Plan(calls(950, 1090, 100))]) == [  # type: ignore[list-item]
        "m: 550 calls, about 10 prompt tokens, about 1,000 completion tokens, "
        "about $2.00 (95%: $1.90 to $2.18), from 50 answers"
    ]
    wide = calls(800, 1300, 300)
    assert totals([Plan(wide)])[1:] == [  # type: ignore[list-item]
        "m: answers are of many lengths: the rest may take 20% fewer tokens or 30% more; "
        "plan --pilot 300 tells within 10%."
    ]
    # Errors of two steps even out: 42% of one is 21% of both.
    both = totals([Plan(wide), Plan(calls(800, 1300, 500))])  # type: ignore[list-item]
    assert "14% fewer tokens or 21% more; plan --pilot 500 " in both[1]
    few = totals([Plan(calls(800, 1300, None))])  # type: ignore[list-item]
    assert few[1].endswith("; there are too few of them for a pilot that tells within 10%.")
    assert amount(wide) == "~1,000 -20% +30% ~$2.00 (1.60 to 2.60)"


def test_steps_that_are_foretold_from_one_measurement_share_its_error() -> None:
    known = Lengths.of(50, 100.0, 12_000.0, 1_800_000.0)

    def told(missing: int, model: str = "m") -> Calls:
        low, high = known.total(missing)
        tokens = round(known.mean * missing)
        return Calls(
            model, missing, missing, tokens=tokens, tokens_range=(round(low), round(high)),
            usd=tokens / 100, usd_range=(low / 100, high / 100), lengths=known, sample=50,
        )  # fmt: skip

    once, parts = add_up([told(1000)]), add_up([told(100)] * 10)
    assert once.tokens == parts.tokens == 100_000
    assert parts.tokens_range == once.tokens_range == told(1000).tokens_range
    assert parts.usd_range == pytest.approx(told(1000).usd_range, rel=1e-3)
    # Models that were measured apart err apart, and so do steps with answers of their own.
    apart = add_up([told(500), told(500, "other")])
    assert apart.tokens_range is not None
    assert once.tokens_range is not None
    assert apart.tokens_range[1] < once.tokens_range[1]
    behind = add_up([replace(told(500), also=told(500, "other"))])
    assert (behind.missing, behind.tokens_range) == (1000, apart.tokens_range)


def test_a_sum_with_a_bound_or_without_a_price_promises_nothing() -> None:
    told = calls(950, 1090, 100)
    assert add_up([told]).tokens_range == told.tokens_range
    for odd in (replace(told, bound=True), replace(told, tokens_range=None)):
        assert add_up([told, odd]).tokens_range is None
    assert add_up([told, replace(told, tokens=None)]).tokens is None
    assert add_up([told, replace(told, usd=None)]).usd is None
    assert add_up([told, replace(told, usd=None, usd_range=None)]).usd_range is None
    cheap = Calls("e", 7, 7, unit="vectors", usd=0.5)
    assert add_up([told, cheap]).tokens_range == told.tokens_range
    assert add_up([told, cheap]).usd == pytest.approx((told.usd or 0) + 0.5)
    assert add_up([replace(told, missing=0)]) == Calls(
        "", 0, 0, tokens=0, usd=0, tokens_range=(0, 0), usd_range=(0, 0)
    )
    assert add_up([]).missing == 0


def test_totals_of_few_answers_promise_no_interval() -> None:
    assert totals([Plan(Calls("m", 9, 9, tokens=90, usd=1.0, sample=3))]) == [  # type: ignore[list-item]
        "m: 9 calls, about 90 completion tokens, about $1.00, from 3 answers"
    ]
