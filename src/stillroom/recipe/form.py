"""The form of a recipe: the objects that a recipe file is read into."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from stillroom.recipe.pipeline import Checker, Misplaced, walk
from stillroom.steps.answer.answer import Answer
from stillroom.steps.base import Misfit, ModelSpec, Step
from stillroom.steps.decontaminate.decontaminate import Decontaminate
from stillroom.steps.dedup.dedup import Dedup
from stillroom.steps.export.form import Export
from stillroom.steps.keep.keep import Keep
from stillroom.steps.keep.take import Take
from stillroom.steps.keep.upsample import Upsample
from stillroom.steps.label.label import Label
from stillroom.steps.mix.mix import Mix
from stillroom.steps.source.source import Source
from stillroom.steps.verify.verify import Verify

STEPS: Mapping[str, type[Step]] = {
    step.STEP: step
    for step in (Source, Mix, Label, Keep, Take, Upsample, Dedup, Decontaminate, Answer, Verify)
}
"""The words of a recipe, in the order in which rows usually flow."""


class Recipe(BaseModel):
    """One dataset, from sources to published rows.

    Attributes:
        name: Name of the dataset.
        description: A sentence or two for the dataset card.
        models: Role to model; steps name models by role.
        domains: Domain to the chain of steps that makes its rows.
        export: How the dataset is written.

    Raises:
        pydantic.ValidationError: If a step does not fit where it stands.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    description: str = ""
    models: Mapping[str, ModelSpec] = {}
    domains: Mapping[str, tuple[SerializeAsAny[Step], ...]] = Field(min_length=1)
    export: Export = Export()

    @model_validator(mode="before")
    @classmethod
    def _name_domains(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not isinstance(value.get("domains"), Mapping):
            return value
        domains = {
            name: tuple(_in_domain(step, name) for step in steps)
            for name, steps in value["domains"].items()
        }
        return {**value, "domains": domains}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.export.columns(walk(self.bound(), Checker()))
        return self

    def bound(self) -> dict[str, tuple[Step, ...]]:
        """Return the domains with models in place of roles.

        Raises:
            Misplaced: If a step names a role that is not there.
        """
        return {
            name: tuple(self._bind(f"{name}.{step.label}", step) for step in steps)
            for name, steps in self.domains.items()
        }

    def _bind(self, path: str, step: Step) -> Step:
        try:
            return step.bind(self.models)
        except Misfit as error:
            raise Misplaced(path, str(error)) from None


def _in_domain(step: Any, domain: str) -> Any:
    """Tell sources which domain they are for."""
    if isinstance(step, Source) and not step.domain:
        return step.model_copy(update={"domain": domain})
    if isinstance(step, Mix):
        branches = {
            name: tuple(_in_domain(s, domain) for s in steps)
            for name, steps in step.branches.items()
        }
        return step.model_copy(update={"branches": branches})
    return step
