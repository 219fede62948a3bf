"""Sets of good and bad examples, for measures that compare questions with them."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from stillroom.errors import SourceError
from stillroom.rows import content_id
from stillroom.steps.base import Runtime
from stillroom.steps.source.files import Broken
from stillroom.steps.source.source import Source

Sets = Mapping[str, Source]


def named(value: Any) -> Any:
    """Read sets of examples: sources by name, a list of paths, or one path."""
    paths = [value] if isinstance(value, str) else value
    if isinstance(paths, list | tuple) and all(isinstance(p, str) for p in paths):
        return {Path(p).name.split(".")[0]: {"file": p} for p in paths}
    return value


def identity(sets: Sets) -> dict[str, dict[str, Any]]:
    """Return the fields of each source that are given."""
    return {
        source.name: {k: v for k, v in source.identity().items() if v is not None}
        for source in sources(sets)
    }


def sources(sets: Sets) -> list[Source]:
    """Return where the examples are, each under its name, so that `--source` can replace it."""
    return [source.model_copy(update={"as_": name}) for name, source in sets.items()]


def digest(sets: Sets, rt: Runtime) -> str:
    """Digest files whose content the recipe does not pin."""
    return content_id(*[source.outside(rt) for source in sources(sets)])


def texts(sets: Sets, rt: Runtime, *, at_most: int | None = None) -> Iterator[str]:
    """Read the examples, set after set.

    Raises:
        SourceError: If a set cannot be read, or holds no text.
    """
    for source in sources(sets):
        found = 0
        for item in islice(source.questions(rt), at_most):
            if isinstance(item, Broken) or not item[1].strip():
                continue
            found += 1
            yield item[1]
        if not found:
            raise SourceError(
                f"{source.name}: no examples. Check that it is the right file, and its `question`."
            )
