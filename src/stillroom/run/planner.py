"""The Planner: walks the same pipeline as the Runner, builds nothing, and says what would be.

A step is *cached* if its artifact is there, *to build* if its inputs are, and *waiting* if an
earlier step must run before its key can even be known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stillroom.errors import SourceError
from stillroom.run.keys import Asked, ask
from stillroom.run.progress import duration
from stillroom.run.runner import after
from stillroom.steps.base import Calls, Runtime, Step
from stillroom.steps.foretelling import NARROW, add_up
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


def amount(calls: Calls) -> str:
    """Word the tokens and the money of missing completions.

    >>> dear = {"usd": 1.5, "usd_range": (1.4, 1.62)}
    >>> amount(Calls("m", 9, 9, tokens=1200, tokens_range=(1152, 1300), sample=50, **dear))
    '~1,200 -4% +8% ~$1.50 (1.40 to 1.62)'
    """
    if calls.tokens is None:
        return ""
    sign = "≤" if calls.bound else "~"
    within = usd_within = ""
    if calls.tokens and calls.tokens_range is not None and not calls.bound:
        low, high = (end / calls.tokens - 1 for end in calls.tokens_range)
        within = f" {low:+.0%} {high:+.0%}"
        if calls.usd_range is not None:
            usd_within = " ({:,.2f} to {:,.2f})".format(*calls.usd_range)
    money = f" {sign}${calls.usd:,.2f}{usd_within}" if calls.usd else ""
    return f"{sign}{calls.tokens:,}{within}{money}"


def totals(planned: Sequence[Planned]) -> list[str]:
    """Word what all steps together will ask of each model: calls, tokens, money, time."""
    by_model: dict[tuple[str, str], list[Calls]] = {}
    for plan in planned:
        calls = None if plan.state == "cached" else plan.calls
        while calls is not None:
            if calls.missing:
                alone = replace(calls, also=None)
                by_model.setdefault((calls.model, calls.unit), []).append(alone)
            calls = calls.also
    lines = []
    for (model, _), asked in by_model.items():
        lines.append(f"{model}: {_total(asked)}")
        if unsure := _unsure(asked):
            lines.append(f"{model}: {unsure}")
    return lines


def _total(calls: Sequence[Calls]) -> str:
    whole = add_up(calls)
    if calls[0].unit != "calls":
        return f"{'at most ' if whole.bound else ''}{whole.missing:,} {calls[0].unit}"
    sign = "at most" if whole.bound else "about"
    parts = [f"{whole.missing:,} calls"]
    prompts = [c.prompt_tokens for c in calls if c.prompt_tokens is not None]
    if len(prompts) == len(calls):
        parts.append(f"{sign} {sum(prompts):,} prompt tokens")
    if whole.tokens is None:
        return ", ".join([*parts, "tokens unknown: give max_tokens, or plan --pilot 50"])
    parts.append(f"{sign} {whole.tokens:,} completion tokens")
    if whole.usd is None:
        parts.append("price unknown")
    elif whole.usd_range is None:
        parts.append(f"{sign} ${whole.usd:,.2f}")
    else:
        low, high = whole.usd_range
        parts.append(f"about ${whole.usd:,.2f} (95%: ${low:,.2f} to ${high:,.2f})")
    times = [c.seconds for c in calls if c.seconds is not None]
    if len(times) == len(calls):
        parts.append(f"{sign} {duration(sum(times))}")
    sample = min(c.sample for c in calls)
    if not whole.bound and sample:
        parts.append(f"from {sample:,} answers")
    return ", ".join(parts)


def _unsure(calls: Sequence[Calls]) -> str:
    """Say how far off an estimate may be and what would help, if that is more than a tenth."""
    whole = add_up(calls)
    if not whole.tokens or whole.tokens_range is None:
        return ""
    low, high = (end / whole.tokens - 1 for end in whole.tokens_range)
    if max(-low, high) <= NARROW:
        return ""
    said = (
        f"answers are of many lengths: the rest may take {-low:.0%} fewer tokens or {high:.0%} more"
    )
    pilots = [c.pilot for c in calls]
    if None in pilots:
        return f"{said}; there are too few of them for a pilot that tells within {NARROW:.0%}."
    size = max(n for n in pilots if n is not None)
    return f"{said}; plan --pilot {size} tells within {NARROW:.0%}."


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
