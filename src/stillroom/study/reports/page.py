"""A page made of blocks, as Markdown and as self-contained HTML that say the same.

Nothing is loaded from elsewhere. All text is escaped: much of it is not ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from stillroom.store.store import disk_errors, replace_text

UP, DOWN = "▲", "▼"
"""End a cell that says better or worse."""


@dataclass(frozen=True)
class Block:
    """A piece of a report: exactly one of the fields is given.

    Attributes:
        heading: A title.
        text: A paragraph.
        points: A list.
        table: Header and rows.
        plot: An SVG document, with its file name.
    """

    heading: str | None = None
    text: str | None = None
    points: Sequence[str] | None = None
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    plot: tuple[str, str] | None = None


def write(folder: Path, title: str, blocks: Sequence[Block], facts: object) -> list[Path]:
    """Write ``report.md``, ``report.html``, the plots, and ``results.json`` for programs.

    Args:
        folder: Where they go; files of an older report are replaced.
        title: Of the page.
        blocks: What both say.
        facts: The numbers, as plain data.

    Returns:
        What was written.

    Raises:
        StoreError: If the folder cannot be written.
    """
    written = {
        "report.md": markdown(blocks),
        "report.html": html(title, blocks),
        "results.json": json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    written |= {name: svg for block in blocks if block.plot for name, svg in [block.plot]}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            replace_text(folder / name, text)
    return [folder / name for name in written]


def markdown(blocks: Sequence[Block]) -> str:
    """Write blocks as Markdown; plots are links to files beside it."""
    lines: list[str] = []
    for number, block in enumerate(blocks):
        if block.heading is not None:
            lines.append(f"{'#' if number == 0 else '##'} {_md(block.heading)}")
        elif block.text is not None:
            lines.append(_md(block.text))
        elif block.points is not None:
            lines.append("\n".join(f"- {_md(point)}" for point in block.points))
        elif block.table is not None:
            header, rows = block.table
            grid = [header, ["---"] * len(header), *rows]
            lines.append("\n".join("| " + " | ".join(_md(c) for c in row) + " |" for row in grid))
        elif block.plot is not None:
            lines.append(f"![{block.plot[0]}]({block.plot[0]})")
    return "\n\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Escape what Markdown or HTML would take for markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:14px}"
    "td,th{padding:.25rem .6rem;border-bottom:1px solid #6e778144;text-align:left;"
    "vertical-align:top;min-width:2.5rem}td:first-child{min-width:8rem}"
    "td:last-child{overflow-wrap:anywhere}"
    "td:first-child,th:first-child{position:sticky;left:0;background:Canvas}"
    "li,p{overflow-wrap:anywhere;max-width:60rem}.wide{overflow-x:auto}"
    ".wide svg{min-width:40rem;max-width:60rem}"
    "svg{max-width:100%;height:auto}.up{color:#2f9e5b}.down{color:#d9822b}"
    "nav{columns:14rem;font-size:14px}nav a{display:block}"
)

LONG = 12
"""Headings from which on a page begins with links to them."""

# A part that scrolls sideways by itself, by touch and by keyboard, so that the page does not.
_WIDE = '<div class="wide" tabindex="0" role="region" aria-label="{}">'


def html(title: str, blocks: Sequence[Block]) -> str:
    """Write blocks as one page that loads nothing."""
    parts = []
    heading = title
    for number, block in enumerate(blocks):
        if block.heading is not None:
            heading = block.heading
            tag = "h1" if number == 0 else "h2"
            parts.append(f'<{tag} id="part-{number}">{escape(block.heading)}</{tag}>')
            if number == 0:
                parts.append(_contents(blocks))
        elif block.text is not None:
            parts.append(f"<p>{escape(block.text)}</p>")
        elif block.points is not None:
            items = "".join(f"<li>{escape(point)}</li>" for point in block.points)
            parts.append(f"<ul>{items}</ul>")
        elif block.table is not None:
            header, rows = block.table
            head = "".join(f"<th>{escape(c).replace('_', '_<wbr>')}</th>" for c in header)
            body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
            parts.append(
                f"{_WIDE.format(escape(heading))}<table><thead><tr>{head}</tr></thead><tbody>\n"
                f"{body}</tbody></table></div>"
            )
        elif block.plot is not None:
            parts.append(f"{_WIDE.format(escape(heading))}{block.plot[1]}</div>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _cell(text: str) -> str:
    """Write a cell; marks of better and worse are coloured as in plots."""
    side = {UP: ' class="up"', DOWN: ' class="down"'}.get(text[-1:], "")
    return f"<td{side}>{escape(text)}</td>"


def _contents(blocks: Sequence[Block]) -> str:
    """Link to the parts of a long page."""
    parts = [(n, b.heading) for n, b in enumerate(blocks) if b.heading is not None][1:]
    if len(parts) < LONG:
        return ""
    links = "".join(f'<a href="#part-{n}">{escape(heading)}</a>' for n, heading in parts)
    return f'<nav aria-label="Contents">{links}</nav>'
