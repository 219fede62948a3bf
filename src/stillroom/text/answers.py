r"""Find the final answer in what a reader sees: the text after the thinking, never the thinking.

Rules, in the order in which they are tried. The name of the rule that fired is kept, so that a
doubtful one can be audited later:

=============  ====================================================================
boxed          the last balanced ``\boxed{...}`` or ``\fbox{...}`` that holds something
tagged         the last ``<answer>...</answer>``
stated         the last "The answer is ...", "Answer: ...", "Final answer: **...**"
hashes         a closing line "#### 42", as in GSM8K
last_number    the last number of the text: a last resort
=============  ====================================================================

and for choices: boxed, tagged, stated, ``whole`` (the text begins with a line "B", "(B)" or
"B. because") and ``last_letter`` (the only "(B)" or "option B" of the last line: a last resort).

Not covered: several boxes that answer together (the last one counts), tables, answers in words
such as "twelve", and several letters at once. All functions take linear time.
"""

import re
from itertools import islice
from typing import Literal, NamedTuple

Rule = Literal["boxed", "tagged", "stated", "hashes", "last_number", "whole", "last_letter"]


class Extracted(NamedTuple):
    """A final answer, and the rule that found it.

    Attributes:
        text: The answer as written, without emphasis and closing full stop.
        rule: The rule that fired.
    """

    text: str
    rule: Rule


def extract_answer(answer: str) -> Extracted | None:
    r"""Find the final answer of a visible answer; None when no rule fires.

    >>> extract_answer(r"So \boxed{\frac{1}{2}} is it.")
    Extracted(text='\\frac{1}{2}', rule='boxed')
    >>> extract_answer("The answer is **12** apples.")
    Extracted(text='12 apples', rule='stated')
    """
    if (text := last_boxed(answer)) is not None:
        return Extracted(text, "boxed")
    if (text := last_tagged(answer)) is not None:
        return Extracted(text, "tagged")
    if (text := last_stated(answer)) is not None:
        return Extracted(text, "stated")
    if (text := closing_hashes(answer)) is not None:
        return Extracted(text, "hashes")
    if (text := last_number(answer)) is not None:
        return Extracted(text, "last_number")
    return None


def extract_choice(answer: str) -> Extracted | None:
    """Find the chosen letter, A to J, of a visible answer; None when no rule fires.

    >>> extract_choice("A dog is a mammal, so the answer is (D).")
    Extracted(text='D', rule='stated')
    """
    if (text := last_boxed(answer)) is not None and (letter := choice_letter(text)):
        return Extracted(letter, "boxed")
    if (text := last_tagged(answer)) is not None and (letter := choice_letter(text)):
        return Extracted(letter, "tagged")
    if letter := _stated_letter(answer):
        return Extracted(letter, "stated")
    lines = answer.strip().splitlines()
    if lines and (letter := choice_letter(lines[0])):
        return Extracted(letter, "whole")
    letters = _letters(lines[-1]) if lines else set()
    return Extracted(letters.pop(), "last_letter") if len(letters) == 1 else None


