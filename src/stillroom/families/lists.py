"""Operations on short lists of numbers, as in Python."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import random
from itertools import accumulate

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Work

_KINDS = {
    1: ("largest", "smallest"),
    2: ("total", "above"),
    3: ("add each", "evens"),
    4: ("sort", "sum evens"),
    5: ("sort down", "total above", "double"),
}
_SIZES = {1: (3, 4, 9), 2: (3, 5, 9), 3: (3, 4, 15), 4: (4, 5, 12), 5: (5, 5, 15)}
"""Level to (shortest, longest, largest number)."""
_CODE = {
    "largest": "max(xs)",
    "smallest": "min(xs)",
    "total": "sum(xs)",
    "above": "len([x for x in xs if x > {k}])",
    "add each": "[x + {k} for x in xs]",
    "evens": "[x for x in xs if x % 2 == 0]",
    "sort": "sorted(xs)",
    "sum evens": "sum(x for x in xs if x % 2 == 0)",
    "sort down": "sorted(xs, reverse=True)",
    "total above": "sum(x for x in xs if x > {k})",
    "double": "[x + x for x in xs if x > {k}]",
}
# "evens" and "sum evens" name a 2 in their code. Every wording must hold the same numerals, so
# the code is their only wording.
_WORDS = {
    "largest": "What is the largest number in {xs}?",
    "smallest": "What is the smallest number in {xs}?",
    "total": "What is the sum of the numbers in {xs}?",
    "above": "How many numbers in {xs} are greater than {k}?",
    "add each": "Add {k} to each number in {xs} and give the list.",
    "sort": "Sort the list {xs}, smallest first.",
    "sort down": "Sort the list {xs}, largest first.",
    "total above": "Add up the numbers in {xs} that are greater than {k}.",
    "double": "From {xs} keep the numbers greater than {k}, double them, and give the list.",
}
_PLANS = {
    "largest": "keep the largest number so far",
    "smallest": "keep the smallest number so far",
    "total": "add the numbers one by one",
    "above": "compare each number with {k} and count",
    "add each": "add {k} to one number after another",
    "evens": "look at each number and keep the even ones",
    "sort": "take the smallest number again and again",
    "sum evens": "keep the even numbers, then add them",
    "sort down": "take the largest number again and again",
    "total above": "keep the numbers above {k}, then add them",
    "double": "keep the numbers above {k}, then double each",
}
_ASK = (
    "What does this print?\nxs = {xs}\nprint({code})",
    "xs = {xs}\nprint({code})\nWhat is the output?",
    "Let xs = {xs}. What is {code} in Python?",
)
_FOREIGN = {
    "de": "Es sei xs = {xs}. Was ergibt {code} in Python?",
    "fr": "Soit xs = {xs}. Que donne {code} en Python ?",
    "es": "Sea xs = {xs}. ¿Qué da {code} en Python?",
}


class Lists(Family):
    """Reverse, sort, filter, map and add up. Facts are (kind, k, numbers...)."""

    name = "lists"
    domain: Domain = "code"

    def draw(self, rng: random.Random, level: int) -> Facts:
        kind = rng.choice(_KINDS[level])
        shortest, longest, top = _SIZES[level]
        numbers = [rng.randint(1, top) for _ in range(rng.randint(shortest, longest))]
        if "{k}" not in _CODE[kind]:
            k = 0
        elif kind == "add each":
            k = rng.randint(2, 9)
        else:
            k = rng.randint(min(numbers), max(numbers))
        return (kind, k, *numbers)

    def word(self, facts: Facts, rng: random.Random) -> str:
        kind, k, *numbers = facts
        if str(kind) in _WORDS and rng.random() < 0.5:
            return _WORDS[str(kind)].format(xs=_show(numbers), k=k)
        return self._ask(facts, rng.choice(_ASK))

    def _ask(self, facts: Facts, template: str) -> str:
        kind, k, *numbers = facts
        return template.format(xs=_show(numbers), code=_CODE[str(kind)].format(k=k))

    def translate(self, facts: Facts, language: str) -> str:
        return self._ask(facts, _FOREIGN[language])

    def solve(self, facts: Facts) -> str:
        kind, k = str(facts[0]), int(facts[1])
        xs = [int(x) for x in facts[2:]]
        above = [x for x in xs if x > k]
        evens = [x for x in xs if x % 2 == 0]
        results: dict[str, int | list[int]] = {
            "largest": max(xs),
            "smallest": min(xs),
            "total": sum(xs),
            "above": len(above),
            "add each": [x + k for x in xs],
            "evens": evens,
            "sort": sorted(xs),
            "sum evens": sum(evens),
            "sort down": sorted(xs, reverse=True),
            "total above": sum(above),
            "double": [x * 2 for x in above],
        }
        return str(results[kind])

    def plan(self, facts: Facts) -> str:
        return _PLANS[str(facts[0])].format(k=facts[1])

    def work(self, facts: Facts, work: Work) -> str:
        kind, k = str(facts[0]), int(facts[1])
        xs = [int(x) for x in facts[2:]]
        if kind in ("largest", "smallest"):
            pick = max if kind == "largest" else min
            work.say(f"so far: {_commas(list(accumulate(xs, pick)))}")
            return str(pick(xs))
        if kind in ("sort", "sort down"):
            return str(_select(xs, work, down=kind == "sort down"))
        if kind == "add each":
            work.say(", ".join(f"{x}+{k}={x + k}" if work.digitwise else str(x + k) for x in xs))
            return str([x + k for x in xs])
        kept = xs
        if kind in ("above", "double", "total above"):
            kept = [x for x in xs if x > k]
            work.say(_sieve(xs, kept, f"above {k}", work))
        elif kind in ("evens", "sum evens"):
            kept = [x for x in xs if x % 2 == 0]
            work.say(_sieve(xs, kept, "even", work))
        if kind == "above":
            return str(len(kept))
        if kind == "evens":
            return str(kept)
        if kind == "double":
            if kept:
                work.say(
                    ", ".join(f"{x}+{x}={x * 2}" if work.digitwise else str(x * 2) for x in kept)
                )
            return str([x * 2 for x in kept])
        sums = list(accumulate(kept))
        if len(kept) > 1:
            steps = [
                f"{before}+{x}={after}" if work.digitwise else str(after)
                for before, x, after in zip(sums, kept[1:], sums[1:], strict=False)
            ]
            work.say(", ".join(steps))
        return str(sum(kept))


def _show(numbers: list[int | str]) -> str:
    return f"[{', '.join(str(n) for n in numbers)}]"


def _commas(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)


def _select(xs: list[int], work: Work, *, down: bool) -> list[int]:
    """Sort by selection, writing what is left after each choice."""
    left = list(xs)
    ordered = []
    parts = []
    while left:
        choice = max(left) if down else min(left)
        left.remove(choice)
        ordered.append(choice)
        if work.digitwise and len(left) > 1:
            parts.append(f"{choice} of it, left {_commas(left)}")
    if work.digitwise:
        work.say("; ".join(parts))
    work.say(f"in order: {_commas(ordered)}")
    return ordered


def _sieve(xs: list[int], kept: list[int], test: str, work: Work) -> str:
    if work.digitwise:
        marks = [
            f"{x} {'yes' if x in kept else 'no'} {sum(y in kept for y in xs[: at + 1])}"
            for at, x in enumerate(xs)
        ]
        return f"{test}: {', '.join(marks)}"
    return f"{test}: {_commas(kept) if kept else 'none'}"
