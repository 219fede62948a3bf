"""What a task family is, what a problem is, and how splits are kept apart.

Covered here: a question's split is a pure function of its text (`split_of`), so one text
cannot be in two splits, whichever family, level, seed or flaw produced it.
Not covered: two problems of one split may have the same text. Level 1 of some families has
only a few thousand questions, and indices draw from them with replacement.
"""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeAlias

from stillroom.families.working import Work

Domain: TypeAlias = Literal["math", "code", "science"]
Fact: TypeAlias = int | str
Facts: TypeAlias = tuple[Fact, ...]

LEVELS = (1, 2, 3, 4, 5)
DOMAINS: tuple[Domain, ...] = ("math", "code", "science")
LANGUAGES = ("de", "fr", "es")

# Sixteenths of all number sets. "pretrain" is what the embedded models learnt from, "train" is
# what recipes draw from, and "heldout" is for evaluation alone.
_BUCKETS = ("heldout",) * 4 + ("train",) * 6 + ("pretrain",) * 6
SPLITS = ("train", "pretrain", "heldout")

_NUMERAL = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its reference, and where it came from."""

    family: str
    domain: Domain
    level: int
    """Difficulty, 1 (easiest) to 5."""
    index: int
    split: str
    question: str
    reference: str
    """A short string: a number, an expression, or a printed Python value."""
    flaw: str | None = None
    """The name of the deliberate flaw, or None."""
    facts: Facts = ()
    """The parameters behind the wording; enough to work the problem out."""


def split_of(question: str) -> str:
    """Return the split that a question text belongs to.

    Only the numerals count, without their order. Every wording and translation of a problem
    therefore falls into one split, and so does the same problem in another family.

    >>> split_of("What is 12+7?") == split_of("Was ist 7 plus 12?")
    True
    """
    numbers = sorted(_NUMERAL.findall(question))
    digest = blake2b(" ".join(numbers).encode(), digest_size=2).digest()
    return _BUCKETS[digest[0] % 16]


class Family(ABC):
    """A kind of task: draws parameters, words them, and works them out."""

    name: str
    domain: Domain

    @abstractmethod
    def draw(self, rng: random.Random, level: int) -> Facts:
        """Draw the parameters of one problem of a level."""

    @abstractmethod
    def word(self, facts: Facts, rng: random.Random) -> str:
        """Ask for the facts in English.

        Every wording holds the same numerals; a distractor holds none.
        """

    @abstractmethod
    def translate(self, facts: Facts, language: str) -> str:
        """Ask for the facts in one of `LANGUAGES`, with the same numerals."""

    @abstractmethod
    def solve(self, facts: Facts) -> str:
        """Return the reference, computed without the digit work of a trace."""

    @abstractmethod
    def plan(self, facts: Facts) -> str:
        """Say in one clause how to go about it, such as "add 5, then halve"."""

    @abstractmethod
    def work(self, facts: Facts, work: Work) -> str:
        """Write the steps into `work` and return the answer that they lead to."""

    def verify(self, facts: Facts, answer: str) -> bool:
        """Tell whether an answer is right.

        Args:
            facts: The parameters of the problem.
            answer: The bare answer: what stood in the box.
        """
        return plain(answer) == plain(self.solve(facts))


def plain(answer: str) -> str:
    """Reduce an answer to the form in which answers are compared.

    Spaces, thousands commas, a closing full stop, a leading plus sign and leading zeros carry
    no meaning; a number with nothing but zeros after the point is the whole number.

    >>> plain(" 1,250.0 ")
    '1250'
    >>> plain("[3, 1]")
    '[3,1]'
    """
    text = "".join(answer.split()).rstrip(".").strip("$")
    number = re.fullmatch(r"([+-]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.0+)?", text)
    if number is None:
        return text
    value = int(number[2].replace(",", ""))
    return f"-{value}" if number[1] == "-" and value else str(value)
