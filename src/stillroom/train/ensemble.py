"""Many students in one process: the weights of all are stacked, and one operation serves them all.

For a GPU, where one operation of a student of half a million parameters is over before the next is
launched. On a CPU core four together gain little, and each is then a student of its company to the
last digits; a process for each is the rule there (benches/lab/students.py, docs/trainers.md).

Each student has its own rows in its own order, exactly those that it would see alone. Batches of
one shape go through the model together, whoever's they are; then all students take one step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from stillroom.train.loop import (
    Batch,
    TokenRow,
    TrainRecord,
    TrainSettings,
    batches,
    cross_entropy,
    fastest_dtype,
    optimizer_of,
    rate,
)
from stillroom.train.model import Qwen2


def train_together(
    models: Sequence[Qwen2],
    rows: Sequence[Sequence[TokenRow]],
    settings: Sequence[TrainSettings],
    *,
    device: str = "cpu",
    report: Callable[[int, Sequence[float]], None] | None = None,
) -> list[TrainRecord]:
    """Train models of one shape in place.

    Args:
        models: Float32; hold the trained weights afterwards.
        rows: Examples of each, gone through again and again.
        settings: Of each; they may differ in the seed alone.
        device: Where to compute, such as ``cuda``.
        report: Called about a hundred times with the step and the mean loss of each student.

    Raises:
        ValueError: If settings or models differ, or a student has no rows.
    """
    shared = settings[0]
    if any(replace(one, seed=shared.seed) != shared for one in settings):
        raise ValueError("settings differ; expected the same for all students but for the seed")
    if any(model.config != models[0].config for model in models):
        raise ValueError("models differ in shape; expected one shape")
    torch.set_num_threads(shared.threads)
    started_cpu, started = time.process_time(), time.perf_counter()
    dtype = shared.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else fastest_dtype()
    records = [TrainRecord(replace(one), dtype) for one in settings]
    skeleton = Qwen2(models[0].config).to(device)
    masters = _stacked(models, device)
    kind = getattr(torch, dtype)
    workers = {name: part.to(kind, copy=True).requires_grad_() for name, part in masters.items()}
    copies = {name: worker.detach() for name, worker in workers.items()}
    optimizer = optimizer_of(masters, copies, shared)
    streams = [batches(given, one) for given, one in zip(rows, settings, strict=True)]
    seen: list[set[int]] = [set() for _ in models]
    held: list[Tensor] = []
    every = max(1, shared.steps // 100)
    for step in range(shared.steps):
        drawn = [next(stream) for stream in streams]
        losses = _losses(skeleton, workers, drawn, device)
        torch.autograd.backward(losses.sum())
        grads = {name: worker.grad for name, worker in workers.items() if worker.grad is not None}
        optimizer.step(grads, rate(step, shared))
        for worker in workers.values():
            worker.grad = None
        held.append(losses.detach())
        for record, batch, known in zip(records, drawn, seen, strict=True):
            record.add(batch)
            known.update(map(id, batch.rows))
        if len(held) == every or step + 1 == shared.steps:
            means = torch.stack(held).mean(0).tolist()
            held.clear()
            for record, mean in zip(records, means, strict=True):
                record.losses.append(round(mean, 4))
            if report:
                report(step + 1, means)
    for number, model in enumerate(models):
        model.load_state_dict({name: part[number] for name, part in masters.items()})
    for record, known in zip(records, seen, strict=True):
        record.distinct = len(known)
        record.cpu_s = (time.process_time() - started_cpu) / len(records)
        record.wall_s = time.perf_counter() - started
    return records


def _stacked(models: Sequence[Qwen2], device: str) -> dict[str, Tensor]:
    """Return the parameters of all, (students, ...)."""
    each = [dict(model.named_parameters()) for model in models]
    return {
        name: torch.stack([parameters[name].detach() for parameters in each]).to(device)
        for name in each[0]
    }


def _losses(
    skeleton: Qwen2, workers: dict[str, Tensor], drawn: Sequence[Batch], device: str
) -> Tensor:
    """Return the loss of each student on its own batch, (students,)."""

    def logits(
        weights: dict[str, Tensor], tokens: Tensor, positions: Tensor, bias: Tensor
    ) -> Tensor:
        found: Tensor = functional_call(skeleton, weights, (tokens, positions, bias))
        return found

    by_shape: dict[torch.Size, list[int]] = {}
    for number, batch in enumerate(drawn):
        by_shape.setdefault(batch.tokens.shape, []).append(number)
    kind = next(iter(workers.values())).dtype
    found: list[Tensor] = []
    order: list[int] = []
    for numbers in by_shape.values():
        # All of them is the common case for one shape, and needs no copy of the weights.
        whole = len(numbers) == len(drawn)
        at = torch.tensor(numbers, device=device)
        some = workers if whole else {n: w.index_select(0, at) for n, w in workers.items()}
        lines = drawn[numbers[0]].tokens.shape[0]

        def together(field: str, numbers: list[int] = numbers) -> Tensor:
            return torch.stack([getattr(drawn[n], field) for n in numbers]).to(device)

        bias = torch.stack([drawn[n].bias.expand(lines, -1, -1, -1) for n in numbers])
        scores = vmap(logits)(
            some, together("tokens"), together("positions"), bias.to(device, kind)
        )
        found.append(cross_entropy(scores.flatten(1, 2), together("targets").flatten(1)))
        order += numbers
    back = torch.tensor(order, device=device).argsort()
    return torch.cat(found)[back]
