"""Measures of an answer's text that need nothing else: `format`, `repetition`, `language`, ..."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from stillroom.rows import Schema
from stillroom.steps.base import Runtime, Shardwise
from stillroom.steps.label.measure import Frames, Measure, Plain

Part = Literal["response", "reasoning", "answer", "question"]
"""What is measured: thinking and visible answer together, one of them, or the question."""

_FENCE = r"(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$"
_PYTHON_FENCE = r"(?ms)^[ \t]*```[ \t]*(?:python3?|py)[ \t]*$.*?^[ \t]*```[ \t]*$"


def parts(of: Part) -> Sequence[str]:
    """Name the columns of a part."""
    return ("reasoning", "answer") if of == "response" else (of,)


def text(of: Part) -> pl.Expr:
    """Return the text of a part; an answer without thinking is its visible answer."""
    return pl.concat_str(parts(of), separator="\n\n", ignore_nulls=of == "response")


class Format(Plain):
    r"""How an answer is built.

    ``truncated``: it was cut off, or its thinking never closed. ``thinks``: there is thinking apart
    from the answer. ``stray_tags``: a think tag stands where none should, so that there is more
    than one block. ``boxes``: ``\boxed`` in the visible answer. ``fences``: closed code blocks in
    it. ``python_only``: there is one at least, and all say that they are Python.
    ``code_in_thinking``: a code block in the thinking.
    """

    def reads(self) -> Sequence[str]:
        """Read both parts and why the answer ended."""
        return ("reasoning", "answer", "finish_reason")

    def adds(self) -> Schema:
        """Add a column for each finding."""
        flags = ("truncated", "thinks", "stray_tags", "python_only", "code_in_thinking")
        return {name: pl.Boolean() for name in flags} | {"boxes": pl.Int32(), "fences": pl.Int32()}

    def expressions(self) -> list[pl.Expr]:
        """Look at both parts."""
        answer, reasoning = pl.col("answer"), pl.col("reasoning").fill_null("")
        cut = (pl.col("finish_reason") == "length").fill_null(value=False)
        fences = answer.str.count_matches(_FENCE).cast(pl.Int32)
        python = answer.str.count_matches(_PYTHON_FENCE).cast(pl.Int32)
        tag = r"</?think>"
        return [
            (cut | (answer.str.strip_chars() == "")).alias("truncated"),
            (reasoning.str.strip_chars() != "").alias("thinks"),
            (answer.str.contains(tag) | reasoning.str.contains(tag)).alias("stray_tags"),
            ((fences > 0) & (fences == python)).alias("python_only"),
            reasoning.str.contains(r"(?m)^[ \t]*```").alias("code_in_thinking"),
            answer.str.count_matches(r"\\boxed\s*\{").cast(pl.Int32).alias("boxes"),
            fences.alias("fences"),
        ]


class Language(Plain):
    """In which script and language an answer, or a question, is written.

    ``foreign_share``: letters that are neither Latin nor Greek, of all letters. ``english_share``:
    words that are among the most usual of English, of all words of letters; about 0.3 to 0.5 in
    English prose, less in mathematics. Both are between 0 and 1, and null without letters.

    Not covered: which other language it is.

    Attributes:
        of: What is measured.
    """

    # The function words that make up about half of English text, and few words of others.
    WORDS: ClassVar[str] = (
        "the|of|and|to|in|that|is|was|for|it|with|as|be|on|by|this|are|at|from|have|not|which|so|if"
        "|we|you|there|then|but|can|let|what|would|because|each|since|also|when|where|into|its|all"
    )

    of: Part = "response"

    def reads(self) -> Sequence[str]:
        """Read the part."""
        return parts(self.of)

    def adds(self) -> Schema:
        """Add two shares."""
        return {"foreign_share": pl.Float64(), "english_share": pl.Float64()}

    def expressions(self) -> list[pl.Expr]:
        """Count letters and words."""
        words = text(self.of)
        letters = words.str.count_matches(r"\p{L}")
        foreign = words.str.count_matches(r"[\p{L}--[\p{Latin}\p{Greek}]]")
        all_words = words.str.count_matches(r"\b\p{L}+\b")
        english = words.str.count_matches(rf"(?i)\b(?:{self.WORDS})\b")
        return [
            pl.when(letters > 0).then(foreign / letters).alias("foreign_share"),
            pl.when(all_words > 0).then(english / all_words).alias("english_share"),
        ]


class Paragraphs(Plain):
    """How long the longest paragraph is, in characters: ``longest_paragraph``.

    Paragraphs are divided by blank lines.

    Attributes:
        of: What is measured.
    """

    of: Part = "response"

    def reads(self) -> Sequence[str]:
        """Read the part."""
        return parts(self.of)

    def adds(self) -> Schema:
        """Add one length."""
        return {"longest_paragraph": pl.Int64()}

    def expressions(self) -> list[pl.Expr]:
        """Measure each paragraph."""
        lines = text(self.of).str.replace_all(r"\r\n?", "\n").str.replace_all(r"\n[ \t]+\n", "\n\n")
        lengths = lines.str.split("\n\n").list.eval(pl.element().str.strip_chars().str.len_chars())
        return [lengths.list.max().cast(pl.Int64).alias("longest_paragraph")]


class Repetition(Measure):
    """How much an answer repeats itself.

    ``repeats``: how often its most usual run of ``ngram`` words occurs, overlaps included; 0 in a
    shorter text. ``loops``: how often the same words stand one after the other at the end, at least
    ``ngram`` words of them together; 1 when nothing is repeated.

    Attributes:
        ngram: Words of a run.
        of: What is measured.

    Source: AM-DeepSeek-R1-Distilled drops answers with a run of 20 tokens more than 20 times;
    Open-Reasoner-Zero looks for repeated ends with a suffix array.
    """

    ngram: int = Field(ge=1, le=1_000)
    of: Part = "response"

    @classmethod
    def shorthand(cls, value: object) -> object:
        """Take a bare number as the length of a run."""
        return {"ngram": value}

    def reads(self) -> Sequence[str]:
        """Read the part."""
        return parts(self.of)

    def adds(self) -> Schema:
        """Add two counts."""
        return {"repeats": pl.Int64(), "loops": pl.Int64()}

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Count in each text."""
        yield self._count

    def _count(self, frame: pl.DataFrame) -> pl.DataFrame:
        counts: list[Mapping[str, int | None]] = []
        for found in frame.select(text(self.of).alias("text"))["text"]:
            words = found.split() if found is not None else None
            counts.append(
                {
                    "repeats": None if words is None else repeats(words, self.ngram),
                    "loops": None if words is None else loops(words, self.ngram),
                }
            )
        data = pl.DataFrame(counts, schema=dict(self.adds()))
        return pl.concat([frame.select("id"), data], how="horizontal")


def repeats(words: Sequence[str], n: int) -> int:
    """Return how often the most usual run of n words occurs; 0 if there is none.

    >>> repeats("a b a b a".split(), 2)
    2
    """
    runs = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    return max(runs.values(), default=0)


def loops(words: Sequence[str], least: int) -> int:
    """Return how often the words at the end stand there one after the other.

    Args:
        words: A text.
        least: Words that the repeated end must have in all.

    >>> loops("so it is it is it is".split(), 4), loops("so it is".split(), 1)
    (3, 1)
    """
    # How many words from the end go on as those `period` earlier do: the Z-function, backwards.
    end = words[::-1]
    same, left, right, most = [0] * len(end), 0, 0, 1
    for period in range(1, len(end)):
        if period < right:
            same[period] = min(right - period, same[period - left])
        while period + same[period] < len(end) and end[same[period]] == end[period + same[period]]:
            same[period] += 1
        if period + same[period] > right:
            left, right = period, period + same[period]
        if same[period] >= period and period + same[period] >= least:
            most = max(most, 1 + same[period] // period)
    return most
