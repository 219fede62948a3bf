"""`decontaminate`: drop questions that a benchmark asks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.benchmarks.registry import benchmarks, expand
from stillroom.models.structured import schema_of
from stillroom.rows import Kind, Shape, content_id, dropped
from stillroom.steps.asking import bound, role
from stillroom.steps.base import Calls, ModelSpec, Out, Runtime, Step, Tick
from stillroom.steps.decontaminate.items import check_there, read_items
from stillroom.steps.decontaminate.search import Form, Grams, Judge, Search, describe
from stillroom.steps.decontaminate.semantic import PROMPT, Sameness, Semantic
from stillroom.steps.foretelling import estimate_at_most
from stillroom.steps.source.files import sha256_of
from stillroom.steps.source.source import Source
from stillroom.steps.vectors import embedder_role, vectors_at_most, wanted_vectors
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Judged(BaseModel):
    """The same problem in other words: the nearest items by an embedder, then a judge.

    Only pairs that the other methods did not find are judged. A pair about which no reply could be
    read is undecided: the question stays, and the notes count it.

    Source: OpenMathReasoning (arXiv 2504.16891), which judges the nearest items.

    Attributes:
        embedder: Role of the embedder in the recipe's ``models``, or ``stillroom/ngrams-1``, which
            comes with the package and compares spelling, not meaning.
        judge: Role of the judge.
        k: Items that are judged for each question, at most.
        floor: Cosine that a pair must exceed to be judged, 0 to 1; what it means depends on the
            embedder.
        both_ways: Ask in both orders; a pair is the same if either reply says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedder: str | ModelSpec = "embedder"
    judge: str | ModelSpec = "judge"
    k: int = Field(5, ge=1, le=100)
    floor: float = Field(0.5, ge=0, le=1)
    both_ways: bool = False

    @property
    def calls(self) -> int:
        """Replies for one question, at most."""
        return self.k * (1 + self.both_ways)

    def semantic(self) -> Semantic:
        """Return what judges, once models stand in place of roles."""
        return Semantic(bound(self.embedder), bound(self.judge), self.k, self.floor, self.both_ways)


class Decontaminate(Step):
    """Drop questions that a benchmark asks.

    A question is dropped if any of the methods finds it. The drop names the methods, benchmark and
    item, and quotes what is shared: the run of words, or else the item. Its score is that of the
    first method: the similarity in percent, the length of the run, or the cosine.

    With no method given, a shared run of 13 words decides, as in Brown et al. 2020, appendix C.
    The rule of OpenThoughts (arXiv 2506.04178) is ``{indel: 75, ngram: {n: 13, tokenizer:
    Qwen/Qwen2-7B-Instruct, revision: ..., short: none}, text: raw}``; its earlier releases took
    ``indel: 95``. Where accounts of it differ, the authors' code is followed: similarity is
    2 LCS / (|a| + |b|), not LCS / max(|a|, |b|), and texts are compared as they stand.

    In Chinese and Japanese, which put no spaces between words, runs are of letters, two for each
    word.

    Attributes:
        against: Benchmarks: names in the registry, sets of them such as ``openthoughts12``, or
            paths; or a mapping of names to the fields of `source`. ``--source NAME=FILE`` works as
            for a source.
        indel: Least similarity of question and item in percent, 50 to 100.
        ngram: Words in a run that both share, or what else the run is of.
        judged: How the same problem in other words is found.
        text: Whether ``indel`` and token n-grams compare normal forms, or ``raw`` texts.
    """

    STEP: ClassVar[str] = "decontaminate"
    VERSION: ClassVar[int] = 3
    DELTA: ClassVar[Delta] = "drops"
    TAKES: ClassVar[Kind | None] = "questions"
    METHODS: ClassVar[tuple[str, ...]] = ("indel", "ngram", "judged")
    SLICE: ClassVar[int] = 10_000

    against: Mapping[str, Source] = Field(min_length=1)
    indel: float | None = Field(None, ge=50, le=100)
    ngram: Grams | None = None
    judged: Judged | None = None
    text: Form = "normal"

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = any(value.get(name) is not None for name in cls.METHODS)
        default = {} if given else {"ngram": 13}
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
        if self.judged:
            fields["judged"]["wording"] = content_id(PROMPT, schema_of(Sameness))
        return fields

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the roles of the judge and its embedder."""
        if self.judged is None:
            return self
        who = {
            "embedder": embedder_role(self.judged.embedder, models, "judged.embedder"),
            "judge": role(self.judged.judge, models, "judged.judge"),
        }
        return self.model_copy(update={"judged": self.judged.model_copy(update=who)})

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

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls | None:
        """Bound what the judge will be asked: which pairs are near is not known before."""
        if self.judged is None:
            return None
        (table,) = inputs
        texts = (text for frame in table.frames("question") for text in frame["question"])
        items = read_items(self.benchmarks, rt).texts
        vectors = wanted_vectors(chain(items, texts), self.judged.embedder, rt)
        judged = self.judged.calls * table.height
        return replace(estimate_at_most(bound(self.judged.judge), rt, judged), also=vectors)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound what the judge will be asked; items are counted when the questions are there."""
        if self.judged is None:
            return None
        vectors = vectors_at_most(rows, self.judged.embedder)
        judged = estimate_at_most(bound(self.judged.judge), rt, rows * self.judged.calls)
        return replace(judged, also=vectors)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Search shard after shard, and say what a reader should know.

        Notes tell the revisions that were read where none is pinned, and the undecided pairs.
        """
        (table,) = inputs
        # What the judge said is kept, so finished shards cost nothing when they are read again for
        # the count of undecided pairs.
        todo = [i for i in range(len(table.shards)) if self.judged or not out.has(i)]
        undecided = 0
        if todo:
            search = self._search(rt)
            for index in todo:
                frame = table.frame(index, "id", "question")
                found = [dropped([], [])]
                for part in frame.iter_slices(self.SLICE):
                    found.append(_drops(part, search))
                    rt.tick(Tick(rows=part.height))
                if not out.has(index):
                    out.write(index, pl.concat(found), rows_in=frame.height)
            undecided = search.judge.undecided if search.judge else 0
        notes = [note for benchmark in self.benchmarks for note in benchmark.notes(rt)]
        if undecided:
            notes.append(f"{undecided:,} near pairs are undecided; their questions stay.")
        return notes

    def _search(self, rt: Runtime) -> Search:
        return Search(
            read_items(self.benchmarks, rt),
            self.indel,
            self.ngram,
            self.text,
            self.ngram.tokenizer_file(rt.sources) if self.ngram else None,
            rt.workers,
            Judge(self.judged.semantic(), rt) if self.judged else None,
        )


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
