"""How likely a student finds given text: an outcome that moves before accuracy does.

Scored by the C engine, so a score depends on the weights and on the text alone, not on what is
scored beside it, on threads, or on the machine.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from stillroom.errors import ModelError
from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint, PromptError
from stillroom.train.trainer import Example


class Likelihood(NamedTuple):
    """Mean log-likelihood per token, in nats; 0 is certainty.

    Attributes:
        completion: Of reasoning and answer, given the question.
        answer: Of the answer, given the question and the reasoning.
    """

    completion: float
    answer: float


def log_likelihood(
    directory: Path, examples: Sequence[Example], *, threads: int | None = None
) -> list[Likelihood]:
    """Score texts under a model of Hugging Face form.

    Args:
        directory: The model.
        examples: What to score.
        threads: Texts scored at a time; None takes every core.

    Raises:
        ModelError: If the directory is not a model that the engine can run, or a text does not fit
            its context.
    """
    checkpoint = Checkpoint(directory)

    def score(example: Example) -> Likelihood:
        named = f"{directory}: {example.question[:60]!r}"
        try:
            prompt = checkpoint.prompt((Message("user", example.question),))
            whole = checkpoint.reply(prompt, example.reasoning, example.answer)
        except PromptError as error:
            raise ModelError(
                f"{named} and its answer cannot be worded ({error}); expected text for the chat "
                "template. Take other references."
            ) from None
        last = len(checkpoint.completion(example.answer))
        length, most = len(prompt.tokens) + len(whole), checkpoint.sizes.context
        if length > most:
            raise ModelError(
                f"{named} and its answer have {length:,} tokens; expected {most:,} or fewer, which "
                "is all that the model reads. Give `references` fewer max_tokens."
            )
        tokens = array("i", [*prompt.tokens, *whole])
        scored = memoryview(checkpoint.model.likelihoods(tokens)).cast("d")
        return Likelihood(sum(scored[-len(whole) :]) / len(whole), sum(scored[-last:]) / last)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        return list(pool.map(score, examples))
