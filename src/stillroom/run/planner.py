"""The Planner: walks the same pipeline as the Runner, builds nothing, and says what would be.

A step is *cached* if its artifact is there, *to build* if its inputs are, and *waiting* if an
earlier step must run before its key can even be known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stillroom.errors import SourceError
from stillroom.run.keys import Asked, ask
from stillroom.run.runner import after
from stillroom.steps.base import Calls, Runtime, Step
from stillroom.store.artifact import Manifest
from stillroom.store.store import Store
from stillroom.store.table import Table

State = Literal["cached", "to build", "waiting"]


@dataclass(frozen=True)
class Planned:
    """What a plan says of one step.

    Attributes:
        path: Where the step stands in the recipe.
        step: The step.
        state: ``cached``, ``to build`` or ``waiting``.
        rows: Rows after it, where they are known.
        at_most: A bound on them, where they are not.
        calls: Completions that it would ask for, where they are known.
        why: Why it is not cached, a phrase each.
        table: The table after it, if cached.
    """

    path: str
    step: Step
    state: State
    rows: int | None = None
    at_most: int | None = None
    calls: Calls | None = None
    why: tuple[str, ...] = ()
    table: Table | None = None


@dataclass
class Planner:
    """Says what a run would do.

    Attributes:
        store: Where artifacts are looked up.
        rt: Where and how steps would run.
        before: Path to the manifest that this recipe used there when it last ran.
        planned: All steps so far, in order.
    """

    store: Store
    rt: Runtime
    before: Mapping[str, Manifest]
    planned: list[Planned] = field(default_factory=list)

    def __call__(self, path: str, step: Step, inputs: Sequence[Planned]) -> Planned:
        """Plan one step."""
        planned = self._plan(path, step, inputs)
        self.planned.append(planned)
        return planned

    def _plan(self, path: str, step: Step, inputs: Sequence[Planned]) -> Planned:
        bounds = [i.at_most if i.rows is None else i.rows for i in inputs]
        at_most = step.at_most(bounds)
        missing = [i.path for i in inputs if i.table is None]
        if missing:
            after_these = (f"after {', '.join(missing)}",)
            calls = None if bounds[0] is None else step.calls_at_most(bounds[0], self.rt)
            return Planned(path, step, "waiting", at_most=at_most, calls=calls, why=after_these)
        tables = [i.table for i in inputs if i.table is not None]
        try:
            asked = ask(step, tables, self.rt)
        except SourceError as error:
            return Planned(path, step, "to build", at_most=at_most, why=(str(error),))
        artifact = self.store.find(step.STEP, asked.key)
        if artifact is not None:
            table = after(tables, artifact)
            return Planned(path, step, "cached", rows=table.height, table=table)
        calls = step.calls(tables, self.rt)
        why = explain(asked, self.before.get(path))
        return Planned(path, step, "to build", at_most=at_most, calls=calls, why=why)


def explain(asked: Asked, before: Manifest | None) -> tuple[str, ...]:
    """Say what differs between a step as it is asked for and as it last ran here."""
    if before is None:
        return ("never ran",)
    if before.step != asked.step:
        return (f"was {before.step}",)
    reasons = []
    if before.version != asked.version:
        reasons.append(f"version {before.version} → {asked.version}")
    reasons += _differences("", before.fields, asked.fields)
    for i, (old, new) in enumerate(zip(before.inputs, asked.inputs, strict=False)):
        which = f"input {i + 1}" if len(asked.inputs) > 1 else "its input"
        if old["columns"] != new["columns"]:
            reasons.append(f"{which}: reads {', '.join(new['columns'])}")
        elif old["digest"] != new["digest"]:
            reasons.append(f"{which} has other rows")
    if len(before.inputs) != len(asked.inputs):
        reasons.append(f"inputs {len(before.inputs)} → {len(asked.inputs)}")
    return tuple(reasons) or ("its artifact is gone",)


def _differences(path: str, old: Any, new: Any) -> list[str]:
    """List the fields that differ, by path, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in dict.fromkeys([*old, *new]):
            found += _differences(f"{path}.{name}" if path else name, old.get(name), new.get(name))
        return found
    return [] if old == new else [f"{path} {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "…"
