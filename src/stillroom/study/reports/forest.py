"""Plots of a study as SVG: plain text, so the same numbers give the same bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor

WIDTH, RIGHT, TOP, BOTTOM = 760, 145, 44, 44
NARROW, WIDEST, LETTER = 220, 340, 6.8
"""Room for names, in points: at least, at most, and what a letter takes."""

# Readable on white and on near-black alike, because a report is read on both.
INK, GRID, MARK, BETTER, WORSE = "#6e7781", "#6e778144", "#4a8fd6", "#2f9e5b", "#d9822b"


@dataclass(frozen=True)
class Line:
    """One line of a forest plot: a name, an estimate and its interval, all in points."""

    name: str
    value: float
    low: float
    high: float
    side: int = 0
    """1 and -1 are drawn as better and worse, 0 as neither."""
    against: float | None = None
    """Drawn as a tick across the line: what the estimate is to be compared with."""


@dataclass(frozen=True)
class Scale:
    """A linear axis between two round numbers.

    Attributes:
        step: Between ticks.
        first: The first tick, in steps.
        last: The last one.
    """

    step: float
    first: int
    last: int

    @staticmethod
    def over(values: Iterable[float], *, ticks: int = 8) -> "Scale":
        """Choose a scale that all values lie on, with about so many ticks at most."""
        seen = list(values)
        low, high = min(seen), max(seen)
        step = _step(high - low or 1.0, ticks)
        first, last = floor(low / step), ceil(high / step)
        return Scale(step, first, max(last, first + 1))

    def share(self, value: float) -> float:
        """Return where a value lies: 0 at the first tick, 1 at the last."""
        return (value / self.step - self.first) / (self.last - self.first)

    def ticks(self) -> list[float]:
        """Return the values of all ticks."""
        return [round(tick * self.step, 10) for tick in range(self.first, self.last + 1)]

    def grid(
        self, left: float, width: float, top: float, height: float, *, zero: bool = True
    ) -> list[str]:
        """Draw the ticks of a horizontal axis; zero stands out if it is a reference."""
        parts = []
        for value in self.ticks():
            x = round(left + width * self.share(value), 1)
            strong = zero and value == 0
            parts.append(
                f'<line x1="{x}" y1="{top - 6}" x2="{x}" y2="{top + height}" '
                f'stroke="{INK if strong else GRID}" stroke-width="{1.5 if strong else 1}"/>'
            )
            parts.append(text(x, top + height + 18, f"{value:g}", anchor="middle"))
        return parts


def forest_svg(title: str, lines: Sequence[Line], *, zero: bool) -> str:
    """Draw estimates with their intervals, one below the other.

    Args:
        title: What is shown, with its unit.
        lines: What to draw; at least one.
        zero: Whether zero is a reference that must be seen, as for differences.

    Returns:
        An SVG document.
    """
    ends = [
        value
        for line in lines
        for value in (line.low, line.high, line.against)
        if value is not None
    ]
    scale = Scale.over([0.0, *ends] if zero else ends)
    wanted = 20 + LETTER * max(len(line.name) for line in lines)
    left = round(min(WIDEST, max(NARROW, wanted)))
    row = 30 if len(lines) <= 20 else 22
    width, height = WIDTH - left - RIGHT, row * len(lines)
    parts = [text(16, 22, shorten(title, 90), weight=600, size=15)]
    parts += scale.grid(left, width, TOP, height, zero=zero)
    for number, line in enumerate(lines):
        y = TOP + row * number + row / 2
        name = text(left - 12, y + 4, shorten(line.name, int((left - 20) / LETTER)), anchor="end")
        parts.append(f"<g><title>{escape(line.name)}</title>{name}</g>")
        parts.append(mark(scale, left, width, y, line, colour(line.side)))
        # Said by a sign too, for eyes that confuse the colours.
        sign = {1: " ▲", -1: " ▼", 0: ""}[line.side]
        span = f"{line.value:z.1f} ({line.low:z.1f}, {line.high:z.1f}){sign}"
        parts.append(text(WIDTH - RIGHT + 12, y + 4, span, size=11))
    return document(title, WIDTH, TOP + height + BOTTOM, parts)


def colour(side: int) -> str:
    """Return the colour of what is better, worse or neither."""
    return {1: BETTER, -1: WORSE, 0: MARK}[side]


def mark(
    scale: Scale, left: float, width: float, y: float, line: Line, ink: str, *, radius: float = 4.5
) -> str:
    """Draw an estimate and its interval on a horizontal axis."""
    low, value, high = (
        round(left + width * scale.share(v), 1) for v in (line.low, line.value, line.high)
    )
    drawn = (
        f'<line x1="{low}" y1="{y}" x2="{high}" y2="{y}" stroke="{ink}" stroke-width="2"/>\n'
        f'<circle cx="{value}" cy="{y}" r="{radius}" fill="{ink}"/>'
    )
    if line.against is None:
        return drawn
    x = round(left + width * scale.share(line.against), 1)
    return (
        f'{drawn}\n<line x1="{x}" y1="{y - 9}" x2="{x}" y2="{y + 9}" stroke="{INK}" '
        'stroke-width="2"/>'
    )


def document(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """Return an SVG document of parts."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="system-ui, sans-serif">\n'
        f"<title>{escape(title)}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _step(span: float, ticks: int) -> float:
    """Choose 1, 2 or 5 times a power of ten, so that so many steps at most span it."""
    step = 10.0**-6
    while True:
        for factor in (1, 2, 5):
            if span / (step * factor) <= ticks:
                return step * factor
        step *= 10


def shorten(name: str, most: int) -> str:
    """Cut the middle out of a name, because names of arms differ in how they end.

    >>> shorten("exact dedup, 16 answers", 16)
    'exact de…answers'
    """
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[len(name) - tail :]}"


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: int = 400,
    ink: str = INK,
) -> str:
    """Write words at a place."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{ink}">{escape(words)}</text>'
    )
