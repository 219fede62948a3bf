"""Unit conversion."""

from __future__ import annotations

import random
from typing import ClassVar

from stillroom.families.base import Domain
from stillroom.families.kinds import Kind, KindFamily, Numbers
from stillroom.families.working import Expr


def _decimal(factor: int) -> Kind:
    """Convert a whole number of a unit that is `factor` smaller units, a power of ten."""
    pairs = {
        10: ("cm", "mm"),
        100: ("m", "cm"),
        1000: ("km", "m"),
    }
    big, small = pairs[factor]
    return _plain(big, small, lambda a: ("*", a, factor), lambda rng: (rng.randint(2, 999),))


def _plain(big: str, small: str, expr: object, draw: object) -> Kind:
    return Kind(
        draw,  # type: ignore[arg-type]  # checked where it is called
        expr,  # type: ignore[arg-type]  # checked where it is called
        tuple(text.replace("BIG", big).replace("SMALL", small) for text in _WORDINGS),
        {
            "de": f"Rechne {{0}} {big} in {small} um.",
            "fr": f"Convertissez {{0}} {big} en {small}.",
            "es": f"Convierte {{0}} {big} a {small}.",
        },
    )


_WORDINGS = (
    "Convert {0} BIG to SMALL.",
    "How many SMALL are {0} BIG?",
    "A measurement reads {0} BIG. What is it in SMALL?",
    "Express {0} BIG in SMALL.",
    "Write {0} BIG as a number of SMALL.",
    "{name} noted {0} BIG in the lab book. How many SMALL is that?",
)
_MIXED = (
    "Convert {0} BIG and {1} SMALL to SMALL.",
    "How many SMALL are {0} BIG {1} SMALL?",
    "A test took {0} BIG and {1} SMALL. Give the time in SMALL.",
    "{name} measured {0} BIG and {1} SMALL. What is that in SMALL only?",
)
_MIXED_AMOUNT = tuple(
    text.replace("A test took", "A sample shows").replace("time", "value") for text in _MIXED
)


def _mixed(big: str, small: str, factor: int, most: int, wordings: tuple[str, ...]) -> Kind:
    def draw(rng: random.Random) -> Numbers:
        return (rng.randint(2, most), rng.randint(2, factor - 1))

    def expr(a: int, b: int) -> Expr:
        return ("+", ("*", a, factor), b)

    return Kind(
        draw,
        expr,
        tuple(text.replace("BIG", big).replace("SMALL", small) for text in wordings),
        {
            "de": f"Wie viele {small} sind {{0}} {big} und {{1}} {small}?",
            "fr": f"Combien de {small} font {{0}} {big} et {{1}} {small} ?",
            "es": f"¿Cuántos {small} son {{0}} {big} y {{1}} {small}?",
        },
    )


def _upwards(small: str, big: str, factor: int, most: int) -> Kind:
    return _plain(
        small, big, lambda a: ("/", a, factor), lambda rng: (rng.randint(2, most) * factor,)
    )


class Units(KindFamily):
    """Lengths, masses, volumes and times."""

    name = "units"
    domain: Domain = "science"
    levels: ClassVar[dict[int, tuple[str, ...]]] = {
        1: ("km to m", "m to cm", "cm to mm", "kg to g", "l to ml"),
        2: ("h to min", "min to s", "days to h", "weeks to days"),
        3: ("h min to min", "min s to s", "kg g to g", "days h to h"),
        4: ("s to min", "many days to h", "min to h", "mm to cm", "g to kg", "days to weeks"),
        5: ("days h to min", "h min to s", "weeks days to h"),
    }
    names = ("Ada", "Emil", "Marie", "Otto", "Rosa", "Tycho", "Vera", "Carl")
    kinds: ClassVar[dict[str, Kind]] = {
        "km to m": _decimal(1000),
        "m to cm": _decimal(100),
        "cm to mm": _decimal(10),
        "kg to g": _plain("kg", "g", lambda a: ("*", a, 1000), lambda r: (r.randint(2, 999),)),
        "l to ml": _plain("l", "ml", lambda a: ("*", a, 1000), lambda r: (r.randint(2, 999),)),
        "h to min": _plain(
            "hours", "minutes", lambda a: ("*", a, 60), lambda r: (r.randint(2, 99),)
        ),
        "min to s": _plain(
            "minutes", "seconds", lambda a: ("*", a, 60), lambda r: (r.randint(2, 99),)
        ),
        "days to h": _plain("days", "hours", lambda a: ("*", a, 24), lambda r: (r.randint(2, 99),)),
        "weeks to days": _plain(
            "weeks", "days", lambda a: ("*", a, 7), lambda r: (r.randint(3, 99),)
        ),
        "h min to min": _mixed("hours", "minutes", 60, 30, _MIXED),
        "min s to s": _mixed("minutes", "seconds", 60, 30, _MIXED),
        "kg g to g": _mixed("kg", "g", 1000, 40, _MIXED_AMOUNT),
        "days h to h": _mixed("days", "hours", 24, 30, _MIXED),
        "s to min": _upwards("seconds", "minutes", 60, 99),
        "min to h": _upwards("minutes", "hours", 60, 99),
        "many days to h": _plain(
            "days", "hours", lambda a: ("*", a, 24), lambda r: (r.randint(100, 365),)
        ),
        "mm to cm": _upwards("mm", "cm", 10, 999),
        "g to kg": _upwards("g", "kg", 1000, 99),
        "days to weeks": _upwards("days", "weeks", 7, 99),
        "days h to min": Kind(
            lambda rng: (rng.randint(2, 9), rng.randint(2, 23)),
            lambda a, b: ("*", ("+", ("*", a, 24), b), 60),
            (
                "Convert {0} days and {1} hours to minutes.",
                "How many minutes are {0} days {1} hours?",
                "A culture grows for {0} days and {1} hours. How many minutes is that?",
            ),
            {
                "de": "Wie viele Minuten sind {0} Tage und {1} Stunden?",
                "fr": "Combien de minutes font {0} jours et {1} heures ?",
                "es": "¿Cuántos minutos son {0} días y {1} horas?",
            },
        ),
        "h min to s": Kind(
            lambda rng: (rng.randint(2, 9), rng.randint(2, 59)),
            lambda a, b: ("*", ("+", ("*", a, 60), b), 60),
            (
                "Convert {0} hours and {1} minutes to seconds.",
                "How many seconds are {0} hours {1} minutes?",
                "An engine runs for {0} hours and {1} minutes. How many seconds is that?",
            ),
            {
                "de": "Wie viele Sekunden sind {0} Stunden und {1} Minuten?",
                "fr": "Combien de secondes font {0} heures et {1} minutes ?",
                "es": "¿Cuántos segundos son {0} horas y {1} minutos?",
            },
        ),
        "weeks days to h": Kind(
            lambda rng: (rng.randint(2, 9), rng.randint(2, 6)),
            lambda a, b: ("*", ("+", ("*", a, 7), b), 24),
            (
                "Convert {0} weeks and {1} days to hours.",
                "How many hours are {0} weeks {1} days?",
                "A ship is at sea for {0} weeks and {1} days. How many hours is that?",
            ),
            {
                "de": "Wie viele Stunden sind {0} Wochen und {1} Tage?",
                "fr": "Combien d'heures font {0} semaines et {1} jours ?",
                "es": "¿Cuántas horas son {0} semanas y {1} días?",
            },
        ),
    }