_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{")
# A run of backslashes is one token: an even run before a brace escapes nothing.
_BRACES = re.compile(r"(?P<slashes>\\++)(?:(?P<box>(?:boxed|fbox)\s*+\{)|[{}])?+|[{}]")


def last_boxed(text: str) -> str | None:
    r"""Return what the last balanced, non-empty ``\boxed{...}`` or ``\fbox{...}`` holds.

    Of nested boxes the outer one counts. A box that never closes is no answer, and neither is
    ``\boxed`` without braces.

    >>> last_boxed(r"\boxed{1} and \boxed{\{2\}} and \boxed{3")
    '\\{2\\}'
    """
    first = _BOX.search(text)
    if first is None:
        return None
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # where the content of a box begins; None for a plain brace
    for found in _BRACES.finditer(text, first.start()):
        mark = found.group()[-1]
        if found["box"]:
            opened.append(found.end())
        elif len(found["slashes"] or "") % 2 or mark == "\\":
            continue
        elif mark == "{":
            opened.append(None)
        else:
            start = opened.pop() if opened else None
            if start is not None and text[start : found.start()].strip():
                last = (start, found.start())
    return text[slice(*last)].strip() if last else None


def last_tagged(text: str) -> str | None:
    """Return what the last ``<answer>...</answer>`` holds, if that is something.

    >>> last_tagged("<answer>1</answer> or rather <answer> 2 </answer>")
    '2'
    """
    before, close_tag, _ = text.rpartition("</answer>")
    _, open_tag, found = before.rpartition("<answer>")
    return found.strip() or None if close_tag and open_tag else None


# The head of a sentence that concludes. Bounded gaps and possessive runs keep it linear.
_STATED = re.compile(
    r"""
    (?: (?:final|correct|right|best)\ (?:answer|option|choice) | \b(?:the|my|our)\ answer
      | ^[#*_> \t]*+answer )
    (?: \ (?:to|for|of)\ [^.\n]{1,80}? )?  # "to the question", "for part (b)"
    [*_]*+
    (?: \s*+ (?: (?: would|will|must|should)\ be | is | are | was ) \b
        (?! \s+(?:not|now|then|unknown|given\ by)\b ) [*_]*+ :?
      | \s*+ [:=]
      | [ \t]*+ \n )  # a heading
    [*_]*+ \s*+
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
# The end of a sentence: a stop before white space. "3.5" has none, and "Dr. X" is rare in answers.
_STOP = re.compile(r"[.!?;](?=[*_$)\"'\s]|$)")


def last_stated(text: str) -> str | None:
    """Return what the last sentence of the form "The answer is ..." states.

    >>> last_stated("**Final answer:** $3.5$ litres. Good luck!")
    '$3.5$ litres'
    """
    starts = [found.end() for found in _STATED.finditer(text)]
    for start in islice(reversed(starts), 10):
        # No final answer is longer than 2,000 characters; the limit keeps bad input cheap.
        if stated := _sentence(text[start : start + 2000].partition("\n")[0]):
            return stated
    return None


def _sentence(line: str) -> str:
    for stop in _STOP.finditer(line):
        # A stop inside $...$ or brackets ends no sentence.
        head = line[: stop.start()]
        if head.count("$") % 2 == 0 and head.count("(") <= head.count(")"):
            line = head
            break
    # Emphasis may have begun before the answer: "**The answer is 12**".
    return line.replace("**", "").strip("_ \t\r").removesuffix(",").removesuffix(".")


_HASHES = re.compile(r"[^\S\n]*####[^\S\n]*(?P<answer>[^\n#][^\n]*)")


def closing_hashes(text: str) -> str | None:
    r"""Return the answer of a closing GSM8K line; a heading in the middle of the text is none.

    >>> closing_hashes("so 6 * 7 = 42\n#### 42")
    '42'
    """
    last_line = text.rstrip().rpartition("\n")[2]
    found = _HASHES.fullmatch(last_line)
    return found["answer"].strip() if found else None


_NUMBER = re.compile(
    r"""
    (?<![\w.])
    (?: (?<![\d)}\]]\s) (?<![\w)}\]]) [-−+] )?+  # a sign, but not a minus between two terms
    \$?+ (?: \d{1,3}(?:,\d{3}(?!\d))++ | \d++ )
    (?: \.\d++ )?+ (?: \s?/\s?\d++ )?+ (?: \s?\\?% )?+
    """,
    re.VERBOSE,
)


def last_number(text: str) -> str | None:
    """Return the last number of a text, with sign, fraction and per cent.

    >>> last_number("Each of the 3 gets 1,250.50 - 4.")
    '4'
    """
    last = None
    for found in _NUMBER.finditer(text):
        last = found.group()
    return last


_OPEN = r"(?:\\?(?:text(?:bf|rm|it)?|mathrm|mathbf))?[({\[*$\\]*+(?:text(?:bf)?|mathrm)?[({\[*]*+"
_LETTER = re.compile(
    r"""
    [\s*_$]*+ (?: (?i:(?:the\ )?(?:correct\ )?(?:option|choice|answer)) \s?:?\s? )?
    """
    + _OPEN
    + r"""
    (?P<letter>[A-J])
    (?: [)}\]*$.:,\s]*+ $ | [)}\]*$]*+ [.:]?+ (?<=[).:*}\]]) [)}\]*$.]*+ \s .* )  # "B. because ..."
    """,
    re.VERBOSE,
)
_STATED_LETTER = re.compile(
    r"""
    (?: (?i:answer|option|choice) \s*+
        (?: (?i:is|(?:would|should|must)\ be)\b | [:=] ) [:*_\s]*+
        (?i: (?:option|choice|letter)\s+ )?
      | \b[Oo]ption\s+ | \b[Cc]hoice\s+ )
    """
    + _OPEN
    + r"""
    (?P<letter>[A-J]) (?! [\w'’-] ) (?P<after> [)}\]*$.:,;]*+ [ \t]*+ [A-Za-z]*+ )
    """,
    re.VERBOSE,
)
_LETTER_IN_LINE = re.compile(r"\(([A-J])\)|\b(?:[Oo]ption|[Cc]hoice)\s+\(?([A-J])\b")
# After a bare A or I, only these words say that it was a letter and not a word of the sentence.
_AFTER_A_LETTER = {"because", "since", "as", "is", "and", "so", "would"}


def choice_letter(text: str) -> str | None:
    r"""Return the letter, A to J, if a text is a choice: "(B)", "B.", "option C", "\text{D}".

    >>> choice_letter("B. The mitochondria"), choice_letter("A dog")
    ('B', None)
    """
    found = _LETTER.fullmatch(text.strip()[:1000])
    if found is None:
        return None
    others = _letters(found.string) - {found["letter"]}
    return None if others else found["letter"]  # "(A) or (B)" is no choice


def _letters(line: str) -> set[str]:
    return {in_brackets or named for in_brackets, named in _LETTER_IN_LINE.findall(line)}


def _stated_letter(text: str) -> str | None:
    last = None
    for found in _STATED_LETTER.finditer(text):
        word = found["after"].strip()
        if found["letter"] in "AI" and word.isalpha() and word not in _AFTER_A_LETTER:
            continue  # "the answer is A dog", "the answer is I think"
        last = found["letter"]
    return last
