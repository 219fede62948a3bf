"""What missing completions will take: tokens, money and time, told from completions that are there.

Lengths of completions have long tails. The mean of a few is more often too small than too large,
so the interval of a sum reaches farther up than down. In 4,000 simulated pilots of 50 each, it
held the sum of the rest in 92 to 96 of 100, for lognormal lengths with a 99th percentile of up to
20 medians; see `benches/teacher/pilots.py`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from stillroom.models.chat import Request
from stillroom.models.ledger import Ledger
from stillroom.steps.base import Calls, ModelSpec, Runtime

NARROW = 0.1
"""What the true sum may lie off by, as a share of the one told, before a plan speaks of it."""

_ENOUGH = 10  # completions from which others are foretold with an interval
_Z = 1.959964  # of 97.5%
_PILOTS = tuple(step * 10**power for power in range(1, 7) for step in (1, 1.5, 2, 3, 5, 7))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Completion tokens of some completions.

    Attributes:
        n: How many, 10 or more.
        mean: Tokens of one.
        deviation: Standard deviation, of a sample.
        skewness: Third central moment by the third power of the deviation.
    """

    n: int
    mean: float
    deviation: float
    skewness: float

    @classmethod
    def of(cls, n: int, first: float, second: float, third: float) -> Self:
        """Make them of the mean of the lengths, of their squares and of their cubes."""
        variance = max(0.0, second - first**2)
        central = third - 3 * first * second + 2 * first**3
        # Of equal lengths, whose variance is nothing but rounding.
        skewness = central / variance**1.5 if variance > 1e-9 * second else 0.0
        return cls(n, first, math.sqrt(variance * n / (n - 1)), skewness)

    def total(self, missing: int) -> tuple[float, float]:
        """Return the 95% interval for the tokens of other completions.

        It holds their own spread and that of the mean that was measured. Student's t takes the
        place of the normal, and the skewness bends it.

        Source: Hall 1992, "On the removal of skewness by transformation", J. R. Stat. Soc. B 54,
        the monotone cubic.
        """
        spread = self.deviation * math.sqrt(missing + missing * missing / self.n)
        told, t = self.mean * missing, _student(self.n - 1)
        low, high = (told - spread * self._bent(q) for q in (t, -t))
        return max(0.0, low), high

    def _bent(self, quantile: float) -> float:
        """Return the quantile of the studentized mean, given that of what has no skewness."""
        bend = self.skewness / math.sqrt(self.n)
        if abs(bend) < 1e-6:
            return quantile
        return 3 / bend * (math.cbrt(1 + bend * (quantile - bend / 6)) - 1)

    def pilot(self, wanted: int) -> int | None:
        """Return how many of the wanted must be known for the others to be told within `NARROW`.

        None where only almost all would do.
        """
        for size in _PILOTS:
            n, missing = int(size), wanted - int(size)
            if n >= _ENOUGH and 2 * n <= wanted and self._narrow(n, missing):
                return n
        return None

    def _narrow(self, n: int, missing: int) -> bool:
        _, high = replace(self, n=n).total(missing)
        return high <= (1 + NARROW) * self.mean * missing


