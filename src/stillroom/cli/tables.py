"""Tables on the terminal."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid

WIDEST = 120


def print_table(grid: Grid, console: Console) -> None:
    """Print a table whole, 120 columns wide at least, and wider where its columns need it.

    A line that is too long for the terminal is broken by it; an ellipsis would hide numbers.
    """
    options = console.options.update(width=10_000)
    needed = Measurement.get(console, options, grid).minimum
    width = max(WIDEST, console.width, needed)
    Console(file=console.file, width=width, highlight=False).print(grid)
