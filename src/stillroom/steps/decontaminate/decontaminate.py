"""`decontaminate`: drop questions that a benchmark asks."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, model_validator

from stillroom.benchmarks.registry import benchmarks, expand
from stillroom.rows import Kind, Shape, content_id, dropped
from stillroom.steps.base import Out, RowStep, Runtime, Shardwise
from stillroom.steps.decontaminate.items import check_there, read_items
from stillroom.steps.decontaminate.search import Form, Grams, Search, describe
from stillroom.steps.source.files import sha256_of
from stillroom.steps.source.source import Source
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Decontaminate(RowStep):
    """Drop questions that a benchmark asks.

    A question is dropped if any of the methods finds it. The drop names the methods, benchmark and
    item, and quotes what is shared: the run of words, or, for ``indel``, the item. Its score is
    the similarity in percent, or else the length of the run.

    With no method given, a shared run of 13 words decides, as in Brown et al. 2020, appendix C.
    The rule of OpenThoughts (arXiv 2506.04178) is ``{indel: 75, ngram: {n: 13, tokenizer:
    Qwen/Qwen2-7B-Instruct, revision: ..., short: none}, text: raw}``; its earlier releases took
    ``indel: 95``. Where accounts of it differ, the authors' code is followed: similarity is
    2 LCS / (|a| + |b|), not LCS / max(|a|, |b|), and texts are compared as they stand.

    Attributes:
        against: Benchmarks: names in the registry, sets of them such as ``openthoughts12``, or
            paths; or a mapping of names to the fields of `source`. ``--source NAME=FILE`` works as
            for a source.
        indel: Least similarity of question and item in percent, 50 to 100.
        ngram: Words in a run that both share, or what else the run is of.
        text: Whether ``indel`` and token n-grams compare normal forms, or ``raw`` texts.
    """

    STEP: ClassVar[str] = "decontaminate"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "drops"
    TAKES: ClassVar[Kind | None] = "questions"
    METHODS: ClassVar[tuple[str, ...]] = ("indel", "ngram")
    SLICE: ClassVar[int | None] = 10_000

    against: Mapping[str, Source] = Field(min_length=1)
    indel: float | None = Field(None, ge=50, le=100)
    ngram: Grams | None = None
    text: Form = "normal"

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        methods = {name: value.get(name) for name in cls.METHODS}
        default = {"ngram": 13} if not any(m is not None for m in methods.values()) else {}
        return {**value, **default, "against": locate(value.get("against"))}

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare name, or a list of names, as the benchmarks."""
        return {"against": value}

    def identity(self) -> dict[str, Any]:
        """Return the benchmarks, and the methods that are used."""
        fields = {k: v for k, v in super().identity().items() if v is not None}
        fields["against"] = {b.name: b.identity() for b in self.benchmarks}
        if self.text == "normal":
            del fields["text"]
        return fields

    @property
    def benchmarks(self) -> Sequence[Source]:
        """Where the items are read, each under the benchmark's name."""
        return [source.model_copy(update={"as_": name}) for name, source in self.against.items()]

    def named(self) -> Sequence[str]:
        """Name the benchmarks, and the tokenizer."""
        tokenizer = self.ngram.tokenizer if self.ngram else None
        return [*self.against, *([tokenizer] if tokenizer else [])]

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question."""
        return ("question",)

    def outside(self, rt: Runtime) -> str | None:
        """Digest the benchmark files, where their content is not pinned by the fields."""
        for benchmark in self.benchmarks:
            check_there(benchmark, rt)
        parts = [benchmark.outside(rt) for benchmark in self.benchmarks]
        grams = self.ngram
        if grams and (grams.tokenizer in rt.sources or not grams.revision):
            path = grams.tokenizer_file(rt.sources)
            parts += [sha256_of(path)] if path else []
        return content_id(*parts)

    @contextlib.contextmanager
    def prepare(self, rt: Runtime) -> Iterator[Shardwise]:
        """Read and index the benchmarks once."""
        search = Search(
            read_items(self.benchmarks, rt),
            self.indel,
            self.ngram,
            self.text,
            self.ngram.tokenizer_file(rt.sources) if self.ngram else None,
            rt.workers,
        )
        yield lambda frame: _drops(frame, search)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Search shard after shard, and say which revisions were read where none is pinned."""
        super().run(inputs, out, rt)
        return [note for benchmark in self.benchmarks for note in benchmark.notes(rt)]


def locate(against: Any) -> Any:
    """Turn names of benchmarks, sets and paths into sources; leave anything else to the types."""
    if isinstance(against, str):
        against = [against]
    if isinstance(against, list | tuple):
        if not all(isinstance(entry, str | Mapping) for entry in against):
            return against
        found: dict[str, Any] = {}
        for entry in against:
            more = locate(entry) if isinstance(entry, Mapping) else _named(entry)
            for name, fields in more.items():
                if found.setdefault(name, fields) != fields:
                    raise ValueError(
                        f"against names {name} twice, as two different things; expected one. "
                        "Give one of them another name: {other: {file: PATH}}"
                    )
        return found
    if isinstance(against, Mapping):
        return {
            name: benchmarks()[name].source() if fields is None and name in benchmarks() else fields
            for name, fields in against.items()
        }
    return against


def _named(entry: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in expand(entry):
        known = benchmarks().get(name)
        found[Path(name).name.split(".")[0]] = known.source() if known else {"file": name}
    return found


def _drops(frame: pl.DataFrame, search: Search) -> pl.DataFrame:
    found = search.find(frame["question"])
    reasons, scores, witnesses, rows = [], [], [], []
    for (row,), hits in found.group_by("row", maintain_order=True):
        rows.append(row)
        reasons.append(f"contaminated by {' and '.join(hits['method'])}")
        scores.append(hits["score"][0])
        witnesses.append(describe(hits, search.items.names))
    ids = frame["id"].gather(pl.Series(rows, dtype=pl.UInt32))
    return dropped(ids, reasons, score=pl.Series(scores, dtype=pl.Float64), witness=witnesses)