def _student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t, to a thousandth from 9 degrees of freedom on.

    Source: Abramowitz and Stegun 1964, 26.7.5.
    """
    z, per = _Z, 1 / freedom
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + per * (first + per * (second + per * third))


@dataclass(slots=True)
class Measured:
    """What the requests of a step take, as far as the ledger knows.

    Attributes:
        wanted: Requests.
        missing: Those without a completion.
        missing_characters: Of their prompts.
        known: Completions that were counted.
        known_characters: Of their prompts.
        prompt_tokens: Of these.
        completion_tokens: Of these.
        squares: Sum of the squares of their completion tokens.
        cubes: Sum of the third powers.
    """

    wanted: int = 0
    missing: int = 0
    missing_characters: int = 0
    known: int = 0
    known_characters: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    squares: int = 0
    cubes: int = 0

    def add(self, requests: Sequence[Request], ledger: Ledger) -> None:
        """Look up some requests."""
        keys = [request.key for request in requests]
        absent, counts = ledger.missing(keys), ledger.counts(keys)
        self.wanted += len(requests)
        for request, key in zip(requests, keys, strict=True):
            characters = sum(len(message.content) for message in request.messages)
            if key in absent:
                self.missing += 1
                self.missing_characters += characters
            elif key in counts:
                self.known += 1
                self.known_characters += characters
                self.prompt_tokens += counts[key].prompt_tokens
                self.completion_tokens += counts[key].completion_tokens
                self.squares += counts[key].completion_tokens ** 2
                self.cubes += counts[key].completion_tokens ** 3

    @property
    def lengths(self) -> Lengths:
        """Lengths of the known completions, of which there are some."""
        n = self.known
        return Lengths.of(n, self.completion_tokens / n, self.squares / n, self.cubes / n)


def expect(spec: ModelSpec, rt: Runtime, measured: Measured) -> Calls:
    """Say what missing completions will take, from the step's own completions where there are any.

    With the interval of `Lengths.total`.
    """
    n, missing = measured.known, measured.missing
    if n < _ENOUGH or not missing:
        return estimate(spec, rt, wanted=measured.wanted, missing=missing)
    per_character = measured.prompt_tokens / max(1, measured.known_characters)
    prompt = round(per_character * measured.missing_characters)
    found = Calls(spec.name, measured.wanted, missing, prompt_tokens=prompt, sample=n)
    return _priced(_told(found, measured.lengths), rt)


def estimate(spec: ModelSpec, rt: Runtime, *, wanted: int, missing: int) -> Calls:
    """Say what missing completions will take: by what the model wrote before, or at most."""
    past = rt.ledger().history(spec.name) if missing else None
    if past is None:
        most = None if spec.max_tokens is None else spec.max_tokens * missing
        return _priced(Calls(spec.name, wanted, missing, tokens=most, bound=True), rt)
    prompt = round(past.prompt_tokens * missing)
    found = Calls(spec.name, wanted, missing, prompt_tokens=prompt, sample=past.completions)
    if past.completions < _ENOUGH:
        return _priced(replace(found, tokens=round(past.completion_tokens * missing)), rt)
    lengths = Lengths.of(past.completions, past.completion_tokens, past.squares, past.cubes)
    return _priced(_told(found, lengths), rt)


def estimate_at_most(spec: ModelSpec, rt: Runtime, calls: int) -> Calls:
    """Bound what so many completions will take."""
    return replace(estimate(spec, rt, wanted=calls, missing=calls), bound=True)


def add_up(calls: Iterable[Calls]) -> Calls:
    """Add what several steps need, with intervals of the sums where each has one.

    Errors of steps that were measured apart are independent. Steps that are foretold from one
    measurement, such as the history of their model, share its error: all need more than told, or
    all less. What is asked of second models counts too.
    """
    asked = [each for one in calls for each in _chain(one) if each.missing]
    written = [each for each in asked if each.unit == "calls"]
    tokens = [each.tokens for each in written if each.tokens is not None]
    prices = [each.usd for each in asked if each.usd is not None]
    found = Calls(
        "", sum(each.wanted for each in asked), sum(each.missing for each in asked),
        tokens=sum(tokens) if len(tokens) == len(written) else None,
        usd=sum(prices) if len(prices) == len(asked) else None,
        bound=any(each.bound for each in asked),
    )  # fmt: skip
    if found.bound or found.tokens is None or any(e.tokens_range is None for e in written):
        return found
    groups: dict[object, list[Calls]] = {}
    for place, each in enumerate(written):
        groups.setdefault((each.model, each.lengths) if each.lengths else place, []).append(each)
    errors = [_error(group) for group in groups.values()] or [(0.0,) * 4]
    below, above, cheaper, dearer = (math.hypot(*side) for side in zip(*errors, strict=True))
    return replace(
        found,
        tokens_range=(round(max(0.0, found.tokens - below)), round(found.tokens + above)),
        usd_range=None
        if found.usd is None
        else (max(0.0, found.usd - cheaper), found.usd + dearer),
        sample=min((each.sample for each in written), default=0),
    )


def _error(group: Sequence[Calls]) -> tuple[float, float, float, float]:
    """Return how far off what is told may be: tokens below and above, dollars below and above.

    Args:
        group: Calls of one model that rest on one measurement.
    """
    first, told = group[0], sum(each.tokens or 0 for each in group)
    low, high = first.tokens_range or (0, 0)
    cheap, dear = first.usd_range or (0.0, 0.0)
    price = (dear - cheap) / (high - low) if high > low else 0.0
    ends: tuple[float, float] = (low, high)
    if first.lengths is not None:
        ends = first.lengths.total(sum(each.missing for each in group))
    below, above = told - ends[0], ends[1] - told
    return below, above, below * price, above * price


def _chain(calls: Calls) -> Iterator[Calls]:
    """Yield what is asked of the first model, and of those after it."""
    each: Calls | None = calls
    while each is not None:
        yield each
        each = each.also


def _told(calls: Calls, lengths: Lengths) -> Calls:
    """Add the tokens, their interval, and the pilot that would narrow it."""
    low, high = lengths.total(calls.missing)
    return replace(
        calls,
        tokens=round(lengths.mean * calls.missing),
        tokens_range=(round(low), round(high)),
        pilot=lengths.pilot(calls.wanted),
        lengths=lengths,
    )


def _priced(calls: Calls, rt: Runtime) -> Calls:
    """Add money and time, where they can be told."""
    if not calls.missing or calls.tokens is None:
        return calls
    price, speed = rt.models.prices(calls.model), rt.models.speed(calls.model)
    prompt, span = calls.prompt_tokens or 0, calls.tokens_range
    return replace(
        calls,
        usd=price.usd(prompt, calls.tokens) if price else None,
        usd_range=(price.usd(prompt, span[0]), price.usd(prompt, span[1]))
        if price and span
        else None,
        seconds=calls.tokens / speed if speed else None,
    )
