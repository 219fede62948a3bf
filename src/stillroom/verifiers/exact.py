"""Verify by equality of text: for words, names and other answers that are no mathematics."""

from collections.abc import Sequence

from stillroom.text.answers import extract_answer
from stillroom.text.normal import normal_form
from stillroom.verifiers.verdict import Task, Verdict


class ExactVerifier:
    """Compare the normal form of the final answer with that of the reference.

    The final answer is the boxed or stated one, else the whole visible answer. The last number
    of a text is never taken, because here an answer is usually no number.
    """

    name = "exact/1"

    def verify(self, tasks: Sequence[Task]) -> list[Verdict]:
        """Return one verdict for each task, in the order of the tasks."""
        return [self._verdict(task) for task in tasks]

    def _verdict(self, task: Task) -> Verdict:
        found = extract_answer(task.answer)
        if found is None or found.rule == "last_number":
            text, rule = task.answer.strip(), "whole"
        else:
            text, rule = found
        if task.reference is None or not task.reference.strip():
            return Verdict("no_reference", text or None, rule, None, self.name)
        if not text:
            return Verdict("unparsed", None, None, "no answer", self.name)
        same = normal_form(text) == normal_form(task.reference)
        return Verdict("correct" if same else "incorrect", text, rule, None, self.name)
