"""Scaling curves: scores of arms at several amounts of data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from stillroom.study.reports.forest import GRID, INK, Scale, document, shorten, text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 56, 170, 44, 52

# Told apart on white and on near-black, and by eyes that confuse red with green.
COLOURS = ("#4a8fd6", "#d9822b", "#2f9e5b", "#c05bb0", "#b8901b", "#d6504a", "#3aa7b0", "#8b7fd8")


@dataclass(frozen=True)
class Point:
    """A score at one size.

    Attributes:
        size: Rows or tokens, above 0.
        value: The score, in points.
        low: Lower end of its interval.
        high: Upper end.
    """

    size: float
    value: float
    low: float
    high: float


def curves_svg(title: str, unit: str, curves: Mapping[str, Sequence[Point]]) -> str:
    """Draw a line for each arm over a logarithmic axis of sizes.

    Of more arms than there are colours, those are named and drawn with intervals that got farthest
    and are best there; the others are grey.

    Args:
        title: What is shown, with its unit.
        unit: What sizes count, such as ``rows``.
        curves: Arm to points, by size; an arm that was given up early has fewer. At least one.

    Returns:
        An SVG document.
    """
    points = [point for curve in curves.values() for point in curve]
    scale = Scale.over([x for p in points for x in (p.low, p.high)], ticks=6)
    sizes = sorted({p.size for p in points})
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    span = log10(sizes[-1] / sizes[0]) or 1.0

    def x(size: float, shift: float = 0.0) -> float:
        # Room at both ends for bars that stand beside each other.
        return round(LEFT + 24 + (width - 48) * log10(size / sizes[0]) / span + shift, 1)

    def y(value: float) -> float:
        return round(TOP + height * (1 - scale.share(value)), 1)

    parts = [text(16, 22, title, weight=600, size=15)]
    for value in scale.ticks():
        parts.append(
            f'<line x1="{LEFT}" y1="{y(value)}" x2="{LEFT + width}" y2="{y(value)}" '
            f'stroke="{GRID}"/>'
        )
        parts.append(text(LEFT - 8, y(value) + 4, f"{value:g}", anchor="end"))
    for size in sizes:
        parts.append(text(x(size), TOP + height + 18, f"{size:,.0f}", anchor="middle"))
    parts.append(text(LEFT + width / 2, TOP + height + 38, unit, anchor="middle"))
    ends: list[tuple[float, str, str]] = []
    first = sorted(curves, key=lambda arm: (curves[arm][-1].size, curves[arm][-1].value))
    named = [arm for arm in curves if arm in first[-len(COLOURS) :]]
    rest = [arm for arm in curves if arm not in named]
    for arm in rest:
        dots = "".join(
            f'<circle cx="{x(p.size)}" cy="{y(p.value)}" r="2" fill="{INK}"/>' for p in curves[arm]
        )
        path = " ".join(f"{x(p.size)},{y(p.value)}" for p in curves[arm])
        grey = f'<polyline points="{path}" fill="none" stroke="{GRID}" stroke-width="1.5"/>{dots}'
        parts.append(f"<g><title>{escape(arm)}</title>{grey}</g>")
    if rest:
        ends.append((TOP + height, f"{len(rest)} others", INK))
    for number, arm in enumerate(named):
        curve = curves[arm]
        ink = COLOURS[number]
        shift = 5 * (number - (len(named) - 1) / 2)
        path = " ".join(f"{x(p.size, shift)},{y(p.value)}" for p in curve)
        drawn = [f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="2"/>']
        for p in curve:
            at = x(p.size, shift)
            drawn.append(
                f'<line x1="{at}" y1="{y(p.low)}" x2="{at}" y2="{y(p.high)}" stroke="{ink}" '
                'stroke-width="1.5" stroke-opacity="0.6"/>'
                f'<circle cx="{at}" cy="{y(p.value)}" r="4" fill="{ink}"/>'
            )
        parts.append(f"<g><title>{escape(arm)}</title>{''.join(drawn)}</g>")
        ends.append((y(curve[-1].value), arm, ink))
    parts += _legend(ends, LEFT + width + 14, TOP, TOP + height)
    return document(title, WIDTH, HEIGHT, parts)


def _legend(
    ends: Sequence[tuple[float, str, str]], left: float, top: float, bottom: float
) -> list[str]:
    """Write each name beside the end of its line, or as near as the others allow."""
    room = 17
    at: list[float] = []
    for wanted, _, _ in sorted(ends):
        at.append(max(wanted, at[-1] + room if at else top))
    over = max(0.0, at[-1] - bottom)
    parts = []
    for place, (_, name, ink) in zip(at, sorted(ends), strict=True):
        y = place - over
        parts.append(f'<rect x="{left}" y="{y - 5}" width="10" height="10" rx="2" fill="{ink}"/>')
        parts.append(text(left + 16, y + 4, shorten(name, 22), ink=INK))
    return parts
