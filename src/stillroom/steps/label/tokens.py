"""`tokens`: how long a text is to a model."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Self

import polars as pl
from pydantic import model_validator

from stillroom.errors import SourceError
from stillroom.rows import Schema
from stillroom.steps.base import Runtime, Shardwise
from stillroom.steps.decontaminate.search import Grams
from stillroom.steps.label.measure import Frames, Measure
from stillroom.steps.source.files import sha256_of


class Tokens(Measure):
    """How many tokens a text has for a tokenizer; special tokens are not added.

    Counting takes longer than all other work on tables: where an estimate will do, a third of the
    characters is near. ``completion_tokens`` of answers is there already.

    Attributes:
        tokenizer: A ``tokenizer.json``, or a model on the hub with its ``revision``.
        revision: A whole commit hash of the model on the hub.
        of: Column to measure.
        column: Name of the new column.
    """

    tokenizer: str
    revision: str | None = None
    of: str = "question"
    column: str = "tokens"

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        self._where()
        return self

    def _where(self) -> Grams:
        return Grams(n=1, tokenizer=self.tokenizer, revision=self.revision)

    def outside(self, rt: Runtime) -> str | None:
        """Digest a tokenizer that the fields do not pin."""
        if self.revision and self.tokenizer not in rt.sources:
            return None
        path = self._where().tokenizer_file(rt.sources)
        return sha256_of(path) if path else None

    def reads(self) -> Sequence[str]:
        """Read the text."""
        return (self.of,)

    def adds(self) -> Schema:
        """Add one column of integers."""
        return {self.column: pl.Int64()}

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Load the tokenizer once."""
        from tokenizers import Tokenizer

        path = self._where().tokenizer_file(rt.sources)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise SourceError(
                f"{path}: cannot be read as a tokenizer ({error}). "
                "Check that it is a tokenizer.json."
            ) from error
        # What the file says of cutting and filling up is for training, and would make lengths lie.
        tokenizer.no_truncation()
        tokenizer.no_padding()

        def measure(frame: pl.DataFrame) -> pl.DataFrame:
            lengths: list[int | None] = []
            for part in frame[self.of].to_frame().iter_slices(1_000):
                texts = part.to_series()
                known = texts.drop_nulls().to_list()
                found = iter(tokenizer.encode_batch_fast(known, add_special_tokens=False))
                lengths += [None if text is None else len(next(found)) for text in texts]
            data = {"id": frame["id"], self.column: lengths}
            return pl.DataFrame(data, schema_overrides=dict(self.adds()))

        yield measure
