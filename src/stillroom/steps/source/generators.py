"""Questions that are generated: our own task families, and the tasks of reasoning-gym."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.errors import SetupError, SourceError
from stillroom.families import FAMILIES, LEVELS, VERSION, Problem, stream
from stillroom.rows import Schema

_NO_GYM = SetupError(
    "source gym: reasoning-gym is not installed; expected the extra. "
    "Run pip install 'stillroom[reasoning-gym]'."
)


class Procedural(BaseModel):
    """Task families of our own, with exact references (`stillroom.families`).

    Questions come from the ``train`` split, which shares no question with the held-out one.

    Attributes:
        n: Questions to make.
        families: Which families, in equal shares; by default those of the recipe's domain, or all
            if it is none of math, code and science.
        levels: Which levels of difficulty, 1 (easy) to 5, in equal shares.
        flaws: Share of questions with each flaw, such as ``{near_duplicate: 0.05}``.
        seed: Other seeds give other questions of the same kinds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    COLUMNS: ClassVar[Schema] = {
        "family": pl.String(),
        "level": pl.Int64(),
        "flaw": pl.String(),
    }

    n: int = Field(ge=1)
    families: tuple[str, ...] | None = Field(None, min_length=1)
    levels: tuple[int, ...] = Field(LEVELS, min_length=1)
    flaws: Mapping[str, float] = {}
    seed: int = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        self._stream("")  # it knows its families, levels and flaws, and says so
        return self

    @property
    def release(self) -> str:
        """What makes the questions: the same release makes the same ones."""
        return f"stillroom.families {VERSION}"

    def _stream(self, domain: str) -> Sequence[Problem]:
        everything = tuple(FAMILIES)
        ours = tuple(name for name in everything if FAMILIES[name].domain == domain)
        names = self.families or ours or everything
        return stream(names, self.levels, "train", self.seed, self.flaws, length=self.n)

    def records(self, domain: str) -> Iterator[Mapping[str, Any]]:
        """Generate the questions, in order."""
        for problem in self._stream(domain):
            yield {
                "question": problem.question,
                "reference": problem.reference,
                "family": problem.family,
                "level": problem.level,
                "flaw": problem.flaw,
            }


class Gym(BaseModel):
    """A task of the reasoning-gym package (Apache-2.0).

    Attributes:
        task: Name, such as ``chain_sum``.
        n: Questions to make.
        seed: Other seeds give other questions.
        settings: The task's own settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    COLUMNS: ClassVar[Schema] = {"task": pl.String()}

    task: str
    n: int = Field(ge=1)
    seed: int = 0
    settings: Mapping[str, int | float | str | bool | tuple[int | float | str, ...]] = {}

    @property
    def release(self) -> str:
        """What makes the questions: the same release makes the same ones.

        Raises:
            SetupError: If reasoning-gym is not installed.
        """
        try:
            return f"reasoning-gym {version('reasoning-gym')}"
        except PackageNotFoundError:
            raise _NO_GYM from None

    def records(self, domain: str) -> Iterator[Mapping[str, Any]]:
        """Generate the questions, in order.

        Raises:
            SetupError: If reasoning-gym is not installed.
            SourceError: If it has no such task, or refuses the settings.
        """
        try:
            import reasoning_gym
        except ImportError as error:
            raise _NO_GYM from error
        try:
            tasks = reasoning_gym.create_dataset(
                self.task, size=self.n, seed=self.seed, **self.settings
            )
        except (ValueError, TypeError, AssertionError) as error:
            raise SourceError(
                f"source gym {self.task}: {error}. See the task's settings in reasoning-gym."
            ) from error
        for index in range(self.n):
            entry = tasks[index]
            yield {"question": entry["question"], "reference": entry["answer"], "task": self.task}
