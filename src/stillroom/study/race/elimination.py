"""When an arm of a race is out, and when the race is decided.

Let K arms be looked at in R rounds, with a confidence of 1 - a. In each round every two arms that
are still in are compared by an interval of level 1 - a / ((K - 1) R).

- An arm is *out* when its interval against some other arm lies below minus the margin of the round.
- An arm is *close* when, at the last scale, no arm still in can be better by what matters: all
  intervals of the others against it end below that. Every close arm may be chosen.

Why this holds. Take one arm that is truly the best at the last scale. With K - 1 others and R
rounds there are (K - 1) R intervals that speak of it, and with probability 1 - a all of them hold
the truth (Bonferroni: whatever the dependence, whichever arms are left, whenever the race stops).
Then it never leaves: it would be worse than another arm by more than the margin, which it is not
at the last scale, and at a smaller one not if the margin is as wide as said. And a
close arm is within what matters of it, because it is among the arms that the close one was compared
with. The level is spent in equal parts over the rounds, which is set before the race: exact
boundaries of group sequential tests are a little less strict, but they suppose many degrees of
freedom and one truth at all looks, and a race has neither. It is not shared out again when arms
leave, because those that stay are the ones that luck helped.

The noise of training is estimated from all arms that ran at the scale, also those that left: else a
race would know less of it the fewer arms are in.

What is not promised: that each arm that left is worse than the one it lost to. An arm as good as
the best may leave, as long as one as good stays.

Sources: Gupta 1965 and Hsu 1984 (comparisons with the best); Even-Dar, Mannor and Mansour 2006
(successive elimination). `scripts/check_races.py` measures all of it; its table is in
docs/racing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

from stillroom.study.statistics.comparing import between, means
from stillroom.study.statistics.errors import Estimate
from stillroom.study.statistics.noise import Noise
from stillroom.study.statistics.outcomes import Outcomes


@dataclass(frozen=True)
class Rule:
    """What a race promises, set before it starts.

    Attributes:
        arms: Arms at the start, at least 2.
        rounds: Looks at most.
        confidence: Chance that the promise is kept, 0 to 1.
        matters: Smallest difference that the asker cares about, 0 to 1.
    """

    arms: int
    rounds: int
    confidence: float
    matters: float

    @property
    def level(self) -> float:
        """Level of each interval, 0 to 1."""
        return 1 - (1 - self.confidence) / ((self.arms - 1) * self.rounds)


@dataclass(frozen=True)
class Lost:
    """An arm that is out.

    Attributes:
        arm: Its name.
        to: The arm that it lost to.
        by: Arm minus that one, with the interval of the rule's level.
    """

    arm: str
    to: str
    by: Estimate


@dataclass(frozen=True)
class Look:
    """What a round says.

    Attributes:
        means: Arm to mean, best first.
        behind: Arm to its difference from the first, with the interval of the rule's level; without
            the first.
        lost: Arms that are out.
        left: Arms that are still in, best first.
        close: Of these, the ones that no arm can beat by what matters; empty before the last scale.
    """

    means: Mapping[str, float]
    behind: Mapping[str, Estimate]
    lost: tuple[Lost, ...]
    left: tuple[str, ...]
    close: tuple[str, ...]


def look(outcomes: Outcomes, rule: Rule, noise: Noise, *, margin: float, last: bool) -> Look:
    """Judge the arms that are still in by their grades.

    Args:
        outcomes: All grades of the round's scale so far, of two arms or more.
        rule: What was set beforehand.
        noise: Of training, from all arms that ran at this scale.
        margin: How far the best arm of the last scale may be behind another one here, 0 to 1.
        last: Whether this is the last scale, the one that the question is about.
    """

    def against(a: str, b: str) -> Estimate:
        return between(outcomes, a, b, level=rule.level, noise=noise)

    return judge(means(outcomes), against, rule, margin=margin, last=last)


def judge(
    means: Mapping[str, float],
    compare: Callable[[str, str], Estimate],
    rule: Rule,
    *,
    margin: float,
    last: bool,
) -> Look:
    """Judge the arms that are still in by their differences.

    Args:
        means: Arm to mean; two or more.
        compare: Returns the first arm minus the second, with the interval of the rule's level.
        rule: What was set beforehand.
        margin: How far the best arm of the last scale may be behind another one here, 0 to 1.
        last: Whether this is the last scale.
    """
    mean = dict(sorted(means.items(), key=lambda item: -item[1]))
    arms = list(mean)
    against: dict[tuple[str, str], Estimate] = {}
    for a, b in combinations(arms, 2):
        against[a, b] = compare(a, b)
        against[b, a] = against[a, b].turned()
    lost = []
    for a in arms:
        to = min((b for b in arms if b != a), key=lambda b: against[a, b].high)
        if against[a, to].high < -margin:
            lost.append(Lost(a, to, against[a, to]))
    out = {one.arm for one in lost}
    left = tuple(a for a in arms if a not in out)
    close = tuple(
        a for a in left if last and all(against[b, a].high < rule.matters for b in arms if b != a)
    )
    behind = {a: against[a, arms[0]] for a in arms[1:]}
    return Look(mean, behind, tuple(lost), left, close)
