"""`decontaminate`: drop questions that a benchmark asks."""

import contextlib
import importlib.resources
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
from stillroom.steps.source.files import Broken, read_records, sha256_of
from stillroom.store.artifact import Delta
from stillroom.text.normal import normal_form

WORD = re.compile(r"\w+")

SHIPPED = ("proxy_suite",)
"""Benchmarks of our own that come with the package."""


class Decontaminate(RowStep):
    """Drop questions that share a run of words with a benchmark item.

    Texts are compared in normal form, word by word, punctuation left out. A text with fewer words
    than ``ngram`` counts as one run, so a short question is dropped if it is the whole item. Each
    drop names benchmark and item, and quotes the run that both share.

    Attributes:
        against: Benchmarks: names of shipped ones, or paths of files with columns ``id`` and
            ``question``. A file given by ``--source NAME=FILE`` stands in for the name.
        ngram: Words in a run; 13 as in Brown et al. 2020, appendix C.
    """

    STEP: ClassVar[str] = "decontaminate"
    VERSION: ClassVar[int] = 1
    DELTA: ClassVar[Delta] = "drops"
    TAKES: ClassVar[Kind | None] = "questions"

    against: tuple[str, ...] = Field(min_length=1)
    ngram: int = Field(13, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _one_benchmark(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("against"), str):
            return {**value, "against": [value["against"]]}
        return value

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare name, or a list of names, as the benchmarks."""
        return {"against": value}

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question."""
        return ("question",)

    def outside(self, rt: Runtime) -> str | None:
        """Digest the benchmark files."""
        return content_id(*[sha256_of(benchmark_file(n, rt.sources)) for n in self.against])

    @contextlib.contextmanager
    def prepare(self, rt: Runtime) -> Iterator[Shardwise]:
        """Index the benchmarks once."""
        index = self._index(rt)
        yield lambda frame: self._find(frame, index)

    def _index(self, rt: Runtime) -> dict[tuple[str, ...], str]:
        """Map each run of words to the benchmark item in which it stands first."""
        index: dict[tuple[str, ...], str] = {}
        for name in self.against:
            path = benchmark_file(name, rt.sources)
            for number, record in enumerate(read_records(path, ["id", "question"])):
                if isinstance(record, Broken):
                    raise SourceError(
                        f"{record.place}: {record.reason}; expected a benchmark item. Repair the "
                        "file: with an item missing, contamination would go unseen."
                    )
                if not isinstance(record.get("question"), str):
                    raise SourceError(
                        f"{path}: item {number} has no question; expected the columns id and "
                        "question. Name them so."
                    )
                item = f"{name}:{record.get('id', number)}"
                for run in self._runs(record["question"]):
                    index.setdefault(run, item)
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


def benchmark_file(name: str, sources: Mapping[str, str]) -> Path:
    """Find a benchmark's file.

    Raises:
        SourceError: If there is none.
    """
    if name in sources:
        return Path(sources[name])
    if name in SHIPPED:
        return Path(str(importlib.resources.files("stillroom.benchmarks") / f"{name}.jsonl"))
    path = Path(name).expanduser()
    if not path.is_file():
        raise SourceError(
            f"decontaminate.against: {name}: no such benchmark or file; shipped benchmarks are "
            f"{', '.join(SHIPPED)}. Give a path, or pass --source {name}=FILE."
        )
    return path
