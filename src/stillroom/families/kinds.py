"""Problems given by a table: numbers are drawn, put into a sentence, and computed.

A kind is one sort of problem (change from a purchase, distance from speed and time). Families
of word problems, unit conversions and formulas are tables of kinds.
"""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from stillroom.families.base import Facts, Family
from stillroom.families.working import Expr, Work, plan_of, value_of

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of problem."""

    draw: Callable[[random.Random], Numbers]
    expr: Callable[..., Expr]
    """From the drawn numbers to the computation."""
    wordings: tuple[str, ...]
    """English templates; {0}, {1}, ... are the drawn numbers, {name} and {thing} are filled in."""
    translations: dict[str, str]
    """Language to template, without {name} and {thing}."""


class KindFamily(Family):
    """A family whose levels are lists of kinds. Facts are (kind, numbers...)."""

    kinds: ClassVar[dict[str, Kind]]
    levels: ClassVar[dict[int, tuple[str, ...]]]
    distractors: tuple[str, ...] = ()
    """Sentences that do not matter, without numerals; mixed in from level 2."""
    names: tuple[str, ...] = ()
    things: tuple[str, ...] = ()

    def draw(self, rng: random.Random, level: int) -> Facts:
        name = rng.choice(self.levels[level])
        return (name, *self.kinds[name].draw(rng))

    def word(self, facts: Facts, rng: random.Random) -> str:
        kind = self.kinds[str(facts[0])]
        text = rng.choice(kind.wordings)
        first, second = rng.sample(self.names, 2) if self.names else ("", "")
        thing = rng.choice(self.things) if self.things else ""
        text = text.format(*facts[1:], name=first, other=second, thing=thing)
        if self.distractors and rng.random() < 0.25:
            extra = rng.choice(self.distractors).format(name=first)
            text = f"{extra} {text}"
        return text

    def translate(self, facts: Facts, language: str) -> str:
        return self.kinds[str(facts[0])].translations[language].format(*facts[1:])

    def solve(self, facts: Facts) -> str:
        return str(value_of(self._expr(facts)))

    def plan(self, facts: Facts) -> str:
        return plan_of(self._expr(facts))

    def work(self, facts: Facts, work: Work) -> str:
        return str(work.compute(self._expr(facts)))

    def _expr(self, facts: Facts) -> Expr:
        return self.kinds[str(facts[0])].expr(*facts[1:])
