"""Which tokens of a conversation are learnt, checked on every row before anything is trained.

A row is learnt from where the prompt, as the student will later read it, ends: reasoning in its
think tags, the answer, and the token that ends the turn. Chat templates differ, and some drop or
change the thinking; what they make of a row is compared with the row.

The prompt and what follows are turned into tokens apart, as a student reads the one and writes the
other; so no token stands across the border.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from stillroom.models.chat import Message
from stillroom.models.local.checkpoint import PromptError
from stillroom.text.think import OPEN, join_thinking
from stillroom.train.trainer import Example, Job, TrainingFailed

_TOGETHER = 512  # rows turned into tokens at a time


class Learnt(NamedTuple):
    """One row as tokens.

    Attributes:
        tokens: Prompt and completion.
        start: First position that is learnt; the prompt is before it.
    """

    tokens: list[int]
    start: int


class TemplateUnfit(Exception):
    """A chat template that does not show the student what the rows say."""


class Speaks(Protocol):
    """A tokenizer with a chat template, such as `stillroom.models.local.checkpoint.Speech`."""

    @property
    def end(self) -> int:
        """Token id that ends a turn."""
        ...

    def rendered(self, messages: tuple[Message, ...], *, ask: bool) -> str:
        """Render a conversation, and the opening of an answer if one is asked for."""
        ...

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts as they stand, without special tokens."""
        ...

    def decoded(self, tokens: Sequence[int]) -> str:
        """Decode tokens, special ones too."""
        ...


def learnt_rows(speech: Speaks, job: Job) -> Iterator[Learnt]:
    """Turn all rows of a training into tokens, in their order.

    Raises:
        TrainingFailed: If the base model's chat template does not fit; see `learnt_tokens`.
    """
    examples = job.examples()
    while batch := list(islice(examples, _TOGETHER)):
        try:
            yield from learnt_tokens(speech, batch)
        except TemplateUnfit as error:
            raise TrainingFailed(
                f"the chat template of {job.base} {error}. Give the base model a template that "
                "keeps what rows say"
            ) from None


def learnt_tokens(speech: Speaks, examples: Sequence[Example]) -> list[Learnt]:
    """Turn rows into tokens.

    Args:
        speech: How the student is spoken to.
        examples: The rows.

    Raises:
        TemplateUnfit: If the template does not render a row to its prompt followed by what is
            to be said, or does not end the turn with a token at which the student stops.
    """
    prompts: list[str] = []
    rests: list[str] = []
    for example in examples:
        said = join_thinking(example.reasoning, example.answer)
        prompt, rest = _rendered(speech, example.question, said)
        prompts.append(prompt)
        rests.append(rest)
    heads, tails = speech.encoded(prompts), speech.encoded(rests)
    for head, tail, rest, example in zip(heads, tails, rests, examples, strict=True):
        if not head:
            raise TemplateUnfit(f"renders no prompt for {example.question[:60]!r}")
        if speech.end not in tail[-4:]:
            raise TemplateUnfit(
                f"ends an answer with {speech.decoded(tail[-4:])!r}; expected it to end with "
                f"{speech.decoded([speech.end])!r}, the token at which the student stops"
            )
        again = speech.decoded(tail)
        if _plain(again) != _plain(rest):
            at = next((i for i, (a, b) in enumerate(zip(again, rest, strict=False)) if a != b), 0)
            raise TemplateUnfit(
                f"and tokenizer do not give back what a row says: {rest[at : at + 40]!r} came "
                f"back as {again[at : at + 40]!r}"
            )
    return [Learnt([*h, *t], len(h)) for h, t in zip(heads, tails, strict=True)]


def _rendered(speech: Speaks, question: str, said: str) -> tuple[str, str]:
    """Return the prompt, and what the template puts after it for an answer."""
    asked = (Message("user", question),)
    try:
        prompt = speech.rendered(asked, ask=True)
        whole = speech.rendered((*asked, Message("assistant", said)), ask=False)
    except PromptError as error:
        raise TemplateUnfit(f"refuses {question[:60]!r}: {error}") from None
    if not whole.startswith(prompt):
        raise TemplateUnfit(
            "writes another prompt before an answer than when it asks for one, "
            f"{prompt[-60:]!r}; expected the same"
        )
    rest = whole[len(prompt) :]
    # Some prompts open the thinking themselves. Templates may trim what is said, not change it.
    opened = prompt[prompt.rindex(OPEN) :] if prompt.rstrip().endswith(OPEN) else ""
    if not (opened + rest).strip().startswith(said.strip()):
        raise TemplateUnfit(
            f"changes what is said: {said[:60]!r} became {rest[:60]!r}; expected think tags and "
            "text as they are"
        )
    return prompt, rest


def _plain(text: str) -> str:
    """Allow for what tokenizers normalise: composed characters, and blanks at the ends."""
    return unicodedata.normalize("NFC", text).strip()
