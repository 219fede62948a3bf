"""Observed against predicted values: how far a regression can be trusted, at a glance."""

from collections.abc import Sequence

from stillroom.study.reports.forest import GRID, INK, MARK, Scale, document, text

WIDTH, SIDE, LEFT, TOP, BOTTOM = 760, 320, 90, 56, 54


def scatter_svg(title: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Draw observed against predicted values, with the line on which they are equal.

    Args:
        title: What is shown, with its unit.
        pairs: Predicted and observed value of each point; at least one.

    Returns:
        An SVG document.
    """
    scale = Scale.over([value for pair in pairs for value in pair], ticks=6)

    def x(value: float) -> float:
        return round(LEFT + SIDE * scale.share(value), 1)

    def y(value: float) -> float:
        return round(TOP + SIDE * (1 - scale.share(value)), 1)

    parts = [text(16, 22, title, weight=600, size=15)]
    for value in scale.ticks():
        parts.append(
            f'<path d="M{x(value)} {TOP}V{TOP + SIDE}M{LEFT} {y(value)}H{LEFT + SIDE}" '
            f'stroke="{GRID}" fill="none"/>'
        )
        parts.append(text(x(value), TOP + SIDE + 18, f"{value:g}", anchor="middle"))
        parts.append(text(LEFT - 8, y(value) + 4, f"{value:g}", anchor="end"))
    parts.append(
        f'<path d="M{LEFT} {TOP + SIDE}L{LEFT + SIDE} {TOP}" stroke="{INK}" '
        'stroke-dasharray="5 4"/>'
    )
    for predicted, observed in pairs:
        parts.append(f'<circle cx="{x(predicted)}" cy="{y(observed)}" r="4.5" fill="{MARK}"/>')
    parts.append(text(LEFT + SIDE / 2, TOP + SIDE + 38, "predicted", anchor="middle"))
    parts.append(text(LEFT, TOP - 10, "observed", anchor="end"))
    return document(title, WIDTH, TOP + SIDE + BOTTOM, parts)
