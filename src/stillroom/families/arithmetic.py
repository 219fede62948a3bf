"""Chains of additions and subtractions, and remainders."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import random

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Expr, Work, plan_of, value_of

_CHAINS = {1: (2, 10, 99), 2: (3, 2, 60), 3: (3, 10, 99), 4: (3, 100, 999), 5: (4, 100, 999)}
"""Level to (terms, smallest, largest)."""


class Arithmetic(Family):
    """What is 588+697-74? Facts are the first term and then the signed others."""

    name = "arithmetic"
    domain: Domain = "math"

    def draw(self, rng: random.Random, level: int) -> Facts:
        terms, low, high = _CHAINS[level]
        while True:
            chain = [rng.randint(low, high)]
            chain += [rng.choice((1, 1, -1)) * rng.randint(low, high) for _ in range(terms - 1)]
            partial = [sum(chain[: i + 1]) for i in range(terms)]
            if min(partial) >= 0:
                return tuple(chain)

    def word(self, facts: Facts, rng: random.Random) -> str:
        terms = _integers(facts)
        text = str(terms[0])
        style = rng.randrange(4)
        plus, minus = (
            ("+", "-") if style < 2 else (" + ", " - ") if style == 2 else (" plus ", " minus ")
        )
        for term in terms[1:]:
            text += f"{plus if term > 0 else minus}{abs(term)}"
        return rng.choice(_CHAIN_WORDINGS).format(text)

    def translate(self, facts: Facts, language: str) -> str:
        text = "".join(f"{term:+d}" for term in _integers(facts)).lstrip("+")
        return {
            "de": f"Wie viel ist {text}? Bitte die Rechnung zeigen.",
            "fr": f"Combien font {text} ? Montrez le calcul.",
            "es": f"¿Cuánto es {text}? Muestra el cálculo.",
        }[language]

    def solve(self, facts: Facts) -> str:
        return str(sum(_integers(facts)))

    def plan(self, facts: Facts) -> str:
        return plan_of(_chain(facts))

    def work(self, facts: Facts, work: Work) -> str:
        return str(work.compute(_chain(facts)))


_CHAIN_WORDINGS = (
    "What is {}?",
    "Compute {}.",
    "Calculate {}.",
    "Work out {}.",
    "Find the value of {}.",
    "Evaluate {} and give the result.",
    "How much is {}?",
    "On the bus a friend asked me: what is {}?",
    "A shop clerk types {} into a calculator. What does it show?",
    "Please work out {} without a calculator.",
)


def _chain(facts: Facts) -> Expr:
    terms = _integers(facts)
    expr: Expr = terms[0]
    for term in terms[1:]:
        expr = ("+" if term > 0 else "-", expr, abs(term))
    return expr


def _integers(facts: Facts) -> list[int]:
    return [fact for fact in facts if isinstance(fact, int)]


class Modular(Family):
    """What is the remainder of 4382 divided by 7? Facts are (number, divisor)."""

    name = "modular"
    domain: Domain = "math"

    def draw(self, rng: random.Random, level: int) -> Facts:
        divisor = rng.randint(2, 5) if level == 1 else rng.randint(3, 9)
        digits = max(2, level)
        return (rng.randint(10 ** (digits - 1), 10**digits - 1), divisor)

    def word(self, facts: Facts, rng: random.Random) -> str:
        number, divisor = facts
        return rng.choice(_REMAINDER_WORDINGS).format(n=number, m=divisor)

    def translate(self, facts: Facts, language: str) -> str:
        number, divisor = facts
        return {
            "de": f"Welcher Rest bleibt, wenn man {number} durch {divisor} teilt?",
            "fr": f"Quel est le reste de la division de {number} par {divisor} ?",
            "es": f"¿Cuál es el resto de dividir {number} entre {divisor}?",
        }[language]

    def solve(self, facts: Facts) -> str:
        return str(value_of(self._expr(facts)))

    def plan(self, facts: Facts) -> str:
        return plan_of(self._expr(facts))

    def work(self, facts: Facts, work: Work) -> str:
        return str(work.compute(self._expr(facts)))

    def _expr(self, facts: Facts) -> Expr:
        number, divisor = _integers(facts)
        return ("%", number, divisor)


_REMAINDER_WORDINGS = (
    "What is the remainder when {n} is divided by {m}?",
    "What is {n} mod {m}?",
    "Compute {n} modulo {m}.",
    "Find the remainder of {n} divided by {m}.",
    "{n} sweets are packed into bags of {m}. How many sweets are left over?",
    "A farmer puts {n} eggs into boxes that hold {m} each and fills as many as possible. "
    "How many eggs remain?",
    "{n} children form teams of {m}. How many children are without a full team?",
    "A ribbon of {n} cm is cut into pieces of {m} cm. How many cm are left?",
    "When {n} cards are dealt in rounds of {m}, how many cards are left in the end?",
)
