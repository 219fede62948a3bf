"""Judges for tests: they read the prompt as a reader would, and reply by a rule."""

import json
import re
from collections.abc import Callable

from stillroom.models.chat import Completion, Request

PARTS = re.compile(
    r"^(?P<mark>[0-9a-f]{12}) QUESTION\n(?P<question>.*)\n(?P=mark) REFERENCE\n(?P<reference>.*)\n"
    r"(?P=mark) ANSWER\n(?P<answer>.*)\n(?P=mark) END$",
    re.DOTALL | re.MULTILINE,
)


def shown(prompt: str) -> tuple[str, str, str]:
    """Return question, reference and answer, as the marks part them."""
    found = PARTS.search(prompt)
    assert found is not None, prompt
    return found["question"], found["reference"], found["answer"]


def says(verdict: str, reason: str = "because") -> str:
    return json.dumps({"reason": reason, "verdict": verdict})


def replying(rule: Callable[[str, str, str], str]) -> Callable[[Request], Completion]:
    """Make a judge of a rule that takes question, reference and answer, and words the reply."""

    def judge(request: Request) -> Completion:
        return Completion(None, rule(*shown(request.messages[-1].content)), "stop", 1, 1)

    return judge


def compares(question: str, reference: str, answer: str) -> str:
    """Judge well: the same words, whatever their case, are the same."""
    same = answer.casefold().split() == reference.casefold().split()
    return says("correct" if same else "incorrect")


honest = replying(compares)
