"""Target numbers: join given numbers by signs so that they make a target."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import ast
import random
from collections import Counter
from itertools import product

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Work

_SETS = {1: (2, 40, "+-*"), 2: (3, 9, "+-"), 3: (3, 30, "+-"), 4: (3, 12, "+-*"), 5: (4, 20, "+-")}
"""Level to (how many numbers, largest number, signs)."""


class Target(Family):
    """Use 19, 7 and 4 once each, with + and -, to make 22.

    Facts are (signs, target, numbers...). The listed order always has a solution, so a search
    over signs finds one. Any expression that uses each number once is right.
    """

    name = "target"
    domain: Domain = "math"

    def draw(self, rng: random.Random, level: int) -> Facts:
        count, top, signs = _SETS[level]
        while True:
            numbers = [rng.randint(2, top) for _ in range(count)]
            chosen = [rng.choice(signs) for _ in range(count - 1)]
            if chosen.count("*") > 1 or (level == 4 and "*" not in chosen and rng.random() < 0.5):
                continue
            partial = _partials(numbers, chosen)
            if partial is not None and 0 < partial[-1] < 200:
                return (signs, partial[-1], *numbers)

    def word(self, facts: Facts, rng: random.Random) -> str:
        signs, target, *numbers = facts
        listed = f"{', '.join(str(n) for n in numbers[:-1])} and {numbers[-1]}"
        names = {"+-": "+ and -", "+-*": "+, - and *"}[str(signs)]
        return rng.choice(_WORDINGS).format(t=target, n=listed, s=names)

    def translate(self, facts: Facts, language: str) -> str:
        signs, target, *numbers = facts
        listed = ", ".join(str(n) for n in numbers)
        names = " ".join(str(signs))
        return {
            "de": f"Bilde aus den Zahlen {listed} mit den Zeichen {names} die Zahl {target}.",
            "fr": f"Avec les nombres {listed} et les signes {names}, formez {target}.",
            "es": f"Con los números {listed} y los signos {names}, forma el {target}.",
        }[language]

    def solve(self, facts: Facts) -> str:
        signs, target, *numbers = facts
        for chosen in product(str(signs), repeat=len(numbers) - 1):
            expression = _join(numbers, chosen)
            if chosen.count("*") < 2 and _evaluate(expression) == target:
                return expression
        raise ValueError(f"no signs {signs} make {target} of {numbers}")

    def plan(self, facts: Facts) -> str:
        return f"try the signs one after another until {facts[1]} comes out"

    def work(self, facts: Facts, work: Work) -> str:
        signs, target, *rest = facts
        numbers = [int(n) for n in rest]
        tries = []
        for chosen in product(str(signs), repeat=len(numbers) - 1):
            partial = _partials(numbers, chosen)
            if chosen.count("*") < 2 and partial is not None:
                tries.append((chosen, partial))
        work.rng.shuffle(tries)
        for chosen, partial in tries:
            expression = _join(numbers, chosen)
            shown = partial if work.digitwise else partial[-1:]
            line = f"{expression}: {', '.join(str(p) for p in shown)}"
            if partial[-1] == target:
                work.say(f"{line} yes")
                return expression
            work.say(f"{line} no")
        raise ValueError(f"no signs {signs} make {target} of {numbers}")

    def verify(self, facts: Facts, answer: str) -> bool:
        _, target, *numbers = facts
        text = answer.replace("×", "*").replace("\\times", "*").replace("÷", "/").split("=")[0]
        try:
            used = Counter(_numbers_in(text))
            return used == Counter(numbers) and _evaluate(text) == target
        except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
            return False


def _join(numbers: list[int] | list[int | str], signs: tuple[str, ...] | list[str]) -> str:
    return str(numbers[0]) + "".join(f"{s}{n}" for s, n in zip(signs, numbers[1:], strict=True))


def _partials(numbers: list[int], signs: tuple[str, ...] | list[str]) -> list[int] | None:
    """Return the results in the order of working, products first; None if one is negative."""
    numbers, signs = list(numbers), list(signs)
    results = []
    while signs:
        at = signs.index("*") if "*" in signs else 0
        a, b, sign = numbers[at], numbers[at + 1], signs.pop(at)
        value = a * b if sign == "*" else a + b if sign == "+" else a - b
        if value < 0:
            return None
        numbers[at : at + 2] = [value]
        results.append(value)
    return results


_LONGEST = 200  # characters; an honest answer has fewer than 30


def _tree(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise ValueError("expression too long")
    return ast.parse(text.strip(), mode="eval").body


def _numbers_in(text: str) -> list[int]:
    return [node.value for node in ast.walk(_tree(text)) if isinstance(node, ast.Constant)]  # type: ignore[misc]  # _evaluate refuses constants that are not int


def _evaluate(text: str) -> float:
    return _value(_tree(text))


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp):
        a, b = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Add):
            return a + b
        if isinstance(node.op, ast.Sub):
            return a - b
        if isinstance(node.op, ast.Mult):
            return a * b
        if isinstance(node.op, ast.Div):
            return a / b
    raise ValueError("only whole numbers, + - * / and parentheses")


_WORDINGS = (
    "Use {n} once each, with {s}, to make {t}.",
    "Make {t} from {n}, using each number once and the signs {s}.",
    "Write {t} with {n}, each used exactly once, and {s}.",
    "Put {s} between {n} so that the result is {t}.",
    "With the numbers {n} and the signs {s}, how can you reach {t}?",
    "Numbers game: the cards show {n}, the target is {t}, allowed are {s}. Give an expression.",
)
