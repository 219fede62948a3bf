"""Formulas of physics, with whole numbers and units."""

from __future__ import annotations

import random
from typing import ClassVar

from stillroom.families.base import Domain
from stillroom.families.kinds import Kind, KindFamily, Numbers


def _product(rng: random.Random) -> Numbers:
    return (rng.randint(11, 99), rng.randint(2, 9))


def _quotient(rng: random.Random) -> Numbers:
    divisor = rng.randint(2, 9)
    return (divisor * rng.randint(11, 99), divisor)


def _long_product(rng: random.Random) -> Numbers:
    return (rng.randint(11, 99), rng.randint(11, 40))


def _two_legs(rng: random.Random) -> Numbers:
    return (rng.randint(11, 99), rng.randint(2, 9), rng.randint(11, 99), rng.randint(2, 9))


def _change_per(rng: random.Random) -> Numbers:
    time, rate, start = rng.randint(2, 9), rng.randint(3, 30), rng.randint(2, 50)
    return (start, start + time * rate, time, rng.randint(2, 9))


def _power_cost(rng: random.Random) -> Numbers:
    while True:
        volts, amperes = rng.randint(11, 60), rng.randint(2, 9)
        seconds, parts = rng.randint(2, 9), rng.randint(2, 9)
        if volts * amperes * seconds % parts == 0:
            return (volts, amperes, seconds, parts)


