"""Reasoning kept apart from the answer, whatever form a server sends it in."""

from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"


class Thought(NamedTuple):
    """One completion, split once.

    Attributes:
        reasoning: The thinking, stripped; None when the text holds no think tag.
        answer: What a reader sees, stripped; empty when the thinking never closes.
    """

    reasoning: str | None
    answer: str


def split_thinking(text: str, *, opened: bool = False) -> Thought:
    """Split a completion at its think tags.

    The first ``</think>`` ends the thinking: answers may quote the tag, thinking does not. Text
    before ``<think>`` counts as part of the answer only if it is more than white space.

    Args:
        text: The whole completion.
        opened: Whether the prompt already ended in ``<think>``, as some chat templates do, so
            that the completion starts inside the thinking.

    >>> split_thinking("<think>2+2=4</think>The answer is 4.")
    Thought(reasoning='2+2=4', answer='The answer is 4.')
    >>> split_thinking("<think>2+2=")
    Thought(reasoning='2+2=', answer='')
    >>> split_thinking("4")
    Thought(reasoning=None, answer='4')
    """
    before, open_tag, rest = text.partition(OPEN)
    if not open_tag:
        thinking, close_tag, answer = text.partition(CLOSE)
        if close_tag:  # the template opened the thinking, so only its end is in the completion
            return Thought(thinking.strip(), answer.strip())
        return Thought(text.strip(), "") if opened else Thought(None, text.strip())
    thinking, close_tag, answer = rest.partition(CLOSE)
    if not close_tag:
        return Thought(thinking.strip(), before.strip())
    return Thought(thinking.strip(), (before.strip() + "\n" + answer.strip()).strip())


def join_thinking(reasoning: str | None, answer: str) -> str:
    r"""Write one completion in the form in which datasets are published.

    ``<think>\n{reasoning}\n</think>\n\n{answer}``, or the answer alone when there is no reasoning.

    Source: OpenThoughts, `final_reasoning_trace` of the released pipeline.
    """
    if reasoning is None:
        return answer
    return f"{OPEN}\n{reasoning}\n{CLOSE}\n\n{answer}"
