"""Scorers: how likely a model takes a text to be, token by token; nothing is written.

A local model scores on this machine's cores. A score depends on the weights and on the text alone:
not on what is scored beside it, on threads, or on the instruction set. What a server gives may also
depend on what it scores at the same time.
"""

import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from stillroom.errors import ModelError
from stillroom.models.endpoint import BrokenReplyError, Endpoint, RefusedError
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


class Scorer(Protocol):
    """Tells how likely a model takes texts to be."""

    name: str

    def score(self, passages: Iterable[Passage]) -> Iterator[Likelihood | str]:
        """Score texts, in order; words say why one has no score.

        Raises:
            ModelError: If the model cannot be used.
        """
        ...


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
        """Score texts on so many threads."""
        return _in_order(self._score, passages, self.threads)

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


class ServedScorer:
    """A model behind OpenAI-compatible servers that score prompts, as vLLM and SGLang do.

    A server is asked for one token after the text, with ``echo`` and ``logprobs``. It counts the
    tokens of what is given when it gets that alone; the text's are those beyond it.

    Args:
        endpoint: ``/completions`` of the servers.
        concurrency: Texts that are asked for at a time.
    """

    def __init__(self, endpoint: Endpoint, *, concurrency: int = 8) -> None:
        self.name = endpoint.name
        self.endpoint = endpoint
        self.concurrency = concurrency

    def score(self, passages: Iterable[Passage]) -> Iterator[Likelihood | str]:
        """Ask for scores, some texts at a time."""
        key = self.endpoint.key()
        return _in_order(lambda passage: self._score(passage, key), passages, self.concurrency)

    def _score(self, passage: Passage, key: str | None) -> Likelihood | str:
        try:
            before = len(self._logprobs(passage.given, key)) if passage.given else 0
            scored = self._logprobs(passage.given + passage.text, key)[max(1, before) :]
        except RefusedError:
            return "the server refused the text"
        if not scored:
            return "the text has no token to score"
        return Likelihood(math.fsum(scored), len(scored))

    def _logprobs(self, text: str, key: str | None) -> list[float]:
        """Score all tokens of a text; the first has nothing before it, and is 0."""
        body = {"prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        return self.endpoint.ask(body, key, self._read) if text else []

    def _read(self, reply: bytes) -> list[float]:
        try:
            content = json.loads(reply)
            tokens = int(content["usage"]["prompt_tokens"])
            found = (content["choices"][0]["logprobs"] or {"token_logprobs": []})["token_logprobs"]
            scores = [0.0, *map(float, found[1:tokens])]
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BrokenReplyError(f"a reply without scores ({error})") from None
        if len(found) < tokens:
            raise ModelError(
                f"{self.name}: {', '.join(self.endpoint.base_urls)} gave {len(found)} scores for a "
                f"prompt of {tokens} tokens; expected a server that scores prompts (`echo` with "
                "`logprobs`), as vLLM does. Serve the model by such a one, or locally."
            )
        # A sum is finite only if every number is.
        if not -math.inf < math.fsum(scores) <= 0:
            raise BrokenReplyError("scores that are no logarithms of probabilities")
        return scores


def _in_order(
    score: Callable[[Passage], Likelihood | str], passages: Iterable[Passage], threads: int
) -> Iterator[Likelihood | str]:
    waiting = iter(passages)
    with ThreadPoolExecutor(threads) as pool:
        while window := list(islice(waiting, 8 * threads)):
            yield from pool.map(score, window)
