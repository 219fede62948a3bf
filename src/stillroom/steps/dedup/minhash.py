"""`dedup: minhash`: questions that probably share most of their words, found without comparing."""

from typing import ClassVar, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from stillroom.kernels import indel, minhash
from stillroom.steps.base import Runtime
from stillroom.steps.dedup.method import REPEATS, Method, Ranked
from stillroom.text.normal import normal_form_expr


class MinHash(Method):
    """Two questions are the same if they fall into a bucket together.

    A question is the set of its shingles, runs of ``ngram`` words. Two questions whose sets have
    the Jaccard similarity s, 0 to 1, share a bucket with probability 1 - (1 - s^rows)^bands: by
    default one half at s = 0.67. The score of a dropped row is its true Jaccard similarity to its
    witness, in percent.

    This is fast and made for long texts. It is no substitute for ``indel``: two edits in a question
    of seventy words change about twelve of its shingles, so many near copies of short questions are
    missed, and a few pairs that are not alike are taken to be. A question of fewer than ``ngram``
    words is one shingle; one without words is never dropped.

    Attributes:
        ngram: Words, or characters, in a shingle.
        unit: ``words``, or ``characters`` of the normal form, spaces among them.
        bands: Chances to fall into a bucket together; more find more.
        rows: Hashes that must agree in a band; more find fewer. bands * rows is 4,096 at most.
        seed: Of the hash functions.
        rule: ``greedy``: a row goes if it shares a bucket with a better row that stays. ``chains``:
            of all rows that are linked by shared buckets, the best stays.
        verify: Indel similarity in percent, 50 to 100. Rows that are linked by shared buckets are
            then compared with each other, exactly, and a row goes if it reaches this with a better
            row that stays; that similarity is the score.
    """

    REASON: ClassVar[str] = "near_duplicate"

    ngram: int = Field(3, ge=1)
    unit: Literal["words", "characters"] = "words"
    bands: int = Field(16, ge=1)
    rows: int = Field(8, ge=1)
    seed: int = Field(42, ge=0, lt=2**64)
    rule: Literal["greedy", "chains"] = "greedy"
    verify: float | None = Field(None, ge=50, le=100)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.bands * self.rows > minhash.MOST_HASHES:
            raise ValueError(
                f"bands times rows is {self.bands * self.rows}; "
                f"expected {minhash.MOST_HASHES:,} at most"
            )
        if self.verify is not None:
            indel.check(self.verify)
            if self.rule == "chains":
                raise ValueError("rule is chains beside verify; expected greedy, or no verify")
        return self

    def find(self, rows: Ranked, rt: Runtime) -> pl.DataFrame:
        """Hash all questions, the best first."""
        texts = pl.concat(frame["question"] for frame in rows.frames("question"))
        texts = texts.gather(rows.rank.arg_sort())
        how = minhash.MinHash(self.ngram, self.unit, self.bands, self.rows, self.seed)
        rule: minhash.Rule = self.rule if self.verify is None else "chains"
        lost = how.lost(texts, rule=rule, workers=rt.workers).rename({"text": "row"})
        if self.verify is not None:
            return self._verified(texts, lost, rt)
        score = how.similarity(texts.gather(lost["row"]), texts.gather(lost["witness"]))
        return lost.with_columns(score.alias("score")).select(REPEATS.keys())

    def _verified(self, texts: pl.Series, lost: pl.DataFrame, rt: Runtime) -> pl.DataFrame:
        """Compare the rows of each group with each other."""
        assert self.verify is not None
        forms = texts.to_frame("text").select(normal_form_expr("text"))["text"]
        found = [pl.DataFrame(schema=dict(REPEATS))]
        for (first,), group in lost.group_by("witness", maintain_order=True):
            places = pl.concat([pl.Series([first], dtype=pl.UInt32), group["row"]])
            same = indel.dedup(forms.gather(places), self.verify, workers=rt.workers)
            found.append(
                same.select(
                    places.gather(same["row"]).alias("row"),
                    places.gather(same["witness"]).alias("witness"),
                    "score",
                )
            )
        return pl.concat(found)
