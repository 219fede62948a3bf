"""Verify the letter of a multiple-choice answer."""

from collections.abc import Sequence

from stillroom.text.answers import Extracted, choice_letter, extract_answer, extract_choice
from stillroom.text.normal import normal_form
from stillroom.verifiers.verdict import Task, Verdict

LETTERS = "ABCDEFGHIJ"


class ChoiceVerifier:
    """Compare letters; an answer that quotes the text of exactly one option counts as its letter.

    Not covered: questions with several right letters, and more than ten options.
    """

    name = "choice/2"

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks."""
        return [self._verdict(task) for task in tasks]

    def _verdict(self, task: Task) -> Verdict:
        found = extract_choice(task.answer) or _quoted(task)
        letter, rule = found or (None, None)
        if task.reference is None or not task.reference.strip():
            return Verdict("no_reference", letter, rule, None, self.name)
        reference = _option(task.reference, task.choices) or choice_letter(task.reference.upper())
        if reference is None:
            detail = f"the reference {task.reference[:80]!r} is neither a letter nor an option"
            return Verdict("unparsed", letter, rule, detail, self.name)
        if letter is None:
            return Verdict(
                "unparsed", None, None, "no letter and no option in the answer", self.name
            )
        if task.choices and letter not in LETTERS[: len(task.choices)]:
            detail = f"the letter {letter} is beyond the {len(task.choices)} options"
            return Verdict("unparsed", letter, rule, detail, self.name)
        same = letter == reference
        return Verdict("correct" if same else "incorrect", letter, rule, None, self.name)


def _quoted(task: Task) -> Extracted | None:
    found = extract_answer(task.answer)
    if found and found.rule != "last_number" and (letter := _option(found.text, task.choices)):
        return Extracted(letter, found.rule)
    letter = _option(task.answer, task.choices)
    return Extracted(letter, "whole") if letter else None


def _option(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter of the only option with this text."""
    form = normal_form(text).strip("$. ")
    same = [i for i, choice in enumerate(choices) if normal_form(choice).strip("$. ") == form]
    return LETTERS[same[0]] if len(same) == 1 and same[0] < len(LETTERS) else None
