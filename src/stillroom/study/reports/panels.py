"""Small multiples: the same arms on every benchmark, side by side on one scale."""

from collections.abc import Mapping, Sequence
from html import escape

from stillroom.study.reports.forest import Line, Scale, colour, document, mark, shorten, text

ACROSS = 3
WIDTH, LABELS, GAP, MARGIN, ROW, HEAD, FOOT = 760, 150, 32, 16, 20, 26, 30


def panels_svg(title: str, panels: Mapping[str, Sequence[Line]]) -> str:
    """Draw a forest plot for each benchmark, three in a row, with one scale for all.

    Args:
        title: What is shown, with its unit.
        panels: Benchmark to lines; every benchmark has the same lines in the same order.

    Returns:
        An SVG document.
    """
    lines = [line for panel in panels.values() for line in panel]
    names = [line.name for line in next(iter(panels.values()))]
    across = min(ACROSS, len(panels))
    width = (WIDTH - LABELS - MARGIN - GAP * across) / across
    body = ROW * len(names)
    scale = Scale.over([0.0, *(x for line in lines for x in (line.low, line.high))], ticks=4)
    parts = [text(16, 22, title, weight=600, size=15)]
    for number, (name, panel) in enumerate(panels.items()):
        row, column = divmod(number, across)
        top = 40 + row * (HEAD + body + FOOT) + HEAD
        left = LABELS + GAP + column * (width + GAP)
        parts.append(text(left, top - 8, shorten(name, int(width / 7)), weight=600))
        if column == 0:
            for index, arm in enumerate(names):
                y = top + ROW * index + ROW / 2 + 4
                parts.append(text(LABELS + GAP - 14, y, shorten(arm, 22), anchor="end"))
        parts += scale.grid(left, width, top, body)
        for index, line in enumerate(panel):
            span = f"{line.name}, {name}: {line.value:.1f} ({line.low:.1f}, {line.high:.1f})"
            drawn = mark(
                scale, left, width, top + ROW * index + ROW / 2, line, colour(line.side), radius=3.5
            )
            parts.append(f"<g><title>{escape(span)}</title>{drawn}</g>")
    rows = -(-len(panels) // across)
    return document(title, WIDTH, 40 + rows * (HEAD + body + FOOT) + 8, parts)
