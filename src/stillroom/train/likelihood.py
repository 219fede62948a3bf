"""How likely a student finds given text: an outcome that moves before accuracy does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import Checkpoint
from stillroom.text.think import join_thinking
from stillroom.train.loop import causal_bias
from stillroom.train.model import load_model
from stillroom.train.trainer import Example

BATCH = 32
"""Texts scored together, of about one length."""


class Likelihood(NamedTuple):
    """Mean log-likelihood per token, in nats; 0 is certainty.

    Attributes:
        completion: Of reasoning and answer, given the question.
        answer: Of the answer, given the question and the reasoning.
    """

    completion: float
    answer: float


def log_likelihood(directory: Path, examples: Sequence[Example]) -> list[Likelihood]:
    """Score texts under a Qwen2 model of Hugging Face form, on one thread.

    Args:
        directory: The model.
        examples: What to score; each must fit the model's context.

    Raises:
        ModelError: If the model's files cannot be read.
        ValueError: If the directory holds another architecture.
    """
    torch.set_num_threads(1)
    checkpoint = Checkpoint(directory)
    model = load_model(directory).eval()
    rows = []
    for number, example in enumerate(examples):
        prompt = checkpoint.prompt((Message("user", example.question),)).tokens
        tail = checkpoint.completion(example.answer)
        whole = checkpoint.completion(join_thinking(example.reasoning, example.answer))
        rows.append((number, [*prompt, *whole], len(prompt), len(tail)))
    rows.sort(key=lambda row: len(row[1]))
    found: dict[int, Likelihood] = {}
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            length = max(len(tokens) for _, tokens, _, _ in batch)
            # Padding stands on the right, where no counted position can see it.
            padded = torch.tensor([t + [0] * (length - len(t)) for _, t, _, _ in batch])
            positions = torch.arange(length).expand(len(batch), length)
            logits = model(padded, positions, causal_bias(length)).float()
            chosen = torch.log_softmax(logits[:, :-1], -1).gather(2, padded[:, 1:, None])[..., 0]
            for line, (number, tokens, begin, last) in zip(chosen, batch, strict=True):
                end = len(tokens) - 1
                found[number] = Likelihood(
                    float(line[begin - 1 : end].mean()), float(line[end - last : end].mean())
                )
    return [found[number] for number in range(len(rows))]
