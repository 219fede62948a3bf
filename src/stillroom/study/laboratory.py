"""Where studies are run, and who hears of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stillroom.run.runner import Built, Runner, Watcher
from stillroom.steps.base import Runtime
from stillroom.store.store import Store
from stillroom.study.result import Sat
from stillroom.train.trainer import Alumnus


class Listener:
    """Hears what a study does. This one says nothing."""

    def step(self, arm: str, seed: int) -> Watcher:
        """Return who hears of the steps of one arm."""
        return Watcher()

    def training(self, waiting: int, found: int) -> None:
        """Hear how many students are to be trained, and how many were found."""

    def trained(self, arm: str, seed: int, alumnus: Alumnus) -> None:
        """Hear that a student is there."""

    def grading(self, name: str) -> Watcher:
        """Return who hears of the sittings of one student, or of the base model."""
        return Watcher()

    def note(self, words: str) -> None:
        """Hear what else one should know."""

    def graded(self, sat: Sat) -> None:
        """Hear the grades of a student."""


@dataclass(frozen=True)
class Laboratory:
    """Where studies are run.

    Attributes:
        store: Where everything is found and kept.
        rt: Where and how steps run.
        students: Students trained at a time; what suits their trainer when None.
        listener: Hears of progress.
        beside: Folder in which files that the study names are looked up.
        use: Told the step and key of each artifact as soon as it is there, so that `gc` spares it
            (`stillroom.store.gc.using`).
        tried: Keys of what was built here; see `stillroom.run.runner.Runner`.
    """

    store: Store
    rt: Runtime
    students: int | None = None
    listener: Listener = field(default_factory=Listener)
    beside: Path = Path()
    use: Callable[[str, str], None] = lambda step, key: None
    tried: set[str] = field(default_factory=set)

    def runner(
        self, *, graded: list[Built] | None = None, watcher: Watcher | None = None
    ) -> Runner:
        """Return what runs steps here; it adds them to ``graded``, for their cost."""

        def remember(built: Built) -> None:
            self.use(built.artifact.manifest.step, built.artifact.manifest.key)
            if graded is not None:
                graded.append(built)

        watcher = watcher or Watcher()
        return Runner(self.store, self.rt, watcher, remember, tried=self.tried)
