"""What a study prints: one live table of arms and seeds on a terminal, plain lines elsewhere."""

from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from stillroom.run.progress import Progress
from stillroom.run.runner import Built, Watcher
from stillroom.study.laboratory import Listener
from stillroom.study.marks import marks
from stillroom.study.result import Sat
from stillroom.train.trainer import Alumnus

_FAILED = "failed"
_OTHER_LINES = 6  # of a screen: header, summary, the line below, and some room


class Teller(Listener):
    """Shows each student as its rows are made, and it is trained and graded.

    Args:
        console: Where to print.

    Attributes:
        failed: Students that could not be trained.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed = 0
        self._cells: dict[str, dict[int, str]] = {}
        self._moved: dict[str, None] = {}  # arms, those that moved last at the end
        self._below = Text()
        self._live: Live | None = None
        self._steps: Progress | None = None

    def step(self, arm: str, seed: int) -> Watcher:
        """Begin the rows of an arm."""
        if seed in self._cells.get(arm, {}):  # the same arm once more is the next study
            self.stop()
        if not self.console.is_terminal:
            self._end_line()
            self.console.print(Text(f"{arm}, seed {seed}"))
            self._steps = _Fresh(self.console)
            return self._steps
        self._cells = {
            name: dict.fromkeys(seeds, "rows") for name, seeds in self._cells.items()
        }  # only one is made at a time
        self._set(arm, seed, "rows …")
        return _Below(self.console, self)

    def grading(self, name: str) -> Watcher:
        """Show how far the sittings of a student are: they may take hours."""
        self._end_line()
        self._steps = _Sitting(self.console, None if not self.console.is_terminal else self)
        return self._steps

    def training(self, waiting: int, found: int) -> None:
        """Say how many students there are to train."""
        self._end_line()
        if not self.console.is_terminal:
            self.console.print(Text(f"students: {found} found, {waiting} to train"))
            return
        for arm, seeds in self._cells.items():
            for seed in seeds:
                self._set(arm, seed, "·")
        self.below(f"{found} students found, {waiting} to train" if waiting else "")

    def trained(self, arm: str, seed: int, alumnus: Alumnus) -> None:
        """Show a student."""
        took = f"{alumnus.seconds:.1f} s"
        if not self.console.is_terminal:
            loss = f", loss {alumnus.trained.losses[-1]:.3f}" if alumnus.trained.losses else ""
            self.console.print(Text(f"+ {arm}, seed {seed}: {took}{loss}"))
            return
        self._set(arm, seed, took)

    def note(self, words: str) -> None:
        """Show what else one should know."""
        self._end_line()
        self.console.print(Text(f"! {words}"))

    def graded(self, sat: Sat) -> None:
        """Show the grades of a student."""
        self._end_line()
        self.failed += sat.failed is not None
        grades = ", ".join(f"{name} {100 * g.accuracy:.1f}%" for name, g in sat.grades.items())
        if not self.console.is_terminal:
            seed = f", seed {sat.seed}" if sat.student else ", untrained"
            line = f"! {sat.arm}, seed {sat.seed}: {sat.failed}" if sat.failed else None
            self.console.print(Text(line or f"= {sat.arm}{seed}: {grades}"))
            for mark in marks(sat) if sat.student and not sat.failed else ():
                self.console.print(Text(f"! {sat.arm}{seed}: {mark}"))
        elif sat.failed:
            self._set(sat.arm, sat.seed, _FAILED)
        elif sat.student is None:
            self.below(f"{sat.arm}, untrained: {grades}")
        else:
            means = [g.accuracy for g in sat.grades.values()]
            self._set(sat.arm, sat.seed, f"{100 * sum(means) / len(means):.1f}%")

    def below(self, words: str) -> None:
        """Show a line under the table."""
        self._below = Text("  " + words)
        self._draw()

    def stop(self) -> None:
        """Leave what was shown on the screen, and begin anew with what comes."""
        self._end_line()
        if self._live:
            self._below = Text()
            self._live.update(self._grid(self._cells), refresh=True)
            self._live.stop()
            self._live = None
        self._cells, self._moved = {}, {}

    def _end_line(self) -> None:
        if self._steps:
            self._steps.stop()
            self._steps = None

    def _set(self, arm: str, seed: int, words: str) -> None:
        self._cells.setdefault(arm, {})[seed] = words
        self._moved.pop(arm, None)
        self._moved[arm] = None
        self._draw()

    def _draw(self) -> None:
        if not self.console.is_terminal:
            return
        if self._live is None:
            self._live = Live(console=self.console, refresh_per_second=4)
            self._live.start()
        room = self.console.height - _OTHER_LINES
        cells, more = self._cells, Text()
        if len(cells) > room:
            # What does not fit on a screen is cut off below, and that is where things move.
            moved = set(list(self._moved)[-max(1, room) :])
            cells = {arm: seeds for arm, seeds in cells.items() if arm in moved}
            more = Text(f"  {self._summary()}; shown are those that moved last.")
        self._live.update(Group(self._grid(cells), more, self._below))

    def _summary(self) -> str:
        """Count arms by how far they are."""
        graded = sum(all(map(_over, seeds.values())) for seeds in self._cells.values())
        failed = sum(words == _FAILED for seeds in self._cells.values() for words in seeds.values())
        said = f"{len(self._cells)} arms, {graded} of them graded"
        return f"{said}, {failed} students failed" if failed else said

    def _grid(self, cells: Mapping[str, Mapping[int, str]]) -> Grid:
        grid = Grid(box=None, pad_edge=False)
        grid.add_column("arm", overflow="fold")
        seeds = sorted({seed for row in self._cells.values() for seed in row})
        for seed in seeds:
            grid.add_column(f"seed {seed}", justify="right", no_wrap=True)
        for arm, row in cells.items():
            grid.add_row(Text(arm), *(row.get(seed, "") for seed in seeds))
        return grid


def _over(words: str) -> bool:
    return words == _FAILED or words.endswith("%")


class _Fresh(Progress):
    """Says nothing of what is found: arms share most steps."""

    def done(self, built: Built) -> None:
        """Print the line of a step that was built."""
        self.stop()
        if not built.cached:
            super().done(built)


class _Below(Progress):
    """Shows the running step under the table."""

    def __init__(self, console: Console, teller: Teller) -> None:
        super().__init__(console)
        self._teller = teller

    def show(self, line: str) -> None:
        """Show how the running step stands."""
        self._teller.below(line)

    def done(self, built: Built) -> None:
        """Take the line of a finished step away."""
        self._teller.below("")


class _Sitting(Progress):
    """Shows the running step of a sitting: under the table, or as a line now and then."""

    def __init__(self, console: Console, teller: Teller | None) -> None:
        super().__init__(console)
        self._teller = teller

    def show(self, line: str) -> None:
        """Show how the running step stands."""
        if self._teller:
            self._teller.below(line)

    def done(self, built: Built) -> None:
        """Say nothing: what counts is the grade."""
