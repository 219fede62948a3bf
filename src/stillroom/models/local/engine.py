"""A model directory behind the ChatModel door, run by the C engine on this machine's cores.

A reply depends on the weights and on its own request alone: not on the batch it rides in, the
order of requests, the number of threads, the machine, or what was killed before.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import ModelError
from stillroom.models.chat import Completion, Failure, Reply, Request
from stillroom.models.local import _engine
from stillroom.models.local.checkpoint import Checkpoint, Prompt, PromptError
from stillroom.text.think import split_thinking

# Positions in a page of keys and values, as in engine.c.
PAGE = 16

# How the C engine says why a completion ended.
MORE, STOP, LENGTH, NO_MEMORY = range(4)

# Long enough to cost nothing, short enough that Ctrl-C is felt at once.
POLL_S = 0.1


def _cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Job:
    """What the C engine needs to know of one request.

    Attributes:
        prompt: The rendered conversation.
        temperature: 0 (greedy) or above.
        top_p: Nucleus share.
        limit: Completion tokens at most; fits into the context.
    """

    prompt: Prompt
    temperature: float
    top_p: float
    limit: int


class LocalModel:
    """A language model that runs in this process.

    Args:
        directory: A model in Hugging Face form: config.json, model.safetensors (or shards),
            tokenizer.json, tokenizer_config.json with the chat template.
        name: The model's frozen name, for messages and servers.
        threads: Threads that compute; None takes every core that this process may use.
        slots: Completions that each thread advances together.
        cache_bytes: Memory for keys and values, of all threads together. A single long completion
            may exceed it.
        kernels: Instruction set: ``generic``, ``avx2`` or ``avx512``; None takes the fastest. All
            give the same bits.

    Raises:
        ModelError: If the directory is not a model that the engine can run.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        threads: int | None = None,
        slots: int = 32,
        cache_bytes: int = 2 << 30,
        kernels: str | None = None,
    ) -> None:
        self.name = name
        self.threads = threads or _cores()
        self.slots = slots
        self.checkpoint = Checkpoint(directory, kernels=kernels)
        sizes = self.checkpoint.sizes
        head = -(-sizes.head_dim // 16) * 16
        page_bytes = 2 * 4 * PAGE * sizes.layers * sizes.kv_heads * head
        self._pages = max(1, min(cache_bytes // page_bytes // self.threads, 1 << 30))

    def start(self) -> _engine.Engine:
        """Start the threads; the caller closes them."""
        try:
            return _engine.Engine(
                self.checkpoint.model,
                threads=self.threads,
                slots=self.slots,
                pages=self._pages,
                ends=self.checkpoint.ends,
            )
        except MemoryError as error:
            raise ModelError(
                f"{self.name}: no memory for {self.threads} threads of {self.slots} slots; "
                "expected room for their working memory. Use fewer threads or slots."
            ) from error

    def prepare(self, request: Request) -> Job | Failure:
        """Render, encode and check one request."""
        sampling = request.sampling
        temperature = 1.0 if sampling.temperature is None else sampling.temperature
        top_p = 1.0 if sampling.top_p is None else sampling.top_p
        if not 0 <= temperature <= 1e6:
            return Failure("refused", f"temperature is {temperature}; expected 0 or above")
        if not 0 < top_p <= 1:
            return Failure("refused", f"top_p is {top_p}; expected above 0 and up to 1")
        if sampling.max_tokens is not None and sampling.max_tokens < 1:
            return Failure("refused", f"max_tokens is {sampling.max_tokens}; expected 1 or above")
        try:
            prompt = self.checkpoint.prompt(request.messages)
        except PromptError as error:
            return Failure("refused", str(error)[:500])
        room = self.checkpoint.sizes.context - len(prompt.tokens)
        if room < 1:
            return Failure(
                "too_long",
                f"the prompt has {len(prompt.tokens)} tokens; "
                f"{self.name} reads at most {self.checkpoint.sizes.context - 1}",
            )
        limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        return Job(prompt, temperature, top_p, limit)

    def finish(self, job: Job, tokens: list[int], how: int) -> Reply:
        """Turn drawn tokens into a reply.

        Completion tokens include the end token, which was drawn like any other.
        """
        if how == NO_MEMORY:
            return Failure("no_memory", f"no memory for {len(job.prompt.tokens)} prompt tokens")
        thought = split_thinking(self.checkpoint.text(tokens), opened=job.prompt.opened)
        return Completion(
            reasoning=thought.reasoning,
            answer=thought.answer,
            finish_reason="stop" if how == STOP else "length",
            prompt_tokens=len(job.prompt.tokens),
            completion_tokens=len(tokens),
        )

    def complete(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Reply to each request once, in any order, as soon as each reply is known.

        Twice as many requests as there are slots are held, so that a slot that becomes free while
        the caller is busy has work at once. Draws of one question that arrive together share the
        work on their prompt.
        """
        engine = self.start()
        most = 2 * self.threads * self.slots
        working: dict[int, tuple[Request, Job]] = {}
        waiting = enumerate(requests)
        more = True
        try:
            while more or working:
                if more and len(working) < most:
                    # Replies that are ready go out before the next request is asked for: it may
                    # be long in coming.
                    pulled = next(waiting, None)
                    if pulled is None:
                        more = False
                        continue
                    number, request = pulled
                    job = self.prepare(request)
                    if isinstance(job, Failure):
                        yield request, job
                        continue
                    working[number] = (request, job)
                    engine.submit(
                        number,
                        job.prompt.tokens,
                        request.key,
                        temperature=job.temperature,
                        top_p=job.top_p,
                        limit=job.limit,
                        stream=False,
                    )
                    ready = engine.take(0.0)
                else:
                    ready = engine.take(POLL_S)
                for number, tokens, how in ready:
                    request, job = working.pop(number)
                    yield request, self.finish(job, tokens, how)
        finally:
            engine.close()
