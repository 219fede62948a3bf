"""Everyday word problems."""

from __future__ import annotations

import random
from typing import ClassVar

from stillroom.families.base import Domain
from stillroom.families.kinds import Kind, KindFamily, Numbers


def _sum(rng: random.Random) -> Numbers:
    return (rng.randint(11, 89), rng.randint(11, 89))


def _difference(rng: random.Random) -> Numbers:
    a = rng.randint(30, 99)
    return (a, rng.randint(5, a - 5))


def _product(rng: random.Random) -> Numbers:
    return (rng.randint(11, 60), rng.randint(2, 9))


def _share(rng: random.Random) -> Numbers:
    people = rng.randint(2, 9)
    return (people * rng.randint(11, 60), people)


def _product_and_more(rng: random.Random) -> Numbers:
    return (rng.randint(11, 60), rng.randint(2, 9), rng.randint(11, 99))


def _change(rng: random.Random) -> Numbers:
    price, count = rng.randint(11, 60), rng.randint(2, 9)
    return (price, count, price * count + rng.randint(3, 90))


def _two_products(rng: random.Random) -> Numbers:
    return (rng.randint(11, 60), rng.randint(2, 9), rng.randint(11, 60), rng.randint(2, 9))


def _share_after(rng: random.Random) -> Numbers:
    people, each, gone = rng.randint(3, 9), rng.randint(11, 60), rng.randint(11, 60)
    return (people * each + gone, gone, people)


def _share_filled(rng: random.Random) -> Numbers:
    while True:
        boxes, each, people = rng.randint(3, 9), rng.randint(11, 60), rng.randint(3, 9)
        more = rng.randint(2, 60)
        if (boxes * each + more) % people == 0:
            return (boxes, each, more, people)


def _crowd(rng: random.Random) -> Numbers:
    return (rng.randint(11, 60), rng.randint(11, 60), rng.randint(2, 9), rng.randint(11, 99))


