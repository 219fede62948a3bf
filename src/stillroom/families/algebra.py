"""Linear equations in one unknown."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import random

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Expr, Work

_UNKNOWNS = ("x", "y", "n", "k", "t", "z")


class Equations(Family):
    """Solve a*x + b = d*x + c. Facts are (a, b, d, c); d is 0 below level 5."""

    name = "equations"
    domain: Domain = "math"

    def draw(self, rng: random.Random, level: int) -> Facts:
        if level == 1:
            x, a, b = rng.randint(2, 80), 1, rng.randint(2, 80)
            if rng.random() < 0.4:
                b = -b
        elif level == 2:
            x, a, b = rng.randint(3, 99), rng.randint(2, 9), 0
        elif level == 3:
            x, a, b = rng.randint(2, 30), rng.randint(2, 9), rng.randint(2, 60)
        else:
            x, a, b = (
                rng.randint(3, 99),
                rng.randint(2, 9),
                rng.choice((1, -1)) * rng.randint(2, 99),
            )
        if level < 5:
            if a * x + b <= 0:
                b = -b
            return (a, b, 0, a * x + b)
        d = rng.randint(1, 7)
        a = d + rng.randint(2, 9 - min(d, 7))
        b = rng.randint(2, 60)
        return (a, b, d, (a - d) * x + b)

    def word(self, facts: Facts, rng: random.Random) -> str:
        unknown = rng.choice(_UNKNOWNS)
        equation = self._equation(facts, unknown, rng.choice(("", " ")))
        return rng.choice(_WORDINGS).format(e=equation, x=unknown)

    def _equation(self, facts: Facts, unknown: str, gap: str) -> str:
        a, b, d, c = _four(facts)
        left = unknown if a == 1 else f"{a}{unknown}"
        if b:
            left += f"{gap}{'+' if b > 0 else '-'}{gap}{abs(b)}"
        right = str(c)
        if d:
            right = f"{'' if d == 1 else d}{unknown}{gap}+{gap}{c}"
        return f"{left}{gap}={gap}{right}"

    def translate(self, facts: Facts, language: str) -> str:
        equation = self._equation(facts, "x", " ")
        return {
            "de": f"Löse die Gleichung {equation} nach x auf.",
            "fr": f"Résolvez l'équation {equation} et donnez x.",
            "es": f"Resuelve la ecuación {equation} y halla x.",
        }[language]

    def solve(self, facts: Facts) -> str:
        a, b, d, c = _four(facts)
        return str((c - b) // (a - d))

    def plan(self, facts: Facts) -> str:
        a, b, d, _ = _four(facts)
        orders = []
        if d:
            orders.append("collect the unknowns on the left")
        if b:
            orders.append(f"{'subtract' if b > 0 else 'add'} {abs(b)}")
        if a - d > 1:
            orders.append("divide by the factor" if d else f"divide by {a}")
        return ", then ".join(orders)

    def work(self, facts: Facts, work: Work) -> str:
        a, b, d, c = _four(facts)
        factor = work.subtract(a, d) if d else a
        right: Expr = c
        if b:
            right = work.compute(("-" if b > 0 else "+", c, abs(b)))
        if factor > 1:
            return str(work.compute(("/", right, factor)))
        return str(right)


_WORDINGS = (
    "Solve for {x}: {e}",
    "Solve {e} for {x}.",
    "Find {x} if {e}.",
    "If {e}, what is {x}?",
    "What value of {x} satisfies {e}?",
    "Which number {x} makes {e} true?",
    "The equation {e} has one solution. What is {x}?",
    "In her notebook Ada wrote {e}. Find {x}.",
)


def _four(facts: Facts) -> tuple[int, int, int, int]:
    a, b, d, c = (int(fact) for fact in facts)
    return a, b, d, c
