"""The plain training loop: fixed shapes, packed rows, loss on answers only.

Written for models of about a million parameters on one CPU core, where a trainer's overhead
costs more than the model. Float32 master weights are updated by Muon (matrices) and AdamW (the
rest). The forward and backward passes run on a working copy in bfloat16 where the CPU multiplies
it, else in float32; the choice changes results in the last digits, so it is recorded.

Deterministic for a seed on one machine with one thread. Not bit-equal across CPU types.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from stillroom.train.batches import IGNORED, Batch, Draw, TokenRow, collate, draws
from stillroom.train.model import Qwen2
from stillroom.train.optimizer import Optimizer


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to do, apart from model and rows."""

    steps: int
    tokens_per_step: int = 4096
    muon_lr: float = 4e-3
    adam_lr: float = 2e-3
    warmup_share: float = 0.02
    """Share of steps over which the learning rate rises from 0, 0 to 1."""
    decay_share: float = 1.0
    """Share of steps at the end over which it falls; 1 with "cosine" is plain cosine decay."""
    decay: Literal["cosine", "linear"] = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient of the non-matrix parameters."""
    seed: int = 0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    threads: int = 1


@dataclass(slots=True)
class TrainRecord:
    """What happened."""

    settings: TrainSettings
    dtype: str
    """The working type that ran."""
    steps: int = 0
    tokens: int = 0
    """Tokens of rows, without padding."""
    padded_tokens: int = 0
    rows: int = 0
    """Rows seen, repeats counted."""
    distinct: int = 0
    """Different rows seen: fewer than were given where the steps end before."""
    losses: list[float] = field(default_factory=list)
    """Mean loss in nats per learnt token, one per 1% of the steps."""
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def add(self, draw: Draw) -> None:
        """Count one step."""
        rows = draw.rows
        self.steps += 1
        self.tokens += sum(len(row.tokens) for row in rows)
        self.padded_tokens += len(draw.lines) * draw.length
        self.rows += len(rows)


def train(
    model: Qwen2,
    rows: Iterable[TokenRow],
    settings: TrainSettings,
    *,
    report: Callable[[int, float, float], None] | None = None,
) -> TrainRecord:
    """Train a model in place.

    Args:
        model: Float32; holds the trained weights afterwards.
        rows: Examples. A sequence is gone through again and again in a new order each time; any
            other iterable is used once and must not run dry.
        settings: Steps, rates and seed.
        report: Called about a hundred times with step, mean loss and CPU seconds.

    Raises:
        ValueError: If there are no rows, one is longer than the largest bucket, or an iterator
            runs dry.
    """
    torch.set_num_threads(settings.threads)
    started_cpu, started = time.process_time(), time.perf_counter()
    dtype = fastest_dtype() if settings.dtype == "auto" else settings.dtype
    record = TrainRecord(settings=replace(settings), dtype=dtype)
    worker = Qwen2(model.config).to(getattr(torch, dtype))
    worker.load_state_dict(model.state_dict())
    parameters = dict(worker.named_parameters())
    optimizer = optimizer_of(_alone(model), _alone(worker), settings)
    stream = draws(rows, settings.tokens_per_step, settings.seed)
    seen: set[int] = set()
    every = max(1, settings.steps // 100)
    held: list[Tensor] = []
    for step in range(settings.steps):
        draw = next(stream, None)
        if draw is None:
            raise ValueError(f"rows ran dry at step {step} of {settings.steps}")
        loss = loss_of(worker, collate(draw))
        torch.autograd.backward(loss)
        grads = {
            name: each.grad[None] for name, each in parameters.items() if each.grad is not None
        }
        optimizer.step(grads, rate(step, settings))
        worker.zero_grad()
        held.append(loss.detach())
        record.add(draw)
        seen.update(map(id, draw.rows))
        if len(held) == every or step + 1 == settings.steps:
            mean = float(torch.stack(held).mean())
            record.losses.append(round(mean, 4))
            held.clear()
            if report:
                report(step + 1, mean, time.process_time() - started_cpu)
    # Rows of an iterator come once each, and their ids are used again.
    record.distinct = len(seen) if isinstance(rows, Sequence) else record.rows
    record.cpu_s = time.process_time() - started_cpu
    record.wall_s = time.perf_counter() - started
    return record


def fastest_dtype(device: str = "cpu") -> Literal["bfloat16", "float32"]:
    """Name the faster working type, by what the device can multiply.

    Where instructions for bfloat16 exist (AVX512_BF16, AMX, those of Arm; NVIDIA from Ampere on),
    it wins by far at these sizes. Elsewhere it is emulated and loses.
    """
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return "bfloat16" if fast else "float32"


def loss_of(model: Qwen2, batch: Batch) -> Tensor:
    """Return the mean loss on a batch of one student, in nats per learnt token."""
    tokens, positions, targets, bias = (part[0] for part in batch)
    logits = model(tokens, positions, bias.to(model.embed_tokens.weight.dtype))
    return cross_entropy(logits.flatten(0, 1), targets.flatten())


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy over positions that count, of each student apart.

    Args:
        logits: (..., positions, vocab).
        targets: (..., positions).
    """
    loss: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


class _CrossEntropy(torch.autograd.Function):
    """See `cross_entropy`.

    torch's own takes a fifth of a step on one core, most of it in the backward pass, which here
    is one subtraction.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        counted = targets != IGNORED
        at = targets.clamp(min=0)[..., None]
        wide = logits.float()
        wide -= wide.amax(dim=-1, keepdim=True)
        chosen = wide.gather(-1, at)
        share = wide.exp_()
        total = share.sum(dim=-1, keepdim=True)
        share /= total
        share.scatter_add_(-1, at, torch.full_like(chosen, -1.0))
        count = counted.sum(dim=-1, keepdim=True).clamp(min=1)
        share *= (counted / count)[..., None]
        ctx.save_for_backward(share.to(logits.dtype))
        return ((total.log() - chosen)[..., 0] * counted).sum(dim=-1) / count[..., 0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return share * grads[0].to(share.dtype)[..., None, None], None


def _alone(model: Qwen2) -> dict[str, Tensor]:
    """Return a model's parameters as those of one student, sharing their memory."""
    return {name: parameter.detach()[None] for name, parameter in model.named_parameters()}


def optimizer_of(
    masters: dict[str, Tensor], workers: dict[str, Tensor], settings: TrainSettings
) -> Optimizer:
    """Return the optimizer of some students, by the settings of them all."""
    return Optimizer(
        masters, workers, muon_lr=settings.muon_lr, adam_lr=settings.adam_lr,
        weight_decay=settings.weight_decay, clip=settings.clip,
    )  # fmt: skip


def rate(step: int, settings: TrainSettings) -> float:
    """Return the share of the full learning rate at a step, 0 to 1."""
    warmup = max(1, round(settings.steps * settings.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    falling = max(1, round(settings.steps * settings.decay_share))
    left = min(1.0, (settings.steps - step) / falling)
    if settings.decay == "linear":
        return left
    return float(0.5 - 0.5 * torch.cos(torch.tensor(torch.pi * left)))
