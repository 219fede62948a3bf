"""The pipeline that a recipe stands for: one function, walked by checker, planner and runner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stillroom.rows import Shape
from stillroom.steps.base import Misfit, Step
from stillroom.steps.keep.upsample import Upsample
from stillroom.steps.mix.mix import Mix

T = TypeVar("T")
Run = Callable[[str, Step, Sequence[T]], T]


def walk(domains: Mapping[str, Sequence[Step]], run: Run[T]) -> dict[str, T]:
    """Run every step after its inputs.

    Args:
        domains: Name to chain of steps.
        run: Called with the step's path, the step, and what it returned for the inputs.

    Returns:
        For each domain, what ``run`` returned for its last step.
    """
    return {name: _chain(name, steps, run) for name, steps in domains.items()}


def _chain(path: str, steps: Sequence[Step], run: Run[T], depth: int = 0) -> T:
    at: list[T] = []
    names: set[str] = set()
    repeated = 0
    for step in steps:
        here = f"{path}.{step.label}"
        if step.label in names:
            raise Misplaced(
                here,
                f"a second step of the name {step.label}; expected one. "
                "Name it with `as:`, beside its word",
            )
        names.add(step.label)
        if isinstance(step, Mix):
            if at:
                raise Misplaced(here, "mix stands after other steps; expected it first")
            at = [
                _chain(f"{here}.{name}", branch, run, depth + 1)
                for name, branch in step.mixed.items()
            ]
        at = [run(here, step.on(_stretch(depth, repeated)), at)]
        repeated += isinstance(step, Upsample)
    if not at:
        raise Misplaced(path, "no steps; expected at least a source")
    return at[0]


def _stretch(depth: int, repeated: int) -> str:
    """Name where rows are drawn, so that no two stretches that a row passes have one name."""
    parts = [("mixes below", depth), ("repeats before", repeated)]
    return ", ".join(f"{name} {n}" for name, n in parts if n)


class Misplaced(Misfit):
    """A step that does not fit where it stands.

    Attributes:
        path: Where: such as ``math.dedup``.
        what: What is wrong, and what was expected.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what


@dataclass(frozen=True)
class Checker:
    """Walks a pipeline with shapes in place of tables."""

    def __call__(self, path: str, step: Step, inputs: Sequence[Shape]) -> Shape:
        """Return the shape after a step.

        Raises:
            Misplaced: If the step does not fit.
        """
        try:
            return step.check(inputs)
        except Misplaced:
            raise
        except Misfit as error:
            raise Misplaced(path, str(error)) from None
