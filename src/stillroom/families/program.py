"""Program tracing: straight lines of assignments, and short loops."""

# ruff: noqa: D102  (methods are documented once, in `Family`)

from __future__ import annotations

import random

from stillroom.families.base import Domain, Facts, Family
from stillroom.families.working import Work

_ASK = (
    "What does this Python program print?\n{code}",
    "{code}\nWhat is printed?",
    "Give the output of this program.\n{code}",
    "Run this code in your head. What does it print?\n{code}",
    "Trace the program and give its output.\n{code}",
    "A colleague wrote this. Which number does it print?\n{code}",
)
_FOREIGN = {
    "de": "Was gibt dieses Programm aus?\n{code}",
    "fr": "Qu'affiche ce programme ?\n{code}",
    "es": "¿Qué imprime este programa?\n{code}",
}


_LENGTHS = {1: 3, 2: 4, 3: 4, 4: 5, 5: 6}  # level to statements


class Program(Family):
    """Assignments to two or three variables.

    Facts are the statements, four facts each: (variable, left, operator, right), where left and
    right are numbers or variables and a plain assignment is (variable, number, "", "").
    """

    name = "program"
    domain: Domain = "code"

    def draw(self, rng: random.Random, level: int) -> Facts:
        variables = rng.choice(("abc", "xyz", "pqr", "kmn"))[: 2 if level < 3 else 3]
        while True:
            values: dict[str, int] = {}
            facts: list[int | str] = []
            for position in range(_LENGTHS[level]):
                before = dict(values)
                if position < 2:
                    target = variables[position]
                    values[target] = rng.randint(2, 12)
                    facts += [target, values[target], "", ""]
                    continue
                target = rng.choice(variables)
                left = rng.choice(sorted(values))
                operator = rng.choice("++--*")
                right: int | str = rng.randint(2, 9) if operator != "*" else rng.randint(2, 3)
                if operator != "*" and rng.random() < 0.5:
                    right = rng.choice([v for v in sorted(values) if v != left])
                facts += [target, left, operator, right]
                values[target] = _apply(values[left], operator, _look_up(right, before))
            if all(0 <= v <= 40 for v in _history(tuple(facts))):
                return tuple(facts)

    def word(self, facts: Facts, rng: random.Random) -> str:
        return rng.choice(_ASK).format(code=self._code(facts))

    def _code(self, facts: Facts) -> str:
        lines = []
        for target, left, operator, right in _statements(facts):
            lines.append(
                f"{target} = {left} {operator} {right}" if operator else f"{target} = {left}"
            )
        lines.append(f"print({facts[-4]})")
        return "\n".join(lines)

    def translate(self, facts: Facts, language: str) -> str:
        return _FOREIGN[language].format(code=self._code(facts))

    def solve(self, facts: Facts) -> str:
        return str(_history(facts)[-1])

    def plan(self, facts: Facts) -> str:
        return f"run the {len(facts) // 4} lines in order, then read {facts[-4]}"

    def work(self, facts: Facts, work: Work) -> str:
        values: dict[str, int] = {}
        for target, left, operator, right in _statements(facts):
            if operator:
                a, b = _look_up(left, values), _look_up(right, values)
                result = _apply(a, str(operator), b)
                if work.digitwise:
                    work.say(f"{target} = {left}{operator}{right} = {a}{operator}{b} = {result}")
                else:
                    work.say(f"{target} = {result}")
            else:
                result = _look_up(left, values)
                work.say(f"{target} = {result}")
            values[str(target)] = result
        return str(values[str(facts[-4])])


def _statements(facts: Facts) -> list[tuple[int | str, ...]]:
    return [facts[i : i + 4] for i in range(0, len(facts), 4)]


def _look_up(operand: int | str, values: dict[str, int]) -> int:
    return values[operand] if isinstance(operand, str) else operand


def _apply(a: int, operator: str, b: int) -> int:
    return a + b if operator == "+" else a - b if operator == "-" else a * b


