"""How many calls a server gets at once: a limit that learns, and budgets per minute.

Nothing here reads a clock or sends anything: times are handed in.

The limit follows TCP's congestion control (RFC 5681), in calls instead of segments:

- fast start: from a quarter of the user's bound, but 16 to 256, each call that comes back raises it
  by one, so it doubles per round of calls, until the first sign of trouble. It also doubles when a
  server has taken as many as it was given and refused none for a quarter of a second, up to 1,024:
  a refusal comes at once, an answer after seconds, in which the server would stand half idle;
- after that it grows by the 32nd part of the user's bound per round;
- a refusal (429, 503, 529) takes a twentieth of it and one call: nothing is lost by one but its
  way there and back. Those that end the fast start take one call each besides, half of it at
  most: a doubling may have gone twice too far;
- a timeout cuts it to half: the work was lost;
- three rounds in which more calls at once brought no more work, so that they only waited longer,
  take it back to where the most work was seen.

It is cut once per round, never grows while calls are too few to reach it, and never passes the
user's bound. Several processes at one server come to equal shares, as TCP's connections do.
"""

import math
from dataclasses import dataclass, field

START = 16, 256  # calls, least and most
CUT_WHEN_REFUSED = 0.95
CUT_WHEN_LOST = 0.5
STEPS = 32  # rounds from nothing to the user's bound, after the fast start

_GAIN = 1.1  # less than a tenth more work is no gain
_WIDER = 1.5  # calls at once, against where the most work was seen
_ROUNDS = 3
_TAKEN_S = 0.25  # without a refusal
_TAKEN_MOST = 1024  # calls that such a silence leads to; beyond, only answers do
_HOLD_S = 6.0  # of a budget that is not used is kept; so a start is no burst


def first_limit(most: int) -> float:
    """Return the limit at which the fast start begins, for a user's bound."""
    least, largest = START
    return float(min(most, max(least, min(largest, most / 4))))


@dataclass(slots=True)
class _Round:
    """As many calls as the limit was at its begin."""

    begin: float
    limit: float
    calls: int = 0
    work: float = 0.0


class Limit:
    """The calls that one server gets at once.

    Attributes:
        most: The user's bound, 1 or above.
        value: The limit now, 1 to ``most``; whole calls are its floor.
    """

    def __init__(self, most: int, start: float | None = None):
        self.most = most
        self.restart(start)

    def restart(self, start: float | None = None) -> None:
        """Forget what was learnt: the server has just come back."""
        self.value = first_limit(self.most) if start is None else float(min(start, self.most))
        self._fast = True
        self._overshot_at = -math.inf  # when the fast start met its first refusal
        self._least = 1.0  # that the calls of then may cut it to
        self._full_since: float | None = None
        self._cut_at = -math.inf
        self._best = 0.0  # most work per second of any round
        self._best_value = self.value
        self._vain = 0
        self._round: _Round | None = None

    def came_back(self, now: float, *, in_flight: int, work: float) -> None:
        """Take note of a call that was answered.

        Args:
            now: Seconds, on any clock.
            in_flight: Calls under way, this one included.
            work: What it brought, in any unit that suits all calls: tokens, where known.
        """
        if in_flight < 0.75 * math.floor(self.value):
            self._round = None  # too few calls to say anything of more
            return
        grown = 1.0 if self._fast else max(1.0, self.most / STEPS) / self.value
        self.value = min(self.value + grown, float(self.most))
        if self._round is None:
            self._round = _Round(now, self.value)
            return
        self._round.calls += 1
        self._round.work += work
        if self._round.calls >= self._round.limit and now > self._round.begin:
            self._weigh(self._round.work / (now - self._round.begin))
            self._round = _Round(now, self.value)

    def full(self, now: float) -> float | None:
        """Take note that as many calls are under way as may be.

        Returns:
            When to look again, because there may be room for more then; None for no such time.
        """
        most = float(min(self.most, _TAKEN_MOST))
        if not self._fast or self.value >= most:
            return None
        if self._full_since is None:
            self._full_since = now
        elif now >= self._full_since + _TAKEN_S:
            self.value = min(2 * self.value, most)
            self._full_since = None  # until it is full once more
            return now
        return self._full_since + _TAKEN_S

    def refused(self, now: float, *, sent_at: float) -> bool:
        """Take note of a call that the server had no room for.

        Returns:
            Whether that is news: the call was sent after the last one that the limit was cut for.
        """
        if self._fast:
            self._fast, self._overshot_at, self._least = False, now, self.value / 2
        # One call less besides: a small limit would else grow by more than it was cut, and leave
        # no room for who comes later.
        news = self._cut(CUT_WHEN_REFUSED, now, sent_at, less=1)
        if not news and sent_at < self._overshot_at and self.value > self._least:
            self.value -= 1
        return news

    def lost(self, now: float, *, sent_at: float) -> None:
        """Take note of a call that got no answer in time."""
        self._cut(CUT_WHEN_LOST, now, sent_at)

    def _cut(self, factor: float, now: float, sent_at: float, *, less: int = 0) -> bool:
        if sent_at < self._cut_at:
            return False  # it was on its way before that, and says nothing of the limit since
        self._cut_at, self._fast, self._round = now, False, None
        self.value = max(1.0, self.value * factor - less)
        self._best_value = min(self._best_value, self.value)
        return True

    def _weigh(self, rate: float) -> None:
        """Compare a round's work per second with the best, and go back if more brought no more."""
        if rate > self._best * _GAIN:
            self._best, self._best_value, self._vain = rate, self.value, 0
            return
        if self.value <= self._best_value * _WIDER:
            self._vain = 0
            return
        self._vain += 1
        if self._vain == _ROUNDS:
            self._vain, self._fast = 0, False
            self.value = max(1.0, self._best_value * 1.25)


