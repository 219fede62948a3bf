"""What a run prints: a live line per step on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stillroom.run.runner import Built, Totals, Watcher
from stillroom.steps.base import Step, Tick

QUIET_S = 10.0
"""Seconds between lines where there is no terminal."""


class Progress(Watcher):
    """Prints each step as it is done, and the running one with rate and time left.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._path = ""
        self._of: int | None = None
        self._totals = Totals()
        self._started = self._printed = time.monotonic()

    def start(self, path: str, step: Step, rows: int | None) -> None:
        """Begin the line of a step."""
        self._path, self._of, self._totals = path, rows, Totals()
        self._started = self._printed = time.monotonic()
        self.show(self._running())

    def tick(self, tick: Tick) -> None:
        """Show warnings, and progress not more often than a reader can follow."""
        self._totals.add(tick)
        if tick.warning is not None:
            self.console.print(Text(f"  warning: {tick.warning}"), soft_wrap=True)
        if tick.of is not None:
            self._of = tick.of
        if self.console.is_terminal:
            self.show(self._running())
        elif time.monotonic() - self._printed > QUIET_S:
            self._printed = time.monotonic()
            self.console.print(Text("  " + self._running()), soft_wrap=True)

    def show(self, line: str) -> None:
        """Show how the running step stands, where there is a terminal."""
        if self._live is None and self.console.is_terminal:
            self._live = Live(console=self.console, transient=True, refresh_per_second=4)
            self._live.start()
        if self._live:
            self._live.update(Text("  " + line))

    def wait(self, path: str) -> None:
        """Say that another process is at work."""
        self.console.print(Text(f"  {path}: another process builds this; waiting for it"))

    def done(self, built: Built) -> None:
        """Print the finished line of a step."""
        self.stop()
        self.console.print(Text(describe(built)), soft_wrap=True)

    def stop(self) -> None:
        """End the live line."""
        if self._live:
            self._live.stop()
            self._live = None

    def _running(self) -> str:
        done, seconds = self._totals.rows, time.monotonic() - self._started
        rate = done / seconds if seconds > 0 else 0.0
        parts = [f"{self._path:<28} {done:,}" + (f" of {self._of:,}" if self._of else "") + " rows"]
        if seconds > 1:
            parts.append(f"{rate:,.0f}/s")
        parts += spending(self._totals.measured())
        if self._of and rate and done < self._of and seconds > 2:
            parts.append(f"{duration((self._of - done) / rate)} left")
        return " · ".join(parts)


def describe(built: Built) -> str:
    """Write one line on a finished step: rows, drops by reason, spending, time."""
    manifest = built.artifact.manifest
    parts = [f"{'=' if built.cached else '+'} {built.path:<28} {manifest.rows_out:>9,} rows"]
    if manifest.drops:
        reasons = sorted(manifest.drops.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{n:,} {reason}" for reason, n in reasons[:4])
        more = sum(n for _, n in reasons[4:])
        parts.append(f"dropped {shown}" + (f", {more:,} for other reasons" if more else ""))
    if built.cached:
        parts.append("found in the store")
    else:
        parts += [*spending(manifest.measured), duration(manifest.measured["seconds"])]
    return " · ".join(parts)


def spending(measured: dict[str, Any]) -> list[str]:
    """Word what a step bought: calls, tokens, money."""
    if "calls" not in measured:
        return []
    parts = [f"{measured['calls']:,} calls"]
    if measured["reused"]:
        parts.append(f"{measured['reused']:,} reused")
    if measured["failed"]:
        parts.append(f"{measured['failed']:,} failed")
    parts.append(f"{measured['completion_tokens']:,} tokens")
    if measured["usd"]:
        parts.append(f"${measured['usd']:,.2f}")
    return parts


def duration(seconds: float) -> str:
    """Write a time as a person would.

    >>> duration(0.25), duration(75), duration(7200)
    ('0.2 s', '1 min 15 s', '2 h 0 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
