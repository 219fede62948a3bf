"""Reading a study file, as strictly as a recipe."""

from pathlib import Path

from pydantic import ValidationError

from stillroom.errors import RecipeError
from stillroom.recipe.document import Document
from stillroom.study.form import Study


def load_study(path: Path) -> Study:
    """Read a study from a YAML file; its name is that of the file, or of its folder.

    Raises:
        RecipeError: If it cannot be read, or says something that cannot be done.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such study; expected a YAML file. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); expected UTF-8 text.") from None
    name = path.parent.name if path.stem == "study" else path.stem
    return read_study(text, str(path), name)


def read_study(text: str, where: str = "study", name: str = "") -> Study:
    """Read a study from YAML text.

    Args:
        text: YAML; values only, no anchors, tags or merges.
        where: Name for messages.
        name: Name of the study, where the text gives none.

    Raises:
        RecipeError: If it is not YAML, or says something that cannot be done.
    """
    document = Document(where)
    data = document.parse(text)
    document.unknown(data, Study.model_fields, (), "field")
    try:
        return Study.model_validate({"name": name, **data})
    except ValidationError as error:
        raise document.invalid(error, (), data, Study) from None


def is_study(path: Path) -> bool:
    """Tell whether a file is a study rather than a recipe: whether it has arms."""
    try:
        return any(line.startswith("arms:") for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return False
