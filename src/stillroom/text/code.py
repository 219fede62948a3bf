"""Find the program in what a reader sees: the last fenced block of the right language.

Rules, in the order in which they are tried; the name of the rule that fired is kept:

=============  ====================================================================
defining       where a function or class is asked for: the last closed block of the right
               language that defines one, because many answers end in an example of its use
fenced         the last closed block whose language is the right one
unnamed        the last closed block without a language
unclosed       a last block of the right language, or of none, that the text ends in
=============  ====================================================================

A block of another language is never taken. A fence inside a longer fence does not close it.
"""

import re
from typing import Literal, NamedTuple

Language = Literal["python", "cpp", "javascript", "verilog"]
CodeRule = Literal["defining", "fenced", "unnamed", "unclosed"]

NAMES: dict[Language, frozenset[str]] = {
    "python": frozenset({"python", "python3", "py", "py3"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx", "c"}),
    "javascript": frozenset({"javascript", "js", "node", "nodejs"}),
    "verilog": frozenset({"verilog", "systemverilog", "sv", "v"}),
}
"""What models write behind the fence."""


class Code(NamedTuple):
    """A program, and the rule that found it."""

    text: str
    rule: CodeRule


_FENCE = re.compile(r"^[ \t]{0,12}(`{3,}|~{3,})[ \t]*([^\s`]*)[^`\n]*$", re.MULTILINE)


_DEFINITION = re.compile(r"^(?:async +def|def|class) ", re.MULTILINE)


def closed_blocks(answer: str) -> str:
    r"""Return an answer up to the end of its last closed block; nothing if it has none.

    >>> closed_blocks("So:\n```\n1\n```\nor\n```\n2")
    'So:\n```\n1\n```'
    """
    opened: str | None = None
    end = 0
    for fence in _FENCE.finditer(answer):
        if opened is None:
            opened = fence[1]
        elif fence[1].startswith(opened) and not fence[2].strip("{}."):
            opened, end = None, fence.end()
    return answer[:end]


def extract_code(answer: str, language: Language, *, defining: bool = False) -> Code | None:
    r"""Find the program of a visible answer; None when no rule fires.

    Args:
        answer: What a reader sees.
        language: Of the program.
        defining: Whether a Python function or class is asked for, and not a script.

    >>> extract_code("So:\n```python\nprint(1)\n```\nDone.", "python")
    Code(text='print(1)\n', rule='fenced')
    """
    found: dict[CodeRule, str] = {}
    opened: tuple[str, str, int] | None = None  # fence, language, where the text begins
    for fence in _FENCE.finditer(answer):
        mark, name = fence[1], fence[2].lower().strip("{}.")
        if opened is None:
            opened = (mark, name, fence.end() + 1)
        elif mark.startswith(opened[0]) and not name:
            text = answer[opened[2] : fence.start()]
            if text.strip() and opened[1] in NAMES[language]:
                found["fenced"] = text
                if defining and _DEFINITION.search(text):
                    found["defining"] = text
            elif text.strip() and not opened[1]:
                found["unnamed"] = text
            opened = None
    if opened is not None and opened[1] in {*NAMES[language], ""}:
        text = answer[opened[2] :]
        if text.strip():
            found["unclosed"] = text
    rules: tuple[CodeRule, ...] = ("defining", "fenced", "unnamed", "unclosed")
    for rule in rules:
        if rule in found:
            return Code(found[rule], rule)
    return None
