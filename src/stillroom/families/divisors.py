"""Greatest common divisors and least common multiples."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import math
import random

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Work

_LIMITS = {1: (80, 1, 3), 2: (90, 2, 4), 3: (99, 3, 5), 4: (24, 1, 4), 5: (60, 2, 5)}
"""Level to (largest number, fewest and most subtractions)."""


class Divisors(Family):
    """What is the gcd (levels 1-3) or lcm (4-5) of 84 and 36?

    Facts are ("gcd" or "lcm", a, b). Worked by Euclid's subtractions: the larger number loses
    the smaller one until both are equal.
    """

    name = "divisors"
    domain: Domain = "math"

    def draw(self, rng: random.Random, level: int) -> Facts:
        top, fewest, most = _LIMITS[level]
        while True:
            common = rng.randint(1, max(2, top // 4))
            a = common * rng.randint(1, max(1, top // common))
            b = common * rng.randint(1, max(1, top // common))
            if a == b or min(a, b) < 3 or not fewest <= len(_subtractions(a, b)) <= most:
                continue
            if level >= 4 and (math.lcm(a, b) > 999 or min(a, b) // math.gcd(a, b) > 9):
                continue
            return ("gcd" if level < 4 else "lcm", a, b)

    def word(self, facts: Facts, rng: random.Random) -> str:
        kind, a, b = facts
        return rng.choice(_WORDINGS[str(kind)]).format(a=a, b=b)

    def translate(self, facts: Facts, language: str) -> str:
        kind, a, b = facts
        name = {
            "gcdde": "der größte gemeinsame Teiler",
            "gcdfr": "le plus grand commun diviseur",
            "gcdes": "el máximo común divisor",
            "lcmde": "das kleinste gemeinsame Vielfache",
            "lcmfr": "le plus petit commun multiple",
            "lcmes": "el mínimo común múltiplo",
        }[f"{kind}{language}"]
        return {
            "de": f"Was ist {name} von {a} und {b}?",
            "fr": f"Quel est {name} de {a} et {b} ?",
            "es": f"¿Cuál es {name} de {a} y {b}?",
        }[language]

    def solve(self, facts: Facts) -> str:
        kind, a, b = facts
        return str((math.gcd if kind == "gcd" else math.lcm)(int(a), int(b)))

    def plan(self, facts: Facts) -> str:
        kind, a, b = facts
        orders = f"subtract the smaller of {a} and {b} from the larger until both are equal"
        if kind == "lcm":
            orders += ", then divide one by that and multiply by the other"
        return orders

    def work(self, facts: Facts, work: Work) -> str:
        kind, first, second = facts
        a, b = int(first), int(second)
        parts = [f"{big}-{small}={big - small}" for big, small in _subtractions(a, b)]
        common = math.gcd(a, b)
        work.say(f"{', '.join(parts)}, equal -> {common}")
        if kind == "gcd":
            return str(common)
        big, small = max(a, b), min(a, b)
        quotient = small if common == 1 else work.divide(small, common)[0]
        return str(big if quotient == 1 else work.multiply(big, quotient))


def _subtractions(a: int, b: int) -> list[tuple[int, int]]:
    steps = []
    while a != b:
        a, b = max(a, b), min(a, b)
        steps.append((a, b))
        a -= b
    return steps


_WORDINGS = {
    "gcd": (
        "What is the greatest common divisor of {a} and {b}?",
        "Find gcd({a}, {b}).",
        "What is the gcd of {a} and {b}?",
        "What is the largest number that divides both {a} and {b}?",
        "Two ropes of {a} m and {b} m are cut into equal pieces without waste. "
        "How long can a piece be at most, in m?",
        "{a} red and {b} white flowers are made into equal bunches, as many as possible. "
        "How many bunches are there?",
    ),
    "lcm": (
        "What is the least common multiple of {a} and {b}?",
        "Find lcm({a}, {b}).",
        "What is the lcm of {a} and {b}?",
        "What is the smallest number that both {a} and {b} divide?",
        "One bell rings every {a} minutes, another every {b} minutes. They ring together now. "
        "After how many minutes do they ring together again?",
        "Two lamps blink every {a} and {b} seconds and have just blinked together. "
        "In how many seconds do they next blink together?",
    ),
}
