"""`decontaminate`: drop questions that a benchmark asks."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, model_validator

from stillroom.errors import SourceError
from stillroom.rows import Kind, Shape, content_id
from stillroom.steps.base import RowStep, Runtime, Shardwise
from stillroom.steps.source.files import Broken
from stillroom.steps.source.source import BENCHMARKS, Source
from stillroom.store.artifact import Delta
from stillroom.text.normal import normal_form

WORD = re.compile(r"\w+")


class Decontaminate(RowStep):
    """Drop questions that share a run of words with a benchmark item.

    Texts are compared in normal form, word by word, punctuation left out. A text with fewer words
    than ``ngram`` counts as one run, so a short question is dropped if it is the whole item. Each
    drop names benchmark and item, and quotes the run that both share.

    Attributes:
        against: Benchmarks by name, each with the fields of `source` that say where it is. A list
            of names of shipped ones, or of paths, will do. ``--source NAME=FILE`` works as for a
            source.
        ngram: Words in a run; 13 as in Brown et al. 2020, appendix C.
    """

    STEP: ClassVar[str] = "decontaminate"
    VERSION: ClassVar[int] = 1
    DELTA: ClassVar[Delta] = "drops"
    TAKES: ClassVar[Kind | None] = "questions"

    against: Mapping[str, Source] = Field(min_length=1)
    ngram: int = Field(13, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        against = value.get("against")
        names = [against] if isinstance(against, str) else against
        if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names):
            against = {Path(n).name.split(".")[0]: _locate(n) for n in names}
        return {**value, "against": against}

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare name, or a list of names, as the benchmarks."""
        return {"against": value}

    @property
    def benchmarks(self) -> Sequence[Source]:
        """Where the items are read, each under the benchmark's name."""
        return [source.model_copy(update={"as_": name}) for name, source in self.against.items()]

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question."""
        return ("question",)

    def outside(self, rt: Runtime) -> str | None:
        """Digest the benchmark files, where their content is not pinned by the fields."""
        return content_id(*[benchmark.outside(rt) for benchmark in self.benchmarks])

    @contextlib.contextmanager
    def prepare(self, rt: Runtime) -> Iterator[Shardwise]:
        """Index the benchmarks once."""
        index = self._index(rt)
        yield lambda frame: self._find(frame, index)

    def _index(self, rt: Runtime) -> dict[tuple[str, ...], str]:
        """Map each run of words to the benchmark item in which it stands first."""
        index: dict[tuple[str, ...], str] = {}
        for benchmark in self.benchmarks:
            items = 0
            for item in benchmark.questions(rt):
                if isinstance(item, Broken) or not item[1].strip():
                    place = item.place if isinstance(item, Broken) else f"item {item[0]}"
                    raise SourceError(
                        f"{benchmark.name}: {place} cannot be read or is empty; expected a "
                        "benchmark item. Repair the file: contamination by it would go unseen."
                    )
                items += 1
                for run in self._runs(item[1]):
                    index.setdefault(run, f"{benchmark.name}:{item[0]}")
            if not items:
                raise SourceError(f"{benchmark.name}: no items. Check that it is the right file.")
        return index

    def _runs(self, text: str) -> Iterable[tuple[str, ...]]:
        all_words = WORD.findall(normal_form(text))
        if len(all_words) < self.ngram:
            return [tuple(all_words)] if all_words else []
        return zip(*(islice(all_words, i, None) for i in range(self.ngram)), strict=False)

    def _find(self, frame: pl.DataFrame, index: Mapping[tuple[str, ...], str]) -> pl.DataFrame:
        hits: list[tuple[str, str, float, str]] = []
        for row_id, question in frame.iter_rows():
            run = next((r for r in self._runs(question) if r in index), None)
            if run is not None:
                witness = f"{index[run]} “{' '.join(run)}”"
                hits.append((row_id, "contaminated", float(len(run)), witness))
        columns = {"id": pl.String, "reason": pl.String, "score": pl.Float64, "witness": pl.String}
        return pl.DataFrame(hits, schema=columns, orient="row")


def _locate(name: str) -> dict[str, str]:
    return {"shipped": name} if name in BENCHMARKS else {"file": name}
