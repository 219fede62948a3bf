"""Reading a study file, as strictly as a recipe."""

import re
from pathlib import Path

from pydantic import ValidationError

from stillroom.errors import RecipeError, SourceError
from stillroom.evaluate.grade import is_file, known_benchmark
from stillroom.recipe.document import Document
from stillroom.study.form import Mixing, Study


def load_study(path: Path) -> Study:
    """Read a study whose arms its file names; its name is that of the file, or of its folder.

    Raises:
        RecipeError: If it cannot be read, or says something that cannot be done.
    """
    loaded = load_design(path)
    if isinstance(loaded, Mixing):
        raise RecipeError(
            f"{path}: it has mixtures and no arms; expected a study with arms. Run it by "
            "`stillroom study`."
        )
    return loaded


def load_design(path: Path) -> Study | Mixing:
    """Read a study of either form: one that names its arms, or one that draws mixtures.

    Its benchmarks that are files are named by their paths from here.

    Raises:
        RecipeError: If it cannot be read, names a benchmark that is none, held out or not, or says
            something that cannot be done.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such study; expected a YAML file. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); expected UTF-8 text.") from None
    design = read_design(text, str(path), _name_of(path))
    benchmarks = design.benchmarks
    beside = {
        role: tuple(_beside(path, name) for name in getattr(benchmarks, role))
        for role in ("develop", "held_out")
    }
    return design.model_copy(update={"benchmarks": benchmarks.model_copy(update=beside)})


def _name_of(path: Path) -> str:
    """Name a study by its file, or by its folder if that is ``study.yaml``, however it is reached.

    >>> _name_of(Path("/studies/my study (2)/study.yaml"))
    'my-study-2'
    """
    name = path.resolve().parent.name if path.stem == "study" else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:96] or "study"


def _beside(path: Path, benchmark: str) -> str:
    """Find a benchmark that is a file beside the study that names it, and check that it is one."""
    own = is_file(benchmark)
    name = str(path.parent / benchmark) if own else benchmark
    try:
        known_benchmark(name)
    except SourceError as error:
        raise RecipeError(f"{path}: benchmarks: {error}") from None
    return name


def read_design(text: str, where: str = "study", name: str = "") -> Study | Mixing:
    """Read a study of either form from YAML text.

    Args:
        text: YAML; values only, no anchors, tags or merges.
        where: Name for messages.
        name: Name of the study, where the text gives none.

    Raises:
        RecipeError: If it is not YAML, or says something that cannot be done.
    """
    document = Document(where)
    data = document.parse(text)
    form: type[Study | Mixing] = Study
    if isinstance(data, dict) and "mixtures" in data:
        if "arms" in data:
            raise document.error(
                ("mixtures",), "stands beside arms; expected one of them: mixtures finds its arms"
            )
        form = Mixing
    document.mistaken(data, "study")
    document.unknown(data, form.model_fields, (), "field")
    try:
        return form.model_validate({"name": name, **data})
    except ValidationError as error:
        raise document.invalid(error, (), data, form) from None


def is_study(path: Path) -> bool:
    """Tell whether a file is a study rather than a recipe: whether it has arms, or finds them."""
    return _has(path, "arms:", "mixtures:")


def is_search(path: Path) -> bool:
    """Tell whether a file is a search: whether it has stages."""
    return _has(path, "stages:")


def _has(path: Path, *fields: str) -> bool:
    try:
        return any(line.startswith(fields) for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return False
