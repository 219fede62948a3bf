"""`items`: the questions of a benchmark, as rows. Never in a recipe, so never trained on."""

from collections.abc import Sequence
from typing import ClassVar

from stillroom.rows import Shape
from stillroom.steps.source.source import Source


class Items(Source):
    """Read the items of a benchmark; the fields are those of `source`."""

    STEP: ClassVar[str] = "items"

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Allow benchmarks, which `source` refuses."""
        return Shape("questions", self.writes(shapes))
