"""A plain batched sampler with a key-value cache, to grade what was just trained.

Not the engine that recipes use: a draw depends on what else is in its batch, through the shared
stream of random numbers. The same call with the same seed gives the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from stillroom.train.loop import fastest_dtype
from stillroom.train.model import Cache, Qwen2

_UNSEEN = -1e4
_CHUNK = 32  # key positions are added in steps of this size, so that few shapes occur


class Draw(NamedTuple):
    """What was written after one prompt."""

    tokens: list[int]
    """Without the end token."""
    ended: bool
    """Whether the end token came before the limit."""


@torch.no_grad()
def sample(
    model: Qwen2,
    prompts: Sequence[Sequence[int]],
    *,
    end: int,
    max_tokens: int,
    temperature: float,
    seed: int,
    batch: int = 128,
    dtype: str = "auto",
    threads: int = 1,
) -> list[Draw]:
    """Write on after each prompt.

    Args:
        model: Any working type; a copy runs in `dtype`.
        prompts: Token ids; none empty.
        end: The token that ends a text.
        max_tokens: Most tokens per text.
        temperature: 0 takes the likeliest token.
        seed: Decides all draws of this call together.
        batch: Prompts at once.
        dtype: "bfloat16", "float32", or "auto" for the faster one.
        threads: CPU threads.

    Raises:
        ValueError: If a prompt and max_tokens exceed the longest text of the model.
    """
    torch.set_num_threads(threads)
    longest = model.config.max_position_embeddings
    if any(not 0 < len(prompt) <= longest - max_tokens for prompt in prompts):
        raise ValueError(f"each prompt must have 1 to {longest - max_tokens} tokens")
    kind = fastest_dtype() if dtype == "auto" else dtype
    worker = Qwen2(model.config).to(getattr(torch, kind))
    worker.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    draws: list[Draw | None] = [None] * len(prompts)
    # Prompts of like length ride together, so that little is padded.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for at in range(0, len(order), batch):
        group = order[at : at + batch]
        written = _write(
            worker, [prompts[i] for i in group], end, max_tokens, temperature, generator
        )
        for i, draw in zip(group, written, strict=True):
            draws[i] = draw
    return [draw for draw in draws if draw is not None]


def _write(
    model: Qwen2,
    prompts: Sequence[Sequence[int]],
    end: int,
    max_tokens: int,
    temperature: float,
    generator: torch.Generator,
) -> list[Draw]:
    dtype = model.embed_tokens.weight.dtype
    n, width = len(prompts), max(len(prompt) for prompt in prompts)
    room = -(-width // _CHUNK) * _CHUNK
    tokens = torch.zeros(n, width, dtype=torch.long)
    hidden = torch.full((n, 1, 1, room), _UNSEEN)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.tensor(prompt)
        hidden[row, 0, 0, width - len(prompt) : width] = 0.0
    positions = ((hidden[:, 0, 0, :width] == 0).cumsum(1) - 1).clamp(min=0)
    causal = torch.full((1, 1, width, room), _UNSEEN).triu(1)
    cache = Cache(model.config, n, room, dtype)
    logits = model(tokens, positions, (hidden + causal).to(dtype), cache)[:, -1]
    hidden, position = hidden.to(dtype), positions[:, -1:]
    texts: list[list[int]] = [[] for _ in range(n)]
    ended = [False] * n
    alive = list(range(n))
    for _ in range(max_tokens):
        chosen = _choose(logits.float(), temperature, generator)
        for row, token in zip(alive, chosen.tolist(), strict=True):
            if token == end:
                ended[row] = True
            elif not ended[row]:
                texts[row].append(token)
        stay = [at for at, row in enumerate(alive) if not ended[row]]
        if not stay:
            break
        # Finished rows idle along until an eighth is done, so that few shapes occur.
        if len(stay) <= len(alive) - max(1, n // 8):
            at = torch.tensor(stay)
            alive = [alive[row] for row in stay]
            chosen, position, hidden = chosen[at], position[at], hidden[at]
            cache.keep(at)
        if cache.used == cache.room:
            cache.grow(_CHUNK)
            hidden = F.pad(hidden, (0, _CHUNK), value=_UNSEEN)
        hidden[..., cache.used] = 0.0
        position = position + 1
        logits = model(chosen[:, None], position, hidden, cache)[:, -1]
    return [Draw(text, done) for text, done in zip(texts, ended, strict=True)]


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    if temperature == 0:
        return logits.argmax(dim=-1)
    # The largest of logits plus Gumbel noise is a draw from the softmax.
    uniform = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
    return (logits / temperature - (-uniform.log()).log()).argmax(dim=-1)
