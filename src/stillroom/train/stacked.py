"""`Qwen2` for many students at once: every weight has the student as its first axis.

The arithmetic of `stillroom.train.model`, equal to the last digits. It is written a second time
because torch.func.vmap makes twice as many operations of the model as stand here, and on a GPU
their number decides the speed; and because torch's own attention needs no room for the scores of
long lines, which on a CPU are short.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from stillroom.train.batches import Batch
from stillroom.train.model import ModelConfig


def stacked_logits(
    config: ModelConfig, weights: Mapping[str, Tensor], rope: tuple[Tensor, Tensor], batch: Batch
) -> Tensor:
    """Return logits, (students, lines * length, vocab).

    Args:
        config: The shape of each student.
        weights: By the names of `Qwen2`, (students, ...).
        rope: Cosines and sines of all positions, each (positions, head size).
        batch: What the students read.
    """
    students = len(batch.tokens)
    table = weights["embed_tokens.weight"]
    # Student n's rows of the table follow those of the n - 1 before it.
    first = torch.arange(students, device=table.device)[:, None] * config.vocab_size
    x = F.embedding(batch.tokens.flatten(1) + first, table.flatten(0, 1))
    cos, sin = (part[batch.positions.flatten(1)][:, :, None].to(x.dtype) for part in rope)
    bias = batch.bias.flatten(0, 1).to(x.dtype)
    for number in range(config.num_hidden_layers):
        layer = f"layers.{number}"
        normed = _norm(x, weights[f"{layer}.input_layernorm.weight"], config.rms_norm_eps)
        x = x + _attention(config, weights, f"{layer}.self_attn", normed, (cos, sin), bias)
        normed = _norm(x, weights[f"{layer}.post_attention_layernorm.weight"], config.rms_norm_eps)
        x = x + _feed_forward(weights, f"{layer}.mlp", normed)
    return torch.bmm(_norm(x, weights["norm.weight"], config.rms_norm_eps), table.mT)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight[:, None] * F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)


def _attention(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    at: str,
    x: Tensor,
    rope: tuple[Tensor, Tensor],
    bias: Tensor,
) -> Tensor:
    heads, kv_heads, size = (
        config.num_attention_heads, config.num_key_value_heads, config.head_size,
    )  # fmt: skip
    students, positions, _ = x.shape
    lines, length = len(bias), bias.shape[-1]
    q, k, v = (
        torch.baddbmm(weights[f"{at}.{part}.bias"][:, None], x, weights[f"{at}.{part}.weight"].mT)
        for part in ("q_proj", "k_proj", "v_proj")
    )
    both = torch.cat((q, k), dim=-1).view(students, positions, heads + kv_heads, size)
    left, right = both.chunk(2, dim=-1)
    both = both * rope[0] + torch.cat((-right, left), dim=-1) * rope[1]
    q, k = both.split_with_sizes((heads, kv_heads), dim=2)

    def by_line(part: Tensor, heads: int) -> Tensor:
        return part.reshape(lines, length, heads, size).transpose(1, 2)

    def shared(part: Tensor) -> Tensor:
        """Give every query head the keys or values of its group."""
        few = by_line(part, kv_heads)[:, :, None]
        return few.expand(-1, -1, heads // kv_heads, -1, -1).flatten(1, 2)

    mixed = F.scaled_dot_product_attention(by_line(q, heads), shared(k), shared(v), bias)
    joined = mixed.transpose(1, 2).reshape(students, positions, heads * size)
    return torch.bmm(joined, weights[f"{at}.o_proj.weight"].mT)


def _feed_forward(weights: Mapping[str, Tensor], at: str, x: Tensor) -> Tensor:
    gate, up, down = (weights[f"{at}.{part}_proj.weight"].mT for part in ("gate", "up", "down"))
    return torch.bmm(F.silu(torch.bmm(x, gate)) * torch.bmm(x, up), down)
