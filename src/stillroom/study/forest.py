"""Plots of a study as SVG: plain text, so the same numbers give the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 760, 30, 220, 130, 44, 44

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


def forest_svg(title: str, lines: Sequence[Line], *, zero: bool) -> str:
    """Draw estimates with their intervals, one below the other.

    Args:
        title: What is shown, with its unit.
        lines: What to draw; at least one.
        zero: Whether zero is a reference that must be seen, as for differences.

    Returns:
        An SVG document.
    """
    low, high = min(line.low for line in lines), max(line.high for line in lines)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    step = _step(high - low or 1.0)
    first, last = int(low // step), -int(-high // step)
    if first == last:
        last += 1

    def x(value: float) -> float:
        share = (value - first * step) / ((last - first) * step)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    bottom = TOP + ROW * len(lines)
    parts = [_text(16, 22, title, weight=600, size=15)]
    for tick in range(first, last + 1):
        value = tick * step
        strong = zero and tick == 0
        parts.append(
            f'<line x1="{x(value)}" y1="{TOP - 6}" x2="{x(value)}" y2="{bottom}" '
            f'stroke="{INK if strong else GRID}" stroke-width="{1.5 if strong else 1}"/>'
        )
        parts.append(_text(x(value), bottom + 18, f"{value:g}", anchor="middle"))
    for number, line in enumerate(lines):
        y = TOP + ROW * number + ROW / 2
        colour = {1: BETTER, -1: WORSE, 0: MARK}[line.side]
        parts.append(_text(LEFT - 12, y + 4, _short(line.name), anchor="end"))
        parts.append(
            f'<line x1="{x(line.low)}" y1="{y}" x2="{x(line.high)}" y2="{y}" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x(line.value)}" cy="{y}" r="4.5" fill="{colour}"/>')
        span = f"{line.value:.1f} ({line.low:.1f}, {line.high:.1f})"
        parts.append(_text(WIDTH - RIGHT + 12, y + 4, span, size=11))
    height = bottom + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif">\n'
        f"<title>{escape(title)}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _step(span: float) -> float:
    """Choose 1, 2 or 5 times a power of ten, so that four to ten steps span it."""
    step = 10.0**-6
    while True:
        for factor in (1, 2, 5):
            if span / (step * factor) <= 8:
                return step * factor
        step *= 10


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:29] + "…"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: int = 400
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{INK}">{escape(text)}</text>'
    )
