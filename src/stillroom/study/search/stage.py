"""A stage that was run: its study, and what goes on from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.errors import RecipeError
from stillroom.study.arms import NoSuchPlace, change, read_arm
from stillroom.study.form import Study
from stillroom.study.mixing.run import Mixed
from stillroom.study.race.run import Raced
from stillroom.study.result import Result
from stillroom.study.search.form import Entry
from stillroom.study.statistics.outcomes import Outcomes


@dataclass(frozen=True)
class Stage:
    """A stage that was run.

    Attributes:
        entry: What the search says of it.
        study: Its study, on the base that the stages before it made.
        result: What came out.
        mixed: What a study with mixtures did before; None for others.
        raced: The race, of which ``study`` and ``result`` are the last round; None for others.
        ranking: All arms, the best mean first; those that could not be trained last.
        chosen: The arm that the rule chose.
        promoted: The arm that went on.
        because: Why a person overruled the rule; empty if nobody did.
        asked: Arm to completions asked for, all seeds together.
    """

    entry: Entry
    study: Study
    result: Result
    mixed: Mixed | None
    raced: Raced | None
    ranking: tuple[str, ...]
    chosen: str
    promoted: str
    because: str
    asked: Mapping[str, int]

    @property
    def changes(self) -> Mapping[str, Any]:
        """What goes into the recipe of the next stage."""
        if self.entry.ranks is None:
            return self.study.arms[self.promoted]
        first = self.promoted if self.because else self.ranking[0]
        others = [arm for arm in self.ranking if arm != first]
        return {self.entry.ranks: [first, *others]}

    @property
    def arms(self) -> list[str]:
        """The arms that were trained, control first."""
        return [arm for arm in self.study.arms if arm in self.asked]

    @property
    def promotes(self) -> str:
        """What goes on, in words."""
        if self.entry.ranks is None:
            return self.promoted
        return "ranked: " + ", ".join(next(iter(self.changes.values())))

    @property
    def outcomes(self) -> Outcomes:
        """What the arms that were trained are compared by."""
        return outcomes_of(self.result, self.arms)


def outcomes_of(result: Result, arms: Sequence[str]) -> Outcomes:
    """Return what some arms of a study are compared by."""
    grades = result.grades()
    return Outcomes.of(grades.filter(grades["arm"].is_in(arms)), arms)


def promote(
    name: str, data: Mapping[str, Any], changes: Mapping[str, Any], stage: str
) -> dict[str, Any]:
    """Change a recipe's data as a stage says, and check what comes out.

    Raises:
        RecipeError: If what comes out is no recipe.
    """
    try:
        changed = change(data, changes)
    except NoSuchPlace as error:
        raise RecipeError(f"stage {stage}: {error}. The base is {name}.") from None
    read_arm(name, changed, f"promoted by {stage}", {})
    return changed
