"""Solutions: how much is dissolved, what a dilution or a mixture holds."""

from __future__ import annotations

import random
from typing import ClassVar

from stillroom.families.base import Domain
from stillroom.families.kinds import Kind, KindFamily, Numbers


def _dissolved(rng: random.Random) -> Numbers:
    return (rng.randint(11, 99), rng.randint(2, 9))


def _concentration(rng: random.Random) -> Numbers:
    litres = rng.randint(2, 9)
    return (litres * rng.randint(11, 99), litres)


def _two(rng: random.Random) -> Numbers:
    return (rng.randint(11, 60), rng.randint(2, 9), rng.randint(11, 60), rng.randint(2, 9))


def _diluted(rng: random.Random) -> Numbers:
    while True:
        strength, litres = rng.randint(11, 90), rng.randint(2, 8)
        final = rng.randint(litres + 1, 9)
        if strength * litres % final == 0:
            return (strength, litres, final)


def _drawn_off(rng: random.Random) -> Numbers:
    strength, litres, final = _diluted(rng)
    return (strength, litres, final, rng.randint(2, final - 1))


def _blend(rng: random.Random) -> Numbers:
    while True:
        a, b, c, d = rng.randint(11, 60), rng.randint(2, 6), rng.randint(11, 60), rng.randint(1, 7)
        if b + d <= 9 and d > 1 and a != c and (a * b + c * d) % (b + d) == 0:
            return (a, b, c, d)


class Mixtures(KindFamily):
    """Concentrations in g/l, volumes in l."""

    name = "mixtures"
    domain: Domain = "science"
    levels: ClassVar[dict[int, tuple[str, ...]]] = {
        1: ("dissolved",),
        2: ("concentration",),
        3: ("diluted",),
        4: ("drawn off",),
        5: ("two dissolved", "blend"),
    }
    things = ("salt", "sugar", "acid", "dye", "soda", "fertilizer")
    distractors = (
        "The beaker is made of glass.",
        "The solution is stirred slowly.",
        "It is warm in the lab.",
        "The label on the bottle is green.",
        "The water is clear and cold.",
    )
    kinds: ClassVar[dict[str, Kind]] = {
        "dissolved": Kind(
            _dissolved,
            lambda a, b: ("*", a, b),
            (
                "A solution holds {0} g of {thing} per litre. How many g of {thing} are in {1} l?",
                "How many g of {thing} are needed for {1} l of a solution with {0} g/l?",
                "{1} l of a {thing} solution of {0} g/l are dried. How many g of {thing} remain?",
                "A tank holds {1} l with {0} g/l of {thing}. Find the mass of {thing} in g.",
            ),
            {
                "de": "Wie viel g Salz sind in {1} l einer Lösung mit {0} g/l?",
                "fr": "Combien de g de sel dans {1} l d'une solution à {0} g/l ?",
                "es": "¿Cuántos g de sal hay en {1} l de una solución de {0} g/l?",
            },
        ),
        "concentration": Kind(
            _concentration,
            lambda a, b: ("/", a, b),
            (
                "{0} g of {thing} are dissolved in {1} l of water. What is the "
                "concentration in g/l?",
                "A solution of {1} l holds {0} g of {thing}. How many g are in one litre?",
                "Find the concentration in g/l when {1} l contain {0} g of {thing}.",
                "Someone stirs {0} g of {thing} into {1} l. How strong is the solution, in g/l?",
            ),
            {
                "de": "{0} g Salz sind in {1} l gelöst. Konzentration in g/l?",
                "fr": "{0} g de sel dans {1} l d'eau. Quelle concentration en g/l ?",
                "es": "{0} g de sal en {1} l de agua. ¿Qué concentración en g/l?",
            },
        ),
        "diluted": Kind(
            _diluted,
            lambda a, b, c: ("/", ("*", a, b), c),
            (
                "{1} l of a solution with {0} g/l of {thing} are filled up with water to {2} l. "
                "What is the concentration now, in g/l?",
                "Water is added to {1} l of {0} g/l {thing} solution until there are {2} l. "
                "Find the new concentration in g/l.",
                "A stock of {0} g/l is diluted from {1} l to {2} l. How strong is it now, in g/l?",
            ),
            {
                "de": "{1} l mit {0} g/l werden auf {2} l verdünnt. Konzentration in g/l?",
                "fr": "{1} l à {0} g/l sont dilués à {2} l. Nouvelle concentration en g/l ?",
                "es": "{1} l de {0} g/l se diluyen a {2} l. ¿Concentración en g/l?",
            },
        ),
        "drawn off": Kind(
            _drawn_off,
            lambda a, b, c, d: ("*", ("/", ("*", a, b), c), d),
            (
                "{1} l of a solution with {0} g/l of {thing} are filled up with water to {2} l. "
                "How many g of {thing} are in {3} l of that?",
                "Water is added to {1} l of {0} g/l {thing} solution until there are {2} l, "
                "and {3} l are drawn off. Find the mass of {thing} in them, in g.",
                "A stock of {0} g/l is diluted from {1} l to {2} l. "
                "How many g of {thing} do {3} l hold now?",
            ),
            {
                "de": "{1} l mit {0} g/l Salz werden auf {2} l verdünnt. Wie viel g in {3} l?",
                "fr": "{1} l à {0} g/l de sel sont dilués à {2} l. Combien de g dans {3} l ?",
                "es": "{1} l de {0} g/l de sal se diluyen a {2} l. ¿Cuántos g en {3} l?",
            },
        ),
        "two dissolved": Kind(
            _two,
            lambda a, b, c, d: ("+", ("*", a, b), ("*", c, d)),
            (
                "{1} l of {0} g/l and {3} l of {2} g/l {thing} solution are poured together. "
                "How many g of {thing} are in the mixture?",
                "One can holds {1} l with {0} g/l of {thing}, another {3} l with {2} g/l. "
                "How many g of {thing} are that in all?",
                "Find the total mass of {thing} in g: {1} l at {0} g/l and {3} l at {2} g/l.",
            ),
            {
                "de": "{1} l mit {0} g/l und {3} l mit {2} g/l Salz: wie viel g Salz?",
                "fr": "{1} l à {0} g/l et {3} l à {2} g/l de sel : combien de g ?",
                "es": "{1} l de {0} g/l y {3} l de {2} g/l de sal: ¿cuántos g?",
            },
        ),
        "blend": Kind(
            _blend,
            lambda a, b, c, d: ("/", ("+", ("*", a, b), ("*", c, d)), ("+", b, d)),
            (
                "{1} l of {0} g/l and {3} l of {2} g/l {thing} solution are mixed. "
                "What is the concentration of the mixture, in g/l?",
                "Someone pours {1} l with {0} g/l of {thing} into {3} l with {2} g/l. "
                "How strong is the mixture, in g/l?",
                "Find the concentration in g/l after mixing {1} l at {0} g/l with {3} "
                "l at {2} g/l.",
            ),
            {
                "de": "{1} l mit {0} g/l und {3} l mit {2} g/l werden gemischt. Konzentration?",
                "fr": "On mélange {1} l à {0} g/l et {3} l à {2} g/l. Concentration en g/l ?",
                "es": "Se mezclan {1} l de {0} g/l y {3} l de {2} g/l. ¿Concentración en g/l?",
            },
        ),
    }
