"""Deliberate flaws: what a recipe should find and throw out.

Each flaw turns a sound problem into one that a filter, dedup or verification step is meant to
catch. Flawed questions keep to their split like all others: either their numerals are those of
the sound problem, or the result is drawn again until it falls into the split.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace

from stillroom.families.base import LANGUAGES, Family, Problem

NEAR_DUPLICATE = "near_duplicate"
AMBIGUOUS = "ambiguous"
UNANSWERABLE = "unanswerable"
WRONG_REFERENCE = "wrong_reference"
FOREIGN = "foreign"
BOILERPLATE = "boilerplate"
FLAWS = (NEAR_DUPLICATE, AMBIGUOUS, UNANSWERABLE, WRONG_REFERENCE, FOREIGN, BOILERPLATE)

_NUMERAL = re.compile(r"[0-9]+")

_BEFORE = (
    "Home > Exercises > Archive > Question of the day\n\n",
    "Posted by a member. Please log in to reply.\n\n",
    "ADVERTISEMENT\n\nExercise (moderate):\n",
    "Share this page. Print this page.\n\n",
    "[edit] [history] [discussion]\n\n",
)
_AFTER = (
    "\n\nRead more: related exercises, our newsletter, privacy policy.",
    "\n\nDid you like this question? Subscribe for more!",
    "\n\nAll rights reserved. Contact us for licences.",
    "\n\nPrevious question | Next question | Back to top",
    "\n\nThanks in advance, any help is welcome!!!",
)
_RETOUCHES = (
    ("", " "),
    ("Please help: ", ""),
    ("", " Thank you."),
    ("Question: ", ""),
    ("Hello, ", ""),
    ("", "\n"),
)
_UNKNOWN = ("some number", "an unknown number", "a certain number", "a few")
_HIDDEN = (
    " Then add the number that I am thinking of.",
    " Finally multiply by the age of my sister.",
    " Take away as many as there were last week, and give what is left.",
    " Give the result in the unit that we agreed on yesterday.",
)
_DOUBT = (
    " If I remember right, the {a} could also have been {b}.",
    " (The {a} is hard to read; it may be {b}.)",
    " Either {a} or {b} is right there, I am not sure.",
)


def reword(problem: Problem, family: Family, rng: random.Random) -> str:
    """Ask for the same thing in nearly the same words."""
    if rng.random() < 0.5:
        before, after = rng.choice(_RETOUCHES)
        return f"{before}{problem.question}{after}"
    return family.word(problem.facts, rng)


def spoil(problem: Problem, flaw: str, family: Family, rng: random.Random) -> Problem:
    """Return the problem with a flaw.

    The question of an ambiguous or unanswerable problem may fall into another split.

    Args:
        problem: A sound problem.
        flaw: One of `FLAWS` but `NEAR_DUPLICATE`, which needs an earlier problem.
        family: The problem's family.
        rng: Decides the details.

    Raises:
        ValueError: If the flaw has no such name.
    """
    question, reference = problem.question, problem.reference
    if flaw == BOILERPLATE:
        question = rng.choice(_BEFORE) + question + rng.choice(_AFTER)
    elif flaw == FOREIGN:
        question = family.translate(problem.facts, rng.choice(LANGUAGES))
    elif flaw == WRONG_REFERENCE:
        reference = _mangle(reference, rng)
    elif flaw == UNANSWERABLE:
        numerals = list(_NUMERAL.finditer(question))
        # A question must keep a numeral: without any, all would fall into one split.
        if len(numerals) < 2 or rng.random() < 0.5:
            question += rng.choice(_HIDDEN)
        else:
            at = rng.choice(numerals)
            question = question[: at.start()] + rng.choice(_UNKNOWN) + question[at.end() :]
    elif flaw == AMBIGUOUS:
        at = rng.choice(list(_NUMERAL.finditer(question)))
        other = int(at[0]) + rng.choice((1, 2, 3, 10))
        # "5 or 6" is sound Python, and means 5.
        if problem.domain == "code" or rng.random() < 0.5:
            question += rng.choice(_DOUBT).format(a=at[0], b=other)
        else:
            question = f"{question[: at.end()]} or {other}{question[at.end() :]}"
    else:
        raise ValueError(f"flaw is {flaw!r}; expected one of {', '.join(FLAWS)}")
    return replace(problem, question=question, reference=reference, flaw=flaw)


def _mangle(reference: str, rng: random.Random) -> str:
    """Change one number of a reference."""
    at = rng.choice(list(_NUMERAL.finditer(reference)) or [None])
    if at is None:
        return f"{reference}0"
    value = int(at[0])
    other = value + rng.choice((1, -1, 2, 10, -10, value or 1))
    if other < 0 or other == value:
        other = value + 3
    return f"{reference[: at.start()]}{other}{reference[at.end() :]}"
