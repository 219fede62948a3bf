"""`majority`: which final answer most draws of a question give; and the references it mends."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import polars as pl
from pydantic import Field

from stillroom.rows import Schema
from stillroom.steps.base import Runtime, Shardwise
from stillroom.steps.label.measure import Frames, Measure, Plain
from stillroom.verifiers import Verifier, key_of, verifier
from stillroom.verifiers.asked import said_for_good
from stillroom.verifiers.vote import Group, final_text, grouped


class Majority(Measure):
    """The final answer that more draws of the question give than any other, by value.

    Answers are put together when the verifier finds them equal, so that ``1/2`` and ``0.5`` are
    one. Draws without a final answer have no vote, nor have those that were cut off before they
    gave one; a tie has no majority. The columns: ``majority`` (the answer as most of its voters
    write it), ``majority_votes``, ``majority_share`` (of the draws that have a vote, 0 to 1) and
    ``in_majority``.

    Attributes:
        by: The verifier that finds answers equal.

    Source: Wang et al. 2022, self-consistency (arXiv 2203.11171); the paper's majority filter by
    math-verify compares extracted answers too.
    """

    GROUPS = True

    by: Literal["math", "choice", "exact"] = "math"

    @classmethod
    def shorthand(cls, value: object) -> object:
        """Take a bare word as the verifier."""
        return {"by": value}

    def identity(self) -> dict[str, Any]:
        """Let a changed verifier change the key."""
        return {"by": key_of(self.by)}

    def reads(self) -> Sequence[str]:
        """Read the visible answers and how they ended, question by question."""
        return ("question_id", "answer", "finish_reason")

    def adds(self) -> Schema:
        """Add the majority, its votes, and whether a draw is in it."""
        return {
            "majority": pl.String(),
            "majority_votes": pl.Int32(),
            "majority_share": pl.Float64(),
            "in_majority": pl.Boolean(),
        }

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Start the verifier once for all shards."""
        with verifier(self.by, workers=rt.workers) as judge:
            yield lambda frame: self._vote(frame, judge)

    def _vote(self, frame: pl.DataFrame, judge: Verifier) -> pl.DataFrame:
        votes: dict[str, Counter[str]] = {}
        found = []
        columns = frame.select("question_id", "answer", "finish_reason")
        for question, answer, ended in columns.iter_rows():
            text = final_text(said_for_good(answer, ended), self.by)
            found.append((question, text))
            counted = votes.setdefault(question, Counter())
            if text is not None:
                counted[text] += 1
        winners: dict[str, tuple[Group, float]] = {}
        for question, groups in grouped(votes, judge).items():
            first, second, *_ = *sorted(groups, key=lambda group: -group[1]), ((), 0), ((), 0)
            if first[1] > second[1]:
                winners[question] = (first, first[1] / sum(n for _, n in groups))
        rows: list[tuple[str | None, int | None, float | None, bool | None]] = []
        for question, text in found:
            if question in winners:
                (texts, n), share = winners[question]
                rows.append((texts[0], n, share, text in texts))
            else:
                rows.append((None, None, None, None))
        columns = pl.DataFrame(rows, schema=dict(self.adds()), orient="row")
        return pl.concat([frame.select("id"), columns], how="horizontal")


class Repair(Plain):
    """What the reference should say, where every draw agrees on another answer.

    Needs the columns of `majority` and of `verify`. A reference is mended only if all draws have
    the same final answer, every one of them is ``incorrect``, and there are at least ``votes`` of
    them. The reference itself stays: ``repaired_reference`` is a column beside it, null where
    nothing was mended.

    Attributes:
        votes: Draws that must agree; few agree by chance.
    """

    GROUPS = True

    votes: int = Field(ge=2)

    @classmethod
    def shorthand(cls, value: object) -> object:
        """Take a bare number as the votes."""
        return {"votes": value}

    def reads(self) -> Sequence[str]:
        """Read verdicts and votes."""
        return ("question_id", "verdict", "majority", "majority_votes")

    def adds(self) -> Schema:
        """Add the mended reference."""
        return {"repaired_reference": pl.String()}

    def expressions(self) -> list[pl.Expr]:
        """Look at all draws of a question."""
        against = (pl.col("verdict") == "incorrect").all().over("question_id")
        agreed = pl.col("majority_votes") == pl.len().over("question_id")
        enough = pl.col("majority_votes") >= self.votes
        mended = pl.when(against & agreed & enough).then(pl.col("majority"))
        return [mended.alias("repaired_reference")]
