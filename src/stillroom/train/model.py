"""A small Qwen2 in plain torch, which reads and writes Hugging Face directories.

The same arithmetic as `transformers.Qwen2ForCausalLM`, with two differences in form: attention
is written out, because the fused kernel of torch is slow on a CPU in bfloat16 at these sizes,
and several rows may share one line of a batch (packing), kept apart by segment numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a model, in the words of a Qwen2 config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 1
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 1024

    @property
    def head_size(self) -> int:
        """Channels per attention head."""
        return self.hidden_size // self.num_attention_heads

    def to_json(self, *, bos_token_id: int | None, eos_token_id: int, pad_token_id: int) -> str:
        """Write config.json for `Qwen2ForCausalLM`."""
        fields = {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": self.rms_norm_eps,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": bos_token_id,
            "eos_token_id": eos_token_id,
            "pad_token_id": pad_token_id,
        }
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read a Qwen2 config.json.

        Raises:
            ValueError: If the directory holds another kind of model.
        """
        fields = json.loads(text)
        if fields.get("model_type") != "qwen2" or not fields.get("tie_word_embeddings"):
            kind = fields.get("model_type")
            raise ValueError(
                f"config.json: model_type is {kind!r}; expected qwen2, tied embeddings"
            )
        rope = fields.get("rope_theta") or fields.get("rope_parameters", {}).get("rope_theta")
        return cls(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            intermediate_size=fields["intermediate_size"],
            num_hidden_layers=fields["num_hidden_layers"],
            num_attention_heads=fields["num_attention_heads"],
            num_key_value_heads=fields["num_key_value_heads"],
            rope_theta=float(rope or 10000.0),
            rms_norm_eps=fields["rms_norm_eps"],
            max_position_embeddings=fields["max_position_embeddings"],
        )


class RMSNorm(nn.Module):
    """Scale to unit root mean square, in float32 as Qwen2 does."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Cache:
    """Keys and values of all layers, with room for later positions.

    Room beyond `used` holds zeros; the caller's bias must hide it.
    """

    def __init__(self, config: ModelConfig, rows: int, room: int, dtype: torch.dtype) -> None:
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, room)
        self.data = torch.zeros(*shape, config.head_size, dtype=dtype)
        self.used = 0

    @property
    def room(self) -> int:
        """Positions that fit."""
        return self.data.shape[4]

    def grow(self, more: int) -> None:
        """Make room for more positions."""
        self.data = F.pad(self.data, (0, 0, 0, more))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.data = self.data[:, :, rows]


class Attention(nn.Module):
    """Grouped-query attention, written out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.size = config.head_size
        width, kv_width = self.heads * self.size, self.kv_heads * self.size
        self.q_proj = nn.Linear(config.hidden_size, width, bias=True)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=True)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=True)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], bias: Tensor, cache: Cache | None, layer: int
    ) -> Tensor:
        """Attend.

        Args:
            x: (batch, time, hidden).
            rope: Cosines and sines, each (batch, 1, time, head size).
            bias: Added to scores; (batch, 1, time, keys), 0 where seen and very negative elsewhere.
            cache: Keys and values of earlier positions, to which these are added; or None.
            layer: Which part of the cache is this layer's.
        """
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv_heads, self.size).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.size).transpose(1, 2)
        # Scaling the queries costs less than scaling the scores, which are many more.
        q, k = _rotate(q * self.size**-0.5, rope), _rotate(k, rope)
        if cache is not None:
            keys, values = cache.data[layer]
            keys[:, :, cache.used : cache.used + t] = k
            values[:, :, cache.used : cache.used + t] = v
            k, v = keys, values
        group = self.heads // self.kv_heads
        # All query heads of one kv head ride in one matrix product: (group * time) rows.
        rows = q.reshape(b, self.kv_heads, group * t, self.size)
        scores = (rows @ k.transpose(2, 3)).view(b, self.heads, t, -1) + bias
        weights = scores.softmax(dim=-1).view(b, self.kv_heads, group * t, -1)
        mixed = (weights @ v).view(b, self.heads, t, self.size)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(b, t, -1))
        return out


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rope
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class MLP(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself."""
        hidden: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return hidden


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], bias: Tensor, cache: Cache | None, layer: int
    ) -> Tensor:
        """Run one layer; arguments as in `Attention.forward`."""
        x = x + self.self_attn(self.input_layernorm(x), rope, bias, cache, layer)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Qwen2(nn.Module):
    """A causal language model with tied embeddings.

    Parameter names are those of Hugging Face, without the leading "model.".
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        turns = config.head_size // 2
        inverse = config.rope_theta ** (-torch.arange(turns, dtype=torch.float32) / turns)
        angles = torch.outer(torch.arange(config.max_position_embeddings).float(), inverse)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def initialise(self, seed: int) -> None:
        """Set all weights from a seed: matrices by fan-in, outputs of layers smaller."""
        generator = torch.Generator().manual_seed(seed)
        depth = (2 * self.config.num_hidden_layers) ** -0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.startswith("embed"):
                    parameter.normal_(0.0, 0.02, generator=generator)
                elif parameter.ndim == 2:
                    scale = parameter.shape[1] ** -0.5
                    if name.endswith(("o_proj.weight", "down_proj.weight")):
                        scale *= depth
                    parameter.normal_(0.0, scale, generator=generator)
                elif name.endswith("bias"):
                    parameter.zero_()

    def forward(
        self, tokens: Tensor, positions: Tensor, bias: Tensor, cache: Cache | None = None
    ) -> Tensor:
        """Return logits, (batch, time, vocab).

        Args:
            tokens: (batch, time) ids.
            positions: (batch, time), counted from 0 in each row of text.
            bias: As in `Attention.forward`; as wide as the cache's room if there is one.
            cache: Earlier positions, to which these are added; or None.
        """
        x = self.embed_tokens(tokens)
        cos, sin = self.get_buffer("cos"), self.get_buffer("sin")
        rope = (cos[positions][:, None].to(x.dtype), sin[positions][:, None].to(x.dtype))
        for number, layer in enumerate(self.layers):
            x = layer(x, rope, bias, cache, number)
        if cache is not None:
            cache.used += tokens.shape[1]
        return F.linear(self.norm(x), self.embed_tokens.weight)


def save_weights(model: Qwen2, path: Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write model.safetensors under the names of Hugging Face."""
    tensors = {
        f"model.{name}": parameter.detach().to(dtype).contiguous()
        for name, parameter in model.named_parameters()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes private files


def load_model(directory: Path) -> Qwen2:
    """Read a Qwen2 directory into a float32 model.

    Raises:
        ValueError: If config.json describes another architecture, or weights do not fit it.
    """
    model = Qwen2(ModelConfig.from_json((directory / "config.json").read_text("utf-8")))
    tensors: dict[str, Any] = load_file(directory / "model.safetensors")
    named = {name.removeprefix("model."): tensor.float() for name, tensor in tensors.items()}
    named.pop("lm_head.weight", None)
    try:
        model.load_state_dict(named, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{directory}: weights do not fit config.json: {error}") from error
    return model