class Words(KindFamily):
    """Shopping, sharing, saving and counting, in one to three steps."""

    name = "words"
    domain: Domain = "math"
    levels: ClassVar[dict[int, tuple[str, ...]]] = {
        1: ("together", "left"),
        2: ("price", "share"),
        3: ("saved", "change"),
        4: ("two prices", "share after"),
        5: ("share filled", "crowd"),
    }
    names = ("Ada", "Ben", "Chloe", "Dan", "Ella", "Finn", "Grace", "Hugo", "Ines", "Jonas",
             "Kira", "Leo", "Mia", "Noah", "Olga", "Paul")  # fmt: skip
    things = ("stamps", "marbles", "apples", "books", "cards", "shells", "pencils", "coins",
              "plums", "beads", "tickets", "cookies")  # fmt: skip
    distractors = (
        "It is a rainy Tuesday in the village.",
        "{name} has a brown dog and two cats.",
        "The shop opened three years ago.",
        "Nobody else is in the room.",
        "{name} got up early and had tea.",
        "The bus was half an hour late.",
    )
    kinds: ClassVar[dict[str, Kind]] = {
        "together": Kind(
            _sum,
            lambda a, b: ("+", a, b),
            (
                "{name} has {0} {thing} and {other} has {1}. How many {thing} do they "
                "have together?",
                "{name} has {0} {thing} and gets {1} more. How many {thing} is that?",
                "There are {0} {thing} in one box and {1} in another. How many {thing} are there?",
                "{name} sold {0} {thing} on Monday and {1} on Friday. How many in all?",
            ),
            {
                "de": "Anna hat {0} Murmeln und Ben hat {1}. Wie viele haben sie zusammen?",
                "fr": "Anne a {0} billes et Luc en a {1}. Combien en ont-ils ensemble ?",
                "es": "Ana tiene {0} canicas y Luis tiene {1}. ¿Cuántas tienen juntos?",
            },
        ),
        "left": Kind(
            _difference,
            lambda a, b: ("-", a, b),
            (
                "{name} has {0} {thing} and gives {1} to {other}. How many {thing} are left?",
                "Of {0} {thing}, {1} are lost. How many {thing} remain?",
                "{name} is {0} years old and {other} is {1}. How many years older is {name}?",
                "A book has {0} pages. {name} has read {1}. How many pages are left?",
            ),
            {
                "de": "Anna hat {0} Murmeln und verschenkt {1}. Wie viele bleiben ihr?",
                "fr": "Anne a {0} billes et en donne {1}. Combien lui en reste-t-il ?",
                "es": "Ana tiene {0} canicas y regala {1}. ¿Cuántas le quedan?",
            },
        ),
        "price": Kind(
            _product,
            lambda a, b: ("*", a, b),
            (
                "One ticket costs {0} euros. How much do {1} tickets cost?",
                "A box holds {0} {thing}. How many {thing} are in {1} boxes?",
                "{name} saves {0} coins every week. How many coins are saved after {1} weeks?",
                "There are {0} seats in a row. How many seats are in {1} rows?",
            ),
            {
                "de": "Eine Karte kostet {0} Euro. Wie viel kosten {1} Karten?",
                "fr": "Un billet coûte {0} euros. Combien coûtent {1} billets ?",
                "es": "Una entrada cuesta {0} euros. ¿Cuánto cuestan {1} entradas?",
            },
        ),
        "share": Kind(
            _share,
            lambda a, b: ("/", a, b),
            (
                "{0} {thing} are shared equally among {1} friends. How many does each get?",
                "{name} packs {0} {thing} into {1} bags, the same number in each. "
                "How many {thing} are in a bag?",
                "{1} tickets cost {0} euros. How much does one ticket cost?",
                "A rope of {0} m is cut into {1} equal pieces. How long is a piece, in m?",
            ),
            {
                "de": "{0} Murmeln werden auf {1} Kinder verteilt. Wie viele bekommt jedes?",
                "fr": "On partage {0} billes entre {1} enfants. Combien chacun en reçoit-il ?",
                "es": "Se reparten {0} canicas entre {1} niños. ¿Cuántas recibe cada uno?",
            },
        ),
        "saved": Kind(
            _product_and_more,
            lambda a, b, c: ("+", ("*", a, b), c),
            (
                "{name} buys {1} boxes with {0} {thing} each and finds {2} more at home. "
                "How many {thing} is that in all?",
                "{1} tickets cost {0} euros each, and the bus costs {2} euros. "
                "How much is that together?",
                "{name} has {2} coins and saves {0} coins a week for {1} weeks. How "
                "many coins then?",
                "A hall has {1} rows of {0} seats and {2} more on a balcony. How many seats?",
            ),
            {
                "de": "{1} Karten kosten je {0} Euro, die Fahrt {2} Euro. Was kostet alles?",
                "fr": "{1} billets coûtent {0} euros chacun, le bus {2} euros. Et en tout ?",
                "es": "{1} entradas cuestan {0} euros cada una y el bus {2} euros. ¿Cuánto es?",
            },
        ),
        "change": Kind(
            _change,
            lambda a, b, c: ("-", c, ("*", a, b)),
            (
                "{name} has {2} euros and buys {1} tickets for {0} euros each. "
                "How many euros are left?",
                "From {2} {thing}, {name} fills {1} boxes with {0} each. "
                "How many {thing} are left over?",
                "A tank holds {2} l. {1} buckets of {0} l are taken out. How many l remain?",
                "Of {2} pages, {name} reads {0} on each of {1} days. How many pages are left?",
            ),
            {
                "de": "Anna hat {2} Euro und kauft {1} Karten zu je {0} Euro. Was bleibt übrig?",
                "fr": "Anne a {2} euros et achète {1} billets à {0} euros. Que reste-t-il ?",
                "es": "Ana tiene {2} euros y compra {1} entradas a {0} euros. ¿Cuánto queda?",
            },
        ),
        "two prices": Kind(
            _two_products,
            lambda a, b, c, d: ("+", ("*", a, b), ("*", c, d)),
            (
                "{1} books cost {0} euros each and {3} games cost {2} euros each. "
                "How much is that together?",
                "{name} walks {0} minutes on {1} days and {2} minutes on {3} days. "
                "How many minutes in all?",
                "A hall has {1} rows of {0} seats and {3} rows of {2} seats. How many seats?",
                "{name} fills {1} boxes with {0} {thing} and {3} boxes with {2}. "
                "How many {thing} is that?",
            ),
            {
                "de": "{1} Bücher kosten je {0} Euro, {3} Spiele je {2} Euro. Was kostet alles?",
                "fr": "{1} livres à {0} euros et {3} jeux à {2} euros : combien en tout ?",
                "es": "{1} libros a {0} euros y {3} juegos a {2} euros: ¿cuánto es en total?",
            },
        ),
        "share after": Kind(
            _share_after,
            lambda a, b, c: ("/", ("-", a, b), c),
            (
                "Of {0} {thing}, {name} keeps {1} and shares the rest equally among {2} friends. "
                "How many does each friend get?",
                "{name} has {0} euros, spends {1} euros on a coat and puts the rest into {2} equal "
                "envelopes. How many euros are in an envelope?",
                "A rope of {0} m loses {1} m and is then cut into {2} equal pieces. "
                "How long is a piece, in m?",
                "{0} {thing} arrive, {1} are broken, and the others go equally to {2} shops. "
                "How many does a shop get?",
            ),
            {
                "de": "Von {0} Murmeln gehen {1} verloren, {2} Kinder teilen den Rest. Je "
                "wie viele?",
                "fr": "De {0} billes, {1} sont perdues, {2} enfants partagent le reste. Chacun ?",
                "es": "De {0} canicas se pierden {1} y {2} niños reparten el resto. ¿Cada uno?",
            },
        ),
        "share filled": Kind(
            _share_filled,
            lambda a, b, c, d: ("/", ("+", ("*", b, a), c), d),
            (
                "{name} opens {0} boxes of {1} {thing}, adds {2} more, and shares all of them "
                "equally among {3} friends. How many does each get?",
                "{0} tickets cost {1} euros each and the bus costs {2} euros. {3} people share the "
                "cost equally. How much does each pay?",
                "{0} hens lay {1} eggs each and {2} eggs are bought. They are packed "
                "into {3} equal "
                "crates. How many eggs are in a crate?",
            ),
            {
                "de": "{0} Karten zu {1} Euro und {2} Euro Fahrt teilen sich {3} Leute. Je "
                "wie viel?",
                "fr": "{0} billets à {1} euros et {2} euros de bus pour {3} amis. Chacun paie ?",
                "es": "{0} entradas a {1} euros y {2} euros de bus entre {3} amigos. ¿Cada uno?",
            },
        ),
        "crowd": Kind(
            _crowd,
            lambda a, b, c, d: ("+", ("*", ("+", a, b), c), d),
            (
                "A class has {0} girls and {1} boys. Each child brings {2} {thing}, "
                "and the teacher "
                "brings {3}. How many {thing} are there?",
                "{name} earns {0} euros in the morning and {1} euros in the evening, "
                "on each of {2} "
                "days, and had {3} euros before. How many euros is that now?",
                "A train has {0} seats below and {1} above in each of {2} cars, and {3} people "
                "stand. All seats are taken. How many people are on the train?",
            ),
            {
                "de": "{0} Mädchen und {1} Jungen bringen je {2} Äpfel, die Lehrerin {3}. "
                "Wie viele?",
                "fr": "{0} filles et {1} garçons apportent {2} pommes chacun, le maître {3}. "
                "Total ?",
                "es": "{0} niñas y {1} niños traen {2} manzanas cada uno y la maestra {3}. ¿Total?",
            },
        ),
    }
