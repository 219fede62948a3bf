"""A histogram of lengths as SVG: plain text, so the same numbers give the same bytes."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from stillroom.steps.export.facts import Lengths

WIDTH, PANEL, SINGLE = 760, 104, 190
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 58, 48
GAP = 36
MOST_PANELS = 8

# Readable on white and on near-black alike, because a card is shown on both.
INK, GRID, BAR, MARK = "#6e7781", "#6e778144", "#4a8fd6", "#d9822b"


def lengths_svg(lengths: Mapping[str, Lengths]) -> str:
    """Draw how long answers are: a panel per domain, on one logarithmic axis.

    Args:
        lengths: Domain to its completion tokens; none of them empty. Beyond eight domains the
            smallest are left out.

    Returns:
        An SVG document.
    """
    chosen = sorted(lengths, key=lambda d: (-lengths[d].total, d))[:MOST_PANELS]
    panels = {domain: counts for domain, counts in lengths.items() if domain in chosen}
    edges = _edges(list(panels.values()))
    height = SINGLE if len(panels) == 1 else PANEL
    bottom = TOP + len(panels) * (height + GAP) - GAP
    parts = [_text(LEFT, 22, "Tokens per answer", size=15, weight=600)]
    for number, (domain, counts) in enumerate(panels.items()):
        parts += _panel(domain, counts, edges, TOP + number * (height + GAP), height)
    parts += [
        _text(_x(tick, edges), bottom + 18, _short(tick), anchor="middle") for tick in _ticks(edges)
    ]
    parts.append(
        _text(
            (LEFT + WIDTH - RIGHT) / 2, bottom + 38, "completion tokens, logarithmic",
            anchor="middle",
        )
    )  # fmt: skip
    total = bottom + BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" '
        f'viewBox="0 0 {WIDTH} {total}" role="img" font-family="system-ui, sans-serif">\n'
        "<title>Histogram of completion tokens per answer</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(
    domain: str, counts: Lengths, edges: Sequence[float], top: float, height: float
) -> list[str]:
    """Draw one domain: grid, bars, and marks at the median and the 95th percentile."""
    shares = _shares(counts, edges)
    peak, step = _axis(max(shares))
    foot = top + height
    parts = [_text(LEFT, top - 8, f"{_name(domain)}  ·  {counts.total:,} answers", weight=600)]
    parts += [_line(_x(t, edges), top, _x(t, edges), foot, GRID) for t in _ticks(edges)]
    for number in range(round(peak / step) + 1):
        y = foot - height * number * step / peak
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, INK if number == 0 else GRID))
        parts.append(_text(LEFT - 8, y + 4, f"{100 * number * step:.3g}%", anchor="end"))
    for low, high, share in zip(edges[:-1], edges[1:], shares, strict=True):
        if share:
            x, tall = _x(low, edges), height * share / peak
            wide = max(1.0, _x(high, edges) - x - 1)
            parts.append(
                f'<rect x="{x:.1f}" y="{foot - tall:.1f}" width="{wide:.1f}" '
                f'height="{tall:.1f}" fill="{BAR}"/>'
            )
    # The figures stand above the panel: beside their marks they would cover bars.
    middle, most = counts.quantile(0.5), counts.quantile(0.95)
    for value in (middle, most):
        parts.append(_line(_x(value, edges), top, _x(value, edges), foot, MARK, dash="4 3"))
    words = f"median {middle:,}  ·  95% up to {most:,}"
    parts.append(_text(WIDTH - RIGHT, top - 8, words, anchor="end", fill=MARK))
    return parts


def _edges(panels: Sequence[Lengths]) -> list[float]:
    """Choose borders of bins, equal on a logarithmic axis and none narrower than one token."""
    low = min(min(p.counts) for p in panels) - 0.5
    high = max(p.longest for p in panels) + 0.5
    typical = max(1, min(p.quantile(0.05) for p in panels))
    decades = math.log10(high / low)
    finest = decades / math.log10(1 + 1 / typical)
    n = max(1, math.floor(min(48, finest)))
    return [low * (high / low) ** (i / n) for i in range(n)] + [high]


def _shares(counts: Lengths, edges: Sequence[float]) -> list[float]:
    """Count the share of rows between each two borders."""
    shares = [0.0] * (len(edges) - 1)
    place = 0
    for value, n in counts.counts.items():
        while value > edges[place + 1]:
            place += 1
        shares[place] += n / counts.total
    return shares


def _axis(peak: float) -> tuple[float, float]:
    """Choose the end of the axis of shares, and the step of its ticks: two to four of them."""
    scale = 10 ** math.floor(math.log10(peak / 2))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if peak / (m * scale) <= 3)
    return step * math.ceil(peak / step - 1e-9), step


def _ticks(edges: Sequence[float]) -> list[int]:
    """Choose round numbers along the axis: 1, 2, 5, or fewer where they would crowd."""
    low, high = edges[0], edges[-1]
    for marks in ((1, 2, 5), (1, 3), (1,)):
        decades = range(max(0, math.floor(math.log10(low))), math.ceil(math.log10(high)) + 1)
        ticks = [round(m * 10**d) for d in decades for m in marks if low <= m * 10**d <= high]
        if len(ticks) <= 12:
            break
    return ticks if len(ticks) > 1 else sorted({math.ceil(low), math.floor(high)})


def _x(value: float, edges: Sequence[float]) -> float:
    share = math.log(value / edges[0]) / math.log(edges[-1] / edges[0])
    return LEFT + share * (WIDTH - RIGHT - LEFT)


def _short(value: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 and value % 100 == 0 else f"{value:,}"


def _name(text: str) -> str:
    """Show a domain's name: one line, no controls, not too long."""
    return "".join(c for c in text if c.isprintable())[:40]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: int = 400,
    fill: str = INK,
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, *, dash: str = "") -> str:
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{stroke}" stroke-width="1"{extra}/>'
    )
