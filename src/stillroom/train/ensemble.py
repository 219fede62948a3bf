"""Many students in one process: the weights of all are stacked, and one operation serves them all.

For a GPU, where one operation of a student of half a million parameters is over before the next is
launched. What counts there is how many operations a step has, and that nothing waits for the
device: the tokens of all rows lie on it, steps are planned some at a time as numbers of rows, and
losses are read a hundred times in a training. Each student has its own rows in its own order,
exactly those that it would see alone, but all steps have one shape: as wide as the longest row of
any student needs. On a CPU, which would compute much that is then thrown away, a process for each
is the rule (docs/trainers.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from stillroom.train.batches import (
    Batch,
    Draw,
    TokenRow,
    bucket_of,
    draws,
    lay_out,
    lines_of,
    text_of,
)
from stillroom.train.loop import (
    TrainRecord,
    TrainSettings,
    cross_entropy,
    fastest_dtype,
    optimizer_of,
    rate,
)
from stillroom.train.model import Qwen2
from stillroom.train.stacked import stacked_logits

PLANNED = 16
"""Steps that are planned, and copied to the device, at a time."""


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
        torch.OutOfMemoryError: If the device has no room for so many; models are as they were.
    """
    shared = settings[0]
    if any(replace(one, seed=shared.seed) != shared for one in settings):
        raise ValueError("settings differ; expected the same for all students but for the seed")
    if any(model.config != models[0].config for model in models):
        raise ValueError("models differ in shape; expected one shape")
    if not all(rows):
        raise ValueError("no rows to train on")
    torch.set_num_threads(shared.threads)
    started_cpu, started = time.process_time(), time.perf_counter()
    dtype = fastest_dtype(device) if shared.dtype == "auto" else shared.dtype
    records = [TrainRecord(replace(one), dtype) for one in settings]
    seen: list[set[int]] = [set() for _ in models]
    streams = [
        draws(given, one.tokens_per_step, one.seed)
        for given, one in zip(rows, settings, strict=True)
    ]
    lessons = Lessons(rows, shared.tokens_per_step, device)
    students = Students(models, shared, dtype, device)
    held: list[Tensor] = []

    def read(step: int) -> None:
        means = torch.stack(held).mean(0).tolist()
        held.clear()
        for record, mean in zip(records, means, strict=True):
            record.losses.append(round(mean, 4))
        if report:
            report(step, means)

    every = max(1, shared.steps // 100)
    for step in range(shared.steps):
        if step % PLANNED == 0:
            ahead = min(PLANNED, shared.steps - step)
            drawn = [list(islice(stream, ahead)) for stream in streams]
            for record, known, some in zip(records, seen, drawn, strict=True):
                for draw in some:
                    record.add(draw)
                    known.update(map(id, draw.rows))
            plan = lessons.plan(drawn)
        if held and step % every == 0:  # after planning: the device still computed meanwhile
            read(step)
        held.append(students.step(lessons.batch(plan, step % PLANNED), rate(step, shared)))
    read(shared.steps)
    students.hand_back(models)
    for record, known in zip(records, seen, strict=True):
        record.distinct = len(known)
        record.cpu_s = (time.process_time() - started_cpu) / len(records)
        record.wall_s = time.perf_counter() - started
    return records


class Lessons:
    """The rows of all students on a device, and batches of one shape made of them there.

    Args:
        rows: Of each student; a row that several share lies on the device once.
        tokens_per_step: Of a student.
        device: Where.
    """

    def __init__(
        self, rows: Sequence[Sequence[TokenRow]], tokens_per_step: int, device: str
    ) -> None:
        every = {id(row.tokens): row for given in rows for row in given}
        self.numbers = {key: number for number, key in enumerate(every)}
        self.text = text_of(list(every.values()), device)
        self.device = device
        buckets = {bucket_of(row) for row in every.values()}
        self.length = max(buckets)
        """Of every line: the longest row decides."""
        self.lines = max(
            -(-lines_of(bucket, tokens_per_step) // (self.length // bucket)) for bucket in buckets
        )
        """Of every student: what a step of the least fitting length needs."""

    def plan(self, drawn: Sequence[Sequence[Draw]]) -> Tensor:
        """Put on the device what is learnt in some steps.

        Args:
            drawn: Students, and their draws at each step.

        Returns:
            (2, steps, students, rows): numbers of rows, and their places.
        """
        most = max(len(draw.rows) for some in drawn for draw in some)
        end = self.lines * self.length
        numbers, places = [], []
        for at_step in zip(*drawn, strict=True):
            for draw in at_step:
                found = [self.numbers[id(row.tokens)] for row in draw.rows]
                left = most - len(found)
                numbers.append(found + [0] * left)
                places.append(draw.places(self.length) + [end] * left)
        plan = torch.tensor([numbers, places], pin_memory=self.device.startswith("cuda"))
        return plan.to(self.device, non_blocking=True).view(2, -1, len(drawn), most)

    def batch(self, plan: Tensor, step: int) -> Batch:
        """Make the batch of a planned step."""
        return lay_out(self.text, plan[0, step], plan[1, step], self.lines, self.length)


class Students:
    """Stacked weights on a device, and steps for them all; no step waits for the device.

    Args:
        models: Where the weights come from.
        settings: Of the optimizer.
        dtype: The working type.
        device: Where.
    """

    def __init__(
        self, models: Sequence[Qwen2], settings: TrainSettings, dtype: str, device: str
    ) -> None:
        each = [dict(model.named_parameters()) for model in models]
        self.masters = {
            name: torch.stack([parameters[name].detach() for parameters in each]).to(device)
            for name in each[0]
        }
        """Parameter name to float32 weights, (students, ...)."""
        kind = getattr(torch, dtype)
        self.workers = {
            name: part.to(kind, copy=True).requires_grad_() for name, part in self.masters.items()
        }
        copies = {name: worker.detach() for name, worker in self.workers.items()}
        self.optimizer = optimizer_of(self.masters, copies, settings)
        self.config = models[0].config
        cos, sin = (models[0].get_buffer(name).to(device) for name in ("cos", "sin"))
        self.rope = cos, sin

    def step(self, batch: Batch, rate: float) -> Tensor:
        """Take one step, and return the loss of each student before it, (students,)."""
        logits = stacked_logits(self.config, self.workers, self.rope, batch)
        losses = cross_entropy(logits, batch.targets.flatten(1))
        grads = torch.autograd.grad(losses.sum(), list(self.workers.values()))
        self.optimizer.step(dict(zip(self.workers, grads, strict=True)), rate)
        return losses.detach()

    def hand_back(self, models: Sequence[Qwen2]) -> None:
        """Write the weights into models."""
        host = {name: part.cpu() for name, part in self.masters.items()}
        for number, model in enumerate(models):
            model.load_state_dict({name: part[number] for name, part in host.items()})
