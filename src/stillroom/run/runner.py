"""The Runner: finds or builds the artifact of a step, and returns the table that it makes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stillroom.run.keys import Asked, ask
from stillroom.steps.base import Runtime, Step, Tick
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store
from stillroom.store.table import Table


@dataclass(frozen=True)
class Built:
    """One step of a pipeline and the artifact that answers it.

    Attributes:
        path: Where the step stands in the recipe, such as ``math.dedup``.
        artifact: What it wrote.
        inputs: Paths of the steps whose tables it read.
        cached: Whether the artifact was there already.
    """

    path: str
    artifact: Artifact
    inputs: tuple[str, ...]
    cached: bool


class Watcher:
    """Hears what a Runner does. This one says nothing; see `stillroom.run.progress`."""

    def start(self, path: str, step: Step, rows: int | None) -> None:
        """Hear that a step begins to build."""

    def tick(self, tick: Tick) -> None:
        """Hear of progress in the step that builds."""

    def wait(self, path: str) -> None:
        """Hear that another process builds this step, and is waited for."""

    def done(self, built: Built) -> None:
        """Hear that a step is there, built or found."""


@dataclass(frozen=True)
class At:
    """A table and the path of the step that it stands after."""

    path: str
    table: Table


@dataclass
class Runner:
    """Runs steps against a store.

    Attributes:
        store: Where artifacts are found and kept.
        rt: Where and how steps run.
        watcher: Hears of progress.
        remember: Told of each step as soon as it is there, so that `gc` spares it.
        built: All steps so far, in the order in which they ran.
        tried: Keys of what this command built, maybe by other runners: with ``rt.retry_failed``,
            what failed once more is not asked for again.
    """

    store: Store
    rt: Runtime
    watcher: Watcher = field(default_factory=Watcher)
    remember: Callable[[Built], None] = lambda built: None
    built: list[Built] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)

    def __call__(self, path: str, step: Step, inputs: Sequence[At]) -> At:
        """Return the table after a step, from the store if it is there."""
        tables = [at.table for at in inputs]
        asked = ask(step, tables, self.rt)
        artifact = self.store.find(step.STEP, asked.key)
        again = self.rt.retry_failed and asked.key not in self.tried
        if artifact and again and step.failed(artifact.manifest):
            self.store.discard(artifact)
            artifact = None
        cached = artifact is not None
        if artifact is None:
            artifact = self._build(path, step, tables, asked)
            self.tried.add(asked.key)
        built = Built(path, artifact, tuple(at.path for at in inputs), cached)
        self.built.append(built)
        self.remember(built)
        self.watcher.done(built)
        return At(path, after(tables, artifact))

    def _build(self, path: str, step: Step, tables: list[Table], asked: Asked) -> Artifact:
        totals = Totals()

        def tick(news: Tick) -> None:
            totals.add(news)
            self.watcher.tick(news)

        def wait() -> None:
            self.watcher.wait(path)

        with self.store.building(step.STEP, asked.key, on_wait=wait) as workshop:
            if isinstance(workshop, Artifact):
                return workshop
            self.watcher.start(path, step, sum(t.height for t in tables) if tables else None)
            started = time.monotonic()
            notes = step.run(tables, workshop, replace(self.rt, tick=tick))
            shapes = [table.shape for table in tables]
            rows = step.DELTA == "rows"
            return workshop.finish(
                version=asked.version,
                fields=asked.fields,
                inputs=asked.inputs,
                delta=step.DELTA,
                kind=step.check(shapes).kind if rows else None,
                schema=step.writes(shapes),
                n_shards=workshop.n_shards if rows else len(tables[0].shards),
                measured={"seconds": round(time.monotonic() - started, 3), **totals.measured()},
                notes=notes,
            )


def after(inputs: Sequence[Table], artifact: Artifact) -> Table:
    """Return the table that an artifact makes of the step's inputs."""
    if artifact.manifest.delta != "rows":
        return inputs[0].plus(artifact)
    return Table(artifact, parent=inputs[0] if artifact.manifest.kind == "answers" else None)


class Totals:
    """Ticks of one step, added up."""

    def __init__(self) -> None:
        self.rows = self.calls = self.reused = self.failed = self.tokens = 0
        self.usd: float | None = None
        self.spent: dict[str, dict[str, float]] = {}

    def add(self, tick: Tick) -> None:
        """Add one tick."""
        self.rows += tick.rows
        self.calls += tick.calls
        self.reused += tick.reused
        self.failed += tick.failed
        self.tokens += tick.tokens
        if tick.usd is not None:
            self.usd = (self.usd or 0.0) + tick.usd
        if tick.model is not None:
            by_model = self.spent.setdefault(tick.model, {})
            for name, amount in (
                ("calls", tick.calls), ("prompt_tokens", tick.prompt_tokens),
                ("completion_tokens", tick.tokens), ("usd", tick.usd),
            ):  # fmt: skip
                if amount is not None:
                    by_model[name] = by_model.get(name, 0) + amount

    def measured(self) -> dict[str, Any]:
        """Return what belongs into a manifest: nothing for a step that asks no model."""
        if not (self.calls or self.reused or self.failed):
            return {}
        counts = {"calls": self.calls, "reused": self.reused, "failed": self.failed}
        found = {**counts, "completion_tokens": self.tokens, "usd": self.usd}
        return {**found, "spent": self.spent} if self.spent else found
