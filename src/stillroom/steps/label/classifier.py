"""`classifier`: how much a text is like good examples, by a linear classifier trained on them."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from pydantic import Field, model_validator

from stillroom.rows import Schema, content_id
from stillroom.steps.base import Runtime, Shardwise
from stillroom.steps.label import examples
from stillroom.steps.label.fasttext import Training, train
from stillroom.steps.label.measure import Frames, Measure
from stillroom.steps.source.source import Source


class Classifier(Measure):
    """How much the text is like the positives and unlike the negatives, 0 to 1, by fastText.

    A classifier is trained on the examples, on one thread and with a seed, whenever the step is
    built; then it says for each text how probably it is a positive. A text without words has no
    value. Needs the extra ``fasttext``.

    Source: OpenThoughts, sections on question filtering and answer filtering; its hyper-parameters
    are the defaults. Decontaminate the examples: the classifier learns what is in them.

    Attributes:
        positives: Good examples: sources by name, a path, or a list of paths.
        negatives: Bad examples.
        of: Column to measure, or several, such as ``[question, answer]``, with a space between.
        training: How the classifier is trained.
        column: Name of the new column; ``COLUMN_engine`` says which library it was.
    """

    positives: Mapping[str, Source] = Field(min_length=1)
    negatives: Mapping[str, Source] = Field(min_length=1)
    of: tuple[str, ...] = Field(("question",), min_length=1)
    training: Training = Training()
    column: str = "classifier"

    @model_validator(mode="before")
    @classmethod
    def _sets(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        sets = {n: examples.named(value[n]) for n in ("positives", "negatives") if n in value}
        columns = {"of": (value["of"],)} if isinstance(value.get("of"), str) else {}
        return {**value, **sets, **columns}

    def identity(self) -> dict[str, Any]:
        """Let only what is said of the examples enter the key."""
        return {n: examples.identity(getattr(self, n)) for n in ("positives", "negatives")}

    def outside(self, rt: Runtime) -> str:
        """Digest the examples."""
        return content_id(*(examples.digest(s, rt) for s in (self.positives, self.negatives)))

    def named(self) -> Sequence[str]:
        """Name the examples."""
        return [*self.positives, *self.negatives]

    def reads(self) -> Sequence[str]:
        """Read the texts."""
        return self.of

    def adds(self) -> Schema:
        """Add the probability, and which library gave it."""
        return {self.column: pl.Float64(), f"{self.column}_engine": pl.String()}

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Train once."""
        good, bad = examples.texts(self.positives, rt), examples.texts(self.negatives, rt)
        classifier = train(good, bad, self.training)

        def measure(frame: pl.DataFrame) -> pl.DataFrame:
            joined = pl.concat_str(self.of, separator=" ", ignore_nulls=True).fill_null("")
            texts = frame.select(joined.alias("text"))["text"].to_list()
            names = list(self.adds())
            data = {"id": frame["id"], names[0]: classifier.good(texts)}
            made = pl.DataFrame(data, schema_overrides={names[0]: pl.Float64()})
            return made.with_columns(pl.lit(classifier.engine).alias(names[1]))

        yield measure
