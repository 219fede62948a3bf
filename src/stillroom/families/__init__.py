"""Task families of our own: seeded questions with references, flaws and worked traces.

Three domains that mirror math, code and science; five levels of difficulty each.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import overload

from stillroom.families.algebra import Equations
from stillroom.families.arithmetic import Arithmetic, Modular
from stillroom.families.base import DOMAINS, LEVELS, SPLITS, Family, Problem, plain, split_of
from stillroom.families.divisors import Divisors
from stillroom.families.flaws import FLAWS, NEAR_DUPLICATE, reword, spoil
from stillroom.families.formulas import Formulas
from stillroom.families.lists import Lists
from stillroom.families.mixtures import Mixtures
from stillroom.families.program import Loops, Program
from stillroom.families.styles import (
    ANSWER,
    BRIEF,
    CLOSINGS,
    OPENINGS,
    PLAN,
    STYLES,
    SYSTEM_PROMPTS,
)
from stillroom.families.target import Target
from stillroom.families.units import Units
from stillroom.families.words import Words
from stillroom.families.working import Work

__all__ = [
    "DOMAINS",
    "FAMILIES",
    "FLAWS",
    "LEVELS",
    "SPLITS",
    "STYLES",
    "SYSTEM_PROMPTS",
    "VERSION",
    "Family",
    "Problem",
    "Stream",
    "plain",
    "problem",
    "split_of",
    "stream",
    "trace",
    "verify",
]

VERSION = 2
"""Raised whenever the same family, level, split, seed and index give another problem."""

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Arithmetic(),
            Equations(),
            Modular(),
            Divisors(),
            Target(),
            Words(),
            Program(),
            Loops(),
            Lists(),
            Units(),
            Formulas(),
            Mixtures(),
        )
    }
)


def problem(family: str, *, level: int, index: int, split: str, seed: int = 0) -> Problem:
    """Make one problem. The same arguments give the same problem everywhere.

    Args:
        family: A name in `FAMILIES`.
        level: Difficulty, 1 to 5.
        index: Which problem, at least 0; any order, no state.
        split: "train", "pretrain" or "heldout".
        seed: Another seed gives other problems, of the same splits.

    Raises:
        ValueError: If an argument is none of these.

    >>> problem("modular", level=1, index=0, split="train").reference
    '0'
    """
    return _sound(family, level, split, f"{seed}/{split}/{family}/{level}/{index}", index)


def _sound(family: str, level: int, split: str, key: str, index: int) -> Problem:
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}; expected one of {', '.join(FAMILIES)}")
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; expected a whole number, 1 to 5")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    kind = FAMILIES[family]
    rng = random.Random(key)
    while True:
        facts = kind.draw(rng, level)
        question = kind.word(facts, rng)
        if split_of(question) == split:
            return Problem(
                family=family,
                domain=kind.domain,
                level=level,
                index=index,
                split=split,
                question=question,
                reference=kind.solve(facts),
                facts=facts,
            )


class Stream(Sequence[Problem]):
    """An endless, index-addressable mixture of families and levels, with flaws at given shares.

    Index i takes family i modulo the number of families; level and flaw are drawn by index. A
    near duplicate copies an earlier problem of the stream: at most `REACH` rounds back.

    Args:
        families: Names; each comes up equally often.
        levels: Levels; drawn with equal chances.
        split: As in `problem`.
        seed: As in `problem`.
        flaws: Flaw to share of the stream, 0 to 1; together at most 1.
        length: What `len` says and where iteration ends. Indexing beyond it is an IndexError.

    Raises:
        ValueError: If a name, level, share or length is out of range.
    """

    REACH = 200

    def __init__(
        self,
        families: Sequence[str],
        levels: Sequence[int],
        split: str,
        seed: int = 0,
        flaws: Mapping[str, float] | None = None,
        *,
        length: int,
    ) -> None:
        self.families, self.levels = tuple(families), tuple(levels)
        self.split, self.seed, self.length = split, seed, length
        self.flaws = dict(flaws or {})
        if not self.families or not self.levels or length < 0:
            raise ValueError("a stream needs families, levels and a length of at least 0")
        for flaw, share in self.flaws.items():
            if flaw not in FLAWS:
                raise ValueError(f"flaw is {flaw!r}; expected one of {', '.join(FLAWS)}")
            if not 0 <= share <= 1:
                raise ValueError(f"share of {flaw} is {share}; expected 0 to 1")
        if sum(self.flaws.values()) > 1 + 1e-9:
            raise ValueError(f"shares of flaws add up to {sum(self.flaws.values())}; at most 1")
        for family in self.families:
            for level in self.levels:
                problem(family, level=level, index=0, split=split, seed=seed)

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        if index < 0:
            index += self.length
        if not 0 <= index < self.length:
            raise IndexError(f"index is {index}; the stream has {self.length} problems")
        return self._at(index)

    def _at(self, index: int) -> Problem:
        rng = random.Random(f"stream/{self.seed}/{self.split}/{index}")
        level = self.levels[rng.randrange(len(self.levels))]
        flaw = self._draw_flaw(rng.random())
        family = self.families[index % len(self.families)]
        if flaw == NEAR_DUPLICATE and index >= len(self.families):
            back = rng.randint(1, min(self.REACH, index // len(self.families)))
            first = self._original(index - back * len(self.families))
            return replace(
                first, index=index, question=reword(first, FAMILIES[family], rng), flaw=flaw
            )
        sound = problem(family, level=level, index=index, split=self.split, seed=self.seed)
        if flaw is None or flaw == NEAR_DUPLICATE:
            return sound
        attempt = 0
        while True:
            spoilt = spoil(sound, flaw, FAMILIES[family], rng)
            if split_of(spoilt.question) == self.split:
                return spoilt
            attempt += 1
            key = f"{self.seed}/{self.split}/{family}/{level}/{index}/{attempt}"
            sound = _sound(family, level, self.split, key, index)

    def _original(self, index: int) -> Problem:
        """Return the sound problem behind an index, whatever its own flaw."""
        rng = random.Random(f"stream/{self.seed}/{self.split}/{index}")
        level = self.levels[rng.randrange(len(self.levels))]
        family = self.families[index % len(self.families)]
        return problem(family, level=level, index=index, split=self.split, seed=self.seed)

    def _draw_flaw(self, chance: float) -> str | None:
        for flaw, share in self.flaws.items():
            chance -= share
            if chance < 0:
                return flaw
        return None


def stream(
    families: Sequence[str],
    levels: Sequence[int],
    split: str,
    seed: int = 0,
    flaws: Mapping[str, float] | None = None,
    *,
    length: int,
) -> Stream:
    """Return a `Stream`; arguments as there."""
    return Stream(families, levels, split, seed, flaws, length=length)


def verify(problem: Problem, answer: str) -> bool:
    """Tell whether a bare answer to the sound problem is right.

    Decided from the facts, so a wrong reference does not mislead it.

    Args:
        problem: Any problem; of a flawed one, the sound original counts.
        answer: What stood in the box, without words around it.
    """
    return FAMILIES[problem.family].verify(problem.facts, answer)


def trace(problem: Problem, style: str, *, seed: int = 0) -> tuple[str, str]:
    r"""Work a problem out in writing, without mistakes.

    Args:
        problem: What to work out.
        style: One of `STYLES`.
        seed: Decides phrases and the order of independent steps.

    Returns:
        The reasoning, and the visible answer, which ends with ``The answer is \boxed{...}.``

    Raises:
        ValueError: If there is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}; expected one of {', '.join(STYLES)}")
    family = FAMILIES[problem.family]
    rng = random.Random(f"{seed}/{style}/{problem.question}")
    work = Work(digitwise=style != BRIEF, rng=rng)
    opening = rng.choice(OPENINGS[style])
    if style == PLAN:
        opening = opening.format(plan=family.plan(problem.facts))
    answer = family.work(problem.facts, work)
    reasoning = "\n".join([opening, *work.lines])
    closing = rng.choice(CLOSINGS).format(answer=answer)
    return reasoning, f"{closing} {ANSWER.format(answer=answer)}".strip()
