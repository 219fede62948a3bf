"""Which tokens of a conversation are learnt, checked on every row before anything is trained.

A row is learnt from where the prompt, as the student will later read it, ends: reasoning in its
think tags, the answer, and the token that ends the turn. Chat templates differ, and some drop or
change the thinking; what they make of a row is compared with the row.

The prompt and what follows are turned into tokens apart, as a student reads the one and writes the
other; so no token stands across the border.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from stillroom.text.think import OPEN, join_thinking
from stillroom.train.trainer import Example


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


def learnt_tokens(tokenizer: Any, examples: Sequence[Example]) -> list[Learnt]:
    """Turn rows into tokens.

    Args:
        tokenizer: Of the transformers library, with a chat template.
        examples: The rows.

    Raises:
        TemplateUnfit: If the template does not render a row to its prompt followed by what is
            to be said, or does not end the turn with a token at which the student stops.
    """
    prompts: list[str] = []
    rests: list[str] = []
    for example in examples:
        said = join_thinking(example.reasoning, example.answer)
        prompt, rest = _rendered(tokenizer, example.question, said)
        prompts.append(prompt)
        rests.append(rest)
    heads = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tails = tokenizer(rests, add_special_tokens=False)["input_ids"]
    for head, tail, rest, example in zip(heads, tails, rests, examples, strict=True):
        if not head:
            raise TemplateUnfit(f"renders no prompt for {example.question[:60]!r}")
        if tokenizer.eos_token_id not in tail[-4:]:
            raise TemplateUnfit(
                f"ends an answer with {tokenizer.decode(tail[-4:])!r}; expected it to end with "
                f"{tokenizer.eos_token!r}, the token at which the student stops"
            )
        again = tokenizer.decode(tail, skip_special_tokens=False)
        if _plain(again) != _plain(rest):
            at = next((i for i, (a, b) in enumerate(zip(again, rest, strict=False)) if a != b), 0)
            raise TemplateUnfit(
                f"and tokenizer do not give back what a row says: {rest[at : at + 40]!r} came "
                f"back as {again[at : at + 40]!r}"
            )
    return [Learnt([*h, *t], len(h)) for h, t in zip(heads, tails, strict=True)]


def _rendered(tokenizer: Any, question: str, said: str) -> tuple[str, str]:
    """Return the prompt, and what the template puts after it for an answer."""
    asked = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(
        [*asked, {"role": "assistant", "content": said}], tokenize=False
    )
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
