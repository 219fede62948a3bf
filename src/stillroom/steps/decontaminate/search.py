"""Finding benchmark items in questions: by similarity of the whole, and by shared runs of words."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillroom.errors import SourceError
from stillroom.kernels.indel import join
from stillroom.kernels.ngrams import Ngrams
from stillroom.kernels.ngrams import quote as quote_words
from stillroom.rows import Schema
from stillroom.steps.base import Runtime
from stillroom.steps.decontaminate.items import Items
from stillroom.steps.decontaminate.letters import Letters
from stillroom.steps.decontaminate.semantic import Semantic
from stillroom.steps.source.fetch import COMMIT, fetch_tokenizer
from stillroom.text.normal import normal_form_expr

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Form = Literal["normal", "raw"]

FOUND: Schema = {
    "row": pl.UInt32(),
    "method": pl.String(),
    "item": pl.UInt32(),
    "score": pl.Float64(),
    "quote": pl.String(),
}
"""A question that a method found: its place, the item's place, and what both share."""

QUOTE = 240
"""Characters of a quotation: enough to judge by eye, few enough to print."""

_SPACE = re.compile(r"\s+")


class Grams(BaseModel):
    """A run of words, or of tokens, that a question and an item share. A bare number means n.

    Attributes:
        n: Words, or tokens, in the run.
        tokenizer: A ``tokenizer.json``, or a model on the hub with its ``revision``: then runs are
            of its tokens. By default they are of words in normal form.
        revision: A whole commit hash of the model on the hub.
        short: ``whole`` takes a text with fewer than n words as one run, so that a short item is
            found where it is the whole question; ``none`` lets it pass, as OpenThoughts does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(13, ge=1)
    tokenizer: str | None = None
    revision: str | None = None
    short: Literal["whole", "none"] = "whole"

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | Grams) else {"n": value}

    @model_validator(mode="after")
    def _pinned(self) -> "Grams":
        name = self.tokenizer
        on_hub = name is not None and not name.endswith(".json")
        if on_hub and not (self.revision and COMMIT.fullmatch(self.revision)):
            raise ValueError(
                f"tokenizer is {name!r} with revision {self.revision!r}; expected a path to a "
                "tokenizer.json, or a model with the 40 digits of a commit"
            )
        if not on_hub and self.revision:
            raise ValueError("revision goes with a tokenizer on the hub; expected none here")
        return self

    def tokenizer_file(self, sources: Mapping[str, str]) -> Path | None:
        """Return where the tokenizer lies on this machine, fetching it if need be.

        Args:
            sources: Local files that stand in for named ones.

        Raises:
            SourceError: If it is not there.
        """
        if self.tokenizer is None:
            return None
        if self.revision and self.tokenizer not in sources:
            return fetch_tokenizer(self.tokenizer, self.revision)
        path = Path(sources.get(self.tokenizer, self.tokenizer))
        if not path.is_file():
            raise SourceError(
                f"{path}: no such tokenizer; expected a tokenizer.json. Check the path."
            )
        return path


@dataclass
class Judge:
    """Asks about pairs that are near in meaning.

    Attributes:
        semantic: How texts are compared with items.
        rt: Where the models are.
        undecided: Pairs so far about which no reply could be read, of questions that stay.
    """

    semantic: Semantic
    rt: Runtime
    undecided: int = 0


@dataclass(frozen=True)
class Search:
    """Looks for benchmark items in questions.

    Attributes:
        items: What to look for.
        indel: Least similarity of the whole texts in percent, or None.
        ngram: The run that must be shared, or None.
        text: Whether ``indel`` and tokens compare normal forms, or texts as they stand. Words are
            always those of the normal form.
        tokenizer_file: Of ``ngram``, if it is of tokens.
        workers: Threads; what is found does not depend on them.
        judge: Who is asked about what the others did not find, or None.
    """

    items: Items
    indel: float | None
    ngram: Grams | None
    text: Form = "normal"
    tokenizer_file: Path | None = None
    workers: int = 1
    judge: Judge | None = None

    def find(
        self, questions: pl.Series, tick: Callable[[int], None] = lambda done: None
    ) -> pl.DataFrame:
        """Find questions that ask what an item asks.

        Args:
            questions: Texts.
            tick: Called now and then with the number of questions done since.

        Returns:
            The columns of `FOUND`: for each question and method at most one row, with the best
            item by ``indel``, and the item of the longest run by ``ngram``; in order of questions.
        """
        found = []
        if self.indel is not None:
            found.append(self._by_indel(questions, self.indel, tick))
        if self.ngram is not None:
            found.append(self._by_ngram(questions, self.ngram))
            if self.indel is None:
                tick(len(questions))
        if self.judge is not None:
            known = {hit[0] for hits in found for hit in hits}
            found.append(self._by_judge(questions, self.judge, known))
        frames = [pl.DataFrame(rows, schema=dict(FOUND), orient="row") for rows in found]
        return pl.concat(frames).sort("row", maintain_order=True)

    def _by_indel(
        self, questions: pl.Series, threshold: float, tick: Callable[[int], None]
    ) -> list[tuple[int, str, int, float, str]]:
        texts = self._form(questions)
        hits = join(texts, self._forms, threshold, workers=self.workers, tick=tick)
        return [
            (row, "indel", item, score, quotation(self.items.texts[item]))
            for row, item, score in hits.iter_rows()
        ]

    def _by_ngram(
        self, questions: pl.Series, grams: Grams
    ) -> list[tuple[int, str, int, float, str]]:
        units = self._units(questions)
        hits = self._index.find(units, run="longest", workers=self.workers)
        found = []
        for row, item, start, length in hits.select("text", "item", "start", "length").iter_rows():
            if self._tokenizer is None:
                shared = quote_words(questions[row], start, length)
            else:
                shared = self._tokenizer.decode(units[row][start : start + length].to_list())
            found.append((row, "ngram", item, float(length), quotation(shared)))
        if self._letters:
            known = {row for row, *_ in found}
            found += [
                (row, "ngram", item, float(length), quotation(shared))
                for row, item, length, shared in self._letters.find(questions, self.workers)
                if row not in known
            ]
        return found

    def _by_judge(
        self, questions: pl.Series, judge: Judge, known: Collection[int]
    ) -> list[tuple[int, str, int, float, str]]:
        rows = [row for row in range(len(questions)) if row not in known]
        items = pl.Series(self.items.texts, dtype=pl.String)
        pairs = judge.semantic.judged(questions.gather(rows), items, judge.rt)
        same = pairs.filter(pl.col("same")).unique("text", keep="first", maintain_order=True)
        stays = pairs.join(same, on="text", how="anti")
        judge.undecided += int(stays["same"].null_count())
        return [
            (rows[text], "judge", item, score, quotation(self.items.texts[item]))
            for text, item, score in same.select("text", "item", "score").iter_rows()
        ]

    def _form(self, texts: pl.Series) -> pl.Series:
        if self.text == "raw":
            return texts
        return texts.to_frame("text").select(normal_form_expr("text")).to_series()

    @cached_property
    def _forms(self) -> pl.Series:
        return self._form(pl.Series(self.items.texts, dtype=pl.String))

    @cached_property
    def _index(self) -> Ngrams:
        assert self.ngram is not None
        units = self._units(pl.Series(self.items.texts, dtype=pl.String))
        return Ngrams(units, self.ngram.n, short=self.ngram.short)

    @cached_property
    def _letters(self) -> Letters | None:
        """Items in Chinese and Japanese, where runs are of words."""
        if self.ngram is None or self._tokenizer is not None:
            return None
        items = pl.Series(self.items.texts, dtype=pl.String)
        return Letters(items, self.ngram.n, self.ngram.short)

    @cached_property
    def _tokenizer(self) -> "Tokenizer | None":
        if self.tokenizer_file is None:
            return None
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self.tokenizer_file))
        except Exception as error:  # the library raises plain Exception
            raise SourceError(
                f"{self.tokenizer_file}: cannot be read as a tokenizer ({error}). "
                "Check that it is a tokenizer.json."
            ) from error

    def _units(self, texts: pl.Series) -> pl.Series:
        if self._tokenizer is None:
            return texts
        forms = self._form(texts).to_list()
        encoded = self._tokenizer.encode_batch_fast(forms, add_special_tokens=False)
        return pl.Series([e.ids for e in encoded], dtype=pl.List(pl.UInt32))


def quotation(text: str) -> str:
    """Return a text on one line, printable, cut where it is long."""
    line = _SPACE.sub(" ", text).strip()
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= QUOTE else f"{line[: QUOTE - 1]}…"


def describe(found: pl.DataFrame, names: Sequence[str]) -> str:
    """Name the items that were found for one question, each with what it shares."""
    return "; ".join(f"{names[i]} “{q}”" for i, q in found.select("item", "quote").iter_rows())
