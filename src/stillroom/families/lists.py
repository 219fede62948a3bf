"""Operations on short lists of numbers, as in Python."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import random
from itertools import accumulate

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Work

_KINDS = {
    1: ("reverse", "largest", "smallest"),
    2: ("total", "above", "last"),
    3: ("sort", "evens", "add each"),
    4: ("sort down", "running", "double"),
    5: ("sum evens", "sort top", "total above"),
}
_CODE = {
    "reverse": "list(reversed(xs))",
    "largest": "max(xs)",
    "smallest": "min(xs)",
    "total": "sum(xs)",
    "above": "len([x for x in xs if x > {k}])",
    "last": "xs[-{k}:]",
    "sort": "sorted(xs)",
    "evens": "[x for x in xs if x % 2 == 0]",
    "add each": "[x + {k} for x in xs]",
    "sort down": "sorted(xs, reverse=True)",
    "running": "list(accumulate(xs))",
    "double": "[x * 2 for x in xs if x > {k}]",
    "sum evens": "sum(x for x in xs if x % 2 == 0)",
    "sort top": "sorted(xs)[-{k}:]",
    "total above": "sum(x for x in xs if x > {k})",
}
_WORDS = {
    "reverse": "Reverse the list {xs}.",
    "largest": "What is the largest number in {xs}?",
    "smallest": "What is the smallest number in {xs}?",
    "total": "What is the sum of the numbers in {xs}?",
    "above": "How many numbers in {xs} are greater than {k}?",
    "last": "Give the last {k} numbers of {xs} as a list.",
    "sort": "Sort the list {xs}, smallest first.",
    "evens": "Keep only the even numbers in {xs} and give the list.",
    "add each": "Add {k} to each number in {xs} and give the list.",
    "sort down": "Sort the list {xs}, largest first.",
    "running": "Give the running totals of {xs} as a list.",
    "double": "From {xs} keep the numbers greater than {k}, double them, and give the list.",
}
# These kinds name a 2 in their code; a wording must then hold it as well, or the numerals of
# two wordings of one problem would differ. Their one wording is the code.
_PLANS = {
    "reverse": "read the list from the end",
    "largest": "keep the largest number so far",
    "smallest": "keep the smallest number so far",
    "total": "add the numbers one by one",
    "above": "compare each number with {k} and count",
    "last": "take the last {k} numbers",
    "sort": "take the smallest number again and again",
    "evens": "look at each number and keep the even ones",
    "add each": "add {k} to one number after another",
    "sort down": "take the largest number again and again",
    "running": "add the numbers one by one and write down each sum",
    "double": "keep the numbers above {k}, then double each",
    "sum evens": "keep the even numbers, then add them",
    "sort top": "sort, then take the last {k}",
    "total above": "keep the numbers above {k}, then add them",
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
        length = {1: rng.randint(3, 5), 2: rng.randint(3, 5), 3: rng.randint(4, 5)}.get(
            level, rng.randint(4, 6)
        )
        top = 12 if kind in ("total", "running", "sum evens", "total above") else 30
        numbers = [rng.randint(1, top) for _ in range(length)]
        if "{k}" not in _CODE[kind]:
            k = 0
        elif kind in ("last", "sort top"):
            k = rng.randint(2, 3)
        elif kind == "add each":
            k = rng.randint(2, 9)
        else:
            k = rng.randint(min(numbers), max(numbers))
        return (kind, k, *numbers)

    def word(self, facts: Facts, rng: random.Random) -> str:
        kind, k, *numbers = facts
        if str(kind) in _WORDS and "2" not in _CODE[str(kind)] and rng.random() < 0.4:
            template = _WORDS[str(kind)]
            if kind == "reverse":
                template += " Give the list."
            return template.format(xs=_show(numbers), k=k)
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
            "reverse": xs[::-1],
            "largest": max(xs),
            "smallest": min(xs),
            "total": sum(xs),
            "above": len(above),
            "last": xs[-k:],
            "sort": sorted(xs),
            "evens": evens,
            "add each": [x + k for x in xs],
            "sort down": sorted(xs, reverse=True),
            "running": list(accumulate(xs)),
            "double": [x * 2 for x in above],
            "sum evens": sum(evens),
            "sort top": sorted(xs)[-k:],
            "total above": sum(above),
        }
        return str(results[kind])

    def plan(self, facts: Facts) -> str:
        return _PLANS[str(facts[0])].format(k=facts[1])

    def work(self, facts: Facts, work: Work) -> str:
        kind, k = str(facts[0]), int(facts[1])
        xs = [int(x) for x in facts[2:]]
        if kind == "reverse":
            work.say(f"from the end: {_commas(xs[::-1])}")
            return str(xs[::-1])
        if kind == "last":
            work.say(f"the last {k}: {_commas(xs[-k:])}")
            return str(xs[-k:])
        if kind in ("largest", "smallest"):
            pick = max if kind == "largest" else min
            work.say(f"so far: {_commas(list(accumulate(xs, pick)))}")
            return str(pick(xs))
        if kind in ("sort", "sort top", "sort down"):
            ordered = _select(xs, work, down=kind == "sort down")
            if kind == "sort top":
                work.say(f"the last {k}: {_commas(ordered[-k:])}")
                ordered = ordered[-k:]
            return str(ordered)
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
                    ", ".join(f"{x}*2={x * 2}" if work.digitwise else str(x * 2) for x in kept)
                )
            return str([x * 2 for x in kept])
        sums = list(accumulate(kept))
        if len(kept) > 1:
            steps = [
                f"{before}+{x}={after}" if work.digitwise else str(after)
                for before, x, after in zip(sums, kept[1:], sums[1:], strict=False)
            ]
            work.say(", ".join(steps))
        if kind == "running":
            return str(sums)
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
        marks = ", ".join(f"{x} {'yes' if x in kept else 'no'}" for x in xs)
        return f"{test}: {marks}"
    return f"{test}: {_commas(kept) if kept else 'none'}"
