"""A search: studies in order, the winner of each going into the recipe of the next.

    base: base.yaml
    stages:
      - {study: 1-sources/study.yaml, ranks: math.mix.rank}
      - 2-mixing/study.yaml
      - 3-questions/study.yaml
    rule: best
    overrule:
      3-questions: {arm: "longest answers", because: "it grows further"}

A stage is a study file; its own `base` is not read here, because its base is what the stages before
it made. The rule is stated beforehand: `best` promotes the arm of the highest mean; `cheapest`
promotes the one that asks for the fewest completions, of the arms that cannot be told from the
best, and of equally cheap ones the first. Of a race (`stillroom.study.race.rounds`) the same rule
chooses among the arms that are left. A person may overrule it with a reason, and the report shows
both. A stage with `ranks` promotes the order of its arms, the best mean first, and not one arm:
sources are ranked before it is asked how many of the best to mix. A study with `mixtures` is a
stage like any other: its arms are the base's weights and those that its regression proposes.

Source: OpenThoughts, arXiv 2506.04178, section 3: six stages, each winner frozen before the next.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stillroom.errors import RecipeError
from stillroom.recipe.document import Document
from stillroom.study.form import Mixing, Study
from stillroom.study.load import load_design

Rule = Literal["best", "cheapest"]


class Overruled(BaseModel):
    """A person's choice in place of the rule's.

    Attributes:
        arm: The arm to promote.
        because: Why; the report shows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    because: str = Field(min_length=1)


class Entry(BaseModel):
    """A stage of a search as its file names it.

    Attributes:
        study: A study file, relative to the search.
        ranks: Where in the recipe the names of all arms go, the best first; see
            `stillroom.study.arms`. Without it the changes of the winner go on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    ranks: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"study": value} if isinstance(value, str) else value


class Search(BaseModel):
    """Stages in order, and how winners are chosen.

    Attributes:
        base: The recipe that the first stage starts from: a path beside the search, or a shipped
            name.
        stages: Studies in order; a file name alone stands for its study.
        rule: ``best`` or ``cheapest``.
        overrule: Name of a stage to a person's choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    stages: tuple[Entry, ...] = Field(min_length=1)
    rule: Rule = "best"
    overrule: Mapping[str, Overruled] = {}


def load_search(path: Path) -> Search:
    """Read a search from a YAML file, and its stages.

    Raises:
        RecipeError: If it cannot be read, or says something that cannot be done.
    """
    document = Document(str(path))
    try:
        data = document.parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path}: cannot be read ({error}); expected a search in YAML. Check the path."
        ) from None
    document.mistaken(data, "search")
    document.unknown(data, Search.model_fields, (), "field")
    try:
        search = Search.model_validate(data)
    except ValidationError as error:
        raise document.invalid(error, (), data, Search) from None
    names: list[str] = []
    for number, entry in enumerate(search.stages):
        design = load_design(path.parent / entry.study)
        if design.name in names:
            raise document.error(
                ("stages", number),
                f"is {design.name}, as a stage before it; expected another name, because reports "
                "and choices go by it",
            )
        if entry.ranks and isinstance(design, Mixing):
            raise document.error(
                ("stages", number, "ranks"),
                f"cannot be of {design.name}, which has mixtures; expected a study with arms",
            )
        if entry.ranks and isinstance(design, Study) and design.race:
            raise document.error(
                ("stages", number, "ranks"),
                f"cannot be of {design.name}, which is a race: arms that leave early are in no "
                "order; expected a study that runs all its arms",
            )
        names.append(design.name)
    for name in search.overrule:
        if name not in names:
            raise document.error(
                ("overrule", name), f"is no stage; expected one of {', '.join(names)}"
            )
    return search
