"""Scorers: how likely a model takes a text to be, token by token; nothing is written.

A local model scores on this machine's cores. A score depends on the weights and on the text alone:
not on what is scored beside it, on threads, or on the instruction set.
"""

import os
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from stillroom.models.local.checkpoint import Checkpoint


@dataclass(frozen=True)
class Passage:
    """A text, and what a reader knows before it.

    Attributes:
        text: What is scored.
        given: What stands before it and is not scored; empty for nothing.
    """

    text: str
    given: str = ""


@dataclass(frozen=True)
class Likelihood:
    """How likely a text is.

    Attributes:
        total: Sum of the natural logarithms of the probabilities of its tokens; 0 or below.
        tokens: Tokens that were scored. The first token of all has nothing before it, and is not.
    """

    total: float
    tokens: int


class LocalScorer:
    """A model directory that scores.

    Args:
        checkpoint: The model.
        name: Its frozen name.
        threads: Texts that are scored at a time; None takes every core.
    """

    def __init__(self, checkpoint: Checkpoint, *, name: str, threads: int | None = None) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.threads = threads or os.cpu_count() or 1

    def score(self, passages: Iterable[Passage]) -> Iterator[Likelihood | str]:
        """Score texts, in order; words say why one has no score."""
        waiting = iter(passages)
        with ThreadPoolExecutor(self.threads) as pool:
            while window := list(islice(waiting, 8 * self.threads)):
                yield from pool.map(self._score, window)

    def _score(self, passage: Passage) -> Likelihood | str:
        before = self.checkpoint.tokens(passage.given) if passage.given else []
        tokens = [*before, *self.checkpoint.tokens(passage.text)]
        context = self.checkpoint.sizes.context
        if len(tokens) > context:
            return f"the text is longer than the {context:,} tokens that {self.name} reads"
        first = max(1, len(before))
        if len(tokens) <= first:
            return "the text has no token to score"
        data = self.checkpoint.model.likelihoods(array("i", tokens))
        scored = memoryview(data).cast("d")[first - 1 :]
        return Likelihood(sum(scored), len(scored))