class Budget:
    """So many per minute: a bucket that fills evenly."""

    def __init__(self, per_minute: float | None):
        """Begin with a full bucket; without a number there is no budget."""
        self._per_s = math.inf if per_minute is None else per_minute / 60
        self._level = self._most = max(1.0, self._per_s * _HOLD_S)
        self._at: float | None = None

    def wait_s(self, now: float) -> float:
        """Return the seconds until something may be spent; 0 when that is now."""
        if self._per_s == math.inf:
            return 0.0
        gained = self._per_s * (now - (now if self._at is None else self._at))
        self._level, self._at = min(self._most, self._level + gained), now
        # Not quite 1: rounding would have us wait for ever for nothing.
        return 0.0 if self._level > 1 - 1e-6 else (1 - self._level) / self._per_s

    def spend(self, amount: float) -> None:
        """Take an amount out; more than is there delays what comes next."""
        if self._per_s != math.inf:
            self._level -= amount


@dataclass(slots=True, eq=False)
class Server:
    """One base URL and its load.

    Attributes:
        url: Address up to and with ``/v1``.
        limit: Calls that it gets at once.
        in_flight: Calls under way.
        quiet_until: It asked for silence until then.
        aside_until: It is set aside until then; after that one call at a time tries it.
        failures: Calls since the last answer that brought none, by no fault of theirs.
        outages: How often in a row it was set aside.
        answered: Whether it has ever sent an HTTP response.
        refusals: How often it refused since the last answer; calls refused together count once.
        usual_s: What a call takes that is answered, smoothed; infinite before the first.
        answered_at: When it last answered a call.
    """

    url: str
    limit: Limit
    in_flight: int = 0
    quiet_until: float = -math.inf
    aside_until: float = -math.inf
    failures: int = 0
    outages: int = 0
    answered: bool = field(default=False)
    refusals: int = 0
    usual_s: float = math.inf
    answered_at: float = -math.inf

    @property
    def free(self) -> int:
        """Calls that it can take now."""
        return (1 if self.outages else math.floor(self.limit.value)) - self.in_flight

    @property
    def open_at(self) -> float:
        """When it can be asked, if it has room."""
        return max(self.quiet_until, self.aside_until)

    def set_aside(self, until: float) -> None:
        """Ask it nothing for a while, and then one call."""
        self.outages += 1
        self.aside_until = until

    def took(self, now: float, seconds: float) -> None:
        """Take note of an answer, and of how long it took."""
        self.refusals, self.answered_at = 0, now
        if self.usual_s == math.inf:
            self.usual_s = seconds
        self.usual_s += (seconds - self.usual_s) / 16

    def refused(self, now: float, *, sent_at: float) -> None:
        """Take note of a call that it had no room for."""
        self.refusals += self.limit.refused(now, sent_at=sent_at)

    def silence_s(self, first_s: float) -> float:
        """Return how long to ask nothing after a refusal.

        Room comes and goes within the time of an answer: a longer silence leaves slots idle, and
        lets others take all room as often as it comes. Where no answer comes at all, each silence
        is longer than the last one by the first.

        Args:
            first_s: The first silence, where answers take at least twice as long.
        """
        return min(first_s, self.usual_s / 2) * self.refusals

    def lives(self) -> None:
        """Take note of a proper answer."""
        self.failures = 0
        if self.outages:
            self.outages = 0
            self.limit.restart()