def _history(facts: Facts) -> list[int]:
    values: dict[str, int] = {}
    results = []
    for target, left, operator, right in _statements(facts):
        result = _look_up(left, values)
        if operator:
            result = _apply(result, str(operator), _look_up(right, values))
        values[str(target)] = result
        results.append(result)
    return results


class Loops(Family):
    """Short loops over a counter. Facts are (kind, numbers...)."""

    name = "loops"
    domain: Domain = "code"

    def draw(self, rng: random.Random, level: int) -> Facts:
        step = rng.randint(2, 9)
        if level == 1:
            return ("add", rng.randint(2, 30), rng.randint(2, 3), step)
        if level == 2:
            return (rng.choice(("add", "take")), rng.randint(50, 80), rng.randint(3, 5), step)
        if level == 3:
            return ("even", rng.randint(2, 50), rng.randint(4, 7), step)
        if level == 4:
            return ("count", rng.randint(2, 40), rng.randint(4, 6), step)
        return ("while", rng.randint(40, 90), rng.randint(3, 20), rng.randint(8, 15))

    def word(self, facts: Facts, rng: random.Random) -> str:
        return rng.choice(_ASK).format(
            code=self._code(facts, rng.choice(("total", "n", "s", "acc")))
        )

    def _code(self, facts: Facts, name: str) -> str:
        kind, start, count, step = facts
        body = {
            "add": f"for i in range({count}):\n    {name} += {step}",
            "take": f"for i in range({count}):\n    {name} -= {step}",
            "count": f"for i in range({count}):\n    {name} += i + {step}",
            "while": f"while {name} > {count}:\n    {name} -= {step}",
            "even": f"for i in range({count}):\n    if i % 2 == 0:\n        {name} += {step}",
        }[str(kind)]
        return f"{name} = {start}\n{body}\nprint({name})"

    def translate(self, facts: Facts, language: str) -> str:
        return _FOREIGN[language].format(code=self._code(facts, "total"))

    def solve(self, facts: Facts) -> str:
        kind, start, count, step = str(facts[0]), int(facts[1]), int(facts[2]), int(facts[3])
        if kind == "while":
            rounds = -(-(start - count) // step)
            return str(start - rounds * step)
        if kind == "count":
            return str(start + count * step + count * (count - 1) // 2)
        if kind == "even":
            return str(start + (count + 1) // 2 * step)
        return str(start + count * step * (1 if kind == "add" else -1))

    def plan(self, facts: Facts) -> str:
        kind, start, count, step = facts
        return {
            "add": f"start at {start} and add {step} in each of {count} rounds",
            "take": f"start at {start} and take {step} away in each of {count} rounds",
            "count": f"start at {start} and add i and {step} in each of {count} rounds",
            "while": f"start at {start} and take {step} away while above {count}",
            "even": f"start at {start} and add {step} when i is even, i below {count}",
        }[str(kind)]

    def work(self, facts: Facts, work: Work) -> str:
        kind, start, count, step = str(facts[0]), int(facts[1]), int(facts[2]), int(facts[3])
        value = start
        parts = []
        if kind == "while":
            while value > count:
                parts.append(
                    f"{value}-{step}={value - step}" if work.digitwise else str(value - step)
                )
                value -= step
            work.say(f"{', '.join(parts)}, not above {count}")
            return str(value)
        for i in range(count):
            operand = {"add": step, "take": -step, "count": i + step, "even": step}[kind]
            if kind == "even" and i % 2:
                if work.digitwise:
                    parts.append(f"i={i}: odd")
                continue
            label = f"i={i}: " if work.digitwise else ""
            if kind == "count" and work.digitwise:
                label += f"{i}+{step}={operand}, "
            shown = (
                f"{value}{operand:+d}={value + operand}" if work.digitwise else str(value + operand)
            )
            parts.append(label + shown)
            value += operand
        work.say("; ".join(parts))
        return str(value)