class Formulas(KindFamily):
    """Speed, density, force, pressure, current and energy, in one to three steps."""

    name = "formulas"
    domain: Domain = "science"
    levels: ClassVar[dict[int, tuple[str, ...]]] = {
        1: ("distance", "force", "mass", "voltage", "energy"),
        2: ("speed", "density", "current", "pressure", "acceleration"),
        3: ("long distance", "momentum", "long work"),
        4: ("changing force", "energy share"),
        5: ("two legs", "two masses", "two works"),
    }
    distractors = (
        "The lab is cool and quiet today.",
        "The experiment was repeated twice with the same result.",
        "Air resistance can be ignored.",
        "The device is painted blue.",
        "A student wrote this down in the morning.",
    )
    kinds: ClassVar[dict[str, Kind]] = {
        "distance": Kind(
            _product,
            lambda a, b: ("*", a, b),
            (
                "A car moves at {0} m/s for {1} s. How far does it go, in m?",
                "A bird flies at {0} km/h for {1} h. What distance does it cover, in km?",
                "What distance in m is covered in {1} s at a speed of {0} m/s?",
            ),
            {
                "de": "Ein Auto fährt {1} s lang mit {0} m/s. Wie weit kommt es, in m?",
                "fr": "Une voiture roule {1} s à {0} m/s. Quelle distance en m ?",
                "es": "Un coche va a {0} m/s durante {1} s. ¿Qué distancia recorre en m?",
            },
        ),
        "force": Kind(
            _product,
            lambda a, b: ("*", a, b),
            (
                "A mass of {0} kg is accelerated at {1} m/s². What force is needed, in N?",
                "What force in N gives a body of {0} kg an acceleration of {1} m/s²?",
                "A cart of {0} kg speeds up by {1} m/s each second. Find the force in N.",
            ),
            {
                "de": "Welche Kraft in N beschleunigt {0} kg mit {1} m/s²?",
                "fr": "Quelle force en N donne à {0} kg une accélération de {1} m/s² ?",
                "es": "¿Qué fuerza en N acelera {0} kg a {1} m/s²?",
            },
        ),
        "mass": Kind(
            _product,
            lambda a, b: ("*", a, b),
            (
                "A block of {0} cm³ has a density of {1} g/cm³. What is its mass in g?",
                "What is the mass in g of {0} cm³ of a metal of density {1} g/cm³?",
                "A stone has a density of {1} g/cm³ and a volume of {0} cm³. Find its mass in g.",
            ),
            {
                "de": "Ein Block von {0} cm³ hat die Dichte {1} g/cm³. Masse in g?",
                "fr": "Un bloc de {0} cm³ a une densité de {1} g/cm³. Sa masse en g ?",
                "es": "Un bloque de {0} cm³ tiene densidad {1} g/cm³. ¿Su masa en g?",
            },
        ),
        "voltage": Kind(
            _product,
            lambda a, b: ("*", a, b),
            (
                "A current of {1} A flows through a resistor of {0} ohm. What is the voltage in V?",
                "What voltage in V drives {1} A through {0} ohm?",
                "A resistor of {0} ohm carries {1} A. Find the voltage across it in V.",
            ),
            {
                "de": "Durch {0} Ohm fließen {1} A. Wie groß ist die Spannung in V?",
                "fr": "Un courant de {1} A traverse {0} ohms. Quelle tension en V ?",
                "es": "Por {0} ohmios pasan {1} A. ¿Cuál es la tensión en V?",
            },
        ),
        "energy": Kind(
            _product,
            lambda a, b: ("*", a, b),
            (
                "A lamp of {0} W burns for {1} s. How much energy does it use, in J?",
                "A motor has a power of {0} W. What work does it do in {1} s, in J?",
                "How much energy in J does a heater of {0} W give in {1} s?",
            ),
            {
                "de": "Eine Lampe mit {0} W brennt {1} s. Wie viel Energie in J?",
                "fr": "Une lampe de {0} W brûle {1} s. Quelle énergie en J ?",
                "es": "Una lámpara de {0} W arde {1} s. ¿Cuánta energía en J?",
            },
        ),
        "speed": Kind(
            _quotient,
            lambda a, b: ("/", a, b),
            (
                "A train covers {0} km in {1} h. What is its speed in km/h?",
                "A runner needs {1} s for {0} m. What is the speed in m/s?",
                "Find the speed in m/s of a ball that rolls {0} m in {1} s.",
            ),
            {
                "de": "Ein Zug fährt {0} km in {1} h. Wie schnell ist er in km/h?",
                "fr": "Un train fait {0} km en {1} h. Quelle est sa vitesse en km/h ?",
                "es": "Un tren recorre {0} km en {1} h. ¿Cuál es su velocidad en km/h?",
            },
        ),
        "density": Kind(
            _quotient,
            lambda a, b: ("/", a, b),
            (
                "A body of {1} cm³ has a mass of {0} g. What is its density in g/cm³?",
                "What is the density in g/cm³ of {1} cm³ of a metal that weighs {0} g?",
                "{0} g of a liquid fill {1} ml. Find the density in g/ml.",
            ),
            {
                "de": "Ein Körper von {1} cm³ wiegt {0} g. Dichte in g/cm³?",
                "fr": "Un corps de {1} cm³ pèse {0} g. Sa densité en g/cm³ ?",
                "es": "Un cuerpo de {1} cm³ pesa {0} g. ¿Su densidad en g/cm³?",
            },
        ),
        "current": Kind(
            _quotient,
            lambda a, b: ("/", a, b),
            (
                "A voltage of {0} V lies across {1} ohm. What current flows, in A?",
                "What current in A does a source of {0} V drive through {1} ohm?",
            ),
            {
                "de": "An {1} Ohm liegen {0} V. Welcher Strom fließt, in A?",
                "fr": "Une tension de {0} V sur {1} ohms. Quel courant en A ?",
                "es": "Hay {0} V en {1} ohmios. ¿Qué corriente pasa en A?",
            },
        ),
        "pressure": Kind(
            _quotient,
            lambda a, b: ("/", a, b),
            (
                "A force of {0} N acts on {1} m². What is the pressure in Pa?",
                "A crate presses with {0} N on an area of {1} m². Find the pressure in Pa.",
            ),
            {
                "de": "Eine Kraft von {0} N wirkt auf {1} m². Druck in Pa?",
                "fr": "Une force de {0} N agit sur {1} m². Quelle pression en Pa ?",
                "es": "Una fuerza de {0} N actúa sobre {1} m². ¿Presión en Pa?",
            },
        ),
        "acceleration": Kind(
            _quotient,
            lambda a, b: ("/", a, b),
            (
                "A force of {0} N acts on a mass of {1} kg. What is the acceleration in m/s²?",
                "From rest a rocket reaches {0} m/s in {1} s. Find its acceleration in m/s².",
            ),
            {
                "de": "Eine Kraft von {0} N wirkt auf {1} kg. Beschleunigung in m/s²?",
                "fr": "Une force de {0} N agit sur {1} kg. Quelle accélération en m/s² ?",
                "es": "Una fuerza de {0} N actúa sobre {1} kg. ¿Aceleración en m/s²?",
            },
        ),
        "long distance": Kind(
            _long_product,
            lambda a, b: ("*", a, b),
            (
                "A ship sails at {0} km/h for {1} h. How many km does it go?",
                "A probe moves at {0} m/s for {1} s. What distance is that in m?",
            ),
            {
                "de": "Ein Schiff fährt {1} h lang mit {0} km/h. Wie viele km?",
                "fr": "Un navire va à {0} km/h pendant {1} h. Combien de km ?",
                "es": "Un barco va a {0} km/h durante {1} h. ¿Cuántos km?",
            },
        ),
        "momentum": Kind(
            _long_product,
            lambda a, b: ("*", a, b),
            (
                "A body of {0} kg moves at {1} m/s. What is its momentum in kg m/s?",
                "Find the momentum in kg m/s of a mass of {0} kg with a speed of {1} m/s.",
            ),
            {
                "de": "Ein Körper von {0} kg bewegt sich mit {1} m/s. Impuls in kg m/s?",
                "fr": "Un corps de {0} kg va à {1} m/s. Sa quantité de mouvement ?",
                "es": "Un cuerpo de {0} kg va a {1} m/s. ¿Su momento en kg m/s?",
            },
        ),
        "long work": Kind(
            _long_product,
            lambda a, b: ("*", a, b),
            (
                "A force of {0} N pulls a sledge for {1} m. How much work is done, in J?",
                "What work in J is done by {0} N along {1} m?",
            ),
            {
                "de": "Eine Kraft von {0} N zieht {1} m weit. Arbeit in J?",
                "fr": "Une force de {0} N tire sur {1} m. Quel travail en J ?",
                "es": "Una fuerza de {0} N tira {1} m. ¿Qué trabajo en J?",
            },
        ),
        "two legs": Kind(
            _two_legs,
            lambda a, b, c, d: ("+", ("*", a, b), ("*", c, d)),
            (
                "A car goes {1} h at {0} km/h and then {3} h at {2} km/h. How many km in all?",
                "A drone flies at {0} m/s for {1} s and at {2} m/s for {3} s. "
                "What is the total distance in m?",
            ),
            {
                "de": "Erst {1} h mit {0} km/h, dann {3} h mit {2} km/h: wie viele km?",
                "fr": "{1} h à {0} km/h puis {3} h à {2} km/h : combien de km ?",
                "es": "{1} h a {0} km/h y {3} h a {2} km/h: ¿cuántos km?",
            },
        ),
        "two masses": Kind(
            _two_legs,
            lambda a, b, c, d: ("+", ("*", a, b), ("*", c, d)),
            (
                "{0} cm³ of density {1} g/cm³ and {2} cm³ of density {3} g/cm³ are put on a scale. "
                "What is the total mass in g?",
                "A tool has {0} cm³ of a metal with {1} g/cm³ and {2} cm³ of one with {3} g/cm³. "
                "Find its mass in g.",
            ),
            {
                "de": "{0} cm³ mit {1} g/cm³ und {2} cm³ mit {3} g/cm³: Masse in g?",
                "fr": "{0} cm³ à {1} g/cm³ et {2} cm³ à {3} g/cm³ : masse en g ?",
                "es": "{0} cm³ a {1} g/cm³ y {2} cm³ a {3} g/cm³: ¿masa en g?",
            },
        ),
        "two works": Kind(
            _two_legs,
            lambda a, b, c, d: ("+", ("*", a, b), ("*", c, d)),
            (
                "A lamp of {0} W burns for {1} s and one of {2} W for {3} s. "
                "How much energy is used, in J?",
                "A motor gives {0} W for {1} s and then {2} W for {3} s. What work is done, in J?",
            ),
            {
                "de": "{0} W für {1} s und {2} W für {3} s: wie viel Energie in J?",
                "fr": "{0} W pendant {1} s et {2} W pendant {3} s : énergie en J ?",
                "es": "{0} W durante {1} s y {2} W durante {3} s: ¿energía en J?",
            },
        ),
        "changing force": Kind(
            _change_per,
            lambda a, b, c, d: ("*", ("/", ("-", b, a), c), d),
            (
                "A cart of {3} kg speeds up from {0} m/s to {1} m/s in {2} s. "
                "What force acts on it, in N?",
                "In {2} s the speed of a {3} kg sledge rises from {0} m/s to {1} m/s. "
                "Find the force in N.",
            ),
            {
                "de": "{3} kg werden in {2} s von {0} auf {1} m/s beschleunigt. Kraft in N?",
                "fr": "{3} kg passent de {0} à {1} m/s en {2} s. Quelle force en N ?",
                "es": "{3} kg pasan de {0} a {1} m/s en {2} s. ¿Qué fuerza en N?",
            },
        ),
        "energy share": Kind(
            _power_cost,
            lambda a, b, c, d: ("/", ("*", ("*", a, b), c), d),
            (
                "A source of {0} V drives {1} A for {2} s, and the energy goes equally "
                "to {3} coils. "
                "How much does one coil get, in J?",
                "{1} A flow at {0} V for {2} s. The energy is shared equally by {3} cells. "
                "Find the share of a cell in J.",
            ),
            {
                "de": "{0} V und {1} A wirken {2} s; {3} Spulen teilen die Energie. Je wie "
                "viele J?",
                "fr": "{0} V et {1} A pendant {2} s, énergie partagée entre {3} bobines. J ?",
                "es": "{0} V y {1} A durante {2} s, energía entre {3} bobinas. ¿Cuántos J?",
            },
        ),
    }
