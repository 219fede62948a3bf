"""Written working: the lines of a trace, digit by digit or in short.

Digits are handled from the right, as on paper: ``47+85: 7+5=12, 4+8+1=13 -> 132``. A tiny
model cannot add two long numbers at once, but it can look up one digit pair and a carry.
"""

from __future__ import annotations

import random
from typing import TypeAlias

Expr: TypeAlias = "int | tuple[str, Expr, Expr]"
"""A number, or (operator, left, right) with one of + - * / %."""


def value_of(expr: Expr) -> int:
    """Return the value of an expression.

    Raises:
        ValueError: If a division leaves a remainder.
    """
    if isinstance(expr, int):
        return expr
    operator, a, b = expr[0], value_of(expr[1]), value_of(expr[2])
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    if operator == "*":
        return a * b
    if operator == "%":
        return a % b
    if a % b:
        raise ValueError(f"{a}/{b} leaves a remainder")
    return a // b


def plan_of(expr: Expr) -> str:
    """Say the steps of an expression as orders.

    >>> plan_of(("+", ("*", 12, 7), 5))
    'multiply 12 by 7, then add 5'
    """
    if isinstance(expr, int):
        return f"take {expr}"
    return ", then ".join(_orders(expr))


def _orders(expr: Expr) -> list[str]:
    if isinstance(expr, int):
        return []
    operator, left, right = expr
    before = _orders(left)
    if isinstance(left, int) and isinstance(right, int):
        return [
            {
                "+": f"add {right} to {left}",
                "-": f"subtract {right} from {left}",
                "*": f"multiply {left} by {right}",
                "/": f"divide {left} by {right}",
                "%": f"divide {left} by {right} and keep the remainder",
            }[operator]
        ]
    if isinstance(right, int):
        verb = {
            "+": f"add {right}",
            "-": f"subtract {right}",
            "*": f"multiply by {right}",
            "/": f"divide by {right}",
            "%": f"keep the remainder by {right}",
        }[operator]
        return [*before, verb]
    both = [*before, *_orders(right)]
    if isinstance(left, int):
        verb = {
            "+": f"add that to {left}",
            "-": f"subtract that from {left}",
            "*": f"multiply {left} by that",
            "/": f"divide {left} by that",
            "%": f"keep the remainder of {left}",
        }[operator]
        return [*both, verb]
    verb = {
        "+": "add the two",
        "-": "take the second from the first",
        "*": "multiply the two",
        "/": "divide the first by the second",
        "%": "keep the remainder",
    }[operator]
    return [*both, verb]


class Work:
    """Collects the lines of one trace.

    Args:
        digitwise: Show every digit, rather than results only.
        rng: Decides the order of independent steps.
    """

    def __init__(self, *, digitwise: bool, rng: random.Random) -> None:
        self.digitwise = digitwise
        self.rng = rng
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Write a line."""
        self.lines.append(line)

    def compute(self, expr: Expr) -> int:
        """Work out an expression, innermost steps first, and return its value.

        Of two composite operands, either may be worked out first.
        """
        if isinstance(expr, int):
            return expr
        operator, left, right = expr
        if isinstance(left, tuple) and isinstance(right, tuple) and self.rng.random() < 0.5:
            b = self.compute(right)
            a = self.compute(left)
        else:
            a = self.compute(left)
            b = self.compute(right)
        if operator == "+":
            return self.add(a, b)
        if operator == "-":
            return self.subtract(a, b)
        if operator == "*":
            return self.multiply(a, b)
        quotient, remainder = self.divide(a, b)
        return remainder if operator == "%" else quotient

    def add(self, a: int, b: int) -> int:
        """Add two numbers, both at least 0."""
        total = a + b
        if not self.digitwise or (a < 10 and b < 10):
            self.say(f"{a}+{b}={total}")
            return total
        parts = []
        carry = 0
        for x, y in _columns(a, b):
            here = x + y + carry
            parts.append(f"{x}+{y}+{carry}={here}" if carry else f"{x}+{y}={here}")
            carry = here // 10
        self.say(f"{a}+{b}: {', '.join(parts)} -> {total}")
        return total

    def subtract(self, a: int, b: int) -> int:
        """Subtract b from a; 0 <= b <= a."""
        difference = a - b
        if not self.digitwise or (a < 10 and b < 10):
            self.say(f"{a}-{b}={difference}")
            return difference
        parts = []
        borrow = 0
        for x, y in _columns(a, b):
            short = x - borrow < y
            top = x + 10 if short else x
            here = top - borrow - y
            parts.append(f"{top}-{borrow}-{y}={here}" if borrow else f"{top}-{y}={here}")
            borrow = int(short)
        self.say(f"{a}-{b}: {', '.join(parts)} -> {difference}")
        return difference

    def multiply(self, a: int, b: int) -> int:
        """Multiply two numbers, both at least 0."""
        product = a * b
        if not self.digitwise or (a < 10 and b < 10):
            self.say(f"{a}*{b}={product}")
            return product
        if a < 10 or (_tail_zeros(a) and not _tail_zeros(b)):
            a, b = b, a
        zeros = _tail_zeros(b)
        if zeros:
            core = b // 10**zeros
            if core == 1:
                self.say(f"{a}*{b} -> {product}")
            else:
                part = self.multiply(a, core)
                self.say(f"{part}*{10**zeros} -> {product}")
        elif b < 10:
            self._multiply_by_digit(a, b)
        else:
            ones = self.multiply(a, b % 10)
            tens = self.multiply(a, b - b % 10)
            self.add(tens, ones)
        return product

    def _multiply_by_digit(self, a: int, b: int) -> None:
        parts = []
        carry = 0
        for character in reversed(str(a)):
            x = int(character)
            here = x * b + carry
            parts.append(f"{x}*{b}+{carry}={here}" if carry else f"{x}*{b}={here}")
            carry = here // 10
        self.say(f"{a}*{b}: {', '.join(parts)} -> {a * b}")

    def divide(self, a: int, b: int) -> tuple[int, int]:
        """Divide a by b, b at least 1, and return quotient and remainder."""
        quotient, remainder = divmod(a, b)
        left = f" r {remainder}" if remainder else ""
        if not self.digitwise or a < 10:
            self.say(f"{a}/{b}={quotient}{left}")
            return quotient, remainder
        zeros = min(_tail_zeros(a), _tail_zeros(b))
        if zeros:
            short_a, short_b = a // 10**zeros, b // 10**zeros
            self.say(f"{a}/{b} is {short_a}/{short_b}")
            return self.divide(short_a, short_b)
        parts: list[str] = []
        held = 0
        for position, character in enumerate(str(a)):
            held = held * 10 + int(character)
            if held < b and not parts and position < len(str(a)) - 1:
                continue
            parts.append(f"{held}/{b}={held // b} r {held % b}")
            held %= b
        self.say(f"{a}/{b}: {', '.join(parts)} -> {quotient}{left}")
        return quotient, remainder


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    """Pair the digits of two numbers, ones first; a missing digit is 0."""
    first, second = str(a)[::-1], str(b)[::-1]
    width = max(len(first), len(second))
    return [
        (int(x), int(y))
        for x, y in zip(first.ljust(width, "0"), second.ljust(width, "0"), strict=True)
    ]


def _tail_zeros(number: int) -> int:
    text = str(number)
    return len(text) - len(text.rstrip("0")) if number else 0
