"""What a study found, in words."""

from collections.abc import Mapping, Sequence

from stillroom.study.form import Study
from stillroom.study.statistics.comparing import Difference, differences, not_worse
from stillroom.study.statistics.foresight import foretold, seen_through
from stillroom.study.statistics.outcomes import Outcomes

MANY = 12
"""Comparisons beyond which a report counts them, and puts benchmarks side by side."""

NAMED = 3
"""Of so many, arms that are named."""


def points(share: float) -> str:
    """Write a share as percentage points, one digit."""
    return f"{100 * share:z.1f}"


def interval(low: float, high: float) -> str:
    """Write an interval of shares in percentage points."""
    return f"{points(low)} to {points(high)}"


def times(n: int) -> str:
    """Say how often something happened."""
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def with_more(seeds: int) -> list[int]:
    """Return numbers of seeds to say the worth of: these, if they show any noise, and two more."""
    more = [n for n in (3, 5, 10, 20) if n > seeds][:2]
    return more if seeds == 1 else [seeds, *more]


def reach(seen: Mapping[int, float]) -> str:
    """Say which differences a study sees, and which it would see with more seeds.

    Args:
        seen: Number of seeds to the smallest difference that is usually seen, 0 to 1; the first is
            what is talked of.
    """
    here, *others = seen
    more = ", ".join(f"with {n} seeds {points(seen[n])}" for n in others)
    return f"{points(seen[here])} points or more" + (f" ({more})" if more else "")


def sentence(difference: Difference, control: str, *, matters: float = 0.0) -> str:
    """Say what was found between an arm and the control.

    Args:
        difference: The comparison.
        control: Name of the control.
        matters: Smallest difference that the asker cares about, 0 to 1.
    """
    arm, estimate = difference.arm, difference.estimate
    where = f" on {difference.benchmark}" if difference.benchmark else ""
    span = f"95% interval {interval(estimate.low, estimate.high)}"
    side = difference.verdict()
    if side:
        verb = "beat" if side > 0 else "lost to"
        text = (
            f"{arm} {verb} {control}{where} by {points(abs(estimate.value))} points "
            f"({span}; p = {difference.p:.2g})"
        )
        if matters and abs(estimate.value) < matters:
            text += f", which is less than the {points(matters)} that matter"
        return text + "."
    text = f"No difference was found between {arm} and {control}{where}: {span} points"
    if not estimate.low <= 0 <= estimate.high:
        return f"{text}, which the number of comparisons takes back (p = {difference.p:.2g})."
    if matters and -matters < estimate.low and estimate.high < matters:
        return f"{text}, so any difference is smaller than the {points(matters)} that matter."
    return text + "."


def counted(compared: Sequence[Difference], control: str, *, matters: float = 0.0) -> list[str]:
    """Say what was found between many arms and the control: how many, and the farthest of them.

    Args:
        compared: The comparisons, two or more.
        control: Name of the control.
        matters: Smallest difference that the asker cares about, 0 to 1.
    """
    said = []
    for side, verb in ((1, "beat"), (-1, "lost to")):
        found = [d for d in compared if d.verdict() == side]
        if not found:
            continue
        found.sort(key=lambda d: -abs(d.estimate.value))
        farthest = "; ".join(
            f"{d.arm} by {points(abs(d.estimate.value))} points "
            f"(95% interval {interval(d.estimate.low, d.estimate.high)})"
            for d in found[:NAMED]
        )
        which = ", the farthest:" if len(found) > NAMED else ":"
        text = f"{len(found)} of {len(compared)} arms {verb} {control}{which} {farthest}"
        small = sum(abs(d.estimate.value) < matters for d in found)
        if small:
            text += f". {small} of them by less than the {points(matters)} points that matter"
        said.append(text + ".")
    if none := [d.estimate for d in compared if not d.verdict()]:
        text = f"Of {len(none)} arms no difference from {control} was found"
        small = sum(-matters < e.low and e.high < matters for e in none)
        if small:
            text += f"; of {small} of them any is smaller than the {points(matters)} that matter"
        said.append(text + ".")
    return said


def verdict(study: Study, outcomes: Outcomes) -> list[str]:
    """Say what a study found, a sentence each: first the answer, then its limits.

    Of many arms, they are counted, and the farthest from the control are named.
    """
    pooled = [d for d in differences(outcomes) if d.benchmark is None]
    many = len(pooled) > MANY
    if many:
        said = counted(pooled, study.control, matters=study.matters)
    else:
        said = [sentence(d, study.control, matters=study.matters) for d in pooled]
    best, *tied = not_worse(outcomes)
    if not tied:
        said.append(f"{best} is the best arm of {len(outcomes.arms)}.")
    else:
        named = ", ".join(tied[:NAMED] if many else tied)
        more = f", and {len(tied) - NAMED} more" if many and len(tied) > NAMED else ""
        said.append(f"{best} has the highest mean; not told apart from it: {named}{more}.")
    if len(outcomes.seeds) == 1:
        said.append(
            "One seed was run, so the noise of training is unmeasured and every interval is too "
            "narrow."
        )
    elif not any(d.verdict() for d in pooled):
        seen = {
            n: seen_through(foretold(outcomes, n), arms=len(outcomes.arms))
            for n in with_more(len(outcomes.seeds))
        }
        said.append(
            f"With students as noisy as these, a study of this size usually sees {reach(seen)}."
        )
    return said
