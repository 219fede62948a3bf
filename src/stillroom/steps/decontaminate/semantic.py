"""Questions that say what a benchmark item says, in other words: nearest items, then a judge.

Cosines alone cannot tell "the same problem with other numbers" from "the same problem". So each
question is compared with the k nearest items, and a model is asked about every pair that is near
enough. A pair about which the judge cannot be read is undecided, and said to be.

Source: the decontamination of OpenMathInstruct-2 and OpenMathReasoning (arXiv 2504.16891), which
asks about the nearest items, in both orders if wanted. The wording is our own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from stillroom.kernels.vectors import Matrix, nearest
from stillroom.models.structured import Form, Inquiry, Outcome, ask, outcomes
from stillroom.rows import Schema
from stillroom.steps.asking import conversation, purchase, sampling
from stillroom.steps.base import Calls, ModelSpec, Runtime
from stillroom.steps.foretelling import estimate
from stillroom.steps.vectors import embed

PROMPT = """\
Below are two problems. Are they the same problem, up to wording? They are the same if whoever has \
a full solution of one has the answer of the other: a translation, other names or another story \
around the same numbers change nothing. They are not the same if numbers, conditions or what is \
asked differ so that the answer does, even if the method is one and the same.

First problem:
[[first]]

Second problem:
[[second]]

End of the problems. Do not solve them. Reply with one JSON object and nothing else. It has two \
fields: "same", true or false, and "reason", one sentence that says why."""

PAIRS: Schema = {
    "text": pl.UInt32(),
    "item": pl.UInt32(),
    "score": pl.Float64(),
    "same": pl.Boolean(),
    "reason": pl.String(),
}
"""A text and an item near it, their cosine, what the judge says (null: undecided), and why."""


class Sameness(Form):
    """What the judge fills in."""

    same: bool
    reason: str


@dataclass(frozen=True)
class Semantic:
    """How texts are compared with items.

    Attributes:
        embedder: Who tells what is near.
        judge: Who tells what is the same.
        k: Items that are looked at for each text, at most.
        floor: Cosine that a pair must exceed for the judge to be asked; what it means depends on
            the embedder.
        both_ways: Ask in both orders; a pair is the same if either reply says so, and different
            only if both do.
    """

    embedder: ModelSpec
    judge: ModelSpec
    k: int = 5
    floor: float = 0.5
    both_ways: bool = False

    def near(self, texts: pl.Series, items: pl.Series, rt: Runtime) -> pl.DataFrame:
        """Find the pairs that the judge is to look at.

        Args:
            texts: Questions; null and blank ones are near to nothing.
            items: Benchmark items.
            rt: Where the embedder is.

        Returns:
            ``text``, ``item`` (row numbers) and ``score``, by text, nearest first.
        """
        known = list(embed(items.fill_null("").to_list(), self.embedder, rt))
        if all(vector is None for vector in known):
            return pl.DataFrame(schema={n: PAIRS[n] for n in ("text", "item", "score")})
        targets = Matrix.of(known)
        found = Matrix.of(embed(texts.fill_null("").to_list(), self.embedder, rt), targets.width)
        pairs = nearest(found, targets, self.k, floor=max(0.0, self.floor), workers=rt.workers)
        return pairs.rename({"query": "text"})

    def judged(self, texts: pl.Series, items: pl.Series, rt: Runtime) -> pl.DataFrame:
        """Find the near pairs and have every one judged; what was judged before is not bought.

        Returns:
            The columns of `PAIRS`, by text, nearest first.
        """
        pairs = self.near(texts, items, rt)
        ledger = rt.ledger()

        def inquiries() -> Iterator[Inquiry[Sameness]]:
            for text, item in pairs.select("text", "item").iter_rows():
                yield from self._inquiries(texts[text], items[item])

        ask(inquiries, ledger, lambda requests: purchase(requests, self.judge, rt, again=True))
        found = outcomes(inquiries(), ledger)
        verdicts = [self._verdict([next(found) for _ in range(1 + self.both_ways)]) for _ in
                    range(pairs.height)]  # fmt: skip
        said = pl.DataFrame(
            verdicts, schema={n: PAIRS[n] for n in ("same", "reason")}, orient="row"
        )
        return pairs.hstack(said)

    def calls(self, pairs: int, rt: Runtime) -> Calls:
        """Say what judging so many pairs would take at most, every reply readable."""
        wanted = pairs * (1 + self.both_ways)
        return estimate(self.judge, rt, wanted=wanted, missing=wanted)

    def _inquiries(self, text: str, item: str) -> Iterator[Inquiry[Sameness]]:
        orders = [(text, item), (item, text)] if self.both_ways else [(text, item)]
        for first, second in orders:
            messages = conversation(self.judge, _worded(first, second))
            yield Inquiry(self.judge.name, messages, sampling(self.judge), Sameness)

    def _verdict(self, replies: list[Outcome[Sameness]]) -> tuple[bool | None, str | None]:
        forms = [reply.value for reply in replies if reply.value is not None]
        for form in forms:
            if form.same:
                return True, form.reason
        if len(forms) < len(replies):
            return None, None
        return False, forms[0].reason


def _worded(first: str, second: str) -> str:
    """Put both problems into the prompt; marks inside them stay what they are."""
    before, _, rest = PROMPT.partition("[[first]]")
    between, _, after = rest.partition("[[second]]")
    return f"{before}{first}{between}{second}{after}"
